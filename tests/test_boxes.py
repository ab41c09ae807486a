"""The table of findings: its rules, and the geometry of boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.boxes import CORNERS, check, has_box, iou, normalised, nothing_class, paired_iou, with_sizes
from kit.errors import DataError

GOOD: dict[str, list[str]] = {
    "image_id": ["a", "a", "a", "b", "b"],
    "finding": ["Nodule", "Nodule", "Mass, other", "No finding", "No finding"],
    "class_id": ["0", "0", "3", "14", "14"],
    "reader": ["R1", "R1", "R2", "R1", "R2"],
    "x_min": ["10", "50", "1.5", "", ""],
    "y_min": ["20", "60", "0", "", ""],
    "x_max": ["30", "90", "100", "", ""],
    "y_max": ["60", "80", "200", "", ""],
    "width": ["100", "100", "100", "40", "40"],
    "height": ["200", "200", "200", "", ""],
}


def table(**cells: Any) -> pd.DataFrame:
    """The sound table, with some cells changed: ``x_min={0: "31"}``."""
    made = pd.DataFrame(GOOD, dtype=object)
    for column, changes in cells.items():
        for row, cell in changes.items():
            made.loc[row, column] = cell
    made.attrs["source"] = "train.csv"
    made.attrs["theirs"] = {"finding": "class_name"}
    return made


def broken(**cells: Any) -> str:
    """What is said of the table with these cells."""
    with pytest.raises(DataError) as caught:
        check(table(**cells))
    assert caught.value.hint
    return caught.value.message


def test_a_sound_table_keeps_its_rows_and_has_numbers_where_they_belong() -> None:
    found = check(table())
    assert found["class_id"].tolist() == [0, 0, 3, 14, 14]
    assert (
        found["x_min"].tolist()[:3] == [10.0, 50.0, 1.5]
        and has_box(found).tolist() == [True] * 3 + [False] * 2
    )
    assert found["height"].isna().tolist() == [False] * 3 + [True] * 2
    assert nothing_class(found) == "No finding" and found.attrs["source"] == "train.csv"
    pd.testing.assert_frame_equal(check(found), found)  # numbers will do as well


def test_the_size_of_an_image_need_not_be_known() -> None:
    plain = check(table().drop(columns=["width", "height"]))
    assert "width" not in plain and normalised(plain).isna().all(axis=None)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"x_max": {1: "50"}}, ["line 3", "'a'", "50 60 50 80", "no area"]),
        ({"y_max": {1: "59"}}, ["line 3", "upside down"]),
        ({"x_min": {0: "-1"}}, ["line 2", "outside of 100 x 200"]),
        ({"y_max": {2: "201"}}, ["line 4", "outside"]),
        (dict(zip(CORNERS, [{3: x} for x in "0011"], strict=True)), ["'No finding' has the box 0 0 1 1"]),
        ({corner: {0: ""} for corner in CORNERS}, ["'Nodule' has no box"]),
        ({"x_min": {0: ""}}, ["line 2", "lacks a corner"]),
        ({"x_min": {0: "ten"}}, ["line 2", "x_min 'ten' is no number"]),
        ({"x_max": {0: "inf"}}, ["'inf'"]),
        ({"class_id": {0: "0.5"}}, ["no whole number"]),
        ({"class_id": {0: ""}}, ["class_id is empty"]),
        ({"class_id": {0: "-1", 1: "-1"}}, ["line 2", "there is no class -1"]),
        ({"class_id": {2: "1000000"}}, ["line 4", "there is no class 1000000"]),
        ({"reader": {4: " "}}, ["line 6", "reader is empty"]),
        ({"image_id": {3: "a"}}, ["line 3", "'R1' says 'Nodule' and 'No finding'"]),
        ({"class_id": {1: "1"}}, ["line 3", "class_name 'Nodule' has the class_id 1, and 0 further up"]),
        ({"finding": {1: "Nodul"}}, ["class_id '0' has the class_name Nodul"]),
        ({"width": {1: "101"}}, ["line 3", "101.0 x 200.0"]),
        ({"width": {0: "0"}}, ["its size is 0 x 200"]),
        ({"reader": {4: "R1"}}, ["line 6", "twice"]),
    ],
)  # fmt: skip
def test_a_row_that_breaks_a_rule_is_named_with_its_line(cells: dict[str, Any], words: list[str]) -> None:
    said = broken(**cells)
    assert said.startswith("train.csv: ") and [word for word in words if word not in said] == [], said


def test_a_height_that_is_not_known_lets_a_box_be_as_low_as_it_likes() -> None:
    found = check(table(height=dict.fromkeys(range(5), ""), y_max={2: "9000"}))
    assert found["y_max"].max() == 9000


def test_another_word_for_nothing_may_be_declared() -> None:
    healthy = table(finding={3: "healthy", 4: "healthy"})
    assert nothing_class(check(healthy, "healthy")) == "healthy"
    with pytest.raises(DataError, match="'healthy' has no box"):
        check(healthy)


def test_a_table_without_a_row_is_refused() -> None:
    with pytest.raises(DataError, match=r"train\.csv has no row"):
        check(table()[:0])


def test_a_column_that_is_missing_is_named() -> None:
    with pytest.raises(DataError, match="no column reader"):
        check(table().drop(columns="reader"))


def test_overlap_is_what_counting_pixels_gives() -> None:
    draw = np.random.default_rng(0)
    corners = draw.integers(0, 12, (30, 2))
    boxes = np.c_[corners, corners + draw.integers(0, 9, (30, 2))]
    masks = np.zeros((30, 24, 24), bool)
    for mask, (x, y, x2, y2) in zip(masks, boxes, strict=True):
        mask[y:y2, x:x2] = True
    both = (masks[:, None] & masks[None]).sum(axis=(2, 3))
    either = (masks[:, None] | masks[None]).sum(axis=(2, 3))
    np.testing.assert_allclose(iou(boxes, boxes), both / np.maximum(either, 1), atol=1e-15)
    np.testing.assert_array_equal(paired_iou(boxes, boxes[::-1]), np.diag(iou(boxes, boxes[::-1])))
    assert iou(boxes[:0], boxes).shape == (0, 30)


def test_boxes_in_shares_are_those_of_the_original_size() -> None:
    found = normalised(check(table()))
    first = found.iloc[0]
    assert first[["x_min", "y_min", "x_max", "y_max"]].tolist() == [0.1, 0.1, 0.3, 0.3]
    np.testing.assert_allclose(
        first[["x_mid", "y_mid", "box_w", "box_h", "area"]], [0.2, 0.2, 0.2, 0.2, 0.04]
    )
    assert found.iloc[3].isna().all()


def test_sizes_are_joined_by_image_and_may_lack_some(tmp_path: Path) -> None:
    sizes = tmp_path / "train_meta.csv"
    sizes.write_text("image_id,dim0,dim1\nzzz,5,6\na,200,100\n")
    raw = table().drop(columns=["width", "height"])
    found = check(with_sizes(raw, sizes, "dim1", "dim0"))
    assert found["width"].tolist()[:3] == [100.0] * 3 and found["height"].isna().tolist()[3:] == [True, True]
    sizes.write_text("image_id,dim0,dim1\na,200,100\na,200,100\na,201,100\n")
    with pytest.raises(DataError, match="line 4: image_id 'a' has two sizes"):
        with_sizes(raw, sizes, "dim1", "dim0")
    with pytest.raises(DataError, match="no column width, height"):
        with_sizes(raw, sizes)
