"""One made slide: clots on a bright background, drawn tile by tile into a single-level tiled TIFF.

A slide is planned at an eighth of its resolution (where is tissue, where is it rich in red cells,
where is dust) and coloured only while its tiles are written, so memory stays bounded at any size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from scipy import ndimage

from kit import seeds
from kit.demo.textures import PERIOD, Pixels, Textures
from kit.files import write_file

TILE = 128
CELL = 8  # pixels to a side of one cell of the planning maps
FILL = (0.3, 0.5)  # the part of its square box that a clot covers: least and most
KEPT = 0.4  # the part of its bytes that a truncated file keeps
INSIDE, PER_CELL = 128, 40  # a map's value at an edge, and its change from cell to cell there
DUST = (96, 88, 84)

Mask = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]
Field = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SlidePlan:
    """What one slide shows; ``share`` is the part of every clot that is rich in red cells."""

    image_id: str
    split: str
    width: int
    height: int
    background: tuple[int, int, int]
    stain: tuple[float, float, float]  # factors on the colours of the tissue
    share: float
    kind: Literal["clot", "blank", "truncated"] = "clot"


@dataclass(frozen=True)
class Layers:
    """The planning maps of a slide in cells, with a margin of one cell all round.

    A cell is tissue, or rich in red cells, from INSIDE up; ``dust`` is its opacity; ``touched``
    says which tiles are not mere background.
    """

    tissue: Pixels
    red: Pixels
    dust: Pixels
    touched: Mask


def _pixels(image: object) -> Pixels:
    return np.asarray(image, dtype=np.uint8)


def draw_clot(rng: np.random.Generator, side: int, share: float) -> tuple[Pixels, Pixels]:
    """The outline of one clot in a square box of cells, and its parts that are rich in red cells.

    A cell belongs to a map where that is 128 or more. Exactly ``round(share * n)`` of the clot's
    n cells are rich in red cells.
    """
    tissue = _outline(rng, side)
    # Blurred noise crosses its mean every 4.4 sigma: patches of 40 to 140 pixels.
    noise = _noise(rng, side, rng.uniform(1.2, 4.0))
    inside = np.sort(noise[tissue >= INSIDE])
    return tissue, _soft(noise, inside[len(inside) - round(share * len(inside))])


def _noise(rng: np.random.Generator, side: int, sigma: float) -> Field:
    """Smooth noise of unit variance."""
    noise = np.asarray(cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), sigma))
    scaled: Field = noise / noise.std()
    return scaled


def _soft(field: Field, level: float) -> Pixels:
    """INSIDE or more where ``field >= level``; near the edge the value says how far it is.

    Interpolated, such a map gives a smooth contour; a map of zeros and ones gives stairs.
    """
    slope = np.hypot(*np.gradient(field)) + 1e-9
    distance = (field - level) / slope
    return _pixels(np.floor(np.clip(INSIDE + PER_CELL * distance, 0, 255)))


def _outline(rng: np.random.Generator, side: int) -> Pixels:
    """A few joined ellipses with a ragged edge, in one piece."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    ellipses = [_ellipse(rng, x, y) for _ in range(int(rng.integers(2, 5)))]
    rough = 0.35 * _noise(rng, side, side / 14) + 0.1 * _noise(rng, side, 1 + side / 64)
    # The last term keeps the clot off the walls of its box.
    field = np.max(ellipses, axis=0) + rough - 4 * np.hypot(x, y) ** 10
    outline = _soft(field, float(np.quantile(field, 1 - rng.uniform(*FILL))))
    outline[[0, -1], :] = outline[:, [0, -1]] = 0
    pieces, _ = ndimage.label(outline > 0)
    outline[pieces != 1 + np.argmax(np.bincount(pieces.ravel())[1:])] = 0
    return outline


def _ellipse(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """One at its centre, zero on its edge, negative outside."""
    turn = rng.uniform(0, np.pi)
    x, y = x - rng.uniform(-0.4, 0.4), y - rng.uniform(-0.4, 0.4)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    inside: Field = 1 - (along / rng.uniform(0.5, 1)) ** 2 - (across / rng.uniform(0.2, 0.5)) ** 2
    return inside


def draw_layers(seed: int, plan: SlidePlan) -> Layers:
    """Plan a slide: its clots, the repeated sections of them, and dust beside them."""
    rng = seeds.rng(seed, "demo", "slide", plan.image_id)
    down, across = -(-plan.height // TILE), -(-plan.width // TILE)
    per_tile = TILE // CELL
    shape = (down * per_tile + 2, across * per_tile + 2)
    tissue, red = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    if plan.kind != "blank":
        _paste_sections(rng, plan, tissue, red)
    dust = _dust(rng, plan, shape)
    dust[np.asarray(cv2.dilate(tissue, np.ones((5, 5), np.uint8))) > 0] = 0
    # A cell colours pixels of its neighbours too, because the maps are interpolated.
    near = np.asarray(cv2.dilate(tissue | dust, np.ones((3, 3), np.uint8)))[1:-1, 1:-1] > 0
    touched = near.reshape(down, per_tile, across, per_tile).any(axis=(1, 3))
    return Layers(tissue, red, dust, np.asarray(touched))


def _paste_sections(rng: np.random.Generator, plan: SlidePlan, tissue: Pixels, red: Pixels) -> None:
    """Put every section into its box, turned and flipped at random like a cut on a slide."""
    order = _sections(rng)
    side, corners = _boxes(rng, plan, len(order))
    clots = [draw_clot(rng, side, plan.share) for _ in range(max(order) + 1)]
    for number, (y, x) in zip(order, corners, strict=True):
        turns, flip = int(rng.integers(4)), int(rng.choice((-1, 1)))
        for layer, mask in zip((tissue, red), clots[number], strict=True):
            layer[y : y + side, x : x + side] = np.rot90(mask, turns)[::flip]


def _sections(rng: np.random.Generator) -> list[int]:
    """The clot that each section shows: on four slides in ten one clot is cut two to four times."""
    if rng.random() < 0.4:
        return [0] * int(rng.integers(2, 5)) + [1] * int(rng.random() < 0.3)
    return list(range(int(rng.integers(1, 4))))


def _boxes(rng: np.random.Generator, plan: SlidePlan, count: int) -> tuple[int, list[tuple[int, int]]]:
    """The side of a section's box and the corner of each, in cells; no two boxes overlap."""
    height, width = plan.height // CELL, plan.width // CELL
    grids = [(rows, -(-count // rows)) for rows in range(1, count + 1)]
    room, rows, cols = max((min(height // r, width // c) - 2, r, c) for r, c in grids)
    covered = float(np.clip(rng.lognormal(np.log(0.12), 0.5), 0.03, 0.22))
    side = min(room, round((covered * height * width / (count * np.mean(FILL))) ** 0.5))
    places = rng.permutation(rows * cols)[:count]
    slack = (height // rows - side - 1, width // cols - side - 1)
    corners = [divmod(int(place), cols) for place in places]
    return side, [
        (
            1 + row * (height // rows) + int(rng.integers(slack[0] + 1)),
            1 + col * (width // cols) + int(rng.integers(slack[1] + 1)),
        )
        for row, col in corners
    ]


def _dust(rng: np.random.Generator, plan: SlidePlan, shape: tuple[int, int]) -> Pixels:
    """Specks, and now and then a hair, of any opacity."""
    dust = np.zeros(shape, np.uint8)
    for _ in range(1 + rng.poisson(1.5e-6 * plan.width * plan.height)):
        y, x = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
        opacity = int(rng.integers(90, 256))
        if rng.random() < 0.1:
            steps = np.array((x, y)) + rng.integers(-6, 7, (5, 2)).cumsum(axis=0)
            cv2.polylines(dust, [steps.astype(np.int32)], False, opacity)
        else:
            cv2.circle(dust, (x, y), int(rng.integers(0, 2)), opacity, -1)
    return _pixels(cv2.GaussianBlur(dust, (3, 3), 0))


# What an interpolated map weighs in the picture: the edge of a tissue is four pixels wide.
_EDGE = np.clip((np.arange(256) - INSIDE) * CELL / PER_CELL / 4 + 0.5, 0, 1).astype(np.float32)
_OPACITY = (np.arange(256) / 255).astype(np.float32)


class Painter:
    """Colours any part of one slide from its layers."""

    def __init__(self, plan: SlidePlan, layers: Layers, tissues: Textures) -> None:
        self.plan, self.layers, self.tissues = plan, layers, tissues.stained(plan.stain)

    def strip(self, row: int, start: int, stop: int) -> Pixels:
        """The tiles ``start`` to ``stop`` of one row of tiles, side by side."""
        shape = (TILE, (stop - start) * TILE, 3)
        image = np.full(shape, self.plan.background, np.uint8)
        tissue = self._weights(self.layers.tissue, row, start, stop, _EDGE)
        if tissue.any():
            red = self._weights(self.layers.red, row, start, stop, _EDGE)
            clot = _blend(*self._textures(row, start, stop), red)
            image = _blend(clot, image, tissue)
        dust = self._weights(self.layers.dust, row, start, stop, _OPACITY)
        if dust.any():
            image = _blend(np.full(shape, DUST, np.uint8), image, dust)
        return image

    def _weights(self, layer: Pixels, row: int, start: int, stop: int, table: Weights) -> Weights:
        """A part of a map at full resolution; the margin makes it the same in every strip."""
        cells = TILE // CELL
        part = layer[row * cells : (row + 1) * cells + 2, start * cells : stop * cells + 2]
        large = cv2.resize(part, None, fx=CELL, fy=CELL, interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.LUT(large[CELL:-CELL, CELL:-CELL], table), np.float32)

    def _textures(self, row: int, start: int, stop: int) -> tuple[Pixels, Pixels]:
        """Both textures under a strip: PERIOD is a multiple of TILE, so only columns wrap round."""
        top = row * TILE % PERIOD
        columns = np.arange(start * TILE, stop * TILE) % PERIOD
        red, fibrin = self.tissues.red, self.tissues.fibrin
        return (
            red[top : top + TILE].take(columns, axis=1),
            fibrin[top : top + TILE].take(columns, axis=1),
        )


def _blend(over: Pixels, under: Pixels, weight: Weights) -> Pixels:
    return _pixels(cv2.blendLinear(over, under, weight, 1 - weight))


def _encode(tile: Pixels) -> bytes:
    """Horizontal differences, then Deflate."""
    difference = imagecodecs.delta_encode(np.ascontiguousarray(tile), axis=1)
    return bytes(imagecodecs.deflate_encode(difference.tobytes(), level=5))


def encoded_tiles(painter: Painter) -> Iterator[bytes]:
    """The encoded tiles of a slide, row by row; untouched tiles are encoded once."""
    blank = _encode(np.full((TILE, TILE, 3), painter.plan.background, np.uint8))
    for row, touched in enumerate(painter.layers.touched):
        edges = np.flatnonzero(np.diff(touched, prepend=False, append=False)).tolist()
        done = 0
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            yield from [blank] * (start - done)
            strip = painter.strip(row, start, stop)
            for left in range(0, strip.shape[1], TILE):
                yield _encode(strip[:, left : left + TILE])
            done = stop
        yield from [blank] * (len(touched) - done)


def write_slide(path: Path, seed: int, plan: SlidePlan, tissues: Textures) -> None:
    """Write one slide, whole or not at all; a truncated one keeps the first part of its bytes."""
    painter = Painter(plan, draw_layers(seed, plan), tissues)
    write_file(path, lambda temporary: _write_tiff(temporary, painter))


def _write_tiff(path: Path, painter: Painter) -> None:
    plan = painter.plan
    options: dict[str, Any] = {"compression": "adobe_deflate", "predictor": 2}
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            encoded_tiles(painter),
            shape=(plan.height, plan.width, 3),
            dtype="uint8",
            photometric="rgb",
            tile=(TILE, TILE),
            # Like the real slides: a library's default, not a resolution that can be used.
            resolution=(10, 10),
            resolutionunit="CENTIMETER",
            software=False,
            metadata=None,
            **options,
        )
    if plan.kind == "truncated":
        os.truncate(path, int(path.stat().st_size * KEPT))
