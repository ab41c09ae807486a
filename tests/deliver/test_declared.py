"""Tests of ``kit.deliver.declared``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kit import competition, settings
from kit.deliver.declared import restored, without_training, written
from kit.errors import DataError
from kit.state import Run


def run_of(asked: str = "strip-ai", *pairs: tuple[str, str]) -> Run:
    task = settings.apply(competition.find(asked), pairs)
    return Run(task, task.name, Path("data"), Path("work") / task.name, seed=3, threads=2, asked=asked)


def test_a_run_is_restored_with_every_setting() -> None:
    model = "slow = resnet50:finetune:224; lr=1e-7; pool=mean|attention"
    run = run_of("strip-ai", ("train.backbones", f"{model},resnet18:scratch"), ("train.ridge", "0.1"),
                 ("tile.sections", "false"), ("train.turned", "1,3"), ("tile.mpp", "0.25"))  # fmt: skip
    again = restored(written(run), run.data, run.work)
    assert again.competition == run.competition
    assert replace(again, workers=run.workers) == run


def test_paths_and_passwords_are_not_written() -> None:
    secret = ("tune.storage", "postgresql+psycopg://me:secret@host/db")
    run = run_of("strip-ai", secret, ("fold.duplicates", "/home/me/near.csv"))
    assert "secret" not in str(written(run)) and "/home" not in str(written(run))


def test_a_declaration_of_a_user_is_found_by_its_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "my_task.py"
    path.write_text(
        "from kit.competition import Competition, Tables\nfrom kit.metrics import LogLoss\n"
        "MINE = Competition('mine', ('a', 'b'), LogLoss(), load=lambda data: Tables(None))\n"
    )
    content = written(run_of(str(path)))
    assert content["asked"] == "my_task.py"
    assert restored(content, Path("d"), Path("w"), declaration=path).competition.name == "mine"
    with pytest.raises(DataError, match=r"my_task.py is not there"):
        restored(content, Path("d"), Path("w"))


def test_a_task_without_training_keeps_what_was_named_and_no_image_without_a_label(data: Path) -> None:
    task = settings.apply(competition.find("strip-ai"), [("tile.extra", "true")])
    name = str(task.load(data).train["image_id"].iloc[2])
    bare, one = without_training(task), without_training(task, but=[name])
    assert not bare.tiles.extra and len(bare.load(data).train) == 0
    assert list(one.load(data).train["image_id"]) == [name]
    assert bare.load(data).sample is None and bare.load(data).extra is None
