"""A made table of findings, and images beside it, as what `explore` is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kit import boxes
from kit.boxes import CORNERS
from kit.show.explore.content import Data, Gallery, Section
from tests.show.explore.tables_made import made, text_table

Row = tuple[str, str, int, str, tuple[int, int, int, int] | None]
NOTHING = "No finding"
# Two readers of three images; "b" is nothing to both.
ROWS: tuple[Row, ...] = (
    ("a", "Nodule", 0, "R1", (10, 20, 30, 60)),
    ("b", NOTHING, 14, "R1", None),
    ("a", "Nodule", 0, "R2", (12, 20, 32, 60)),
    ("a", "Mass <b> & more", 3, "R2", (50, 100, 100, 200)),
    ("b", NOTHING, 14, "R2", None),
    ("c", "Mass <b> & more", 3, "R1", (0, 0, 50, 50)),
    ("c", NOTHING, 14, "R3", None),
)
SIZE = (100, 200)  # of every image


def findings(rows: Sequence[Row] = ROWS, sizes: bool = True) -> pd.DataFrame:
    """The rows as text, as a file has them."""
    cells = [
        (image, finding, number, reader, *(box or [""] * 4)) for image, finding, number, reader, box in rows
    ]
    columns = ["image_id", "finding", "class_id", "reader", *CORNERS]
    table = text_table(dict(zip(columns, zip(*cells, strict=True), strict=True)))
    return table.assign(width=str(SIZE[0]), height=str(SIZE[1])) if sizes else table


def read(
    folder: Path, rows: Sequence[Row] = ROWS, sizes: bool = True, images: int = 0, **declared: Any
) -> Data:
    """What `explore` is given of these findings: an image with a box is of class A."""
    table = findings(rows, sizes)
    ids = list(dict.fromkeys(table["image_id"]))
    labels = ["A" if (table.loc[table["image_id"] == name, "x_min"] != "").any() else "B" for name in ids]
    columns: dict[str, Sequence[object]] = {"image_id": ids, "label": labels}
    return made(folder, columns, images=images, boxes=lambda _: boxes.check(table), **declared)


def draw_images(folder: Path, names: Sequence[str], size: tuple[int, int] = SIZE) -> None:
    """An even grey picture for each name, with a bright spot."""
    for name in names:
        pixels = np.full((size[1], size[0], 3), 90, np.uint8)
        pixels[10:20, 10:20] = 250
        Image.fromarray(pixels).save(folder / f"{name}.png")


def galleries(section: Section | None) -> list[Gallery]:
    """All galleries of a section."""
    assert section is not None
    return [block for block in section.blocks if isinstance(block, Gallery)]
