"""Pictures of what a model looked at show the right tile, in colours that say how much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.files import write_table
from kit.learn import attention, gradcam
from kit.learn.gradcam import Cam, Explainer
from kit.show import explained, sheet
from kit.show.explained import SIDE, Looks, veiled
from kit.state import Run
from tests.show.test_attention import TILES, a_run, ramp, slide


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Two slides; what the first model attended to grows from tile to tile."""
    made = a_run(tmp_path, monkeypatch)
    rows = [
        {
            "image_id": image,
            "unit_id": image,
            "model": model,
            "seed": seed,
            "fold": fold,
            "p_A": 0.5,
            "p_B": 0.5,
        }
        for fold, image in enumerate(("a/b", "c"))
        for model in ("lenet5-scratch", "net")
        for seed in (0, 1)
    ]
    write_table(made.folder("predict") / "oof.csv", pd.DataFrame(rows))
    monkeypatch.setattr(explained, "_at_hand", lambda path: True)
    monkeypatch.setattr(gradcam, "places", lambda model, side: 4)
    return made


def test_the_model_that_attends_explains(run: Run) -> None:
    looks = Looks(run)
    assert looks.model is not None and looks.model.name == "net" and looks.model.seed == 0
    assert looks.rows["model"].unique().tolist() == ["net"] and looks.rows["seed"].unique().tolist() == ["0"]
    np.testing.assert_allclose(looks.attended("c", slide()), ramp())  # type: ignore[arg-type]


def test_shares_of_other_tiles_are_not_drawn_on_these(run: Run) -> None:
    assert Looks(run).attended("c", slide(TILES - 1)) is None
    assert Looks(run).attended("unknown", slide()) is None


def test_the_tile_that_counted_most_is_explained_by_the_model_of_its_fold(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def explain(self: Explainer, fold: str, tile: np.ndarray, label: int) -> Cam:
        asked.append((fold, int(tile.mean()), label))
        return Cam(np.eye(4, 6, dtype=np.float32), np.zeros(2, np.float32))

    monkeypatch.setattr(Explainer, "explain", explain)
    seen = Looks(run).seen("c", slide(), 1)
    assert seen is not None and seen.place == TILES - 1  # the ramp ends there
    assert asked == [("1", 20 * (TILES - 1), 1)]
    assert seen.places == "6\u00a0×\u00a04 places"
    assert seen.picture.shape == (SIDE, 2 * SIDE + explained.GAP, 3)
    wide = Looks(run).seen("c", slide(), 1, size=(200, 120))  # as the photograph of a square tile was
    assert wide is not None and wide.heat.shape == wide.plain.shape == (120, 200, 3)


def test_without_attention_the_tile_that_weighs_most_is_explained(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in attention.folder(run).rglob("*.npz"):
        path.unlink()
    monkeypatch.setattr(
        Explainer, "explain", lambda *_: Cam(np.ones((2, 2), np.float32), np.zeros(2, np.float32))
    )
    looks = Looks(run)
    monkeypatch.setitem(looks.__dict__, "rows", Looks(run).rows.assign(model="lenet5-scratch"))
    seen = looks.seen("c", slide(), 1)
    assert seen is not None and seen.place == 0


def test_where_the_model_has_no_maps_the_first_that_has_explains_and_that_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradcam, "places", lambda model, side: 4 if model.name == "lenet5-scratch" else 0)
    looks = Looks(run)
    assert looks.explainer is not None and looks.explainer.model.name == "lenet5-scratch"
    assert looks.notes == ["net has no maps of more than one place: Grad-CAM is of lenet5-scratch"]
    monkeypatch.setattr(gradcam, "places", lambda model, side: 1)
    none = Looks(run)
    assert none.seen("c", slide(), 1) is None
    assert none.notes == ["there is no Grad-CAM: no model has maps of more than one place"]


def test_a_model_that_sees_earlier_layers_too_is_told_to_be_explained_in_part(run: Run) -> None:
    task = run.competition
    run = replace(run, competition=replace(task, training=replace(task.training, layers="all")))
    looks = Looks(run)
    assert looks.explainer is not None and [note for note in looks.notes if "earlier layers too" in note]
    last = Looks(replace(run, competition=task))
    assert last.explainer is not None and not last.notes


def test_a_map_that_is_empty_is_said_to_be(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cam = Cam(np.zeros((2, 2), np.float32), np.zeros(2, np.float32))
    monkeypatch.setattr(Explainer, "explain", lambda *_: cam)
    seen = Looks(run).seen("c", slide(), 1)
    assert seen is not None and seen.places == "for which nothing in it speaks"


def test_a_note_names_no_folder_of_this_machine(run: Run, tmp_path: Path) -> None:
    looks = Looks(run)
    looks._note(f"{run.work.absolute() / 'train' / 'net'} is damaged, {tmp_path.absolute() / 'x'} too")
    assert looks.notes == ["train/net is damaged, x too"]


def test_an_image_that_was_not_predicted_has_none(run: Run) -> None:
    assert Looks(run).seen("unknown", slide(), 0) is None


def test_the_more_speaks_for_a_class_the_lighter_it_is_and_the_tile_stays_visible() -> None:
    tile = np.full((32, 32, 3), 120, np.uint8)
    tile[:, :16] = 60
    heat = np.zeros((2, 2), np.float32)
    heat[1] = 1
    found = veiled(tile, heat).astype(int).sum(axis=2)
    edge = SIDE // 8
    assert found[-edge, -edge] > found[edge, -edge] + 100
    assert found[edge, -edge] > found[edge, edge]  # the darker half of the tile is darker


def test_a_thumbnail_of_attention_is_light_where_a_tile_counted_most() -> None:
    tiles = slide()
    shares = np.full(TILES, 1e-6, np.float32)
    shares[-1] = 1
    found = sheet.small_attended(tiles, shares / shares.sum(), 240)
    assert max(found.shape[:2]) == 240
    scale = found.shape[1] / 8000
    first, last = (found[5, int((x + 250) * scale)].astype(int).sum() for x in (0, (TILES - 1) * 600))
    assert last > first + 150
