"""A small competition folder, the command line in-process, and predictions made elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.__main__ import main

NAMES = ["006388", "2e3749", *(f"a{n:05d}" for n in range(34))]
TESTED = ["7e0001", "000042", "b00001", "a00033x", "1e5"]  # in no numeric or alphabetic order


def as_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write a table as another program would."""
    table.to_csv(path, index=False)
    return path


def slides(names: list[str], labelled: bool) -> pd.DataFrame:
    """Every third patient is LAA, every fifth has two slides; the site is one of three."""
    rows = [
        (f"{name}_{cut}", str(n % 3 + 1 if n % 4 else 1), name, str(cut), "CE" if n % 3 else "LAA")
        for n, name in enumerate(names)
        for cut in range(1 if n % 5 else 2)
    ]
    columns = ["image_id", "center_id", "patient_id", "image_num", "label"]
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    return table if labelled else table.drop(columns="label")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The tables of a STRIP AI with 36 training and 5 test patients, as shipped."""
    folder = tmp_path / "data"
    folder.mkdir()
    as_csv(folder / "train.csv", slides(NAMES, labelled=True))
    as_csv(folder / "test.csv", slides(TESTED, labelled=False))
    as_csv(folder / "sample_submission.csv", pd.DataFrame({"patient_id": TESTED, "CE": 0.5, "LAA": 0.5}))
    return folder


@pytest.fixture
def oof(tmp_path: Path, data: Path) -> list[str]:
    """The options ``--oof`` and ``--test`` of a model that knows something."""
    train, test = (pd.read_csv(data / f"{name}.csv", dtype=str) for name in ("train", "test"))
    draw = np.random.default_rng(0)
    known = 0.2 + 0.3 * (train["label"] == "LAA") + draw.normal(0, 0.08, len(train))
    frame = pd.DataFrame({"image_id": train["image_id"], "predictions": known.clip(0.01, 0.99)})
    as_csv(tmp_path / "oof.csv", frame)
    guess = pd.DataFrame({"image_id": test["image_id"], "predictions": draw.uniform(0.1, 0.6, len(test))})
    as_csv(tmp_path / "test.csv", guess)
    files = ["--oof", f"net={tmp_path / 'oof.csv'}", "--test", f"net={tmp_path / 'test.csv'}"]
    return [*files, "--set", "combine.resamples=50"]


@dataclass(frozen=True)
class Ended:
    """What a command returned and said; ``err`` is the error stream with the log."""

    code: int
    out: str
    err: str


@pytest.fixture
def kit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Callable[..., Ended]:
    """``kit("fold", "strip-ai", ...)`` types that command in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, logger="kit")

    def typed(*words: object) -> Ended:
        capsys.readouterr()
        caplog.clear()
        try:
            code = main([str(word) for word in words])
        except SystemExit as left:  # how argparse ends
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return Ended(code, out, err + caplog.text)

    return typed


@pytest.fixture
def refused(kit: Callable[..., Ended]) -> Callable[..., str]:
    """``refused("fold", ..., says=[...])``: the command ends with code 2, these words and a hint."""

    def check(*words: object, says: list[str]) -> str:
        ended = kit(*words)
        assert ended.code == 2, ended
        assert "error: " in ended.err and "\nhint: " in ended.err
        assert "Traceback" not in ended.err
        assert [word for word in says if word not in ended.err] == [], ended.err
        return ended.err

    return check
