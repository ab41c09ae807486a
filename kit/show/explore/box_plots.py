"""Charts of annotations: boxes on the frame of an image, and where boxes lie."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from kit.metrics import Array
from kit.show.explore.drawn import colour
from kit.show.plots import INK, LINE, PAPER, Box, chart, tip
from kit.show.sheet import HEAT

CELLS = 48  # of a coverage map, each side
SIDE = 520  # of the longer side of a frame, CSS pixels
LARGE = 3  # pixels of a cell in its picture


@dataclass(frozen=True)
class Mark:
    """A box in shares of its image, x_min, y_min, x_max, y_max; of what, and by whom."""

    corners: Array
    finding: str
    reader: str


def frame(name: str, label: str, size: tuple[float, float], marks: Sequence[Mark], picture: str = "") -> str:
    """Numbered boxes over an image, or over an empty frame of its shape, as an ``<svg>`` element.

    Args:
        size: width and height of the image, px.
        picture: the image as a ``data:`` address.
    """
    kinds = sorted({mark.finding for mark in marks})
    scale, legend = SIDE / max(size), 8.0 + 19 * -(-len(kinds) // 2)
    width, height = size[0] * scale, size[1] * scale
    large = np.prod([mark.corners[2:] - mark.corners[:2] for mark in marks], axis=1)

    def draw(axes: Axes) -> None:
        axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=LINE)
        for place in np.argsort(-large, kind="stable").tolist():  # the small ones on top
            mark = marks[place]
            _numbered(axes, place + 1, mark, colour(kinds.index(mark.finding)))
        for number, kind in enumerate(kinds):
            axes.plot([], [], "s", color=colour(number), label=kind)
        axes.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=2, frameon=False, fontsize=11,
                    handletextpad=0.2, borderaxespad=0.2)  # fmt: skip

    svg = chart(name, label, Box(width, height + legend, 0, 0, legend, 0), draw)
    if not picture:
        return svg
    head, _, body = svg.partition("\n")
    image = f'<image href="{html.escape(picture)}" width="{width:g}" height="{height:g}"/>'
    return f"{head}\n{image}\n{body}"


def _numbered(axes: Axes, number: int, mark: Mark, edge: str) -> None:
    left, top, right, bottom = mark.corners.tolist()
    place = (left, top), right - left, bottom - top
    # The light line below it shows on whatever the image is there.
    axes.add_patch(Rectangle(*place, fill=False, edgecolor=PAPER, linewidth=3.5, alpha=0.7))
    axes.add_patch(Rectangle(*place, fill=False, edgecolor=edge, linewidth=1.8))
    inside = axes.add_patch(Rectangle(*place, facecolor=edge, edgecolor="none", alpha=0.06))
    tip(inside, f"{number}: {mark.finding}, {mark.reader}")
    axes.text(left, top, str(number), color=INK, fontsize=8.5, va="bottom", ha="left", clip_on=True,
              bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.6})  # fmt: skip


def coverage(boxes: Array) -> Array:
    """The share of boxes that cover each cell of an image: ``(CELLS, CELLS)``, row by row from the top.

    Args:
        boxes: ``(n, 4)``, x_min, y_min, x_max, y_max in shares of width and height. A cell that a box
            reaches into counts as covered.
    """
    # Corners of each box add and take away 1; summed up along both axes that fills it.
    low = np.clip(np.floor(boxes[:, :2] * CELLS), 0, CELLS - 1).astype(np.int64)
    high = np.clip(np.ceil(boxes[:, 2:] * CELLS), low + 1, CELLS).astype(np.int64)
    steps = np.zeros((CELLS + 1, CELLS + 1))
    for rows, columns, sign in (
        (low[:, 1], low[:, 0], 1), (low[:, 1], high[:, 0], -1), (high[:, 1], low[:, 0], -1),
        (high[:, 1], high[:, 0], 1),
    ):  # fmt: skip
        np.add.at(steps, (rows, columns), sign)
    return np.asarray(steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] / max(1, len(boxes)))


def heat(shares: Array) -> NDArray[np.uint8]:
    """A coverage map in colours, its greatest share the brightest: uint8 (3 CELLS, 3 CELLS, 3)."""
    scaled = shares / max(float(shares.max(initial=0)), 1e-9)
    colours: NDArray[np.uint8] = matplotlib.colormaps[HEAT](scaled, bytes=True)[..., :3]
    return np.repeat(np.repeat(colours, LARGE, axis=0), LARGE, axis=1)
