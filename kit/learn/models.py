"""Which models a run fits: every backbone of ``train.backbones``, with its own settings, in several seeds.

A backbone is written ``encoder:mode:pixels`` and may carry settings of its own, and a name::

    resnet50:finetune:224; lr=1e-7; epochs=60
    slow = resnet50:finetune:224; lr=1e-8..1e-6; pool=mean|attention

The settings are those of :class:`kit.competition.Training`. Where their name depends on the mode, the short
one serves all modes: ``lr``, ``epochs`` and ``weight_decay``.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kit import settings
from kit.competition import Training
from kit.errors import SettingError, did_you_mean
from kit.learn import backbones
from kit.learn.backbones import Backbone
from kit.metrics import Metric
from kit.state import Run

# Settings whose name depends on the mode: the name in a specification, and the fields of Training.
MODAL = {
    "lr": {"frozen": "lr", "finetune": "finetune_lr", "scratch": "scratch_lr"},
    "epochs": {"frozen": "epochs", "finetune": "finetune_epochs", "scratch": "finetune_epochs"},
    "weight_decay": {"frozen": "ridge", "finetune": "weight_decay", "scratch": "weight_decay"},
}
# Settings of the whole run, which no single model can change.
SHARED = ("backbones", "seeds", "hours", "infer_batch", "turned", "extra", "extra_epochs", "logs")
# What says nothing of a model, by its mode.
PRETRAINED = ("layer_decay", "freeze", "fixed", "norm")
IDLE = {
    "frozen": (*PRETRAINED, "preset", "accumulate", "precision", "channels_last", "compile"),
    "finetune": (),
    "scratch": PRETRAINED,
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
Space = Mapping[str, tuple[float, float] | list[Any]]


@dataclass(frozen=True)
class Model:
    """One model of the first level.

    name: what tables and folders call it; that of all its seeds.
    training: the settings of the run, with those that are its own.
    space: what tuning may choose, by the name in a specification: (least, most) of a range, or a list of
        choices.
    seed: 0 for the first, 1 for its next repetition...
    """

    name: str
    backbone: Backbone
    training: Training
    space: Space = field(default_factory=dict)
    seed: int = 0

    @property
    def frozen(self) -> bool:
        """Whether the encoder stays as it is, and embeddings stand in for tiles."""
        return self.backbone.mode == "frozen"

    @property
    def purpose(self) -> str:
        """What its draws depend on."""
        return f"{self.name} seed {self.seed}" if self.seed else self.name

    def get(self, key: str) -> Any:
        """The value of a setting, by the name that it has in a specification: ``lr``, ``epochs``..."""
        return getattr(self.training, field_of(self.backbone.mode, key))

    def having(self, values: Mapping[str, Any]) -> Model:
        """The same model with other settings, by such names."""
        mode = self.backbone.mode
        mine = {field_of(mode, key): value for key, value in values.items()}
        return replace(self, training=replace(self.training, **mine))

    @property
    def epochs(self) -> int:
        """How long it learns."""
        return max(1, round(float(self.get("epochs")) * self.training.shorten))

    @property
    def freeze(self) -> int:
        """In how many epochs the encoder waits; never in all."""
        return min(round(self.training.freeze * self.training.shorten), self.epochs - 1)

    @property
    def patience(self) -> int:
        """How many epochs without gain are borne."""
        return max(1, round(self.training.patience * self.training.shorten))


def field_of(mode: str, key: str) -> str:
    """The field of Training behind a name: one name serves all modes.

    >>> field_of("scratch", "lr"), field_of("frozen", "weight_decay"), field_of("frozen", "drop")
    ('scratch_lr', 'ridge', 'drop')
    """
    return MODAL.get(key, {}).get(mode, key)


def own_names(mode: str) -> set[str]:
    """The settings that a model of this mode may have for itself."""
    others = {name for by_mode in MODAL.values() for name in by_mode.values()}
    left_out = {*SHARED, *IDLE[mode]}
    mine = {by_mode[mode] for by_mode in MODAL.values()}
    return {name for name in _types() if name not in left_out | (others - mine)} | set(MODAL)


def _types() -> dict[str, Any]:
    return typing.get_type_hints(Training)


def of_run(run: Run) -> list[Model]:
    """The models of a run, first seeds first.

    Raises:
        SettingError: a backbone cannot be read, or two have one name.
    """
    training = run.competition.training
    found = [parse(text, training) for text in training.backbones]
    names = [model.name.casefold() for model in found]  # a folder's name may not tell a from A
    if not names:
        raise SettingError("train.backbones is empty", "for example tf_efficientnet_lite0:frozen")
    if repeated := [model.name for model in found if names.count(model.name.casefold()) > 1]:
        hint = "give one a name of its own: NAME = encoder:mode:pixels; KEY=VALUE"
        raise SettingError(f"two models of train.backbones are called '{repeated[0]}'", hint)
    return [replace(model, seed=seed) for seed in range(training.seeds) for model in found]


def first_seeds(run: Run) -> list[Model]:
    """One model a backbone: what is tuned."""
    return [model for model in of_run(run) if model.seed == 0]


def parse(text: str, training: Training) -> Model:
    """``name = encoder:mode:pixels; key=value; ...``: only the encoder must be there.

    A value ``1e-5..1e-3`` or ``mean|attention`` is what tuning may choose from. Without tuning, and where
    the run's own value is none of these, the first choice counts, or the middle of the range (of a positive
    one the geometric mean).

    Raises:
        SettingError: something does not exist or makes no sense; says what is close to it.
    """
    spec, *own = [part.strip() for part in text.split(";")]
    name, equals, rest = (part.strip() for part in spec.partition("="))
    if equals and not NAME.fullmatch(name):
        hint = "a name is also a folder's: letters, digits, - and _, for example slow-resnet = resnet50"
        raise SettingError(f"a model cannot be called '{name}'", hint)
    try:
        backbone = backbones.parse(rest if equals else name)
    except SettingError as error:
        _refuse_comma(name, rest, error)
        raise
    model = Model(name if equals else backbone.name, backbone, training)
    given: set[str] = set()
    for part in filter(None, own):
        key, value = _own_pair(model, part)
        if key in given:
            raise SettingError(f"{model.name}: {key} is given twice", "keep one of the two")
        given.add(key)
        model = _with_own(model, key, value)
    _check_freeze(model)
    return model


def _refuse_comma(name: str, value: str, error: SettingError) -> None:
    """Say it where what cannot be a model looks like a setting of the one before it.

    Raises:
        SettingError: it does.
    """
    if value and (name in {*_types(), *MODAL} or value[0].isdigit()):
        raise SettingError(
            f"train.backbones: '{name}={value}' is no model",
            f"a comma begins a new model; settings of one follow a semicolon: ENCODER:MODE; {name}={value}",
        ) from error


def check(model: Model, metric: Metric) -> list[str]:
    """Which settings of a model say nothing beside its others or the metric: a sentence each.

    Those that say nothing in its mode are `IDLE`.
    """
    training, found = model.training, []
    if model.frozen and training.views == 1 and training.augment != Training().augment:
        found.append("train.augment makes no difference: train.views=1 leaves no other view to show")
    if training.loss == "metric" and metric.fixed_prior is None:
        found.append("train.loss=metric is train.loss=cross-entropy: the metric has no class weights")
    return found


def _check_freeze(model: Model) -> None:
    """The encoder of a fine-tuned model learns at some time, whatever tuning chooses."""
    most = max(model.get("freeze"), *model.space.get("freeze", (0,)))
    epochs = min(model.get("epochs"), *model.space.get("epochs", (math.inf,)))
    if model.backbone.mode == "finetune" and most >= epochs:
        raise SettingError(
            f"{model.name}: train.freeze={most} of {epochs} epochs: the encoder would never learn",
            f"write '; freeze={max(0, int(epochs) // 4)}' behind it, or '; epochs=N' for more epochs",
        )


def _own_pair(model: Model, part: str) -> tuple[str, str]:
    """The name and the text of one setting of its own."""
    key, found, text = (word.strip() for word in part.partition("="))
    if not found:
        raise SettingError(f"{model.name}: '{key}' is no KEY=VALUE", f"write it as {key}=VALUE after a ;")
    known = own_names(model.backbone.mode)
    if key not in known:
        shared = f"; {key} is one of the whole run: --set train.{key}=VALUE" if key in SHARED else ""
        modes = [mode for mode in backbones.MODES if key in own_names(mode)]
        only = key in IDLE[model.backbone.mode] and f"{key} is for {' and '.join(modes)} models"
        raise SettingError(
            f"{model.name}: a {model.backbone.mode} model has no setting '{key}' of its own",
            only or did_you_mean(_short(key), known) + shared,
        )
    return _short(key), text


def _short(key: str) -> str:
    """The name that serves all modes, for one that is of a single mode.

    >>> _short("scratch_lr"), _short("ridge"), _short("drop")
    ('lr', 'weight_decay', 'drop')
    """
    return next((name for name, by_mode in MODAL.items() if key in by_mode.values()), key)


def _with_own(model: Model, key: str, text: str) -> Model:
    """A model with one setting, or with what tuning may choose for it."""
    if ".." in text:
        return _between(model, key, text)
    values = [_value(model, key, part) for part in text.split("|")]
    if len(values) == 1:
        return model.having({key: values[0]})
    start = values[0] if model.get(key) not in values else model.get(key)
    return replace(model, space={**model.space, key: values}).having({key: start})


def _between(model: Model, key: str, text: str) -> Model:
    """A model with a range for tuning."""
    ends = [_value(model, key, part) for part in text.split("..")]
    if len(ends) != 2 or any(isinstance(end, str | bool) for end in ends) or not ends[0] < ends[1]:
        hint = "a range is written LEAST..MOST; choices are separated by |"
        raise SettingError(f"{model.name}: {key} cannot be between '{text}'", hint)
    least, most = ends
    start = model.get(key)
    if not least <= start <= most:
        middle = (least * most) ** 0.5 if least > 0 else (least + most) / 2
        start = type(most)(middle)
    return replace(model, space={**model.space, key: (least, most)}).having({key: start})


def _value(model: Model, key: str, text: str) -> Any:
    """One value, checked as ``--set`` would."""
    name = field_of(model.backbone.mode, key)
    try:
        return settings.parse(text.strip(), _types()[name], f"train.{name}")
    except SettingError as error:
        raise SettingError(f"{model.name}: {error.message}", error.hint) from error
