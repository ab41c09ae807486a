"""Golden inputs: what would give another submission is found and named, and rounding is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.deliver import kernel, probe
from kit.learn import encode, predict, preprocess
from kit.learn.bags import BagModel
from kit.state import Run
from tests.deliver import bundled
from tests.deliver.bundled import Bundled


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    return bundled.made(tmp_path_factory.getbasetemp())


@pytest.fixture
def weights(made: Bundled, tmp_path: Path) -> Path:
    return shutil.copytree(made.weights, tmp_path / "weights")


@pytest.fixture
def run(made: Bundled, weights: Path, tmp_path: Path) -> Run:
    """The run as the kernel makes it."""
    about = json.loads((made.code / "bundle.json").read_text())
    return kernel.make_run(about, made.code, weights, made.folder / "data", tmp_path / "work")[0]


@pytest.fixture
def faults(run: Run, weights: Path) -> Callable[[], list[str]]:
    return lambda: probe.check(run, weights / "golden.npz")


def changed(weights: Path, **arrays: Any) -> None:
    """Write the golden inputs again with other arrays."""
    path = weights / "golden.npz"
    with np.load(path) as content:
        values = {name: content[name] for name in content.files}
    np.savez(path, **(values | {name: change(values[name]) for name, change in arrays.items()}))


def about(weights: Path, **values: Any) -> None:
    """Write them again as if they were made elsewhere."""
    changed(
        weights,
        about=lambda old: np.frombuffer(json.dumps(json.loads(old.tobytes()) | values).encode(), np.uint8),
    )


def test_what_nobody_touched_passes(faults: Any) -> None:
    assert faults() == []


def test_they_are_the_same_each_time_and_ask_for_no_label(
    made: Bundled, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(made.folder)
    run = made.run()
    vars(run)["tables"] = replace(run.tables, train=run.tables.train.drop(columns="label"))
    probe.write(run, tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as again, np.load(made.weights / "golden.npz") as first:
        assert set(again.files) == set(first.files)
        assert all(np.array_equal(again[name], first[name]) for name in first.files)
        assert first["tiles"].dtype == np.uint8 and len(first["counts"]) == 3
        assert first["probabilities"].shape == (4, 3, 2)  # two models of two folds, three images, two classes


def test_a_deviation_that_is_rounding_passes(weights: Path, faults: Any) -> None:
    changed(weights, probabilities=lambda values: values + np.array([1e-7, -1e-7]))
    assert faults() == []


def test_a_changed_weight_is_named(weights: Path, faults: Any) -> None:
    path = next((weights / "models").glob("*-frozen/*0.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert faults() == [
        "weights: test_efficientnet-frozen without fold 0: its weights are not those that were bundled: their"
        " SHA-256 differs"
    ]


def test_another_pretrained_encoder_is_named(weights: Path, faults: Any) -> None:
    path = next((weights / "attached").glob("*.safetensors"))
    tensors = load_file(path)
    next(value for value in tensors.values() if value.ndim == 4)[0, 0, 0, 0] += 1e-6
    save_file(tensors, path)
    (fault,) = faults()
    assert fault.startswith("weights: ") and "pretrained weights of test_efficientnet" in fault


def test_a_weight_that_changes_after_its_file_was_read_is_named(
    faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict.load_network

    def other(run: Run, model: Any, fold: str) -> BagModel:
        network = whole(run, model, fold)
        if not model.frozen and fold == "1":
            network.head.bias.data[0] += 0.01
        return network

    monkeypatch.setattr(predict, "load_network", other)
    (fault,) = faults()
    assert fault.startswith(
        "weights: test_efficientnet-scratch without fold 1: probabilities differ by up to 0.002"
    )


@pytest.mark.parametrize("key", ["mean", "std"])
def test_another_mean_or_std_in_a_record_is_named(key: str, weights: Path, faults: Any) -> None:
    for path in (weights / "models").rglob("*.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {key: [0.5, 0.5, 0.5]}))
    (fault,) = faults()
    assert fault.startswith("preprocessing: ") and key in fault


def test_another_interpolation_in_all_records_is_named(weights: Path, faults: Any) -> None:
    for path in [*(weights / "models").rglob("*.json"), *(weights / "attached").rglob("*.json")]:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"interpolation": "nearest"}))
    (fault,) = faults()
    assert fault.startswith("preprocessing: ") and "interpolation" in fault


def test_another_mean_in_the_code_is_named(faults: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = BagModel.embed

    def other(self: BagModel, tiles: torch.Tensor) -> torch.Tensor:
        return whole(self, tiles.float() + 3 if self.encoder is not None else tiles)

    monkeypatch.setattr(BagModel, "embed", other)
    (fault,) = faults()
    assert fault.startswith("preprocessing: ") and "pixels are normalised otherwise" in fault


def test_a_blurred_tile_is_named(faults: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = preprocess.resize

    def other(tiles: Any, size: int, interpolation: str) -> Any:
        side = tiles.shape[1]
        return whole(whole(tiles, side // 2, "box"), side, "bilinear")

    monkeypatch.setattr(preprocess, "resize", other)
    (fault,) = faults()
    assert fault.startswith("preprocessing: ") and "pixels are" in fault


def test_half_precision_is_named(faults: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode._views

    def half(*words: Any) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return whole(*words)

    monkeypatch.setattr(encode, "_views", half)
    (fault,) = faults()
    assert fault.startswith("precision: ") and "bfloat16" in fault and "(and 3 more)" in fault


def test_reduced_products_are_named(faults: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "exact", lambda: torch.no_grad())
    torch.set_float32_matmul_precision("medium")
    try:
        (fault,) = faults()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert fault.startswith("precision: ") and "'medium'" in fault


def test_another_library_is_named_once_numbers_differ(weights: Path, faults: Any) -> None:
    about(weights, libraries=probe.libraries() | {"torch": "1.13"})
    assert faults() == []
    changed(weights, probabilities=lambda values: values + np.array([5e-5, -5e-5]))
    assert faults() == []
    changed(weights, probabilities=lambda values: values + np.array([3e-4, -3e-4]))
    (fault,) = faults()
    assert fault.startswith("library: ") and "was 1.13" in fault


def test_the_same_deviation_on_the_same_machine_is_a_fault(weights: Path, faults: Any) -> None:
    changed(weights, probabilities=lambda values: values + np.array([5e-5, -5e-5]))
    (fault,) = faults()
    assert fault.startswith("precision: probabilities of all models differ")


def test_damaged_golden_inputs_are_named(weights: Path, faults: Any) -> None:
    (weights / "golden.npz").write_bytes(b"no zip")
    assert faults() == ["weights: golden.npz is damaged"]
