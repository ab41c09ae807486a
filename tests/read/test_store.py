"""The tile store: whole or absent, exact, and the same bytes each time."""

from __future__ import annotations

import errno
import io
import os
import weakref
import zipfile
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
    first = Image.open(io.BytesIO(store.whole(tiles.encoded)[: tiles.lengths[0]].tobytes()))
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
    assert "kit tile <competition> --force" in caught.value.hint
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


# --- one tile of many, damage, small pictures -------------------------------------------------------


def read_bytes() -> int:
    """What this process has read from files until now."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_one_tile_of_a_large_bag_is_read_without_the_others(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    count = 400
    pixels = [draw.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(count)]
    numbers = np.arange(count)
    overview = draw.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    header = HEADER | {"grid": {"size": 64}}
    store.write(tmp_path / "a.npz", store.packed(header, pixels, numbers, numbers, numbers, numbers,
                                                 overview=overview))  # fmt: skip
    size = (tmp_path / "a.npz").stat().st_size
    before = read_bytes()
    tiles = store.read(tmp_path / "a.npz")
    np.testing.assert_array_equal(tiles.decode([317, 4]), [pixels[317], pixels[4]])
    assert read_bytes() - before < size / 20, size


def test_tiles_are_encoded_as_they_come_and_png_is_taken_as_it_is() -> None:
    alive = 0

    def tiles() -> Any:
        nonlocal alive
        for n in range(3):
            tile = np.full((16, 16, 3), n, np.uint8)
            alive += 1
            weakref.finalize(tile, ended)
            yield tile
            del tile
            assert alive <= 1, "the last one is kept until the next is made, and no longer"

    def ended() -> None:
        nonlocal alive
        alive -= 1

    numbers = np.arange(3)
    made_of_pixels = store.packed(HEADER, tiles(), numbers, numbers, numbers, numbers)
    streams = [store.encode(tile) for tile in made_of_pixels.decode()]
    made_of_streams = store.packed(HEADER, streams, numbers, numbers, numbers, numbers)
    np.testing.assert_array_equal(made_of_pixels.encoded, made_of_streams.encoded)
    assert made_of_streams.decode()[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_sections_clots_and_weights_are_kept(tmp_path: Path) -> None:
    zero = np.zeros(2, np.int64)
    known = {"section": np.array([3, 5]), "clot": np.array([0, 1]), "weight": np.array([0.5, 1])}
    tiles = store.packed(HEADER, [np.zeros((16, 16, 3), np.uint8)] * 2, zero, zero, zero, zero, **known)
    store.write(tmp_path / "a.npz", tiles)
    found = store.read(tmp_path / "a.npz")
    assert (found.section.tolist(), found.clot.tolist(), found.weight.tolist()) == ([3, 5], [0, 1], [0.5, 1])
    assert (found.section.dtype, found.weight.dtype) == (np.int32, np.float32)
    with pytest.raises(AssertionError, match="one number a tile"):
        store.packed(HEADER, [], zero, zero, zero, zero)


def test_small_pictures_are_kept_exactly_and_may_be_absent(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    none = np.zeros(0, np.int64)
    overview = draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    kinds = draw.integers(0, 9, (30, 40), dtype=np.uint8)
    sections = draw.integers(0, 60000, (30, 40))
    for name, given in (("a", {"overview": overview, "kinds": kinds, "sections": sections}), ("b", {})):
        path = tmp_path / f"{name}.npz"
        store.write(path, store.packed(HEADER, [], none, none, none, none, **given))
        assert store.check(path) == ""
    found = store.read(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.thumbnail(), overview)
    np.testing.assert_array_equal(found.kinds_map(), kinds)
    np.testing.assert_array_equal(found.sections_map(), sections)
    assert (found.kinds_map().dtype, found.sections_map().dtype) == (np.uint8, np.uint16)
    empty = store.read(tmp_path / "b.npz")
    assert empty.thumbnail().shape == (0, 0, 3)
    assert empty.kinds_map().shape == empty.sections_map().shape == (0, 0)


def test_what_was_read_can_be_written_again(tmp_path: Path) -> None:
    store.write(tmp_path / "a.npz", made()[0])
    store.write(tmp_path / "b.npz", store.read(tmp_path / "a.npz"))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_damaged_tile_is_named_and_its_neighbours_are_read(tmp_path: Path) -> None:
    tiles, pixels = made()
    path = tmp_path / "train" / "a.npz"
    store.write(path, tiles)
    place = path.read_bytes().index(tiles.encoded.tobytes()) + int(tiles.lengths[0]) + 60
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    found = store.read(path)
    np.testing.assert_array_equal(found.decode([0, 2]), pixels[[0, 2]])
    with pytest.raises(StageError, match=r"a\.npz is damaged: tile 1 does not decode"):
        found.decode()
    assert store.check(path) == "tile 1 does not decode" and store.find(path, "k") is None


def test_a_file_that_is_cut_or_gone_after_it_was_opened_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "train" / "a.npz"
    store.write(path, made()[0])
    found = store.read(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(StageError, match="ends too early"):
        found.decode()
    path.unlink()
    with pytest.raises(StageError, match="damaged"):
        found.decode()


def test_a_check_finds_every_flipped_byte_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    store.write(path, made(2)[0])
    data = path.read_bytes()
    assert store.check(path) == ""
    # The last byte of every array that has one: 30 bytes, its name and 20 more come before it in the file.
    infos = [info for info in zipfile.ZipFile(path).infolist() if info.file_size > 128]
    ends = [info.header_offset + 49 + len(info.filename) + info.file_size for info in infos]
    for place in [*ends, *range(300, ends[0], 411)]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert store.check(path) != "", place
    assert store.check(tmp_path / "none.npz") == "it is not there"


def test_a_check_finds_content_that_was_changed_with_its_checksums(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    store.write(path, made()[0])
    with np.load(path) as content:
        arrays = dict(content)
    for change in ({"x": arrays["x"] + 1}, {"weight": arrays["weight"] * 2}):
        np.savez(path, **arrays | change)
        assert "the digest differs" in store.check(path)
    np.savez(path, **arrays | {"y": arrays["y"][:2]})
    assert "lengths do not add up" in store.check(path)
    np.savez_compressed(path, **arrays)
    assert "cannot be read" in store.check(path)
