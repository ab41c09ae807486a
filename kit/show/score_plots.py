"""Charts of a run: scores, calibration, discrimination, learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kit.combine.reliability import Bin
from kit.metrics import Array
from kit.show.diagnosis import Curve, Found
from kit.show.plots import ACCENT, ALERT, LINE, MUTED, PAPER, Box, chart, tip


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
        _rows(axes, len(dots))
        axes.set_xlabel("score, lower is better")
        _reference(axes, constant, "constant", "left")
        if limit is not None:
            _reference(axes, limit, "limit", "right")
        for place, dot in enumerate(dots):
            _interval(axes, place, dot, high)

    return chart(name, label, Box(400, 40 * len(dots) + 72, left=8, right=8, top=28), draw)


def differences(name: str, label: str, dots: Sequence[Dot]) -> str:
    """Paired differences with their 95 % intervals, one under another; a line at no difference."""
    ends = [0.0, *(end for dot in dots for end in (dot.low, dot.score, dot.high) if end is not None)]
    low, high = min(ends), max(ends)
    room = 0.04 * (high - low) or 0.05

    def draw(axes: Axes) -> None:
        axes.set_xlim(low - room, high + room)
        _rows(axes, len(dots))
        axes.set_xlabel("scores lower by, above 0 the submitted one is better")
        axes.axvline(0, color=ALERT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        for place, dot in enumerate(dots):
            _interval(axes, place, dot, high + room, "+.4f")

    return chart(name, label, Box(400, 40 * len(dots) + 72, left=8, right=8, top=28), draw)


def _rows(axes: Axes, count: int) -> None:
    """Room for so many lines, one under another, each with its name above it."""
    axes.set_ylim(count - 0.6, -0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)


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


def _interval(axes: Axes, place: int, dot: Dot, edge: float, form: str = ".4f") -> None:
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
    axes.text(1, place - 0.36, f"{dot.score:{form}}".replace("-", "−"), ha="right", **text)
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
    (mark,) = axes.plot(
        [min(dot.score, edge)],
        [place],
        marker=">" if outside else "o",
        color=colour,
        markersize=8 if dot.strong else 6,
        clip_on=False,
    )
    span = (
        ""
        if dot.low is None or dot.high is None
        else f", 95 % interval {dot.low:{form}} to {dot.high:{form}}"
    )
    tip(mark, f"{dot.name}: {dot.score:{form}}{span}")


def reliability(
    name: str, label: str, title: str, bins: Sequence[Bin], before: Sequence[Bin] = (), called: str = ""
) -> str:
    """Predicted against observed shares, with 95 % intervals and the diagonal; hollow as they were before.

    Args:
        before: the bins of the same units before calibration. called: whose they are.
    """

    def draw(axes: Axes) -> None:
        _square(axes, title, "predicted probability", "observed share, as scored")
        if before:
            axes.plot(
                [b.predicted for b in before],
                [b.observed for b in before],
                color=MUTED,
                linewidth=1.1,
                linestyle=(0, (2, 2)),
            )
            _bins(axes, before, MUTED, PAPER, f"{called}, as it came")
        for b in bins:
            axes.plot([b.predicted] * 2, [b.low, b.high], color=ACCENT, linewidth=1.6, alpha=0.55)
        axes.plot([b.predicted for b in bins], [b.observed for b in bins], color=ACCENT, linewidth=1.2)
        _bins(axes, bins, ACCENT, ACCENT, "calibrated")

    return chart(name, label, Box(300, 292), draw)


def _bins(axes: Axes, bins: Sequence[Bin], edge: str, face: str, called: str) -> None:
    for b in bins:
        (mark,) = axes.plot(
            [b.predicted], [b.observed], "o", markersize=5.5, markeredgecolor=edge, markerfacecolor=face
        )
        text = f"{called}: {b.units} units, predicted {b.predicted:.3f}, observed {b.observed:.3f}"
        tip(mark, f"{text} ({b.low:.3f} to {b.high:.3f})")


def curve(name: str, label: str, title: str, found: Curve) -> str:
    """A ROC curve and the diagonal of guessing."""

    def draw(axes: Axes) -> None:
        _square(axes, title, "false positive rate", "true positive rate")
        axes.fill_between(found.false, found.true, color=ACCENT, alpha=0.1, linewidth=0)
        axes.plot(found.false, found.true, color=ACCENT, linewidth=2)

    return chart(name, label, Box(300, 292), draw)


def precision_recall(name: str, label: str, title: str, found: Found) -> str:
    """A precision-recall curve in steps, as average precision adds it up, and the line of guessing."""

    def draw(axes: Axes) -> None:
        _square(axes, title, "recall", "precision", diagonal=False)
        axes.axhline(found.prevalence, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"prevalence {found.prevalence:.3f}",
            (1, found.prevalence),
            xytext=(0, -13 if found.prevalence > 0.15 else 4),
            textcoords="offset points",
            ha="right",
            color=MUTED,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.8},
        )
        axes.fill_between(found.recall, found.precision, step="pre", color=ACCENT, alpha=0.1, linewidth=0)
        axes.step(found.recall, found.precision, where="pre", color=ACCENT, linewidth=2)

    return chart(name, label, Box(300, 292), draw)


def bars(name: str, label: str, across: str, found: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars, one under another, each with its name above it and its words at its right.

    Args:
        found: of each bar its name, its length and its words; the length may be below 0.
    """
    low, high = min(0.0, *(value for _, value, _ in found)), max(0.0, *(value for _, value, _ in found))

    def draw(axes: Axes) -> None:
        axes.set_xlim(low, high or (0.0 if low else 1.0))
        _rows(axes, len(found))
        axes.set_xlabel(across)
        if low < 0:
            axes.axvline(0, color=MUTED, linewidth=1)
        for place, (what, value, words) in enumerate(found):
            (bar,) = axes.barh([place], [value], height=0.3, color=ACCENT, alpha=0.75)
            tip(bar, f"{what}: {words}")
            text: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
            axes.text(0, place - 0.38, what, ha="left", **text)
            axes.text(1, place - 0.38, words, ha="right", **text)

    return chart(name, label, Box(400, 40 * len(found) + 72, left=8, right=12, top=20), draw)


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


def _square(axes: Axes, title: str, across: str, up: str, diagonal: bool = True) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title, xlabel=across, ylabel=up)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    if diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
