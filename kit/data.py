"""The data folder of a run: as the competition ships it, a zip of that, or the embedded demo."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kit.competition import Competition, Demo
from kit.errors import DataError
from kit.files import fingerprint, read_json, write_json

DEMO_SEED = 0  # the cohort stays the same when --seed changes the draws made on it
log = logging.getLogger("kit")


def demo_data(task: Competition, work: Path, workers: int) -> Path:
    """Make the demo cohort, or find it as it was made before.

    Raises:
        DataError: the competition has none.
    """
    if not task.demo.module:
        raise DataError(f"{task.name} has no embedded demo", "give its data: --data DIR")
    log.info("no --data given: this is the embedded demo, a made cohort and not the competition's")
    module = importlib.import_module(task.demo.module)
    folder, marker = work / "data", work / "data" / "demo.json"
    others = _others(task)
    made = _settings(task.demo) | {"version": module.VERSION} | others
    if read_json(marker) == made:
        return folder
    began = work / "data" / "begun.json"
    earlier = [_without_others(read_json(path)) for path in (marker, began)]
    if any(old not in ({}, _without_others(made)) for old in earlier):
        shutil.rmtree(folder)
    write_json(began, made)
    demo = task.demo
    module.make(folder, DEMO_SEED, demo.patients, demo.test_patients, workers, demo.largest, **others)
    write_json(marker, made)
    return folder


def demo_tables(task: Competition, folder: Path) -> Path:
    """Write the tables of the demo cohort alone, in a moment: what its images are not needed for.

    Raises:
        DataError: the competition has no demo, or one that cannot do so.
    """
    module = importlib.import_module(task.demo.module) if task.demo.module else None
    write = getattr(module, "write_tables", None)
    if write is None:
        raise DataError(f"{task.name} has no demo whose tables can be made", "give its data: --data DIR")
    demo, others = task.demo, _others(task)
    write(folder, DEMO_SEED, demo.patients, demo.test_patients, demo.largest, **others)
    return folder


def demo_image(task: Competition, folder: Path) -> Path | None:
    """Write one image as the competition's are, always the same; ``None``: no demo can do so."""
    module = importlib.import_module(task.demo.module) if task.demo.module else None
    write = getattr(module, "write_image", None)
    if write is None:
        return None
    path = folder / f"image{Path(task.files).suffix}"
    write(path)
    return path


def _others(task: Competition) -> dict[str, int]:
    """How many patients without a label the cohort has, where they are asked for."""
    return {"other": task.demo.other} if task.tiles.extra and task.demo.other else {}


def _without_others(made: dict[str, Any]) -> dict[str, Any]:
    """What decides the labelled part of a cohort, which the images without a label are only added to."""
    return {name: value for name, value in made.items() if name != "other"}


def _settings(demo: Demo) -> dict[str, Any]:
    """What the cohort depends on; how it is tiled and learned does not change it."""
    content = asdict(demo)
    content.pop("settings")
    content.pop("other")
    return content


def open_data(data: Path, work: Path) -> Path:
    """The folder itself, or a zip unpacked once into the work folder.

    Raises:
        DataError: there is no such folder, or the zip is damaged.
    """
    if data.is_dir():
        return data
    if not data.is_file():
        raise DataError(f"the data folder {data} is not there", "check the path given to --data")
    if not zipfile.is_zipfile(data):
        raise DataError(f"{data} is neither a folder nor a zip", "give the folder or zip as shipped")
    folder = work / f"unzipped-{fingerprint(data)[-16:]}"
    if not folder.is_dir():
        log.info("unpacking %s into %s", data, folder)
        _unpack(data, folder)
    inside = [path for path in folder.iterdir() if not path.name.startswith(("__MACOSX", "."))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack beside the target, then rename: after a kill there is no half of it."""
    temporary = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(temporary)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}", "download it again") from error
    os.replace(temporary, folder)
