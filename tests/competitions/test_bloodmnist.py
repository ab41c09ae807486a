"""MedMNIST's result files, and a made data set of its kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.competition import find
from kit.competitions import bloodmnist
from kit.data import open_data
from kit.errors import DataError

ROOT = Path(__file__).parents[2]


def made(folder: Path, counts: tuple[int, int, int] = (40, 16, 8)) -> Path:
    """A small ``.npz`` file as MedMNIST ships them."""
    draw, arrays = np.random.default_rng(0), {}
    for split, n in zip(bloodmnist.SPLITS, counts, strict=True):
        arrays[f"{split}_images"] = draw.integers(0, 255, (n, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 8).astype(np.uint8)[:, None]
    np.savez(folder / "bloodmnist.npz", **arrays)
    return folder / "bloodmnist.npz"


def test_a_result_file_is_named_by_its_scores_and_numbers_the_images(tmp_path: Path) -> None:
    labels, p = np.array([0, 1, 2, 1]), np.eye(3)[[0, 1, 2, 0]] * 0.7 + 0.1
    path = bloodmnist.write(tmp_path, "bloodmnist", "test", labels, p, run="model1")
    assert path.name == "bloodmnist_test_[AUC]0.861_[ACC]0.750@model1.csv"
    assert path.read_text().splitlines()[0] == "0,0.7999999999999999,0.1,0.1"
    found = pd.read_csv(path, header=None, index_col=0)
    assert found.index.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.to_numpy(), p)


def test_as_many_rows_as_labels_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 rows of probabilities for 3 labels"):
        bloodmnist.write(tmp_path, "bloodmnist", "test", np.array([0, 1, 0]), np.eye(2))


def test_a_medmnist_file_is_a_competition_with_its_own_split(tmp_path: Path) -> None:
    data = open_data(made(tmp_path), tmp_path / "work")
    tables = find("bloodmnist").tables(data)
    assert tables.test is not None
    assert (len(tables.train), len(tables.test)) == (56, 8)
    assert set(tables.train.index.str[:5]) == {"train", "val_0"}
    assert tables.train.loc["val_00003", "label"] == "ig"
    assert all(Path(path).is_file() for path in tables.test["path"])


def test_a_submission_becomes_a_result_file(tmp_path: Path) -> None:
    data = open_data(made(tmp_path), tmp_path / "work")
    ids = [f"test_{n:05d}" for n in range(8)]
    table = pd.DataFrame(np.eye(8) * 0.92 + 0.01, columns=list(bloodmnist.CLASSES))
    table.insert(0, "image_id", ids)
    table.iloc[::-1].to_csv(tmp_path / "submission.csv", index=False)
    words = [str(data), str(tmp_path / "submission.csv"), str(tmp_path / "results")]
    command = [sys.executable, "-m", "kit.competitions.bloodmnist", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (path,) = (tmp_path / "results").iterdir()
    assert done.stdout.strip() == str(path)
    assert path.name == "bloodmnist_test_[AUC]1.000_[ACC]1.000@kit.csv"
