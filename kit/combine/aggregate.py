"""Bringing probabilities to units: images of a unit, folds and seeds of a model, models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import softmax

from kit.combine.method import to_logits
from kit.metrics import Array, normalise


@dataclass(frozen=True)
class UnitLogits:
    """What one model says about units.

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


def covered(models: Mapping[str, UnitLogits]) -> pd.Index:
    """The units that every model covers, sorted."""
    first, *others = models.values()
    common = first.logits.index
    for model in others:
        common = common.intersection(model.logits.index)
    return common.sort_values()


def effective_number(images: pd.Series[int], icc: float) -> Array:
    """Effective number of independent images of each unit: n / (1 + (n - 1) icc).

    The images of a unit are correlated, so ``n`` of them say less than ``n`` units would (Kish's design
    effect).
    """
    n = images.to_numpy(dtype=np.float64)
    return np.asarray(n / (1 + (n - 1) * icc))


def side_by_side(
    models: Mapping[str, UnitLogits], units: pd.Index, reference: Mapping[str, Sequence[float]], icc: float
) -> Array:
    """Probabilities ``(units, models, K)`` that know how many images stand behind them.

    What a unit's mean logit says beyond the model's average unit is evidence, and counts once for each
    effectively independent image.

    Args:
        reference: the mean logit of each model over its out-of-fold units ``(K,)``.
        icc: correlation of the logits of two images of one unit.
    """
    # A model that could not read an image knows the unit from fewer of them: the most counts.
    images = pd.concat([model.images.loc[units] for model in models.values()], axis=1).max(axis=1)
    many = effective_number(images, icc)[:, None]
    rows = []
    for name, model in models.items():
        logits, average = model.logits.loc[units].to_numpy(), np.asarray(reference[name])
        rows.append(softmax(average + many * (logits - average), axis=1))
    return np.stack(rows, axis=1)


def plain_mean(models: Mapping[str, UnitLogits], units: pd.Index) -> Array:
    """The mean of the models' probabilities as they came ``(units, K)``."""
    return np.asarray(np.mean([model.plain.loc[units].to_numpy() for model in models.values()], axis=0))
