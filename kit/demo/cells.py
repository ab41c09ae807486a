"""Made blood cells of eight kinds in class folders, with the best possible answer beside them.

Four pairs of kinds differ at sight. Within a pair only the colour of the cytoplasm tells: every cell has a
latent number x, normal with unit variance about +1.25 for the second kind of its pair and -1.25 for the
first, and x alone fixes that colour. So ``P(second | x) = sigmoid(2.5 x)``, both being equally likely
beforehand, and no look at the pixels can do better: nine of ten is the most that is right.

As in real folders, one hidden file and one text are called like photographs, two cells are there twice, and
one of these lies in folders of two kinds.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit

from kit import seeds
from kit.errors import SettingError
from kit.files import write_bytes, write_table
from kit.parallel import run_all

VERSION = 1  # of the bytes that a seed makes
PAIRS = (
    ("basophil", "eosinophil"),
    ("lymphocyte", "erythroblast"),
    ("monocyte", "ig"),
    ("platelet", "neutrophil"),
)
CODES = {
    "basophil": "BA",
    "eosinophil": "EO",
    "erythroblast": "ERB",
    "ig": "IG",
    "lymphocyte": "LY",
    "monocyte": "MO",
    "neutrophil": "NE",
    "platelet": "PLT",
}
SEPARATION = 2.5  # between the class means of the latent, in its standard deviations
SIDE = 64  # pixels of an image
FEWEST = 80  # images; with fewer the oddities would be many of a kind
PAPER, RED, NUCLEUS = (246, 228, 222), (222, 168, 164), (108, 62, 140)
BLUE, ORANGE = np.array([138.0, 160.0, 222.0]), np.array([238.0, 178.0, 120.0])  # cytoplasm at x = -3 and 3
REACH = 3.0  # latents beyond have the colour of this one
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Cell:
    """One cell; ``latent`` decides the colour of its cytoplasm."""

    image_id: str
    label: str
    pair: int
    latent: float

    @property
    def posterior(self) -> dict[str, float]:
        """The probability of every kind, as well as pixels can tell it."""
        second = float(expit(SEPARATION * self.latent))
        first, other = PAIRS[self.pair]
        return dict.fromkeys(CODES, 0.0) | {first: 1 - second, other: second}


def make(
    folder: Path,
    seed: int,
    patients: int,
    test_patients: int = 0,
    workers: int = 1,
    largest: float = 0.0,
    **others: int,
) -> None:
    """Write the class folders, and ``posterior.csv`` beside them.

    An image that exists is left alone, so a folder belongs to one seed and one size. There is no test set.

    Args:
        patients: images in all, as many of each kind.

    Raises:
        SettingError: there are fewer images than the oddities need.
    """
    cells = cohort(seed, patients)
    todo = [cell for cell in cells if not _path(folder, cell).exists()]
    run_all(partial(_write, folder, seed), todo, workers, "demo cells")
    copies = _copies(cells)
    for cell, first in copies.items():
        write_bytes(_path(folder, cell), _path(folder, first).read_bytes())
    write_bytes(folder / "neutrophil" / ".DS_169665.jpg", b"\x00\x05\x16\x07")
    write_bytes(folder / "platelet" / "PLT_notes.jpg", b"counted twice, please repeat\n")
    table = [{"image_id": cell.image_id, "label": cell.label, **cell.posterior} for cell in (*cells, *copies)]
    write_table(folder / "posterior.csv", pd.DataFrame(table).sort_values("image_id"))


# The folders are the tables.
write_tables = make


def cohort(seed: int, images: int) -> list[Cell]:
    """All cells, sorted by id.

    Raises:
        SettingError: there are fewer than the oddities need.
    """
    if images < FEWEST:
        raise SettingError(f"a demo of {images} images is too small", f"write demo.patients={FEWEST} or more")
    each = -(-images // len(CODES))
    return sorted((cell for n in range(each) for cell in _octet(seed, n)), key=lambda cell: cell.image_id)


def _octet(seed: int, n: int) -> Iterator[Cell]:
    """One cell of every kind."""
    for pair, kinds in enumerate(PAIRS):
        for label, side in zip(kinds, (-1, 1), strict=True):
            draw = seeds.rng(seed, "demo cell", label, n)
            number = 100_000 + 7 * n + int(draw.integers(7))
            latent = side * SEPARATION / 2 + float(draw.standard_normal())
            yield Cell(f"{CODES[label]}_{number}", label, pair, latent)


def _path(folder: Path, cell: Cell) -> Path:
    return folder / cell.label / f"{cell.image_id}.jpg"


def _write(folder: Path, seed: int, cell: Cell) -> None:
    write_bytes(_path(folder, cell), _jpeg(picture(seed, cell)))


def _copies(cells: Sequence[Cell]) -> dict[Cell, Cell]:
    """Cells that are there again, once as what they are and once as another kind, and the first of each."""
    copied, moved = (
        next(cell for cell in cells if cell.label == label) for label in ("lymphocyte", "neutrophil")
    )
    return {
        replace(copied, image_id="LY_999991"): copied,
        replace(moved, image_id="EO_999992", label="eosinophil"): moved,
    }


def _jpeg(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def picture(seed: int, cell: Cell) -> Pixels:
    """A cell among red ones, uint8 (SIDE, SIDE, 3)."""
    draw = seeds.rng(seed, "demo picture", cell.image_id)
    image = np.full((SIDE, SIDE, 3), PAPER, np.uint8)
    for _ in range(int(draw.integers(2, 5))):
        angle, far = draw.uniform(0, 2 * np.pi), draw.uniform(26, 38)
        centre = (int(SIDE / 2 + far * np.cos(angle)), int(SIDE / 2 + far * np.sin(angle)))
        cv2.circle(image, centre, int(draw.integers(7, 11)), RED, -1, cv2.LINE_AA)
    share = (np.clip(cell.latent, -REACH, REACH) + REACH) / (2 * REACH)
    colour = tuple(float(v) for v in BLUE + share * (ORANGE - BLUE))
    centre = (int(draw.integers(29, 36)), int(draw.integers(29, 36)))
    radius, tilt = (19, 13, 21, 15)[cell.pair], float(draw.uniform(0, 360))
    cv2.ellipse(
        image, centre, (radius, int(radius * draw.uniform(0.85, 1))), tilt, 0, 360, colour, -1, cv2.LINE_AA
    )
    for offset, size in _lobes(cell.pair, tilt):
        place = (round(centre[0] + offset[0]), round(centre[1] + offset[1]))
        cv2.circle(image, place, size, NUCLEUS, -1, cv2.LINE_AA)
    noise = draw.normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


# The nucleus of each pair as circles: the angles and the distance at which they lie, and their radius.
LOBES: tuple[tuple[tuple[float, ...], float, int], ...] = (
    ((0, np.pi), 7, 6),
    ((0,), 0, 8),
    ((0,), 7, 11),
    ((0, np.pi / 2, np.pi, 3 * np.pi / 2), 8, 3),
)


def _lobes(pair: int, tilt: float) -> list[tuple[tuple[float, float], int]]:
    """The circles of a nucleus, turned by so many degrees: their places beside the middle, and radii."""
    angles, far, size = LOBES[pair]
    turned = [np.deg2rad(tilt) + angle for angle in angles]
    return [((far * float(np.cos(angle)), far * float(np.sin(angle))), size) for angle in turned]
