"""The two tissues of a made clot as periodic pictures, drawn once for a cohort."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from kit import seeds

PERIOD = 1024  # the pictures repeat after this many pixels, without a seam

Pixels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Textures:
    """The two tissues, as periodic pictures."""

    red: Pixels
    fibrin: Pixels

    def stained(self, stain: tuple[float, float, float]) -> Textures:
        """The same textures with every colour channel multiplied by its factor."""
        ramp = np.arange(256)[:, None] * np.array(stain)
        table = np.clip(ramp.round(), 0, 255).astype(np.uint8)[None]
        red, fibrin = cv2.LUT(self.red, table), cv2.LUT(self.fibrin, table)
        return Textures(np.asarray(red, np.uint8), np.asarray(fibrin, np.uint8))


@lru_cache(maxsize=1)
def textures(seed: int) -> Textures:
    """Draw the two textures of a cohort."""
    rng = seeds.rng(seed, "demo", "textures")
    return Textures(_red_cells(rng), _fibrin(rng))


def _nearest(points: Field) -> tuple[Field, npt.NDArray[np.intp]]:
    """Distance to, and number of, the nearest point of every pixel of a periodic square."""
    grid = np.indices((PERIOD, PERIOD)).reshape(2, -1).T
    distance, index = spatial.cKDTree(points % PERIOD, boxsize=PERIOD).query(grid)
    return distance.reshape(PERIOD, PERIOD), index.reshape(PERIOD, PERIOD)


def _red_cells(rng: np.random.Generator) -> Pixels:
    """Crowded discs of eight pixels, paler in the middle, on a darker ground."""
    corners = np.indices((PERIOD // 8, PERIOD // 8)).reshape(2, -1).T * 8.0
    distance, index = _nearest(corners + rng.uniform(0, 5.5, corners.shape))
    shade = rng.normal(0, 14, len(corners))[index] - 8 * np.cos(distance * 0.75)
    shade = np.where(distance < 4.2, shade, -38.0)
    colour = np.array((166, 74, 66)) + shade[..., None] * np.array((1.0, 0.8, 0.75))
    return np.asarray(np.clip(colour, 0, 255), np.uint8)


def _fibrin(rng: np.random.Generator) -> Pixels:
    """Wavy pale pink fibres in two directions, with a few dark nuclei among them."""
    smooth = partial(ndimage.gaussian_filter, mode="wrap", truncate=3.0)
    fibres = np.zeros((PERIOD, PERIOD))
    for sigma in ((1.6, 28.0), (22.0, 1.6)):
        streaks = smooth(rng.standard_normal(fibres.shape), sigma)
        fibres = np.maximum(fibres, streaks / streaks.std())
    bend = [smooth(rng.standard_normal(fibres.shape), 40.0) * 2500 for _ in range(2)]
    y, x = (np.indices(fibres.shape) + bend).astype(np.float32)
    fibres = np.asarray(cv2.remap(fibres, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))
    colour = np.array((238, 200, 212)) - fibres[..., None] * np.array((11, 26, 20))
    nuclei, _ = _nearest(rng.uniform(0, PERIOD, (700, 2)))
    colour = np.where(nuclei[..., None] < 3.6, np.array((104, 66, 128)), colour)
    return np.asarray(np.clip(colour, 0, 255), np.uint8)
