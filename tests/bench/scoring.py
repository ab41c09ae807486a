"""From predictions to rows: regrets over draws, scores over units, and what the kit gains on each system."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit.metrics import Array, Bootstrap, row_losses
from tests.bench.harness import Row
from tests.bench.problems import Problem

SHIFTED = "kit: mean logit, prior shift"  # what real models are compared with: nothing fitted but the shift
RESAMPLES = 2000
ERROR = "se of "  # a row with a unit that begins so is the standard error of the row before it
Estimate = Callable[[Array], tuple[float, float]]  # a number and its standard error, of some losses
Cost = tuple[float, float, float]  # wall and CPU seconds of a problem, and the peak memory in MiB


@dataclass(frozen=True)
class Answer:
    """Nested predictions ``(n, K)`` of one problem, and the seconds that they took."""

    probabilities: Array
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Case:
    """The problems of one case, and everybody's answers to them.

    answers: of each system, one a problem.
    peaks: peak memory of each system's process in MiB.
    """

    problems: list[Problem]
    answers: Mapping[str, list[Answer]]
    peaks: Mapping[str, float]

    @property
    def name(self) -> str:
        """What the problems are called."""
        return self.problems[0].case

    @property
    def simulated(self) -> bool:
        """Whether the best possible score is known."""
        return self.problems[0].posterior is not None

    def __str__(self) -> str:
        many = len(self.problems)
        what = "draw" if self.simulated else "outer split"
        return f"{self.name}: {many} {what}{'s' * (many > 1)} of {self.problems[0]}"

    def scores(self) -> dict[str, Array]:
        """The score of each problem ``(problems,)`` by system."""
        return {
            system: np.array(
                [p.metric.score(p.labels, a.probabilities) for p, a in zip(self.problems, mine, strict=True)]
            )
            for system, mine in self.answers.items()
        }

    def limits(self) -> Array:
        """The best possible score of each problem ``(problems,)``."""
        best = [(p, p.posterior) for p in self.problems if p.posterior is not None]
        return np.array([p.metric.score(p.labels, posterior) for p, posterior in best])

    def costs(self) -> dict[str, Cost]:
        """The cost by system; seconds are means over problems."""
        found = {}
        for system, mine in self.answers.items():
            wall, cpu = (float(np.mean([getattr(a, name) for a in mine])) for name in ("wall_s", "cpu_s"))
            found[system] = (wall, cpu, self.peaks[system])
        return found

    def rows(self) -> list[Row]:
        """The number, its standard error and the paired differences of each system."""
        name, loss = self.name, f"{self.problems[0].metric.name} (nats)"
        if self.simulated:
            return list(_regrets(name, loss, self.scores(), self.limits(), self.costs()))
        return [*self._real(loss), *self._spreads()]

    def _real(self, loss: str) -> Iterator[Row]:
        """Of each unit the mean loss over splits; all splits hold the same units."""
        labels = self.problems[0].labels
        losses = {
            system: np.mean([row_losses(labels, a.probabilities) for a in mine], axis=0)
            for system, mine in self.answers.items()
        }
        return _compared(self.name, loss, losses, over_units(self.problems[0]), self.costs(), SHIFTED)

    def _spreads(self) -> Iterator[Row]:
        """How much the score depends on how the outer folds were dealt."""
        if len(self.problems) > 1:
            costs = self.costs()
            for system, scores in self.scores().items():
                yield Row(self.name, system, *costs[system], float(scores.std(ddof=1)), "sd over splits")


def means(cases: Sequence[Case]) -> list[Row]:
    """The rows of the mean over several worlds, taken draw by draw."""
    costs, scores = [case.costs() for case in cases], [case.scores() for case in cases]
    mean = {system: np.mean([each[system] for each in scores], axis=0) for system in scores[0]}
    took = {system: tuple(np.mean([each[system] for each in costs], axis=0).tolist()) for system in costs[0]}
    limits = np.mean([case.limits() for case in cases], axis=0)
    name = f"mean {' '.join(case.name for case in cases)}"
    return list(_regrets(name, f"{cases[0].problems[0].metric.name} (nats)", mean, limits, took))


def over_draws(values: Array) -> tuple[float, float]:
    """The mean of draws and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def over_units(problem: Problem) -> Estimate:
    """The score of units, and its standard error over resamples of them."""
    units = np.arange(len(problem.labels)).astype(object)
    bootstrap = Bootstrap(units, RESAMPLES, seed=0)

    def estimate(losses: Array) -> tuple[float, float]:
        drawn = bootstrap.scores(problem.metric, problem.labels, losses)
        score = float(problem.metric.row_weights(problem.labels) @ losses)
        return score, float(np.std(drawn[np.isfinite(drawn)], ddof=1))

    return estimate


def _regrets(
    name: str, loss: str, scores: Mapping[str, Array], limits: Array, costs: Mapping[str, Cost]
) -> Iterator[Row]:
    """Scores and regrets. That of the posterior is 0; its score says how hard the world is."""
    regret = "regret (nats)"
    for system, mine in scores.items():
        yield Row(name, system, *costs[system], float(mine.mean()), loss)
    yield from _compared(name, regret, {s: mine - limits for s, mine in scores.items()}, over_draws, costs)
    for number, unit in ((float(limits.mean()), loss), (0.0, regret), (0.0, ERROR + regret)):
        yield Row(name, "limit", 0.0, 0.0, 0.0, number, unit)


def _compared(
    name: str,
    unit: str,
    losses: Mapping[str, Array],
    estimate: Estimate,
    costs: Mapping[str, Cost],
    reference: str = "",
) -> Iterator[Row]:
    """Each system's number, and its paired differences to the kit and to the reference."""
    for system, mine in losses.items():
        asked = [(unit, mine)]
        if system != "kit":
            asked.append(("kit minus it", losses["kit"] - mine))
        if reference and system != reference:
            asked.append(("it minus shifted mean", mine - losses[reference]))
        for what, values in asked:
            for number, kind in zip(estimate(values), (what, ERROR + what), strict=True):
                yield Row(name, system, *costs[system], number, kind)


def table(rows: Sequence[Row]) -> str:
    """One line a system: its numbers, each with its standard error, and its cost."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault(row.system, {})
        if row.unit.startswith(ERROR):
            line[row.unit.removeprefix(ERROR)] += f" +- {row.value:.4f}"
        else:
            line[row.unit] = f"{row.value:.4f}"
    for row in rows:  # a second time: costs come last
        lines[row.system] |= {
            "wall s": f"{row.wall_s:.2f}",
            "cpu s": f"{row.cpu_s:.2f}",
            "MiB": f"{row.peak_mib:.0f}",
        }
    fullest = max(lines.values(), key=len)
    return pd.DataFrame(lines.values(), index=list(lines), columns=list(fullest)).fillna("").to_string()
