"""The size of an image from its header alone: thousands in seconds, and nothing is decoded."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pydicom
from PIL import Image

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.files import split_archive
from kit.read.picture import read_bytes
from kit.read.reader import check_there, opener

Size = tuple[int, int]


def size_of(reader: str, path: Path, grid: TileGrid) -> Size:
    """Width and height of an image in px, as its file has them.

    Args:
        reader: the module of kit.read that opens it.

    Raises:
        ImageError: it is missing, or its header cannot be read.
    """
    if reader not in HEADERS:
        with opener(reader)(path, grid) as image:
            return image.size
    check_there(path)
    try:
        return HEADERS[reader](path)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise almost anything on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: its header cannot be read: {reason}", "download it again") from error


def _source(path: Path) -> Path | io.BytesIO:
    return io.BytesIO(read_bytes(path)) if split_archive(path)[1] else path


def _photo(path: Path) -> Size:
    with Image.open(_source(path)) as image:
        return image.size


def _radiograph(path: Path) -> Size:
    head = pydicom.dcmread(_source(path), stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    return int(head.Columns), int(head.Rows)


# Readers that decode an image whole when they open it.
HEADERS: dict[str, Callable[[Path], Size]] = {"photo": _photo, "radiograph": _radiograph}
