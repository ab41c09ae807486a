"""Level 3: the test images tiled and predicted again, with the weights that were trained."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from kit import folds
from kit.deliver import kernel
from kit.deliver.case import LIBRARIES, Case, find_images, quietly
from kit.deliver.findings import Finding, Unchecked, failed, judged
from kit.deliver.origin import TOLERANCE
from kit.errors import KitError
from kit.files import file_digest, read_strings, split_archive, write_table
from kit.learn import models, predict
from kit.learn.train import fold_names, weights_path
from kit.learn.weights import expand
from kit.read import tiles
from kit.state import Run

if TYPE_CHECKING:
    from kit.deliver.verify import Options

READING = ("torch", "timm", "albumentations", "openslide-python")  # besides what a second level needs
KEYS = ["image_id", "model", "seed", "fold"]  # what tells a row of test.csv


def check(case: Case, options: Options) -> list[Finding]:
    """Compare ``test.csv`` with what the trained weights say today.

    Raises:
        Unchecked: images or weights are not there, or the predictions were made elsewhere.
    """
    if not case.own:
        raise Unchecked("the predictions were made elsewhere, by models that nobody here knows")
    if case.part("test.csv") is None or not len(read_strings(case.folder / "test.csv")):
        raise Unchecked("no test image was predicted")
    attached = attached_weights(case, options)
    trained = find_trained(case, options)
    run = case.restore(case.place / "inferred", find_images(case, options.data), attached)
    found = check_weights(case, trained, run)
    if failed(found):
        return found
    with quietly():
        try:
            found.append(check_images(case, run))
            images, rows = test_again(run)
            return [*found, check_tiles(case, images), check_probabilities(case, rows)]
        except KitError as error:
            return [*found, Finding("FAILED", "test probabilities", error.message)]


# --- what is needed -----------------------------------------------------------------------------------


def attached_weights(case: Case, options: Options) -> dict[str, Path]:
    """The pretrained weights that the run was given: of ``--weights``, or of the bundle.

    Raises:
        Unchecked: one is not there, or is another file.
    """
    from kit.__main__ import pairs  # it imports the commands, and they this room

    given = expand(pairs(options.weights, "--weights", folders=True)) if options.weights else {}
    inputs = None if options.bundle is None else _inputs(options.bundle)
    about = None if inputs is None else inputs / "code" / "bundle.json"
    if about is not None and about.is_file():
        # Those of a bundle are the same tensors in another kind of file: what level 3 finds tells.
        held = {
            n: about.parents[1] / "weights" / p for n, p in json.loads(about.read_text())["attached"].items()
        }
        given = {name: path for name, path in held.items() if path.is_file()} | given
    wanted: Mapping[str, str] = case.manifest["weights"]["attached"]
    for name, was in wanted.items():
        if name not in given:
            raise Unchecked(
                f"the weights of {name} are not here", f"give them: --weights {name}=FILE, or --bundle DIR"
            )
        if given[name].suffix != ".safetensors" and file_digest(given[name]) != was:
            raise Unchecked(
                f"{given[name]} are not the weights of {name} that the run was made with", "look for those"
            )
    return given


def _inputs(bundle: Path) -> Path:
    """The folder of a bundle's parts, whether the bundle or that folder was given."""
    return bundle / "inputs" if (bundle / "inputs").is_dir() else bundle


def find_trained(case: Case, options: Options) -> dict[str, Path]:
    """Where each file of trained weights lies: in the bundle, or in the work folder that made the run.

    Raises:
        Unchecked: one is nowhere.
    """
    places: list[Path] = []
    if options.bundle is not None:
        inputs = _inputs(options.bundle)
        places += [inputs / "weights" / "models", inputs / "models", inputs]
    if options.work is not None:
        places += [options.work / case.declared["name"] / "train", options.work / "train"]
    found = {}
    for name in case.manifest["weights"]["trained"]:
        paths = [place / name for place in places if (place / name).is_file()]
        if not paths:
            hint = "give them: --bundle DIR (what kit bundle wrote), or the --work DIR that made the run"
            raise Unchecked(f"the trained weights {name} are not here", hint)
        found[name] = paths[0]
    if not found:
        raise Unchecked("the manifest names no trained weights")
    return found


def check_weights(case: Case, trained: Mapping[str, Path], run: Run) -> list[Finding]:
    """The weights are those of the manifest; a copy of them is where the run looks for its own."""
    was: Mapping[str, str] = case.manifest["weights"]["trained"]
    faults = [f"{path} is another file" for name, path in trained.items() if file_digest(path) != was[name]]
    for name, path in trained.items() if not faults else ():
        target = run.folder("train") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return [judged("weights", faults, f"{len(trained)} files, each with its sha256")]


def check_images(case: Case, run: Run) -> Finding:
    """The images are those that the run was made with, by their sizes and both ends."""
    what, was = "images", case.manifest["data"]["images"]
    tables = tiles.tabled(run).values()
    files = {split_archive(Path(path))[0] for table in tables for path in table["path"]}
    if lacking := sum(not path.is_file() for path in files):
        return Finding("not checked", what, f"{lacking} of {len(files)} files are not here")
    faults = [] if tiles.inputs(run)["digest"] == was["digest"] else ["they are not those of the manifest"]
    return judged(what, faults, f"{was['count']} of them, by names, sizes and both ends of each")


# --- tiling and predicting ----------------------------------------------------------------------------


def test_again(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tile and predict the test images alone, as the kernel does.

    Returns:
        Their rows of ``images.csv``, and what every model whose weights are there says, as in ``test.csv``.
    """
    names = fold_names(folds.training_folds(run))
    run = replace(run, competition=kernel.of_test(run.competition))
    todo = [  # a bound on the hours may have left some out
        model for model in models.of_run(run) if weights_path(run, model, names[0]).is_file()
    ]
    with contextlib.redirect_stdout(sys.stderr):  # the kernel tells a log what a console is not told
        kernel.tile(run)
        with tqdm(total=len(todo) * len(names), desc="predicting", unit="fold") as bar:
            rows = predict.test_rows(run, todo, names, lambda line: bar.set_postfix_str(line) or bar.update())
    write_table(run.folder("predict") / "test.csv", rows)
    return (read_strings(run.folder("tile") / tiles.IMAGES), read_strings(run.folder("predict") / "test.csv"))


def check_tiles(case: Case, made: pd.DataFrame) -> Finding:
    """The test images have as many tiles as they had."""
    what, path = "tiles", case.part("images.csv")
    if path is None:
        return Finding("not checked", what, "images.csv is not in the folder")
    told = read_strings(path)
    told = told[told["split"] == "test"].set_index("image_id")
    made = made.set_index("image_id")
    faults = [f"image '{name}' was not tiled" for name in made.index.difference(told.index)]
    faults += [f"image '{name}' is not in the data" for name in told.index.difference(made.index)]
    for name in told.index.intersection(made.index):
        was, now = (" ".join(table.loc[name, ["status", "tiles"]]) for table in (told, made))
        faults += [f"image '{name}' was '{was}', it is '{now}'"] if was != now else []
    return judged(
        what, faults, f"{len(made)} test images, {made['tiles'].astype(int).sum()} tiles, as before"
    )


def check_probabilities(case: Case, made: pd.DataFrame) -> Finding:
    """Every row of ``test.csv`` is what its model says, within what the kind of machine allows."""
    what, others = "test probabilities", case.unlike((*LIBRARIES, *READING), gpu=True)
    allowed = TOLERANCE["other" if others else "same"]
    told = read_strings(case.folder / "test.csv")
    columns = [name for name in map(str, told) if name.startswith("p_")]
    first = told.set_index(KEYS)[columns].astype(float)
    second = made.set_index(KEYS)[columns].astype(float)
    faults = [f"a row of {_row(key)} is not there" for key in second.index.difference(first.index)]
    faults += [f"no model says the row of {_row(key)}" for key in first.index.difference(second.index)]
    if faults or not first.index.is_unique:
        return judged(what, faults or ["rows of test.csv are there twice"])
    gap = (first - second.loc[first.index]).abs().max(axis=1)
    worst, largest = gap.idxmax(), float(gap.max())
    why = (
        f"within {allowed:g}, as {'; '.join(others[:2]) if others else 'machine and libraries are the same'}"
    )
    count = int((~(gap <= allowed)).sum())
    if count or not np.isfinite(largest):
        faults = [
            f"{count} of {len(gap)} rows differ, most by {largest:.2g}: {_row(worst)}; allowed is {allowed:g}"
        ]
    return judged(what, faults, f"{len(gap)} rows, the largest difference {largest:.2g} ({why})")


def _row(key: Any) -> str:
    image, model, seed, fold = key
    return f"image '{image}' by {model}, seed {seed}, without fold {fold}"
