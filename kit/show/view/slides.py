"""Pixels for the page: the few images that are open, their deep zoom, and thumbnails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kit.errors import ImageError, KitError
from kit.parallel import cores
from kit.read import store
from kit.read.reader import Pixels, Reader, opener, resized
from kit.show.pictures import fitted
from kit.show.view import overviews
from kit.show.view.listing import Listing
from kit.show.view.pyramid import SIDE, Pyramid, Square
from kit.show.view.shelf import Cache, Shelf
from kit.state import Run

OPEN = 4  # slides, or pictures of as many times HEAVY, that are kept open
HEAVY = 2**25  # bytes of a decoded picture that count as one
AT_ONCE = 4  # reads of slides at a time: what bounds their memory
CACHE = 2**26  # bytes of encoded tiles and thumbnails
PIECE = 2048  # level-0 px of a square that is decoded at once, each side
THUMBNAIL = 256  # pixels of its longer side
QUALITY = 85  # of the JPEG of slides and thumbnails
FAITHFUL = 97  # ... and of pictures, which are small and looked at pixel by pixel
NEARLY = 0.97  # shown of a projection that has run out

log = logging.getLogger("kit")


@dataclass
class Opened:
    """An open image.

    factor: level-0 px to a pixel of ``coarse``.
    coarse: the overview that the coarse levels are cut from; ``None``: it is still to be made.
    """

    reader: Reader
    pyramid: Pyramid
    factor: int
    place: Path
    coarse: Pixels | None

    @property
    def weight(self) -> int:
        """What it counts on the shelf."""
        if self.reader.tileable or self.coarse is None:
            return 1
        return min(OPEN, 1 + self.coarse.nbytes // HEAVY)


@dataclass(frozen=True)
class _Job:
    """An overview that is being made: since when, and how long it should take."""

    done: Future[None]
    start: float
    seconds: float


class Slides:
    """The images of a listing as tiles and thumbnails, by key."""

    def __init__(self, run: Run, listing: Listing) -> None:
        self._run, self._listing = run, listing
        self._open = opener(run.competition.reader)
        self._shelf: Shelf[str, Opened] = Shelf(self._opened, _close, lambda item: item.weight, OPEN)
        self._cache = Cache(CACHE)
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._door = threading.BoundedSemaphore(AT_ONCE)  # another one: who has room may still have to open
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="overview")
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()

    def state(self, key: str) -> dict[str, Any]:
        """Whether an image can be walked through; where it cannot yet, its overview is begun.

        Raises:
            KitError: it cannot be read.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and job.done.done():
                del self._jobs[key]
                job.done.result()  # raises what went wrong
                job = None
            if job is not None:
                return {"state": "making", "seconds": job.seconds, "share": _share(job)}
        with self.lent(key) as opened:
            changed = opened.place != self._place(key)
            if opened.coarse is not None and not changed:
                return {"state": "ready", **self._described(opened)}
            expected = overviews.seconds(opened.reader, cores())
        if changed:  # the file is another one since it was opened
            self._shelf.drop(key)
            return self.state(key)
        with self._lock:
            if key not in self._jobs:
                self._jobs[key] = _Job(self._maker.submit(self._make, key), time.monotonic(), expected)
        return {"state": "making", "seconds": expected, "share": 0.0}

    def tile(self, key: str, level: int, column: int, row: int, version: str = "") -> bytes | None:
        """A tile of the deep zoom as JPEG; ``None``: there is none of these numbers.

        Args:
            version: as `state` told it; ``None``, too, where the file is another one by now. Empty: any.

        Raises:
            KitError: it cannot be read, or its overview is not made yet.
        """
        with self.lent(key) as opened:
            square = opened.pyramid.square(level, column, row)
            known = version in ("", opened.place.stem)
        if square is None or not known:
            return None
        return self._cache.get((key, opened.place, level, column, row), lambda: self._encoded(key, square))

    def thumbnail(self, key: str) -> bytes | None:
        """A small JPEG of an image from what is stored of it; ``None``: there is nothing to make it of.

        Raises:
            KitError: it cannot be read.
        """
        row = self._row(key)
        path = store.path_of(self._run.folder("tile"), row["split"], row["image_id"])
        made = path.stat().st_mtime_ns if path.is_file() else 0  # it may be tiled while it is looked at
        return self._cache.get((key, "small", made), lambda: self._small(key, path)) or None

    def lent(self, key: str) -> AbstractContextManager[Opened]:
        """An open image, for as long as it is used."""
        return self._shelf.lent(key)

    def close(self) -> None:
        """Wait for what is being read, and close everything."""
        self._maker.shutdown(cancel_futures=True)
        self._shelf.clear()

    def _row(self, key: str) -> Mapping[str, Any]:
        row = self._listing.row(key)
        assert row is not None, "keys are looked up before"
        return row

    def _place(self, key: str) -> Path:
        """Where the overview of an image is, as its file is now."""
        row = self._row(key)
        folder, task = self._run.folder("view"), self._run.competition
        return overviews.place(folder, task, row["split"], row["image_id"], Path(row["path"]))

    def _opened(self, key: str) -> Opened:
        with self._door:
            place = self._place(key)
            reader = self._open(Path(self._row(key)["path"]), self._run.competition.tiles)
            pyramid = Pyramid(*reader.size)
            if not reader.tileable:
                return Opened(reader, pyramid, 1, place, reader.overview(1))
            coarse = overviews.find(place, reader.size)
            return Opened(reader, pyramid, overviews.factor_of(reader.size), place, coarse)

    def _make(self, key: str) -> None:
        with self.lent(key) as opened:
            start = time.monotonic()
            opened.coarse = overviews.make(opened.place, opened.reader)
            overviews.trim(self._run.folder("view"))
            log.info("view: overview of %s: %.1f s", self._row(key)["image_id"], time.monotonic() - start)

    def _described(self, opened: Opened) -> dict[str, Any]:
        """What the page has to know of an open image."""
        reader, pyramid = opened.reader, opened.pyramid
        return {
            "version": opened.place.stem,
            "width": pyramid.width,
            "height": pyramid.height,
            "side": SIDE,
            "top": pyramid.top,
            "bottom": pyramid.bottom,
            "mpp": reader.mpp or self._run.competition.tiles.slide_mpp or None,
            "read_by": reader.how,
        }

    def _encoded(self, key: str, square: Square) -> bytes:
        with self._room, self.lent(key) as opened:
            return jpeg(pixels_of(opened, square), QUALITY if opened.reader.tileable else FAITHFUL)

    def _small(self, key: str, path: Path) -> bytes:
        """Of the stored overview; of a photograph its tile in its own shape; else of the open image."""
        picture = _stored(path) if path.is_file() else None
        if picture is None:
            with self._room, self.lent(key) as opened:
                if opened.coarse is None:
                    return b""
                factor = max(1, max(opened.coarse.shape[:2]) // (2 * THUMBNAIL))
                picture = np.asarray(opened.coarse[::factor, ::factor])
        return jpeg(fitted(picture, THUMBNAIL))


def pixels_of(opened: Opened, square: Square) -> Pixels:
    """The pixels of a tile, uint8 (height, width, 3): from the overview where that is fine enough.

    Raises:
        ImageError: the slide cannot be read, or its overview is not made yet.
    """
    if square.factor < opened.factor:
        return _read(opened.reader, square)
    if opened.coarse is None:
        raise ImageError("the overview of this slide is not made yet", "wait a moment")
    ratio = square.factor // opened.factor
    x, y = square.x // opened.factor, square.y // opened.factor
    high, wide = square.height * ratio, square.width * ratio
    part = np.asarray(opened.coarse[y : y + high, x : x + wide])
    # The last pixel of an edge is an average of what there is.
    edge = ((0, high - part.shape[0]), (0, wide - part.shape[1]), (0, 0))
    return resized(np.pad(part, edge, mode="edge"), square.width, square.height)


def _read(reader: Reader, square: Square) -> Pixels:
    """The same from the file, in pieces that bound what is decoded at once."""
    pieces = max(1, SIDE * square.factor // PIECE)
    side, out = SIDE * square.factor // pieces, SIDE // pieces
    whole = np.empty((SIDE, SIDE, 3), np.uint8)
    for row in range(-(-square.height // out)):
        for column in range(-(-square.width // out)):
            part = reader.region(square.x + column * side, square.y + row * side, side, out)
            whole[row * out : (row + 1) * out, column * out : (column + 1) * out] = part
    return whole[: square.height, : square.width]


def jpeg(pixels: Pixels, quality: int = QUALITY) -> bytes:
    """A picture, uint8 (height, width, 3), as JPEG."""
    return store.encode(pixels, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, quality))


def _stored(path: Path) -> Pixels | None:
    """What the tile store has of a whole image; ``None``: nothing, or it is damaged."""
    try:
        tiles = store.read(path)
        picture = tiles.thumbnail()
        if picture.size or not len(tiles):
            return picture if picture.size else None
        width, height = int(tiles.header["width"]), int(tiles.header["height"])
        scale = THUMBNAIL / max(width, height)
        return resized(tiles.decode([0])[0], max(1, round(width * scale)), max(1, round(height * scale)))
    except KitError as error:
        log.info("view: %s", error.message)
        return None


def _close(opened: Opened) -> None:
    opened.coarse = None
    opened.reader.__exit__(None, None, None)


def _share(job: _Job) -> float:
    """About how much is done, by the clock and the projection."""
    return min(NEARLY, (time.monotonic() - job.start) / max(job.seconds, 0.1))
