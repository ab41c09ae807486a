"""Mayo Clinic STRIP AI: is a stroke clot cardioembolic (CE) or from a large artery (LAA)?

https://www.kaggle.com/competitions/mayo-clinic-strip-ai
"""

from __future__ import annotations

import math
from pathlib import Path

from kit.competition import Claim, Competition, Demo, Tables, TileGrid, Training
from kit.metrics import WeightedLogLoss
from kit.tables import read_optional, read_table

IMAGE = ("image_id", "center_id", "patient_id", "image_num")
# What a well-known notebook on these tables says of them; `kit explore` holds it against the data.
CLAIMS = (
    Claim("More than a thousand images, all tables together", "table.images_of_all_tables", 1001, math.inf),
    Claim("More than a thousand images to learn from", "table.rows", 1001, math.inf),
    Claim("The images are of 630 patients", "units.units", 630, 630),
    Claim("A patient has up to four images", "units.most", 4, 4),
    Claim("CE is more than 70 % of the images", "labels.shares.CE", 0.7, 1),
    Claim("Only 200 images are LAA", "labels.images.LAA", 200, 200),
    Claim("Two columns are whole numbers that count something", "table.kinds.discrete number", 2, 2),
    Claim("One variable alone is a discrete number", "table.kinds.discrete number", 1, 1),
    Claim("No cell is empty", "table.missing", 0, 0),
    Claim("No row is there twice", "duplicates.rows", 0, 0),
    Claim("Nothing is there twice: no test image is a training image", "duplicates.test.images", 0, 0),
    Claim("16.18 % of the image numbers are outliers", "numbers.image_num.outlier_share", 0.1617, 0.1619),
    Claim("All quartiles of the image number are 0", "numbers.image_num.q3", 0, 0),
    Claim(
        "Size and label have a predominant relation (read as: size alone has an AUC of 0.7 or more)",
        "shortcuts.scores.width and height.auc",
        0.7,
        1,
    ),
    Claim(
        "Most are about 40,000 px high (read as: the median is, to a tenth)",
        "sizes.height.median",
        36e3,
        44e3,
    ),
    Claim("Center 11 has only 7 images of LAA", "crosstabs.counts.center_id.11.LAA", 7, 7),
    Claim(
        "Center 7 is more even (read as: 40 to 60 % are LAA)", "crosstabs.shares.center_id.7.LAA", 0.4, 0.6
    ),
    Claim(
        "Center 3 is more even (read as: 40 to 60 % are LAA)", "crosstabs.shares.center_id.3.LAA", 0.4, 0.6
    ),
)


def load(data: Path) -> Tables:
    """The competition's four tables; ``other.csv`` (unlabelled etiologies, no center) may be absent."""
    return Tables(
        train=read_table(data / "train.csv", (*IMAGE, "label")),
        test=read_table(data / "test.csv", IMAGE),
        extra=read_optional(
            data / "other.csv",
            ("image_id", "patient_id", "image_num", "other_specified", "label"),
        ),
        sample=read_table(data / "sample_submission.csv", ("patient_id", "CE", "LAA")),
    )


STRIP_AI = Competition(
    name="strip-ai",
    kaggle="mayo-clinic-strip-ai",
    classes=("CE", "LAA"),
    metric=WeightedLogLoss(weights=(0.5, 0.5)),
    load=load,
    unit="patient_id",
    group="patient_id",
    site="center_id",
    claims=CLAIMS,
    files="{split}/{image_id}.tif",
    reader="slide",
    tiles=TileGrid(size=224, scale=8.0, count=16),
    training=Training(
        backbones=("tf_efficientnet_lite0:frozen", "test_efficientnet:scratch:64"), layers="all"
    ),
    # The demo's slides are a hundred times smaller: fewer, finer and smaller tiles show as much.
    demo=Demo(
        module="kit.demo.strip_ai",
        other=20,
        settings=(
            ("tile.size", "128"),
            ("tile.scale", "2"),
            ("tile.count", "8"),
            ("train.bag", "4"),
        ),
    ),
)
