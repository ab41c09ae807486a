"""Slides by their own index: several at once, bounded memory, and damage that is told."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.read import slide

ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(4).integers(0, 256, (700, 900, 3), dtype=np.uint8)

# The peak beyond what the imports take, in MiB, of an overview and a region that may fail.
MEMORY = """
import resource, sys
from pathlib import Path
from kit.competition import TileGrid
from kit.errors import ImageError
from kit.read import indexed, slide
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
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
