"""The table of findings: which reader saw what, and where, on which image; its rules, named line by line.

One row is one finding of one reader, with its box, or the word of one reader that there is nothing. Boxes are
in pixels of the original image, ``x_min, y_min, x_max, y_max``: edges, not numbers of pixels. The width of a
box is ``x_max - x_min``, without the 1 that PASCAL VOC's own code adds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from kit.competition import Competition
from kit.errors import DataError, SettingError, listed
from kit.files import numbers, read_strings
from kit.metrics import Array

CORNERS = ("x_min", "y_min", "x_max", "y_max")
SIZES = ("width", "height")
TEXTS = ("image_id", "finding", "class_id", "reader")
CLASSES = 10**6  # class numbers are below it
NOTHING = "No finding"  # what the finding of a row without a box is called, where nothing else is said


def check(table: pd.DataFrame, nothing: str = NOTHING) -> pd.DataFrame:
    """Type the cells of a table of findings, and check its rules.

    Args:
        table: cells as text (numbers will do too): image_id, finding, class_id, reader, x_min, y_min, x_max,
            y_max, and width and height of the original image where they are known. Empty corners: the
            reader found nothing. ``table.attrs["source"]`` is what messages call it, and
            ``table.attrs["theirs"]`` what the file calls a column.
        nothing: the finding of a reader who found nothing.

    Returns:
        The same rows under the same index: class_id as int, corners and sizes as float (NaN: nothing found,
        or size not known), the rest as text.

    Raises:
        DataError: there is no row; or names the lines that break a rule: an empty cell, or one that is no
            number; a class number below 0 or of more than six digits; a box upside
            down, of no area or outside of its image; nothing with a box, or a finding without one; a reader
            who says both nothing and something of one image; a row that is there twice; a class with two
            names, or a name with two classes; an image of two sizes.
    """
    if not len(table):
        raise DataError(f"{_source(table)} has no row", "give one row for each finding of a reader")
    found = _typed(table)
    found.attrs = dict(table.attrs)
    _check_boxes(found, nothing)
    _check_repeats(found)
    _check_words(found, nothing)
    for one, other in (("class_id", "finding"), ("finding", "class_id"), ("image_id", "size")):
        _check_one_value(found.assign(size=_sizes(found)), one, other)
    return found


def found(task: Competition, data: Path) -> pd.DataFrame:
    """The checked table of findings of a competition.

    Raises:
        SettingError: it declares none.
        DataError: the table breaks a rule.
    """
    if task.boxes is None:
        raise SettingError(
            f"{task.name} has no annotations: it has no table of findings",
            "declare boxes=..., a loader of that table; see kit.boxes",
        )
    return check(task.boxes(data))


def with_sizes(
    table: pd.DataFrame, sizes: Path, width: str = "width", height: str = "height"
) -> pd.DataFrame:
    """A raw table of findings with the width and height of each image, where a file says them.

    Args:
        table: cells as text, with image_id.
        sizes: a CSV with image_id and the columns ``width`` and ``height``; several rows of an image agree.

    Raises:
        DataError: the file is unreadable or lacks a column, or an image has two sizes in it.
    """
    found = read_strings(sizes)
    if missing := [name for name in ("image_id", width, height) if name not in found]:
        raise DataError(
            f"{sizes} has no column {', '.join(missing)}", "name its columns so, or remove the file"
        )
    found = found[["image_id", width, height]].drop_duplicates()
    twice = found["image_id"].duplicated()
    if twice.any():
        line = found.index[twice].tolist()[0] + 2
        name = found.loc[twice, "image_id"].iloc[0]
        raise DataError(f"{sizes} line {line}: image_id '{name}' has two sizes", "an image has one size")
    known = found.set_index("image_id").rename(columns={width: "width", height: "height"})
    # What is not known is an empty cell, like that of a reader who found nothing.
    joined = table.join(known, on="image_id").fillna({"width": "", "height": ""})
    joined.attrs = dict(table.attrs)
    return joined


def has_box(table: pd.DataFrame) -> pd.Series[bool]:
    """Which rows of a checked table are findings; the others say that there is nothing."""
    return table["x_min"].notna()


def nothing_class(table: pd.DataFrame) -> str:
    """What a checked table calls that there is nothing; empty where no reader says so."""
    names = table.loc[~has_box(table), "finding"]
    return str(names.iloc[0]) if len(names) else ""


def iou(a: Array, b: Array) -> Array:
    """Intersection over union of each pair of boxes.

    Args:
        a, b: ``(n, 4)`` and ``(m, 4)``, x_min, y_min, x_max, y_max, in one unit.

    Returns:
        ``(n, m)``; 0 for two boxes without area.
    """
    return paired_iou(np.reshape(a, (-1, 1, 4)), np.reshape(b, (1, -1, 4)))


def paired_iou(a: Array, b: Array) -> Array:
    """Intersection over union of boxes ``(..., 4)`` that lie beside each other in two arrays: ``(...)``."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    together = _areas(a) + _areas(b) - shared
    return np.asarray(np.divide(shared, together, out=np.zeros_like(shared), where=together > 0))


def normalised(table: pd.DataFrame) -> pd.DataFrame:
    """Boxes of a checked table as shares of the width and height of their image.

    Returns:
        x_min, y_min, x_max, y_max, x_mid, y_mid, box_w, box_h and area under the table's index; NaN where
        nothing was found, or the size is not known.
    """
    sizes = table.reindex(columns=list(SIZES)).to_numpy(dtype=np.float64)
    corners = table[list(CORNERS)].to_numpy(dtype=np.float64) / np.tile(sizes, 2)
    left, top, right, bottom = corners.T
    wide, high = right - left, bottom - top
    columns = {**dict(zip(CORNERS, corners.T, strict=True)), "x_mid": (left + right) / 2}
    columns |= {"y_mid": (top + bottom) / 2, "box_w": wide, "box_h": high, "area": wide * high}
    return pd.DataFrame(columns, table.index)


def _areas(boxes: Array) -> Array:
    return np.asarray(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(axis=-1))


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Every cell as what it is; an empty number is NaN, any other text that is no number is an error."""
    _check_columns(table)
    found = table[list(TEXTS)].astype(str).astype(object)
    for column in TEXTS:
        _check_filled(table, column, found[column])
    cells = table[["class_id", *CORNERS, *(name for name in SIZES if name in table)]]
    values = numbers(cells).astype(np.float64)
    for name in values:
        _check_number(table, str(name), values[name])
    broken = (values["class_id"] % 1 != 0).to_numpy()
    _refuse(table, broken, lambda n: "the class is no whole number", "number the classes 0, 1, 2, ...")
    beyond = ~values["class_id"].between(0, CLASSES - 1).to_numpy()
    hint = f"number the classes 0, 1, 2, ..., at most {CLASSES - 1}"
    _refuse(table, beyond, lambda n: f"there is no class {values['class_id'].iloc[n]:.0f}", hint)
    found["class_id"] = values["class_id"].astype(np.int64)
    return found.join(values.drop(columns="class_id"))


def _check_columns(table: pd.DataFrame) -> None:
    if missing := [name for name in (*TEXTS, *CORNERS) if name not in table]:
        raise DataError(
            f"{_source(table)} has no column {', '.join(missing)}",
            f"it has {', '.join(map(str, table.columns))}; each column is given its name in the kit",
        )


def _check_filled(table: pd.DataFrame, column: str, cells: pd.Series[str]) -> None:
    message = f"the {_theirs(table, column)} is empty"
    _refuse(table, cells.str.strip() == "", lambda n: message, "fill it, or remove the row")


def _check_number(table: pd.DataFrame, column: str, values: pd.Series[float]) -> None:
    cells = table[column]
    text = cells.where(cells.notna(), "").astype(str).str.strip()
    wrong = ((text != "") & ~np.isfinite(values)).to_numpy()
    hint = "a box is four numbers in pixels, or four empty cells where there is none"
    _refuse(table, wrong, lambda n: f"{_theirs(table, column)} '{text.iloc[n]}' is no number", hint)


def _check_boxes(table: pd.DataFrame, nothing: str) -> None:
    """A finding has a whole box of some area inside of its image, and nothing has none."""
    corners = table[list(CORNERS)].to_numpy(dtype=np.float64)
    there = ~np.isnan(corners)
    full = there.all(axis=1)
    partly = there.any(axis=1) & ~full
    _refuse(
        table, partly, lambda n: f"the box {_box(corners[n])} lacks a corner", "give four numbers, or none"
    )
    none = (table["finding"] == nothing).to_numpy()
    hint = f"a row of '{nothing}' has four empty cells, and every other row has a box"
    _refuse(table, none & full, lambda n: f"'{nothing}' has the box {_box(corners[n])}", hint)
    _refuse(table, ~none & ~full, lambda n: f"'{table['finding'].iloc[n]}' has no box", hint)
    flat = full & ~((corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1]))
    hint = "a box is x_min, y_min, x_max, y_max, the first two smaller"
    _refuse(table, flat, lambda n: f"the box {_box(corners[n])} is upside down or of no area", hint)
    _check_inside(table, corners)


def _check_inside(table: pd.DataFrame, corners: Array) -> None:
    sizes = table.reindex(columns=list(SIZES)).to_numpy(dtype=np.float64)
    empty = (sizes <= 0).any(axis=1)
    _refuse(table, empty, lambda n: f"its size is {_size(sizes[n])}", "correct the size of the image")
    # A comparison with NaN is false: where the size is not known, only the upper left edge can be judged.
    outside = (corners[:, :2] < 0).any(axis=1) | (corners[:, 2:] > sizes).any(axis=1)
    hint = "boxes are in pixels of the original image; check its width and height"
    _refuse(
        table, outside, lambda n: f"the box {_box(corners[n])} is outside of {_size(sizes[n])} pixels", hint
    )


def _check_repeats(table: pd.DataFrame) -> None:
    again = table.duplicated(["image_id", "finding", "reader", *CORNERS]).to_numpy()
    finding, reader = table["finding"], table["reader"]
    hint = "keep one row for each finding of a reader"
    _refuse(table, again, lambda n: f"'{reader.iloc[n]}' says the same '{finding.iloc[n]}' twice", hint)


def _check_words(table: pd.DataFrame, nothing: str) -> None:
    """A reader who says that there is nothing on an image says nothing else of it."""
    none, reader = table["finding"] == nothing, table["reader"]
    said = none.groupby([table["image_id"], reader])
    both = (said.transform("any") & ~none).to_numpy()
    hint = "a reader who found something did not find nothing"
    _refuse(
        table,
        both,
        lambda n: f"'{reader.iloc[n]}' says '{table['finding'].iloc[n]}' and '{nothing}' of it",
        hint,
    )


def _check_one_value(table: pd.DataFrame, key: str, column: str) -> None:
    """Each value of ``key`` goes with one value of ``column``; what is not known is no value."""
    one, other = _theirs(table, key), _theirs(table, column)
    known = table[column].notna()
    first = table[known].drop_duplicates(key).set_index(key)[column]
    before = table[key].map(first)
    wrong = (known & (table[column] != before)).to_numpy()

    def said(n: int) -> str:
        values = f"{table[column].iloc[n]}, and {before.iloc[n]} further up"
        return f"the {one} '{table[key].iloc[n]}' has the {other} {values}"

    _refuse(table, wrong, said, f"one {one} has one {other}")


def _sizes(table: pd.DataFrame) -> pd.Series[str]:
    """Width and height of the image of each row as one text; missing where they are not known."""
    sizes = table.reindex(columns=list(SIZES)).astype(float)
    text = sizes["width"].astype(str) + " x " + sizes["height"].astype(str)
    return text.where(sizes.notna().all(axis=1))


def _refuse(table: pd.DataFrame, wrong: object, said: Callable[[int], str], hint: str) -> None:
    """Name the lines of the rows that break a rule, if there are any."""
    rows: list[int] = np.flatnonzero(np.asarray(wrong)).tolist()
    if rows:
        image, names = _theirs(table, "image_id"), table["image_id"].tolist()
        lines = table.index.tolist()
        found = [f"line {lines[n] + 2}: {image} '{names[n]}': {said(n)}" for n in rows]
        raise DataError(f"{_source(table)}: rows that break a rule:\n{listed(found)}", hint)


def _source(table: pd.DataFrame) -> str:
    return str(table.attrs.get("source", "the table of findings"))


def _theirs(table: pd.DataFrame, column: str) -> str:
    """What the file calls a column."""
    return str(table.attrs.get("theirs", {}).get(column, column))


def _box(corners: Array) -> str:
    return " ".join("?" if np.isnan(x) else f"{x:g}" for x in corners)


def _size(size: Array) -> str:
    return "? x ?" if np.isnan(size).any() else f"{size[0]:g} x {size[1]:g}"
