"""The tile store: whole or absent, exact, and the same bytes each time."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kit.errors import StageError, StorageError
from kit.read import store

HEADER = {"key": "k", "grid": {"size": 16}, "width": 900, "height": 800, "background": "#ffffff"}


def made(count: int = 3) -> tuple[store.Tiles, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    numbers = np.arange(count) * 128
    share = np.linspace(0.3, 1, count, dtype=np.float32)
    return store.packed(HEADER, list(pixels), numbers, numbers + 1, numbers + 2, share), pixels


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_was_written_is_read_back_exactly(count: int, tmp_path: Path) -> None:
    tiles, pixels = made(count)
    store.write(tmp_path / "train" / "a.npz", tiles)
    found = store.read(tmp_path / "train" / "a.npz")
    assert found.header == HEADER and len(found) == count
    np.testing.assert_array_equal(found.decode(), pixels)
    assert found.decode().shape == (count, 16, 16, 3)
    for name in ("x", "y", "size", "tissue", "section", "clot", "weight", "lengths"):
        np.testing.assert_array_equal(getattr(found, name), getattr(tiles, name))
    assert found.x.dtype == np.int64 and found.clot.dtype == np.int32
    assert (found.weight == 1).all() and found.weight.dtype == np.float32


def test_some_tiles_are_decoded_in_the_order_asked_for(tmp_path: Path) -> None:
    tiles, pixels = made()
    np.testing.assert_array_equal(tiles.decode([2, 0]), pixels[[2, 0]])
    first = Image.open(io.BytesIO(tiles.encoded[: tiles.lengths[0]].tobytes()))
    np.testing.assert_array_equal(np.asarray(first), pixels[0], "a PNG for any other reader too")
    assert tiles.decode([]).shape == (0, 16, 16, 3)


def test_the_bytes_do_not_depend_on_when_or_where(tmp_path: Path, monkeypatch: Any) -> None:
    store.write(tmp_path / "a.npz", made()[0])
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    store.write(tmp_path / "b" / "c.npz", made()[0])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b" / "c.npz").read_bytes()


def test_a_file_of_other_settings_is_not_found(tmp_path: Path) -> None:
    store.write(tmp_path / "a.npz", made()[0])
    assert store.find(tmp_path / "a.npz", "k") is not None
    assert store.find(tmp_path / "a.npz", "other") is None


def test_a_damaged_file_counts_as_absent_wherever_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "train" / "a.npz"
    store.write(path, made()[0])
    data = path.read_bytes()
    for kept in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:kept])
        assert store.find(path, "k") is None
    # One changed byte anywhere in the tiles or numbers fails a checksum.
    for place in range(150, len(data) - 2000, 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        found = store.find(path, "k")
        assert found is None or (found.decode() == made()[1]).all()
    path.write_text("not an archive")
    with pytest.raises(StageError, match="damaged") as caught:
        store.read(path)
    assert str(tmp_path / "images.csv") in caught.value.hint
    with pytest.raises(StageError, match="not there"):
        store.read(tmp_path / "train" / "b.npz")


def test_every_id_has_a_file_of_its_own_inside_the_folder(tmp_path: Path) -> None:
    ids = ["a", "a/b", "a%2Fb", "../a", "..", ".", "a b", "ä", "a\nb", "x" * 400, "x" * 399, "a:b"]
    paths = [store.path_of(tmp_path, "train", name) for name in ids]
    assert len(set(paths)) == len(ids)
    for path in paths:
        store.write(path, made(1)[0])
        assert path.is_file() and path.resolve().parent == tmp_path / "train"


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: Any) -> None:
    def full(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="no space"):
        store.write(tmp_path / "a.npz", made()[0])
    assert list(tmp_path.iterdir()) == []
