"""A few numbers of every tile, by which other pixels are told without keeping them all."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRID = 4  # pixels of a tile that are compared, each side
# What standardised pixels may differ by: on other machines about one grey level, whose step is 1 / (255 std).
PIXELS = {"same": 1e-5, "other": 0.02}


def sketched(pixels: Tensor) -> NDArray[np.float32]:
    """Of images ``(T, 3, H, W)`` what tells other pixels: the mean, the mean square and some
    pixels of each colour ``(T, 3, 2 + GRID^2)``."""
    values = pixels.detach().to("cpu", torch.float64).numpy()
    rows, columns = (
        np.linspace(0, size - 1, GRID + 2).round().astype(int)[1:-1] for size in values.shape[2:]
    )
    some = values[:, :, rows[:, None], columns].reshape(*values.shape[:2], -1)
    moments = np.stack([values.mean(axis=(2, 3)), (values**2).mean(axis=(2, 3))], axis=2)
    return np.concatenate([moments, some], axis=2).astype(np.float32)


def other_pixels(now: NDArray[np.float32], before: NDArray[np.float32] | None, tolerance: float) -> str:
    """How an encoder is shown other pixels than when it was bundled; empty if it is not."""
    if before is None or now.shape != before.shape:
        return "its encoder is shown images of another number or size than when bundled"
    off = np.abs(now - before)
    if off.max() <= tolerance:
        return ""
    mean = float(off[:, :, 0].max())
    how = "normalised" if mean > tolerance else "resized (another interpolation)"
    return f"pixels are {how} otherwise than when bundled: they differ by up to {off.max():.2g}"
