"""A run of a task of one's own through all stages, with its declaration and data in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn

from kit import seeds
from kit.__main__ import main, make_run, stage_parser
from kit.state import Run

SIDE = 32
COLOURS = {"a": (200, 130, 130), "b": (130, 130, 200)}
TASK = """
from pathlib import Path

from kit.competition import Competition, FoldPlan, Tables, TileGrid, Training, Tuning
from kit.metrics import LogLoss
from kit.tables import read_table
from my_columns import IMAGE


def load(data: Path) -> Tables:
    return Tables(
        read_table(data / "train.csv", (*IMAGE, "label")),
        read_table(data / "test.csv", IMAGE),
        sample=read_table(data / "sample_submission.csv", ("patient", "a", "b")),
    )


TOY = Competition(
    name="toy",
    kaggle="toy-cup",
    classes=("a", "b"),
    metric=LogLoss(),
    load=load,
    unit="patient",
    files="{split}/{image_id}.png",
    folds=FoldPlan(k=2, holdout=2),
    tiles=TileGrid(size=32, count=1),
    tuning=Tuning(trials=0),
    training=Training(
        backbones=("test_efficientnet:frozen", "test_efficientnet:scratch"),
        epochs=3, finetune_epochs=1, batch=4, infer_batch=8, views=1,
    ),
)
"""
STAGES = ("fold", "tile", "tune", "train", "predict", "combine", "submit")


def write_data(folder: Path) -> None:
    """24 training patients and 4 test patients, one photograph each."""
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for split, count in (("train", 24), ("test", 4)):
        (folder / split).mkdir(parents=True)
        for n in range(count):
            name, label = f"{split[1]}{n:03d}", "ab"[n % 2]
            noise = seeds.rng(0, "toy", name).normal(0, 30, (SIDE, SIDE, 3))
            pixels = np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{name}.png")
            rows[split].append(f"{name},p{name}" + (f",{label}" if split == "train" else ""))
    for split, columns in (("train", "image_id,patient,label"), ("test", "image_id,patient")):
        (folder / f"{split}.csv").write_text("\n".join([columns, *rows[split]]) + "\n")
    units = [row.split(",")[1] for row in rows["test"]]
    lines = ["patient,a,b", *(f"{unit},0.5,0.5" for unit in units)]
    (folder / "sample_submission.csv").write_text("\n".join(lines) + "\n")


def write_weights(path: Path) -> None:
    """Weights as ``torch.save`` has them, wrapped, with tensors that share memory or lie in pieces."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = timm.create_model("test_efficientnet", num_classes=0)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None  # its statistics become those of these images
        model(torch.randn(64, 3, SIDE, SIDE))
    tensors = dict(model.state_dict())
    name, tensor = next((k, v) for k, v in tensors.items() if v.ndim == 4)
    tensors[name] = tensor.contiguous(memory_format=torch.channels_last)
    first, second = [k for k, v in tensors.items() if k.endswith("bn1.bias")][:2]
    both = torch.cat([tensors[first], tensors[second]])
    tensors[first], tensors[second] = both[: len(tensors[first])], both[len(tensors[first]) :]
    torch.save({"state_dict": tensors, "epoch": 3}, path)


def words(stage: str, folder: Path) -> list[str]:
    """The command of a stage of the toy, typed in its folder."""
    common = ["--data", "data", "--threads", "1", "--workers", "0"]
    return [stage, "my_task.py", *common, "--weights", f"test_efficientnet={folder / 'secret' / 'own.pth'}"]


def finished(folder: Path) -> None:
    """Write the toy into a folder and run all of its stages there."""
    write_data(folder / "data")
    (folder / "secret").mkdir()
    write_weights(folder / "secret" / "own.pth")
    (folder / "my_task.py").write_text(TASK)
    (folder / "my_columns.py").write_text('IMAGE = ("image_id", "patient")\n')
    before = Path.cwd()
    os.chdir(folder)
    try:
        for stage in STAGES:
            assert main(words(stage, folder)) == 0, stage
    finally:
        os.chdir(before)


def run_of(folder: Path, *more: str) -> Run:
    """The run of the toy; the working folder must be its own."""
    return make_run(stage_parser().parse_args([*words("submit", folder), *more]))
