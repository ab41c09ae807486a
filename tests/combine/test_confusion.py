"""Units by true and most probable class, of every model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from kit.combine.confusion import cells, confusion, head
from kit.combine.evaluate import evaluate
from kit.combine.second_level import Problem
from kit.combine.units import gather, labels_of
from kit.state import Run


def test_confusion_counts_true_rows_and_predicted_columns() -> None:
    values = np.array([[0.9, 0.1, 0], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
    counts = confusion(np.array([0, 0, 2]), values)
    assert counts.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_few_classes_are_shown_whole_and_many_by_what_is_right() -> None:
    row = {"name": "net", "counts": [[8, 2], [1, 9]]}
    assert head(("CE", "LAA")) == ("what", "CE as CE / LAA", "LAA as CE / LAA", "right")
    assert cells(row, ("CE", "LAA")) == ("net", "8 / 2", "1 / 9", "0.850")
    four = {"name": "net", "counts": (np.eye(4, dtype=int) * 3 + 1).tolist()}
    assert cells(four, tuple("abcd")) == ("net", *["4 of 7"] * 4, f"{16 / 28:.3f}")
    assert len(head(tuple("abcd"))) == 6


def test_every_model_and_the_default_have_a_matrix_of_all_units(
    make_cohort: Any, make_run: Callable[..., Run]
) -> None:
    data = make_cohort(("a", "b"), 80)
    models = {"one": data.predictions(skill=3.0), "two": data.predictions(seed=1)}
    run = make_run(data, models, models=("two",))
    text = evaluate(run)
    content = json.loads((run.folder("evaluate") / "metrics.json").read_text())
    found = {row["name"]: np.array(row["counts"]) for row in content["confusion"]}
    assert set(found) == {"one", "two", "ridge pool"}
    frame = Problem(run, gather(run)).frame
    for counts in found.values():
        assert counts.sum(axis=1).tolist() == np.bincount(labels_of(frame)).tolist()
    assert np.trace(found["one"]) > np.trace(found["two"])
    assert f"one         {found['one'][0, 0]} / {found['one'][0, 1]}" in text
