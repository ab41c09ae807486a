"""Thousands of damaged slides: an image or a KitError, never another exception, a crash or a hang."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def fuzz(folder: Path, first: int, last: int, *options: str) -> None:
    """Read damaged slides in a process of their own, so that a crash of native code is seen."""
    command = [sys.executable, "-m", "tests.read.fuzz_tiff", str(folder), str(first), str(last), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    spilled = [line for line in done.stderr.splitlines() if not line.startswith("case ")]
    assert spilled == [], "nothing is written to the console"
    assert "tile index" in done.stdout and "OpenSlide" in done.stdout and "KitError" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="limits and alarms are of POSIX")
def test_damaged_slides_are_read_or_refused(tmp_path: Path) -> None:
    fuzz(tmp_path, 0, 300)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(300, 5100, 800))
def test_many_damaged_slides_are_read_or_refused(first: int, tmp_path: Path) -> None:
    fuzz(tmp_path, first, first + 800)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 2000, 400))
def test_damaged_slides_that_can_be_read_are_tiled(first: int, tmp_path: Path) -> None:
    fuzz(tmp_path, first, first + 400, "--stage")
