"""Settings by dotted name, parsed by their declared type, and refused with what they take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kit import settings
from kit.competition import Tuning, find
from kit.errors import SettingError

TASK = find("strip-ai")


def test_every_setting_is_known_but_those_that_say_where_the_demo_is() -> None:
    known = settings.known(TASK)
    assert known["fold.k"] == 5 and known["tile.size"] == 224 and known["combine.icc"] == 0.44
    assert {key.split(".")[0] for key in known} == set(settings.GROUPS)
    assert not {"demo.module", "demo.settings"} & set(known)


def test_every_setting_of_the_competition_is_a_value_that_it_takes() -> None:
    text = {k: ",".join(v) if isinstance(v, tuple) else str(v) for k, v in settings.known(TASK).items()}
    assert settings.apply(TASK, text.items()) == TASK


def test_the_settings_of_the_demo_can_be_applied() -> None:
    assert settings.apply(TASK, TASK.demo.settings).tiles.size == 128


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("fold.k", "3", 3),
        ("fold.scheme", "site", "site"),
        ("train.lr", "1e-3", 0.001),
        ("tune.finetune", "True", True),
        ("tune.finetune", "false", False),
        ("tune.storage", "sqlite:///x=1", "sqlite:///x=1"),
        ("train.backbones", "a:frozen, b:scratch:64,", ("a:frozen", "b:scratch:64")),
        ("fold.holdout", "0", 0),
        ("tune.trials", "0", 0),
        ("fold.holdout_share", "0", 0.0),
        ("train.views", "8", 8),
        ("train.hours", "0", 0.0),
        ("train.freeze", "0", 0),
        ("tune.confirm", "0", 0),
        ("combine.models", "a, b", ("a", "b")),
    ],
)
def test_a_value_is_parsed_by_its_declared_type(key: str, text: str, value: object) -> None:
    changed = settings.known(settings.apply(TASK, [(key, text)]))
    assert changed[key] == value and type(changed[key]) is type(value)
    assert {k for k, v in changed.items() if v != settings.known(TASK)[k]} <= {key}


def test_a_later_value_wins() -> None:
    assert settings.apply(TASK, [("fold.k", "3"), ("fold.k", "4")]).folds.k == 4


@pytest.mark.parametrize(
    ("key", "text", "hint"),
    [
        ("fold.k", "five", "it takes a value of type int"),
        ("fold.k", "2.5", "it takes a value of type int"),
        ("fold.k", "", "it takes a value of type int"),
        ("train.lr", "fast", "it takes a value of type float"),
        ("fold.scheme", "sites", "it takes one of: group, site, group-site, crossed"),
        ("tune.finetune", "yes", "it takes true or false"),
        ("fold.k", "1", "it takes 2 or more"),
        ("fold.holdout", "-1", "it takes 0 or more"),
        ("fold.holdout_share", "3", "it takes 0 to 1"),
        ("tile.size", "0", "it takes 1 or more"),
        ("train.batch", "-8", "it takes 1 or more"),
        ("train.lr", "nan", "it takes 1e-12 to 10"),
        ("train.lr", "inf", "it takes 1e-12 to 10"),
        ("train.lr", "1e9", "it takes 1e-12 to 10"),
        ("train.finetune_lr", "10.1", "it takes 1e-12 to 10"),
        ("train.scratch_lr", "0", "it takes 1e-12 to 10"),
        ("train.ridge", "-0.1", "it takes 0 or more"),
        ("combine.folds", "1", "it takes 2 or more"),
        ("combine.resamples", "-3", "it takes 20 or more"),
        ("combine.icc", "1.5", "it takes 0 to 1"),
        ("train.views", "3", "it takes one of: 1, 2, 4, 8"),
        ("train.shorten", "0", "it takes 0.001 to 100"),
        ("train.layer_decay", "1.1", "it takes 0.01 to 1"),
        ("train.smoothing", "1", "it takes 0 to 0.99"),
        ("train.bag_drop", "1", "it takes 0 to 0.99"),
        ("train.ema", "1", "it takes 0 to 0.99999"),
        ("train.factor", "1", "it takes 0.001 to 0.999"),
        ("train.mixup", "-1", "it takes 0 to 10"),
        ("train.undersample", "-1", "it takes 0 or more"),
        ("train.hours", "-1", "it takes 0 or more"),
        ("train.seeds", "0", "it takes 1 or more"),
        ("train.accumulate", "0", "it takes 1 or more"),
        ("train.patience", "0", "it takes 1 or more"),
        ("tune.inner", "0", "it takes 1 or more"),
        ("tune.confirm", "-1", "it takes 0 or more"),
    ],
)
def test_a_value_that_a_key_does_not_take_is_refused_with_what_it_takes(
    key: str, text: str, hint: str
) -> None:
    with pytest.raises(SettingError) as caught:
        settings.apply(TASK, [(key, text)])
    assert caught.value.message == f"{key} cannot be '{text}'"
    assert caught.value.hint == hint


def test_every_key_with_a_range_exists() -> None:
    assert set(settings.RANGES) <= set(settings.known(TASK))


def test_an_unknown_key_gets_the_closest_one() -> None:
    with pytest.raises(SettingError, match=r"there is no setting 'fold\.kk'") as caught:
        settings.apply(TASK, [("fold.kk", "3")])
    assert caught.value.hint.startswith("did you mean fold.k?")


@pytest.mark.parametrize("key", ["demo.module", "fold", "k", "name"])
def test_what_is_no_setting_cannot_be_set(key: str) -> None:
    with pytest.raises(SettingError, match=f"there is no setting '{key}'"):
        settings.apply(TASK, [(key, "1")])


def test_a_pair_is_split_at_its_first_equals_sign() -> None:
    assert settings.split(" tune.storage = a=b ") == ("tune.storage", "a=b")


def test_a_word_without_equals_sign_is_refused_with_an_example() -> None:
    with pytest.raises(SettingError, match=r"--set takes key=value, and got 'fold\.k'") as caught:
        settings.split("fold.k")
    assert caught.value.hint == "for example fold.k=VALUE"


def test_where_a_study_is_kept_is_no_part_of_a_result() -> None:
    elsewhere = replace(TASK, tuning=Tuning(storage="postgresql://user:secret@host/db"))
    part = settings.part(elsewhere, "tune")
    assert part == settings.part(TASK, "tune") and "storage" not in part
    assert settings.part(TASK, "tune")["trials"] == TASK.tuning.trials


def test_what_is_logged_and_how_long_it_may_take_is_no_part_of_a_result() -> None:
    other = settings.apply(TASK, [("train.logs", "tensorboard"), ("train.hours", "3")])
    assert settings.part(other, "train") == settings.part(TASK, "train")
    longer = settings.apply(TASK, [("train.epochs", "3")])
    assert settings.part(longer, "train") != settings.part(TASK, "train")


def test_the_help_of_training_names_every_setting_whose_name_does_not_say_it_all() -> None:
    plain = {"backbones", "epochs", "finetune_epochs", "batch", "infer_batch", "lr", "finetune_lr"}
    plain |= {"scratch_lr", "ridge", "weight_decay", "drop", "channels_last", "compile"}
    names = {key.split(".")[1] for key in settings.known(TASK) if key.startswith("train.")}
    assert {name for name in names if f"train.{name}" not in settings.NOTES["train"]} <= plain
