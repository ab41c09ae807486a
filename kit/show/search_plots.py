"""Charts of a search for settings: how it went, and which settings the good trials have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from kit.metrics import Array
from kit.show.plots import ACCENT, LINE, MUTED, PAPER, SERIES, Box, chart, tip

MARKERS = "osD^vP*X"  # of folds: colour is not all that tells them apart
MOST = 300  # trials of a chart


@dataclass(frozen=True)
class History:
    """The trials of one fold, by number: their losses, and whether each saw all inner splits."""

    fold: str
    trial: NDArray[np.int64]
    loss: Array
    whole: NDArray[np.bool_]

    @property
    def best(self) -> Array:
        """The lowest loss of a complete trial so far ``(n,)``; NaN before the first."""
        kept = np.where(self.whole, self.loss, np.inf)
        lowest = np.minimum.accumulate(kept)
        return np.where(np.isfinite(lowest), lowest, np.nan)


@dataclass(frozen=True)
class Axis:
    """One setting: where each trial lies on it, from 0 to 1, and the words at some places."""

    name: str
    place: Array
    words: Sequence[tuple[float, str]]


def history(name: str, backbone: str, folds: Sequence[History]) -> str:
    """The inner loss of every trial by its number, and as a line the lowest so far, by fold."""
    count = sum(len(fold.trial) for fold in folds)
    whole = np.concatenate([fold.loss[fold.whole] for fold in folds])  # the others' are of fewer units
    lowest = f"; the lowest of a complete one is {whole.min():.4f}" if len(whole) else ""
    label = f"Search for {backbone}: inner loss of {count} trials in {len(folds)} folds{lowest}"

    def draw(axes: Axes) -> None:
        axes.set(title=f"{backbone}: {count} trials", xlabel="trial", ylabel="inner loss")
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        for n, fold in enumerate(folds):
            _fold(axes, fold, SERIES[n % len(SERIES)], MARKERS[n % len(MARKERS)])
        axes.legend(
            frameon=False, fontsize=11, loc="upper left", bbox_to_anchor=(1.0, 1.02), handlelength=1.2
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return chart(name, label, Box(480, 280, right=92), draw)


def _fold(axes: Axes, fold: History, colour: str, marker: str) -> None:
    axes.plot(fold.trial, fold.best, color=colour, linewidth=1.3, drawstyle="steps-post")
    for place, loss, whole in zip(fold.trial[:MOST], fold.loss, fold.whole, strict=False):
        face = colour if whole else PAPER
        (mark,) = axes.plot(
            [place], [loss], marker, markersize=5.5, markeredgecolor=colour, markerfacecolor=face
        )
        tip(mark, f"fold {fold.fold}, trial {place}: {loss:.4f}{'' if whole else ', stopped early'}")
    axes.plot([], [], marker, color=colour, markersize=5.5, linestyle="-", label=f"fold {fold.fold}")


def parallel(name: str, backbone: str, found: Sequence[Axis], gain: Array) -> str:
    """Every trial as a line over its settings to what it gained; the best quarter is highlighted."""
    if not found or len(gain) < 2:
        return ""
    top = np.quantile(gain, 0.75)
    spread = float(np.ptp(gain)) or 1.0
    ends = [
        (place, f"{value:+.3f}".replace("-", "−")) for place, value in ((0.0, gain.min()), (1.0, gain.max()))
    ]
    last = Axis("gain", (gain - gain.min()) / spread, ends)
    every = [*found, last]
    shown = np.argsort(gain, kind="stable")[-MOST:]
    label = (
        f"Settings of {len(shown)} complete trials of {backbone} as lines over {len(found)} settings to their"
        f" gain over the settings as given, {gain.min():+.4f} to {gain.max():+.4f}; the best quarter is bold"
    )

    def draw(axes: Axes) -> None:
        axes.set(
            xlim=(-0.25, len(every) - 0.75), ylim=(-0.12, 1.12), title=f"{backbone}: {len(shown)} trials"
        )
        axes.set_axis_off()
        for n, axis in enumerate(every):
            _axis(axes, n, axis)
        for trial in shown:
            strong = gain[trial] >= top
            line = [axis.place[trial] for axis in every]
            (drawn,) = axes.plot(
                range(len(every)),
                line,
                color=ACCENT if strong else MUTED,
                linewidth=1.8 if strong else 0.9,
                alpha=0.85 if strong else 0.4,
                zorder=3 if strong else 2,
            )
            tip(drawn, f"gain {gain[trial]:+.4f}")

    return chart(
        name, label, Box(max(320, 86 * len(every) + 40), 280, left=20, right=20, bottom=12, top=30), draw
    )


def _axis(axes: Axes, n: int, axis: Axis) -> None:
    """An upright line with its name below it and the words at its places."""
    axes.plot([n, n], [0, 1], color=LINE, linewidth=1.4, zorder=1)
    axes.annotate(
        axis.name, (n, -0.1), ha="center", va="top", color=MUTED, fontsize=11, annotation_clip=False
    )
    for place, words in axis.words:
        box = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
        beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(words, (n, place), fontsize=10.5, bbox=box, zorder=4, **beside)
