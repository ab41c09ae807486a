"""Photographs: any picture that Pillow can open, as a file or inside a zip archive."""

from __future__ import annotations

import io
import threading
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.files import split_archive
from kit.read.reader import ImageMissing, Pixels, check_there, resized

DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and detectors have


class Photo:
    """An open photograph: a :class:`kit.read.reader.Reader`, and a bag of one."""

    tileable = False
    how = "Pillow"
    kind = "photo"
    shown = 1.0
    mpp = None

    def __init__(self, path: Path) -> None:
        check_there(path)
        try:
            self._pixels = _decoded(_bytes(path))
        except (ImageError, MemoryError):
            raise
        # Pillow's decoders raise almost anything on damaged bytes: SyntaxError, IndexError, ...
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, UnidentifiedImageError):
                reason = "it is not a picture that Pillow knows"
            hint = "download it again; for whole slides declare reader='slide'"
            raise ImageError(f"{path}: it cannot be read: {reason}", hint) from error
        self.size: tuple[int, int] = (self._pixels.shape[1], self._pixels.shape[0])

    def overview(self, factor: int) -> Pixels:
        """See :meth:`Reader.overview`; factor 1 is the photograph itself."""
        width, height = self.size
        return resized(self._pixels, -(-width // factor), -(-height // factor))

    def decoded(self, factor: float, area: int | None = None) -> float:
        """See :meth:`Reader.decoded`."""
        return float(area or self.size[0] * self.size[1])

    def detail(self, factor: int) -> None:
        """See :meth:`Reader.detail`; a photograph's is not known."""

    def region(self, x: int, y: int, size: int, out: int) -> Pixels:
        """See :meth:`Reader.region`."""
        square = np.full((size, size, 3), 255, np.uint8)
        left, top = max(0, x), max(0, y)
        inside = self._pixels[top : max(top, y + size), left : max(left, x + size)]
        square[top - y :, left - x :][: inside.shape[0], : inside.shape[1]] = inside
        return resized(square, out, out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        del self._pixels


def open_image(path: Path, grid: TileGrid) -> Photo:
    """Open a photograph; nothing of ``grid`` concerns it.

    Raises:
        ImageError: it is missing, or no picture that Pillow can decode to its end.
    """
    return Photo(path)


def _bytes(path: Path) -> bytes:
    file, member = split_archive(path)
    if not member:
        return path.read_bytes()
    status = file.stat()
    archive, lock = _archive(file, status.st_size, status.st_mtime_ns)
    try:
        with lock:
            return archive.read(member)
    except KeyError as error:
        raise ImageMissing(
            f"{path}: {file.name} has no such file", "compare the table with the archive"
        ) from error


@lru_cache(maxsize=8)
def _archive(file: Path, size: int, changed: int) -> tuple[zipfile.ZipFile, threading.Lock]:
    """An open archive: its directory of thousands of names is read once, until the file changes."""
    return zipfile.ZipFile(file), threading.Lock()


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
