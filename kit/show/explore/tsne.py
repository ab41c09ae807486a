"""A map of the boxes by their geometry (t-SNE), and how far neighbours on it are of one class.

van der Maaten and Hinton 2008, https://jmlr.org/papers/v9/vandermaaten08a.html. A notebook that is often
copied gives the width twice and the height never; its map is drawn beside the right one. A picture of a map
shows whatever one looks for: what is said of it is a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from kit import seeds
from kit.combine.annotations_text import series
from kit.metrics import Array
from kit.show.explore.content import Chart, Charts, Data, Fact, Gallery, Section, Words
from kit.show.explore.drawn import MARKERS, colour
from kit.show.explore.geometry import shares
from kit.show.pictures import Picture, drawing
from kit.show.plots import LINE, Box, chart, tip
from kit.show.tables import Table
from kit.show.verdict import percent

FEATURES = ("x_min", "y_min", "x_max", "y_max", "x_mid", "y_mid", "box_w", "box_h", "area")
DOUBLED = tuple("box_w" if name == "box_h" else name for name in FEATURES)
PERPLEXITY = 40.0
STEPS = 5000
NEAR = 10  # neighbours
CLEAR = 1.5  # times chance, from which neighbours tell something
SETTLED = 0.9  # of the neighbours, from which they leave little open
BLOCK = 256  # boxes whose distances from all others are held at a time
FEWEST = 3 * int(PERPLEXITY) + 1  # boxes, below which the perplexity has no meaning
TITLE = "A map of the boxes"
PANEL = 200  # pixels of a small map, each side
DOT = 2  # pixels from the middle of a dot to its edge
GREY, BRIGHT = (128, 138, 148, 110), (224, 92, 16, 255)  # both seen on light and on dark
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """How often the neighbours of a box are of its class.

    share: of them all; by_class: of the boxes of each class.
    """

    share: float
    by_class: Array


def section(data: Data) -> Section | None:
    """The maps; ``None``: none is wanted, or there are no annotations with known sizes."""
    if data.findings is None or not data.boxes:
        return None
    every = shares(data)
    if every.empty:
        return None
    if len(every) < FEWEST:
        told = f"{len(every)} boxes are too few for a map of perplexity {PERPLEXITY:g}: it takes {FEWEST}."
        return Section("map", TITLE, (Words(told),), {"boxes": len(every)})
    chosen = drawn(every, max(data.boxes, FEWEST), data.run.seed)
    return mapped(every, chosen, data.run.seed, data.run.workers)


def drawn(every: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """So many boxes, drawn at random, in the order of the table; all where there are no more."""
    if len(every) <= most:
        return every
    chosen = seeds.rng(seed, "explore", "map").choice(len(every), most, replace=False)
    return every.iloc[np.sort(chosen)]


def mapped(every: pd.DataFrame, boxes: pd.DataFrame, seed: int, workers: int) -> Section:
    """Two maps of the same boxes, small ones by class, and what the neighbours say."""
    known, labels = np.unique(boxes["finding"].to_numpy(dtype=str), return_inverse=True)
    names: list[str] = known.tolist()
    images = np.unique(boxes["image_id"].to_numpy(dtype=str), return_inverse=True)[1]
    tables = [boxes[list(columns)].to_numpy(dtype=np.float64) for columns in (FEATURES, DOUBLED)]
    # Sums of several threads come in any order: each map has one of its own. The limit of OpenMP holds for
    # the thread that sets it, the others for all.
    with threadpool_limits(1), ThreadPoolExecutor(max(1, workers)) as pool:
        right, wrong = pool.map(lambda table: embedding(table, seed), tables)
    absent = sorted(set(every["finding"]) - set(names))
    places = {"map": right, "doubled": wrong, "features": tables[0]}
    found = {what: neighbours(points, labels, images) for what, points in places.items()}
    chance = by_chance(labels, images)
    small = Gallery(
        "The first map, class by class: its boxes, and all others in grey",
        tuple(panels(right, labels, names)),
    )
    blocks = (
        Words(said(names, labels, found, chance, len(every), absent)),
        Charts(tuple(maps(right, wrong, labels, names))),
        class_table(names, labels, found["map"], chance),
        small,
    )
    points = boxes[["image_id", "reader"]].reset_index(drop=True).assign(**{"class": known[labels]})
    points = points.assign(x=right[:, 0], y=right[:, 1], x_doubled=wrong[:, 0], y_doubled=wrong[:, 1])
    facts = _facts(len(every), names, labels, found, chance)
    return Section("map", TITLE, blocks, facts, {"points": points})


def maps(right: Array, wrong: Array, labels: Labels, names: Sequence[str]) -> list[Chart]:
    """Both maps, side by side."""
    which = {
        "by all nine features": right,
        "as in a notebook, by the width twice and the height never": wrong,
    }
    return [
        Chart(
            f"Boxes {told} (n = {len(labels):,}; axes have no unit)",
            chart_of(f"map-{n}", told, points, labels, names),
        )
        for n, (told, points) in enumerate(which.items())
    ]


def embedding(features: Array, seed: int) -> Array:
    """t-SNE of boxes ``(n, features)``: ``(n, 2)``; the same again where it has one thread."""
    from sklearn.manifold import TSNE  # imported where a map is drawn: it takes a second

    found = TSNE(perplexity=PERPLEXITY, max_iter=STEPS, random_state=seeds.number(seed, "t-sne") % 2**32)
    with threadpool_limits(1, "openmp"):
        return np.asarray(found.fit_transform(features), np.float64)


def neighbours(points: Array, labels: Labels, images: Labels) -> Neighbours:
    """The share of the ``NEAR`` nearest boxes of other images that are of the same class.

    Boxes of one image do not count: readers have drawn the same thing there.

    Args:
        points: ``(n, d)``. labels, images: class and image of each box ``(n,)``.
    """
    alike = np.concatenate([
        _alike(points, labels, images, slice(start, start + BLOCK)) for start in range(0, len(points), BLOCK)
    ])  # fmt: skip
    count = np.bincount(labels)
    return Neighbours(float(alike.mean()), np.bincount(labels, alike) / count)


def _alike(points: Array, labels: Labels, images: Labels, rows: slice) -> Array:
    """The share of the nearest boxes of other images that are of the same class, of some boxes."""
    apart = cdist(points[rows], points)
    apart[images[rows, None] == images[None, :]] = np.inf
    nearest = np.argsort(apart, axis=1, kind="stable")[:, :NEAR]
    known = np.isfinite(np.take_along_axis(apart, nearest, axis=1))
    same = (labels[nearest] == labels[rows, None]) & known
    return np.asarray(same.sum(axis=1) / np.maximum(1, known.sum(axis=1)))


def by_chance(labels: Labels, images: Labels) -> Array:
    """The share of the boxes of other images that are of the class of a box, by class: ``(K,)``."""
    count, of_image = np.bincount(labels), np.bincount(images)
    pairs = np.zeros((len(of_image), len(count)))
    np.add.at(pairs, (images, labels), 1)
    alike = (count[labels] - pairs[images, labels]) / np.maximum(1, len(labels) - of_image[images])
    return np.asarray(np.bincount(labels, alike) / count)


def said(
    names: Sequence[str],
    labels: Labels,
    found: Mapping[str, Neighbours],
    chance: Array,
    every: int,
    absent: Sequence[str],
) -> str:
    """What the neighbours amount to, in words."""
    alike, expected = found["map"].by_class, float(chance[labels].mean())
    # A class that is on one image alone has no neighbours to be told by.
    times = np.divide(alike, chance, out=np.full(len(chance), np.inf), where=chance > 0)
    best = [f"{names[n]} ({percent(alike[n])})" for n in np.argsort(-alike, kind="stable")[:2]]
    poor = int(times.argmin())
    least = f", least {names[poor]}, {times[poor]:.1f} times chance" if np.isfinite(times[poor]) else ""
    verdict = "tells something of its class, and does not settle it"
    if found["map"].share <= CLEAR * expected:
        verdict = "hardly tells its class"
    elif found["map"].share >= SETTLED:
        verdict = "all but settles its class"
    some = ", drawn at random" if len(labels) < every else ""
    none = f" No box of {series(absent)} is among them." if absent else ""
    return (
        f"{len(labels):,} of {every:,} boxes{some}.{none} Of the {NEAR} nearest boxes on the map that are of"
        f" other images, {percent(found['map'].share, 1)} are of the same class; by chance it would be"
        f" {percent(expected, 1)}. So where a box is and how large {verdict}."
        f" Best told is {series(best)}{least}."
        f" Among the features themselves it is {percent(found['features'].share, 1)}, and on the map with the"
        f" width twice {percent(found['doubled'].share, 1)}."
    )


def chart_of(name: str, label: str, points: Array, labels: Labels, names: Sequence[str]) -> str:
    """A map: colour and shape tell the class, and so does the pointer."""

    def draw(axes: Axes) -> None:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=LINE)
        for number, kind in enumerate(names):
            mine = points[labels == number]
            (dots,) = axes.plot(
                mine[:, 0], mine[:, 1], linestyle="none", marker=MARKERS[number % len(MARKERS)],
                markersize=4, markeredgewidth=0, color=colour(number), alpha=0.75, label=kind,
            )  # fmt: skip
            tip(dots, f"{kind}: {len(mine):,} boxes")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncol=2, frameon=False, fontsize=11,
                    markerscale=1.6, handletextpad=0.2)  # fmt: skip

    rows = -(-len(names) // 2)
    return chart(name, f"Map of boxes, {label}", Box(440, 440 + 19 * rows, 4, 4, 12 + 19 * rows, 4), draw)


def panels(points: Array, labels: Labels, names: Sequence[str]) -> list[Picture]:
    """The map once for each class: its boxes bright, all others grey."""
    low, high = points.min(axis=0), points.max(axis=0)
    places = (points - low) / np.maximum(high - low, 1e-9)
    pixels = np.rint(DOT + places * (PANEL - 1 - 2 * DOT)).astype(np.int64)
    pixels[:, 1] = PANEL - 1 - pixels[:, 1]  # up is up
    found = []
    for number, kind in enumerate(names):
        mine = labels == number
        panel = np.zeros((PANEL, PANEL, 4), np.uint8)
        for place, shade in ((pixels[~mine], GREY), (pixels[mine], BRIGHT)):
            _dots(panel, place, shade)
        many = int(mine.sum())
        caption = f"{kind}: {many:,} {'box' if many == 1 else 'boxes'}"
        found.append(drawing(panel, caption, f"Where the boxes of {kind} are on the map"))
    return found


def _dots(panel: NDArray[np.uint8], places: Labels, shade: tuple[int, int, int, int]) -> None:
    """Squares at places (n, 2), x and y in pixels."""
    for across in range(-DOT + 1, DOT):
        for down in range(-DOT + 1, DOT):
            panel[places[:, 1] + down, places[:, 0] + across] = shade


def class_table(names: Sequence[str], labels: Labels, found: Neighbours, chance: Array) -> Table:
    """How often the neighbours of each class are of it, and by chance."""
    count = np.bincount(labels)
    cells = [
        (str(name), f"{count[n]:,}", percent(found.by_class[n], 1), percent(chance[n], 1),
         f"{found.by_class[n] / chance[n]:.1f}" if chance[n] else "")
        for n, name in enumerate(names)
    ]  # fmt: skip
    head = ("class", "boxes on the map", "neighbours of the class", "by chance", "times chance")
    return Table(f"The {NEAR} nearest boxes of other images, on the first map", head, cells)


def _facts(
    every: int, names: Sequence[str], labels: Labels, found: dict[str, Neighbours], chance: Array
) -> dict[str, Fact]:
    expected = float(chance[labels].mean())
    facts: dict[str, Fact] = {"boxes": len(labels), "of": every, "classes": len(names), "by_chance": expected}
    for what, one in found.items():
        facts[what] = one.share
        facts[f"{what}_times_chance"] = one.share / expected if expected else None
    facts["by_class"] = {str(name): float(found["map"].by_class[n]) for n, name in enumerate(names)}
    facts["chance_by_class"] = {str(name): float(chance[n]) for n, name in enumerate(names)}
    return facts
