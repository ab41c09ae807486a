"""Several processes that fit one model: the same batches, the same weights, one that writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from kit.learn import ranks, train
from kit.state import Run

ROOT = Path(__file__).parents[2]
TASK = """
from dataclasses import replace
from kit.competition import TileGrid, Tuning
from tests.learn.conftest import TOY, task_of
training = replace(TOY, backbones=("test_efficientnet:frozen", "test_efficientnet:finetune"), drop=0.3,
                   optimiser="sgd", norm="kept", finetune_lr=0.01, finetune_epochs=2, batch=5, mixup=0.4)
toy = task_of("photo", TileGrid(size=32, count=1), training, Tuning(trials=0), True)
"""


def typed(folder: Path, *words: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """A command of the kit, in one process or in several that ``torchrun`` starts."""
    start = ["-m", "kit"]
    if processes > 1:
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "kit"]
    return subprocess.run(
        [sys.executable, *start, *words, "--threads", "1", "--workers", "0"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_two_processes_end_in_the_weights_of_one(tmp_path: Path, photographs: Path, weights: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    common = ["task.py", "--data", str(photographs), "--weights", f"test_efficientnet={weights}"]
    for work in ("one", "two"):
        for stage in ("fold", "tile", "tune"):
            done = typed(tmp_path, stage, *common, "--work", work)
            assert done.returncode == 0, done.stderr
    alone = typed(tmp_path, "train", *common, "--work", "one")
    assert alone.returncode == 0, alone.stderr
    together = typed(tmp_path, "train", *common, "--work", "two", processes=2)
    assert together.returncode == 0, together.stderr
    files = sorted((tmp_path / "one").rglob("*.safetensors"))
    assert len(files) == 6
    for file in files:
        one, two = (
            load_file(tmp_path / work / file.relative_to(tmp_path / "one")) for work in ("one", "two")
        )
        assert max(float((one[k] - two[k]).abs().max()) for k in one) < 1e-6
    state = json.loads((tmp_path / "two" / "toy" / "state.json").read_text())
    assert state["train"]["ingredients"]["inputs"]["processes"] == 2
    assert typed(tmp_path, "predict", *common, "--work", "two").returncode == 0, "it knows the key"
    again = typed(tmp_path, "train", *common, "--work", "two")
    assert again.returncode == 0 and "finished before" in again.stderr
    assert typed(tmp_path, "train", *common, "--work", "two", "--force").returncode == 0
    state = json.loads((tmp_path / "two" / "toy" / "state.json").read_text())
    assert "processes" not in state["train"]["ingredients"]["inputs"]


def test_every_process_has_its_bags_and_all_have_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    for bags in range(1, 12):
        for unit in (1, 2):
            taken: list[int] = []
            for rank in range(3):
                monkeypatch.setenv("RANK", str(rank))
                taken += range(*ranks.span(bags, unit))
            assert taken == list(range(bags))


def test_the_number_of_processes_is_known_to_the_stages_behind(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train.inputs(run)["processes"] == 2
    train._pin(run)
    monkeypatch.delenv("WORLD_SIZE")
    assert train.inputs(run)["processes"] == 2, "what one process reads"
    train._pin(run)
    assert "processes" not in train.inputs(run), "fitted by one"
