"""Other libraries on one slide: a question as JSON on the standard input, the answer on the output.

This file runs in the peers' environment and imports nothing of the kit. Every question is asked of a
process of its own; opening the slide counts, importing the libraries does not. Two threads, where the
library lets them help.

Question: ``{"task": "overview" | "tiles", "system": ..., "path": ..., "factor": ..., "corners": [[x, y],
...], "save": FILE or null}``. ``corners`` are those of squares of 256 pixels, multiples of 256.
Answer: ``{"wall_s", "cpu_s", "peak_mib"}``. With ``save``, the overview, or the CRC-32 of each square, is
written there too; of an answer with checksums the times mean nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ["VIPS_CONCURRENCY"] = "2"

import imagecodecs
import numpy as np
import openslide
import pyvips
import tifffile
from numpy.typing import NDArray

SIDE = 256  # of a square
BLOCK = 2048  # pixels to a side that are read at once for an overview
THREADS = 2

Pixels = NDArray[np.uint8]
Corners = list[tuple[int, int]]
Read = Callable[[int, int], Pixels]  # left and top of a square -> its pixels
Use = Callable[[Pixels], int]


def openslide_thumbnail(path: str, factor: int) -> Pixels:
    """What most pipelines call; of a slide with one level it reads the whole level at once."""
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
        return np.asarray(slide.get_thumbnail((-(-width // factor), -(-height // factor))))


def openslide_blocks(path: str, factor: int) -> Pixels:
    """The mean of every factor x factor pixels, block by block, in two threads with a handle each."""
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
    whole = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    corners = [(x, y) for y in range(0, height, BLOCK) for x in range(0, width, BLOCK)]

    def make() -> Read:
        slide = openslide.OpenSlide(path)

        def read(x: int, y: int) -> Pixels:
            size = min(BLOCK, width - x), min(BLOCK, height - y)
            small = np.asarray(slide.read_region((x, y), 0, size).convert("RGB").reduce(factor))
            top, left = y // factor, x // factor
            whole[top : top + small.shape[0], left : left + small.shape[1]] = small
            return small

        return read

    in_halves(make, corners, len)
    return whole


def pyvips_shrink(path: str, factor: int) -> Pixels:
    """The mean of every factor x factor pixels, in one pass over the file."""
    image = pyvips.Image.new_from_file(path, access="sequential")
    return np.asarray(image.shrink(factor, factor, ceil=True).numpy())


def tifffile_whole(path: str, factor: int) -> Pixels:
    """The whole level in memory; of it every ``factor``-th pixel, which costs nothing."""
    return np.asarray(tifffile.imread(path, maxworkers=THREADS)[::factor, ::factor])


def in_halves(make: Callable[[], Read], corners: Corners, use: Use) -> list[int]:
    """Read squares in two threads, each with half of them and a reader of its own."""

    def work(part: Corners) -> list[int]:
        read = make()
        return [use(read(x, y)) for x, y in part]

    middle = -(-len(corners) // 2)
    with ThreadPoolExecutor(THREADS) as pool:
        first, second = pool.map(work, (corners[:middle], corners[middle:]))
    return first + second


def openslide_reader(path: str) -> Read:
    """Squares by ``read_region``, without the alpha channel."""
    slide = openslide.OpenSlide(path)
    return lambda x, y: np.asarray(slide.read_region((x, y), 0, (SIDE, SIDE)))[:, :, :3]


def pyvips_reader(path: str) -> Read:
    """Squares by ``Region.fetch``, the fastest way of it."""
    region = pyvips.Region.new(pyvips.Image.new_from_file(path))
    return lambda x, y: np.frombuffer(region.fetch(x, y, SIDE, SIDE), np.uint8).reshape(SIDE, SIDE, 3)


def tifffile_reader(path: str) -> Read:
    """Squares from the TIFF tiles that tifffile decodes one by one."""
    page: Any = tifffile.TiffFile(path).pages[0]
    handle = page.parent.filehandle
    per_row = -(-page.imagewidth // page.tilewidth)

    def tile(number: int) -> Pixels:
        handle.seek(page.dataoffsets[number])
        return np.asarray(page.decode(handle.read(page.databytecounts[number]), number)[0][0])

    def read(x: int, y: int) -> Pixels:
        side = page.tilewidth
        first, number = y // side * per_row + x // side, SIDE // side
        rows = [[tile(first + r * per_row + c) for c in range(number)] for r in range(number)]
        return np.vstack([np.hstack(row) for row in rows])

    return read


def limit(path: str) -> Callable[[], Read]:
    """Nothing but reading, inflating and adding up, of tiles whose places are known before."""
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        offsets, lengths, side = page.dataoffsets, page.databytecounts, page.tilewidth
        per_row = -(-page.imagewidth // side)
    number = SIDE // side
    file_number = os.open(path, os.O_RDONLY)

    def make() -> Read:
        tiles = np.empty((number, number, side, side, 3), np.uint8)
        square = tiles.transpose(0, 2, 1, 3, 4)

        def read(x: int, y: int) -> Pixels:
            first = y // side * per_row + x // side
            for row in range(number):
                for column in range(number):
                    at, tile = first + row * per_row + column, tiles[row, column]  # a view
                    coded = os.pread(file_number, lengths[at], offsets[at])
                    imagecodecs.deflate_decode(coded, out=tile.reshape(-1))
                    imagecodecs.delta_decode(tile, axis=1, out=tile)
            return square

        return read

    return make


OVERVIEWS: dict[str, Callable[[str, int], Pixels]] = {
    "openslide get_thumbnail": openslide_thumbnail,
    "openslide by blocks": openslide_blocks,
    "pyvips": pyvips_shrink,
    "tifffile whole level": tifffile_whole,
}
READERS: dict[str, Callable[[str], Read]] = {
    "openslide": openslide_reader,
    "pyvips": pyvips_reader,
    "tifffile": tifffile_reader,
}


def prepared(question: dict[str, Any]) -> Callable[[], Any]:
    """What is to be timed."""
    path, system = question["path"], question["system"]
    if question["task"] == "overview":
        return lambda: OVERVIEWS[system](path, question["factor"])
    corners = [(int(x), int(y)) for x, y in question["corners"]]
    make = limit(path) if system == "limit" else lambda: READERS[system](path)
    return lambda: in_halves(make, corners, checksum if question["save"] else len)


def checksum(pixels: Pixels) -> int:
    """CRC-32 of the bytes of a square, row by row."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def peak() -> float:
    """The peak memory of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def main() -> None:
    """Answer one question."""
    question = json.load(sys.stdin)
    answer = prepared(question)
    wall, cpu = time.perf_counter(), time.process_time()
    result = answer()
    cost = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "peak_mib": peak()}
    if question["save"]:
        np.save(question["save"], np.asarray(result))
    print(json.dumps(cost))


if __name__ == "__main__":
    main()
