"""Runs that are killed, and runs with another number of workers, end with the same bytes."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit.deliver import manifest

ROOT = Path(__file__).parents[1]
Finished = dict[str, bytes | dict[str, Any]]  # files, and what the manifest says but for times
SMALL = [
    "demo.patients=24",
    "demo.test_patients=6",
    "demo.largest=0",
    "fold.k=3",
    "tune.trials=2",
    "train.epochs=5",
    "train.finetune_epochs=3",
]


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    log = (folder / "log").open("ab")
    command = [sys.executable, str(ROOT / "run_all.py"), "--set", *SMALL, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stderr=log, stdout=log, start_new_session=True
    )


def finish(folder: Path, *options: str) -> Finished:
    process = start(folder, *options)
    assert process.wait() == 0, (folder / "log").read_text()[-3000:]
    (run,) = (folder / "submissions" / "strip-ai-demo").iterdir()
    names = ("submission.csv", "metrics.json", "oof.csv", "test.csv")
    said = manifest.read(run)
    made = {name: said[name] for name in said if name not in manifest.CLOCKS}
    return {name: (run / name).read_bytes() for name in names} | {manifest.NAME: made}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, float]:
    """What a run ends with, and the seconds of processor time that it takes."""
    began = used(resource.getrusage(resource.RUSAGE_CHILDREN))
    result = finish(tmp_path_factory.mktemp("undisturbed"))
    return result, used(resource.getrusage(resource.RUSAGE_CHILDREN)) - began


def used(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def wait_for(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it still runs when it has used so much processor time, which other work does not slow."""
    while process.poll() is None:
        times = psutil.Process(process.pid).cpu_times()
        if times.user + times.system >= seconds:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_five_kills_at_random_moments_change_no_byte(
    seed: int, undisturbed: tuple[Finished, float], tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    draw = random.Random(seed)
    killed = 0
    for n in range(5):
        process = start(tmp_path)
        # Every start takes some seconds to import; a later kill falls into a later stage.
        if wait_for(process, draw.uniform(0.15, 0.45) * seconds):
            os.killpg(process.pid, signal.SIGINT if n == 2 else signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed >= 3
    assert finish(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_the_number_of_workers_changes_no_byte(
    workers: int, undisturbed: tuple[Finished, float], tmp_path: Path
) -> None:
    assert finish(tmp_path, "--workers", str(workers)) == undisturbed[0]
