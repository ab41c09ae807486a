"""MedMNIST's result files, and a made data set of its kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.competition import find
from kit.data import open_data
from kit.errors import DataError
from tests.real import medmnist

ROOT = Path(__file__).parents[2]
TASK = ROOT / "tests" / "real" / "medmnist.py"


def made(folder: Path, counts: tuple[int, int, int] = (40, 16, 8)) -> Path:
    """A small ``.npz`` file as MedMNIST ships them."""
    draw, arrays = np.random.default_rng(0), {}
    for split, n in zip(medmnist.SPLITS, counts, strict=True):
        arrays[f"{split}_images"] = draw.integers(0, 255, (n, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 8).astype(np.uint8)[:, None]
    np.savez(folder / "bloodmnist.npz", **arrays)
    return folder / "bloodmnist.npz"


def test_a_result_file_is_named_by_its_scores_and_read_back(tmp_path: Path) -> None:
    labels, p = np.array([0, 1, 2, 1]), np.eye(3)[[0, 1, 2, 0]] * 0.7 + 0.1
    path = medmnist.write(tmp_path, "bloodmnist", "test", labels, p, run="model1")
    assert path.name == "bloodmnist_test_[AUC]0.861_[ACC]0.750@model1.csv"
    assert path.read_text().splitlines()[0] == "0,0.7999999999999999,0.1,0.1"
    found = medmnist.read(path)
    assert (found.flag, found.split, found.run, found.auc, found.acc) == (
        "bloodmnist",
        "test",
        "model1",
        0.861,
        0.75,
    )
    np.testing.assert_array_equal(found.probabilities, p)


def test_rows_in_any_order_are_read_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a_val_[AUC]0.500_[ACC]0.500@x.csv"
    path.write_text("1,0.2,0.8\n0,0.9,0.1\n")
    assert medmnist.read(path).probabilities.tolist() == [[0.9, 0.1], [0.2, 0.8]]
    path.write_text("2,0.2,0.8\n0,0.9,0.1\n")
    with pytest.raises(DataError, match="do not number the images from 0 on"):
        medmnist.read(path)


def test_as_many_rows_as_labels_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 rows of probabilities for 3 labels"):
        medmnist.write(tmp_path, "bloodmnist", "test", np.array([0, 1, 0]), np.eye(2))


def test_a_medmnist_file_is_a_competition_with_its_own_split(tmp_path: Path) -> None:
    data = open_data(made(tmp_path), tmp_path / "work")
    tables = find(str(TASK)).tables(data)
    assert tables.test is not None
    assert (len(tables.train), len(tables.test)) == (56, 8)
    assert set(tables.train.index.str[:5]) == {"train", "val_0"}
    assert tables.train.loc["val_00003", "label"] == "ig"
    assert all(Path(path).is_file() for path in tables.test["path"])


def test_a_submission_becomes_a_result_file(tmp_path: Path) -> None:
    data = open_data(made(tmp_path), tmp_path / "work")
    ids = [f"test_{n:05d}" for n in range(8)]
    table = pd.DataFrame(np.eye(8) * 0.92 + 0.01, columns=list(medmnist.CLASSES))
    table.insert(0, "image_id", ids)
    table.iloc[::-1].to_csv(tmp_path / "submission.csv", index=False)
    words = [str(data), str(tmp_path / "submission.csv"), str(tmp_path / "results")]
    command = [sys.executable, "-m", "tests.real.medmnist", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (path,) = (tmp_path / "results").iterdir()
    assert done.stdout.strip() == str(path)
    assert path.name == "bloodmnist_test_[AUC]1.000_[ACC]1.000@kit.csv"
