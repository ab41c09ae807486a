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

CURVE = 200  # points kept of a ROC curve


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


def scored_units(run: Run) -> Scored:
    """Read the nested probabilities that `combine` wrote, beside what is known of each unit."""
    table = read_strings(run.folder("combine") / "oof.csv").set_index("unit_id")
    values = table[[f"p_{name}" for name in run.competition.classes]].to_numpy(dtype=np.float64)
    frame = gather(run).frame.loc[table.index]
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


def by_part(run: Run, scored: Scored, column: str) -> list[Part]:
    """The units by fold (``outer``) or ``site``, each scored alone, in the order of their names."""
    return by_name(run.competition.metric, scored.frame, column, scored.probabilities, run.seed)


def worst(scored: Scored, most: int = 10) -> NDArray[np.int64]:
    """The positions of the units with the largest ``-ln p``, worst first."""
    return np.argsort(-scored.losses, kind="stable")[:most]
