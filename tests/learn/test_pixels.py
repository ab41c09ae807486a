"""Tiles decoded once: the same pixels, one file for all, and none where it would be too large."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.errors import StorageError
from kit.learn import dataset, pixels, preprocess
from kit.read import store
from kit.state import Run

Make = Callable[..., Run]


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    pixels._say.cache_clear()


def of(run: Run, size: int = 12, split: str = "train", how: str = "bicubic") -> pixels.Pixels:
    return pixels.of(run, split, dataset.ids_with_tiles(run, split), size, how)


def files(run: Run) -> list[Path]:
    return sorted(path for path in run.folder("pixels").glob("*") if path.suffix != ".lock")


@pytest.mark.parametrize("size", [0, 12, 24])
@pytest.mark.parametrize("workers", [0, 3])
def test_decoded_tiles_are_those_of_the_store(size: int, workers: int, make_bags: Make) -> None:
    run = replace(make_bags(), workers=workers)
    decoded = of(run, size)
    assert decoded.path is not None and decoded.path.is_file()
    for image in dataset.ids_with_tiles(run, "train"):
        tiles = store.read(store.path_of(run.folder("tile"), "train", image))
        expected = preprocess.resize(tiles.decode(), size, "bicubic")
        order = list(range(len(tiles)))[::-1]
        np.testing.assert_array_equal(decoded.bag(image).read(order), expected[::-1])
        bag = decoded.bag(image)
        np.testing.assert_array_equal(bag.section, tiles.section)
        np.testing.assert_array_equal(bag.clot, tiles.clot)
        plain = replace(decoded, path=None)
        np.testing.assert_array_equal(plain.bag(image).read(order), expected[::-1])
        np.testing.assert_array_equal(plain.bag(image).clot, tiles.clot)


def test_tiles_are_decoded_once_for_all(make_bags: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_bags()
    first = of(run)

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(store.Tiles, "decode", fail)
    again = of(run)
    assert again.path == first.path
    for found in (again, pickle.loads(pickle.dumps(again))):
        assert len(found.bag("p0-0").read([0])) == 1


def test_each_split_size_and_interpolation_has_a_file(make_bags: Make) -> None:
    run = make_bags()
    paths = {of(run).path, of(run, 8).path, of(run, how="bilinear").path, of(run, split="test").path}
    assert len(paths) == 4 and len(files(run)) == 8


def test_an_image_that_is_tiled_anew_is_decoded_anew_and_the_old_file_goes(make_bags: Make) -> None:
    run = make_bags()
    before = of(run)
    path = store.path_of(run.folder("tile"), "train", "p0-0")
    tiles = store.read(path)
    dark = [tile // 2 for tile in tiles.decode()]
    header = dict(tiles.header)
    store.write(path, store.packed(header, dark, tiles.x, tiles.y, tiles.size, tiles.tissue))
    after = of(run)
    assert before.path is not None and after.path != before.path and len(files(run)) == 2
    expected = preprocess.resize(np.stack(dark), 12, "bicubic")
    np.testing.assert_array_equal(after.bag("p0-0").read(range(len(dark))), expected)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_file_that_was_cut_off_is_made_again(suffix: str, make_bags: Make) -> None:
    run = make_bags()
    path = of(run).path
    assert path is not None
    expected = path.with_suffix(suffix).read_bytes()
    os.truncate(path.with_suffix(suffix), len(expected) // 2)
    assert of(run).path == path
    assert path.with_suffix(suffix).read_bytes() == expected


def test_above_the_budget_tiles_are_decoded_each_time_and_the_log_says_so_once(
    make_bags: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_bags()
    monkeypatch.setattr(pixels, "MOST_GIB", 1e-6)
    with caplog.at_level(logging.INFO, logger="kit"):
        found = [of(run) for _ in range(3)]
    assert all(pixels_.path is None for pixels_ in found) and not files(run)
    said = [
        record.message for record in caplog.records if "each is decoded when it is shown" in record.message
    ]
    assert len(said) == 1 and "12 px" in said[0]
    tiles = store.read(store.path_of(run.folder("tile"), "train", "p0-0"))
    expected = preprocess.resize(tiles.decode(), 12, "bicubic")
    np.testing.assert_array_equal(found[0].bag("p0-0").read(range(len(tiles))), expected)


def test_a_full_disk_costs_speed_and_no_more(
    make_bags: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_bags()

    def full(*_: object) -> None:
        raise StorageError("no space is left on the disk", "free some")

    monkeypatch.setattr(pixels, "write_file", full)
    with caplog.at_level(logging.INFO, logger="kit"):
        assert of(run).path is None
    assert "no space is left" in caplog.text


def test_half_of_the_free_disk_is_the_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels.shutil, "disk_usage", lambda place: type("U", (), {"free": 1000})())
    assert pixels.budget(tmp_path / "not" / "there") == 500
