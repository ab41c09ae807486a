"""Second levels that are known to lose on new data: refused unless they are allowed on purpose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.combine.method import Method
from kit.errors import SettingError, did_you_mean
from kit.metrics import Array

ALIKE = 0.01  # two priors whose shares differ less are one


@dataclass(frozen=True)
class Refusal:
    """Why a method is refused, with what was measured, and what to use instead."""

    reason: str
    instead: str


REFUSED = {
    "tree stacker": Refusal(
        "gradient-boosted trees learn the training rows by heart: LightGBM with its default settings scored"
        " 1.09 where a constant scores 0.693",
        "use the ridge pool, or Logistic",
    ),
    "MLP stacker": Refusal(
        "a network has more weights than a second level has rows, and scores worse on new rows than a"
        " blend with one weight a model",
        "use the ridge pool, or Logistic",
    ),
    "raw isotonic": Refusal(
        "isotonic regression says exactly 0 and 1 at its ends, so that one new row can cost 35 nats: it"
        " scored .70 to .89 on new data where a constant scores .693",
        "use ClippedIsotonic or VennAbers",
    ),
    "temperature without bias under a prior shift": Refusal(
        "a slope alone cannot repair a prior: it scored .68 to .76 where a constant scores .693",
        "use Platt or RidgePlatt, which fit the biases as well",
    ),
}
# The class names of what is refused; of stackers those of scikit-learn, LightGBM, XGBoost and CatBoost.
KINDS = {
    r"Forest|Tree|Boost|LGBM|XGB": "tree stacker",
    r"MLP": "MLP stacker",
    r"^Isotonic$|^IsotonicRegression$": "raw isotonic",
    r"^Temperature$": "temperature without bias under a prior shift",
}


def refuse(name: str) -> SettingError:
    """The error that says why a method of :data:`REFUSED` is not made.

    >>> refuse("raw isotonic").hint
    'use ClippedIsotonic or VennAbers; or set combine.unsafe=true to have it all the same'
    """
    if name not in REFUSED:
        return SettingError(f"there is no method '{name}'", did_you_mean(name, REFUSED))
    found = REFUSED[name]
    return SettingError(
        f"{name}: {found.reason}", f"{found.instead}; or set combine.unsafe=true to have it all the same"
    )


def check_allowed(method: Method, allow: bool = False, training_prior: Array | None = None) -> None:
    """Refuse what is known to lose, wherever in the method it is.

    Args:
        allow: refuse nothing.
        training_prior: class shares of the training rows; where neither this nor a fit tells them, a
            scored prior is taken to differ from them.

    Raises:
        SettingError: why, and what to use instead.
    """
    for part in () if allow else (method, *method.get_params(deep=True).values()):
        for pattern, name in KINDS.items():
            if re.search(pattern, type(part).__name__) and (
                name != KINDS[r"^Temperature$"] or _shifted(method, training_prior)
            ):
                raise refuse(name)


def _shifted(method: Any, training_prior: Array | None) -> bool:
    """Whether the scored prior is, as far as is known, another than that of the training rows."""
    known = getattr(method, "prior_", training_prior)
    if method.scored_prior is None or known is None:
        return method.scored_prior is not None
    return bool(np.abs(np.asarray(method.scored_prior) - known).max() > ALIKE)
