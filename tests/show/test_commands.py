"""The command on the page repeats the run."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pandas as pd

from kit import settings
from kit.competition import Competition, SecondLevel, Tables, TileGrid, Training, find
from kit.metrics import LogLoss
from kit.show.sections.reproduce import changed_settings, command
from kit.state import External, Run

FAR = Path("somewhere") / "else"


def own_task() -> Competition:
    return Competition("toy", ("A", "B"), LogLoss(), lambda data: Tables(pd.DataFrame()))


def test_the_command_names_files_and_changed_settings_but_no_folder() -> None:
    task = replace(own_task(), tiles=TileGrid(size=96), second_level=SecondLevel())
    external = External({"net": FAR / "oof.csv"}, {"net": FAR / "test.csv"}, FAR / "meta.csv")
    run = Run(task, "toy", FAR, FAR, seed=7, threads=3, external=external)
    assert command(run) == (
        "python run_all.py my_task.py --data DIR --oof net=oof.csv --test net=test.csv"
        " --meta meta.csv --seed 7 --threads 3 --set tile.size=96"
    )


def test_a_users_own_file_keeps_its_name() -> None:
    run = Run(own_task(), "toy", FAR, FAR, asked="tasks/toy_task.py")
    assert command(run).startswith("python run_all.py toy_task.py --data DIR")


def test_the_demo_command_repeats_only_what_the_user_changed() -> None:
    task = find("strip-ai")
    chosen = [*task.demo.settings, ("train.backbones", "a:frozen,b:scratch"), ("tune.trials", "0")]
    run = Run(settings.apply(task, chosen), "strip-ai-demo", FAR, FAR, demo=True, threads=2)
    assert command(run) == (
        "python run_all.py strip-ai --seed 0 --threads 2 --set tune.trials=0"
        " train.backbones=a:frozen,b:scratch"
    )


def test_the_settings_of_the_command_parse_to_the_settings_of_the_run() -> None:
    changed = Training(backbones=("a:frozen", "b c:scratch"), lr=3e-5, pool="attention")
    task = replace(own_task(), training=changed)
    run = Run(task, "toy", FAR, FAR, weights={"a": FAR / "a b.safetensors"})
    words = shlex.split(command(run))
    assert "a=a b.safetensors" in words
    pairs = [settings.split(word) for word in words[words.index("--set") + 1 :]]
    assert settings.apply(own_task(), pairs).training == changed


def test_a_run_as_declared_needs_no_settings() -> None:
    assert changed_settings(Run(find("strip-ai"), "strip-ai", FAR, FAR)) == {}
