"""VinBigData chest X-rays: is a radiograph normal, or did the radiologists draw something on it?

https://www.kaggle.com/competitions/vinbigdata-chest-xray-abnormalities-detection

The competition asks for boxes; this task is the classifier beside a detector, whose P(normal) filters any
submission of boxes. Readers of one image have never been of two minds about normal; were they, it would be
abnormal. Original sizes are joined to the boxes where the folder has a file of them, or train.csv has them.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from kit import boxes
from kit.competition import Competition, Demo, FoldPlan, Tables, TileGrid, Training
from kit.metrics import LogLoss
from kit.tables import first_of, read_optional, read_table

NAMES = ("train.csv", "train.csv.gz", "vinbigdata-train.csv.gz")
THEIRS = {"finding": "class_name", "reader": "rad_id"}
COLUMNS = ("image_id", "class_name", "class_id", "rad_id", *boxes.CORNERS)
FILES = {  # files of original sizes, and what they call width and height; dim0 counts rows of pixels
    "train_meta.csv": ("dim1", "dim0"),
    "train_with_size_and_fold.csv.gz": ("width", "height"),
    "sizes.csv": ("width", "height"),
}
log = logging.getLogger("kit")


def load(data: Path) -> Tables:
    """One row an image, from its findings, checked; the sample submission names the test images."""
    table = boxes.check(_raw(data))
    nothing = (~boxes.has_box(table)).groupby(table["image_id"])
    normal, mixed = nothing.all(), nothing.any() & ~nothing.all()
    if mixed.any():
        log.warning("%d images are normal to some readers only: they count as abnormal", mixed.sum())
    train = table[["image_id"]].drop_duplicates()
    train["label"] = train["image_id"].map(normal).map({True: "normal", False: "abnormal"}).astype(object)
    test = read_optional(data / "sample_submission.csv", ("image_id", "PredictionString"))
    return Tables(train, None if test is None else test[["image_id"]])


def findings(data: Path) -> pd.DataFrame:
    """Every finding of every radiologist, with the original size of its image where it is known."""
    table = _raw(data)
    for name, (width, height) in FILES.items():
        if (data / name).is_file() and not set(boxes.SIZES) <= set(table):
            table = boxes.with_sizes(table, data / name, width, height)
    return boxes.check(table)


def _raw(data: Path) -> pd.DataFrame:
    """The annotations as text, with the columns of `kit.boxes`; width and height where they are there."""
    table = read_table(first_of(data, NAMES), COLUMNS, optional=boxes.SIZES)
    table = table.rename(columns={v: k for k, v in THEIRS.items()})
    table.attrs["theirs"] = THEIRS
    return table


VINBIGDATA = Competition(
    name="vinbigdata",
    kaggle="vinbigdata-chest-xray-abnormalities-detection",
    classes=("abnormal", "normal"),
    metric=LogLoss(),
    load=load,
    boxes=findings,
    files="{split}/{image_id}.dicom",
    reader="radiograph",
    folds=FoldPlan(scheme="group"),
    tiles=TileGrid(steps=("padding", "modality", "voi", "invert"), size=224, count=1, sections=False),
    training=Training(backbones=("tf_efficientnet_lite0:frozen",), layers="all"),
    demo=Demo(module="kit.demo.chest", patients=240, test_patients=60, largest=0),
)
