"""Which settings of a search mattered: fANOVA over its trials (Hutter, Hoos and Leyton-Brown 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from kit import seeds
from kit.learn.space import WIDE

MOST = 150  # trials: a forest's variances take time as their square


@dataclass(frozen=True)
class Importance:
    """One setting: its share of the variance of the outcomes, and the least and most over resamples."""

    name: str
    share: float
    low: float
    high: float


def of_trials(
    settings: pd.DataFrame, outcome: NDArray[np.float64], seed: int, resamples: int = 5, trees: int = 24
) -> list[Importance]:
    """The importance of each setting, the largest first; all of them sum to 1.

    Of more than `MOST` trials so many are drawn.

    Args:
        settings: one row a trial, one column a setting that differs between trials; text.
        outcome: what is explained ``(n,)``.
        resamples: of the trials, with replacement, each with a forest of its own: few trials make another
            forest each time, and only what all of them say is known.
    """
    if len(settings) > MOST:
        drawn = np.sort(seeds.rng(seed, "importance").permutation(len(settings))[:MOST])
        settings, outcome = settings.iloc[drawn], outcome[drawn]
    shares = [_once(settings, outcome, seed, trees)]
    for n in range(resamples):
        rows = seeds.rng(seed, "importance", n).integers(0, len(settings), len(settings))
        shares.append(_once(settings.iloc[rows], outcome[rows], seed, trees))
    table = pd.DataFrame(shares).reindex(columns=settings.columns).fillna(0.0)
    found = [
        Importance(str(name), float(values.iloc[0]), float(values.min()), float(values.max()))
        for name, values in table.items()
    ]
    return sorted(found, key=lambda one: (-one.share, one.name))


def _once(settings: pd.DataFrame, outcome: NDArray[np.float64], seed: int, trees: int) -> dict[str, float]:
    """The share of each setting that differs in these trials; nothing where they have one outcome."""
    columns = {name: _column(settings[name]) for name in settings if settings[name].nunique() > 1}
    if not columns or not np.ptp(outcome):
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    space = {str(name): distribution for name, (_, distribution) in columns.items()}
    for n, value in enumerate(outcome):
        params = {str(name): values[n] for name, (values, _) in columns.items()}
        study.add_trial(create_trial(value=float(value), params=params, distributions=space))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=seed % 2**32)
    try:
        found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except RuntimeError:  # a forest that splits nowhere explains nothing
        return {}
    return found


def _column(texts: pd.Series[str]) -> tuple[list[Any], BaseDistribution]:
    """The values of a setting and what they were drawn from, as far as they tell."""
    values = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        return texts.tolist(), CategoricalDistribution(sorted(set(texts)))
    low, high = float(values.min()), float(values.max())
    return values.tolist(), FloatDistribution(low, high, log=low > 0 and high / low >= WIDE)
