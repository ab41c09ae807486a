"""Two submissions count: beside the safe one, the bold one that may beat it on the hidden test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from kit import metrics
from kit.combine.scores import Scores
from kit.combine.table import ENOUGH, EQUAL, differs
from kit.state import Run

if TYPE_CHECKING:
    from kit.combine.second_level import Problem

GROUPS = 10  # of each class, below which a paired standard error says little
WORTH = 1e-4  # expected gain that is worth a second submission
FEW = 50  # units of a test table that could be a stand-in


@dataclass(frozen=True)
class Pair:
    """A method to submit beside the default.

    gain: how much lower its nested score is than the default's (negative: higher).
    se: the paired standard error of that.
    noise: the standard error of the same difference on a test set of ``units`` units.
    better: the chance that it beats the default there.
    stand_in: whether that set is imagined, as large as what was scored, since no real one is there.
    worth: what having both is expected to gain over the default alone, if the better one counts.
    """

    name: str
    default: str
    gain: float
    se: float
    noise: float
    better: float
    worth: float
    units: int
    stand_in: bool

    def to_json(self) -> dict[str, Any]:
        """The numbers, for ``metrics.json``."""
        return asdict(self)


def propose(problem: Problem, scores: Scores) -> Pair | None:
    """The scored method whose expected improvement over the default on the test set is largest.

    The gain of each is uncertain twice: it was estimated on the units of the folds, and it is judged
    on the test's.

    Returns:
        ``None`` where there is no method that differs from the default, is not certainly worse and is
        worth something; and where a class has too few groups for any of that to be known.
    """
    if _fewest_groups(problem.frame) < GROUPS:
        return None
    pairs = [_pair(problem, gain) for gain in scores.gains if _rivals(gain, problem.default)]
    found = [pair for pair in pairs if pair.worth >= WORTH]
    return max(found, key=lambda pair: pair.worth) if found else None


def _fewest_groups(frame: pd.DataFrame) -> int:
    """Groups of the class that has the fewest."""
    return int(frame.groupby("label")["group_id"].nunique().min())


def _rivals(gain: Mapping[str, Any], default: str) -> bool:
    """Whether it compares the default with a method that differs from it and is not certainly worse."""
    if gain["first"] != default or gain["second"] == "constant" or not gain["se"] > 0:
        return False
    return differs(gain) and bool(gain["gain"] <= ENOUGH * gain["se"])


def _pair(problem: Problem, gain: Mapping[str, Any]) -> Pair:
    scored = len(problem.frame)
    units = units_of_test(problem.run, scored)
    noise = float(gain["se"] * np.sqrt(scored / units))
    spread = float(np.hypot(gain["se"], noise))
    return Pair(
        name=gain["second"],
        default=problem.default,
        gain=-gain["gain"],
        se=gain["se"],
        noise=noise,
        better=float(norm.cdf(-gain["gain"] / spread)),
        worth=worth(-gain["gain"], spread),
        units=units,
        stand_in=stands_in(problem.run, scored),
    )


def worth(gain: float, spread: float) -> float:
    """What having a second submission too is expected to gain, if the better of the two counts.

    With mean ``m`` and standard deviation ``s`` of how much lower the second scores, this is
    ``m cdf(m / s) + s pdf(m / s)`` (Jones et al. 1998, "Efficient global optimization").
    """
    if spread <= 0:
        return max(gain, 0.0)
    ahead = gain / spread
    return spread * float(ahead * norm.cdf(ahead) + norm.pdf(ahead))


def units_of_test(run: Run, scored: int) -> int:
    """Units of the test table; those that were scored where there is none, or a stand-in of a few."""
    return scored if stands_in(run, scored) else _test_units(run)


def stands_in(run: Run, scored: int) -> bool:
    """Whether there is no test table, or one of a few rows in the place of the hidden one."""
    return _test_units(run) < max(FEW, scored // 10)


def _test_units(run: Run) -> int:
    table = run.tables.test
    return 0 if table is None else int(table["unit_id"].nunique())


def simplest_within_error(scores: Scores, names: Sequence[str]) -> str:
    """The first method that is no more than one standard error worse than the best.

    Breiman et al. 1984, "Classification and regression trees": the paired error is taken, of the
    method's difference to the best.

    Args:
        names: scored methods, the simplest first.
    """
    metric, labels, values = scores.run.competition.metric, scores.labels, scores.values
    best = min(names, key=lambda name: metric.score(labels, values[name]))
    for name in names:
        found = metrics.compare(metric, labels, values[best], values[name], scores.bootstrap)
        if found.gain <= max(found.se, EQUAL):
            return name
    return best
