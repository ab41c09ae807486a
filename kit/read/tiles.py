"""The stage ``tile``: from the images of a competition to the bag of tiles of each.

A slide gets its ``grid.count`` tiles of most tissue; a photograph is one tile. An image that cannot
be read, or has no tissue, is reported in ``images.csv`` and survived.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import files, parallel, seeds
from kit.competition import TileGrid
from kit.errors import DataError, ImageError, StageError, listed
from kit.read import grid, shortcuts, store, tissue
from kit.read.reader import ImageMissing, Pixels, Reader, opener, resized
from kit.state import Run

log = logging.getLogger("kit")

VERSION = 2


@dataclass(frozen=True)
class Source:
    """An image to be tiled."""

    split: str
    image_id: str
    path: Path
    fingerprint: str  # changes when the file does


def inputs(run: Run) -> dict[str, Any]:
    """What the stage reads: the reader, and a digest of the ids and files of all images."""
    listing = [(source.split, source.image_id, source.fingerprint) for source in sources(run)]
    return {
        "reader": run.competition.reader,
        "images": len(listing),
        "digest": files.digest(listing),
    }


def sources(run: Run) -> list[Source]:
    """The training and test images, by split and id; every file is fingerprinted once a run."""
    cache = vars(run)  # where the run's own cached properties live
    if "_sources" not in cache:
        cache["_sources"] = _listed_sources(run)
    found: list[Source] = cache["_sources"]
    return found


def run(run: Run) -> list[Path]:
    """Tile every image that has not been tiled with these settings; write ``images.csv``.

    Raises:
        DataError: not one training image can be used.
        StorageError: the disk is full.
    """
    work = Tiler(run)
    everything = sources(run)
    known = {source: row for source in everything if (row := work.done(source)) is not None}
    rest = [source for source in everything if source not in known]
    size = sum(_bytes_of(path) for path in {files.split_archive(s.path)[0] for s in rest})
    log.info("tile: %d images, %d still to do (%.1f GB)", len(everything), len(rest), size / 1e9)
    rows = [*known.values(), *parallel.run_all(work.tile, rest, run.workers, "tile")]
    table = pd.DataFrame(rows).sort_values(["split", "image_id"])
    path = run.folder("tile") / "images.csv"
    files.write_table(path, table)
    _check_usable(table[table["split"] == "train"])
    failed = table[table["status"] != "ok"]
    log.info(
        "tile: %d images, %d tiles, %d images without tiles (%s)",
        len(table),
        table["tiles"].sum(),
        len(failed),
        path,
    )
    return [path]


def load_images(run: Run) -> pd.DataFrame:
    """``images.csv`` with numbers as numbers and ids as text; one row a split and image.

    The shortcut columns are NaN for an image that could not be read.

    Raises:
        StageError: the stage has not been run.
    """
    path = run.folder("tile") / "images.csv"
    if not path.is_file():
        raise StageError(f"{path} is not there", f"type: python -m kit tile {run.competition.name}")
    numbers = {"width": "int64", "height": "int64", "tissue": "float64", "tiles": "int64"}
    table = files.read_strings(path).astype(numbers)
    measured = [name for name in shortcuts.COLUMNS if name in table]
    return table.assign(**files.numbers(table[measured]))


class Tiler:
    """Tiles one image after the other: what is the same for all of a run's images."""

    def __init__(self, run: Run) -> None:
        self.wanted: TileGrid = run.competition.tiles
        self.reader = run.competition.reader
        self.open_image = opener(self.reader)
        self.seed = run.seed
        self.folder = run.folder("tile")

    def done(self, source: Source) -> dict[str, Any] | None:
        """The row of an image whose tiles are stored already, else None."""
        tiles = store.find(self._path(source), self._key(source))
        return None if tiles is None else self._row(source, tiles)

    def tile(self, source: Source) -> dict[str, Any]:
        """Read one image and store its tiles; of a bad one, the row says what is wrong."""
        try:
            with self.open_image(source.path) as image:
                tiles = self._bag(source, image) if image.tileable else self._single(source, image)
        except ImageError as error:
            self._path(source).unlink(missing_ok=True)  # of the file as it was before it went bad
            # The same text wherever the data is, since the row is part of the stage's result.
            reason = error.message.removeprefix(f"{source.path}: ")
            status = "missing" if isinstance(error, ImageMissing) else "unreadable"
            return _failed(source, status, " ".join(reason.split()))
        store.write(self._path(source), tiles)
        return self._row(source, tiles)

    def _bag(self, source: Source, image: Reader) -> store.Tiles:
        """The best tiles of a slide."""
        factor = grid.overview_factor(image.size, self.wanted.overview)
        overview = image.overview(factor)
        background = tissue.background_colour(overview)
        mask = tissue.tissue_mask(overview, background)
        side = max(1, round(self.wanted.size * self.wanted.scale))
        x, y = grid.candidates(image.size, side)
        share = grid.shares(mask, x, y, side, factor)
        best = grid.choose(share, self.wanted, seeds.rng(self.seed, "tiles", source.image_id))
        x, y, share = x[best], y[best], share[best]
        pixels = [self._cut(image, int(a), int(b), side, background) for a, b in zip(x, y, strict=True)]
        header = self._header(source, image, float(mask.mean()), background)
        header |= shortcuts.measure(overview, mask)
        return store.packed(header, pixels, x, y, np.full(len(best), side), share)

    def _single(self, source: Source, image: Reader) -> store.Tiles:
        """A photograph as its only tile, squeezed to a square; ``size`` is its longer side.

        The tile is its overview too. All of a photograph counts as tissue; where its background is,
        only the shortcuts ask.
        """
        pixels = resized(image.overview(1), self.wanted.size, self.wanted.size)
        background = tissue.background_colour(pixels)
        header = self._header(source, image, 1.0, background)
        header |= shortcuts.measure(pixels, tissue.tissue_mask(pixels, background))
        zero, side = np.zeros(1, np.int64), np.array([max(image.size)])
        return store.packed(header, [pixels], zero, zero, side, np.ones(1, np.float32))

    def _cut(self, image: Reader, x: int, y: int, side: int, background: Pixels) -> Pixels:
        """One tile; what reaches over the edge of a small slide gets the colour of its glass."""
        pixels = image.region(x, y, side, self.wanted.size).copy()
        width, height = (
            (length - start) * self.wanted.size // side
            for length, start in zip(image.size, (x, y), strict=True)
        )
        pixels[max(1, height) :] = background
        pixels[:, max(1, width) :] = background
        return pixels

    def _header(self, source: Source, image: Reader, share: float, background: Pixels) -> dict[str, Any]:
        return {
            "key": self._key(source),
            "version": VERSION,
            "fingerprint": source.fingerprint,
            "reader": self.reader,
            "grid": dataclasses.asdict(self.wanted),
            "seed": self.seed,
            "width": image.size[0],
            "height": image.size[1],
            "tissue": round(share, 6),
            "background": "#" + background.tobytes().hex(),
        }

    def _key(self, source: Source) -> str:
        """Everything that the tiles of an image depend on."""
        settings = [VERSION, self.reader, dataclasses.asdict(self.wanted), self.seed]
        return files.digest([*settings, source.image_id, source.fingerprint])

    def _path(self, source: Source) -> Path:
        return store.path_of(self.folder, source.split, source.image_id)

    def _row(self, source: Source, tiles: store.Tiles) -> dict[str, Any]:
        head = tiles.header
        if len(tiles):
            return _row_of(source, "ok", "", head, len(tiles))
        reason = f"{head['tissue']:.2%} of the slide is tissue, and no tile has more than {grid.LEAST:.0%}"
        return _failed(source, "empty", reason, head)


def _failed(
    source: Source, status: str, reason: str, head: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    log.warning("image '%s' is %s (%s): %s", source.image_id, status, source.path, reason)
    return _row_of(source, status, reason, head or {}, 0)


def _row_of(source: Source, status: str, reason: str, head: Mapping[str, Any], count: int) -> dict[str, Any]:
    return {
        "image_id": source.image_id,
        "split": source.split,
        "width": head.get("width", 0),
        "height": head.get("height", 0),
        "tissue": head.get("tissue", 0.0),
        "background": head.get("background", ""),
        **{name: head.get(name) for name in shortcuts.COLUMNS},
        "tiles": count,
        "status": status,
        "reason": reason,
    }


def _check_usable(train: pd.DataFrame) -> None:
    if (train["status"] == "ok").any():
        return
    found = [f"'{row.image_id}': {row.reason}" for row in train.itertuples()]
    raise DataError(
        f"not one of the {len(train)} training images can be used:\n{listed(found)}",
        "is --data the folder as the competition ships it, with its images?",
    )


def _listed_sources(run: Run) -> list[Source]:
    """The images of both tables with their fingerprints; an archive of thousands is read once."""
    tables = {"test": run.tables.test, "train": run.tables.train}
    images = [
        (split, str(image_id), Path(path), files.split_archive(Path(path)))
        for split, table in tables.items()
        if table is not None
        for image_id, path in sorted(table["path"].items())
    ]
    prints = {file: _fingerprint(file) for file in {file for *_, (file, _) in images}}
    return [
        Source(split, image_id, path, f"{prints[file]}{'-' + member if member else ''}")
        for split, image_id, path, (file, member) in images
    ]


def _fingerprint(file: Path) -> str:
    try:
        return files.fingerprint(file)
    except OSError as error:  # reading the image will say so again, in its own row
        return f"unreadable: {error.strerror}"


def _bytes_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
