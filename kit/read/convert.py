"""The command ``convert``: the images of a competition as small PNG or JPEG files, in several sizes.

``DIR/<size>/<split>/<image_id>.png``, and ``DIR/sizes.csv`` with the size that each image had. Each file
holds, as a comment, what it was made of: one that a kill has left out is made, and the others are not
made again. The same bytes for any number of workers.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import pandas as pd
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from kit import files, parallel
from kit.command import Said
from kit.competition import Competition, Tables
from kit.errors import DataError, ImageError, SettingError, listed
from kit.read.picture import Picture
from kit.read.reader import Pixels, Reader, check_steps, fingerprint, opener
from kit.read.store import path_of
from kit.read.tiler import told
from kit.state import Run

VERSION = 1  # of everything that decides what is written
SPLITS = ("train", "test", "extra")
QUALITY = 95  # of JPEG
COMMENT = "comment"
SETTINGS, SIZES, FAILURES = "convert.json", "sizes.csv", "failures.csv"
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Wanted:
    """What is written.

    sizes: pixels of a side, or of the longer side where the ratio is kept.
    keep_ratio: nothing is squeezed then, and nothing made larger.
    """

    folder: Path
    sizes: tuple[int, ...] = (512,)
    format: Literal["png", "jpg"] = "png"
    keep_ratio: bool = False


@dataclass(frozen=True)
class Job:
    """One image. key: of all that its files depend on."""

    split: str
    image_id: str
    path: Path
    key: str


@dataclass(frozen=True)
class Done:
    """What became of one image: the size that it has, or the reason why it could not be read."""

    split: str
    image_id: str
    height: int = 0
    width: int = 0
    reason: str = ""
    made: bool = False  # now, and not before


def run(run: Run, options: argparse.Namespace) -> Said:
    """Convert the images of a run's competition."""
    sizes = tuple(sorted(set(options.size)))
    wanted = Wanted(options.to, sizes, options.format, options.keep_ratio)
    return convert(run, wanted, options.splits)


def convert(run: Run, wanted: Wanted, splits: Sequence[str] = ("train", "test")) -> Said:
    """Write the pictures, ``sizes.csv``, ``failures.csv`` and ``convert.json``.

    An image that cannot be read is reported and survived.

    Returns:
        What the console prints, and 0, or 1 where no image could be read.

    Raises:
        SettingError: there is no table of a split; or a step of ``tile.steps`` is unknown.
        StorageError: the disk is full, or the folder cannot be written.
    """
    check_steps(run.competition.reader, run.competition.tiles.steps)
    _note_settings(wanted, run.competition)
    files.sweep(wanted.folder)
    work = Converter(wanted, run.competition)
    jobs = work.jobs(_tables(run.tables, splits))
    log.info("convert: %d images to %s", len(jobs), wanted.folder)
    found = parallel.run_all(work, jobs, run.workers, "convert")
    good, bad = [one for one in found if not one.reason], [one for one in found if one.reason]
    sizes = [(one.image_id, one.split, one.height, one.width) for one in good]
    there = {job.split for job in jobs}
    _write(wanted.folder / SIZES, ["image_id", "split", "height", "width"], sizes, there)
    reasons = [(one.image_id, one.split, one.reason) for one in bad]
    _write(wanted.folder / FAILURES, ["image_id", "split", "reason"], reasons, there)
    return _said(wanted, good, bad), int(not good and bool(bad))


class Converter:
    """Converts one image after the other: what is the same for all of them."""

    def __init__(self, wanted: Wanted, task: Competition) -> None:
        self.wanted = wanted
        self.grid = task.tiles
        self.reader = task.reader
        self.open_image = opener(task.reader)
        self.settings = _settings(wanted, task)

    def jobs(self, tables: Mapping[str, pd.DataFrame]) -> list[Job]:
        """The images of some tables, by split and id; an archive of thousands is looked at once."""
        images = [
            (split, str(image_id), Path(path))
            for split, table in tables.items()
            for image_id, path in sorted(table["path"].items())
        ]
        archives = {path: files.split_archive(path) for _, _, path in images}
        prints = {file: fingerprint(self.reader, file) for file in {file for file, _ in archives.values()}}
        return [
            Job(split, image_id, path, self._key(prints[archives[path][0]], archives[path][1]))
            for split, image_id, path in images
        ]

    def _key(self, *content: str) -> str:
        """All that the pictures of an image depend on, but for their size."""
        return files.digest([self.settings, *content])[:16]

    def __call__(self, job: Job) -> Done:
        """Convert one image, unless its pictures are there."""
        paths = {size: self._path(job, size) for size in self.wanted.sizes}
        kept = [_size_noted(path, job.key) for path in paths.values()]
        if (size := kept[0]) is not None and all(other == size for other in kept):
            return Done(job.split, job.image_id, *size)
        try:
            with self.open_image(job.path, self.grid) as image:
                height, width = _original(image)
                whole = None if image.tileable else _picture(image, 1)
                for side, path in paths.items():
                    # A slide is never read whole: an overview of twice what is wanted will do.
                    picture = whole or _picture(image, max(1, min(image.size) // (2 * side)))
                    self._save(_resized(picture, side, self.wanted.keep_ratio), path, job, (height, width))
        # One bad image is no reason to lose the others; a setting that none of them takes is.
        except (ImageError, MemoryError, cv2.error) as error:
            for path in paths.values():  # of the file as it was before it went bad
                path.unlink(missing_ok=True)
            reason = told(error, job.path)[1]
            log.warning("image '%s' is left out (%s): %s", job.image_id, job.path, reason)
            return Done(job.split, job.image_id, reason=reason)
        return Done(job.split, job.image_id, height, width, made=True)

    def _path(self, job: Job, size: int) -> Path:
        place = path_of(self.wanted.folder / str(size), job.split, job.image_id)
        return place.with_name(place.name.removesuffix(place.suffix) + f".{self.wanted.format}")

    def _save(self, picture: Image.Image, path: Path, job: Job, size: tuple[int, int]) -> None:
        note = json.dumps({"key": job.key, "height": size[0], "width": size[1]})
        how: dict[str, Any] = {"format": "JPEG", "quality": QUALITY, "comment": note}
        if self.wanted.format == "png":
            how = {"format": "PNG", "pnginfo": PngImagePlugin.PngInfo()}
            how["pnginfo"].add_text(COMMENT, note)
        files.write_file(path, lambda temporary: picture.save(temporary, **how))


def _settings(wanted: Wanted, task: Competition) -> dict[str, Any]:
    """All that decides what a picture is, but for its size and its image."""
    return {
        "version": VERSION,
        "format": wanted.format,
        "keep_ratio": wanted.keep_ratio,
        "reader": task.reader,
        "steps": list(task.tiles.steps),
    }


def _note_settings(wanted: Wanted, task: Competition) -> None:
    """Keep the settings beside the pictures, and say what starts anew."""
    path, now = wanted.folder / SETTINGS, _settings(wanted, task)
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        before = now
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        said = ", ".join(f"{name} was {before.get(name)} and is {now[name]}" for name in changed)
        log.info("convert: starts anew: %s", said)
    files.write_json(path, now)


def _tables(tables: Tables, splits: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The tables of the splits; no test table is no fault, unless nothing else is asked for."""
    found = {split: cast("pd.DataFrame | None", getattr(tables, split)) for split in dict.fromkeys(splits)}
    there = {split: table for split, table in found.items() if table is not None}
    if absent := [split for split in found if split not in there and (split != "test" or not there)]:
        raise SettingError(f"this competition has no table of {absent[0]} images", "leave it out of --splits")
    return there


def _size_noted(path: Path, key: str) -> tuple[int, int] | None:
    """Height and width of the image of which a finished picture was made; None: it has to be made."""
    try:
        with Image.open(path) as picture:
            note = picture.info[COMMENT]
        content = json.loads(note)
        return (content["height"], content["width"]) if content["key"] == key else None
    except (OSError, UnidentifiedImageError, ValueError, KeyError, TypeError):
        return None


def _original(image: Reader) -> tuple[int, int]:
    """Height and width as the file has them: a step may have changed them since."""
    if isinstance(image, Picture):
        return image.original.shape[0], image.original.shape[1]
    return image.size[1], image.size[0]


def _picture(image: Reader, factor: int) -> Image.Image:
    """An image, or an overview of it; a grey one has one channel."""
    pixels = image.overview(factor)
    return Image.fromarray(pixels[:, :, 0].copy() if _is_grey(pixels) else pixels)


def _is_grey(pixels: Pixels) -> bool:
    return all(np.array_equal(pixels[:, :, 0], pixels[:, :, other]) for other in (1, 2))


def _resized(picture: Image.Image, side: int, keep_ratio: bool) -> Image.Image:
    """As most notebooks do it: Lanczos, of a much larger picture that keeps its ratio after a reduction."""
    if not keep_ratio:
        return picture.resize((side, side), Image.Resampling.LANCZOS)
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def _write(path: Path, columns: list[str], rows: Sequence[tuple[object, ...]], splits: set[str]) -> None:
    """Write the rows of some splits; those of others stay, as their pictures do."""
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    try:
        before = files.read_strings(path)
    except DataError:  # none, or one that is no table
        before = table[:0]
    if list(before.columns) == columns:
        table = pd.concat([before[~before["split"].isin(splits)], table])
    files.write_table(path, table.sort_values(["split", "image_id"]))


def _said(wanted: Wanted, good: Sequence[Done], bad: Sequence[Done]) -> str:
    made = sum(one.made for one in good)
    places = ", ".join(str(size) for size in wanted.sizes)
    lines = [
        f"{len(good)} images are in {wanted.folder} at {places} px ({wanted.format}): {made} made now,"
        f" {len(good) - made} before",
        f"the sizes they had: {wanted.folder / SIZES}",
    ]
    if bad:
        found = [f"{one.split} '{one.image_id}': {one.reason}" for one in bad]
        lines += [f"{len(bad)} could not be read: {wanted.folder / FAILURES}", listed(found)]
    return "\n".join(lines)
