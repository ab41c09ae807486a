"""Slides by their own index: several at once, bounded memory, and damage that is told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakSet

import cv2
import numpy as np
import pytest
import tifffile

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.read import background, indexed, photo, slide
from kit.read.indexed import IndexedSlide
from kit.read.vendor import VendorSlide

ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(4).integers(0, 256, (700, 900, 3), dtype=np.uint8)

# The peak beyond what the imports take, in MiB, of an overview and a region that may fail.
MEMORY = """
import sys
from pathlib import Path
from kit.competition import TileGrid
from kit.errors import ImageError
from kit.read import indexed, slide
from tests.bench.harness import peak
before, said = peak(), "read"
try:
    with slide.open_image(Path(sys.argv[1]), TileGrid()) as image:
        image.overview(32)
        image.region(0, 0, 256, 128)
except ImageError as error:
    said = error.message
print(said)
print(peak() - before)
"""


def in_a_process(path: Path) -> tuple[str, float]:
    """What was said about a slide, and the memory that it took, MiB."""
    command = [sys.executable, "-c", MEMORY, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    said, memory = done.stdout.splitlines()
    return said, float(memory)


def with_tiles(path: Path, tile: bytes, size: tuple[int, int], side: int) -> Path:
    """A Deflate slide all of whose tiles are the same bytes, which need not be valid."""
    tifffile.imwrite(
        path, np.zeros((side, side, 3), np.uint8), tile=(side, side), compression="adobe_deflate"
    )
    tiles = -(-size[0] // side) * -(-size[1] // side)
    place = path.stat().st_size
    with path.open("ab") as file:
        file.write(tile)
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages[0].tags
        tags["TileOffsets"].overwrite([place] * tiles, dtype="I")
        tags["TileByteCounts"].overwrite([len(tile)] * tiles, dtype="I")
        tags["ImageWidth"].overwrite(size[0], dtype="I")
        tags["ImageLength"].overwrite(size[1], dtype="I")
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is told in other units elsewhere")
def test_a_tile_that_inflates_without_end_costs_no_memory(tmp_path: Path) -> None:
    bomb = zlib.compress(b"\x00" * 2**29, 9)
    said, memory = in_a_process(with_tiles(tmp_path / "a.tif", bomb, (20_000, 20_000), 512))
    assert "row 0, column 0" in said or said == "read"
    assert memory < 100, memory


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is told in other units elsewhere")
def test_an_overview_of_a_gigapixel_costs_a_fraction_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tile = zlib.compress(rng.integers(0, 2, (512, 512, 3), dtype=np.uint8).tobytes(), 1)
    path = with_tiles(tmp_path / "a.tif", tile, (32_768, 32_768), 512)
    said, memory = in_a_process(path)
    assert said == "read" and memory < 120, (said, memory)


def test_many_threads_read_the_same_pixels(tmp_path: Path, write_slide: Any) -> None:
    path = write_slide(tmp_path / "a.tif", PIXELS)
    corners = [(x, y) for x in range(0, 800, 90) for y in range(0, 600, 90)]
    with slide.open_image(path, TileGrid()) as image, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda corner: image.region(*corner, 100, 100), corners))
        overviews = list(pool.map(image.overview, [8] * 8))
    for (x, y), region in zip(corners, found, strict=True):
        np.testing.assert_array_equal(region, PIXELS[y : y + 100, x : x + 100])
    assert all((overview == overviews[0]).all() for overview in overviews)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_reads_too(tmp_path: Path, write_slide: Any) -> None:
    """The threads of the pool do not live on in it."""
    path = write_slide(tmp_path / "a.tif", PIXELS)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from kit.competition import TileGrid\n"
        "from kit.read import slide\n"
        "def look():\n"
        "    with slide.open_image(Path(sys.argv[1]), TileGrid()) as image: return image.overview(8)\n"
        "first = look()\n"
        "child = os.fork()\n"
        "if not child: os._exit(0 if (look() == first).all() else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("how", ["garbage", "fewer", "more"])
def test_one_damaged_tile_is_named_and_the_others_are_read(
    how: str, tmp_path: Path, write_slide: Any
) -> None:
    path = write_slide(tmp_path / "a.tif", PIXELS, predictor=None)
    with tifffile.TiffFile(path) as file:
        place, count = file.pages[0].dataoffsets[9], file.pages[0].databytecounts[9]
    pixels = {"fewer": 1000, "more": 128 * 128 * 3 + 1000}
    tile = b"\xa5" * count if how == "garbage" else zlib.compress(bytes(pixels[how])).ljust(count, b"\0")
    with path.open("r+b") as file:
        file.seek(place)
        file.write(tile[:count])
    with slide.open_image(path, TileGrid()) as image:
        np.testing.assert_array_equal(image.region(0, 0, 128, 128), PIXELS[:128, :128])
        if how == "more":  # what lies beyond a tile is not looked at, or it is damage
            return
        for read in (lambda: image.region(128, 128, 128, 64), lambda: image.overview(32)):
            with pytest.raises(ImageError, match=r"a\.tif: the tile in row 1, column 1 cannot be read: ."):
                read()


def test_a_slide_that_was_closed_is_not_read(tmp_path: Path, write_slide: Any) -> None:
    with slide.open_image(write_slide(tmp_path / "a.tif", PIXELS), TileGrid()) as image:
        pass
    with pytest.raises(ImageError, match=r"a\.tif"):
        image.region(0, 0, 64, 64)


def test_the_number_of_a_closed_file_is_not_read_again(tmp_path: Path, write_slide: Any) -> None:
    """The system gives it to the next file."""
    first, second = (write_slide(tmp_path / name, PIXELS) for name in ("a.tif", "b.tif"))
    with slide.open_image(first, TileGrid()) as image:
        pass
    with slide.open_image(second, TileGrid()), pytest.raises(ImageError, match=r"a\.tif"):
        image.region(0, 0, 64, 64)
    image.__exit__()  # a second time closes nothing


def test_few_blocks_wait_and_none_is_read_after_a_failure(
    tmp_path: Path, write_slide: Any, monkeypatch: Any
) -> None:
    path = write_slide(tmp_path / "a.tif", PIXELS)
    monkeypatch.setattr(indexed, "BLOCK", 16)
    monkeypatch.setattr(indexed, "WAITING", 8)
    submit, alive, most = indexed._pool.submit, WeakSet[Any](), 0

    def counted(*work: Any) -> Any:
        nonlocal most
        alive.add(task := submit(*work))
        most = max(most, len(alive))
        return task

    monkeypatch.setattr(indexed._pool, "submit", counted)
    with slide.open_image(path, TileGrid()) as image:
        overview = image.overview(8)
        assert 8 <= most <= 16, most
        np.testing.assert_array_equal(overview[:80, :112], cv2.resize(PIXELS[:640, :896], (112, 80),
                                                               interpolation=cv2.INTER_AREA))  # fmt: skip
        left, read = threading.Event(), IndexedSlide._paste

        def paste(self: Any, level: Any, row: int, column: int, *rest: Any) -> None:
            assert not left.is_set(), "the file is closed"
            if (row, column) == (0, 1):
                raise ImageError("no", "")
            time.sleep(0.01)
            read(self, level, row, column, *rest)

        monkeypatch.setattr(IndexedSlide, "_paste", paste)
        with pytest.raises(ImageError):
            image.overview(8)
        left.set()
    assert all(task.done() for task in alive)


def test_what_a_slide_shows_is_what_is_not_called_blank_and_is_counted_once(
    tmp_path: Path, write_slide: Any, monkeypatch: Any
) -> None:
    pixels = np.full((1280, 1280, 3), 255, np.uint8)
    pixels[:640, :640] = PIXELS[:640, :640]
    calls, real = [], background.blank_tiles
    monkeypatch.setattr(background, "blank_tiles", lambda level: calls.append(level) or real(level))
    with slide.open_image(write_slide(tmp_path / "a.tif", pixels), TileGrid()) as image:
        assert image.shown == 0.25 and image.decoded(32) == 640 * 640
        image.overview(32)
    assert len(calls) == 1
    for reader in (VendorSlide(tmp_path / "a.tif", ""), photo.open_image(tmp_path / "a.tif", TileGrid())):
        assert reader.shown == 1


def test_many_threads_begin_with_one_pool() -> None:
    code = (
        "import threading; from kit.read import indexed\n"
        "made = indexed._pool\n"
        "seen = []\n"
        "use = lambda: (indexed._on_all_cores(lambda item: None, range(50)), seen.append(indexed._pool))\n"
        "threads = [threading.Thread(target=use) for _ in range(20)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "assert len(seen) == 20 and all(pool is made for pool in seen)\n"
        "cores = made._max_workers\n"
        "named = [thread for thread in threading.enumerate() if thread.name.startswith('tiles')]\n"
        "assert len(named) <= cores, named\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0
