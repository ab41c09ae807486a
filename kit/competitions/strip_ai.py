"""Mayo Clinic STRIP AI: is a stroke clot cardioembolic (CE) or from a large artery (LAA)?

https://www.kaggle.com/competitions/mayo-clinic-strip-ai
"""

from __future__ import annotations

from pathlib import Path

from kit.competition import Competition, Demo, Tables, TileGrid, Training
from kit.metrics import WeightedLogLoss
from kit.tables import read_optional, read_table

IMAGE = ("image_id", "center_id", "patient_id", "image_num")


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
