"""Charts as SVG text for a page: coloured by the page's CSS, so that they suit light and dark."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Matplotlib wants numbers: these stand in for the CSS variables that replace them afterwards.
INK, MUTED, LINE, PAPER, ACCENT, ALERT = (f"#00000{n}" for n in range(1, 7))
SERIES = tuple(f"#0000{n}" for n in range(10, 18))  # of classes, told apart with any colour vision
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper", ACCENT: "accent", ALERT: "alert"}
VARIABLES |= {colour: f"c{n}" for n, colour in enumerate(SERIES, 1)}
TIP = "tip-"  # what the id of an artist begins with that says something under the pointer
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "kit",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlecolor": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
}
METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Box:
    """The size of a chart and the margins around its axes, in CSS pixels."""

    width: float
    height: float
    left: float = 52
    right: float = 12
    bottom: float = 46
    top: float = 26


def chart(name: str, label: str, box: Box, draw: Callable[[Axes], None]) -> str:
    """Draw on one pair of axes and return an ``<svg>`` element.

    Args:
        name: what its ids begin with: unique on the page.
        label: what it shows, in words, for those who do not see it.
    """
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # The page's own fonts draw the text, so a glyph that is missing here is not missing there.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(box.width / 72, box.height / 72))
        place = (
            box.left / box.width,
            box.bottom / box.height,
            1 - (box.left + box.right) / box.width,
            1 - (box.top + box.bottom) / box.height,
        )
        FigureCanvasSVG(figure)
        draw(figure.add_axes(place))
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=METADATA)
    return _inline(stream.getvalue(), name, label, box)


def tip(artist: Artist, text: str) -> None:
    """Say something of a bar or a dot when the pointer is on it; it must be a single drawn thing."""
    artist.set_gid(TIP + quote(text, safe=""))


def _inline(svg: str, name: str, label: str, box: Box) -> str:
    """An SVG document as an element of a page: own ids, no fixed size, the page's colours."""
    body = svg[svg.index("<svg") : svg.rindex("</svg>")]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.S)
    body = re.sub(rf'<g id="{TIP}([^"]*)">', _titled, body)
    body = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    body = body.replace("xlink:href", "href").replace("'DejaVu Sans', sans-serif", "var(--font)")
    for colour, variable in VARIABLES.items():
        body = body.replace(f": {colour}", f": var(--{variable})")
    body = re.sub(r"\n\s*", "\n", body).strip()
    head = (
        f'<svg role="img" aria-label="{html.escape(label)}" style="max-width:{box.width:g}px"'
        f' viewBox="0 0 {box.width:g} {box.height:g}">'
    )
    return f"{head}\n{body}\n</svg>"


def _titled(group: re.Match[str]) -> str:
    return f"<g><title>{html.escape(unquote(group[1]))}</title>"
