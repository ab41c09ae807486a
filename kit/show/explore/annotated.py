"""The annotations as a table: its first rows, and all that was said of the image with the most boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit.boxes import CORNERS, SIZES, normalised
from kit.show.explore.box_plots import Mark, frame
from kit.show.explore.content import Chart, Charts, Data, Fact, Section, Words
from kit.show.explore.geometry import boxes_an_image, with_known_sizes
from kit.show.explore.pictures import at_hand, look
from kit.show.explore.summary import plain
from kit.show.pictures import picture
from kit.show.tables import MOST, Table
from kit.show.verdict import count

FIRST = 5  # rows that are shown of the table
WORDS = ("image_id", "finding", "class_id", "reader")
PARTS = ("x_min", "y_min", "x_max", "y_max", "x_mid", "y_mid", "box_w", "box_h", "area")


def section(data: Data) -> Section | None:
    """Rows of the joined table; ``None``: there are no annotations."""
    if data.findings is None:
        return None
    table = joined(data)
    head = table.head(FIRST)
    facts: dict[str, Fact] = {"rows": len(table), "head": _plain(head)}
    blocks: list[Words | Table | Charts] = [
        shown(head, f"The first {len(head)} rows, image by image", (*WORDS, *SIZES, *PARTS))
    ]
    name = fullest(data)
    if name:
        mine = of_image(table, name)
        blocks += [Words(_said(name, mine))]
        blocks += [_drawn(data, name, mine)] if mine[list(PARTS)].notna().all(axis=None) else []
        blocks += [shown(mine, f"All rows of image {name}", ("box", "finding", "reader", *PARTS))]
        facts["most"] = {"image_id": name, "boxes": len(mine), "readers": int(mine["reader"].nunique()),
                         "rows": _plain(mine)}  # fmt: skip
    return Section("annotations", "Annotations, row by row", tuple(blocks), facts)


def joined(data: Data) -> pd.DataFrame:
    """Every row with the size of its image, and its box in shares of it.

    Images are in the order in which the table first names them, and the rows of one are together, in theirs.
    """
    table = with_known_sizes(data)
    found = table.drop(columns=list(CORNERS)).join(normalised(table))
    order = pd.factorize(found["image_id"])[0].argsort(kind="stable")
    return found.iloc[order].reset_index(drop=True)


def of_image(table: pd.DataFrame, image_id: str) -> pd.DataFrame:
    """The rows of one image of what `joined` gives."""
    return table[table["image_id"] == image_id]


def fullest(data: Data) -> str:
    """The image with the most boxes, of several the first by name; empty where there is no box."""
    many = boxes_an_image(data)
    return str(many.idxmax()) if len(many) else ""


def shown(rows: pd.DataFrame, caption: str, head: Sequence[str]) -> Table:
    """Rows of what `joined` gives, boxes with six digits, sizes whole; the first of very many.

    Args:
        head: its columns; ``box`` is the number of the row.
    """
    numbered = rows.head(MOST).assign(box=np.arange(1, min(len(rows), MOST) + 1))
    cells = [tuple(_cell(row[name], name) for name in head) for _, row in numbered.iterrows()]
    words = frozenset(n for n, name in enumerate(head) if name in ("image_id", "finding", "reader"))
    return Table(caption, tuple(head), cells, words, left_out=len(rows) - len(numbered))


def _cell(value: object, name: str) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if np.isnan(value) else f"{value:.0f}" if name in SIZES else f"{value:.6f}"


def _said(name: str, mine: pd.DataFrame) -> str:
    readers, classes = int(mine["reader"].nunique()), int(mine["finding"].nunique())
    return (
        f"The image with the most boxes is {name}: {len(mine):,} of {classes} classes by"
        f" {count(readers, 'reader')}. What several readers saw was drawn several times, each time a little"
        " elsewhere: kit annotations makes one box of it."
    )


def _drawn(data: Data, name: str, mine: pd.DataFrame) -> Charts:
    """The boxes over the image, where it is at hand, else on an empty frame of its shape."""
    source = _source(data, name)
    size = float(mine["width"].iloc[0]), float(mine["height"].iloc[0])
    where = "" if source else ", on an empty frame: the image is not at hand"
    label = f"The {len(mine)} boxes of image {name}, numbered as in the table{where}"
    marks = [
        Mark(corners, finding, reader)
        for corners, finding, reader in zip(
            mine[list(CORNERS)].to_numpy(), mine["finding"], mine["reader"], strict=True
        )
    ]
    svg = frame("annotations-most", label, size, marks, source)
    return Charts((Chart(f"{label} ({size[0]:,.0f} × {size[1]:,.0f} px)", svg),))


def _source(data: Data, name: str) -> str:
    """The image as a ``data:`` address; empty where it cannot be shown."""
    if not data.images or name not in at_hand(data):
        return ""
    found = look(data, name).pixels
    return "" if found is None else picture(found, "", "").source


def _plain(rows: pd.DataFrame) -> list[Fact]:
    columns = (*WORDS, *SIZES, *PARTS)
    return [{name: plain(row[name]) for name in columns} for _, row in rows.iterrows()]
