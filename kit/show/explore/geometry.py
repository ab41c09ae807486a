"""Where boxes are and how large, in shares of their images: by class, and as maps."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kit.boxes import CORNERS, SIZES, has_box, normalised
from kit.show.explore.box_plots import coverage, heat
from kit.show.explore.content import Block, Data, Fact, Gallery, Section, Words
from kit.show.explore.summary import plain, summary
from kit.show.explore.summary import table as summaries
from kit.show.pictures import drawing
from kit.show.tables import Table
from kit.show.verdict import percent

PARTS = ("x_mid", "y_mid", "box_w", "box_h", "area")
QUARTILES = (0.25, 0.5, 0.75)
UNKNOWN = (
    "The sizes of the images are not known, and without them a box is no share of its image: type --sizes"
    " FILE, a table with image_id, width and height."
)


def section(data: Data) -> Section | None:
    """Place and size of the boxes; ``None``: there are no annotations."""
    if data.findings is None:
        return None
    drawn = data.findings[has_box(data.findings)]
    boxes = shares(data)
    if boxes.empty:
        said = UNKNOWN if len(drawn) else "No reader has drawn a box."
        return Section("boxes", "Boxes", (Words(said),), {"known": 0, "boxes": len(drawn)})
    many = boxes_an_image(data)
    by_class = quartiles(boxes)
    blocks: tuple[Block, ...] = (
        Words(_said(boxes, drawn, many)),
        summaries("Boxes an image, of images with a box", "what", {"boxes": summary(many.astype(float))}),
        quartile_table(by_class),
        maps(boxes),
    )
    return Section("boxes", "Where boxes are, and how large", blocks, _facts(boxes, drawn, many, by_class),
                   {"by-class": by_class.reset_index()})  # fmt: skip


def shares(data: Data) -> pd.DataFrame:
    """Every box whose image's size is known, in shares of it, in the order of the table.

    Returns:
        image_id, finding, class_id, reader, width, height, and what `kit.boxes.normalised` gives.
    """
    table = with_known_sizes(data)
    table = table[has_box(table) & table[list(SIZES)].notna().all(axis=1)]
    return table.drop(columns=list(CORNERS)).join(normalised(table))


def with_known_sizes(data: Data) -> pd.DataFrame:
    """The findings with width and height: their own, else those that the images are known to have."""
    assert data.findings is not None
    table = data.findings
    own = table.reindex(columns=list(SIZES)).astype(float)
    other = data.sizes[list(SIZES)].astype(float).reindex(table["image_id"]).set_axis(table.index)
    known = own.fillna(other)
    return table.drop(columns=list(SIZES), errors="ignore").join(known)


def boxes_an_image(data: Data) -> pd.Series[int]:
    """How many boxes each image has that has any, by image_id."""
    assert data.findings is not None
    many = has_box(data.findings).groupby(data.findings["image_id"]).sum().astype(int)
    return many[many > 0]


def quartiles(boxes: pd.DataFrame) -> pd.DataFrame:
    """Quartiles of the middle, width, height and area of the boxes of each class, largest median area first.

    Returns:
        boxes and ``<part>_q25``, ``<part>_q50``, ``<part>_q75`` of each of ``PARTS``, by class.
    """
    grouped = boxes.groupby("finding")
    found = {"boxes": grouped.size()}
    for part in PARTS:
        for share in QUARTILES:
            found[f"{part}_q{share:.0%}".rstrip("%")] = grouped[part].quantile(share)
    table = pd.DataFrame(found).rename_axis("class").sort_index()
    return table.sort_values("area_q50", ascending=False, kind="stable")


def quartile_table(by_class: pd.DataFrame) -> Table:
    """Median and quartiles of each class."""
    cells = [
        (str(name), f"{int(row['boxes']):,}", *(_spread(row, part) for part in PARTS))
        for name, row in by_class.iterrows()
    ]
    head = ("class", "boxes", "middle, from the left", "middle, from the top", "width", "height", "area")
    return Table("Boxes in shares of width, height and area of the image: median (quartiles)", head, cells)


def maps(boxes: pd.DataFrame) -> Gallery:
    """One coverage map a class, in the order of their names."""
    found = []
    for name, mine in boxes.groupby("finding"):
        covered = coverage(mine[list(CORNERS)].to_numpy())
        most = percent(float(covered.max()))
        caption = f"{name}: {len(mine):,} {'box' if len(mine) == 1 else 'boxes'}; brightest: {most} of them"
        found.append(drawing(heat(covered), caption, f"Where the boxes of {name} lie: {_place(covered)}"))
    return Gallery(
        "Which part of an image the boxes of a class cover: the brighter, the more of them", tuple(found)
    )


def _place(covered: np.ndarray) -> str:
    """Where most boxes overlap, in words."""
    most = np.argwhere(covered == covered.max()).mean(axis=0)
    down, across = (100 * (most + 0.5) / len(covered)).tolist()
    return f"most of them at {across:.0f} % from the left and {down:.0f} % from the top"


def _spread(row: pd.Series[float], part: str) -> str:
    low, middle, high = (row[f"{part}_q{share:.0%}".rstrip("%")] for share in QUARTILES)
    if part == "area":
        return f"{percent(middle, 2)} ({100 * low:.2f} to {100 * high:.2f})"
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _said(boxes: pd.DataFrame, drawn: pd.DataFrame, many: pd.Series[int]) -> str:
    low, middle, high = (float(boxes["area"].quantile(share)) for share in QUARTILES)
    left = len(drawn) - len(boxes)
    rest = f" Of {left:,} more the size of the image is not known." if left else ""
    return (
        f"{len(boxes):,} boxes on {len(many):,} images. Half of them cover {percent(low, 2)} to"
        f" {percent(high, 2)} of their image, the median {percent(middle, 2)}. The image with most has"
        f" {many.max():,}; readers draw the same thing again, so boxes are not findings.{rest}"
    )


def _facts(
    boxes: pd.DataFrame, drawn: pd.DataFrame, many: pd.Series[int], by_class: pd.DataFrame
) -> dict[str, Fact]:
    low, middle, high = (float(boxes["area"].quantile(share)) for share in QUARTILES)
    return {
        "boxes": len(drawn),
        "known": len(boxes),
        "images": len(many),
        "an_image": summary(many.astype(float)).facts(),
        "area": [low, middle, high],
        "by_class": {
            str(name): {str(key): plain(value) for key, value in row.items()}
            for name, row in by_class.iterrows()
        },
    }
