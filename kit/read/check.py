"""Are the stored tiles of a run whole? Every file is read, and compared with ``images.csv``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.parallel import run_all
from kit.read import store
from kit.read.tiler import Tiler
from kit.read.tiles import load_images, sources, tabled
from kit.state import Run


@dataclass(frozen=True)
class Expected:
    """What ``images.csv`` says of a file."""

    split: str
    image_id: str
    path: Path
    tiles: int
    stored: bool
    key: str  # of what its tiles are made from, today


@dataclass(frozen=True)
class Problem:
    """A file, what is wrong with it, and whether it should not be there at all."""

    path: Path
    image: str
    what: str
    extra: bool = False


def check(run: Run) -> tuple[str, int]:
    """What is wrong with the stored tiles, for the console, and 1 if anything is, else 0.

    Raises:
        StageError: the stage tile has not been run.
    """
    folder = run.folder("tile")
    images = load_images(run)
    work = Tiler(run)
    keys = {(source.split, source.image_id): work.key(source) for source in sources(run)}
    wanted = [_expected(folder, row, keys) for _, row in images.iterrows()]
    found = run_all(_judge, wanted, run.workers, "check")
    problems = [problem for problem in found if problem is not None] + _extra(
        folder, wanted, list(tabled(run))
    )
    stored = [item for item in wanted if item.stored]
    if not problems:
        size = sum(item.path.stat().st_size for item in stored)
        return f"{len(stored)} files with {images['tiles'].sum()} tiles are whole ({size / 1e6:.1f} MB)", 0
    return _told(problems, len(stored), run), 1


def _expected(folder: Path, row: pd.Series[str], keys: Mapping[tuple[str, str], str]) -> Expected:
    split, image = str(row["split"]), str(row["image_id"])
    # An image without tissue has a file without tiles; one that cannot be read has none.
    stored = int(row["tiles"]) > 0 or row["status"] == "empty"
    path, key = store.path_of(folder, split, image), keys.get((split, image), "")
    return Expected(split, image, path, int(row["tiles"]), stored, key)


def _judge(item: Expected) -> Problem | None:
    """What is wrong with the file of one image."""
    image = f"{item.split} '{item.image_id}'"
    if not item.stored:
        unused = "images.csv says that the image could not be used"
        return Problem(item.path, image, unused, extra=True) if item.path.exists() else None
    what = store.check(item.path)
    if not what:
        tiles = store.read(item.path)
        if len(tiles) != item.tiles:
            what = f"it has {len(tiles)} tiles, and images.csv says {item.tiles}"
        elif tiles.header.get("key") != item.key:
            what = "it was made from another image, another file or with other settings"
    return Problem(item.path, image, what) if what else None


def _extra(folder: Path, wanted: list[Expected], splits: list[str]) -> list[Problem]:
    """Files that no image of ``images.csv`` has, among those of the splits that are tiled today.

    Those of images without a label are kept for the day when they are asked for again.
    """
    known = {item.path for item in wanted}
    there = {path for split in {"test", "train", *splits} for path in (folder / split).glob("*")}
    return [Problem(path, "-", "no image of images.csv has it", extra=True) for path in sorted(there - known)]


def _told(problems: list[Problem], count: int, run: Run) -> str:
    """The problems as a table, and what to type next."""
    rows = [(problem.image, problem.what, str(problem.path)) for problem in problems]
    lines = [("image", "problem", "file"), *rows]
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.ljust, line, wide)).rstrip() for line in lines]
    again = (
        f"python -m kit tile {run.asked or run.name} --force (same options): makes again what is not whole"
    )
    advice = [f"type: {again}"] if not all(problem.extra for problem in problems) else []
    if any(problem.extra for problem in problems):
        advice.append("delete the files that belong to no image: nothing reads them")
    return "\n".join([f"{len(problems)} problems with {count} files:", *table, *advice])
