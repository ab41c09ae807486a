"""The slides of the benchmark: made tissue on blank glass, of any size, with the exact truth beside them.

A slide is planned in cells of 32 pixels. Whole tiles of tissue repeat the bytes of a few hundred tiles
that are encoded once, blank ones those of one; only tiles on an outline are drawn and encoded one by
one, a row at a time. So memory stays bounded, and a slide of 5 Gpx takes less than a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from kit import seeds
from kit.files import digest, file_digest, read_arrays, write_file
from tests.bench.environment import ROOT

FOLDER = ROOT / "work" / "bench-slides"
CELL = 32  # pixels to a side of a cell of the plan and of the truth
PERIOD = 2048  # the texture repeats after this many pixels, without a seam
THREADS = 2
QUALITY = 80  # of JPEG
SPECKS = 6e-8  # pale specks a pixel of a slide

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Field = NDArray[np.float32]
Encode = Callable[[Pixels], bytes]
Format = Literal["Deflate", "LZW", "JPEG"]


@dataclass(frozen=True)
class Spec:
    """One slide; all that decides its bytes, beside this file."""

    width: int
    height: int
    share: float  # of the slide that is tissue; the truth has the exact number
    compression: Format = "Deflate"  # LZW and Deflate with predictor 2; JPEG as YCbCr 4:2:0
    background: tuple[int, int, int] = (255, 255, 255)
    big: bool = False  # BigTIFF
    seed: int = 0

    @property
    def tile(self) -> int:
        """The side of a TIFF tile in pixels."""
        return 256 if self.compression == "JPEG" else 128

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of TIFF tiles."""
        return -(-self.height // self.tile), -(-self.width // self.tile)

    @property
    def mpx(self) -> float:
        """Megapixels."""
        return self.width * self.height / 1e6

    @property
    def name(self) -> str:
        """What a person calls it."""
        size = f"{self.mpx / 1000:.1f} Gpx" if self.mpx >= 1000 else f"{self.mpx:.0f} Mpx"
        return f"{size} {self.compression} {100 * self.share:.0f} %"


@dataclass(frozen=True)
class Truth:
    """Where the tissue of a slide truly is.

    counts: the tissue pixels of each cell of 32 x 32 pixels, uint16 (ceil(height / 32), ceil(width / 32)).
    """

    spec: Spec
    counts: NDArray[np.uint16]

    @property
    def mask(self) -> Mask:
        """The cells of which at least half is tissue: bool, as ``counts``."""
        return np.asarray(2 * self.counts >= _areas(self.spec))

    @property
    def share(self) -> float:
        """The tissue share of the slide, to the pixel."""
        return int(self.counts.sum(dtype=np.int64)) / (self.spec.width * self.spec.height)

    def squares(self, side: int = 256) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Left, top and true tissue share of every square of a grid that lies inside of the slide, (n,)."""
        rows, columns, cells = self.spec.height // side, self.spec.width // side, side // CELL
        inside = self.counts[: rows * cells, : columns * cells].reshape(rows, cells, columns, cells)
        shares = inside.sum(axis=(1, 3), dtype=np.int64) / side**2
        y, x = np.indices(shares.shape) * side
        return x.ravel(), y.ravel(), shares.ravel()


def _areas(spec: Spec) -> NDArray[np.int64]:
    """The pixels of each cell that lie inside of the slide."""
    down, across = (
        np.diff(np.append(np.arange(0, length, CELL), length)) for length in (spec.height, spec.width)
    )
    return np.outer(down, across)


@dataclass(frozen=True)
class Made:
    """A slide on the disk."""

    spec: Spec
    path: Path
    truth: Truth


def made(spec: Spec, folder: Path = FOLDER) -> Made:
    """A slide and its truth, written at the first call; a change of the spec or of this file makes it anew.

    The folder keeps about 0.4 bytes a pixel at 26 % tissue, and no earlier version of a slide.
    """
    wanted = digest([asdict(spec), file_digest(Path(__file__)), tifffile.__version__])[:12]
    stem = f"{spec.name} {''.join(f'{c:02x}' for c in spec.background)}".replace(" ", "-").replace("%", "pc")
    path = folder / f"{stem}-{wanted}.tif"
    kept = read_arrays(path.with_suffix(".npz"), ["counts"]) if path.exists() else None
    if kept is not None:
        return Made(spec, path, Truth(spec, kept["counts"]))
    counts: list[NDArray[np.uint16]] = []
    write_file(path, lambda temporary: counts.append(write_slide(temporary, spec)))
    # The truth is written last: without it the slide does not count.
    write_file(path.with_suffix(".npz"), lambda to: np.savez_compressed(to, counts=counts[0]))
    for other in folder.glob(f"{stem}-*"):
        if other.stem != path.stem:
            other.unlink(missing_ok=True)
    return Made(spec, path, Truth(spec, counts[0]))


def write_slide(path: Path, spec: Spec) -> NDArray[np.uint16]:
    """Write one slide; returns the tissue pixels of each cell, as in :class:`Truth`."""
    painter = Painter(spec)
    options: dict[str, Any] = {"compression": "adobe_deflate" if spec.compression == "Deflate" else "lzw"}
    options |= {"predictor": 2, "photometric": "rgb"}
    if spec.compression == "JPEG":
        tables = _split(_jpeg(painter.picture[: spec.tile, : spec.tile]))[0]
        options = {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)}
        options["extratags"] = [("JPEGTables", 7, len(tables), tables, True)]
    with tifffile.TiffWriter(path, bigtiff=spec.big) as writer:
        writer.write(
            painter.tiles(),
            shape=(spec.height, spec.width, 3),
            dtype="uint8",
            tile=(spec.tile, spec.tile),
            resolution=(10, 10),  # a library's default, as the real slides have it
            resolutionunit="CENTIMETER",
            software=False,
            metadata=None,
            **options,
        )
    return painter.counts


class Painter:
    """Draws the tiles of one slide in the order of the file, and counts the tissue of its cells."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.glass = np.array(spec.background, np.uint8)
        light = np.arange(256)[:, None] * (self.glass / 255)  # tissue is seen through the same glass
        lit = cv2.LUT(texture(spec.seed), light.round().astype(np.uint8)[None])
        self.picture: Pixels = np.asarray(lit, np.uint8)
        self.field = outline(spec)
        self.counts = np.zeros_like(_areas(spec), np.uint16)
        self.encode: Encode = ENCODERS[spec.compression]
        self.whole: dict[tuple[int, int], bytes] = {}  # encoded tiles of the texture, by their place in it

    def tiles(self) -> Iterator[bytes]:
        """The encoded tiles, row by row."""
        (rows, columns), cells = self.spec.grid, self.spec.tile // CELL
        windows = np.lib.stride_tricks.sliding_window_view(self.field, (cells + 2,) * 2)[::cells, ::cells]
        # The outline is interpolated between cells: a tile depends on the cells around it too.
        whole, blank = windows.min(axis=(2, 3)) > 0, windows.max(axis=(2, 3)) <= 0
        specks = self._specks(blank)
        empty = self.encode(np.full((self.spec.tile, self.spec.tile, 3), self.glass, np.uint8))
        with ThreadPoolExecutor(THREADS) as pool:
            for row in range(rows):
                for column in np.flatnonzero(whole[row]).tolist():
                    self._count(row, column, np.ones((self.spec.tile,) * 2, np.bool_))
                drawn = [*np.flatnonzero(~(whole | blank)[row]).tolist(), *specks.get(row, [])]
                encoded = pool.map(self._draw, [row] * len(drawn), drawn, blank[row, drawn].tolist())
                edges = dict(zip(drawn, encoded, strict=True))
                for column in range(columns):
                    if whole[row, column]:
                        yield self._whole(row, column)
                    else:
                        yield edges.get(column, empty)

    def _texture(self, row: int, column: int) -> tuple[tuple[int, int], Pixels]:
        """The place in the texture that a tile shows, and its pixels."""
        side = self.spec.tile
        top, left = row * side % PERIOD, column * side % PERIOD
        return (top, left), self.picture[top : top + side, left : left + side]

    def _whole(self, row: int, column: int) -> bytes:
        """A tile that is all tissue."""
        place, pixels = self._texture(row, column)
        if place not in self.whole:
            self.whole[place] = self.encode(pixels)
        return self.whole[place]

    def _draw(self, row: int, column: int, speck: bool) -> bytes:
        """A tile on an outline, or a blank one with a pale speck."""
        side, cells = self.spec.tile, self.spec.tile // CELL
        part = self.field[row * cells : (row + 1) * cells + 2, column * cells : (column + 1) * cells + 2]
        smooth = cv2.resize(part, None, fx=CELL, fy=CELL, interpolation=cv2.INTER_LINEAR)
        inside = smooth[CELL:-CELL, CELL:-CELL] > 0
        self._count(row, column, inside)
        pixels = np.where(inside[..., None], self._texture(row, column)[1], self.glass)
        if speck:
            rng = seeds.rng(self.spec.seed, "speck", row, column)
            radius = int(rng.integers(4, side // 4))
            centre = [int(at) for at in rng.integers(radius, side - radius, 2)]
            colour = (self.glass * rng.uniform(0.8, 0.94)).round().tolist()
            cv2.circle(pixels, centre, radius, colour, -1)
        return self.encode(np.ascontiguousarray(pixels))

    def _count(self, row: int, column: int, inside: Mask) -> None:
        """Note the tissue pixels of a tile that lie inside of the slide."""
        side, cells = self.spec.tile, self.spec.tile // CELL
        there = np.zeros_like(inside)
        part = (slice(0, self.spec.height - row * side), slice(0, self.spec.width - column * side))
        there[part] = inside[part]
        counts = there.reshape(cells, CELL, cells, CELL).sum(axis=(1, 3), dtype=np.uint16)
        target = self.counts[row * cells : (row + 1) * cells, column * cells : (column + 1) * cells]
        target[:] = counts[: target.shape[0], : target.shape[1]]

    def _specks(self, blank: Mask) -> dict[int, list[int]]:
        """The blank tiles that hold a pale speck: columns by row."""
        places = np.argwhere(blank)
        number = min(len(places), max(2, round(SPECKS * self.spec.width * self.spec.height)))
        found: dict[int, list[int]] = {}
        for row, column in seeds.rng(self.spec.seed, "specks").choice(places, number, replace=False):
            found.setdefault(int(row), []).append(int(column))
        return found


def outline(spec: Spec) -> Field:
    """Tissue is where this map is positive: several ragged blobs, with a margin of one cell all round.

    Returns:
        float32 (rows + 2, columns + 2), one value a cell of 32 pixels, whole TIFF tiles of them.
    """
    rng = seeds.rng(spec.seed, "outline")
    rows, columns = (number * spec.tile // CELL for number in spec.grid)
    scale = min(rows, columns)
    y, x = np.mgrid[: rows + 2, : columns + 2].astype(np.float32)
    field = np.full(y.shape, -np.inf, np.float32)
    for place in range(6):  # in two columns of three boxes
        centre = (np.array(divmod(place, 2)) + 0.5 + rng.uniform(-0.15, 0.15, 2)) * (rows / 3, columns / 2)
        turn, slim = rng.uniform(0, np.pi), rng.uniform(0.45, 0.9)
        down, across = y - centre[0], x - centre[1]
        along = down * np.cos(turn) + across * np.sin(turn)
        beside = across * np.cos(turn) - down * np.sin(turn)
        field = np.maximum(field, 1 - np.hypot(along, beside / slim) / (0.4 * scale) * rng.uniform(0.8, 1.25))
    for sigma, weight in ((scale / 16, 0.16), (scale / 60, 0.05), (2.0, 0.012)):
        field += weight * _noise(rng, field.shape, sigma)
    there = field[1 : 1 + -(-spec.height // CELL), 1 : 1 + -(-spec.width // CELL)]
    level = np.quantile(there, 1 - spec.share)
    return np.asarray(field - level, np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Field:
    """Smooth noise of unit variance."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), sigma)
    return np.asarray(noise / noise.std(), np.float32)


@lru_cache(maxsize=1)
def texture(seed: int) -> Pixels:
    """Stained tissue that repeats without a seam: uint8 (2048, 2048, 3).

    Light is absorbed by two dyes (Beer-Lambert) whose amounts vary at the scales of cells, fibres
    and regions. Sharp tissue of the real slides takes 1.39 bytes a pixel; so does this.
    """
    rng = seeds.rng(seed, "texture")
    spectrum = np.hypot(*np.meshgrid(np.fft.rfftfreq(PERIOD), np.fft.fftfreq(PERIOD)))

    def noise(sigma: float) -> Field:
        white = np.fft.rfft2(rng.standard_normal((PERIOD, PERIOD), np.float32))
        smooth = np.fft.irfft2(white * np.exp(-2 * (np.pi * sigma * spectrum) ** 2), s=(PERIOD, PERIOD))
        return np.asarray(smooth / smooth.std(), np.float32)

    cells, regions = noise(1.85), noise(90)
    red = np.clip(0.5 + 0.6 * regions + 0.35 * noise(14), 0, 1)  # rich in red cells, or in fibrin
    nuclei = np.clip(3 * (noise(2.5) - 2.2), 0, 1)
    eosin = (0.16 + 0.2 * red) * (1 + 0.24 * cells + 0.12 * noise(5) + 0.12 * noise(30))
    dyes = np.stack([np.maximum(eosin, 0.03), 0.7 * nuclei], axis=-1)
    absorbed = dyes @ np.array([(0.18, 1.0, 0.75), (0.75, 0.9, 0.45)], np.float32)
    return np.asarray((255 * 10**-absorbed).round(), np.uint8)


def _deflate(tile: Pixels) -> bytes:
    """Horizontal differences, then Deflate."""
    return bytes(imagecodecs.deflate_encode(_differences(tile), level=6))


def _lzw(tile: Pixels) -> bytes:
    """Horizontal differences, then LZW."""
    return bytes(imagecodecs.lzw_encode(_differences(tile)))


def _differences(tile: Pixels) -> bytes:
    return bytes(imagecodecs.delta_encode(np.ascontiguousarray(tile), axis=1).tobytes())


def _jpeg(tile: Pixels) -> bytes:
    """A whole JPEG file of YCbCr 4:2:0 with the standard's Huffman tables."""
    options: dict[str, Any] = {"colorspace": "rgb", "outcolorspace": "ycbcr", "subsampling": "420"}
    return bytes(
        imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=QUALITY, optimize=False, **options)
    )


def _split(whole: bytes) -> tuple[bytes, bytes]:
    """The tables of a JPEG file, and the rest of it; both start and end as a file does."""
    tables, rest, at = b"", b"", 2
    while whole[at + 1] != 0xDA:  # start of scan
        end = at + 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
        if whole[at + 1] in (0xC4, 0xDB):  # Huffman, quantisation
            tables += whole[at:end]
        elif whole[at + 1] != 0xE0:  # TIFF has no use for JFIF
            rest += whole[at:end]
        at = end
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest + whole[at:]


ENCODERS: dict[Format, Encode] = {
    "Deflate": _deflate,
    "LZW": _lzw,
    "JPEG": lambda tile: _split(_jpeg(tile))[1],
}
