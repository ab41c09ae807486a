"""How alike the models are, and what each adds to the blend.

Two models are worth more than one where their *errors* differ. That both rise with the true class is no
redundancy but skill, so correlations are taken within classes: of what is left of a logit when its class's
mean is taken away, classes counting as the metric counts them. (Kuncheva and Whitaker 2003, "Measures of
diversity in classifier ensembles", find that no measure of diversity foretells what an ensemble gains: so
what a model adds is scored, by leaving it out.)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit import metrics
from kit.combine import choose, side
from kit.combine.method import to_logits
from kit.combine.scores import Scores
from kit.combine.second_level import Problem
from kit.combine.side import Informed
from kit.metrics import Array

MOST = 12  # models up to which each is left out once
SLOW = 1_000_000  # units x models x classes from which on one nested fit takes long
ALONE = "mean logit + platt"  # what a model is calibrated by to be scored alone
RIDGE = 1e-3  # share of the variance added to it, so that copies can be told apart from nothing


@dataclass(frozen=True)
class Moments:
    """What pairs of models have in common, by class contrast.

    within: covariance of the logits within classes ``(C, M, M)``; total: over all units; apart: how far
    the mean logits of a class and of the others are apart ``(C, M)``. With two classes there is one
    contrast, the log odds of the second; with more, each class against the mean of all.
    """

    within: Array
    total: Array
    apart: Array

    @property
    def correlation(self) -> Array:
        """Pearson's correlation of the errors ``(M, M)``, the mean over contrasts."""
        return _mean_correlation(self.within)

    @property
    def correlation_all(self) -> Array:
        """The same with what the classes have in common."""
        return _mean_correlation(self.total)


def moments(X: Array, labels: NDArray[np.int64], weights: Array) -> Moments:
    """The moments of probabilities ``(n, M, K)``.

    Args:
        weights: the share of each unit in the score ``(n,)``; they sum to 1.
    """
    logits = to_logits(X)
    found = []
    for k in range(X.shape[2]) if X.shape[2] > 2 else (1,):
        values = logits[:, :, k]
        centred = values - weights @ values
        left, hit = values.copy(), labels == k
        for c in np.unique(labels):
            mine = labels == c
            left[mine] -= weights[mine] @ values[mine] / weights[mine].sum()
        means = [weights[part] @ values[part] / weights[part].sum() for part in (hit, ~hit)]
        found.append((_covariance(left, weights), _covariance(centred, weights), means[0] - means[1]))
    within, total, apart = (np.stack(part) for part in zip(*found, strict=True))
    return Moments(within, total, apart)


def _covariance(values: Array, weights: Array) -> Array:
    return np.asarray((values * weights[:, None]).T @ values)


def _mean_correlation(covariances: Array) -> Array:
    """The mean correlation ``(M, M)``; NaN for a model that says the same of every unit."""
    spread = np.sqrt(np.einsum("cmm->cm", covariances))
    scale = spread[:, :, None] * spread[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(scale > metrics.CLIP, covariances / scale, np.nan)
    return np.asarray(np.clip(found.mean(axis=0), -1, 1))


def greedy_order(found: Moments) -> list[int]:
    """The models in the order in which each is worth most beside those before it.

    Worth is the squared distance d'^2 of the classes along the mean of the chosen logits, in standard
    deviations within a class, summed over contrasts (Green and Swets 1966): no fit and no score is needed.
    Logits are brought to one scale first, as a loud model is not a better one.
    """
    scale = np.sqrt(np.einsum("cmm->cm", found.within)) + metrics.CLIP
    apart = found.apart / scale
    within = found.within / (scale[:, :, None] * scale[:, None, :])
    chosen: list[int] = []
    while len(chosen) < apart.shape[1]:
        left = [m for m in range(apart.shape[1]) if m not in chosen]
        worth = [_distance(apart[:, [*chosen, m]], within[:, [*chosen, m]][:, :, [*chosen, m]]) for m in left]
        chosen.append(left[int(np.argmax(np.round(worth, 12)))])
    return chosen


def _distance(apart: Array, within: Array) -> float:
    """d'^2 of the mean of some models, summed over contrasts; a reversed one counts against."""
    many = apart.shape[1]
    means = apart.mean(axis=1)
    variance = within.sum(axis=(1, 2)) / many**2 + RIDGE
    return float((np.sign(means) * means**2 / variance).sum())


@dataclass(frozen=True)
class Added:
    """What one model adds to the blend.

    alone: its nested score when it is calibrated by itself; place: in the greedy order, from 1.
    mean: the mean correlation of its errors with the others'; closest: the model most like it, and most:
    that correlation.
    without: how much higher the blend's nested score is without it (paired); ``None`` if not asked for.
    """

    name: str
    alone: float
    place: int
    mean: float
    closest: str
    most: float
    without: metrics.Difference | None = None


def diversity(problem: Problem, scores: Scores) -> dict[str, Any]:
    """The section of ``metrics.json``: correlations, the greedy order, and what each model adds.

    With M models up to `MOST`, M nested fits of the default beside the one that is scored already.
    """
    names, X = problem.level.blended, problem.rows.X
    if len(names) < 2:
        return {"reason": "there is one model"}
    weights = problem.run.competition.metric.row_weights(scores.labels)
    found = moments(X, scores.labels, weights)
    order, near = greedy_order(found), found.correlation
    skipped = _why_not(X)
    rows = []
    for m, name in enumerate(names):
        closest, most = _closest(near, m)
        without = None if skipped else _without(problem, scores, m)
        others = np.delete(near[m], m)
        mean = float(np.nanmean(others)) if np.isfinite(others).any() else float("nan")
        added = Added(name, alone(problem, m), order.index(m) + 1, mean, names[closest], most, without)
        rows.append(asdict(added))
    return {
        "models": names,
        "rows": rows,
        "correlation": near.tolist(),
        "correlation_all": found.correlation_all.tolist(),
        "order": [names[m] for m in order],
        "skipped": skipped,
    }


def _why_not(X: Array) -> str:
    """Why models are not left out in turn; empty if they are."""
    if X.shape[1] > MOST:
        return f"{X.shape[1]} models are more than {MOST}"
    return f"{len(X)} units and {X.shape[1]} models would take long" if X.size > SLOW else ""


def _closest(correlation: Array, m: int) -> tuple[int, float]:
    """The model whose errors are most like those of this one."""
    others = np.where(np.isfinite(correlation[m]), correlation[m], -2.0)
    others[m] = -3.0
    nearest = int(others.argmax())
    return nearest, float(correlation[m, nearest])


def _without(problem: Problem, scores: Scores, m: int) -> metrics.Difference:
    """The default with all models against the default without this one, both nested."""
    kept = [n for n in range(problem.rows.X.shape[1]) if n != m]
    rows = replace(problem.rows, X=problem.rows.X[:, kept])
    less = side.nested(problem.method(problem.default), rows, scores.labels, problem.outer)
    metric = problem.run.competition.metric
    return metrics.compare(metric, scores.labels, scores.values[problem.default], less, scores.bootstrap)


def alone(problem: Problem, m: int) -> float:
    """The nested score of one model that is calibrated by itself, so that the models' scales do not count."""
    task, labels = problem.run.competition, problem.frame["label"].to_numpy(dtype=np.int64)
    method = Informed(choose.make(ALONE, task.metric.fixed_prior, len(task.classes)))
    rows = replace(problem.rows, X=problem.rows.X[:, [m]])
    return task.metric.score(labels, side.nested(method, rows, labels, problem.outer))
