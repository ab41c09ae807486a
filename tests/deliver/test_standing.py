"""A score is foretold from the submission's own folder, with the errors that it will have."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kit.competition import find
from kit.deliver.standing import ALIKE, alike, standing
from kit.errors import DataError

Write = Callable[..., Path]
TASK = find("strip-ai")


def test_a_surprise_counts_the_error_of_the_cv_and_of_the_test_units(written: Write) -> None:
    found = standing(written("aaaa", 0.65, tested=100), bold=False, units=0)
    assert (found.scored, found.units, found.why) == (400, 100, "those of the sample")
    assert found.se == pytest.approx(0.02, rel=1e-3) and found.noise == pytest.approx(0.04, rel=1e-3)
    assert found.surprise(0.65 + 2 * math.hypot(0.02, 0.04)) == pytest.approx(2, rel=1e-3)
    assert found.surprise(0.60) < 0


def test_a_sample_of_a_few_units_is_a_stand_in_for_as_many_as_were_scored(written: Write) -> None:
    folder = written("aaaa", tested=4)
    assert standing(folder, False, 0).units == 400
    assert "the sample's 4 stand in" in standing(folder, False, 0).why
    assert standing(folder, False, 280).units == 280


def test_the_bold_one_has_the_score_of_its_own_row(written: Write) -> None:
    found = standing(written("aaaa", 0.65, bold=0.66), bold=True, units=0)
    assert found.cv == 0.66
    assert found.to_safe == pytest.approx((2 * 0.02**2 - 0.01**2) / (2 * 0.02**2), rel=1e-3)
    with pytest.raises(DataError, match="no score of a bold submission"):
        standing(written("bbbb"), bold=True, units=0)


def test_runs_that_err_on_the_same_units_are_alike(written: Write) -> None:
    same, near = (standing(written(name, luck=luck), False, 0) for name, luck in (("aaaa", 0), ("bbbb", 1)))
    bold = standing(written("cccc", luck=2, bold=0.66), True, 0)
    matrix, lacking = alike(TASK, None, [same, near, bold])
    assert lacking == [] and (matrix == matrix.T).all() and (np.diag(matrix) == 1).all()
    assert 0.9 < matrix[0, 1] < 1
    assert matrix[0, 2] == pytest.approx(
        bold.to_safe * alike(TASK, None, [same, standing(bold.folder, False, 0)])[0][0, 1]
    )


def test_without_labels_how_alike_two_runs_are_is_assumed_and_said(written: Write) -> None:
    folders = [written("aaaa"), written("bbbb", luck=1)]
    for folder in folders:
        (folder / "folds.csv").unlink()
    matrix, lacking = alike(TASK, None, [standing(folder, False, 0) for folder in folders])
    assert matrix[0, 1] == ALIKE and "give --data DIR" in lacking[0]
