"""Each variant does what it says to each image, and the choice is made without the fold it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.boxes import CORNERS
from kit.combine.detection_metric import curves
from kit.combine.detections import strings
from kit.combine.predictions import Source
from kit.combine.two_class_filter import Filter, choose, filtered, normal_class, probabilities
from kit.errors import DataError, SettingError

NOTHING = 14
ABNORMAL = pd.Series({"low": 0.05, "mid": 0.5, "high": 0.95, "none": 0.25})


def detections() -> pd.DataFrame:
    """A box on each of three images, with a word of its own on one of them; and one without a finding."""
    rows = [
        ("mid", 0, 0.8, 10, 10, 20, 20),
        ("mid", NOTHING, 0.3, 0, 0, 1, 1),
        ("low", 1, 0.4, 10, 10, 20, 20),
        ("high", 2, 0.6, 10, 10, 20, 20),
        ("none", NOTHING, 1.0, 0, 0, 1, 1),
    ]
    return pd.DataFrame(rows, columns=["image_id", "class_id", "score", *CORNERS])


def after(plan: Filter) -> dict[str, str]:
    table = strings(filtered(detections(), ABNORMAL, plan, NOTHING))
    return dict(zip(table["image_id"], table["PredictionString"], strict=True))


def test_append_says_nothing_once_on_every_image_with_its_probability() -> None:
    assert after(Filter("append")) == {
        "mid": "0 0.8 10 10 20 20 14 0.5 0 0 1 1",
        "low": "1 0.4 10 10 20 20 14 0.95 0 0 1 1",
        "high": "2 0.6 10 10 20 20 14 0.05 0 0 1 1",
        "none": "14 0.75 0 0 1 1",
    }


def test_multiply_takes_boxes_by_the_probability_of_a_finding_too() -> None:
    assert after(Filter("multiply")) == {
        "mid": "0 0.4 10 10 20 20 14 0.5 0 0 1 1",
        "low": "1 0.02 10 10 20 20 14 0.95 0 0 1 1",
        "high": "2 0.57 10 10 20 20 14 0.05 0 0 1 1",
        "none": "14 0.75 0 0 1 1",
    }


def test_threshold_replaces_appends_or_leaves_alone_and_its_bounds_are_those_of_the_notebook() -> None:
    assert after(Filter("threshold")) == {
        "mid": "0 0.8 10 10 20 20 14 0.5 0 0 1 1",
        "low": "14 1 0 0 1 1",
        "high": "2 0.6 10 10 20 20",
        "none": "14 0.75 0 0 1 1",
    }
    assert after(Filter("threshold", 0.05, 1.0))["low"] == "1 0.4 10 10 20 20 14 0.95 0 0 1 1"
    # From high on the detector's own word stays.
    assert after(Filter("threshold", 0.1, 0.5))["mid"] == "0 0.8 10 10 20 20 14 0.3 0 0 1 1"


def test_without_a_filter_nothing_changes() -> None:
    pd.testing.assert_frame_equal(filtered(detections(), ABNORMAL, Filter("none"), NOTHING), detections())


def test_thresholds_that_cross_are_refused() -> None:
    with pytest.raises(SettingError, match=r"0\.9 and 0\.1"):
        Filter("threshold", 0.9, 0.1)


@pytest.mark.parametrize("variant", ["append", "multiply", "threshold"])
def test_an_image_without_a_probability_stays_as_it_is_and_in_its_place(variant: Any) -> None:
    plan = Filter(variant)
    found = strings(filtered(detections(), ABNORMAL.drop("mid"), plan, NOTHING))
    expected = after(plan) | {"mid": "0 0.8 10 10 20 20 14 0.3 0 0 1 1"}
    assert list(zip(found["image_id"], found["PredictionString"], strict=True)) == list(expected.items())


def test_a_file_of_other_images_is_refused_with_the_first_that_it_lacks() -> None:
    with pytest.raises(DataError, match="no probability of 3 of 4 images is there, first 'high'"):
        filtered(detections(), ABNORMAL[["mid"]], Filter(), NOTHING)


# --- the choice -------------------------------------------------------------------------------------


def crowd(skill: float, count: int = 300) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series, pd.Series]:
    """Every third image has a finding, a detector sees half of all images; the classifier has a skill."""
    draw = np.random.default_rng(0)
    images = np.array([f"{n:03d}" for n in range(count)], dtype=object)
    ill = np.arange(count) % 3 == 0
    corners = dict(zip(CORNERS, (10.0, 10.0, 30.0, 30.0), strict=True))
    dot = dict(zip(CORNERS, (0.0, 0.0, 1.0, 1.0), strict=True))
    truths = pd.concat(
        [
            pd.DataFrame({"image_id": images[ill], "class_id": 0} | corners),
            pd.DataFrame({"image_id": images[~ill], "class_id": NOTHING} | dot),
        ]
    )
    seen = draw.random(count) < 0.5
    found = pd.concat(
        [
            pd.DataFrame(
                {"image_id": images[seen], "class_id": 0, "score": draw.random(seen.sum())} | corners
            ),
            pd.DataFrame({"image_id": images[~seen], "class_id": NOTHING, "score": 1.0} | dot),
        ],
        ignore_index=True,
    )
    p = 1 / (1 + np.exp(-(draw.normal(0, 1, count) + skill * (2 * ill - 1))))
    return found, truths, pd.Series(p, images), pd.Series(np.arange(count) % 5, images)


def test_a_classifier_that_knows_something_gains_and_is_taken() -> None:
    found, truths, abnormal, folds = crowd(skill=2.0)
    choice = choose(found, abnormal, truths, folds, NOTHING)
    before, after = (curves(t, truths, list(folds.index)).mean()[0] for t in (found, choice.nested))
    assert choice.plan.variant == "multiply"
    assert set(choice.picks) == {0, 1, 2, 3, 4}
    assert after > before + 0.1


def test_beside_a_detector_that_makes_no_mistake_the_filter_is_left_out() -> None:
    _, truths, abnormal, folds = crowd(skill=2.0)
    found = truths.assign(score=1.0)[["image_id", "class_id", "score", *CORNERS]]
    choice = choose(found, abnormal, truths, folds, NOTHING)
    assert choice.plan.variant == "none"
    assert sorted(strings(choice.nested)["PredictionString"]) == sorted(strings(found)["PredictionString"])


def test_the_variant_of_a_fold_is_chosen_without_it() -> None:
    found, truths, abnormal, folds = crowd(skill=2.0)
    spoiled = abnormal.where(folds != 3, 1 - abnormal)  # wrong in fold 3 alone
    assert choose(found, spoiled, truths, folds, NOTHING).picks[3] == Filter("multiply")
    some = folds[folds != 3].index
    others = choose(found, spoiled, truths, folds, NOTHING).nested
    expected = filtered(found, spoiled, Filter("multiply"), NOTHING)
    mine, theirs = (t[~t["image_id"].isin(some)]["score"].sort_values() for t in (others, expected))
    assert mine.tolist() == theirs.tolist()


def test_an_image_without_a_fold_is_named() -> None:
    found, truths, abnormal, folds = crowd(skill=2.0)
    with pytest.raises(DataError, match="image '007' has no fold"):
        choose(found, abnormal, truths, folds.drop("007"), NOTHING)


# --- the probabilities ------------------------------------------------------------------------------


def test_the_normal_class_is_that_of_images_without_a_box_in_whichever_place() -> None:
    nan = float("nan")
    table = pd.DataFrame({"image_id": ["a", "b"], "x_min": [1.0, nan]})
    labels = pd.Series({"a": "ill", "b": "well"})
    assert normal_class(table, labels, ("ill", "well")) == 1
    assert normal_class(table, labels, ("well", "ill")) == 0
    with pytest.raises(DataError, match="images without a finding are well"):
        normal_class(table, labels, ("well", "ill", "other"))
    with pytest.raises(DataError, match="images without a finding are ill, well"):
        normal_class(table.assign(x_min=nan), labels, ("ill", "well"))


@pytest.mark.parametrize("normal", [0, 1])
def test_probabilities_are_those_of_a_finding_by_image(tmp_path: Path, normal: int) -> None:
    path = tmp_path / "oof.csv"
    path.write_text("unit_id,p_x,p_y\nu1,0.25,0.75\nu2,0.5,0.5\n")
    units = pd.Series({"a": "u1", "b": "u2", "c": "u1", "d": "u3"})
    source = Source(units, "unit_id", "image_id", ("x", "y"))
    found = probabilities([path], source, normal)
    expected = {"a": 0.25 + 0.5 * (1 - normal), "b": 0.5, "c": 0.75 - 0.5 * normal}
    assert found.to_dict() == pytest.approx(expected)
    (other := tmp_path / "holdout.csv").write_text("unit_id,p_x,p_y\nu3,0.5,0.5\n")
    assert probabilities([path, other], source, normal).to_dict() == pytest.approx(expected | {"d": 0.5})
    other.write_text("unit_id,p_x,p_y\nu2,0.5,0.5\n")
    with pytest.raises(DataError, match="both have 'u2'"):
        probabilities([path, other], source, normal)
