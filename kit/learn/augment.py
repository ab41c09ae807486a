"""Augmentation, seeded for each tile by what it is: no state is carried from one to the next.

Colours, blur, noise and shifts are albumentations' own. Right angles and mirrors are those of
`kit.learn.views`, and stains are a linear map here, because both are several times faster so:
albumentations' ``HEStain`` projects on two stains and loses what is neither, at a fortieth of the speed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

# Importing albumentations would otherwise ask the network for its newest version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from kit import seeds
from kit.learn import views

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
# Colours of haematoxylin, eosin and DAB in optical density (Ruifrok and Johnston 2001), a row each.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
UNMIX = np.linalg.inv(STAINS)
ZOOM = 0.2  # the largest at strength 1
MOST = 0.2  # of a stain's change at strength 1: "HED-strong" of Tellez 2019
LEVELS = 256
DENSITY = -np.log((np.arange(LEVELS) + 1) / LEVELS).astype(np.float32)  # natural optical density of a level
GLASS = 255  # the level that dropped parts get: what no tissue looks like


@dataclass(frozen=True)
class Augmentation:
    """What happens to a tile: one of eight symmetries, then stains, then albumentations' transform.

    stains: the largest relative change of each stain, and the largest change of its density; 0: none.
    """

    strength: float
    stains: float
    rest: A.Compose | None


@lru_cache(maxsize=16)  # making one takes longer than using it
def make(strength: float, preset: str = "light") -> Augmentation:
    """An augmentation; ``strength`` runs from 0 (none) to 1.

    flips: the eight symmetries of the square, at any strength but 0. turns: and a zoom of up to a fifth.
    light: and colour jitter and blur. histology: and stain jitter (Tellez 2018, 2019), a small change of
    scale and place, blur, noise, and parts left out (DeVries 2017).
    """
    rest = {"flips": lambda _: None, "turns": _turns, "light": _light, "histology": _histology}[preset]
    stains = MOST * strength if preset == "histology" else 0.0
    return Augmentation(strength, stains, rest(strength) if strength else None)


def _turns(strength: float) -> A.Compose:
    return A.Compose([A.Affine(scale=(1, 1 + ZOOM * strength), border_mode=cv2.BORDER_REFLECT_101, p=1.0)])


def _light(strength: float) -> A.Compose:
    jitter = A.ColorJitter(
        brightness=0.3 * strength,
        contrast=0.3 * strength,
        saturation=0.3 * strength,
        hue=0.04 * strength,
        p=0.8,
    )
    return A.Compose([jitter, _blur(strength)])


def _histology(strength: float) -> A.Compose:
    near, side = 0.1 * strength, 0.2 * strength
    return A.Compose(
        [
            A.Affine(
                scale=(1 - near, 1 + near),
                translate_percent=(-near, near),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.5,
            ),
            _blur(strength),
            A.GaussNoise(std_range=(0.01, 0.01 + 0.04 * strength), p=0.2 * strength),
            A.CoarseDropout(
                num_holes_range=(1, 4),
                hole_height_range=(side / 2, side),
                hole_width_range=(side / 2, side),
                fill=GLASS,
                p=0.3,
            ),
        ]
    )


def _blur(strength: float) -> A.GaussianBlur:
    return A.GaussianBlur(blur_limit=(3, 5), p=0.2 * strength)


def apply(augmentation: Augmentation, tiles: Pixels, seed: int, *key: object) -> Pixels:
    """Augment tiles ``(T, H, W, 3)``, each from its own seed.

    albumentations keeps a generator of its own, which repeats itself in loader workers; it is reseeded here
    before every tile.
    """
    if not augmentation.strength:
        return tiles
    out = np.empty_like(tiles)
    for n, tile in enumerate(tiles):
        number = seeds.number(seed, "augment", *key, n)
        draw = np.random.default_rng(number)
        tile = views.oriented(tile, int(draw.integers(8)))
        if augmentation.stains:
            change, shift = draw.uniform(-augmentation.stains, augmentation.stains, (2, 3))
            tile = stained(tile, 1 + change, shift)
        if augmentation.rest is not None:
            augmentation.rest.set_random_seed(number % 2**32)
            tile = augmentation.rest(image=tile)["image"]
        out[n] = tile
    return out


def stained(tile: Pixels, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> Pixels:
    """A tile ``(H, W, 3)`` in which each of three stains is ``scale`` as dense, and denser by ``shift``.

    In optical density stains add, so this is one linear map of every pixel: nothing is lost in unmixing.
    """
    density = cv2.LUT(tile, DENSITY)
    matrix = UNMIX @ np.diag(scale) @ STAINS
    # exp(log(256) - density), so that the levels come out with no further pass.
    moved = np.hstack([-matrix.T, (np.log(LEVELS) - shift @ STAINS)[:, None]])
    light = np.asarray(cv2.exp(cv2.transform(density, moved)))
    return np.asarray(cv2.convertScaleAbs(np.maximum(light, 1, out=light), alpha=1, beta=-1), np.uint8)
