"""Symmetric views of a tile: a cut through tissue has no upside, and no side that is the right one.

The eight symmetries of the square are numbered: 0 to 3 are turned by so many right angles, 4 to 7 are
mirrored (left becomes right) and then turned by 0 to 3. A model that sees 1, 2, 4 or 8 views of a tile sees a
subgroup of them: the mean over all is the same however the tile lay on the glass.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kit.errors import SettingError

NAMES = ("r0", "r90", "r180", "r270", "m0", "m90", "m180", "m270")
SUBGROUPS: dict[int, tuple[int, ...]] = {1: (0,), 2: (0, 2), 4: (0, 1, 2, 3), 8: tuple(range(8))}


def coset(views: int, turn: int) -> tuple[int, ...]:
    """The views of a tile that was turned by some right angles first, by number.

    >>> coset(1, 3), coset(2, 0), coset(2, 3), coset(4, 1)
    ((3,), (0, 2), (1, 3), (0, 1, 2, 3))

    Raises:
        SettingError: there is no group of so many views.
    """
    if views not in SUBGROUPS:
        counts = ", ".join(map(str, SUBGROUPS))
        raise SettingError(f"train.views={views} is no number of symmetric views", f"it is one of {counts}")
    # Sorted: the mean of the same views is then the same sum.
    return tuple(sorted(number // 4 * 4 + (number + turn) % 4 for number in SUBGROUPS[views]))


def needed(views: int, turns: Iterable[int]) -> tuple[int, ...]:
    """All views that tiles turned in these ways are seen by."""
    return tuple(sorted({number for turn in turns for number in coset(views, turn)}))


def turned(pixels: Tensor, symmetry: int) -> Tensor:
    """Images ``(..., H, W)`` under one symmetry: mirrored, then turned counterclockwise."""
    mirrored = pixels.flip(-1) if symmetry >= 4 else pixels
    return torch.rot90(mirrored, symmetry % 4, (-2, -1))


def oriented(tile: NDArray[np.uint8], symmetry: int) -> NDArray[np.uint8]:
    """`turned` for the pixels ``(H, W, 3)`` of one tile, H = W, several times faster."""
    mirrored = cv2.flip(tile, 1) if symmetry >= 4 else tile
    turns = symmetry % 4
    if not turns:
        return np.asarray(mirrored, np.uint8)
    codes = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
    return np.asarray(cv2.rotate(mirrored, codes[turns - 1]), np.uint8)


def draw(random: np.random.Generator, tiles: int, views: int, strength: float) -> NDArray[np.int64]:
    """The view that each tile shows ``(tiles,)``: one of them with probability ``strength``, else -1."""
    one = random.integers(0, views, tiles)
    return np.where(random.random(tiles) < strength, one, -1)
