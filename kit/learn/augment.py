"""Augmentation with albumentations, seeded for each sample by what the sample is."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

# Importing albumentations would otherwise ask the network for its newest version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

from kit import seeds

Pixels = NDArray[np.uint8]


def make(strength: float) -> A.Compose:
    """Flips, right angles, stain jitter and blur; ``strength`` runs from 0 (none) to 1."""
    if not strength:
        return A.Compose([])
    jitter = A.ColorJitter(
        brightness=0.3 * strength,
        contrast=0.3 * strength,
        saturation=0.3 * strength,
        hue=0.04 * strength,
        p=0.8,
    )
    return A.Compose([A.D4(p=1.0), jitter, A.GaussianBlur(blur_limit=(3, 5), p=0.2 * strength)])


def apply(transform: A.Compose, tiles: Pixels, seed: int, *key: object) -> Pixels:
    """Augment tiles ``(T, H, W, 3)``, each from its own seed: no state is carried between samples.

    albumentations keeps a generator of its own, which repeats itself in loader workers; it is
    reseeded here before every tile.
    """
    if not transform.transforms:
        return tiles
    out = np.empty_like(tiles)
    for n, tile in enumerate(tiles):
        transform.set_random_seed(seeds.number(seed, "augment", *key, n) % 2**32)
        out[n] = transform(image=tile)["image"]
    return out
