"""What a search over settings may choose from, and what its next trial tries."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import create_trial

from kit import seeds
from kit.competition import Competition
from kit.errors import SettingError
from kit.learn import models, pooling
from kit.learn.models import Model
from kit.learn.study import Proposal, Space, Trials, draw
from kit.state import Run

TUNED = ("lr", "weight_decay", "drop", "pool", "bag", "augment")
FINETUNED = ("layer_decay", "smoothing")
WIDE = 10.0  # a range whose ends differ by such a factor is searched by its logarithm


def defaults(model: Model) -> dict[str, Any]:
    """The settings that may be tuned, as they are without it."""
    names = [*TUNED, *(FINETUNED if model.backbone.mode == "finetune" else ()), *model.space]
    return {name: model.get(name) for name in dict.fromkeys(names)}


def space(task: Competition, model: Model) -> Space:
    """What a trial may choose: what the model declares, and for the rest what suits its mode.

    A bag of one has no pool and no choice of tiles; what is switched off by a zero stays off, and a value
    that its specification names stays as it is.

    Raises:
        SettingError: some of the choices cannot be had together.
    """
    fixed = _written(task, model)
    found = {
        name: values
        for name, values in _usual(task, model).items()
        if not fixed & {name, models.field_of(model.backbone.mode, name)}
    }
    for name, declared in model.space.items():
        found[name] = _declared(declared)
    _check_pools(model, found)
    return found


def _written(task: Competition, model: Model) -> set[str]:
    """The settings that a model's specification names."""
    for text in task.training.backbones:
        if models.parse(text, task.training).name == model.name:
            return {part.partition("=")[0].strip() for part in text.split(";")[1:]}
    return set()


def _check_pools(model: Model, choices: Space) -> None:
    """Every choice of a pool goes with every choice of what it depends on: none is found out by a trial.

    Raises:
        SettingError: one does not.
    """
    names = ("pool", "loss", "mixup")
    for values in itertools.product(*(_ends(model, choices, name) for name in names)):
        tried = model.having(dict(zip(names, values, strict=True)))
        try:
            pooling.check(tried.training)
        except SettingError as error:
            hint = f"{error.hint}; beside {model.name}, leave out one of the choices that do not go together"
            raise SettingError(f"{model.name}: what is searched has {error.message}", hint) from error


def _ends(model: Model, choices: Space, name: str) -> Sequence[Any]:
    """The choices of a setting, or the ends of its range; its value where it is not searched."""
    found = choices.get(name)
    if isinstance(found, CategoricalDistribution):
        return found.choices
    return (found.low, found.high) if isinstance(found, FloatDistribution) else (model.get(name),)


def _usual(task: Competition, model: Model) -> Space:
    # The centre of each range is the untuned value; the frozen mode's decay is its ridge.
    first = model.training
    wide = 30.0 if model.frozen else 5.0
    found: Space = {
        name: FloatDistribution(value / width, value * width, log=True)
        for name, width in (("lr", 4.0), ("weight_decay", wide))
        if (value := model.get(name))
    }
    found["drop"] = FloatDistribution(0.0, max(0.6, first.drop))
    if not model.frozen or first.views > 1 or "views" in model.space:  # else there is one view to show
        found["augment"] = FloatDistribution(0.0, 1.0)
    if task.tiles.count != 1:
        found["pool"] = CategoricalDistribution(list(dict.fromkeys(["mean", "attention", first.pool])))
        most = task.tiles.count or 32
        found["bag"] = CategoricalDistribution(
            sorted({n for n in (2, 4, 8, 16, 32) if n <= most} | {first.bag})
        )
    if model.backbone.mode == "finetune":
        found["layer_decay"] = FloatDistribution(min(0.6, first.layer_decay), 1.0)
        found["smoothing"] = FloatDistribution(0.0, max(0.15, first.smoothing))
    return found


def _declared(values: tuple[float, float] | list[Any]) -> BaseDistribution:
    """Choices, or a range: whole numbers stay whole, and a wide range is searched by its logarithm."""
    if isinstance(values, list):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    least, most = values
    log = least > 0 and most / least >= WIDE
    if isinstance(least, int) and isinstance(most, int):
        return IntDistribution(least, most, log=log)
    return FloatDistribution(least, most, log=log)


def propose(run: Run, model: Model, fold: str, slot: int, trials: Trials) -> Proposal:
    """What the trial of a slot tries: in slot 0 the settings as given.

    A function of the seed, the slot and the trials so far: a search that goes on after a stop draws what
    it would have drawn.
    """
    first, choices = defaults(model), space(run.competition, model)
    if slot == 0:
        inside = {
            name: value for name, value in first.items() if name in choices and _holds(choices[name], value)
        }
        return Proposal(first, inside, {name: choices[name] for name in inside})
    seed = seeds.number(run.seed, "tune", model.name, fold, slot) % 2**32
    drawn = draw(run.competition.tuning.sampler, seed, choices, trials)
    return Proposal(first | drawn, drawn, choices)


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a sampler could draw this value."""
    try:
        create_trial(value=0.0, params={"x": value}, distributions={"x": distribution})
    except (ValueError, TypeError):  # out of its range, or no choice of its
        return False
    return True
