"""Charts of tables: how numbers are spread, and how classes share them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.stats import gaussian_kde

from kit import seeds
from kit.metrics import Array
from kit.show.explore.summary import outlying, shown
from kit.show.plots import ACCENT, INK, LINE, MUTED, PAPER, SERIES, Box, chart, tip
from kit.show.verdict import percent

MARKERS = "os^DvPX"  # with eight colours, 56 classes are told apart
DOTS = 2000  # marks of a chart, at most
TURNS = 8  # in which the dots of the classes are drawn
BINS = (10, 60)  # of a histogram
STEPS = 240  # positions at which outliers of a box plot are drawn
LONG = 20  # characters of a name
SWATCHES = 8  # colours of a row
MIDDLE = 400.0  # pixels: two charts stand side by side


def colour(k: int) -> str:
    """The colour of a class."""
    return SERIES[k % len(SERIES)]


def histogram(name: str, label: str, values: Array, unit: str) -> str:
    """How often values are there, with a density curve (Gaussian kernel, Scott's rule) scaled to counts."""
    edges = _edges(values)
    counts, _ = np.histogram(values, edges)

    def draw(axes: Axes) -> None:
        bars = axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=ACCENT, alpha=0.35)
        for bar, n, low, high in zip(bars, counts, edges[:-1], edges[1:], strict=True):
            bar.set(edgecolor=PAPER, linewidth=0.8)
            tip(bar, f"{shown(round(low, 4))} to {shown(round(high, 4))} {unit}: {n:,} images")
        curve = _density(values)
        if curve is not None:
            at, density = curve
            axes.plot(at, density * len(values) * float(edges[1] - edges[0]), color=ACCENT, linewidth=2)
        axes.set(xlabel=unit, ylabel="images")
        _thousands(axes, "xy", whole="y")

    return chart(name, label, Box(MIDDLE, 260), draw)


def _edges(values: Array) -> Array:
    if values.min() == values.max():  # however large, a bin around it has a width
        room = max(0.5, abs(float(values[0])) * 1e-3)
        return np.array([values[0] - room, values[0] + room])
    # Freedman and Diaconis 1981; numpy's makes every bin of a range, be it a thousand million times as wide.
    low, high = np.quantile(values, (0.25, 0.75))
    width = 2 * (high - low) / np.cbrt(len(values))
    with np.errstate(over="ignore"):
        found = math.ceil(min(np.ptp(values) / width, BINS[1])) if width else BINS[0]
    return np.linspace(values.min(), values.max(), max(found, BINS[0]) + 1)


def _density(values: Array) -> tuple[Array, Array] | None:
    """Where, and how dense; ``None`` where the values are too few or too alike."""
    if len(np.unique(values)) < 3:
        return None
    at = np.linspace(values.min(), values.max(), 200)
    try:
        return at, np.asarray(gaussian_kde(values)(at))
    except np.linalg.LinAlgError:
        return None


def boxplots(name: str, label: str, groups: Mapping[str, Array], unit: str) -> str:
    """Quartiles, whiskers to the last value within 1.5 IQR, and outliers; one row a group."""
    rows = {key: values for key, values in groups.items() if len(values)}
    left = _room(rows)

    def draw(axes: Axes) -> None:
        low, high = min(v.min() for v in rows.values()), max(v.max() for v in rows.values())
        for place, (key, values) in enumerate(rows.items()):
            _box(axes, place, key, values, (high - low) / STEPS)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [_short(key) for key in rows])
        axes.set_xlabel(unit)
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        _thousands(axes, "x")

    return chart(name, label, Box(MIDDLE, 78 + 38 * len(rows), left=left, top=12), draw)


def _box(axes: Axes, place: int, name: str, values: Array, step: float) -> None:
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
    far = outlying(values, q1, q3)
    near = values[~far]
    axes.plot([min(near.min(), q1), q1], [place] * 2, color=ACCENT, linewidth=1.4)
    axes.plot([q3, max(near.max(), q3)], [place] * 2, color=ACCENT, linewidth=1.4)
    box = Rectangle((q1, place - 0.28), q3 - q1, 0.56, facecolor=ACCENT, alpha=0.3, edgecolor=ACCENT)
    axes.add_patch(box)
    quartiles = f"25 % {shown(q1)}, median {shown(median)}, 75 % {shown(q3)}"
    tip(box, f"{name}: {quartiles}; {int(far.sum()):,} of {len(values):,} are outliers")
    axes.plot([median] * 2, [place - 0.28, place + 0.28], color=INK, linewidth=2)
    places = np.unique(np.rint(values[far] / step)) * step if step else values[far]
    axes.plot(places, np.full(len(places), place), "o", color=MUTED, markersize=3.5, markeredgewidth=0)


def scatter(name: str, label: str, points: pd.DataFrame, classes: Sequence[str], seed: int) -> str:
    """Width against height in px by label, at most `DOTS` of them, drawn at random.

    Args:
        points: width, height and label of each image.
    """
    kept = points
    if len(points) > DOTS:
        kept = points.iloc[np.sort(seeds.rng(seed, "explore", "sizes").permutation(len(points))[:DOTS])]
    rows = _legend_rows(classes)

    def draw(axes: Axes) -> None:
        # In turns, so that no class lies on top of all others.
        for turn, (k, one) in product(range(TURNS), enumerate(classes)):
            mine = kept[kept["label"] == one][turn::TURNS]
            style: dict[str, Any] = {"markersize": 4, "alpha": 0.6, "markeredgewidth": 0, "color": colour(k)}
            label = "" if turn else _short(one)
            axes.plot(mine["width"], mine["height"], MARKERS[k % len(MARKERS)], label=label, **style)
        axes.set(xlabel="width (px)", ylabel="height (px)")
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        _thousands(axes, "xy")
        _legend(axes, classes)

    return chart(name, label, Box(MIDDLE, 300 + 18 * rows, left=70, top=12 + 18 * rows), draw)


def stacked(name: str, label: str, counts: pd.DataFrame, what: str, shares: bool = False) -> str:
    """One bar a row of counts, divided by class; as shares, all bars are equally long.

    Args:
        counts: whole numbers, one row a value and one column a class.
        what: what is counted, in the plural.
    """
    classes, cells = [str(c) for c in counts], counts.to_numpy(dtype=np.int64)
    totals = cells.sum(axis=1)
    lengths = cells / (np.maximum(totals, 1)[:, None] / 100 if shares else 1)
    rows = _legend_rows(classes)
    left = _room(map(str, counts.index))

    def draw(axes: Axes) -> None:
        starts = np.zeros(len(counts))
        for k in range(len(classes)):
            bars = axes.barh(range(len(counts)), lengths[:, k], left=starts, color=colour(k), height=0.72,
                             edgecolor=PAPER, linewidth=0.8, hatch=_hatch(k),
                             label=_short(classes[k]))  # fmt: skip
            for place, bar in enumerate(bars):
                n, total = int(cells[place, k]), int(totals[place])
                tip(bar, f"{counts.index[place]}: {n:,} of {total:,} {what} are {classes[k]}")
            starts = starts + lengths[:, k]
        axes.set_ylim(len(counts) - 0.4, -0.6)
        axes.set_yticks(range(len(counts)), [_short(str(value)) for value in counts.index])
        axes.set_ylabel(str(counts.index.name or ""), labelpad=8)
        axes.set_xlabel(f"% of {what}" if shares else what)
        _thousands(axes, "x", whole="x")
        _legend(axes, classes)

    height = 64 + 24 * len(counts) + 18 * rows
    return chart(name, label, Box(MIDDLE, height, left=left + 16, top=12 + 18 * rows), draw)


def bars(name: str, label: str, counts: Mapping[str, int], axis: str, what: str) -> str:
    """One bar a name with its number at the end."""
    most = max(counts.values(), default=1) or 1

    def draw(axes: Axes) -> None:
        drawn = axes.barh(range(len(counts)), list(counts.values()), color=ACCENT, alpha=0.6, height=0.72)
        total = sum(counts.values()) or 1
        for place, (bar, (key, n)) in enumerate(zip(drawn, counts.items(), strict=True)):
            tip(bar, f"{key}: {n:,} of {total:,} {what} ({percent(n / total, 1)})")
            axes.text(n + most * 0.015, place, f"{n:,}", va="center", color=INK)
        axes.set_xlim(0, most * 1.15)
        axes.set_ylim(len(counts) - 0.4, -0.6)
        axes.set_yticks(range(len(counts)), [_short(key) for key in counts])
        axes.set_xlabel(what)
        axes.set_ylabel(axis, labelpad=8)
        _thousands(axes, "x", whole="x")

    box = Box(MIDDLE, 64 + 26 * len(counts), left=_room(counts) + (16 if axis else 0), top=12)
    return chart(name, label, box, draw)


def swatches(name: str, label: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """The commonest colours of each row, as wide as their shares; the rest is left blank."""

    def draw(axes: Axes) -> None:
        for place, (key, shares) in enumerate(rows.items()):
            start = 0.0
            for text, share in list(shares.items())[:SWATCHES]:
                one = Rectangle(
                    (start, place - 0.38), share, 0.76, facecolor=text, edgecolor=MUTED, linewidth=0.6
                )
                axes.add_patch(one)
                tip(one, f"{key}: {percent(share)} {text}")
                start += share
        axes.set_xlim(0, 1)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [_short(key) for key in rows])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}"))
        axes.set_xlabel("% of the images")

    return chart(name, label, Box(MIDDLE, 64 + 26 * len(rows), left=_room(rows), top=12), draw)


def _hatch(k: int) -> str | None:
    """A second look for classes that share a colour."""
    return (None, "///", "...", "xxx")[k // len(SERIES) % 4]


def _short(name: str) -> str:
    return name if len(name) <= LONG else name[: LONG - 1] + "…"


def _room(names: object) -> float:
    """Pixels left of the axes that names take."""
    longest = max((len(_short(str(name))) for name in names), default=1)  # type: ignore[attr-defined]
    return 22 + 6.6 * longest


def _legend_columns(classes: Sequence[str]) -> int:
    longest = max(len(_short(name)) for name in classes)
    return max(1, min(len(classes), int(330 / (34 + 6.6 * longest))))


def _legend_rows(classes: Sequence[str]) -> int:
    return math.ceil(len(classes) / _legend_columns(classes))


def _legend(axes: Axes, classes: Sequence[str]) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=_legend_columns(classes), frameon=False, fontsize=11,
        handlelength=1, handletextpad=0.5, columnspacing=1.2, borderaxespad=0.2, labelspacing=0.3,
    )  # fmt: skip


def _thousands(axes: Axes, along: str, whole: str = "") -> None:
    """Numbers at the ticks as everywhere on the page, and no more of them than there is room for."""
    for which in along:
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_major_locator(MaxNLocator(nbins=5, integer=which in whole))
        axis.set_major_formatter(FuncFormatter(lambda value, _: shown(float(value))))
