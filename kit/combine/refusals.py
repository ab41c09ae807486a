"""Second levels that are known to lose on new data: refused unless they are allowed on purpose."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
    made: bool = True  # on purpose; stackers are not made by any name


TEMPERATURE = "temperature without bias under a prior shift"
REFUSED = {
    "tree stacker": Refusal(
        "gradient-boosted trees learn the training rows by heart: LightGBM with its default settings scored"
        " 1.09 where a constant scores 0.693",
        "use the ridge pool, or Logistic",
        made=False,
    ),
    "MLP stacker": Refusal(
        "a network has more weights than a second level has rows, and scores worse on new rows than a"
        " blend with one weight a model",
        "use the ridge pool, or Logistic",
        made=False,
    ),
    "raw isotonic": Refusal(
        "isotonic regression says exactly 0 and 1 at its ends, so that one new row can cost 35 nats: it"
        " scored .70 to .89 on new data where a constant scores .693",
        "use ClippedIsotonic or VennAbers",
    ),
    TEMPERATURE: Refusal(
        "a slope alone cannot repair a prior: it scored .68 to .76 where a constant scores .693",
        "use Platt or RidgePlatt, which fit the biases as well",
    ),
}
# The names of what is refused; of stackers the classes of scikit-learn, LightGBM, XGBoost and CatBoost.
KINDS = {
    r"Forest|Tree|Boost|GBM|XGB": "tree stacker",
    r"MLP|NeuralNet": "MLP stacker",
    r"^Isotonic$|^IsotonicRegression$": "raw isotonic",
    r"^Temperature$": TEMPERATURE,
}


def refuse(name: str) -> SettingError:
    """The error that says why a method of :data:`REFUSED` is not made.

    >>> refuse("raw isotonic").hint
    'use ClippedIsotonic or VennAbers; or set combine.unsafe=true to have it all the same'
    """
    if name not in REFUSED:
        return SettingError(f"there is no method '{name}'", did_you_mean(name, REFUSED))
    found = REFUSED[name]
    unsafe = "; or set combine.unsafe=true to have it all the same" if found.made else ""
    return SettingError(f"{name}: {found.reason}", found.instead + unsafe)


def kind_of(name: str) -> str | None:
    """Which of :data:`REFUSED` a class or a name without spaces is, if any.

    >>> kind_of("lightgbm"), kind_of("Platt")
    ('tree stacker', None)
    """
    return next((kind for pattern, kind in KINDS.items() if re.search(pattern, name, re.IGNORECASE)), None)


def check_allowed(method: Method, allow: bool = False, training_prior: Array | None = None) -> None:
    """Refuse what is known to lose, wherever in the method it is.

    Args:
        allow: refuse nothing.
        training_prior: class shares of the training rows ``(K,)``; ``None``: a scored prior is taken to
            differ from them.

    Raises:
        SettingError: why, and what to use instead.
    """
    for part in () if allow else (method, *method.get_params(deep=True).values()):
        kind = kind_of(type(part).__name__)
        if kind and (kind != TEMPERATURE or _shifted(method.scored_prior, training_prior)):
            raise refuse(kind)


def _shifted(scored: tuple[float, ...] | None, training: Array | None) -> bool:
    """Whether the scored prior is, as far as is known, another than that of the training rows."""
    if scored is None or training is None:
        return scored is not None
    return bool(np.abs(np.asarray(scored) - training).max() > ALIKE)
