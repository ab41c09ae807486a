"""A recipe is settings in a file: above the competition's, below the user's, and refused by file and key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit import recipe, settings
from kit.competition import Competition, find
from kit.errors import SettingError
from kit.learn import models
from kit.learn.models import Model

TASK = find("strip-ai")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """``written(text, name)``: the path of a recipe with this text."""

    def write(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def models_of(task: Competition) -> dict[str, Model]:
    found = [models.parse(text, task.training) for text in task.training.backbones]
    return {model.name: model for model in found}


# --- files ------------------------------------------------------------------------------------------


def test_toml_values_become_settings_by_their_type(written: Callable[..., str]) -> None:
    text = """
    [fold]
    k = 3
    [train]
    lr = 1e-3
    channels_last = false
    optimiser = "adam"
    backbones = ["a = test_efficientnet:scratch:64; lr=1e-3..1e-2", "tf_efficientnet_lite0:frozen"]
    turned = [1, 3]
    [combine]
    models = ["a"]
    """
    task = recipe.apply(TASK, written(text))
    changed = {k: v for k, v in settings.known(task).items() if v != settings.known(TASK)[k]}
    assert changed == {
        "fold.k": 3,
        "train.lr": 1e-3,
        "train.channels_last": False,
        "train.optimiser": "adam",
        "train.backbones": (
            "a = test_efficientnet:scratch:64; lr=1e-3..1e-2",
            "tf_efficientnet_lite0:frozen",
        ),
        "train.turned": ("1", "3"),
        "combine.models": ("a",),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[trian]\nlr = 1", ["there is no group 'trian'", "did you mean train?"]),
        ("[train]\nlrr = 1", ["there is no setting 'train.lrr'", "did you mean train.lr?"]),
        ("[train]\nepochs = 2.5", ["train.epochs cannot be '2.5'", "a value of type int"]),
        ("[train]\nlr = true", ["train.lr cannot be 'true'", "a value of type float"]),
        ("[train]\noptimiser = 'adm'", ["train.optimiser cannot be 'adm'", "adamw, adam, sgd"]),
        ("[train]\nlr = inf", ["train.lr cannot be 'inf'"]),
        ("[train]\nbackbones = ['a,b']", ["train.backbones has 'a,b'", "cannot hold a comma"]),
        ("[train.lr]\na = 1", ["train.lr cannot be {'a': 1}", "a number, a string, true or false"]),
        ("[train]\nlr = 2020-01-01", ["train.lr cannot be datetime"]),
        ("train = 3", ["'train' is a group", "[train]"]),
        ("lr = 3", ["there is no group 'lr'"]),
        ("[demo]\nmodule = 'os'", ["there is no setting 'demo.module'"]),
        ("[train\nlr = 1", ["cannot be read", "line 1"]),
        ("[train]\nlr = 1\nlr = 2", ["cannot be read", "overwrite a value"]),
        ("base = 'nothing'", ["mine.toml: its base 'nothing' does not exist"]),
        ("base = 3", ["base cannot be 3"]),
        ("base = 'mine.toml'", ["its base 'mine.toml' rests on itself"]),
    ],
)
def test_what_is_wrong_is_said_with_file_key_and_value(
    written: Callable[..., str], text: str, says: list[str]
) -> None:
    path = written(text)
    with pytest.raises(SettingError) as caught:
        recipe.apply(TASK, path)
    said = f"{caught.value.message}\n{caught.value.hint}"
    assert [word for word in says if word not in said] == [], said
    assert path in said or "no recipe" in said


def test_bytes_that_are_no_text_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match="cannot be read"):
        recipe.apply(TASK, str(tmp_path / "x.toml"))


def test_an_unknown_recipe_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(SettingError, match="there is no recipe 'strip-papr'") as caught:
        recipe.apply(TASK, "strip-papr")
    assert caught.value.hint.startswith("did you mean strip-paper?") and "FILE.toml" in caught.value.hint


def test_a_recipe_changes_the_one_that_it_names_as_its_base(written: Callable[..., str]) -> None:
    written("[fold]\nk = 3\n[train]\nlr = 0.5", "first.toml")
    second = written("base = 'first.toml'\n[train]\nlr = 0.25", "second.toml")
    task = recipe.apply(TASK, second)
    assert (task.folds.k, task.training.lr) == (3, 0.25)


# --- the command line -------------------------------------------------------------------------------


def settings_of(folder: Path, stage: str) -> dict[str, Any]:
    state = json.loads((folder / "work" / "strip-ai" / "state.json").read_text())
    found: dict[str, Any] = state[stage]["ingredients"]["settings"]
    return found


def test_a_recipe_is_above_the_competition_and_below_the_users_own_settings(
    kit: Callable[..., Any], data: Path, tmp_path: Path, written: Callable[..., str]
) -> None:
    first = written("[fold]\nk = 3\nholdout = 4", "first.toml")
    second = written("[fold]\nholdout = 3", "second.toml")
    words = ["--recipe", first, "--recipe", second]
    assert kit("fold", "strip-ai", "--data", data, *words).code == 0
    mine = settings_of(tmp_path, "fold")["fold"]
    assert (mine["k"], mine["holdout"]) == (3, 3)
    assert kit("fold", "strip-ai", "--data", data, *words, "--set", "fold.k=4").code == 0
    assert settings_of(tmp_path, "fold")["fold"]["k"] == 4


def test_the_same_settings_by_file_and_by_hand_have_one_key(
    kit: Callable[..., Any], data: Path, written: Callable[..., str]
) -> None:
    assert kit("fold", "strip-ai", "--data", data, "--recipe", written("[fold]\nk = 3")).code == 0
    again = kit("fold", "strip-ai", "--data", data, "--set", "fold.k=3")
    assert "finished before, nothing has changed" in again.err


def test_the_manifest_shows_the_settings_of_a_recipe(
    kit: Callable[..., Any], data: Path, tmp_path: Path, oof: list[str], written: Callable[..., str]
) -> None:
    path = written("[combine]\nmethod = 'mean + none'\nicc = 1.0")
    words = ["strip-ai", "--data", data, *oof, "--recipe", path]
    assert [kit(stage, *words).code for stage in ("combine", "submit")] == [0, 0]
    (manifest,) = (tmp_path / "submissions").rglob("manifest.json")
    assert "mean + none" in manifest.read_text()


def test_an_error_in_a_recipe_is_a_users_error(
    refused: Callable[..., str], written: Callable[..., str]
) -> None:
    path = written("[fold]\nk = 1")
    refused("fold", "strip-ai", "--recipe", path, says=[f"{path}: fold.k cannot be '1'", "2 or more"])


@pytest.mark.parametrize("command", ["fold", "train", "combine", "evaluate", "compare"])
def test_every_command_lists_the_recipes(kit: Callable[..., Any], command: str) -> None:
    shown = "".join(kit(command, "--help").out.split())  # lines are broken at hyphens too
    assert "--recipeNAME|FILE" in shown and ",".join(recipe.names()) in shown


# --- those that come with the kit -------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_of_the_kit_holds_and_names_models_that_exist(name: str) -> None:
    task = recipe.apply(TASK, name)
    found = models_of(task)
    assert len(found) == len(task.training.backbones)
    assert set(task.second_level.models) <= set(found)


def test_the_papers_recipe_says_what_the_paper_says() -> None:
    task = recipe.apply(TASK, "strip-paper")
    found = models_of(task)
    assert {name: model.epochs for name, model in found.items()} == {
        "efficientnet_b2": 60, "efficientnet_b0": 60, "squeezenet": 200, "resnet50": 60}  # fmt: skip
    assert {name: model.get("lr") for name, model in found.items()} == {
        "efficientnet_b2": 1e-3, "efficientnet_b0": 1e-3, "squeezenet": 1e-3, "resnet50": 1e-7}  # fmt: skip
    how = task.training
    assert (how.loss, how.optimiser, how.batch, how.schedule, how.patience, how.factor) == (
        "binary", "adam", 16, "plateau", 5, 0.1)  # fmt: skip
    assert (task.tiles.recipe, how.turned, task.tuning.trials) == ("by-aspect", ("1", "3"), 0)
    assert set(task.second_level.models) == {"resnet50", "squeezenet"}


def test_without_weights_only_the_start_of_the_papers_models_is_another() -> None:
    with_weights, without = (recipe.apply(TASK, name) for name in ("strip-paper", "strip-paper-scratch"))
    assert {model.backbone.mode for model in models_of(without).values()} == {"scratch"}
    assert list(models_of(without)) == list(models_of(with_weights))
    assert without.second_level == with_weights.second_level and without.tiles == with_weights.tiles


def test_the_zoo_needs_no_weights_but_the_packaged_ones() -> None:
    found = models_of(recipe.apply(TASK, "zoo"))
    assert len(found) > 5
    needed = {m.backbone.encoder for m in found.values() if m.backbone.mode != "scratch"}
    assert needed == {"tf_efficientnet_lite0"}
