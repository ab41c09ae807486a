"""Mutated slides, read in a process of their own.

    python -m tests.read.fuzz_tiff FOLDER FIRST LAST [--stage]

Each case is a small valid file with a few numbers of its header or bytes of its tiles changed. Reading it
works or raises a KitError; the name of a case is printed before it is read, so that a crash has a name.
"""

from __future__ import annotations

import dataclasses
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from kit.competition import TileGrid
from kit.errors import KitError, SettingError
from kit.read import budget, slide, tiler
from kit.read.reader import Reader
from kit.read.recipes import RECIPES
from tests.bench.harness import peak

SECONDS = 30  # a case; most take a hundredth of one
ADDRESSES = 6 * 2**30  # bytes of address space
RESIDENT = 700  # MiB that all of it may take, libraries included
LOOKED = 3_000_000  # pixels of an overview
DECODED = 1e9  # pixels that an overview may cost

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    4096,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
TAGS = (
    254,
    256,
    257,
    258,
    259,
    262,
    270,
    273,
    274,
    277,
    278,
    279,
    282,
    284,
    296,
    305,
    317,
    322,
    323,
    324,
    325,
)
TAGS += (330, 339, 347, 530, 700, 33560, 42113, 65000, 65420)


def kinds() -> dict[str, dict[str, Any]]:
    """What is written, by the name of the kind."""
    tiled: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb"}
    deflate = {**tiled, "compression": "deflate", "predictor": 2}
    return {
        "deflate": deflate,
        "big": {**deflate, "bigtiff": True},
        "lzw": {**tiled, "compression": "lzw"},
        "none": {**tiled, "compression": None},
        "jpeg": {**tiled, "compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)},
        "rgbjpeg": {**tiled, "compression": "jpeg"},
        "pyramid": deflate,
        "planar": {**deflate, "planarconfig": "separate"},
        "strips": {"photometric": "rgb", "rowsperstrip": 16},
        "aperio": {**deflate, "description": "Aperio Image Library v12\r\n300x200 |AppMag = 20|MPP = 0.5"},
        "ndpi": {**deflate, "extratags": [(65420, 3, 1, 1, True), (271, 2, 10, "Hamamatsu", True)]},
        "philips": {
            **deflate,
            "software": "Philips DP v1.0",
            "description": "<?xml?><DataObject></DataObject>",
        },
        "ventana": {**deflate, "extratags": [(700, 1, 18, b"<iScan Mag='20' />", True)]},
    }


def write(path: Path, kind: str) -> bytes:
    """Write a valid slide of 300 x 200 pixels; returns its bytes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (13, 19, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)[:200, :300]
    options = kinds()[kind]
    if options.get("planarconfig"):
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as file:
        file.write(pixels, **options)
        if kind in ("pyramid", "aperio", "philips"):
            file.write(np.ascontiguousarray(pixels[::4, ::4]), subfiletype=1, **options)
    return path.read_bytes()


def _entries(data: bytes) -> list[tuple[int, int]]:
    """Place and size of each tag of each directory."""
    big = data[2] == 43
    place, size, found = int.from_bytes(data[8:16] if big else data[4:8], "little"), 20 if big else 12, []
    while place:
        count = int.from_bytes(data[place : place + (8 if big else 2)], "little")
        start = place + (8 if big else 2)
        found += [(start + number * size, size) for number in range(count)]
        after = start + count * size
        place = int.from_bytes(data[after : after + (8 if big else 4)], "little")
        found.append((after, 8 if big else 4))  # the link to the next directory
    return found


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes of a file."""
    changed = bytearray(data)
    entries = _entries(data)
    for _ in range(rng.integers(1, 4)):
        _change(changed, entries, rng)
    return bytes(changed)


def _change(data: bytearray, entries: list[tuple[int, int]], rng: np.random.Generator) -> None:
    kind = rng.choice(
        ["number", "tag", "byte", "anywhere", "cut", "end"], p=[0.5, 0.1, 0.2, 0.12, 0.04, 0.04]
    )
    place, size = entries[rng.integers(len(entries))]
    if kind == "cut":
        del data[int(len(data) * rng.random()) :]
    elif kind == "end":
        data += rng.bytes(100)
    elif kind == "anywhere" and data:
        data[rng.integers(len(data))] = rng.integers(256)
    elif place + size > len(data):
        return
    elif kind == "byte":
        data[place + rng.integers(size)] = rng.integers(256)
    elif kind == "tag":
        data[place : place + 2] = struct.pack("<H", int(rng.choice(TAGS)))
    else:
        wide = int(rng.choice([2, 4]))
        value = int(rng.choice(NUMBERS)) % 2 ** (8 * wide)
        at = place + int(rng.choice([2, 4, size - 4])) if size > 8 else place
        data[at : at + wide] = value.to_bytes(wide, "little")


def read(path: Path, grid: TileGrid, staged: bool = False) -> str:
    """Open a file, look at it and at two of its places, and do the stage's work; how it was read."""
    with slide.open_image(path, grid) as image:
        width, height = image.size
        factor = 1
        while width * height > LOOKED * factor**2 or image.decoded(factor) > DECODED:
            factor *= 2
            if factor > 4096:
                return "too large"
        overview = image.overview(max(factor, 8))
        assert overview.dtype == np.uint8 and overview.shape[2] == 3
        if staged:
            _stage(image, max(factor, 8))
        for x, y, size, out in (
            (0, 0, 64, 64),
            (width // 2, height // 2, 200, 50),
            (-10, height - 5, 30, 60),
        ):
            region: NDArray[np.uint8] = image.region(x, y, size, out)
            assert region.shape == (out, out, 3)
        return image.how


def _stage(image: Reader, overview: int) -> None:
    """What the stage ``tile`` does with an open slide, by every recipe."""
    small = TileGrid(size=32, scale=2, count=6, overview=overview, min_tissue=0.05)
    for recipe in RECIPES:
        asked = dataclasses.replace(small, recipe=recipe, colour="macenko" if recipe == "grid" else "none")
        wanted, _ = budget.within(image, asked)
        try:
            found = tiler.look(image, wanted)
            for cut, pixels in RECIPES[recipe](image, found, wanted, np.random.default_rng(0)):
                assert cut.side > 0 and pixels.dtype == np.uint8
        except SettingError:  # of the settings above, and not of the file
            continue


def main(folder: Path, first: int, last: int, staged: bool = False) -> None:
    """Read the cases from ``first`` to before ``last``; an exception that is no KitError ends the process.

    Args:
        staged: whether the stage's work is done on what can be read, too.
    """
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    valid = {kind: write(folder / "valid.tif", kind) for kind in kinds()}
    ends: dict[str, int] = {}
    for case in range(first, last):
        rng = np.random.default_rng([20, case])
        kind = list(valid)[case % len(valid)]
        path = folder / "case.tif"
        path.write_bytes(mutated(valid[kind], rng))
        print(f"case {case} {kind}", file=sys.stderr, flush=True)
        for grid in (TileGrid(), TileGrid(index=False)):
            signal.alarm(SECONDS)
            end = _ended(lambda path=path, grid=grid: read(path, grid, staged))  # type: ignore[misc]
            signal.alarm(0)
            ends[end] = ends.get(end, 0) + 1
        most = peak()
        assert most < RESIDENT, f"{most:.0f} MiB"
    print(ends)


def _ended(reading: Callable[[], str]) -> str:
    try:
        return reading().split(":")[0]
    except KitError as error:
        if "case.tif" not in error.message or not error.hint:
            raise ValueError(f"it does not say which file and what to do: {error.message}") from error
        return "KitError"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["--stage"])
