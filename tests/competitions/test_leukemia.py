"""The declaration of the blood smears: blocks of neighbouring numbers, and the recipe that it grew from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit import competition, recipe
from kit.competitions.leukemia import BLOCK, CLASSES, blocks
from kit.learn import models


def folders(root: Path, seed: int, numbers: tuple[int, ...] = (1, 79, 80, 200)) -> Path:
    """A small image of every class and number."""
    draw = np.random.default_rng(seed)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in numbers:
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"WBC-{name}-{number:03d}.png")
    return root


def test_neighbouring_numbers_of_a_class_are_one_block() -> None:
    ids = ["a-001", "a-079", "a-080", "b-001", "b-159", "loose"]
    table = pd.DataFrame({"image_id": ids, "cluster": ids, "label": [*"AAABB", "A"]}, index=ids)
    assert blocks(table).tolist() == ["A 0", "A 0", "A 1", "B 0", "B 1", "loose"]


def test_equal_files_on_both_sides_of_an_edge_are_in_one_block(tmp_path: Path) -> None:
    folders(tmp_path, 0)
    copy = tmp_path / "Pro" / f"WBC-Pro-{BLOCK:03d}.png"
    copy.write_bytes((tmp_path / "Pro" / f"WBC-Pro-{BLOCK - 1:03d}.png").read_bytes())
    train = competition.find("leukemia").tables(tmp_path).train
    assert train["group_id"][["WBC-Pro-079", "WBC-Pro-080"]].tolist() == ["Pro 0", "Pro 0"]
    assert train["group_id"]["WBC-Pre-080"] == "Pre 1"


def test_equal_files_of_two_classes_are_in_one_block(tmp_path: Path) -> None:
    folders(tmp_path, 0)
    one = (tmp_path / "Early" / "WBC-Early-001.png").read_bytes()
    (tmp_path / "Pro" / "WBC-Pro-200.png").write_bytes(one)
    groups = competition.find("leukemia").tables(tmp_path).train["group_id"]
    assert groups[["WBC-Early-001", "WBC-Pro-200"]].tolist() == ["Early 0", "Early 0"]


@pytest.mark.parametrize("deep", ["", "dataset"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_original_images_are_taken_and_not_the_segmented_ones(
    tmp_path: Path, deep: str, packed: bool
) -> None:
    folders(tmp_path / "data" / deep / "Original", 0)
    folders(tmp_path / "data" / deep / "Segmented", 1)
    if packed:
        (tmp_path / "zip").mkdir()
        shutil.make_archive(str(tmp_path / "zip" / "all"), "zip", tmp_path / "data")
    train = competition.find("leukemia").tables(tmp_path / ("zip" if packed else "data")).train
    assert len(train) == 16 and all("/Original/" in path for path in train["path"])
    assert packed or all(Path(path).is_file() for path in train["path"])


def test_the_published_recipe_is_as_published() -> None:
    task = recipe.apply(competition.find("leukemia"), "leukemia-seed")
    training, model = task.training, models.parse(task.training.backbones[0], task.training)
    assert task.tiles.steps == ("resize-224", "grey", "sharpen", "roi") and task.tiles.size == 224
    assert (model.backbone.encoder, model.backbone.mode, model.backbone.size) == (
        "leukemia_cnn",
        "scratch",
        224,
    )
    assert (model.get("lr"), model.epochs, training.batch, training.drop) == (1e-4, 40, 32, 0.5)
    assert (training.optimiser, training.schedule, training.preset) == ("adam", "constant", "turns")
    assert (training.oversample, training.weight_decay, training.views) == (800, 0.02, 1)
    assert (task.folds.k, task.tuning.trials, task.second_level.method) == (10, 0, "mean + none")
    short = recipe.apply(task, "leukemia-seed")
    assert models.parse(short.training.backbones[0], short.training).having({"shorten": 0.625}).epochs == 25
