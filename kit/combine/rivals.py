"""Two submissions count: beside the safe one, the bold one that may beat it on the hidden test."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from kit.combine.scores import Scores
from kit.state import Run

if TYPE_CHECKING:
    from kit.combine.second_level import Problem


@dataclass(frozen=True)
class Pair:
    """A method to submit beside the default.

    gain: how much lower its nested score is than the default's (negative: higher).
    se: the paired standard error of that.
    noise: the standard error of the same difference on a test set of ``units`` units.
    better: the chance that it beats the default there.
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

    def to_json(self) -> dict[str, Any]:
        """The numbers, for ``metrics.json``."""
        return asdict(self)


def propose(problem: Problem, scores: Scores) -> Pair | None:
    """The scored method whose expected improvement over the default on the test set is largest.

    The gain of each is uncertain twice: it was estimated on the units of the folds, and it is judged
    on the test's. With mean ``m`` and standard deviation ``s`` of the difference there, the better of
    the two is expected to gain ``m cdf(m / s) + s pdf(m / s)`` over the default (Jones et al. 1998,
    "Efficient global optimization").
    """
    units = units_of_test(problem.run, len(problem.frame))
    found = []
    for gain in scores.gains:
        rival = gain["second"]
        if gain["first"] != problem.default or rival == "constant" or gain["se"] == 0:
            continue
        noise = gain["se"] * np.sqrt(len(problem.frame) / units)
        spread = float(np.hypot(gain["se"], noise))
        ahead = -gain["gain"] / spread
        worth = spread * float(ahead * norm.cdf(ahead) + norm.pdf(ahead))
        found.append(
            Pair(
                rival,
                problem.default,
                -gain["gain"],
                gain["se"],
                float(noise),
                float(norm.cdf(ahead)),
                worth,
                units,
            )
        )
    return max(found, key=lambda pair: pair.worth) if found else None


def units_of_test(run: Run, scored: int) -> int:
    """Units of the test table; those that were scored where there is none, or a stand-in of a few."""
    table = run.tables.test
    many = 0 if table is None else int(table["unit_id"].nunique())
    return many if many >= scored // 10 else scored
