"""What others would do with the same out-of-fold probabilities: AutoGluon, hillclimbers and scikit-learn.

It runs in an environment of its own (``environment.py``), so it imports nothing from ``kit``::

    python -m tests.bench.peers problems.npz predictions.npz

``problems.npz`` holds ``count`` and, for each problem ``i``: ``p{i}_probabilities (n, M, K)`` of M models,
``p{i}_labels (n,)``, ``p{i}_outer (n,)`` the outer fold of each unit, and ``p{i}_weights (K,)`` the class
weights of the metric, empty for the plain log loss. ``predictions.npz`` holds, for each problem and system,
``p{i}_{system} (n, K)``: every outer fold predicted by what was fitted on the others; and the time that took,
``p{i}_{system}_seconds`` and ``p{i}_{system}_cpu``.

Every peer is used as it scores best: scikit-learn's under the class weights of the metric, as sample
weights; the others under the prior of the data, then shifted analytically to the prior that is scored.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from autogluon.core.calibrate.temperature_scaling import apply_temperature_scaling, tune_temperature_scaling
from autogluon.core.metrics import log_loss
from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection
from hillclimbers import climb_hill, partial
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier
from sklearn.frozen import FrozenEstimator
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

Array = NDArray[np.float64]
CLIP = 1e-15


@dataclass(frozen=True)
class Split:
    """One outer fold: units with labels to fit on, and units to predict.

    Attributes:
        known: probabilities ``(n, M, K)`` of the units to fit on.
        labels: their classes ``(n,)``; every class occurs.
        new: probabilities ``(m, M, K)`` of the units to predict.
        class_weights: the metric's ``(K,)``, or empty.
    """

    known: Array
    labels: NDArray[np.int64]
    new: Array
    class_weights: Array

    @property
    def odds(self) -> Array:
        """Scored prior over the prior of the data ``(K,)``; ones for the plain log loss."""
        prior = np.bincount(self.labels, minlength=self.known.shape[2]) / len(self.labels)
        if not len(self.class_weights):
            return np.ones_like(prior)
        return np.asarray(self.class_weights / self.class_weights.sum() / prior)

    @property
    def unit_weights(self) -> Array:
        """The weight of each known unit ``(n,)`` in the metric; the mean is 1."""
        return np.asarray(self.odds[self.labels])

    def shift(self, probabilities: Array) -> Array:
        """Move probabilities ``(..., K)`` from the prior of the data to the scored one."""
        moved = probabilities * self.odds
        return np.asarray(moved / moved.sum(axis=-1, keepdims=True))


def greedy(split: Split) -> tuple[Array, Array]:
    """Blend by AutoGluon's greedy selection: ``(n, K)`` of the known units and ``(m, K)`` of the new.

    With its own default of 25 rounds (Caruana et al. 2004). Its log loss ignores sample weights, so it
    selects under the prior of the data.
    """
    models = np.moveaxis(split.known, 1, 0)
    binary = split.known.shape[2] == 2
    selection = EnsembleSelection(
        ensemble_size=25,
        problem_type="binary" if binary else "multiclass",
        metric=log_loss,
        random_state=np.random.RandomState(0),
    )
    selection.fit([model[:, 1] if binary else model for model in models], split.labels)
    known, new = (np.einsum("nmk,m->nk", part, selection.weights_) for part in (split.known, split.new))
    return known, new


def autogluon(split: Split) -> Array:
    """Greedy selection and temperature, as AutoGluon calibrates its weighted ensemble for the log loss."""
    known, new = greedy(split)
    temperature = tune_temperature_scaling(known, split.labels)
    # AutoGluon, too, leaves the probabilities as they are where one of them is 0 or the fit has failed.
    if temperature is not None and temperature > 0:
        new = apply_temperature_scaling(new, temperature, "multiclass")
    return split.shift(new)


def platt(known: Array, labels: NDArray[np.int64], new: Array) -> Array:
    """One slope and a bias a class on log probabilities, unpenalised: with two classes, Platt scaling.

    Platt 1999; with more classes, Alexandari et al. 2020, "Maximum likelihood with bias-corrected
    calibration is hard-to-beat at label shift adaptation".
    """
    logits, truth = np.log(known.clip(CLIP)), np.eye(known.shape[1])[labels]

    def objective(theta: Array) -> tuple[float, Array]:
        scores = theta[0] * logits + theta[1:]
        error = softmax(scores, axis=1) - truth
        gradient = np.concatenate([[(error * logits).sum()], error.sum(axis=0)])
        return -float((truth * log_softmax(scores, axis=1)).sum()), gradient

    start = np.concatenate([[1.0], np.zeros(known.shape[1])])
    best = minimize(objective, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-8}).x
    return np.asarray(softmax(best[0] * np.log(new.clip(CLIP)) + best[1:], axis=1))


def greedy_platt(split: Split) -> Array:
    """Greedy selection, then Platt scaling, both under the prior of the data; then the prior shift."""
    known, new = greedy(split)
    return split.shift(platt(known, split.labels, new))


def hillclimbers(split: Split) -> Array:
    """Hill climbing on the log loss under the prior of the data, then the prior shift.

    Climbing on the scored metric, over models shifted before, was .0015 worse in the simulated worlds.
    It blends one column a model. A blend is linear, so the column may hold the probability of each unit's
    own class, which is all that a log loss reads; and that of the new units all classes, end to end. So
    it serves any number of classes, and for two it selects what it would on P(second class).
    """
    units, models, classes = split.known.shape
    names = [f"model {m}" for m in range(models)]
    own = split.known[np.arange(units), :, split.labels]
    every = np.moveaxis(split.new, 1, 2).reshape(-1, models)

    def log_loss_of(_: object, own_class: pd.Series) -> float:
        return -float(np.log(np.maximum(own_class.to_numpy(), CLIP)).mean())

    with contextlib.redirect_stdout(io.StringIO()):
        blend = climb_hill(
            train=pd.DataFrame({"label": split.labels}),
            oof_pred_df=pd.DataFrame(own, columns=names),
            test_pred_df=pd.DataFrame(every, columns=names),
            target="label",
            objective="minimize",
            eval_metric=partial(log_loss_of),
            plot_hill=False,
        )
    return split.shift(np.asarray(blend).reshape(-1, classes))


class Mean(ClassifierMixin, BaseEstimator):
    """The mean of some models as a fitted classifier; ``X (n, M * K)`` holds every model's probabilities."""

    def __init__(self, chosen: tuple[int, ...], classes: int) -> None:
        self.chosen = chosen
        self.classes = classes

    @property
    def classes_(self) -> NDArray[np.int64]:
        """Every class, as a fitted classifier names them."""
        return np.arange(self.classes)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: Array, y: object) -> Mean:
        """Learn nothing: the models are trained."""
        return self

    def predict_proba(self, X: Array) -> Array:
        """Mean probabilities ``(n, K)``."""
        return np.asarray(X.reshape(len(X), -1, self.classes)[:, self.chosen].mean(axis=1))

    def predict(self, X: Array) -> NDArray[np.int64]:
        """The most probable class ``(n,)``."""
        return np.asarray(self.predict_proba(X).argmax(axis=1))

    def decision_function(self, X: Array) -> Array:
        """Log odds ``(n,)`` of two classes, else log probabilities ``(n, K)``: what a sigmoid fits best."""
        logits = np.log(self.predict_proba(X).clip(CLIP))
        return np.asarray(logits[:, 1] - logits[:, 0] if self.classes == 2 else logits)


def flat(probabilities: Array) -> Array:
    """A row a unit, as scikit-learn wants it."""
    return probabilities.reshape(len(probabilities), -1)


def stacking(split: Split) -> Array:
    """``StackingClassifier`` with its default, a logistic regression on the models' probabilities."""
    _, models, classes = split.known.shape
    members = [(f"model {m}", FrozenEstimator(Mean((m,), classes))) for m in range(models)]
    stack = StackingClassifier(members, cv="prefit", stack_method="predict_proba")
    stack.fit(flat(split.known), split.labels, sample_weight=split.unit_weights)
    return np.asarray(stack.predict_proba(flat(split.new)))


def calibrated(split: Split, method: str) -> Array:
    """``CalibratedClassifierCV`` of the mean of all models."""
    _, models, classes = split.known.shape
    mean = FrozenEstimator(Mean(tuple(range(models)), classes))
    # Nothing is refitted in its inner folds: two give what five would, and need fewer units of a class.
    calibration = CalibratedClassifierCV(mean, method=method, cv=2, ensemble=False)
    calibration.fit(flat(split.known), split.labels, sample_weight=split.unit_weights)
    return np.asarray(calibration.predict_proba(flat(split.new)))


SYSTEMS: dict[str, Callable[[Split], Array]] = {
    "AutoGluon": autogluon,
    "greedy + Platt": greedy_platt,
    "hillclimbers": hillclimbers,
    "scikit-learn stacking": stacking,
    "scikit-learn sigmoid": lambda split: calibrated(split, "sigmoid"),
    "scikit-learn isotonic": lambda split: calibrated(split, "isotonic"),
}


def splits(problem: dict[str, Any]) -> list[tuple[NDArray[np.bool_], Split]]:
    """Each outer fold of a problem, with the mask ``(n,)`` of its units."""
    probabilities, labels, outer = (problem[name] for name in ("probabilities", "labels", "outer"))
    found = []
    for fold in np.unique(outer):
        inside = outer == fold
        absent = set(range(probabilities.shape[2])) - set(labels[~inside].tolist())
        if absent:
            raise ValueError(
                f"outer fold {fold} holds every unit of class {min(absent)}: nothing can be fitted"
            )
        known = (probabilities[~inside], labels[~inside], probabilities[inside])
        found.append((inside, Split(*known, class_weights=problem["weights"])))
    return found


def predict(system: str, problem: dict[str, Any]) -> dict[str, Array]:
    """Predictions ``(n, K)`` of one system, each outer fold by the others, and what they took."""
    answer = np.full((len(problem["labels"]), problem["probabilities"].shape[2]), np.nan)
    folds = splits(problem)
    wall, cpu = time.perf_counter(), time.process_time()
    for inside, split in folds:
        answer[inside] = SYSTEMS[system](split)
    took = {"_seconds": time.perf_counter() - wall, "_cpu": time.process_time() - cpu}
    if not np.isfinite(answer).all():
        raise ValueError(f"{system} predicted a probability that is not finite")
    return {"": answer, **{name: np.asarray(value) for name, value in took.items()}}


def problem(source: Any, number: int) -> dict[str, Any]:
    """The arrays of one problem."""
    return {name: source[f"p{number}_{name}"] for name in ("probabilities", "labels", "outer", "weights")}


def main(words: list[str] | None = None) -> None:
    """Read the problems, predict each by every system on one thread, and write the predictions."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("source", type=Path, help="the problems, an .npz")
    parser.add_argument("target", type=Path, help="where the predictions go, an .npz")
    asked = parser.parse_args(words)
    # What a peer warns of (sample weights it ignores, a log of 0) is met above or scored as it is.
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    answers: dict[str, Array] = {}
    with np.load(asked.source) as source, threadpool_limits(1):
        for peer in SYSTEMS.values():
            peer(splits(problem(source, 0))[0][1])  # what a peer imports at its first use is not timed
        for number in tqdm(range(int(source["count"])), desc="peers", unit="problem"):
            given = problem(source, number)
            for system in SYSTEMS:
                for suffix, value in predict(system, given).items():
                    answers[f"p{number}_{system}{suffix}"] = value
    np.savez_compressed(asked.target, **answers)


if __name__ == "__main__":
    main()
