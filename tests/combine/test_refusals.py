"""What is known to lose is refused with its reason, wherever it hides."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from kit.combine.calibrators import ClippedIsotonic, Isotonic, Platt, Temperature, VennAbers
from kit.combine.method import Method
from kit.combine.pools import Chain, Logistic, LogitMean, Mean
from kit.combine.refusals import REFUSED, check_allowed, refuse
from kit.errors import SettingError


class _Stack(Method):
    """A user's method around any scikit-learn classifier."""

    def __init__(self, model: object = None, scored_prior: tuple[float, ...] | None = None) -> None:
        super().__init__(scored_prior)
        self.model = model


class MLPClassifier:
    """Stands for scikit-learn's: the class name decides."""


@pytest.mark.parametrize(
    ("method", "figure", "instead"),
    [
        (Isotonic(), ".70 to .89", "ClippedIsotonic"),
        (Chain(Mean(), Isotonic()), ".70 to .89", "VennAbers"),
        (Temperature((0.5, 0.5)), ".68 to .76", "RidgePlatt"),
        (Chain(LogitMean(), Temperature(), (0.5, 0.5)), ".68 to .76", "Platt"),
        (_Stack(DecisionTreeClassifier()), "1.09", "ridge pool"),
        (_Stack(MLPClassifier()), "weights", "Logistic"),
    ],
)
def test_what_is_refused_says_why_and_what_to_use_instead(method: Method, figure: str, instead: str) -> None:
    with pytest.raises(SettingError) as caught:
        check_allowed(method)
    assert figure in caught.value.message and instead in caught.value.hint
    check_allowed(method, allow=True)


@pytest.mark.parametrize(
    "method", [Platt(), ClippedIsotonic(), VennAbers(), Logistic(), Chain(LogitMean(), Platt(), (0.5, 0.5))]
)
def test_other_methods_pass(method: Method) -> None:
    check_allowed(method)


def test_a_temperature_alone_is_refused_only_where_the_prior_moves() -> None:
    check_allowed(Temperature())
    check_allowed(Temperature((0.3, 0.7)), training_prior=np.array([0.3, 0.7]))
    with pytest.raises(SettingError):
        check_allowed(Temperature((0.3, 0.7)), training_prior=np.array([0.4, 0.6]))


def test_every_refusal_is_made_into_an_error_and_an_unknown_name_gets_a_guess() -> None:
    for name, refusal in REFUSED.items():
        error = refuse(name)
        assert refusal.reason in error.message and refusal.instead in error.hint
        assert ("combine.unsafe=true" in error.hint) == refusal.made
    assert "did you mean tree stacker" in refuse("tree staker").hint
