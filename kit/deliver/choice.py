"""Which two submissions to select: what their scores foretell, and how alike they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from kit.combine.rivals import worth
from kit.metrics import Array

JITTER = 1e-9  # share of a variance that keeps equal submissions from a division by nothing


@dataclass(frozen=True)
class Candidate:
    """A submission that could be selected.

    cv: its nested out-of-fold score, and ``se`` the standard error of that.
    noise: the standard error of its score on a test set of the leaderboard's size.
    public: what the leaderboard said; ``None``: nothing yet.
    """

    name: str
    cv: float
    se: float
    noise: float
    public: float | None = None

    @property
    def weight(self) -> float:
        """How much the public score counts beside the CV: by their inverse variances."""
        return self.se**2 / (self.se**2 + self.noise**2)


@dataclass(frozen=True)
class Selection:
    """The two whose better one is expected to score lowest.

    expected: the score of that better one. alone: that of the best single one. first, second: names.
    """

    first: str
    second: str
    expected: float
    alone: float


def foretold(found: Sequence[Candidate], correlation: Array) -> tuple[Array, Array]:
    """Mean ``(n,)`` and covariance ``(n, n)`` of the scores on a fresh test set of the same size.

    The CVs are Gaussian about the true scores with the errors' ``correlation`` ``(n, n)``, and so are
    the public scores with their own noise. What one submission's public score says of its units it says
    of the others too, since their losses on them are alike: where all have a public score this weighs
    each pair by its inverse variances, and elsewhere no submission loses for having been tried.
    """
    cv, se, noise = (np.array([getattr(one, name) for one in found]) for name in ("cv", "se", "noise"))
    fitted, tested = (correlation * np.outer(some, some) for some in (se, noise))
    seen = [n for n, one in enumerate(found) if one.public is not None]
    if seen:
        said = np.array([one.public for one in found if one.public is not None])
        total = fitted[np.ix_(seen, seen)] + tested[np.ix_(seen, seen)]
        total += JITTER * np.diag(np.diag(total))
        gain = np.linalg.solve(total, fitted[seen]).T
        cv = cv + gain @ (said - cv[seen])
        fitted = fitted - gain @ fitted[seen]
    return cv, fitted + tested


def select(found: Sequence[Candidate], correlation: Array) -> Selection:
    """The pair that maximises the expected best of the two.

    Args:
        found: two submissions or more.
    """
    means, spread = foretold(found, correlation)

    def expected(pair: tuple[int, int]) -> float:
        a, b = pair
        variance = spread[a, a] + spread[b, b] - 2 * spread[a, b]
        return float(means[a] - worth(float(means[a] - means[b]), float(np.sqrt(max(variance, 0.0)))))

    best = min(combinations(range(len(found)), 2), key=expected)
    first, second = sorted(best, key=lambda n: float(means[n]))
    return Selection(found[first].name, found[second].name, expected(best), float(means.min()))
