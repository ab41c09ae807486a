r"""A data set of MedMNIST with its own split: blood cells of 28 or 64 pixels, an ``.npz`` file as shipped.

python run_all.py tests/real/medmnist.py --data bloodmnist_64.npz --weights mobilenetv2_100=FILE
python tests/real/medmnist.py bloodmnist_64.npz submissions/bloodmnist/RUN/submission.csv RESULTS

The first command learns from ``train`` and ``val``, of which folds are made, and predicts ``test``; the
second writes what it says there as a result file of MedMNIST's evaluator.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kit.combine import medmnist
from kit.competition import Competition, FoldPlan, Tables, TileGrid, Training, Tuning
from kit.competitions.blood_cells import CLASSES
from kit.files import write_file
from kit.metrics import LogLoss

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
    labels, pictures = medmnist.labels_of(data, split), np.load(data / f"{split}_images.npy", mmap_mode="r")
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


def result(data: Path, submission: Path, folder: Path, flag: str = "bloodmnist") -> Path:
    """A submission of the test split as a result file."""
    labels = medmnist.labels_of(data, "test")
    ids = [f"test_{n:05d}" for n in range(len(labels))]
    return medmnist.write(folder, flag, "test", labels, medmnist.ordered(submission, ids, CLASSES))


if __name__ == "__main__":
    print(result(*map(Path, sys.argv[1:4])))
