r"""The blood cells as MedMNIST has them, with its own split: 28 or 64 pixels, an ``.npz`` file as shipped.

python run_all.py bloodmnist --data bloodmnist_64.npz --weights mobilenetv2_100=FILE
python -m kit.competitions.bloodmnist bloodmnist_64.npz submissions/bloodmnist/RUN/submission.csv RESULTS

The first command learns from ``train`` and ``val``, of which folds are made, and predicts ``test``; the
second writes what it says there as a result file of MedMNIST's evaluator (Yang et al. 2023): a row an image,
its number and its probabilities.

``{flag}_{split}_[AUC]{auc:.3f}_[ACC]{acc:.3f}@{run}.csv`` has no header; images are numbered as in the
``.npz`` file. AUC is the mean of every class against the rest, ACC the share of the most probable class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from kit.competition import Competition, FoldPlan, Tables, TileGrid, Training, Tuning
from kit.competitions.blood_cells import CLASSES
from kit.errors import DataError, SettingError
from kit.files import read_strings, write_file, write_text
from kit.metrics import Array, LogLoss, area_under_curve

SPLITS = ("train", "val", "test")
# Our tables, and the splits in them; MedMNIST numbers the classes in the same order.
PLACES = {"train": ("train", "val"), "test": ("test",)}


def load(data: Path) -> Tables:
    """One row an image; the arrays are written as pictures once, beside them."""
    train, test = (pd.concat([_rows(data, split) for split in splits]) for splits in PLACES.values())
    sample = pd.DataFrame({"image_id": test["image_id"], **dict.fromkeys(CLASSES, "0.125")}, dtype=object)
    tables = [table.reset_index(drop=True) for table in (train, test.drop(columns="label"), sample)]
    return Tables(train=tables[0], test=tables[1], sample=tables[2])


def _rows(data: Path, split: str) -> pd.DataFrame:
    """The images of a split, named by it and their number."""
    labels, pictures = labels_of(data, split), np.load(data / f"{split}_images.npy", mmap_mode="r")
    ids = [f"{split}_{n:05d}" for n in range(len(labels))]
    for name, picture in zip(ids, pictures, strict=True):
        path = data / "pictures" / f"{name}.png"
        if not path.is_file():
            write_file(path, Image.fromarray(np.asarray(picture)).save)
    return pd.DataFrame({"image_id": ids, "label": [CLASSES[k] for k in labels]}, dtype=object)


BLOODMNIST = Competition(
    name="bloodmnist",
    classes=CLASSES,
    metric=LogLoss(),
    load=load,
    files="pictures/{image_id}.png",
    reader="photo",
    folds=FoldPlan(k=2, scheme="group", holdout=0),
    tiles=TileGrid(size=64, count=1),
    training=Training(
        backbones=("mobilenetv2_100:finetune",),
        stem="fine",
        finetune_epochs=8,
        finetune_lr=1e-3,
        schedule="one-cycle",
        batch=32,
        augment=1.0,
        preset="flips",
    ),
    tuning=Tuning(trials=0),
)


def labels_of(file: Path, split: str) -> NDArray[np.int64]:
    """The labels ``(n,)`` of a split of a MedMNIST file, or of a folder that it was unpacked into.

    Raises:
        DataError: the file has no such split.
        SettingError: MedMNIST has no such split.
    """
    _check_split(split)
    try:
        if file.is_dir():
            found = np.load(file / f"{split}_labels.npy")
        else:
            with np.load(file) as content:
                found = content[f"{split}_labels"]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file} has no {split}_labels", "give the .npz file as MedMNIST ships it") from error
    return np.asarray(found).reshape(-1).astype(np.int64)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise SettingError(f"MedMNIST has no split '{split}'", f"it has {', '.join(SPLITS)}")


def scores(labels: NDArray[np.int64], probabilities: Array) -> tuple[float, float]:
    """AUC and ACC, as MedMNIST's evaluator has them."""
    return area_under_curve(labels, probabilities), float((probabilities.argmax(axis=1) == labels).mean())


def write(
    folder: Path, flag: str, split: str, labels: NDArray[np.int64], probabilities: Array, run: str = "kit"
) -> Path:
    """Write a result file, named by its scores.

    Raises:
        SettingError: MedMNIST has no such split.
        DataError: there is not one row a label.
    """
    _check_split(split)
    if len(labels) != len(probabilities):
        raise DataError(
            f"{len(probabilities)} rows of probabilities for {len(labels)} labels of {flag} {split}",
            "predict every image of the split once, in its order",
        )
    auc, acc = scores(labels, probabilities)
    path = folder / f"{flag}_{split}_[AUC]{auc:.3f}_[ACC]{acc:.3f}@{run}.csv"
    write_text(path, pd.DataFrame(probabilities).to_csv(header=False, lineterminator="\n"))
    return path


def ordered(table: Path, ids: list[str], classes: tuple[str, ...]) -> Array:
    """The probabilities ``(n, K)`` of a submission, in the order of ``ids``.

    Raises:
        DataError: one has no row.
    """
    rows = read_strings(table)
    rows = rows.set_index(rows.columns[0])
    if missing := [name for name in ids if name not in rows.index]:
        raise DataError(
            f"{table} has no row '{missing[0]}' ({len(missing)} are missing)", "predict the whole split"
        )
    return rows.loc[ids, list(classes)].to_numpy(dtype=np.float64)


def result(data: Path, submission: Path, folder: Path, flag: str = "bloodmnist") -> Path:
    """A submission of the test split as a result file."""
    labels = labels_of(data, "test")
    ids = [f"test_{n:05d}" for n in range(len(labels))]
    return write(folder, flag, "test", labels, ordered(submission, ids, CLASSES))


def main() -> int:
    """The second of the commands above."""
    parser = argparse.ArgumentParser(
        "python -m kit.competitions.bloodmnist",
        description="Write a submission as a result file of MedMNIST's evaluator.",
    )
    parser.add_argument("data", type=Path, help="the .npz file of MedMNIST")
    parser.add_argument("submission", type=Path, help="submissions/bloodmnist/<run>/submission.csv")
    parser.add_argument("folder", type=Path, help="where the result file is written")
    options = parser.parse_args()
    print(result(options.data, options.submission, options.folder))
    return 0


if __name__ == "__main__":
    from kit.__main__ import guarded

    raise SystemExit(guarded(main))
