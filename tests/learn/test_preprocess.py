"""Pixels reach an encoder as it was trained to see them, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform

from kit import seeds
from kit.errors import SettingError, WeightsError
from kit.learn import preprocess
from kit.learn.preprocess import Preprocessing

NAME = "test_efficientnet"


def noise(n: int, side: int) -> NDArray[np.uint8]:
    return seeds.rng(0, "noise", side).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def stained(n: int, side: int) -> NDArray[np.uint8]:
    """Smooth pink and violet with dark round nuclei and white holes, like stained tissue."""
    rng = seeds.rng(0, "stained", side)
    y, x = np.mgrid[:side, :side]
    tiles = np.empty((n, side, side, 3))
    for tile in tiles:
        tile[:] = (225, 160, 195) + 25 * np.sin(x / 9 + rng.random())[..., None]
        for _ in range(side // 4):
            centre, radius = rng.random(2) * side, rng.uniform(1, side / 16)
            inside = np.hypot(y - centre[0], x - centre[1]) < radius
            tile[inside] = (90, 50, 130) if rng.random() < 0.8 else (243, 243, 243)
    return np.clip(tiles, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize(("side", "size"), [(96, 64), (64, 96), (200, 32), (50, 50)])
def test_resizing_is_timms_transform_for_evaluation_to_the_last_bit(
    side: int, size: int, interpolation: str
) -> None:
    transform = create_transform(
        size, is_training=False, interpolation=interpolation, crop_pct=1.0, mean=(0,) * 3, std=(1,) * 3
    )
    tiles = np.concatenate([noise(2, side), stained(2, side)])
    expected = np.stack([transform(Image.fromarray(tile)).permute(1, 2, 0).numpy() for tile in tiles])
    found = preprocess.resize(tiles, size, interpolation)
    assert found.dtype == np.uint8 and np.array_equal(found.astype(np.float32) / 255, expected)


def test_resizing_to_no_size_keeps_tiles_and_an_unknown_interpolation_is_refused() -> None:
    tiles = noise(2, 8)
    assert preprocess.resize(tiles, 0, "bicubic") is tiles
    assert preprocess.resize(tiles[:0], 4, "bicubic").shape == (0, 4, 4, 3)
    with pytest.raises(SettingError, match="no interpolation 'cubic'"):
        preprocess.resize(tiles, 4, "cubic")


def test_without_weights_timms_record_of_the_tag_counts() -> None:
    lite = preprocess.of("tf_efficientnet_lite0")
    assert lite.mean == lite.std == (0.5, 0.5, 0.5) and lite.interpolation == "bicubic" and lite.size == 224
    assert "timm" in lite.source
    assert preprocess.of("vit_base_patch16_224.augreg_in21k").mean == (0.5, 0.5, 0.5)
    assert preprocess.of("vit_base_patch16_224.dino").mean == (0.485, 0.456, 0.406)


def beside(folder: Path, name: str, content: dict[str, Any], weights: str = "model.safetensors") -> Path:
    (folder / weights).touch()
    (folder / name).write_text(json.dumps(content))
    return folder / weights


HUB = {
    "mean": [0.7, 0.5, 0.7],
    "std": [0.2, 0.3, 0.2],
    "interpolation": "bilinear",
    "input_size": [3, 160, 160],
}


@pytest.mark.parametrize(
    ("name", "content", "weights"),
    [
        ("config.json", {"architecture": NAME, "pretrained_cfg": HUB}, "model.safetensors"),
        ("config.json", {"architecture": NAME, **HUB}, "pytorch_model.bin"),
        (
            "weights.json",
            {NAME: {"file": "a.pth", **HUB}, "b": {"file": "b.pth", "mean": [0, 0, 0]}},
            "a.pth",
        ),
        ("a.json", {"timm": NAME, "classes": ["x", "y"], **HUB}, "a.safetensors"),
        (
            "preprocessor_config.json",
            {"image_mean": HUB["mean"], "image_std": HUB["std"], "resample": 2, "size": {"height": 160}},
            "model.safetensors",
        ),
    ],
)
def test_what_lies_beside_the_weights_wins(
    name: str, content: dict[str, Any], weights: str, tmp_path: Path
) -> None:
    found = preprocess.of(NAME, beside(tmp_path, name, content, weights))
    expected = Preprocessing((0.7, 0.5, 0.7), (0.2, 0.3, 0.2), "bilinear", 160, found.source)
    assert found == expected and str(tmp_path / name) in found.source


def test_what_is_not_said_beside_the_weights_is_timms(tmp_path: Path) -> None:
    path = beside(
        tmp_path, "config.json", {"architecture": NAME, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
    )
    found, plain = preprocess.of(NAME, path), preprocess.of(NAME)
    assert replace(plain, mean=(0.1, 0.2, 0.3), source=found.source) == found


def test_two_files_that_contradict_each_other_are_refused_with_both_values(tmp_path: Path) -> None:
    beside(tmp_path, "config.json", {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}})
    path = beside(tmp_path, "weights.json", {NAME: {"file": "model.safetensors", "mean": [0.4, 0.5, 0.5]}})
    with pytest.raises(WeightsError) as caught:
        preprocess.of(NAME, path)
    for part in ("mean is", "(0.4, 0.5, 0.5)", "(0.5, 0.5, 0.5)", "config.json", "weights.json"):
        assert part in caught.value.message
    beside(tmp_path, "weights.json", {NAME: {"file": "model.safetensors", "mean": [0.5, 0.5, 0.5]}})
    assert preprocess.of(NAME, path).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mean": [0.5, 0.5]}, "one number a colour"),
        ({"mean": "grey"}, "makes no sense"),
        ({"input_size": [3, 224, 192]}, "not square"),
        ({"interpolation": "cubic"}, "interpolation 'cubic'"),
    ],
)
def test_nonsense_beside_the_weights_is_refused_by_its_file(
    said: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        preprocess.of(NAME, beside(tmp_path, "a.json", said, "a.pth"))
    assert str(tmp_path / "a.json") in caught.value.message


def test_damaged_json_beside_the_weights_is_refused_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(WeightsError, match=r"a\.json is no readable JSON"):
        preprocess.of(NAME, tmp_path / "a.pth")


def test_a_record_comes_back_as_it_was_written() -> None:
    one = preprocess.of("tf_efficientnet_lite0")
    again = preprocess.from_record(json.loads(json.dumps(one.record())), one.source)
    assert again == one
    with pytest.raises(WeightsError, match="does not say std, interpolation, size"):
        preprocess.from_record({"mean": [0, 0, 0]}, "fold0.json")


def test_predicting_with_other_pixels_than_in_training_names_every_field_that_differs() -> None:
    old = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 224, "fold0.json")
    preprocess.check(old, replace(old, mean=(0.5, 0.5, 0.5 + 1e-8), source="timm"))
    with pytest.raises(WeightsError) as caught:
        preprocess.check(old, replace(old, std=(0.2, 0.2, 0.2), interpolation="bilinear", source="timm"))
    message = caught.value.message
    assert "std: (0.5, 0.5, 0.5), now (0.2, 0.2, 0.2)" in message and "fold0.json" in message
    assert "interpolation: bicubic, now bilinear" in message and "mean" not in message
