"""Charts as SVG text for a page: coloured by the page's CSS, so that they suit light and dark."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kit.combine.reliability import Bin
from kit.metrics import Array
from kit.show.diagnosis import Curve

# Matplotlib wants numbers: these stand in for the CSS variables that replace them afterwards.
INK, MUTED, LINE, PAPER, ACCENT, ALERT = (f"#00000{n}" for n in range(1, 7))
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper", ACCENT: "accent", ALERT: "alert"}
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


def _inline(svg: str, name: str, label: str, box: Box) -> str:
    """An SVG document as an element of a page: own ids, no fixed size, the page's colours."""
    body = svg[svg.index("<svg") : svg.rindex("</svg>")]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.S)
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


@dataclass(frozen=True)
class Dot:
    """One line of an interval chart."""

    name: str
    score: float
    low: float | None = None
    high: float | None = None
    strong: bool = False


def intervals(name: str, label: str, dots: Sequence[Dot], constant: float, limit: float | None) -> str:
    """Scores with their 95 % intervals, one under another; lines at the constant and the limit."""
    low, high = score_range(dots, constant, limit)

    def draw(axes: Axes) -> None:
        axes.set_xlim(low, high)
        axes.set_ylim(len(dots) - 0.6, -0.8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("score, lower is better")
        _reference(axes, constant, "constant", "left")
        if limit is not None:
            _reference(axes, limit, "limit", "right")
        for place, dot in enumerate(dots):
            _interval(axes, place, dot, high)

    return chart(name, label, Box(400, 40 * len(dots) + 72, left=8, right=8, top=28), draw)


def score_range(dots: Sequence[Dot], constant: float, limit: float | None) -> tuple[float, float]:
    """What the axis spans: everything, except that a score far beyond the constant leaves it."""
    ends = [constant, *([] if limit is None else [limit])]
    for dot in dots:
        ends += [dot.score, *(end for end in (dot.low, dot.high) if end is not None)]
    low, high = min(ends), max(ends)
    if constant > low:
        high = min(high, constant + 2 * (constant - low))
    room = 0.04 * (high - low) or 0.05
    return low - room, high + room


def _reference(axes: Axes, at: float, text: str, side: str) -> None:
    axes.axvline(at, color=ALERT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    shift = (3, 4) if side == "left" else (-3, 4)
    axes.annotate(
        f"{text} {at:.4f}",
        (at, 1),
        xycoords=("data", "axes fraction"),
        color=ALERT,
        xytext=shift,
        textcoords="offset points",
        ha=_fits(axes, at, side),
    )


def _fits(axes: Axes, at: float, side: str) -> str:
    """The side of a line its text goes to, unless the chart ends there."""
    low, high = axes.get_xlim()
    share = (at - low) / (high - low)
    if side == "left":
        return "left" if share < 0.75 else "right"
    return "right" if share > 0.25 else "left"


def _interval(axes: Axes, place: int, dot: Dot, edge: float) -> None:
    colour = ACCENT if dot.strong else MUTED
    weight = "bold" if dot.strong else "normal"
    box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
    text: dict[str, Any] = {
        "transform": axes.get_yaxis_transform(),
        "va": "center",
        "fontweight": weight,
        "bbox": box,
    }
    axes.text(0, place - 0.36, dot.name, ha="left", **text)
    axes.text(1, place - 0.36, f"{dot.score:.4f}", ha="right", **text)
    if dot.low is not None and dot.high is not None:
        axes.plot(
            [dot.low, dot.high],
            [place, place],
            color=colour,
            linewidth=3.5 if dot.strong else 2.2,
            solid_capstyle="round",
            alpha=0.55,
        )
    outside = dot.score > edge
    axes.plot(
        [min(dot.score, edge)],
        [place],
        marker=">" if outside else "o",
        color=colour,
        markersize=8 if dot.strong else 6,
        clip_on=False,
    )


def reliability(name: str, label: str, title: str, bins: Sequence[Bin]) -> str:
    """Predicted against observed shares, with 95 % intervals and the diagonal."""

    def draw(axes: Axes) -> None:
        _square(axes, title, "predicted probability", "observed share, as scored")
        for b in bins:
            axes.plot([b.predicted] * 2, [b.low, b.high], color=ACCENT, linewidth=1.6, alpha=0.55)
        axes.plot(
            [b.predicted for b in bins],
            [b.observed for b in bins],
            color=ACCENT,
            marker="o",
            markersize=5.5,
            linewidth=1.2,
        )

    return chart(name, label, Box(300, 292), draw)


def curve(name: str, label: str, title: str, found: Curve) -> str:
    """A ROC curve and the diagonal of guessing."""

    def draw(axes: Axes) -> None:
        _square(axes, title, "false positive rate", "true positive rate")
        axes.fill_between(found.false, found.true, color=ACCENT, alpha=0.1, linewidth=0)
        axes.plot(found.false, found.true, color=ACCENT, linewidth=2)

    return chart(name, label, Box(300, 292), draw)


def learning(name: str, label: str, title: str, curves: Sequence[tuple[Array, Array]]) -> str:
    """Loss by epoch of several fits: of training, and dashed of what was set aside, its least marked."""

    def draw(axes: Axes) -> None:
        axes.set(title=title, xlabel="epoch", ylabel="loss")
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        for loss, inner in curves:
            epochs = range(1, len(loss) + 1)
            axes.plot(epochs, loss, color=ACCENT, linewidth=1.4, alpha=0.7)
            axes.plot(epochs, inner, color=MUTED, linewidth=1.4, linestyle=(0, (4, 3)))
            if not np.isnan(inner).all():
                best = int(np.nanargmin(inner))
                axes.plot([best + 1], [inner[best]], marker="o", color=ALERT, markersize=5)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return chart(name, label, Box(400, 260), draw)


def _square(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title, xlabel=across, ylabel=up)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
