"""Bringing probabilities together: images of a unit, folds and seeds of a model, models of a blend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit.metrics import Array, normalise

CLIP = 6.0  # logits are clipped to +-6: one overconfident model must not decide a blend


def to_logits(probabilities: Array) -> Array:
    """Probabilities ``(n, K)`` as log-probabilities centred per row, each pair within +-6.

    >>> np.round(to_logits(np.array([[0.5, 0.5], [0.0, 1.0]])), 6).tolist()
    [[0.0, 0.0], [-3.0, 3.0]]
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    rows = rows / rows.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        logs = np.log(rows)
    logs = np.maximum(logs, logs.max(axis=1, keepdims=True) - CLIP)
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


@dataclass(frozen=True)
class UnitLogits:
    """What one model, or a blend, says about units.

    logits: mean clipped logit over the unit's images (units x classes).
    plain: mean probability over its images, exactly as predicted (units x classes).
    images: how many images the unit has.
    """

    logits: pd.DataFrame
    plain: pd.DataFrame
    images: pd.Series[int]

    def on(self, units: pd.Index) -> UnitLogits:
        """The same for these units, in this order."""
        return UnitLogits(self.logits.loc[units], self.plain.loc[units], self.images.loc[units])

    def n_eff(self, icc: float) -> Array:
        """Effective number of independent images of each unit: n / (1 + (n - 1) icc).

        The images of a unit are correlated, so ``n`` of them say less than ``n`` units would (Kish's
        design effect).
        """
        n = self.images.to_numpy(dtype=np.float64)
        return np.asarray(n / (1 + (n - 1) * icc))


def unit_logits(probabilities: Array, units: pd.Series[str], classes: Sequence[str]) -> UnitLogits:
    """The mean logit of each unit over its images; rows of one image (folds, seeds) are averaged first.

    Args:
        probabilities: one row a prediction ``(n, K)``.
        units: the unit_id of each row, indexed by image_id.
    """
    names = list(classes)
    both = np.concatenate([to_logits(probabilities), normalise(probabilities)], axis=1)
    table = pd.DataFrame(both, columns=names + [f"p_{name}" for name in names])
    table["image"], table["unit"] = units.index.to_numpy(), units.to_numpy()
    grouped = table.groupby(["unit", "image"]).mean().groupby(level="unit")
    mean = grouped.mean()
    plain = mean[[f"p_{name}" for name in names]].set_axis(names, axis=1)
    return UnitLogits(mean[names], plain, grouped.size())


def blend(models: Sequence[UnitLogits]) -> UnitLogits:
    """The equal-weight mean of several models on the units that all of them cover."""
    common = models[0].logits.index
    for model in models[1:]:
        common = common.intersection(model.logits.index)
    common = common.sort_values()
    # A model that could not read an image knows the unit from fewer of them: the most counts.
    images = pd.concat([model.images.loc[common] for model in models], axis=1).max(axis=1)
    return UnitLogits(
        _mean([model.logits.loc[common] for model in models]),
        _mean([model.plain.loc[common] for model in models]),
        images,
    )


def _mean(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    total = sum(table.to_numpy() for table in tables)
    return pd.DataFrame(total / len(tables), index=tables[0].index, columns=tables[0].columns)
