"""The pixels of tiles at the size that an encoder sees, decoded once for all who learn from them.

All tiles of a split, at one size and interpolation, lie in one memory-mapped file under
``WORK/<name>/pixels``: folds, seeds, models, trials and loader workers share its pages. Where it would be too
large, tiles are decoded each time; the pixels are the same.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit.errors import StorageError
from kit.files import digest, locked, read_arrays, write_arrays, write_file
from kit.learn import preprocess
from kit.read import store
from kit.state import Run

VERSION = 1  # of the pixels: another one where the same tiles are resized otherwise
MOST_GIB = 64.0  # of one file; half of the disk's free space may be less
ABOVE = 2**30  # bytes, from which making the file is worth a line in the log
Ids = NDArray[np.object_]
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Bag:
    """The tiles of an image, by number.

    section, clot: those of each tile ``(T,)``, as the store has them.
    read: some tiles ``(n, H, W, 3)``; raises StageError where one is damaged.
    """

    section: NDArray[np.int32]
    clot: NDArray[np.int32]
    read: Callable[[Sequence[int]], NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.section)

    @property
    def repeats(self) -> bool:
        """Whether some clot may have more than one section."""
        return len(self) > 0 and bool((self.section != self.section[0]).any())


@dataclass(frozen=True)
class Pixels:
    """The tiles of a split at one size and interpolation; size 0 keeps them as stored.

    path: the file of decoded tiles; ``None`` where each is decoded when it is asked for.
    """

    folder: Path  # of the tile stage
    split: str
    size: int
    interpolation: str
    path: Path | None = None

    def bag(self, image: str) -> Bag:
        """The tiles of an image, none of which is read yet.

        Raises:
            StageError: the image has no tiles, or they are damaged.
        """
        if self.path is None or image not in self._index:
            tiles = store.read(self.place(image))
            return Bag(tiles.section, tiles.clot, partial(self.decode, tiles))
        mine, opened = self._index[image], _open(self.path)
        whole = opened["tiles"][mine]  # a view: nothing is read
        return Bag(opened["section"][mine], opened["clot"][mine], lambda chosen: whole[list(chosen)])

    def decode(self, tiles: store.Tiles, chosen: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """All tiles of an image, or some of them, as the encoder sees them: ``(n, H, W, 3)``."""
        return preprocess.resize(tiles.decode(chosen), self.size, self.interpolation)

    def place(self, image: str) -> Path:
        """Where the store has the tiles of an image."""
        return store.path_of(self.folder, self.split, image)

    @cached_property
    def _index(self) -> dict[str, slice]:
        assert self.path is not None
        opened = _open(self.path)
        ends = np.cumsum(opened["counts"]).tolist()
        return {
            str(name): slice(end - count, end)
            for name, end, count in zip(opened["ids"], ends, opened["counts"].tolist(), strict=True)
        }

    def __getstate__(self) -> dict[str, Any]:
        """Without the index: a loader's worker that was not forked makes its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_index"}


def of(run: Run, split: str, ids: Ids, size: int, interpolation: str) -> Pixels:
    """The tiles of a split, of which ``ids`` have some; decoded into a file unless it would be too large.

    Another process that asks for the same file waits until it is made.

    Raises:
        StageError: a tile is damaged.
    """
    plain = Pixels(run.folder("tile"), split, size, interpolation)
    if not len(ids):
        return plain
    path = _path(run, plain, ids)
    decoded = replace(plain, path=path)
    if _is_whole(path):
        return decoded
    bags = [store.read(plain.place(image)) for image in ids]
    side, most = size or run.competition.tiles.size, budget(run.work)
    count = sum(map(len, bags))
    if count * side * side * 3 > most:
        _say(f"the {count} tiles of {split} at {side} px would fill more than {most / 2**30:.1f} GiB: "
             "each is decoded when it is shown")  # fmt: skip
        return plain
    try:
        with locked(path.with_name(f"{_kind(plain)}.lock")):
            if not _is_whole(path):
                _make(plain, path, ids, bags, (count, side, side, 3), max(1, run.workers))
    except StorageError as error:
        _say(f"each tile is decoded when it is shown: {error.message}")
        return plain
    return decoded


def budget(folder: Path) -> float:
    """The bytes that one file may have: half of what the disk has left, and at most ``MOST_GIB``."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return min(MOST_GIB * 2**30, shutil.disk_usage(there).free / 2)


@lru_cache(maxsize=64)
def _say(text: str) -> None:
    """Log something once, however many fits it concerns."""
    log.info(text)


def _path(run: Run, pixels: Pixels, ids: Ids) -> Path:
    """The file's place: another one when any image was tiled anew."""
    made = [(name, *_written(pixels.place(name))) for name in ids]
    key = digest([VERSION, run.key("tile"), pixels.size, pixels.interpolation, made])
    return run.folder("pixels") / f"{_kind(pixels)}-{key[:12]}.npy"


def _written(path: Path) -> tuple[int, int]:
    """What changes with a file's content; zeros where there is none, which only its reader can say well."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _kind(pixels: Pixels) -> str:
    return f"{pixels.split}-{pixels.size}-{pixels.interpolation}"


def _make(
    plain: Pixels, path: Path, ids: Ids, bags: Sequence[store.Tiles], shape: tuple[int, ...], threads: int
) -> None:
    """Write the index, then the tiles ``shape``: where these are, all is there."""
    none = np.zeros(0, np.int32)
    arrays = {
        "ids": ids.astype(str),
        "counts": np.array([len(bag) for bag in bags], np.int64),
        "section": np.concatenate([none, *(bag.section for bag in bags)]),
        "clot": np.concatenate([none, *(bag.clot for bag in bags)]),
    }
    if np.prod(shape, dtype=np.int64) > ABOVE:
        _say(f"decoding {shape[0]} tiles of {plain.split} once, into {path}")
    old = set(path.parent.glob(f"{_kind(plain)}-????????????.np?"))
    write_arrays(_beside(path), arrays)
    write_file(path, lambda temporary: _fill(temporary, shape, plain, bags, threads))
    for stale in old - {path, _beside(path)}:  # a process that has it open keeps it
        stale.unlink(missing_ok=True)


def _fill(
    path: Path, shape: tuple[int, ...], plain: Pixels, bags: Sequence[store.Tiles], threads: int
) -> None:
    """Write tiles one after the other, as a disk that is full can only then be told of."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with path.open("wb") as stream, ThreadPoolExecutor(threads) as pool:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(bags), 4 * threads):  # what is decoded ahead of the disk is held
            for tiles in pool.map(plain.decode, bags[start : start + 4 * threads]):
                stream.write(np.ascontiguousarray(tiles).data)


def _beside(path: Path) -> Path:
    return path.with_suffix(".npz")


def _is_whole(path: Path) -> bool:
    """Whether both files are there and agree."""
    index = read_arrays(_beside(path), ["ids", "counts", "section", "clot"])
    if index is None:
        return False
    try:
        return len(np.load(path, mmap_mode="r")) == int(index["counts"].sum())
    except (OSError, ValueError, EOFError):
        return False


@lru_cache(maxsize=8)
def _open(path: Path) -> dict[str, Any]:
    """The index, and the tiles as the file has them: a page is read when it is touched."""
    index = read_arrays(_beside(path), ["ids", "counts", "section", "clot"])
    assert index is not None, "it was whole when the fit began"
    return index | {"tiles": np.load(path, mmap_mode="r")}
