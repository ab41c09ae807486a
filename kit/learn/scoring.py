"""How good some settings are: the losses of the units of inner splits, and when a trial is given up.

The inner splits are cut from one training fold. A split names what is learned from and what is judged;
every trial of a search fits with the same random numbers on the same splits, so losses are paired.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState, create_trial

from kit import seeds
from kit.learn.bags import BagModel
from kit.learn.fit import Fit
from kit.learn.loop import Diverged
from kit.learn.models import Model
from kit.learn.predict import predict_images
from kit.learn.study import Score, Trials
from kit.learn.train import fold_names, train
from kit.state import Run

BLOCKS = 20  # parts of a split's units, whose mean losses are compared
LIKELY = 0.1  # a trial is given up when chance would make it look so bad this often
MARKS = (0.25, 0.5, 0.75)  # shares of its epochs after which a fine-tuned model is looked at
KNOWN = 3  # finished trials that a curve is compared with, at least
FLOOR = 1e-6  # least probability that counts
WORST = round(float(-np.log(FLOOR)), 6)  # so no unit's loss is above 13.8
Look = Callable[[int, BagModel], bool]
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Split:
    """Images to learn from and images to judge on, indexed by image_id; no group is in both."""

    name: str
    learned: pd.DataFrame
    judged: pd.DataFrame


def inner_splits(run: Run, images: pd.DataFrame, fold: str) -> list[Split]:
    """The splits of a search: each judges another fold; ``fold`` itself is in none of them."""
    return [
        Split(
            f"tune {fold} {inner}",
            images[~images["fold"].isin([fold, inner])],
            images[images["fold"] == inner],
        )
        for inner in inner_folds(run, images, fold)
    ]


def inner_folds(run: Run, images: pd.DataFrame, fold: str) -> list[str]:
    """The inner validation folds: those that follow in turn and leave every class to learn from."""
    names = fold_names(images)
    place = names.index(fold)
    others = [names[(place + n) % len(names)] for n in range(1, len(names))]
    classes = len(run.competition.classes)
    usable = [name for name in others if images[~images["fold"].isin([fold, name])]["y"].nunique() == classes]
    return usable[: run.competition.tuning.inner]


def unit_losses(run: Run, model: Model, split: Split, look: Look | None = None) -> pd.Series[float]:
    """The log loss of every judged unit, by unit_id: the mean over its images.

    Args:
        look: called after every epoch of the fit; true ends it.

    Raises:
        Diverged: the loss is not finite. It is not tried with another rate: that would be scored under a
            name that is not its own.
    """
    fit = Fit(run, model, split.learned, f"{model.name} {split.name}")
    network = train(fit, after_epoch=look, retries=0)
    return judge(run, model, network, split)


def judge(run: Run, model: Model, network: BagModel, split: Split) -> pd.Series[float]:
    """The same of a network that is fitted already; what is no number counts as the greatest loss."""
    judged = split.judged
    found = predict_images(run, model, network, "train", judged.index.to_numpy(dtype=object))
    truth = judged["y"].to_numpy()
    said = np.nan_to_num(found[np.arange(len(truth)), truth], nan=0.0)
    # Rounded: a study need not keep digits that mean nothing.
    loss = pd.Series(-np.log(np.maximum(said, FLOOR)), judged["unit_id"].to_numpy())
    return loss.groupby(level=0).mean().round(6)


def score(run: Run, model: Model, splits: list[Split], slot: int, trials: Trials) -> Score:
    """Fit and judge split by split, until done or clearly worse than the best trial so far.

    The settings as given, in slot 0, are never given up.

    Raises:
        Diverged: those do not work.
    """
    prune = run.competition.tuning.prune and slot > 0
    found: list[list[float]] = []
    curves: list[list[float]] = []
    for n, split in enumerate(splits):
        curve = _Curve(run, model, split, [c[n] for c in _curves(trials) if len(c) > n], prune)
        try:
            mine = unit_losses(run, model, split, curve.look if curve.is_wanted else None).tolist()
        except Diverged as error:
            if slot == 0:
                message = f"trial 0, which has the settings as given, came to nothing: {error.message}"
                raise Diverged(message, error.hint) from error
            log.warning("a trial of %s is given up: %s", model.name, error.message)
            return Score([*found, lost(split)], True, curves, error.message)
        found.append(mine)
        curves += [curve.values] if curve.is_wanted else []
        is_last = n == len(splits) - 1
        if curve.is_given_up or (prune and not is_last and loses(run, splits, found, trials)):
            return Score(found, True, curves)
    return Score(found, False, curves)


def lost(split: Split) -> list[float]:
    """The losses of the units of a split of which nothing could be learned."""
    return [WORST] * int(split.judged["unit_id"].nunique())


def _curves(trials: Trials) -> list[list[list[float]]]:
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return [trial.user_attrs.get("curves", []) for trial in done]


def loses(run: Run, splits: list[Split], found: list[list[float]], trials: Trials) -> bool:
    """Whether losses on the first splits are clearly worse than the best trial's on the same ones.

    Wilcoxon's signed-rank test over the mean losses of blocks of units (Wilcoxon 1945, as a pruner:
    Optuna's WilcoxonPruner). A block is the same units in every trial.
    """
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not done:
        return False
    best = min(done, key=lambda trial: (trial.value, trial.number))
    study = optuna.create_study()
    study.add_trial(_in_blocks(run, splits, best.user_attrs["losses"], TrialState.COMPLETE))
    mine = _in_blocks(run, splits, found, TrialState.RUNNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.pruners.WilcoxonPruner(p_threshold=LIKELY).prune(study, mine)


def _in_blocks(run: Run, splits: list[Split], found: list[list[float]], state: TrialState) -> FrozenTrial:
    """A trial whose steps are blocks of units, numbered over all splits."""
    steps: dict[int, float] = {}
    for n, (split, mine) in enumerate(zip(splits, found, strict=False)):
        block = blocks(run, sorted(set(split.judged["unit_id"])))
        for number in np.unique(block):
            steps[n * BLOCKS + int(number)] = float(np.mean(np.array(mine)[block == number]))
    value = float(np.mean(np.concatenate(found))) if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, intermediate_values=steps)


def blocks(run: Run, units: list[str]) -> NDArray[np.int64]:
    """The block of each unit ``(n,)``: a hash of its name."""
    return np.array([seeds.number(run.seed, "block", unit) % BLOCKS for unit in units], np.int64)


class _Curve:
    """The loss of a fine-tuned model at some moments of its fit, and whether to go on.

    It is given up when it was above the median of other trials at two moments in a row (the median rule
    of Golovin et al. 2017, Google Vizier, with patience): a low rate learns late.
    """

    def __init__(self, run: Run, model: Model, split: Split, others: list[list[float]], prune: bool) -> None:
        self.is_wanted = run.competition.tuning.prune and not model.frozen
        self.values: list[float] = []
        self.is_given_up = False
        self._run, self._model, self._split = run, model, split
        self._others, self._prune = others, prune
        self._marks = {max(1, round(share * model.epochs)) - 1 for share in MARKS} - {model.epochs - 1}

    def look(self, epoch: int, network: BagModel) -> bool:
        """Called with the number of the epoch that has ended, from 0, and the network as it is."""
        if epoch not in self._marks:
            return False
        # A copy: predicting moves a network to another device, and the fit must not notice.
        loss = judge(self._run, self._model, copy.deepcopy(network).eval(), self._split)
        self.values.append(round(float(loss.mean()), 6))
        self.is_given_up = self._prune and lags(self.values, self._others)
        return self.is_given_up


def lags(curve: list[float], others: list[list[float]]) -> bool:
    """Whether the last two values of a curve are above the median of other curves at the same moments.

    >>> others = [[0.6, 0.5, 0.4], [0.6, 0.5, 0.4], [0.7, 0.6, 0.5]]
    >>> lags([0.65, 0.55], others), lags([0.65, 0.45], others), lags([0.9], others)
    (True, False, False)
    """
    n = len(curve)
    known = np.array([other[:n] for other in others if len(other) >= n])
    if n < 2 or len(known) < KNOWN:
        return False
    return bool(np.all(np.array(curve[-2:]) > np.median(known, axis=0)[-2:]))


def paired(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """The mean of ``first - second`` over units, and its standard error; both 0 or more units."""
    gains = np.subtract(first, second)
    if not len(gains):
        return 0.0, 0.0
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return float(gains.mean()), float(error)


def best_of(trials: Trials) -> tuple[FrozenTrial, FrozenTrial]:
    """The untuned trial, and the best of those that were not given up; of equal ones the first."""
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    start: Any = next(trial for trial in trials if trial.user_attrs["slot"] == 0)
    return start, min(done, key=lambda trial: (trial.value, trial.user_attrs["slot"]))
