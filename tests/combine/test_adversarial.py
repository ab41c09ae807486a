"""Sets of models and tables that nobody wishes for: blended, or refused in one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def model(tmp_path: Path, data: Path) -> Callable[..., Path]:
    """``model(name, change)``: a file of P(LAA) by image that knows something, changed."""

    def made(name: str, change: Callable[[np.ndarray], np.ndarray] = lambda p: p) -> Path:
        train = pd.read_csv(data / "train.csv", dtype=str)
        draw = np.random.default_rng(len(name))
        p = 0.25 + 0.2 * (train["label"] == "LAA").to_numpy() + draw.normal(0, 0.08, len(train))
        path = tmp_path / f"{name}.csv"
        values = change(p.clip(0.01, 0.99))
        pd.DataFrame({"image_id": train["image_id"], "predictions": values}).to_csv(path, index=False)
        return path

    return made


def scores(folder: str = "work/strip-ai/combine") -> dict[str, float]:
    content = json.loads((Path(folder) / "metrics.json").read_text())
    return {row["name"]: row["score"] for row in content["rows"] if row["set"] == "oof"}


@pytest.mark.parametrize(
    "change",
    [
        lambda p: np.full(len(p), 0.3),
        lambda p: (p > 0.35).astype(float),
        lambda p: p,
        lambda p: np.where(np.arange(len(p)) % 7 == 0, 1e-300, p),
    ],
    ids=["a constant model", "zeros and ones", "a copy", "next to nothing"],
)
def test_a_spoiled_member_leaves_the_blend_finite_and_useful(
    kit: Callable[..., Any], data: Path, model: Callable[..., Path], change: Callable[..., Any]
) -> None:
    files = [model("good"), model("odd", change)]
    ended = kit("combine", "strip-ai", "--data", data, "--set", "combine.resamples=20", "--oof", *files)
    assert ended.code == 0, ended.err
    found = scores()
    assert np.isfinite(list(found.values())).all()
    assert found["ridge pool"] < 0.95 * found["constant"]


def test_two_hundred_models_of_thirty_six_patients_are_blended(
    kit: Callable[..., Any], data: Path, model: Callable[..., Path], tmp_path: Path
) -> None:
    files = []
    for n in range(200):
        table = pd.read_csv(model("good"), dtype={"image_id": str})
        noise = np.random.default_rng(n).normal(0, 0.1, len(table))
        table["predictions"] = (table["predictions"] + noise).clip(0.01, 0.99)
        path = tmp_path / f"m{n:03d}.csv"
        table.to_csv(path, index=False)
        files.append(path)
    ended = kit("combine", "strip-ai", "--data", data, "--set", "combine.resamples=20", "--oof", *files)
    assert ended.code == 0, ended.err
    assert scores()["ridge pool"] < 0.95 * scores()["constant"]


def test_a_prediction_that_is_no_number_is_refused_by_its_line(
    refused: Callable[..., str], data: Path, model: Callable[..., Path]
) -> None:
    path = model("holed", lambda p: np.where(np.arange(len(p)) == 4, np.nan, p))
    says = ["holed.csv line 6", "no probability", "numbers from 0 to 1"]
    refused("combine", "strip-ai", "--data", data, "--oof", path, says=says)


def test_a_patient_with_two_labels_is_refused_by_its_lines(
    refused: Callable[..., str], data: Path, model: Callable[..., Path]
) -> None:
    path = model("good")
    train = pd.read_csv(data / "train.csv", dtype=str)
    train.loc[1, "label"] = "CE"  # the second slide of the first patient
    train.to_csv(data / "train.csv", index=False)
    says = ["patient_id '006388' has label 'LAA' in line 2, 'CE' in line 3"]
    refused("combine", "strip-ai", "--data", data, "--oof", path, says=says)


def test_three_patients_of_a_class_make_three_folds_and_say_so(
    kit: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    train = pd.read_csv(data / "train.csv", dtype=str)
    few = train[train["label"] == "LAA"]["patient_id"].unique()[:3]
    train = train[(train["label"] == "CE") | train["patient_id"].isin(few)]
    train.to_csv(data / "train.csv", index=False)
    p = np.where(train["label"] == "LAA", 0.6, 0.3)
    path = tmp_path / "few.csv"
    pd.DataFrame({"image_id": train["image_id"], "predictions": p}).to_csv(path, index=False)
    ended = kit("combine", "strip-ai", "--data", data, "--set", "combine.resamples=20", "--oof", path)
    assert ended.code == 0 and "only 3 patients of class LAA: 3 folds, not 10" in ended.err
    ended = kit("fold", "strip-ai", "--data", data)
    assert ended.code == 0 and "only 3 groups of class LAA: 3 folds, not 5" in ended.err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mean + isotonic", "isotonic"),
        ("mean + temperature", "temperature"),
    ],
)
def test_a_method_that_is_known_to_lose_is_refused_with_the_reason(
    refused: Callable[..., str],
    kit: Callable[..., Any],
    data: Path,
    model: Callable[..., Path],
    name: str,
    reason: str,
) -> None:
    words = ["combine", "strip-ai", "--data", data, "--oof", model("good")]
    refused(*words, "--set", f"combine.method={name}", says=[reason, "scored", "combine.unsafe=true"])
    assert kit(*words, "--set", f"combine.method={name}", "combine.unsafe=true").code == 0
