"""Submissions of the same images become one: overlapping boxes are fused, each submission has its vote."""

from __future__ import annotations

import pandas as pd
import pytest

from kit.boxes import CORNERS
from kit.combine.detection_ensemble import fused
from kit.combine.detections import strings
from kit.errors import DataError, SettingError

NOTHING = 14


def table(*rows: tuple[str, int, float, float, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image_id", "class_id", "score", *CORNERS])


ONE = table(("b", 0, 0.8, 0, 0, 10, 10), ("b", 1, 0.5, 0, 0, 10, 10), ("a", NOTHING, 1.0, 0, 0, 1, 1))
TWO = table(("a", 0, 0.6, 5, 5, 9, 9), ("a", NOTHING, 0.3, 0, 0, 1, 1), ("b", 0, 0.4, 0, 0, 10, 13))


def words(found: pd.DataFrame) -> dict[str, set[str]]:
    """The boxes of each image, as text."""
    rows = strings(found)
    split = {
        name: text.split() for name, text in zip(rows["image_id"], rows["PredictionString"], strict=True)
    }
    return {name: {" ".join(w[n : n + 6]) for n in range(0, len(w), 6)} for name, w in split.items()}


def test_boxes_that_agree_become_one_and_a_submission_without_one_counts_as_zero() -> None:
    found = fused({"one": ONE, "two": TWO}, NOTHING)
    assert found["image_id"].drop_duplicates().tolist() == ["b", "a"]  # the order of the first
    assert words(found) == {
        "b": {"0 0.6 0 0 10 11", "1 0.25 0 0 10 10"},
        "a": {"14 0.65 0 0 1 1", "0 0.3 5 5 9 9"},
    }


def test_votes_weigh_confidences_and_corners() -> None:
    found = fused({"one": ONE, "two": TWO}, NOTHING, votes=[3, 1])
    assert "14 0.825 0 0 1 1" in words(found)["a"]
    assert "0 0.7 0 0 10 10.429" in words(found)["b"]


def test_suppression_keeps_the_surest_box_as_it_is() -> None:
    found = fused({"one": ONE, "two": TWO}, NOTHING, how="nms")
    assert words(found)["b"] == {"0 0.8 0 0 10 10", "1 0.5 0 0 10 10"}
    assert words(found)["a"] == {"14 1 0 0 1 1", "0 0.6 5 5 9 9"}


def test_suppression_lowers_confidences_by_the_vote() -> None:
    found = fused({"one": ONE, "two": TWO}, NOTHING, votes=[1, 4], how="nms")
    assert words(found)["b"] == {"0 0.4 0 0 10 13", "1 0.125 0 0 10 10"}


def test_below_the_overlap_boxes_stay_apart() -> None:
    assert len(fused({"one": ONE, "two": TWO}, NOTHING, threshold=0.9)) == 5


def test_a_submission_that_is_fused_with_a_copy_of_itself_is_itself() -> None:
    assert words(fused({"one": ONE, "copy": ONE}, NOTHING)) == words(ONE)


def test_submissions_of_other_images_and_votes_of_another_number_are_refused() -> None:
    with pytest.raises(DataError, match="image 'b' is in one and not in two"):
        fused({"one": ONE, "two": TWO[TWO["image_id"] == "a"]}, NOTHING)
    with pytest.raises(DataError, match="image 'b' is in two and not in one"):
        fused({"one": ONE[ONE["image_id"] == "a"], "two": TWO}, NOTHING)
    for votes in ([1.0], [1.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(SettingError, match="submissions have the votes"):
            fused({"one": ONE, "two": TWO}, NOTHING, votes=votes)
