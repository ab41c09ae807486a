"""The tiles of one image in one ``.npz`` file: whole or absent, and the same bytes each time.

The file is plain NumPy: ``np.load(path)["x"]``; its ``header`` is JSON as bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.errors import StageError
from kit.files import read_arrays, write_file
from kit.read.reader import Pixels

Integers: TypeAlias = NDArray[np.int64]
NAME = 200  # most characters of a file name that are taken from the image id


@dataclass(frozen=True)
class Tiles:
    """The tiles of one image, best first. ``T`` is their number, which is 0 on an empty slide.

    The header has at least: key (what the tiles were made from), grid, width, height, tissue (share
    of the image) and background.
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
    encoded: NDArray[np.uint8]  # (sum of lengths,) the tiles as PNG, one after the other

    def __len__(self) -> int:
        return len(self.x)

    def decode(self, indices: Sequence[int] | None = None) -> Pixels:
        """The pixels of all tiles, or of those asked for: uint8 (T, size, size, 3), red first."""
        side = int(self.header["grid"]["size"])
        chosen = range(len(self)) if indices is None else indices
        ends = np.cumsum(self.lengths)
        tiles = np.empty((len(chosen), side, side, 3), np.uint8)
        for place, index in enumerate(chosen):
            data = self.encoded[ends[index] - self.lengths[index] : ends[index]]
            tiles[place] = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[:, :, ::-1]
        return tiles


def packed(
    header: Mapping[str, Any],
    pixels: Sequence[Pixels],
    x: Integers,
    y: Integers,
    size: Integers,
    tissue: NDArray[np.float32],
) -> Tiles:
    """Encode tiles, each uint8 (size, size, 3); all are of section and clot 0, and weigh 1."""
    streams = [cv2.imencode(".png", tile[:, :, ::-1])[1] for tile in pixels]
    count = len(streams)
    return Tiles(
        header=header,
        x=x.astype(np.int64),
        y=y.astype(np.int64),
        size=size.astype(np.int64),
        tissue=tissue.astype(np.float32),
        section=np.zeros(count, np.int32),
        clot=np.zeros(count, np.int32),
        weight=np.ones(count, np.float32),
        lengths=np.array([len(stream) for stream in streams], np.int64),
        encoded=np.concatenate([np.zeros(0, np.uint8), *streams]),
    )


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
    arrays = {item.name: getattr(tiles, item.name) for item in fields(tiles)}
    header = json.dumps(dict(tiles.header), sort_keys=True).encode()
    arrays["header"] = np.frombuffer(header, np.uint8)
    write_file(path, lambda temporary: np.savez(temporary, allow_pickle=False, **arrays))


def read(path: Path) -> Tiles:
    """Read the tiles of one image; they are decoded when asked for.

    Raises:
        StageError: the file is absent or damaged.
    """
    tiles = _load(path)
    if tiles is None:
        raise StageError(
            f"{path} is {'damaged' if path.is_file() else 'not there'}",
            f"delete {path.parents[1] / 'images.csv'} and repeat tile: it makes what is missing",
        )
    return tiles


def find(path: Path, key: str) -> Tiles | None:
    """The tiles in a file if they are whole and were made from what ``key`` stands for."""
    tiles = _load(path)
    return tiles if tiles is not None and tiles.header.get("key") == key else None


def _load(path: Path) -> Tiles | None:
    """The content of a file; None if it is absent or damaged."""
    arrays = read_arrays(path, [item.name for item in fields(Tiles)])
    if arrays is None:
        return None
    try:
        header = json.loads(arrays.pop("header").tobytes())
    except ValueError:
        return None
    tiles = Tiles(header=header, **arrays)
    return tiles if int(tiles.lengths.sum()) == len(tiles.encoded) else None
