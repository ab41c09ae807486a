"""Photographs: any picture that Pillow can open, as a file or inside a zip archive."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.read import steps
from kit.read.picture import Picture, read_bytes
from kit.read.reader import Pixels, check_there
from kit.read.steps import check_steps

WHOLE = True  # see `kit.read.reader.whole`
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and detectors have


class Photo(Picture):
    """An open photograph: a :class:`kit.read.reader.Reader`, and a bag of one."""

    how = "Pillow"
    kind = "photo"

    def __init__(self, path: Path, wanted: Sequence[str] = ()) -> None:
        check_there(path)
        try:
            decoded = _decoded(read_bytes(path))
            super().__init__(steps.apply(decoded, wanted))
            self.original = decoded
        except (ImageError, MemoryError):
            raise
        # Pillow's decoders raise almost anything on damaged bytes: SyntaxError, IndexError, ...
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, UnidentifiedImageError):
                reason = "it is not a picture that Pillow knows"
            hint = "download it again; for whole slides declare reader='slide'"
            raise ImageError(f"{path}: it cannot be read: {reason}", hint) from error


def open_image(path: Path, grid: TileGrid) -> Photo:
    """Open a photograph, and apply the steps of ``grid`` to it; nothing else of ``grid`` concerns it.

    Raises:
        SettingError: there is no such step.
        ImageError: it is missing, or no picture that Pillow can decode to its end.
    """
    check_steps(grid.steps)
    return Photo(path, grid.steps)


def _decoded(data: bytes) -> Pixels:
    """Encoded bytes as uint8 (height, width, 3); what is transparent becomes white."""
    with Image.open(io.BytesIO(data)) as opened:
        image: Image.Image = opened
        if image.mode == "F" or image.mode.startswith("I"):
            return np.repeat(_eight_bits(np.asarray(image))[:, :, None], 3, axis=2)
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))


def _eight_bits(grey: NDArray[np.generic]) -> Pixels:
    """Grey levels of more than 8 bits as 8: by the detector's depth, so that exposure is kept.

    A depth is the smallest usual one that holds the brightest pixel; levels that are fractions of
    1, negative or beyond 16 bits have no depth, and are stretched from least to greatest.
    """
    levels = grey.astype(np.float64)
    low, high = levels.min(), levels.max()
    if not np.isfinite([low, high]).all():
        raise ValueError("it has grey levels that are not finite")
    depth = next((bits for bits in DEPTHS if high < 2**bits), 0)
    if low >= 0 and high > 1 and depth:
        low, high = 0.0, 2.0**depth - 1
    scaled: Pixels = np.rint((levels - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return scaled
