"""Votes, soft labels and consensus boxes of several readers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.boxes import check
from kit.combine.consensus import consensus_boxes, mixed, panels, soft_labels, voted, votes
from kit.errors import SettingError

ROWS = [
    ("a", "Nodule", 0, "R1", 10, 10, 30, 30),
    ("a", "Nodule", 0, "R1", 60, 60, 80, 80),
    ("a", "Nodule", 0, "R2", 12, 10, 32, 30),
    ("a", "Mass", 3, "R3", 10, 10, 30, 30),
    ("b", "No finding", 14, "R1", None, None, None, None),
    ("b", "No finding", 14, "R2", None, None, None, None),
    ("b", "No finding", 14, "R3", None, None, None, None),
    ("c", "No finding", 14, "R4", None, None, None, None),
    ("c", "Mass", 3, "R5", 5, 5, 9, 9),
]


def table(rows: list[tuple[object, ...]] = ROWS) -> pd.DataFrame:
    columns = ["image_id", "finding", "class_id", "reader", "x_min", "y_min", "x_max", "y_max"]
    return check(pd.DataFrame(rows, columns=columns))


def test_a_reader_votes_once_for_a_finding_however_many_boxes_there_are() -> None:
    found = votes(table())
    assert found.columns.tolist() == ["Nodule", "Mass", "No finding"]
    assert found.loc["a"].tolist() == [2, 1, 0] and found.loc["b"].tolist() == [0, 0, 3]
    assert panels(table()).to_dict() == {"a": 3, "b": 3, "c": 2}


def test_a_vote_and_a_soft_label_are_the_readers_by_number_and_by_share() -> None:
    assert voted(table(), 2).to_numpy().tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_allclose(soft_labels(table()).loc["a"], [2 / 3, 1 / 3, 0])
    assert soft_labels(table()).loc["c"].tolist() == [0, 0.5, 0.5]
    with pytest.raises(SettingError):
        voted(table(), 0)


def test_images_of_which_readers_are_of_two_minds_are_found() -> None:
    assert mixed(table()) == ["c"] and mixed(table(ROWS[:7])) == []


def test_a_fused_box_says_how_many_of_the_panel_drew_it() -> None:
    found = consensus_boxes(table())
    of_a = found[found["image_id"] == "a"]
    assert of_a["finding"].tolist() == ["Nodule", "Nodule", "Mass"]
    assert of_a["readers"].tolist() == [2, 1, 1] and of_a["panel"].tolist() == [3, 3, 3]
    assert of_a.iloc[0][["x_min", "y_min", "x_max", "y_max"]].tolist() == [11, 10, 31, 30]
    nothing = found[found["image_id"] == "b"].iloc[0]
    assert (nothing["finding"], nothing["readers"], nothing["share"]) == ("No finding", 3, 1.0)
    assert np.isnan(nothing["x_min"]) and len(found) == 5


def test_an_image_that_loses_its_boxes_to_the_vote_has_a_row_of_nothing() -> None:
    found = consensus_boxes(table(), least=2)
    assert found["image_id"].tolist() == ["a", "b", "c"]
    assert found["readers"].tolist() == [2, 3, 1] and found["finding"].iloc[2] == "No finding"
    without = consensus_boxes(table(ROWS[:4]), least=3)
    assert len(without) == 0


def test_a_table_in_which_nobody_drew_anything_is_rows_of_nothing() -> None:
    found = consensus_boxes(table(ROWS[4:7]))
    assert found[["image_id", "readers", "panel", "class_id"]].to_numpy().tolist() == [["b", 3, 3, 14]]


def test_suppression_keeps_a_box_that_was_drawn_and_that_most_readers_support() -> None:
    rows = [
        ("a", "Mass", 3, "R1", 0, 0, 20, 10),
        ("a", "Mass", 3, "R2", 6, 0, 26, 10),  # overlaps both by more than .4
        ("a", "Mass", 3, "R3", 12, 0, 32, 10),
    ]
    found = consensus_boxes(table(rows), threshold=0.4, method="nms")
    assert found[["x_min", "x_max", "readers"]].to_numpy().tolist() == [[6, 26, 3]]


@pytest.mark.parametrize("method", ["fuse", "nms"])
def test_a_consensus_does_not_depend_on_the_order_of_the_rows(method: str) -> None:
    draw = np.random.default_rng(0)
    rows = []
    for n in range(120):
        x, y = draw.integers(0, 20, 2)
        which = int(draw.integers(3))
        name = ("Mass", "Nodule", "Other")[which]
        rows.append((f"i{n % 7}", name, which, f"R{n % 3}", x, y, x + 20, y + 15 + n % 5))
    whole = table(rows)
    found = consensus_boxes(whole, method=method)  # type: ignore[arg-type]
    again = consensus_boxes(whole.sample(frac=1, random_state=1), method=method)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(found, again)
    assert found["readers"].between(1, 3).all()
