"""Which of four kinds of blood smear is it: benign, or early, pre or pro B-cell leukaemia (ALL, Aria 2021)?

https://www.kaggle.com/datasets/mehradaria/leukemia, as shipped: the folders Benign, Early, Pre and Pro, as
they are, or in a zip; below Original, wherever that is, and never below Segmented beside it. 3,256 images of
89 people without names.

Images of one person follow one another in the numbers of the files, in three of the four classes (those of
Benign are in no order). So folds keep blocks of 80 numbers together, about twice what one person has
(3,256 / 89 = 37). That is a stand-in for people, and a kind one: a person may be on both sides of an edge,
and colours of two images of Pro are alike up to 160 numbers apart, further than a block reaches. Equal files
are in one block, whatever their numbers and labels. Images that are nearly equal, and no equal files, may be
on both sides of an edge: they are kept together only where ``--duplicates`` is given what
``kit duplicates --near`` found. The camera's scale bar follows the class too, and is painted over in every
image.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kit import class_folders
from kit.competition import Claim, Competition, Demo, FoldPlan, Tables, TileGrid, Training, Tuning
from kit.metrics import LogLoss

CLASSES = ("Benign", "Early", "Pre", "Pro")
BLOCK = 80  # numbers that are kept together
# What a report says that trained on them; `kit explore` holds it against the data.
CLAIMS = (
    Claim("There are 3,242 images", "folders.images", 3242, 3242),
    *(
        Claim(f"{count:,} of them are of class {name}", f"labels.images.{name}", count, count)
        for name, count in zip(CLASSES, (504, 985, 963, 804), strict=True)
    ),
    Claim("They are of 89 people", "folders.people", 89, 89),  # nobody can count people without names
    Claim("All images are 224 px wide: none is narrower", "sizes.width.min", 224, 224),
    Claim("All images are 224 px wide: none is wider", "sizes.width.max", 224, 224),
)


def load(data: Path) -> Tables:
    """One row an image of the class folders, with the block of numbers that it is in."""
    train = class_folders.table(data, CLASSES, prefer="Original")
    return Tables(train=train.assign(block=blocks(train)))


def blocks(train: pd.DataFrame) -> pd.Series[str]:
    """``Pro 3`` of an image with a number of 240 to 319; an equal file is where the first one is.

    That holds for an equal file of another class too. A file without a number at the end of its name is a
    block of its own.
    """
    number = train["cluster"].str.extract(r"(\d+)$", expand=False).astype(float)
    label = train.set_index("image_id")["label"].reindex(train["cluster"]).set_axis(train.index)
    named = label + " " + (number // BLOCK).astype("Int64").astype(str)
    return named.where(number.notna(), train["cluster"])


LEUKEMIA = Competition(
    name="leukemia",
    classes=CLASSES,
    metric=LogLoss(),
    load=load,
    group="block",
    files="{file}",
    reader="photo",
    folds=FoldPlan(scheme="group"),
    tiles=TileGrid(size=96, count=1, steps=("mask-bar",)),
    # Thousands of images bear less of a ridge than a hundred slides.
    training=Training(layers="all", bag=1, lr=3e-2, ridge=0.2, augment=1.0, oversample=800),
    tuning=Tuning(trials=0),
    demo=Demo(module="kit.demo.smears", patients=480, test_patients=0, settings=(("train.oversample", "0"),)),
    claims=CLAIMS,
)
