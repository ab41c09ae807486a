"""What an image shows besides its tissue: corners and background, for an audit of shortcuts.

A class that was photographed on another day, by another camera or under another mount can be told
by these alone (shortcut learning: Geirhos et al., Nature Machine Intelligence 2, 2020).
"""

from __future__ import annotations

import cv2
import numpy as np

from kit.read.density import Mask
from kit.read.reader import Pixels

PART = 8  # a corner's side is this part of the overview's shorter side ...
MOST = 32  # ... or at most so many overview pixels
COLUMNS = ("corner_red", "corner_green", "corner_blue", "corner_spread", "background_spread")


def measure(overview: Pixels, mask: Mask) -> dict[str, float | None]:
    """The numbers of ``COLUMNS``, in grey levels of 0 to 255, with three digits.

    Args:
        overview: uint8 (height, width, 3).
        mask: which of its pixels are tissue, bool (height, width).

    Returns:
        The mean colour of the four corners together and the standard deviation of their grey; that
        of the grey of all that is not tissue, or None where everything is tissue.
    """
    corners = _corners(overview)
    background = None if mask.all() else _spread(overview, ~mask)
    values = (*corners.mean(axis=(0, 1)).tolist(), _spread(corners), background)
    rounded = (None if value is None else round(value, 3) for value in values)
    return dict(zip(COLUMNS, rounded, strict=True))


def _corners(overview: Pixels) -> Pixels:
    """The four corners one below the other: uint8 (4 * side, side, 3)."""
    side = max(1, min(MOST, min(overview.shape[:2]) // PART))
    ends = (slice(None, side), slice(-side, None))
    return np.concatenate([overview[rows, columns] for rows in ends for columns in ends])


def _spread(pixels: Pixels, where: Mask | None = None) -> float:
    """Standard deviation of grey, of all pixels or of some; memory is a byte a pixel, not eight."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    chosen = None if where is None else where.view(np.uint8)
    return float(cv2.meanStdDev(grey, mask=chosen)[1][0, 0])
