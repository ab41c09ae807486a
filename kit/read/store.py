"""The tiles of one image in one ``.npz`` file: whole or absent, and the same bytes each time.

The file is plain NumPy: ``np.load(path)["x"]``; its ``header`` is JSON as bytes. Nothing in it is
compressed twice, so that one tile of thousands is read by its byte range, and any number of readers
may do so at once. Every tile has a checksum, and ``digest`` is one over everything.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.errors import StageError
from kit.files import write_arrays
from kit.read.blobs import Blob, Bytes, Stored, load, parts, whole
from kit.read.reader import Pixels

Integers: TypeAlias = NDArray[np.int64]
NAME = 200  # most characters of a file name that are taken from the image id
BLOBS = ("encoded", "overview", "kinds", "sections")  # read when they are asked for
AGAIN = "type: python -m kit tile <competition> --force (same options): it makes again what is not whole"
CHUNK = 1 << 22  # bytes hashed at a time


@dataclass(frozen=True)
class Tiles:
    """The tiles of one image, best first. ``T`` is their number, which is 0 on an empty slide.

    The header has at least: key (what the tiles were made from), grid, width, height, tissue (share
    of the image) and background. The three small pictures are PNG, empty where there is none.
    """

    header: Mapping[str, Any]
    x: Integers  # (T,) left edge, level-0 px
    y: Integers  # (T,) top edge, level-0 px
    size: Integers  # (T,) side, level-0 px
    tissue: NDArray[np.float32]  # (T,) share of the tile
    section: NDArray[np.int32]  # (T,) number of the serial cut
    clot: NDArray[np.int32]  # (T,) number of the clot that the section repeats
    weight: NDArray[np.float32]  # (T,) what the tile counts in its bag
    lengths: Integers  # (T,) bytes of each encoded tile
    checks: NDArray[np.uint32]  # (T,) CRC-32 of each encoded tile
    encoded: Blob  # (sum of lengths,) the tiles as PNG, one after the other
    overview: Blob  # the image, at most 512 px a side
    kinds: Blob  # codes of the kinds of tissue, of the overview's size
    sections: Blob  # numbers of the sections, of the overview's size

    def __len__(self) -> int:
        return len(self.x)

    def decode(self, indices: Sequence[int] | None = None) -> Pixels:
        """The pixels of all tiles, or of those asked for: uint8 (T, size, size, 3), red first.

        Only the bytes of these tiles are read.

        Raises:
            StageError: one of them is damaged.
        """
        side = int(self.header["grid"]["size"])
        chosen = range(len(self)) if indices is None else indices
        tiles = np.empty((len(chosen), side, side, 3), np.uint8)
        for place, (index, data) in enumerate(zip(chosen, self._streams(chosen), strict=True)):
            tile = (
                cv2.imdecode(data, cv2.IMREAD_COLOR) if zlib.crc32(data.data) == self.checks[index] else None
            )
            if tile is None or tile.shape != tiles.shape[1:]:
                raise self._damaged(f"tile {index} does not decode")
            tiles[place] = tile[:, :, ::-1]
        return tiles

    def thumbnail(self) -> Pixels:
        """The whole image in small: uint8 (H, W, 3), red first; (0, 0, 3) where none is stored."""
        return np.ascontiguousarray(self._picture(self.overview, np.zeros((0, 0, 3), np.uint8))[..., ::-1])

    def kinds_map(self) -> Bytes:
        """The code of the kind of tissue at each pixel of the thumbnail; (0, 0) where none is stored."""
        return self._picture(self.kinds, np.zeros((0, 0), np.uint8))

    def sections_map(self) -> NDArray[np.uint16]:
        """The section at each pixel of the thumbnail, as it was given; (0, 0) where none is stored."""
        return self._picture(self.sections, np.zeros((0, 0), np.uint16))

    def _picture(self, blob: Blob, none: NDArray[Any]) -> NDArray[Any]:
        if not len(blob):
            return none
        try:
            (data,) = parts(blob, [(0, len(blob))])
        except OSError as error:
            raise self._damaged(str(error)) from error
        found = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if found is None or (found.dtype, found.ndim) != (none.dtype, none.ndim):
            raise self._damaged("a small picture does not decode")
        return np.asarray(found)

    def _streams(self, chosen: Sequence[int]) -> Iterator[Bytes]:
        ends = np.cumsum(self.lengths)
        ranges = [(int(ends[index] - self.lengths[index]), int(ends[index])) for index in chosen]
        try:
            yield from parts(self.encoded, ranges)
        except OSError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> StageError:
        if isinstance(self.encoded, Stored):
            return StageError(f"{self.encoded.path} is damaged: {what}", AGAIN)
        return StageError(f"tiles are damaged: {what}", "make them again")


def packed(
    header: Mapping[str, Any],
    pixels: Iterable[Pixels | bytes],
    x: Integers,
    y: Integers,
    size: Integers,
    tissue: NDArray[np.float32],
    *,
    section: NDArray[Any] | None = None,
    clot: NDArray[Any] | None = None,
    weight: NDArray[Any] | None = None,
    overview: Pixels | None = None,
    kinds: Bytes | None = None,
    sections: NDArray[Any] | None = None,
) -> Tiles:
    """Encode tiles, each uint8 (size, size, 3) or PNG already, one at a time: a generator is best.

    Without ``section``, ``clot`` and ``weight`` (each (T,)) all are of section and clot 0, and weigh 1.
    ``overview`` is uint8 (H, W, 3), ``kinds`` and ``sections`` are (H, W) of whole numbers from 0 on.
    """
    buffer, lengths, checks = bytearray(), [], []
    for tile in pixels:
        stream = tile if isinstance(tile, bytes) else encode(tile)
        buffer += stream
        lengths.append(len(stream))
        checks.append(zlib.crc32(stream))
    count = len(lengths)
    assert all(len(given) == count for given in (x, y, size, tissue)), "one number a tile"
    return Tiles(
        header=header,
        x=x.astype(np.int64),
        y=y.astype(np.int64),
        size=size.astype(np.int64),
        tissue=tissue.astype(np.float32),
        section=_given(section, count, 0, np.int32),
        clot=_given(clot, count, 0, np.int32),
        weight=_given(weight, count, 1, np.float32),
        lengths=np.array(lengths, np.int64),
        checks=np.array(checks, np.uint32),
        encoded=np.frombuffer(buffer, np.uint8),
        overview=_encoded(overview, np.uint8),
        kinds=_encoded(kinds, np.uint8),
        sections=_encoded(sections, np.uint16),
    )


def encode(pixels: NDArray[Any], kind: str = ".png", options: Sequence[int] = ()) -> bytes:
    """A picture as a file: uint8 (H, W, 3) or (H, W, 4), red first, or (H, W) of uint8 or uint16.

    Args:
        kind: the format, by its suffix.
        options: pairs of OpenCV's flags and their values.
    """
    if pixels.ndim == 3:
        order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[pixels.shape[2]]
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), order)
    done, stream = cv2.imencode(kind, pixels, options)
    assert done
    return stream.tobytes()


def _given(values: NDArray[Any] | None, count: int, otherwise: int, kind: type) -> NDArray[Any]:
    if values is None:
        return np.full(count, otherwise, kind)
    assert len(values) == count, "one number a tile"
    return values.astype(kind)


def _encoded(picture: NDArray[Any] | None, kind: type) -> Bytes:
    stream = b"" if picture is None or not picture.size else encode(picture.astype(kind))
    return np.frombuffer(stream, np.uint8)


def path_of(folder: Path, split: str, image_id: str) -> Path:
    """Where the tiles of an image are kept: ids may hold any character, and be of any length.

    >>> path_of(Path("tile"), "train", "a/b c").as_posix()
    'tile/train/a%2Fb%20c.npz'
    """
    name = quote(image_id, safe="")
    if len(name) > NAME:
        name = name[:NAME] + "-" + hashlib.sha256(image_id.encode()).hexdigest()[:12]
    return folder / split / f"{name}.npz"


def write(path: Path, tiles: Tiles) -> None:
    """Write the tiles of one image in one step.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    arrays = {name: whole(value) for name, value in _arrays(tiles).items()}
    arrays["digest"] = np.frombuffer(_digest(tiles), np.uint8)
    write_arrays(path, arrays)


def read(path: Path) -> Tiles:
    """Read what is known of the tiles of one image; they are read and decoded when asked for.

    Raises:
        StageError: the file is absent or damaged.
    """
    found = _load(path)
    if found is None:
        raise StageError(f"{path} is {'damaged' if path.is_file() else 'not there'}", AGAIN)
    return found[0]


def find(path: Path, key: str) -> Tiles | None:
    """The tiles in a file if they are whole and were made from what ``key`` stands for.

    Every byte is read and compared with the digest; nothing is decoded.
    """
    found = _load(path)
    if found is None or found[0].header.get("key") != key:
        return None
    return found[0] if _is(found[0], found[1]) else None


def check(path: Path) -> str:
    """What is wrong with a file, down to each tile; empty if nothing is."""
    if not path.is_file():
        return "it is not there"
    found = _load(path)
    if found is None:
        return "it cannot be read, or its lengths do not add up"
    tiles, digest = found
    try:
        for index in range(len(tiles)):
            tiles.decode([index])
        shapes = {tiles.thumbnail().shape[:2], tiles.kinds_map().shape, tiles.sections_map().shape}
    except StageError as error:
        return error.message.removeprefix(f"{path} is damaged: ")
    if len(shapes - {(0, 0)}) > 1:
        return "its small pictures differ in size"
    return "" if _is(tiles, digest) else "its content is not what was written: the digest differs"


def _arrays(tiles: Tiles) -> dict[str, Blob | NDArray[Any]]:
    """What is written, by name; the header as JSON."""
    header = json.dumps(dict(tiles.header), sort_keys=True).encode()
    arrays = {item.name: getattr(tiles, item.name) for item in fields(tiles)}
    return arrays | {"header": np.frombuffer(header, np.uint8)}


def _digest(tiles: Tiles) -> bytes:
    """SHA-256 of the names, types and values of all arrays."""
    total = hashlib.sha256()
    for name, value in sorted(_arrays(tiles).items()):
        kind = "|u1" if isinstance(value, Stored) else value.dtype.str
        total.update(f"{name} {kind} {len(value)}\n".encode())
        if isinstance(value, Stored):
            starts = range(0, len(value), CHUNK)
            for part in value.parts((start, min(start + CHUNK, len(value))) for start in starts):
                total.update(part.data)
        else:
            total.update(np.ascontiguousarray(value).data)
    return total.digest()


def _is(tiles: Tiles, digest: bytes) -> bool:
    try:
        return _digest(tiles) == digest
    except OSError:
        return False


def _load(path: Path) -> tuple[Tiles, bytes] | None:
    """The content of a file and its digest; None if it is absent or damaged."""
    names = {item.name for item in fields(Tiles)} - set(BLOBS) | {"digest"}
    found = load(path, sorted(names), BLOBS)
    if found is None:
        return None
    arrays, blobs = found
    digest = arrays.pop("digest").tobytes()
    try:
        header = json.loads(arrays.pop("header").tobytes())
    except ValueError:
        return None
    content: dict[str, Any] = arrays | blobs
    tiles = Tiles(header=header, **content)
    numbers = all(values.shape == (tiles.x.size,) for values in arrays.values())
    return (tiles, digest) if numbers and int(tiles.lengths.sum()) == len(tiles.encoded) else None
