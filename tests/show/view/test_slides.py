"""Pixels: what they are, how much of them is kept, and what happens to files that change."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.files import TEMPORARY
from kit.read import store
from kit.read.slide import open_image
from kit.read.vendor import VendorSlide
from kit.show.view import listing, overviews
from kit.show.view import slides as pixels
from kit.show.view.pyramid import SIDE, Pyramid, Square
from kit.show.view.shelf import Cache, Shelf
from kit.show.view.slides import Opened, Slides, pixels_of
from kit.state import Run

ROOT = Path(__file__).parents[3]


def opened(path: Path) -> Opened:
    reader = open_image(path, TileGrid())
    return Opened(reader, Pyramid(*reader.size), 16, path, reader.overview(16))


def finished(found: Slides, key: str) -> dict[str, Any]:
    """Wait for an overview."""
    for _ in range(500):
        state = found.state(key)
        if state["state"] != "making":
            return state
        time.sleep(0.02)
    raise AssertionError("the overview is never made")


@pytest.fixture
def shown(slides_run: Run) -> Any:
    """``shown()``: the images of the run, and the key of the slide."""
    made: list[Slides] = []

    def start() -> tuple[Slides, str]:
        table = listing.gather(slides_run, ["train"])
        made.append(Slides(slides_run, table))
        return made[-1], str(table.table.index[table.table["image_id"] == "one"][0])

    yield start
    for found in made:
        found.close()


@pytest.mark.parametrize("level", range(5, 9))
def test_coarse_tiles_are_the_readers_overview_resampled(slides: Path, level: int) -> None:
    item = opened(slides / "data" / "one.tif")
    square = item.pyramid.square(level, 0, 0)
    assert square is not None
    found, want = pixels_of(item, square), item.reader.overview(square.factor)
    assert found.shape == want.shape
    # Where the edge is ragged the last pixel is a mean of few.
    assert np.abs(found.astype(int) - want)[:-1, :-1].mean() < 0.3


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_tiles_at_the_edges_are_what_the_reader_says_and_no_larger(slides: Path, factor: int) -> None:
    item = opened(slides / "data" / "one.tif")
    level = item.pyramid.top - factor.bit_length() + 1
    width, height = item.pyramid.size(level)
    square = item.pyramid.square(level, (width - 1) // SIDE, (height - 1) // SIDE)
    assert square is not None and (square.width, square.height) == (width % SIDE, height % SIDE)
    want = item.reader.region(square.x, square.y, SIDE * factor, SIDE)
    np.testing.assert_array_equal(pixels_of(item, square), want[: square.height, : square.width])


def test_a_large_square_is_read_in_pieces_that_are_the_same(
    slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = opened(slides / "data" / "one.tif")
    square = item.pyramid.square(item.pyramid.top - 2, 0, 0)
    assert square is not None
    whole, sides = pixels_of(item, square), []
    region = item.reader.region
    monkeypatch.setattr(
        item.reader, "region", lambda x, y, size, out: sides.append(size) or region(x, y, size, out)
    )
    monkeypatch.setattr(pixels, "PIECE", 256)
    np.testing.assert_array_equal(pixels_of(item, square), whole)
    assert set(sides) == {256}


def test_a_slide_that_only_openslide_reads_gives_the_same_tiles(slides: Path) -> None:
    mine = opened(slides / "data" / "one.tif")
    reader = VendorSlide(slides / "data" / "one.tif", "a test")
    theirs = Opened(reader, mine.pyramid, 16, mine.place, reader.overview(16))
    for level, column, row in ((12, 1, 1), (12, 5, 8), (10, 1, 2), (8, 0, 0), (6, 0, 0)):
        square = mine.pyramid.square(level, column, row)
        assert square is not None
        np.testing.assert_allclose(pixels_of(mine, square), pixels_of(theirs, square), atol=2)


def test_a_coarse_tile_needs_the_overview(slides: Path) -> None:
    item = opened(slides / "data" / "one.tif")
    item.coarse = None
    with pytest.raises(ImageError, match="not made yet"):
        pixels_of(item, Square(0, 0, 16, 84, 132))


def test_the_overview_is_made_once_and_kept(
    shown: Any, slides_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, key = shown()
    assert first.state(key)["state"] == "making"
    state = finished(first, key)
    assert (state["width"], state["height"], state["read_by"]) == (1333, 2100, "tile index")
    (kept,) = slides_run.folder("view").rglob("*.npy")
    made = kept.stat().st_ino
    monkeypatch.setattr(overviews, "make", lambda path, reader: pytest.fail("it is there"))
    second, key = shown()
    assert second.state(key)["state"] == "ready"
    assert second.tile(key, 0, 0, 0) == first.tile(key, 0, 0, 0)
    assert kept.stat().st_ino == made


def test_an_overview_that_is_cut_short_or_of_another_file_is_made_anew(shown: Any, slides_run: Run) -> None:
    first, key = shown()
    finished(first, key)
    (kept,) = slides_run.folder("view").rglob("*.npy")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    second, key = shown()
    assert second.state(key)["state"] == "making"
    finished(second, key)
    assert kept.read_bytes() == whole
    other = slides_run.data.parent / "other.tif"
    cv2.imwrite(str(other), np.zeros((8, 8, 3), np.uint8))
    task, row = slides_run.competition, ("train", "one")
    place = overviews.place(slides_run.folder("view"), task, *row, slides_run.data / "one.tif")
    assert place == kept
    assert overviews.place(slides_run.folder("view"), task, *row, other) != kept


def test_an_array_of_another_shape_or_kind_is_no_overview(tmp_path: Path) -> None:
    right = np.zeros((132, 84, 3), np.uint8)
    for n, (array, fits) in enumerate([(right, True), (right[:-1], False), (right.astype(np.int64), False)]):
        np.save(tmp_path / f"{n}.npy", array)
        assert (overviews.find(tmp_path / f"{n}.npy", (1333, 2100)) is not None) is fits
    (tmp_path / "text.npy").write_text("no array")
    assert overviews.find(tmp_path / "text.npy", (1333, 2100)) is None


@pytest.mark.parametrize("image_id", ["..", ".", "../../x", "a/b", "/etc", "a\0b", "x" * 300])
def test_whatever_an_id_is_its_overview_stays_in_the_folder_of_its_split(
    slides_run: Run, image_id: str
) -> None:
    folder = slides_run.folder("view")
    file = slides_run.data / "one.tif"
    found = overviews.place(folder, slides_run.competition, "train", image_id, file)
    assert found.resolve().parent.parent == (folder / "train").resolve()


def test_few_slides_are_read_at_once_however_many_tiles_are_asked_for(
    shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, key = shown()
    now, most, lock = [0], [0], threading.Lock()

    def slow(item: Opened, square: Square) -> np.ndarray:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return np.zeros((square.height, square.width, 3), np.uint8)

    monkeypatch.setattr(pixels, "pixels_of", slow)
    with ThreadPoolExecutor(24) as pool:
        made = list(pool.map(lambda n: found.tile(key, 12, n % 6, n // 6), range(24)))
    assert all(made) and most[0] == pixels.AT_ONCE


def test_the_overview_of_a_file_that_has_changed_takes_the_place_of_the_old_one(
    slides: Path, tmp_path: Path
) -> None:
    with open_image(slides / "data" / "t.tif", TileGrid()) as slide:
        old = overviews.make(tmp_path / "a" / "old.npy", slide)
        new = overviews.make(tmp_path / "a" / "new.npy", slide)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new.npy"]
    np.testing.assert_array_equal(old, new)  # what is mapped stays, whoever removes its name


def test_a_file_that_changes_while_it_is_open_is_read_anew(
    slides: Path, slides_run: Run, tmp_path: Path
) -> None:
    data = tmp_path / "moved"
    shutil.copytree(slides / "data", data)
    table = listing.gather(replace(slides_run, data=data), ["train"])
    key = str(table.table.index[table.table["image_id"] == "one"][0])
    found = Slides(replace(slides_run, data=data), table)
    try:
        finished(found, key)
        before = found.tile(key, 9, 0, 0)
        shutil.copy(data / "t.tif", data / "new.tif")
        os.replace(data / "new.tif", data / "one.tif")
        assert finished(found, key)["width"] == 700
        assert found.tile(key, 9, 0, 0) not in (None, before)
        (data / "one.tif").unlink()
        with pytest.raises(ImageError, match="not there"):
            found.state(key)
    finally:
        found.close()


def test_a_kill_in_the_middle_leaves_no_overview(slides: Path, tmp_path: Path) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        import numpy as np
        from kit.competition import TileGrid
        from kit.read.slide import open_image
        from kit.show.view import overviews
        save = np.save
        def half(stream, pixels, allow_pickle):
            save(stream, pixels[: len(pixels) // 2], allow_pickle=False)
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        np.save = half
        with open_image(Path({str(slides / "data" / "t.tif")!r}), TileGrid()) as slide:
            overviews.make(Path({str(tmp_path / "o.npy")!r}), slide)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(TEMPORARY)
    assert overviews.find(tmp_path / "o.npy", (700, 500)) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said_on_the_page(shown: Any, slides_run: Run) -> None:
    slides_run.work.mkdir(parents=True)
    slides_run.work.chmod(0o500)
    found, key = shown()
    with pytest.raises(Exception, match="cannot be written"):
        finished(found, key)


def test_a_failure_is_told_once_and_tried_again(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found, key = shown()
    make = overviews.make

    def fail(path: Path, reader: Any) -> Any:
        raise ImageError("a tile is damaged", "download it again")

    monkeypatch.setattr(overviews, "make", fail)
    with pytest.raises(ImageError, match="damaged"):
        finished(found, key)
    monkeypatch.setattr(overviews, "make", make)
    assert finished(found, key)["state"] == "ready"


def test_thumbnails_come_from_the_store_and_open_no_slide(
    shown: Any, slides_run: Run, monkeypatch: Any
) -> None:
    small = np.full((60, 40, 3), (200, 30, 30), np.uint8)
    zero = np.zeros(0, np.int64)
    head = {"width": 1333, "height": 2100, "grid": {"size": 8}}
    tiles = store.packed(head, [], zero, zero, zero, np.zeros(0, np.float32), overview=small)
    store.write(store.path_of(slides_run.folder("tile"), "train", "one"), tiles)
    found, key = shown()
    monkeypatch.setattr(found, "_open", lambda *given: pytest.fail("nothing is opened"))
    picture = cv2.imdecode(np.frombuffer(found.thumbnail(key) or b"", np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (60, 40, 3) and abs(int(picture[9, 9, 2]) - 200) < 6


def test_a_damaged_store_is_no_reason_to_lack_a_thumbnail(shown: Any, slides_run: Run) -> None:
    path = store.path_of(slides_run.folder("tile"), "train", "one")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    found, key = shown()
    assert found.thumbnail(key) is None  # the slide has no overview yet
    finished(found, key)
    assert found.thumbnail(key) is not None


# -- what is kept


def test_a_cache_forgets_what_was_used_longest_ago_and_never_exceeds_its_bytes() -> None:
    cache, made = Cache(100), []

    def make(name: str, size: int) -> bytes:
        return cache.get(name, lambda: made.append(name) or bytes(size))

    for n in range(50):
        make(f"n{n}", 30)
        assert cache.size <= 100
    made.clear()
    make("n49", 30), make("n48", 30), make("n47", 30), make("n46", 30)
    assert made == ["n46"]
    make("huge", 1000)
    assert cache.size == 0
    assert make("none", 0) == b"" and make("none", 0) == b"" and made[-2:] == ["none", "none"]


def test_a_shelf_keeps_few_things_and_closes_none_that_is_lent() -> None:
    closed: list[int] = []
    shelf: Shelf[int, int] = Shelf(lambda key: key, closed.append, lambda thing: 1, 2)
    with shelf.lent(1), shelf.lent(2), shelf.lent(3):
        assert closed == []
        with shelf.lent(4):
            pass
        assert closed == [4]
    assert len(shelf) == 2 and 3 not in closed[:1]
    shelf.clear()
    assert sorted(closed) == [1, 2, 3, 4] and len(shelf) == 0


def test_what_is_dropped_is_closed_when_it_is_given_back_and_opened_anew() -> None:
    closed: list[int] = []
    made = iter(range(10))
    shelf: Shelf[str, int] = Shelf(lambda key: next(made), closed.append, lambda thing: 1, 2)
    with shelf.lent("a") as first:
        shelf.drop("a")
        assert closed == []
        with shelf.lent("a") as second:
            assert (first, second) == (0, 1)
    assert closed == [0]
    shelf.drop("a")
    shelf.drop("a")
    assert closed == [0, 1]


def test_a_shelf_opens_a_thing_once_for_all_who_ask_and_forgets_what_fails() -> None:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        time.sleep(0.05)
        if key == "bad" and made.count("bad") == 1:
            raise ImageError("bad")
        return key

    shelf: Shelf[str, str] = Shelf(make, lambda thing: None, len, 100)

    def use() -> None:
        with shelf.lent("good") as thing:
            assert thing == "good"

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["good"]
    with pytest.raises(ImageError), shelf.lent("bad"):
        pass
    with shelf.lent("bad") as thing:
        assert thing == "bad"


def test_a_heavy_picture_counts_as_several() -> None:
    class Fake:
        tileable = False

    small, large = np.zeros((10, 10, 3), np.uint8), np.zeros((5000, 7000, 3), np.uint8)
    weights = [Opened(Fake(), Pyramid(1, 1), 1, Path(), picture).weight for picture in (small, large)]  # type: ignore[arg-type]
    assert weights == [1, pixels.OPEN]


def test_memory_does_not_grow_with_what_has_been_looked_at(shown: Any) -> None:
    found, key = shown()
    finished(found, key)
    pyramid = Pyramid(1333, 2100)
    for level in range(pyramid.top + 1):
        width, height = pyramid.size(level)
        for column in range(-(-width // SIDE)):
            for row in range(-(-height // SIDE)):
                found.tile(key, level, column, row)
    assert found._cache.size <= pixels.CACHE
    assert len(found._shelf) == 1
    assert json.dumps(found.state(key))
