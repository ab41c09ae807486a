"""What the second level has fitted: its numbers, as `combine` wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.combine.method import from_json
from kit.metrics import Array
from kit.show import score_plots
from kit.show.results import Results
from kit.show.tables import MOST, Table
from kit.show.verdict import count, number

FITTED = ("weights", "slope", "slopes", "square", "bias", "biases", "floors", "matrix", "C", "ridge")
SCALES = ("logits", "normal scores")  # the rows of the weights of a ridge pool


@dataclass(frozen=True)
class Number:
    """One fitted number: of which part, what it is, and of which model or class."""

    part: str
    what: str
    of: str
    value: float


def section(results: Results) -> dict[str, Any] | None:
    """The fitted numbers as a table, and the weights of the models as a chart; ``None`` without a file."""
    content = results.second_level
    if not content:
        return None
    classes, models = results.run.competition.classes, list(content["models"])
    fit = content["default"]
    models += ["metadata"] if "metadata" in fit else []
    found = list(numbers(fit, models, classes))
    shift = list(prior_shift(fit, classes))
    sites = [Number("site prior", f"log-odds of {name}", site, offset) for site, offsets in
             fit.get("sites", {}).items() for name, offset in zip(classes, offsets, strict=True)]  # fmt: skip
    return {
        "method": described(fit),
        "chosen": results.content.get("chosen"),
        "table": table([*found, *shift, *sites]),
        "chart": chart(found, len(models)),
        "shift": any(abs(one.value) > 1e-9 for one in shift),
    }


def described(fit: Mapping[str, Any]) -> str:
    """The method and its parts: ``Chain of LogitMean and Platt``."""
    parts = [fit[name] for name in ("pool_", "calibrator_", "method_") if isinstance(fit.get(name), Mapping)]
    inside = " and ".join(described(part) for part in parts)
    return f"{fit['method']} of {inside}" if inside else str(fit["method"])


def numbers(fit: Mapping[str, Any], models: Sequence[str], classes: Sequence[str]) -> Iterator[Number]:
    """Every fitted number that has a name; quantiles and steps, which are many, are left out."""
    for name, value in fit.items():
        if isinstance(value, Mapping) and "method" in value and name.endswith("_"):
            yield from numbers(value, models, classes)
        elif name.removesuffix("_") in FITTED and name.endswith("_"):
            yield from _named(str(fit["method"]), name.removesuffix("_"), value, models, classes)


def _named(
    part: str, what: str, value: Any, models: Sequence[str], classes: Sequence[str]
) -> Iterator[Number]:
    """The numbers of one array, each with its model or class; nothing of an array of another shape."""
    values = np.asarray(value, dtype=np.float64)
    M, K = len(models), len(classes)
    if values.ndim == 0:
        yield Number(part, what, "all", float(values))
    elif part == "RidgePool" and values.shape == (len(SCALES), M):
        for scale, row in zip(SCALES, values, strict=True):
            yield from _each(part, f"{what} on {scale}", models, row)
    elif part == "Logistic" and what == "weights":
        yield from _stacked(part, values, models, classes)
    elif what == "weights" and values.shape == (M,):
        yield from _each(part, what, models, values)
    elif values.shape == (K,):
        yield from _each(part, what, classes, values)
    elif values.shape == (1,) and K == 2:
        yield Number(part, what, classes[1], float(values[0]))
    elif values.shape == (K, K):
        for name, row in zip(classes, values, strict=True):
            yield from _each(part, f"{what}, row of {name}", classes, row)


def _each(part: str, what: str, names: Sequence[str], values: Array) -> Iterator[Number]:
    for name, value in zip(names, values, strict=True):
        yield Number(part, what, name, float(value))


def _stacked(part: str, values: Array, models: Sequence[str], classes: Sequence[str]) -> Iterator[Number]:
    """A weight a model of two classes; of more, what its logit of a class counts for that very class."""
    if len(classes) == 2:
        yield from _each(part, "weights on standardised log-odds", models, values[0])
        return
    own = values.reshape(len(classes), len(models), len(classes))
    for m, model in enumerate(models):
        for k, name in enumerate(classes):
            yield Number(part, "weights on the class's own logit", f"{model} for {name}", float(own[k, m, k]))


def prior_shift(fit: Mapping[str, Any], classes: Sequence[str]) -> Iterator[Number]:
    """What the method adds to the log-probability of each class for the sake of the scored class shares."""
    if fit["settings"].get("scored_prior") is None:
        return
    for name, added in zip(classes, from_json(dict(fit)).shift(), strict=True):
        yield Number("prior shift", "added log-probability", name, float(added))


def table(found: Sequence[Number]) -> Table:
    """A row a number."""
    rows = [(one.part, one.what, one.of, number(one.value)) for one in found[:MOST]]
    head = ("part", "number", "of", "value")
    left = max(0, len(found) - MOST)
    return Table("What the second level has fitted", head, rows, frozenset({1, 2}), left_out=left)


def chart(found: Sequence[Number], models: int) -> str:
    """The weights of the models as bars; nothing where the pool has none, or for very many models."""
    weights = [one for one in found if one.what.startswith("weights") and one.value]
    if not weights or len(weights) > 40:
        return ""
    scales = {one.what for one in weights}
    bars = [
        (
            f"{one.of} ({one.what.removeprefix('weights on ')})" if len(scales) > 1 else one.of,
            one.value,
            number(one.value, 3),
        )
        for one in weights
    ]
    label = f"Weights of {count(models, 'model')} in the second level: " + ", ".join(
        f"{what} {words}" for what, _, words in bars
    )
    across = "weight" if len(scales) == 1 else "weight on logits or on their normal scores"
    return score_plots.bars("weights", label, across, bars)
