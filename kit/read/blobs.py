"""Arrays of bytes that stay in their ``.npz`` file until some of them are asked for.

``np.load`` reads a whole array to give one byte of it; a bag of thousands of tiles is one array.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kit.files import DAMAGE

Bytes: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Stored:
    """Bytes in a file: ``length`` of them from ``start`` on."""

    path: Path
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    def parts(self, ranges: Iterable[tuple[int, int]]) -> Iterator[Bytes]:
        """The bytes from each start to each end, counted in the array; nothing else is read.

        Raises:
            OSError: the file is gone, or shorter than it was.
        """
        # Unbuffered: a buffer would read 128 KiB and more around a tile of 60.
        with self.path.open("rb", buffering=0) as stream:
            for start, end in ranges:
                stream.seek(self.start + start)
                data = stream.read(end - start)
                if len(data) != end - start:
                    raise OSError(f"{self.path} ends too early")
                yield np.frombuffer(data, np.uint8)


Blob: TypeAlias = Bytes | Stored


def parts(blob: Blob, ranges: Iterable[tuple[int, int]]) -> Iterator[Bytes]:
    """The bytes of each range, of an array in memory or in a file."""
    return blob.parts(ranges) if isinstance(blob, Stored) else (blob[start:end] for start, end in ranges)


def whole(blob: Blob | NDArray[Any]) -> NDArray[Any]:
    """All of an array, in memory."""
    return next(blob.parts([(0, len(blob))])) if isinstance(blob, Stored) else blob


def load(
    path: Path, names: Sequence[str], blobs: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], dict[str, Stored]] | None:
    """Arrays of an ``.npz`` file, whose checksums are tested, and where its ``blobs`` lie in it.

    None if it is absent or damaged; the bytes of the blobs are not looked at.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name: _array(archive, name) for name in names}
            return arrays, {name: _stored(archive, path, name) for name in blobs}
    except DAMAGE:
        return None


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as stream:  # at whose end the checksum is tested
        values: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise ValueError(f"{name} is longer than it says")
        return values


def _stored(archive: zipfile.ZipFile, path: Path, name: str) -> Stored:
    """Where the values of an array of bytes lie in the file."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    stream = archive.fp
    assert stream is not None
    # A local header of 30 bytes ends in the lengths of the name and of the extra field behind it.
    stream.seek(info.header_offset + 26)
    start = info.header_offset + 30 + sum(np.frombuffer(stream.read(4), "<u2").tolist())
    stream.seek(start)
    np.lib.format.read_magic(stream)
    shape, _, kind = np.lib.format.read_array_header_1_0(stream)
    offset = stream.tell()
    if kind != np.uint8 or len(shape) != 1 or offset + shape[0] != start + info.file_size:
        raise ValueError(f"{name} is no array of bytes")
    return Stored(path, offset, shape[0])
