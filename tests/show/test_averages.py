"""The footers of the classification report are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import classification_report

from kit.combine.confusion import confusion
from kit.metrics import WeightedLogLoss
from kit.show.averages import of_counts, table, weighed_accuracy


@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("seed", range(4))
def test_they_are_those_of_scikit_learn(classes: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes - (seed == 3), 60)  # of the last class there may be none
    values = draw.dirichlet(np.ones(classes), 60)
    called = values.argmax(axis=1)
    found = of_counts(confusion(labels, values))
    names = range(classes)
    theirs = classification_report(labels, called, labels=names, output_dict=True, zero_division=0)
    for mine, name in ((found.macro, "macro avg"), (found.weighted, "weighted avg")):
        np.testing.assert_allclose(mine, [theirs[name][k] for k in ("precision", "recall", "f1-score")])
    assert found.accuracy == pytest.approx(float((labels == called).mean()))


def test_the_weighed_accuracy_counts_classes_as_the_metric_does() -> None:
    labels = np.array([0, 0, 0, 0, 1])
    values = np.array([[0.9, 0.1]] * 5)
    weights = WeightedLogLoss((0.5, 0.5)).row_weights(labels)
    counts = confusion(labels, values)
    assert weighed_accuracy(counts, labels, weights) == pytest.approx(0.5)
    assert table(counts, labels, weights).rows[0][3] == "0.8000"
    assert table(counts, labels, weights).rows[1][3] == "0.5000"
