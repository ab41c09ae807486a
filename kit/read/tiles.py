"""The stage ``tile``: from the images of a competition to the bag of tiles of each.

An image that cannot be read, or has no tissue, is reported in ``images.csv`` and survived. One that is taken
away later counts as it was, by ``sources.csv``: tiles may be made where the images are, and used elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kit import files, parallel
from kit.errors import DataError, SettingError, StageError, listed
from kit.read import appearance, budget, shortcuts
from kit.read.reader import fingerprint, whole
from kit.read.tiler import LOOKS, VERSION, Source, Tiler, coords_digest
from kit.state import Run

__all__ = ["VERSION", "inputs", "load_images", "run", "sources", "write_images"]
IMAGES = "images.csv"
APPEARANCE = "appearance.csv"  # how photographs look: see `kit.read.appearance`
SOURCES = "sources.csv"  # what each of them was made of
MISSING = "missing"  # the fingerprint of no file
log = logging.getLogger("kit")


def inputs(run: Run) -> dict[str, Any]:
    """What the stage reads: the reader, and a digest of the ids and files of all images."""
    listing = [(source.split, source.image_id, source.fingerprint) for source in sources(run)]
    found: dict[str, Any] = {
        "reader": run.competition.reader,
        "images": len(listing),
        "digest": files.digest(listing),
        "budget": dict(budget.SETTINGS),  # they decide which slides are cut down
    }
    if run.coords is not None:
        found["coords"] = files.digest([source.coords for source in sources(run)])
    return found


def sources(run: Run) -> list[Source]:
    """The images that are tiled, by split and id; every file is fingerprinted once a run."""
    cache = vars(run)  # where the run's own cached properties live
    if "_sources" not in cache:
        cache["_sources"] = _listed_sources(run)
    found: list[Source] = cache["_sources"]
    return found


def run(run: Run) -> list[Path]:
    """Tile every image that has not been tiled with these settings; write ``images.csv``.

    Of photographs and radiographs ``appearance.csv`` is written too.

    Raises:
        DataError: not one training image can be used.
        StorageError: the disk is full.
    """
    work = Tiler(run)
    everything = sources(run)
    stored = parallel.run_all(work.done, everything, run.workers, "stored")
    known = {source: row for source, row in zip(everything, stored, strict=True) if row is not None}
    rest = [source for source in everything if source not in known]
    size = sum(_bytes_of(path) for path in {files.split_archive(s.path)[0] for s in rest})
    log.info("tile: %d images, %d still to do (%.1f GB)", len(everything), len(rest), size / 1e9)
    shared = [run.data, run.work]
    python = whole(run.competition.reader)
    made = parallel.run_all(work.tile, rest, run.workers, "tile", run.scheduler, work.lost, shared, python)
    every = [*known.values(), *made]
    table, looks = write_images(run, every), write_appearance(run, every)
    path, kept = run.folder("tile") / IMAGES, run.folder("tile") / SOURCES
    rows = [(source.split, source.image_id, source.fingerprint) for source in everything]
    files.write_table(kept, pd.DataFrame(rows, columns=["split", "image_id", "fingerprint"]))
    _check_usable(table[table["split"] == "train"])
    failed = table[table["status"] != "ok"]
    log.info("tile: %d images, %d tiles, %d images without tiles (%s)",
             len(table), table["tiles"].sum(), len(failed), path)  # fmt: skip
    for how, count in table["read_by"].value_counts().items():
        log.info("tile: %s: %d of %d images", how or "not read, see the reasons", count, len(table))
    return [path, kept, *looks]


def write_appearance(run: Run, rows: Sequence[dict[str, Any]]) -> list[Path]:
    """Write the colour and texture numbers of the images that are their own tiles, if there are any."""
    path = run.folder("tile") / APPEARANCE
    found = [{name: row[name] for name in ("image_id", "split")} | row[LOOKS] for row in rows if row[LOOKS]]
    if not found:
        path.unlink(missing_ok=True)  # of images that were pictures before
        return []
    # What was stored before comes back in another order of its numbers.
    table = pd.DataFrame(found, columns=["image_id", "split", *appearance.COLUMNS])
    files.write_table(path, table.sort_values(["split", "image_id"]))
    return [path]


def write_images(run: Run, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Write ``images.csv``: the row of every image, as `kit.read.tiler.Tiler` gives it."""
    table = pd.DataFrame(rows).drop(columns=LOOKS, errors="ignore").sort_values(["split", "image_id"])
    files.write_table(run.folder("tile") / IMAGES, table)
    return table


def load_images(run: Run) -> pd.DataFrame:
    """``images.csv`` with numbers as numbers and ids as text; one row a split and image.

    The shortcut columns are NaN for an image that could not be read.

    Raises:
        StageError: the stage has not been run.
    """
    path = run.folder("tile") / IMAGES
    if not path.is_file():
        raise StageError(f"{path} is not there", f"type: python -m kit tile {run.competition.name}")
    whole = ("width", "height", "tiles", "sections", "clots")
    table = files.read_strings(path).astype({"tissue": "float64"} | dict.fromkeys(whole, "int64"))
    measured = [name for name in shortcuts.COLUMNS if name in table]
    return table.assign(**files.numbers(table[measured]))


def tabled(run: Run) -> dict[str, pd.DataFrame]:
    """The table of each split that is tiled: ``train``, ``test`` where there is one, ``extra`` if asked for.

    Raises:
        SettingError: images without a label are asked for, and there is no table of them.
    """
    tables = run.tables
    found = {"test": tables.test, "train": tables.train}
    if run.competition.tiles.extra:
        if tables.extra is None:
            raise SettingError(
                f"tile.extra=true, and {run.data} has no table of images without a label",
                "leave tile.extra out, or add the table and its images as the competition ships them",
            )
        found = {"extra": tables.extra, **found}
    return {split: table for split, table in found.items() if table is not None}


def _check_usable(train: pd.DataFrame) -> None:
    if (train["status"] == "ok").any():
        return
    found = [f"'{row.image_id}': {row.reason}" for row in train.itertuples()]
    raise DataError(
        f"not one of the {len(train)} training images can be used:\n{listed(found)}",
        "what to type is said above"
        if (train["status"] == "refused").all()
        else "is --data the folder as the competition ships it, with its images?",
    )


def _listed_sources(run: Run) -> list[Source]:
    """The images of all splits with their fingerprints; an archive of thousands is read once.

    Raises:
        DataError: a file of coordinates breaks a rule.
    """
    images = [
        (split, str(image_id), Path(path), files.split_archive(Path(path)))
        for split, table in tabled(run).items()
        for image_id, path in sorted(table["path"].items())
    ]
    prints = {file: fingerprint(run.competition.reader, file) for file in {file for *_, (file, _) in images}}
    gone = _recorded(run) if MISSING in prints.values() else {}
    if gone and (count := sum(prints[file] == MISSING and (s, i) in gone for s, i, _, (file, _) in images)):
        log.info("%d images are not here any more: what was made of them counts", count)
    return [
        Source(
            split,
            image_id,
            path,
            gone.get((split, image_id), MISSING)
            if prints[file] == MISSING
            else f"{prints[file]}{'-' + member if member else ''}",
            "" if run.coords is None else coords_digest(run.coords, split, image_id),
        )
        for split, image_id, path, (file, member) in images
    ]


def _recorded(run: Run) -> dict[tuple[str, str], str]:
    """The fingerprints of the images that were there when they were tiled, by split and id."""
    path = run.folder("tile") / SOURCES
    if not path.is_file():
        return {}
    table = files.read_strings(path)
    table = table[table["fingerprint"] != MISSING]
    return dict(zip(zip(table["split"], table["image_id"], strict=True), table["fingerprint"], strict=True))


def _bytes_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
