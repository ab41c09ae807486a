"""What is wrong with the stored tiles of a run, and their coordinates for other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.errors import StageError
from kit.files import write_table
from kit.read import store
from kit.read.check import check
from kit.read.exchange import find_coords
from kit.read.export import export
from kit.read.tiler import Tiler
from kit.read.tiles import load_images, sources
from kit.state import Run

TILES = {("train", "a"): 2, ("train", "b c"): 1, ("train", "blank"): 0, ("test", "a"): 3}


@pytest.fixture
def run(make_run: Callable[..., Run]) -> Run:
    """Two training images with tiles, an empty one, an unreadable one, and a test image, as stored."""
    train = {name: f"{name}.tif" for name in ("a", "b c", "blank", "cut")}
    run = make_run(train, {"a": "a.tif"}, workers=2)
    keys = {(source.split, source.image_id): Tiler(run).key(source) for source in sources(run)}
    rows = []
    for (split, image), count in TILES.items():
        pixels = np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        places = np.arange(count) * 64
        header = {"key": keys[split, image], "grid": {"size": 16}, "width": 900, "height": 800}
        tiles = store.packed(header, list(pixels), places, places + 1, np.full(count, 64), places)
        store.write(store.path_of(run.folder("tile"), split, image), tiles)
        rows.append((image, split, count, "ok" if count else "empty"))
    rows.append(("cut", "train", 0, "unreadable"))
    table = pd.DataFrame(rows, columns=["image_id", "split", "tiles", "status"])
    measured = {"width": 900, "height": 800, "tissue": 0.5, "sections": 1, "clots": 1}
    write_table(run.folder("tile") / "images.csv", table.assign(**measured))
    return run


def test_whole_files_are_counted(run: Run) -> None:
    told, code = check(run)
    assert code == 0 and told.startswith("4 files with 6 tiles are whole")


def test_every_kind_of_problem_is_told_with_what_to_type(run: Run) -> None:
    folder = run.folder("tile")
    store.path_of(folder, "train", "a").unlink()
    cut = store.path_of(folder, "test", "a")
    cut.write_bytes(cut.read_bytes()[:700])
    other = store.path_of(folder, "train", "b c")
    other.write_bytes(store.path_of(folder, "train", "blank").read_bytes())
    store.path_of(folder, "train", "cut").write_bytes(other.read_bytes())
    (folder / "train" / "old.npz").write_bytes(b"")
    told, code = check(run)
    lines = told.splitlines()
    assert code == 1 and lines[0] == "5 problems with 4 files:"
    for says in (
        ("train 'a'", "it is not there"),
        ("test 'a'", "it cannot be read"),
        ("train 'b c'", "it has 0 tiles, and images.csv says 1"),
        ("train 'cut'", "images.csv says that the image could not be used"),
        ("old.npz", "no image of images.csv has it"),
    ):
        assert sum(all(word in line for word in says) for line in lines) == 1, (says, told)
    assert "type: python -m kit tile made --force" in told and "delete the files" in told


def test_a_file_of_another_image_or_of_other_settings_is_told(run: Run) -> None:
    folder = run.folder("tile")
    one, other = (store.path_of(folder, "train", name) for name in ("a", "b c"))
    other.write_bytes(one.read_bytes())
    images = load_images(run).assign(tiles=[2, 2, 0, 3, 0])  # as many tiles as there should be
    write_table(folder / "images.csv", images)
    told, code = check(run)
    assert code == 1 and told.startswith("1 problems with 4 files")
    assert "it was made from another image, another file or with other settings" in told
    later = dataclasses.replace(run, seed=7)
    assert check(later)[0].startswith("4 problems")


def test_a_run_without_tiles_says_what_to_type(make_run: Callable[..., Run]) -> None:
    with pytest.raises(StageError, match="is not there") as caught:
        check(make_run({"a": "a.tif"}))
    assert "kit tile" in caught.value.hint


def test_coordinates_are_exported_by_split_and_found_again(run: Run, tmp_path: Path) -> None:
    assert "6 tiles of 4 images" in export(run, tmp_path / "out")
    assert find_coords(tmp_path / "out", "train", "cut") is None
    for (split, image), count in TILES.items():
        found = find_coords(tmp_path / "out", split, image)
        assert found is not None
        size = 64 if count else 1
        assert (found.name, found.size, found.width, found.height) == (image, size, 900, 800)
        assert found.x.tolist() == [64 * n for n in range(count)]


def test_tiles_of_several_sizes_are_not_exported_as_one(run: Run, tmp_path: Path) -> None:
    zero = np.zeros(2, np.int64)
    pixels = [np.zeros((16, 16, 3), np.uint8)] * 2
    header = {"key": "k", "grid": {"size": 16}, "width": 900, "height": 800}
    tiles = store.packed(header, pixels, zero, zero, np.array([64, 128]), zero)
    store.write(store.path_of(run.folder("tile"), "train", "a"), tiles)
    with pytest.raises(StageError, match="image 'a' have 2 sizes"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "all or nothing"
