"""Checkpoints: whole or absent, of this very fit, and enough after a kill."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kit.learn import checkpoint, train
from kit.learn.checkpoint import Keeper
from kit.state import Run
from tests.learn.fits import fit_of, weights_of

ROOT = Path(__file__).parents[2]


def test_what_was_kept_is_found_again_by_the_same_fit_alone(tmp_path: Path) -> None:
    Keeper(tmp_path / "a.ckpt", "one").save({"step": 3, "weights": torch.ones(2)})
    found = Keeper(tmp_path / "a.ckpt", "one").load()
    assert found is not None and found["step"] == 3 and torch.equal(found["weights"], torch.ones(2))
    assert Keeper(tmp_path / "a.ckpt", "other").load() is None
    assert Keeper(tmp_path / "b.ckpt", "one").load() is None
    assert Keeper(None).load() is None and not Keeper(None).due()


@pytest.mark.parametrize("keep", [0, 20, 0.5, -1])
def test_a_damaged_checkpoint_begins_again(
    keep: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.ckpt"
    Keeper(path, "one").save({"step": 3, "weights": torch.ones(200)})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if keep == 0.5 else int(keep)])
    assert Keeper(path, "one").load() is None and "begins again" in caplog.text


def test_a_fit_is_kept_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    keeper = Keeper(tmp_path / "a.ckpt")
    assert not keeper.due()
    now[0] = 61.0
    assert keeper.due()
    keeper.save({})
    assert not keeper.due()


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bytes(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fit_of(make_run(finetune_epochs=30, workers=0), "scratch", drop=0.5, average="ema")
    straight, place = weights_of(train.train(fit)), tmp_path / "fit.ckpt"
    run = fit.run
    assert run.tables is not None  # read before it travels
    program = tmp_path / "program.py"
    (tmp_path / "fit.pickle").write_bytes(pickle.dumps((fit.images, fit.purpose)))
    program.write_text(
        "import pickle, sys, torch\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from kit.competition import TileGrid, Tuning\n"
        "from kit.learn import checkpoint, models, train\n"
        "from kit.learn.fit import Fit\n"
        "from kit.state import Run\n"
        "from tests.learn.conftest import SIDE, TOY, task_of\n"
        "torch.set_num_threads(1)\n"
        "checkpoint.EVERY = 0.0\n"
        "training = replace(TOY, finetune_epochs=30)\n"
        f"task = task_of('photo', TileGrid(size=SIDE, count=1), training, Tuning(trials=0), True)\n"
        f"run = Run(task, 'toy', Path({str(run.data)!r}), Path({str(run.work)!r}), workers=0,\n"
        f"          weights={{'test_efficientnet': Path({str(run.weights['test_efficientnet'])!r})}},\n"
        f"          fold_table=Path({str(run.fold_table)!r}))\n"
        f"images, purpose = pickle.loads(Path({str(tmp_path / 'fit.pickle')!r}).read_bytes())\n"
        "model = models.parse('test_efficientnet:scratch; drop=0.5; average=ema', training)\n"
        f"train.train(Fit(run, model, images, purpose), Path({str(place)!r}))\n"
    )
    for _ in range(2):
        began = place.stat().st_mtime_ns if place.is_file() else 0
        child = subprocess.Popen(
            [sys.executable, str(program)], env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        )
        deadline = time.monotonic() + 120
        while (not place.is_file() or place.stat().st_mtime_ns == began) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        assert child.poll() is None, "it was killed while it learned"
        child.send_signal(signal.SIGKILL)
        child.wait()
    kept = Keeper(place, torch.load(place, weights_only=True)["key"]).load()
    assert kept is not None and (kept["progress"]["epoch"], kept["progress"]["step"]) > (0, 0)
    assert weights_of(train.train(fit, place)) == straight
