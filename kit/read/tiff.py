"""The tile index of a TIFF: where the bytes of each tile are, from the header alone.

Classic TIFF and BigTIFF with tiles of three 8-bit channels are indexed, with their pyramid where they have
one. All else (strips, other depths and colours, the scanners' own formats) is left to OpenSlide.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from kit.errors import ImageError
from kit.read.codec import JPEG, LOSSLESS, NONE, Codec
from kit.read.reader import check_size, plausible_mpp

SIDE = 4096  # the longest side of a tile
TILES = 2**23  # the most tiles of a level: a hundred gigapixels of 128 x 128
LEVELS = 32  # the most directories that are looked at
ASPECT = 0.02  # by which a level's sides may be shrunk differently, beside the rounding to whole pixels
RGB, YCBCR = 2, 6
MICROMETRES = {2: 25400.0, 3: 10000.0}  # of TIFF's units of resolution, the inch and the centimetre
# tifffile's names of formats whose levels, overlaps or colours follow rules of their own
VENDORS = {"svs", "ndpi", "scn", "philips", "bif", "qpi", "avs", "eer", "fluoview", "zif", "lsm", "stk"}

AGAIN = "download it again; for plain pictures declare reader='photo'"
CONVERT = (
    "convert it: vips tiffsave IN.tif OUT.tif --tile --compression deflate; for small pictures declare"
    " reader='photo'; if it is damaged, download it again"
)

Integers = NDArray[np.int64]

# What tifffile logs about a damaged header is said again, with the name of the file, by what is raised.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


class NotIndexed(Exception):
    """The file is for OpenSlide; the message says why, and the hint what to do if it is not for it either."""

    def __init__(self, message: str, hint: str = AGAIN) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Level:
    """One resolution of a slide as a grid of tiles, row by row.

    offsets, counts: place and number of bytes of each tile, ``(rows * columns,)``; no bytes: a blank tile.
    reduced: 1, or 8 where its JPEG tiles are decoded at an eighth.
    ratio: level-0 pixels to one of this level, across and down.
    """

    width: int
    height: int
    codec: Codec
    offsets: Integers
    counts: Integers
    reduced: int = 1
    ratio: tuple[float, float] = (1.0, 1.0)

    @property
    def tile(self) -> tuple[int, int]:
        """Width and height of a tile at this resolution."""
        return self.codec.width // self.reduced, self.codec.height // self.reduced

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile[0])

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.tile[1])


@dataclass(frozen=True)
class TileIndex:
    """A slide's levels, the finest first, and its micrometres a pixel where they are plausible."""

    path: Path
    levels: tuple[Level, ...]
    mpp: float | None


def read_index(path: Path) -> TileIndex:
    """Read the header of a TIFF; no pixel is decoded.

    Raises:
        NotIndexed: it is no TIFF, or one that is left to OpenSlide.
        ImageError: tiles lie beyond the end of the file, the header contradicts itself, or it declares
            what no slide has and no reader could hold in memory.
    """
    try:
        with tifffile.TiffFile(path) as file:
            pages = list(_pages(file))
            # Whoever reads it: OpenSlide would give memory to whatever is declared.
            for page in pages:
                _check_declared(page, path)
            vendor = _vendor(file, pages[0])
            if vendor:
                raise NotIndexed(f"its format is {vendor}")
            levels = [_level(page, path) for page in [pages[0], *_smaller(pages)]]
            mpp = _mpp(pages[0])
    except (NotIndexed, ImageError):
        raise
    except PermissionError as error:
        raise ImageError(f"{path}: it cannot be read: {error.strerror}", "check its rights") from error
    # A damaged header makes tifffile raise almost anything; OpenSlide then says what is wrong.
    except Exception as error:
        raise NotIndexed(f"its header is not understood: {' '.join(str(error).split())}") from error
    first = levels[0]
    return TileIndex(path, tuple(_scaled(level, first) for level in levels), mpp)


def _pages(file: tifffile.TiffFile) -> Iterator[Any]:
    """The directories, one after the other, and those within the first, where OME-TIFF has its pyramid."""
    yield from _chain(file.pages)
    # Only we look at these, so that one which is no image is no reason to refuse the file.
    within = _chain(file.pages[0].pages or [])
    yield from (page for page in within if page.imagewidth and page.imagelength)


def _chain(pages: Any) -> Iterator[Any]:
    """Some directories; their number is never asked for, since a chain may be a ring."""
    for number in range(LEVELS):
        try:
            yield pages[number]
        except IndexError:
            return


def _vendor(file: tifffile.TiffFile, page: Any) -> str:
    """The scanner's format that OpenSlide will find; empty if there is none."""
    found = [name for name in sorted(VENDORS) if getattr(file, f"is_{name}", False)]
    if page.description.startswith("Aperio"):
        found.append("svs")
    if page.software.startswith("MedScan"):
        found.append("trestle")
    if "Make" in page.tags and str(page.tags["Make"].value).startswith("Huron"):
        found.append("huron")
    return found[0] if found else ""


def _smaller(pages: list[Any]) -> list[Any]:
    """The directories that are smaller versions of the first one, the largest first.

    Raises:
        NotIndexed: one of them is not smaller.
    """
    width, height = pages[0].imagewidth, pages[0].imagelength
    found: dict[int, Any] = {}
    for page in pages[1:]:
        if not (page.is_tiled and page.subfiletype & 1):
            continue
        if page.imagewidth >= width:
            raise NotIndexed("its finest level is not the first")
        expected = height * page.imagewidth / width
        # Each side is rounded; what differs by more is a picture of something else, as of the label.
        rounding = 1 + height / width
        if abs(page.imagelength - expected) <= rounding + ASPECT * expected:
            found.setdefault(page.imagewidth, page)
    return [found[width] for width in sorted(found, reverse=True)]


def _scaled(level: Level, first: Level) -> Level:
    return dataclasses.replace(level, ratio=(first.width / level.width, first.height / level.height))


def _check_declared(page: Any, path: Path) -> None:
    """No directory declares more than a reader can hold."""
    check_size(path, (int(page.imagewidth), int(page.imagelength)))
    if page.is_tiled and not (0 < page.tilewidth <= SIDE and 0 < page.tilelength <= SIDE):
        raise ImageError(
            f"{path}: its tiles are of {page.tilewidth} x {page.tilelength} pixels, and {SIDE} x {SIDE} is"
            " the most that is read",
            "write it anew with smaller tiles (vips tiffsave --tile), or download it again",
        )


def _level(page: Any, path: Path) -> Level:
    """A directory as a level, if every number of it is one that can be relied on."""
    kind = _unusual(page)
    if kind:
        raise NotIndexed(kind, CONVERT)
    codec = Codec(
        int(page.compression),
        int(page.predictor),
        int(page.tilewidth),
        int(page.tilelength),
        bytes(page.jpegtables or b""),
        page.photometric == YCBCR,
    )
    offsets, counts = (np.asarray(values, np.int64) for values in (page.dataoffsets, page.databytecounts))
    level = Level(int(page.imagewidth), int(page.imagelength), codec, offsets, counts)
    _check_tiles(level, path)
    return level


def _unusual(page: Any) -> str:
    """Why a directory is left to OpenSlide; empty if it is not."""
    if not page.is_tiled:
        return "it is stored in strips, not in tiles"
    if page.samplesperpixel != 3 or tuple(np.atleast_1d(page.bitspersample)) not in ((8,), (8, 8, 8)):
        return f"it has {page.samplesperpixel} channels of {page.bitspersample} bits"
    if page.planarconfig != 1 or page.imagedepth != 1 or page.fillorder != 1:
        return "its channels or bits are stored in another order"
    if page.sampleformat != 1:
        return "its numbers are not unsigned"
    compression, photometric, predictor = int(page.compression), int(page.photometric), int(page.predictor)
    if compression not in (NONE, JPEG, *LOSSLESS):
        known = {kind.value: f"{kind.name}, " for kind in tifffile.COMPRESSION}
        return f"its compression is {known.get(compression, '')}number {compression}"
    if photometric != RGB and not (photometric == YCBCR and compression == JPEG):
        return f"its colours are of kind {photometric}"
    if predictor not in (1, 2) or (predictor == 2 and compression not in LOSSLESS):
        return f"its predictor is number {predictor}"
    if int(page.tags["Orientation"].value if "Orientation" in page.tags else 1) != 1:
        return "it is stored turned"
    return ""


def _check_tiles(level: Level, path: Path) -> None:
    """Offsets and counts are as many as there are tiles, and within the file."""
    tiles = level.rows * level.columns
    if tiles > TILES:
        raise ImageError(
            f"{path}: it declares {tiles} tiles, more than any slide",
            "its header is damaged: download it again",
        )
    if not len(level.offsets) == len(level.counts) == tiles:
        raise ImageError(
            f"{path}: {level.width} x {level.height} pixels need {tiles} tiles, and its index has"
            f" {len(level.offsets)} offsets and {len(level.counts)} byte counts",
            "its header is damaged: download it again",
        )
    size = os.path.getsize(path)
    outside = (level.counts < 0) | (level.offsets < 0) | (level.offsets > size - level.counts)
    outside &= level.counts != 0
    if outside.any():
        raise ImageError(
            f"{path}: {int(outside.sum())} of its {tiles} tiles lie beyond the end of the file"
            f" ({size} bytes)",
            "it is cut short: download it again",
        )


def _mpp(page: Any) -> float | None:
    """Micrometres a pixel by the resolution tags, where they are plausible."""
    tags = page.tags
    unit = MICROMETRES.get(int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2)
    if unit is None or "XResolution" not in tags:
        return None
    over, under = tags["XResolution"].value
    return plausible_mpp(unit * under / over) if over else None
