"""A toy of photographs through every stage, submitted; and how its submission is forged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit import seeds, state
from kit.__main__ import main
from kit.combine import second_level
from kit.deliver import case, origin, submit
from kit.deliver.verify import Options, verify
from kit.files import digest, file_digest, read_strings, write_json, write_table

SIDE = 32
CUT = "p22-1"  # the training image that cannot be read
COLOURS = {"a": (200, 130, 130), "b": (130, 130, 200)}
TASK = f"""
from kit.competition import Competition, FoldPlan, SecondLevel, Tables, TileGrid, Training, Tuning
from kit.metrics import LogLoss
from kit.tables import read_table

COLUMNS = ("image_id", "patient", "site")

def load(data):
    return Tables(
        read_table(data / "train.csv", (*COLUMNS, "label")),
        read_table(data / "test.csv", COLUMNS),
        sample=read_table(data / "sample.csv", ("image_id", "a", "b")),
    )

TOY = Competition(
    name="toy", classes=("a", "b"), metric=LogLoss(), load=load, group="patient", site="site",
    files="{{split}}/{{image_id}}.png", reader="photo", folds=FoldPlan(k=3, holdout=2),
    tiles=TileGrid(size={SIDE}, count=1), tuning=Tuning(trials=0), second_level=SecondLevel(resamples=20),
    training=Training(
        backbones=("test_efficientnet:scratch:{SIDE}",), finetune_epochs=2, batch=8, infer_batch=8, views=1
    ),
)
"""


@dataclass(frozen=True)
class Place:
    """Where a toy of photographs went through every stage, from its own declaration."""

    data: Path
    work: Path
    submission: Path


def photographs(data: Path) -> None:
    """36 labelled images of 24 patients at three sites, and 6 test images; one of each is cut off."""
    rows = [
        (f"p{n:02d}-{m}", f"p{n:02d}", f"s{n // 2 % 3}", "ab"[n % 2])
        for n in range(24)
        for m in range(2 - n % 2)
    ]
    train = pd.DataFrame(rows, columns=["image_id", "patient", "site", "label"])
    rows = [(f"00{n}", f"q{n}", f"s{n % 3}", "ab"[n % 2]) for n in range(6)]
    test = pd.DataFrame(rows, columns=train.columns)
    for split, table in (("train", train), ("test", test)):
        (data / split).mkdir(parents=True)
        for row in table.itertuples():
            noise = seeds.rng(0, "picture", row.image_id).normal(0, 30, (SIDE, SIDE, 3))
            pixels = np.clip(np.array(COLOURS[row.label]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(data / split / f"{row.image_id}.png")
    for cut in (data / "test" / "005.png", data / "train" / f"{CUT}.png"):
        cut.write_bytes(cut.read_bytes()[:200])
    write_table(data / "train.csv", train)
    write_table(data / "test.csv", test.drop(columns="label"))
    write_table(data / "sample.csv", pd.DataFrame({"image_id": test["image_id"][::-1], "a": 0.5, "b": 0.5}))


def one_code(patch: pytest.MonkeyPatch) -> None:
    """The package counts as the same all along, whoever edits it while tests run."""
    patch.setattr(origin, "source_digest", lambda folder: "0" * 64)


@cache
def made(base: Path) -> Place:
    """The stages of the toy up to `submit`, typed once for all tests."""
    folder = base / "photographs"
    photographs(folder / "data")
    (folder / "my_task.py").write_text(TASK)
    words = [str(folder / "my_task.py"), "--data", str(folder / "data"), "--threads", "1", "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        one_code(patch)
        patch.chdir(folder)
        for stage in [name for name in state.STAGES if name != "report"]:
            assert main([stage, *words]) == 0, stage
    (submission,) = (folder / "submissions" / "toy").iterdir()
    return Place(folder / "data", folder / "work", submission)


def asked(folder: Path, level: int, **more: Any) -> tuple[str, int]:
    """The verdict of somebody who has read the declaration."""
    return verify(folder, Options(level=level, trust=True, **more))


def sealed(folder: Path, **changes: Any) -> None:
    """Make every hash of a folder again, as somebody would who has forged one of its files."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text()) | changes
    content["files"] = {
        name: file_digest(folder / name) for name in content["files"] if (folder / name).is_file()
    }
    del content["sha256"]
    write_json(path, content | {"sha256": digest(content)})


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def failures(text: str) -> str:
    """The lines of a verdict that name a fault, on one line."""
    found, inside = [], False
    for line in text.splitlines():
        inside = line.startswith("  FAILED") or (inside and line.startswith(" " * 15))
        found += [line.strip()] if inside else []
    return " ".join(found)


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)


def edit_table(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    write_table(path, change(read_strings(path)))


def default(content: Any) -> Any:
    (row,) = [row for row in content["rows"] if row["kind"] == "default" and row["set"] == "oof"]
    return row


def remade(folder: Path, data: Path, work: Path) -> None:
    """Compute scores and submission of forged evidence again, as the kit itself would."""
    mine = case.Case(folder.resolve(), manifest(folder), work, data, trust=True)
    second_level.run(mine.run)
    made = mine.run.folder("combine")
    for name in ("metrics.json", "second_level.json"):
        shutil.copyfile(made / name, folder / name)
    shutil.copyfile(made / "oof.csv", folder / "oof_combined.csv")
    for name, source in (("submission.csv", "test"), ("submission_bold.csv", "bold")):
        (folder / name).unlink(missing_ok=True)
        if len(read_strings(made / f"{source}.csv")):
            write_table(folder / name, submit.build(mine.run, source)[0], submit.FORMAT)
    content = json.loads((folder / "metrics.json").read_text())
    row = {name: value for name, value in default(content).items() if name not in ("kind", "auc")}
    sealed(folder, claim=row | {"metric": content["metric"], "units": content["units"]})
