"""Level 3: test images and a sample of the others tiled and predicted again, with the trained weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from kit import folds, parallel
from kit.deliver.case import LIBRARIES, Case, find_images, quietly
from kit.deliver.declared import without_training
from kit.deliver.evidence import TABLES
from kit.deliver.findings import Finding, Unchecked, failed, judged
from kit.deliver.origin import TOLERANCE
from kit.deliver.rescore import gaps
from kit.deliver.sample import Sample, draw
from kit.errors import KitError
from kit.files import file_digest, read_strings, split_archive, write_table
from kit.learn import models, predict
from kit.learn.models import Model
from kit.learn.train import fold_names, weights_path
from kit.learn.weights import expand
from kit.progress import Bar
from kit.read import tiles
from kit.read.tiler import Tiler
from kit.state import Run

if TYPE_CHECKING:
    from kit.deliver.verify import Options

READING = ("torch", "timm", "albumentations", "openslide-python")  # besides what a second level needs
KEYS = ["image_id", "model", "seed", "fold"]  # what tells a row of a table of predict
LOOKS = {"same": 0.002, "other": 1.0}  # grey levels by which the colours of a photograph may be off
WHAT = {
    "oof.csv": "out-of-fold probabilities",
    "holdout.csv": "held-out probabilities",
    "test.csv": "test probabilities",
}


def check(case: Case, options: Options) -> list[Finding]:
    """Compare test.csv, and a sample of oof.csv and holdout.csv, with what the trained weights say today.

    Raises:
        Unchecked: images or weights are not there, or the predictions were made elsewhere.
    """
    if not case.own:
        raise Unchecked("the predictions were made elsewhere, by models that nobody here knows")
    attached = attached_weights(case, options)
    trained = find_trained(case, options)
    run = case.restore(case.place / "inferred", find_images(case, options.data), attached)
    found = check_weights(case, trained, run)
    if failed(found):
        return found
    sample = draw(case, run, options.every)
    if not len(read_strings(case.folder / "test.csv")) and not sample.images:
        raise Unchecked("no image that was predicted is here", "give all images: --data DIR")
    with quietly():
        try:
            found.append(check_images(case, run))
            images, rows = predicted_again(run, sample)
        except KitError as error:
            return [*found, Finding("FAILED", "probabilities", error.message)]
    found.append(check_tiles(case, images, sample))
    found += check_looks(case, run)
    for file in rows:
        found += check_file(case, file, rows[file], sample)
    return [*found, *sample.lacking()]


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


def predicted_again(run: Run, sample: Sample) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Tile the test images and the sample, and predict them by every model whose weights are there.

    Returns:
        Their rows of ``images.csv``; and the rows of each table of `predict` by its file's name.
    """
    names = fold_names(folds.training_folds(run))
    run = replace(run, competition=without_training(run.competition, but=sample.read))
    todo = [  # a bound on the hours may have left some out
        model for model in models.of_run(run) if weights_path(run, model, names[0]).is_file()
    ]
    worker = Tiler(run)
    made = parallel.run_all(worker.tile, tiles.sources(run), run.workers, "tile", "", worker.lost)
    usable = tiles.write_images(run, made).query("tiles > 0")
    tiles.write_appearance(run, made)
    test, train = (sorted(usable.loc[usable["split"] == split, "image_id"]) for split in ("test", "train"))
    parts: dict[str, list[pd.DataFrame]] = {file: [] for file in TABLES}
    torch.set_num_threads(run.threads)
    with Bar(total=len(todo) * len(names), desc="predicting", unit="fold") as bar:
        for given in todo:
            for fold in names:
                model, network = predict.recorded(run, given, fold), predict.load_network(run, given, fold)
                asked = {"oof.csv": sample.folds.get(fold, []), "holdout.csv": sample.held}
                for file in TABLES:
                    split = "test" if file == "test.csv" else "train"
                    ids = test if split == "test" else sorted({*asked[file]} & {*train})
                    values = predict.predict_images(run, model, network, split, np.array(ids, dtype=object))
                    parts[file].append(_rows(run, model, fold, ids, values))
                bar.update()
    for file, found in parts.items():
        write_table(run.folder("predict") / file, pd.concat(found))
    images = read_strings(run.folder("tile") / tiles.IMAGES)
    return images, {file: read_strings(run.folder("predict") / file) for file in TABLES}


def _rows(run: Run, model: Model, fold: str, ids: Sequence[str], values: predict.Floats) -> pd.DataFrame:
    """What a model says of some images: `KEYS`, and a column a class."""
    keys = {"image_id": ids, "model": model.name, "seed": run.seed + model.seed, "fold": fold}
    classes = {f"p_{name}": values[:, n] for n, name in enumerate(run.competition.classes)}
    return pd.DataFrame(keys | classes)


def check_tiles(case: Case, made: pd.DataFrame, sample: Sample | None = None) -> Finding:
    """The images have as many tiles as they had: those of the test and of a sample, or all of them."""
    told, keys = read_strings(case.folder / "images.csv"), ["split", "image_id"]
    if sample is not None:
        told = told[(told["split"] == "test") | told["image_id"].isin(sample.read)]
        told = told[told["split"] != "extra"]
    told, made = told.set_index(keys), made.set_index(keys)
    faults = [f"{split} image '{name}' was not tiled" for split, name in made.index.difference(told.index)]
    faults += [
        f"{split} image '{name}' is not in the data" for split, name in told.index.difference(made.index)
    ]
    for key in told.index.intersection(made.index):
        was, now = (" ".join(table.loc[key, ["status", "tiles"]]) for table in (told, made))
        faults += [f"{key[0]} image '{key[1]}' was '{was}', it is '{now}'"] if was != now else []
    counts = made.groupby(level="split").size()
    listed = " and ".join(f"{count} {split} images" for split, count in counts.items())
    count = made["tiles"].astype(int).sum()
    return judged("tiles", faults, f"{listed}, {count} tiles, as before")


def check_looks(case: Case, run: Run) -> list[Finding]:
    """What is told of the colours of photographs is what they show; nothing of slides."""
    paths = [folder / tiles.APPEARANCE for folder in (run.folder("tile"), case.folder)]
    if not all(path.is_file() for path in paths):  # that it is not sent is a fault of level 1
        return []
    made, told = (read_strings(path).set_index(["split", "image_id"]) for path in paths)
    what, others = "colours", case.unlike((*LIBRARIES, *READING), gpu=True)
    faults = [f"{split} image '{name}' has none" for split, name in made.index.difference(told.index)]
    if list(made) != list(told) or not told.index.is_unique or faults:
        return [judged(what, faults or [f"{tiles.APPEARANCE} is not as the kit writes it"])]
    gap = gaps(told.loc[made.index], made)
    allowed = LOOKS["other" if others else "same"]
    faults = [
        f"{key[0]} image '{key[1]}' has others in {tiles.APPEARANCE}" for key in gap.index[gap > allowed]
    ]
    return [judged(what, faults, f"{len(gap)} images, the largest difference {float(gap.max()):.2g}")]


def check_file(case: Case, file: str, made: pd.DataFrame, sample: Sample) -> list[Finding]:
    """The rows of a table of `predict`; of oof.csv and holdout.csv those of the sample."""
    told = read_strings(case.folder / file)
    if file == "test.csv":
        return [check_probabilities(case, WHAT[file], told, made)] if len(told) or len(made) else []
    ids, every = set(sample.images), told["image_id"].nunique()
    told = told[told["image_id"].isin(ids)]
    if not len(told) and not len(made):
        return []
    count = told["image_id"].nunique()
    how = f"{count} of {every} images; --all reads every one: " if count < every else ""
    return [check_probabilities(case, WHAT[file], told, made, how)]


def check_probabilities(
    case: Case, what: str, told: pd.DataFrame, made: pd.DataFrame, how: str = ""
) -> Finding:
    """Every row is what its model says, within what the kind of machine allows."""
    others = case.unlike((*LIBRARIES, *READING), gpu=True)
    allowed = tolerance(case, "other" if others else "same")
    columns = [name for name in map(str, told) if name.startswith("p_")]
    first, second = (table.set_index(KEYS)[columns] for table in (told, made))
    faults = [f"a row of {_row(key)} is not there" for key in second.index.difference(first.index)]
    faults += [f"no model says the row of {_row(key)}" for key in first.index.difference(second.index)]
    if faults or not first.index.is_unique:
        return judged(what, faults or ["rows are there twice"])
    gap = gaps(first, second.loc[first.index])
    largest, count = float(gap.max()), int((gap > allowed).sum())
    if count:
        worst = _row(gap.idxmax())
        most = f"most by {largest:.2g}: {worst}; allowed is {allowed:g}"
        faults = [f"{count} of {len(gap)} rows differ, {most}"]
    why = "; ".join(others[:2]) if others else "machine and libraries are the same"
    return judged(
        what,
        faults,
        f"{how}{len(gap)} rows, the largest difference {largest:.2g} (within {allowed:g}, as {why})",
    )


def tolerance(case: Case, kind: str) -> float:
    """What a probability may be off: as the manifest says, and never more than this kit allows."""
    recorded = case.manifest["tolerance"].get(kind)
    return min(TOLERANCE[kind], recorded) if isinstance(recorded, float) else TOLERANCE[kind]


def _row(key: Any) -> str:
    image, model, seed, fold = key
    return f"image '{image}' by {model}, seed {seed}, without fold {fold}"
