"""The numbers behind the report: calibration, discrimination, and where the loss comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit import metrics
from kit.combine.parts import Part, by_name
from kit.combine.units import gather, labels_of
from kit.files import read_strings
from kit.metrics import Array
from kit.state import Run

CURVE = 200  # points kept of a curve


@dataclass(frozen=True)
class Scored:
    """The OOF units, as the default predicts them.

    frame: indexed by unit_id; group_id, site, label (class number), outer.
    weights: the share of each unit in the score; they sum to 1.
    """

    frame: pd.DataFrame
    labels: NDArray[np.int64]
    probabilities: Array
    weights: Array
    losses: Array


def scored_units(run: Run, frame: pd.DataFrame | None = None) -> Scored:
    """Read the nested probabilities that `combine` wrote, beside what is known of each unit.

    Args:
        frame: the labelled units, where `kit.combine.units.gather` has been asked already.
    """
    table = read_strings(run.folder("combine") / "oof.csv").set_index("unit_id")
    values = table[[f"p_{name}" for name in run.competition.classes]].to_numpy(dtype=np.float64)
    frame = (gather(run).frame if frame is None else frame).loc[table.index]
    labels = labels_of(frame)
    weights = run.competition.metric.row_weights(labels)
    return Scored(frame, labels, values, weights, metrics.row_losses(labels, values))


@dataclass(frozen=True)
class Curve:
    """A ROC curve: one class against the rest, every unit counting once."""

    false: Array
    true: Array
    area: float


def roc(hit: NDArray[np.bool_], predicted: Array) -> Curve | None:
    """The ROC curve of a class, thinned for drawing; ``None`` where one side has no unit."""
    from sklearn.metrics import auc, roc_curve

    if hit.all() or not hit.any():
        return None
    false, true, _ = roc_curve(hit, predicted)
    kept = np.unique(np.linspace(0, len(false) - 1, min(CURVE, len(false))).round().astype(int))
    return Curve(false[kept], true[kept], float(auc(false, true)))


@dataclass(frozen=True)
class Found:
    """A precision-recall curve: one class against the rest, every unit counting once.

    precision: where a recall is reached first, from the surest unit on. area: the average precision.
    prevalence: the class's share, which is the precision of guessing.
    """

    recall: Array
    precision: Array
    area: float
    prevalence: float


def precision_recall(hit: NDArray[np.bool_], predicted: Array) -> Found | None:
    """The precision-recall curve of a class, thinned for drawing; ``None`` where one side has no unit."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    if hit.all() or not hit.any():
        return None
    precision, recall, _ = precision_recall_curve(hit, predicted)
    precision, recall = precision[::-1], recall[::-1]
    # Only where a unit of the class is found does the curve step: a rare class has few such places among
    # very many. What is drawn before the first is its precision, and not a 1 that nobody has seen.
    steps = np.flatnonzero(np.diff(recall) > 0) + 1
    kept = steps[np.unique(np.linspace(0, len(steps) - 1, min(CURVE - 1, len(steps))).round().astype(int))]
    area = float(average_precision_score(hit, predicted))
    return Found(np.r_[0.0, recall[kept]], precision[np.r_[kept[0], kept]], area, float(hit.mean()))


def by_part(run: Run, scored: Scored, column: str) -> list[Part]:
    """The units by fold (``outer``) or ``site``, each scored alone, in the order of their names."""
    return by_name(run.competition.metric, scored.frame, column, scored.probabilities, run.seed)


def worst(scored: Scored, most: int = 10) -> NDArray[np.int64]:
    """The positions of the units with the largest ``-ln p``, worst first."""
    return np.argsort(-scored.losses, kind="stable")[:most]


def best(scored: Scored) -> NDArray[np.int64]:
    """The positions of all units, the smallest ``-ln p`` first."""
    return np.argsort(scored.losses, kind="stable")


def least_sure(scored: Scored) -> NDArray[np.int64]:
    """The positions of all units, that whose probabilities are the most alike (highest entropy) first."""
    p = np.clip(scored.probabilities, 1e-15, 1)
    return np.argsort((p * np.log(p)).sum(axis=1), kind="stable")
