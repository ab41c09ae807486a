"""What is laid over a slide: read from the store and from what `predict` kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kit.files import write_arrays
from kit.learn import attention
from kit.read import store
from kit.read.tissue import KINDS
from kit.show import sheet
from kit.show.view import layers
from kit.show.view.shelf import Cache
from kit.state import Run, read_state, record

ROW = {"split": "train", "image_id": "a/b"}


@pytest.fixture
def run(slides_run: Run) -> Run:
    """A slide of 100 level-0 px a stored one: tissue with a fold, two sections of one clot, three tiles."""
    kinds = np.zeros((60, 80), np.uint8)
    kinds[10:30, 10:30] = KINDS.index("tissue")
    kinds[10:12, 10:30] = KINDS.index("fold")
    sections = np.zeros((60, 80), np.uint16)
    sections[10:30, 10:30], sections[35:55, 40:70] = 1, 2
    places = np.array([1000, 4000, 5000])
    tiles = store.packed(
        {"width": 8000, "height": 6000, "grid": {"size": 8}, "clot_of": [0, 0]},
        [np.zeros((8, 8, 3), np.uint8)] * 3,
        places,
        places,
        np.full(3, 800),
        np.array([1, 0.5, 0.25], np.float32),
        section=np.array([0, 1, 1]),
        overview=np.full((60, 80, 3), 250, np.uint8),
        kinds=kinds,
        sections=sections,
    )
    store.write(store.path_of(slides_run.folder("tile"), "train", "a/b"), tiles)
    return slides_run


def attend(run: Run, name: str, shares: list[float]) -> Path:
    path = attention.folder(run) / name
    write_arrays(path, {"ids": np.array(["a/b"]), "counts": np.array([len(shares)]),
                        "shares": np.array(shares, np.float32)})  # fmt: skip
    return path


def finish(work: Path, **keys: str) -> None:
    """Note stages as finished, each after the one that is noted before it."""
    for name, key in keys.items():
        rests = {"train": "tile", "predict": "train", "combine": "predict"}.get(name)
        after = {rests: read_state(work)[rests]["key"]} if rests else {}
        record(work, name, {"key": key, "ingredients": {"after": after}, "outputs": {}})


def test_without_tiles_nothing_is_laid_over(slides_run: Run) -> None:
    found = layers.shapes(slides_run, ROW)
    assert not any(found.values())
    assert layers.picture(slides_run, ROW, "tissue", Cache(1000)) is None


def test_sections_are_outlines_in_pixels_of_the_slide_with_their_names(run: Run) -> None:
    first, second = layers.shapes(run, ROW)["sections"]
    assert (first["name"], second["name"]) == ("1a", "1b")
    x, y = np.array(first["lines"][0]).T
    assert (x.min(), x.max(), y.min(), y.max()) == (1050, 2950, 1050, 2950)
    assert second["at"][1] == 3550


def test_tiles_are_in_the_order_of_their_rank(run: Run) -> None:
    found = layers.shapes(run, ROW)["tiles"]
    assert [(tile["x"], tile["size"], tile["tissue"], tile["section"]) for tile in found] == [
        (1000, 800, 1.0, "1a"), (4000, 800, 0.5, "1b"), (5000, 800, 0.25, "1b"),
    ]  # fmt: skip


def test_kinds_that_occur_are_named_with_their_share_and_colour(run: Run) -> None:
    found = {kind["kind"]: kind for kind in layers.shapes(run, ROW)["kinds"]}
    assert set(found) == {"tissue", "fold"}
    assert found["fold"]["share"] == 40 / 4800
    assert found["tissue"]["colour"] == "#56b4e9"


def test_a_picture_has_the_colours_of_its_kinds_and_is_clear_elsewhere(run: Run) -> None:
    cache = Cache(100_000)
    for name, kind, inside, outside in (
        ("tissue", "tissue", (20, 20), (11, 20)),
        ("artefacts", "fold", (11, 20), (20, 20)),
    ):
        stream = layers.picture(run, ROW, name, cache)
        assert stream is not None
        pixels = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (60, 80, 4)
        assert tuple(pixels[inside][[2, 1, 0, 3]]) == (*sheet.PALETTE[kind], 255)
        assert pixels[outside][3] == pixels[0, 0, 3] == 0


def test_attention_is_told_by_model_as_times_of_the_even_share(run: Run) -> None:
    attend(run, "net/train.npz", [0.6, 0.2, 0.2])
    attend(run, "net/seed1-train.npz", [0.2, 0.2, 0.6])
    attend(run, "net/test.npz", [1.0])
    found = layers.shapes(run, ROW)
    assert [one["model"] for one in found["attention"]] == ["net seed1", "net"]
    np.testing.assert_allclose(found["attention"][1]["times"], [1.8, 0.6, 0.6], rtol=1e-5)
    assert len(found["scale"]) == layers.STEPS and found["span"] == sheet.SPAN
    assert found["trouble"] == []


def test_attention_to_other_tiles_or_that_is_damaged_is_said_and_not_drawn(run: Run) -> None:
    attend(run, "net/train.npz", [0.5, 0.5])
    attend(run, "old/train.npz", [1.0]).write_bytes(b"damaged")
    found = layers.shapes(run, ROW)
    assert found["attention"] == [] and found["scale"] == []
    assert "not those that were predicted from" in found["trouble"][0] and "damaged" in found["trouble"][1]


def test_attention_of_before_the_tiles_were_made_anew_is_said_and_not_drawn(run: Run) -> None:
    attend(run, "net/train.npz", [0.6, 0.2, 0.2])
    finish(run.work, tile="t1", train="m1", predict="p1")
    assert layers.shapes(run, ROW)["attention"]
    finish(run.work, tile="t2")
    found = layers.shapes(run, ROW)
    assert found["attention"] == [] and "tile was run again" in found["trouble"][0]
    finish(run.work, tile="t2", train="m2")
    assert "train was run again" in layers.shapes(run, ROW)["trouble"][0]
    finish(run.work, predict="p2")
    assert layers.shapes(run, ROW)["attention"]


def test_a_picture_of_tissue_is_made_anew_where_the_slide_was_tiled_again(run: Run) -> None:
    cache = Cache(100_000)
    before = layers.picture(run, ROW, "tissue", cache)
    path = store.path_of(run.folder("tile"), "train", "a/b")
    tiles = store.packed(
        {"width": 8000, "height": 6000, "grid": {"size": 8}}, [], *[np.zeros(0, np.int64)] * 3,
        np.zeros(0, np.float32), overview=np.full((60, 80, 3), 250, np.uint8),
        kinds=np.full((60, 80), KINDS.index("tissue"), np.uint8),
    )  # fmt: skip
    store.write(path, tiles)
    assert layers.picture(run, ROW, "tissue", cache) not in (before, None)


def test_a_damaged_store_is_said_with_what_to_type(run: Run) -> None:
    store.path_of(run.folder("tile"), "train", "a/b").write_bytes(b"damaged")
    found: dict[str, Any] = layers.shapes(run, ROW)
    assert not found["tiles"] and "kit tile" in found["trouble"][0]


def test_reading_attention_does_not_load_torch() -> None:
    import subprocess
    import sys

    code = "import kit.show.view.command, sys; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
