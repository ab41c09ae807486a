"""Models of a run: their names, own settings, what tuning may choose, and their seeds."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from kit.competition import Training, find
from kit.errors import SettingError
from kit.learn import models
from kit.learn.models import Model, parse
from kit.metrics import LogLoss, Metric, WeightedLogLoss
from kit.state import Run

PLAIN = Training()


def refused(text: str, *says: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse(text, PLAIN)
    said = f"{caught.value.message}\n{caught.value.hint}"
    assert [word for word in says if word not in said] == [], said


# --- a specification --------------------------------------------------------------------------------


def test_a_bare_backbone_has_the_settings_of_the_run_and_its_own_name() -> None:
    model = parse("test_efficientnet:scratch:64", PLAIN)
    assert (model.name, model.backbone.size, model.training) == ("test_efficientnet-scratch-64", 64, PLAIN)
    assert model.space == {}


def test_own_settings_are_of_this_model_alone_and_parsed_by_their_type() -> None:
    model = parse(
        "slow = test_efficientnet:finetune; lr=1e-7; epochs=60; channels_last=false; views=2", PLAIN
    )
    assert model.name == "slow"
    own = {"finetune_lr": 1e-7, "finetune_epochs": 60, "channels_last": False, "views": 2}
    assert model.training == replace(PLAIN, **own)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        ("frozen", ("lr", "epochs", "ridge")),
        ("finetune", ("finetune_lr", "finetune_epochs", "weight_decay")),
        ("scratch", ("scratch_lr", "finetune_epochs", "weight_decay")),
    ],
)
def test_one_name_serves_all_modes(mode: str, fields: tuple[str, ...]) -> None:
    model = parse(f"test_efficientnet:{mode}; lr=0.5; epochs=7; weight_decay=0.25", PLAIN)
    assert model.training == replace(PLAIN, **dict(zip(fields, (0.5, 7, 0.25), strict=True)))  # type: ignore[arg-type]
    assert [model.get(key) for key in ("lr", "epochs", "weight_decay")] == [0.5, 7, 0.25]
    assert model.having({"lr": 2.0}).get("lr") == 2.0 and model.get("lr") == 0.5


def test_the_long_name_of_the_mode_is_the_same_setting() -> None:
    assert parse("test_efficientnet:scratch; scratch_lr=0.5", PLAIN).get("lr") == 0.5
    assert parse("test_efficientnet:frozen; ridge=2", PLAIN).get("weight_decay") == 2.0
    refused("test_efficientnet:scratch; scratch_lr=0.5; lr=0.1", "lr is given twice")


def test_epochs_are_shortened_and_never_none() -> None:
    model = parse("test_efficientnet:finetune; epochs=60; shorten=0.05", PLAIN)
    assert model.epochs == 3
    assert model.having({"shorten": 0.001}).epochs == 1


def test_all_numbers_of_epochs_are_shortened() -> None:
    model = parse("test_efficientnet:finetune; epochs=60; freeze=20; patience=10; shorten=0.1", PLAIN)
    assert (model.epochs, model.freeze, model.patience) == (6, 2, 1)
    short = model.having({"freeze": 59, "shorten": 0.02})
    assert (short.epochs, short.freeze, short.patience) == (1, 0, 1), "the encoder learns in the last epoch"


@pytest.mark.parametrize(
    ("mode", "settings", "metric", "says"),
    [
        ("frozen", {"augment": 0.1, "views": 1}, LogLoss(), ["train.augment makes no difference"]),
        ("frozen", {"augment": 0.1, "views": 2}, LogLoss(), []),
        ("scratch", {"augment": 0.1, "views": 1}, LogLoss(), []),
        ("scratch", {"loss": "metric"}, LogLoss(), ["is train.loss=cross-entropy"]),
        ("scratch", {"loss": "metric"}, WeightedLogLoss((1, 2)), []),
    ],
)
def test_what_makes_no_difference_is_said(
    mode: str, settings: dict[str, object], metric: Metric, says: list[str]
) -> None:
    model = parse(f"test_efficientnet:{mode}", PLAIN).having(settings)
    found = models.check(model, metric)
    assert len(found) == len(says) and all(text in line for text, line in zip(says, found, strict=True))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "test_efficientnet:finetune; epochs=9; freeze=9",
            ["freeze=9 of 9 epochs", "never learn", "freeze=2"],
        ),
        ("test_efficientnet:finetune; epochs=2|9; freeze=0..2", ["freeze=2 of 2 epochs", "never learn"]),
        ("test_efficientnet:scratch; freeze=1", ["no setting 'freeze'", "freeze is for finetune models"]),
        ("test_efficientnet; preset=flips", ["no setting 'preset'", "for finetune and scratch models"]),
        ("lr=1e-3", ["'lr=1e-3' is no model", "follow a semicolon: ENCODER:MODE; lr=1e-3"]),
        ("pool=max", ["'pool=max' is no model", "follow a semicolon"]),
        ("lrr = 2", ["'lrr=2' is no model", "follow a semicolon"]),
        ("test_efficientnet:scratch; norm=kept", ["a scratch model has no setting 'norm'"]),
        ("test_efficientnet; channels_last=false", ["a frozen model has no setting 'channels_last'"]),
        ("a/b = test_efficientnet", ["cannot be called 'a/b'", "letters, digits"]),
        (".. = test_efficientnet", ["cannot be called '..'"]),
        ("my net = test_efficientnet", ["cannot be called 'my net'"]),
        ("v1.5 = test_efficientnet", ["cannot be called 'v1.5'"]),
        (" = test_efficientnet", ["cannot be called ''"]),
        ("a = test_eficientnet", ["'test_eficientnet'", "did you mean test_efficientnet"]),
        ("a = test_efficientnet; lrr=1", ["a: a frozen model has no setting 'lrr'", "did you mean lr?"]),
        (
            "test_efficientnet; lr=fast",
            ["test_efficientnet-frozen: train.lr cannot be 'fast'", "of type float"],
        ),
        ("test_efficientnet; pool=man", ["train.pool cannot be 'man'", "it takes one of: mean"]),
        ("test_efficientnet; views=3", ["train.views cannot be '3'", "1, 2, 4, 8"]),
        ("test_efficientnet; lr", ["'lr' is no KEY=VALUE"]),
        ("test_efficientnet; lr=1; lr=2", ["lr is given twice"]),
        ("test_efficientnet; seeds=3", ["no setting 'seeds' of its own", "--set train.seeds=VALUE"]),
        ("test_efficientnet:frozen; scratch_lr=1", ["no setting 'scratch_lr'", "did you mean lr?"]),
        ("test_efficientnet:scratch; ridge=1", ["no setting 'ridge'", "did you mean weight_decay?"]),
        ("test_efficientnet:frozen; freeze=1", ["a frozen model has no setting 'freeze'"]),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_is_close(text: str, says: list[str]) -> None:
    refused(text, *says)


# --- what tuning may choose -------------------------------------------------------------------------


def test_a_range_and_choices_are_kept_by_type() -> None:
    model = parse("test_efficientnet; lr=1e-3 .. 1e-1; bag=2..8; pool=mean | attention; views=1|4", PLAIN)
    assert model.space == {"lr": (1e-3, 1e-1), "bag": (2, 8), "pool": ["mean", "attention"], "views": [1, 4]}
    assert model.training == PLAIN  # its values are all among these


def test_what_the_run_has_outside_of_the_space_gives_way_to_what_is_inside() -> None:
    model = parse(
        "test_efficientnet:finetune; lr=1e-8..1e-6; bag=20..40; drop=0.4..0.6; pool=max|vote", PLAIN
    )
    assert model.get("lr") == pytest.approx(1e-7)
    assert (model.get("bag"), model.get("drop"), model.get("pool")) == (
        28,
        pytest.approx(0.49, abs=0.01),
        "max",
    )
    assert isinstance(model.get("bag"), int)


@pytest.mark.parametrize("text", ["lr=1..", "lr=1..1", "lr=2..1", "lr=1..2..3", "pool=mean..max", "lr=a..b"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingError):
        parse(f"test_efficientnet; {text}", PLAIN)


# --- a run ------------------------------------------------------------------------------------------


def of(run: Run, seeds: int = 1, *backbones: str) -> list[Model]:
    training = replace(PLAIN, backbones=backbones, seeds=seeds)
    return models.of_run(replace(run, competition=replace(run.competition, training=training)))


@pytest.fixture
def run() -> Run:
    return Run(find("strip-ai"), "toy", Path("data"), Path("work"))


def test_the_first_seeds_of_all_models_come_before_the_second(run: Run) -> None:
    found = of(run, 2, "a = test_efficientnet", "b = test_efficientnet; lr=1e-3")
    assert [(m.name, m.seed, m.purpose) for m in found] == [
        ("a", 0, "a"), ("b", 0, "b"), ("a", 1, "a seed 1"), ("b", 1, "b seed 1")]  # fmt: skip
    assert len({m.purpose for m in found}) == 4
    assert [m.get("lr") for m in found] == [PLAIN.lr, 1e-3] * 2


@pytest.mark.parametrize(
    "backbones", [("test_efficientnet",) * 2, ("a = test_efficientnet", "A = test_efficientnet:scratch")]
)
def test_two_models_of_one_name_are_refused_also_where_only_their_case_differs(
    run: Run, backbones: tuple[str, ...]
) -> None:
    with pytest.raises(SettingError, match=r"two models of train\.backbones are called") as caught:
        of(run, 1, *backbones)
    assert "NAME = encoder" in caught.value.hint


def test_no_model_at_all_is_refused(run: Run) -> None:
    with pytest.raises(SettingError, match=r"train\.backbones is empty"):
        of(run)


def test_every_setting_of_training_is_either_of_the_run_or_may_be_a_models_own() -> None:
    own = set().union(*(models.own_names(mode) for mode in ("frozen", "finetune", "scratch")))
    assert {item.name for item in fields(Training)} == own | set(models.SHARED)
    assert not own & set(models.SHARED)
