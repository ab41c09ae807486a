"""The overview of a slide, made once and kept on the disk: the coarse levels of deep zoom are cut from it.

``WORK/<name>/view/<split>/<image>.view/<key>.npy`` is a plain NumPy array that is mapped into memory: only
what is looked at is read. The key changes with the file and with how it is read. All of them together take at
most ``DISK`` bytes: those that were looked at longest ago go first.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from pathlib import Path

import numpy as np

from kit.competition import Competition
from kit.files import digest, write_file
from kit.read import store
from kit.read.budget import SPEED
from kit.read.reader import Pixels, Reader, fingerprint
from kit.show_commands import OVERVIEWS

VERSION = 1
FACTOR = 16  # level-0 pixels an overview pixel: the levels below are read tile by tile
MOST = 2**25  # pixels of an overview, at most: of those that would have more, the factor is doubled
DISK = OVERVIEWS * 2**30  # bytes of all overviews of a run: seventy slides of 5 Gpx


def factor_of(size: tuple[int, int]) -> int:
    """Level-0 pixels an overview pixel, a power of two.

    >>> factor_of((48256, 101376)), factor_of((400_000, 300_000))
    (16, 64)
    """
    factor = FACTOR
    while size[0] * size[1] > MOST * factor**2:
        factor *= 2
    return factor


def place(folder: Path, task: Competition, split: str, image_id: str, file: Path) -> Path:
    """Where the overview of an image is kept, as its file is now."""
    grid = task.tiles
    key = digest([VERSION, task.reader, grid.index, grid.skip, FACTOR, MOST, fingerprint(task.reader, file)])
    # The ending stays, so that an id of dots is no way out of the folder.
    return store.path_of(folder, split, image_id).with_suffix(".view") / f"{key[:16]}.npy"


def find(path: Path, size: tuple[int, int]) -> Pixels | None:
    """The overview in a file, mapped into memory; ``None``: it is absent, or not of a slide of this size.

    Args:
        size: width and height of the slide, level-0 px.
    """
    shape = _shape(size)
    head = _head(shape)
    try:
        # Not `np.load`, which takes whatever the file says it is, and fails in a dozen ways on a damaged one.
        if path.stat().st_size != len(head) + math.prod(shape):
            return None
        with path.open("rb") as stream:
            if stream.read(len(head)) != head:
                return None
        found: Pixels = np.memmap(path, np.uint8, "r", len(head), shape)
    except (OSError, ValueError):  # it cannot be read, or another viewer was faster
        return None
    with contextlib.suppress(OSError):  # not ours to write
        os.utime(path)  # for `trim`
    return found


def trim(folder: Path, most: int = DISK) -> None:
    """Remove the overviews that were opened longest ago, until those of a run take at most so many bytes.

    One that is in use stays readable until it is closed.

    Args:
        folder: of all splits, as for `place`.
    """
    found = []
    for path in folder.glob("*/*.view/*.npy"):
        with contextlib.suppress(OSError):  # another viewer was faster
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found)[:-1]:  # the last is what is looked at now
        if total <= most:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
            path.parent.rmdir()


def make(path: Path, reader: Reader) -> Pixels:
    """Make the overview of a slide and keep it in one step; those of the file as it was are removed.

    Raises:
        ImageError: the slide cannot be read.
        StorageError: the disk is full, or the folder cannot be written.
    """
    pixels = np.ascontiguousarray(reader.overview(factor_of(reader.size)))

    def save(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.save(stream, pixels, allow_pickle=False)

    write_file(path, save)
    for other in path.parent.glob("*.npy"):
        if other != path:
            with contextlib.suppress(OSError):  # another viewer was faster
                other.unlink()
    return pixels if (kept := find(path, reader.size)) is None else kept


def seconds(reader: Reader, cores: int) -> float:
    """What making it takes, projected from the header of the slide."""
    return reader.decoded(factor_of(reader.size)) / (SPEED[reader.kind] * 1e6 * max(1, cores))


def _shape(size: tuple[int, int]) -> tuple[int, int, int]:
    """Of the overview of a slide of a width and a height."""
    factor = factor_of(size)
    return -(-size[1] // factor), -(-size[0] // factor), 3


def _head(shape: tuple[int, int, int]) -> bytes:
    """What `np.save` writes before the pixels."""
    stream = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()
