"""Pictures that are decoded whole when they are opened: what photographs and radiographs share."""

from __future__ import annotations

import threading
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from kit.files import split_archive
from kit.read.reader import ImageMissing, Pixels, Reader, resized


def original(image: Reader) -> Pixels:
    """The whole image as its file has it, uint8 (height, width, 3), whatever steps have made of it since."""
    return image.original if isinstance(image, Picture) else image.overview(1)


class Picture:
    """Decoded pixels as a :class:`kit.read.reader.Reader`, but for ``how`` and ``kind``: a bag of one.

    Args:
        pixels: uint8 (height, width, 3).
    """

    tileable = False
    shown = 1.0
    mpp = None

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.original = pixels  # as its file has it, where steps have changed it since
        self.size: tuple[int, int] = (pixels.shape[1], pixels.shape[0])

    def overview(self, factor: int) -> Pixels:
        """See :meth:`Reader.overview`; factor 1 is the picture itself."""
        width, height = self.size
        return resized(self._pixels, -(-width // factor), -(-height // factor))

    def decoded(self, factor: float, area: int | None = None) -> float:
        """See :meth:`Reader.decoded`."""
        return float(area or self.size[0] * self.size[1])

    def detail(self, factor: int) -> None:
        """See :meth:`Reader.detail`; a picture's is not known."""

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


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, which may be a member of a zip archive.

    Raises:
        ImageMissing: the archive has no such member.
    """
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
