"""Simulated detectors are as good as they are said to be, and the rows say what the filter does to them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.boxes import CORNERS
from kit.combine.detection_metric import curves
from kit.combine.detections import DOT, Rules
from tests.bench.detection import DETECTORS, World, detected, rows_of, scored, table

COUNT = 120


@pytest.fixture
def made() -> World:
    """A third of the images has one finding of three kinds; the classifier knows it nearly always."""
    draw = np.random.default_rng(0)
    images = np.array([f"{n:03d}" for n in range(COUNT)], dtype=object)
    ill = np.arange(COUNT) % 3 == 0
    low = draw.uniform(0, 400, (ill.sum(), 2))
    lesions = pd.DataFrame(np.hstack([low, low + draw.uniform(100, 400, low.shape)]), columns=list(CORNERS))
    lesions.insert(0, "image_id", images[ill])
    lesions.insert(1, "class_id", np.arange(len(lesions)) % 3)
    none = pd.DataFrame({"image_id": images[~ill], "class_id": 14} | dict(zip(CORNERS, DOT, strict=True)))
    p = np.clip(ill + draw.normal(0, 0.2, COUNT), 0.01, 0.99)
    sizes = pd.DataFrame({"width": 1000.0, "height": 1000.0}, index=images)
    rules = Rules({0: "a", 1: "b", 2: "c", 14: "none"}, 14, sizes)
    truths = pd.concat([lesions, none], ignore_index=True)
    known = (pd.Series(values, images) for values in (p, ill.astype(float), np.arange(COUNT) % 5))
    return World(rules, truths, lesions, *known)


def test_detectors_get_better_from_first_to_last_and_the_last_is_perfect(made: World) -> None:
    scores = [float(curves(detected(made, d), made.truths, made.images).mean()[0]) for d in DETECTORS]
    assert scores == sorted(scores)
    assert scores[-1] == 1.0


def test_every_image_is_in_every_submission(made: World) -> None:
    for detector in DETECTORS:
        assert sorted(detected(made, detector)["image_id"].unique()) == made.images


def test_the_rows_tell_score_and_noise_of_each_system(made: World) -> None:
    rows = rows_of(made, DETECTORS[2])
    systems = [row.system for row in rows[::2]]
    assert systems[0] == "detector alone" and {"kit", "limit"} <= set(systems)
    assert [row.unit for row in rows[:2]] == ["mAP", "+- mAP"]
    value = {row.system: row.value for row in rows[::2]}
    assert value["limit"] >= value["kit"] > value["detector alone"]
    assert "gain +" in table(rows)


def test_the_timed_score_is_a_score() -> None:
    assert 0 < scored(50, 20) < 1
