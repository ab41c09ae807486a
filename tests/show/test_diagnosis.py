"""ROC curves and errors, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kit.show.diagnosis import roc


def test_a_roc_curve_has_the_area_that_the_score_table_prints() -> None:
    from kit.metrics import area_under_curve

    draw = np.random.default_rng(2)
    labels, predicted = np.arange(900) % 2, draw.random(900)
    found = roc(labels == 1, predicted)
    assert found is not None
    table = np.stack([1 - predicted, predicted], axis=1)
    assert found.area == pytest.approx(area_under_curve(labels, table))
    assert len(found.true) <= 200
    assert (found.false[0], found.true[-1]) == (0, 1)


def test_a_class_without_a_unit_has_no_curve() -> None:
    assert roc(np.zeros(5, dtype=bool), np.linspace(0, 1, 5)) is None
