"""Pictures of attention, from what was stored and predicted alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from kit.competition import Competition, Tables, Training
from kit.errors import SettingError, StageError
from kit.files import write_table
from kit.learn import models
from kit.learn.attention import Attended
from kit.metrics import WeightedLogLoss
from kit.read import store
from kit.show import attention, sheet
from kit.state import Run

SIDE, TILES = 16, 12


def slide(count: int = TILES) -> store.Tiles:
    """Tiles in a row along the top of a slide of 100 level-0 px a stored one; each of its own grey."""
    overview = np.full((60, 80, 3), 250, np.uint8)
    head = {"width": 8000, "height": 6000, "grid": {"size": SIDE}}
    tiles = [np.full((SIDE, SIDE, 3), 20 * place, np.uint8) for place in range(count)]
    x, size = np.arange(count) * 600, np.full(count, 500)
    return store.packed(head, tiles, x, np.zeros(count, int), size, np.ones(count, np.float32),
                        overview=overview)  # fmt: skip


def ramp(count: int = TILES) -> np.ndarray:
    return (np.arange(1, count + 1) / np.arange(1, count + 1).sum()).astype(np.float32)


def a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Two training slides and a test slide with tiles, and two models of which one attends."""
    monkeypatch.setattr(attention, "finished", lambda run, stage: True)
    task = Competition(
        name="toy", classes=("A", "B"), metric=WeightedLogLoss((1.0, 1.0)),
        load=lambda data: Tables(pd.DataFrame()),
        training=Training(backbones=("net = test_efficientnet:frozen", "lenet5:scratch"), seeds=2),
    )  # fmt: skip
    run = Run(task, "toy", tmp_path, tmp_path / "work")
    rows = []
    for split, image in (("train", "a/b"), ("train", "c"), ("test", "t")):
        store.write(store.path_of(run.folder("tile"), split, image), slide())
        rows.append({"image_id": image, "split": split, "width": 8000, "height": 6000, "tissue": 0.2,
                     "sections": 1, "clots": 1, "tiles": TILES, "status": "ok", "reason": ""})  # fmt: skip
    rows.append({**rows[0], "image_id": "u", "tiles": 0, "status": "error", "reason": "cut short"})
    write_table(run.folder("tile") / "images.csv", pd.DataFrame(rows))
    model = models.of_run(run)[0]
    attended = Attended()
    attended.add("train", ["a/b", "c"], [ramp(), ramp()])
    attended.add("test", ["t"], [ramp()])
    attended.write(run, model)
    attended.write(run, replace(model, seed=1))
    return run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return a_run(tmp_path, monkeypatch)


def drawn(run: Run) -> list[str]:
    folder = run.folder("pictures") / "attention"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_every_image_of_every_model_that_attends_is_drawn(run: Run) -> None:
    said = attention.pictures(run)
    names = ["test/t.png", "train/a%2Fb.png", "train/c.png"]
    assert drawn(run) == sorted([f"net/{name}" for name in names] + [f"net/seed1/{name}" for name in names])
    assert "6 in" in said and "not drawn" not in said


def test_only_the_images_asked_for_are_drawn_and_their_places_said(run: Run) -> None:
    said = attention.pictures(run, ["a/b"])
    assert drawn(run) == ["net/seed1/train/a%2Fb.png", "net/train/a%2Fb.png"]
    assert str(run.folder("pictures") / "attention" / "net" / "train" / "a%2Fb.png") in said


def test_a_tile_is_lighter_the_more_it_counts_and_only_tiles_are_coloured() -> None:
    even, shares = np.full(4, 0.25, np.float32), np.float32([0.03, 0.25, 0.5, 0.22])
    one, other = (sheet.attended(slide(4), given, "t", [])[700:1400].astype(int) for given in (even, shares))
    rows, columns = np.nonzero(np.abs(one - other).max(axis=2) > 20)
    # Tiles 0 and 2 changed; between them lies tile 1, which counts its share in both.
    first, last = columns < columns.min() + 20, columns > columns.max() - 20
    light = other.sum(axis=2)[rows, columns]
    assert light[first].mean() + 100 < light[last].mean()
    assert (light[first] < one.sum(axis=2)[rows, columns][first]).all()
    assert rows.max() - rows.min() < 80, "nothing below the row of tiles"


def test_the_tiles_that_count_most_come_before_those_that_count_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[dict[int, str]] = []
    row = sheet._row

    def watched(tiles: store.Tiles, captions: dict[int, str], heading: str, width: int) -> Any:
        shown.append(captions)
        return row(tiles, captions, heading, width)

    monkeypatch.setattr(sheet, "_row", watched)
    sheet.attended(slide(), ramp(), "title", ["facts"])
    assert list(shown[0]) == list(range(11, 3, -1)) and list(shown[1]) == [3, 2, 1, 0]
    assert shown[0][11] == "12 · 1.8 ×"


def test_even_shares_are_those_of_the_weights() -> None:
    tiles = slide(3)
    heavy = replace(tiles, weight=np.float32([1, 0.5, 0.5]))
    even = sheet.attended(tiles, np.full(3, 1 / 3, np.float32), "t", [])
    by_weight = sheet.attended(heavy, np.float32([0.5, 0.25, 0.25]), "t", [])
    np.testing.assert_array_equal(even, by_weight)


def test_a_photograph_is_shown_as_it_is() -> None:
    tile, zero = np.full((SIDE, SIDE, 3), (200, 30, 30), np.uint8), np.zeros(1, np.int64)
    head = {"width": 400, "height": 100, "grid": {"size": SIDE}}
    tiles = store.packed(head, [tile], zero, zero, np.array([400]), np.ones(1, np.float32))
    assert sheet.attended(tiles, np.ones(1, np.float32), "t", []).shape[2] == 3


def test_tiles_that_were_made_again_are_not_drawn_over(run: Run) -> None:
    store.write(store.path_of(run.folder("tile"), "train", "c"), slide(3))
    said = attention.pictures(run)
    assert "not drawn:" in said and "c: its tiles are not those that were predicted from" in said
    assert len(drawn(run)) == 4


def test_an_image_that_is_not_there_is_refused(run: Run) -> None:
    with pytest.raises(SettingError, match="no model attended to an image 'd'") as caught:
        attention.pictures(run, ["d"])
    assert "a/b" in caught.value.hint


def test_an_image_without_tiles_is_refused_with_the_reason(run: Run) -> None:
    with pytest.raises(SettingError, match=r"image 'u' has no tiles \(error: cut short\)") as caught:
        attention.pictures(run, ["u"])
    assert "did you mean" not in caught.value.hint and "images.csv" in caught.value.hint


def test_models_of_another_run_are_not_drawn(run: Run) -> None:
    folder = run.folder("predict") / "attention"
    (folder / "net").rename(folder / "old")
    with pytest.raises(SettingError, match="no model of this run attends to tiles"):
        attention.pictures(run)


def test_a_run_without_attention_says_how_to_get_some(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in run.folder("predict").rglob("*.npz"):
        path.unlink()
    with pytest.raises(SettingError, match=r"attends to tiles: train\.pool=mean") as caught:
        attention.pictures(run)
    assert "train.pool=attention" in caught.value.hint


def test_predict_must_be_finished(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Callable[..., bool] = lambda run, stage: stage != "predict"  # noqa: E731
    monkeypatch.setattr(attention, "finished", asked)
    with pytest.raises(StageError, match="predict has not been finished") as caught:
        attention.pictures(run)
    assert "python -m kit predict toy" in caught.value.hint


def test_a_picture_can_be_read_as_an_image(run: Run) -> None:
    attention.pictures(run, ["c"])
    picture = cv2.imread(str(run.folder("pictures") / "attention" / "net" / "train" / "c.png"))
    assert picture is not None and picture.shape[0] > 700 and picture.shape[1] >= sheet.LEAST
