"""What ``prepare_data.py``, ``train.py`` and ``predict.py`` of a winner's package do.

All settings are those of the run that won, from ``bundle.json``; ``SETTINGS.json`` says only where things
lie. Relative paths are those of the folder that holds it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit import state
from kit.deliver import archive, code_part, declared
from kit.errors import DataError, KitError, SettingError
from kit.files import write_json
from kit.parallel import cores
from kit.state import Run

SETTINGS = "SETTINGS.json"
FOLDS = "folds"
# What each name in SETTINGS.json is, with its default.
PLACES = {
    "RAW_DATA_DIR": ("data", "the competition's data, as Kaggle ships them"),
    "CLEAN_DATA_DIR": ("work", "tiles and embeddings, which may be removed"),
    "MODEL_DIR": ("models", "trained weights, and the pretrained ones that they stand on"),
    "SUBMISSION_DIR": ("submission", "where submission.csv is written"),
}
STAGES = {"prepare": ("fold", "tile"), "train": ("fold", "tile", "tune", "train", "predict", "combine")}
log = logging.getLogger("kit")


def main(step: str, arguments: Sequence[str] | None = None) -> int:
    """Do one step: prepare, train or predict. Returns 0, 1 after a fault, or 2: a user's error."""
    parser = argparse.ArgumentParser(description=HELP[step])
    parser.add_argument("--settings", type=Path, default=Path(SETTINGS), help=f"default: {SETTINGS}")
    parser.add_argument("--workers", type=int, default=cores(), help="no result depends on it")
    parser.add_argument("--dry-run", action="store_true", help="check the folders, and do nothing")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        return _step(step, options.settings, options.workers, options.dry_run)
    except KitError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2


HELP = {
    "prepare": "Draw the folds and cut the tiles: RAW_DATA_DIR -> CLEAN_DATA_DIR.",
    "train": "Train every model anew: CLEAN_DATA_DIR -> MODEL_DIR.",
    "predict": "Predict the test images: RAW_DATA_DIR, MODEL_DIR -> SUBMISSION_DIR/submission.csv.",
}


def _step(step: str, settings: Path, workers: int, dry: bool) -> int:
    places = read(settings)
    root = settings.resolve().parent
    about = json.loads((root / code_part.ABOUT).read_text())
    os.chdir(root)  # the kit keeps fold tables below where it is typed
    if not places["RAW_DATA_DIR"].is_dir():
        raise DataError(
            f"RAW_DATA_DIR: {places['RAW_DATA_DIR']} is not there",
            f"unpack the data there, or edit {SETTINGS}",
        )
    if dry:
        does = "kernel" if step == "predict" else " ".join(STAGES[step])
        print(f"{about['declared']['name']}: {does}; " + ", ".join(f"{k}={v}" for k, v in places.items()))
        return 0
    if step == "predict":
        return _predict(root, about, places)
    run = run_of(root, about, places, workers)
    for stage in STAGES[step]:
        if not state.finished(run, stage):
            log.info("== %s", stage)
            state.execute(run, stage)
    if step == "train":
        keep(run, root, about, places["MODEL_DIR"])
    return 0


def read(settings: Path) -> dict[str, Path]:
    """The folders that ``SETTINGS.json`` names.

    Raises:
        SettingError: it is not there, no JSON, or lacks a name.
    """
    try:
        said: dict[str, Any] = json.loads(settings.read_text(encoding="utf-8"))
        return {name: settings.resolve().parent / str(said[name]) for name in PLACES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = f"it must name {', '.join(PLACES)}"
        raise SettingError(f"{settings} cannot be used: {type(error).__name__} {error}", hint) from error


def run_of(root: Path, about: Mapping[str, Any], places: Mapping[str, Path], workers: int) -> Run:
    """The run that won, on this machine."""
    weights = {name: places["MODEL_DIR"] / place for name, place in about["attached"].items()}
    task = root / about["task"] if about["task"] else None
    work = places["CLEAN_DATA_DIR"] / about["declared"]["name"]
    run = declared.restored(about["declared"], places["RAW_DATA_DIR"], work, task, weights, workers)
    given = root / code_part.FOLDS
    return replace(run, fold_table=given, folds_given=True) if given.is_file() else run


def keep(run: Run, root: Path, about: Mapping[str, Any], models: Path) -> None:
    """Put what was trained where `predict` looks for it, instead of what was there."""
    from kit.deliver import bundle

    temporary = models.with_name(f".tmp-{models.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    said = bundle.write_weights(run, "predict", temporary)
    archive.swap(temporary, models)
    write_json(root / code_part.ABOUT, {**about, **said, "prior": code_part.prior(run)})


def _predict(root: Path, about: Mapping[str, Any], places: Mapping[str, Path]) -> int:
    """The very code that predicts on Kaggle."""
    from kit.deliver import kernel

    if about["declared"]["demo"]:
        os.environ.setdefault("KIT_REHEARSAL", "1")  # nobody takes it for a submission
    work = places["CLEAN_DATA_DIR"] / "predict"
    shutil.rmtree(work, ignore_errors=True)  # it is of other images, or other weights
    places["SUBMISSION_DIR"].mkdir(parents=True, exist_ok=True)
    folders = {"code": root, "weights": places["MODEL_DIR"], "data": places["RAW_DATA_DIR"]}
    folders |= {"out": places["SUBMISSION_DIR"], "work": work}
    return kernel.main([f"--{name}={folder}" for name, folder in folders.items()])
