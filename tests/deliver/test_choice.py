"""Of two or more submissions, the pair that is worth most is selected."""

from __future__ import annotations

import numpy as np
import pytest

from kit.deliver.choice import Candidate, foretold, select


def alike(*values: float) -> np.ndarray:
    """Correlations of three submissions: of the first two, first and last, last two."""
    a, b, c = values
    return np.array([[1, a, b], [a, 1, c], [b, c, 1]])


def test_cv_and_public_score_are_weighed_by_their_inverse_variances() -> None:
    one = Candidate("a", 0.60, se=0.02, noise=0.04, public=0.70)
    assert one.weight == pytest.approx(0.2)
    mean, spread = foretold([one], np.eye(1))
    assert mean[0] == pytest.approx(0.62)
    assert spread[0, 0] == pytest.approx(1 / (1 / 0.02**2 + 1 / 0.04**2) + 0.04**2)


def test_a_submission_does_not_lose_because_it_alone_was_tried_on_harder_units() -> None:
    tried = Candidate("tried", 0.60, 0.02, 0.02, public=0.70)
    fresh = Candidate("fresh", 0.61, 0.02, 0.02)
    mean, _ = foretold([tried, fresh], np.array([[1, 0.99], [0.99, 1]]))
    assert mean[0] < mean[1] and mean[0] == pytest.approx(0.65, abs=1e-6)
    apart, _ = foretold([tried, fresh], np.eye(2))
    assert apart[1] == pytest.approx(0.61)  # nothing is known of units on which it errs by itself


def test_a_different_second_is_worth_more_than_a_twin_of_the_first() -> None:
    found = [Candidate(name, cv, 0.02, 0.03) for name, cv in (("a", 0.60), ("twin", 0.6001), ("odd", 0.605))]
    chosen = select(found, alike(0.999, 0.5, 0.5))
    assert (chosen.first, chosen.second) == ("a", "odd")
    assert chosen.expected < chosen.alone == pytest.approx(0.60)
    assert select(found, alike(0.5, 0.999, 0.5)).second == "twin"


def test_the_expected_best_is_that_of_simulated_scores() -> None:
    found = [Candidate("a", 0.60, 0.02, 0.03), Candidate("b", 0.61, 0.02, 0.03, public=0.59)]
    correlation = np.array([[1, 0.7], [0.7, 1]])
    mean, spread = foretold(found, correlation)
    drawn = np.random.default_rng(0).multivariate_normal(mean, spread, 400_000)
    assert select(found, correlation).expected == pytest.approx(drawn.min(axis=1).mean(), abs=2e-4)


def test_equal_submissions_are_no_division_by_nothing() -> None:
    found = [Candidate(name, 0.6, 0.02, 0.03, public=0.6) for name in "abc"]
    chosen = select(found, np.ones((3, 3)))
    assert chosen.expected == pytest.approx(chosen.alone, abs=1e-6)
