"""What a search over settings may choose from, and what its next trial tries."""

from __future__ import annotations

from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from kit import seeds
from kit.competition import Competition
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

    A bag of one has no pool and no choice of tiles; what is switched off by a zero stays off.
    """
    found = _usual(task, model)
    for name, declared in model.space.items():
        found[name] = _declared(declared)
    return found


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
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):  # no choice of its
        return False
