r"""A user's own competition: breast tissue patches of 279 patients, is there carcinoma?

python run_all.py tests/real/idc.py --data ../shared/data/idc --weights mobilenetv2_100=FILE \
    squeezenet1_1=FILE
"""

from __future__ import annotations

from pathlib import Path

from kit.competition import Competition, Tables, TileGrid, Training, Tuning
from kit.metrics import LogLoss
from kit.tables import read_table


def load(data: Path) -> Tables:
    """One row a patch; a patch is named by its file."""
    columns = ("file", "patient_id", "label", "x", "y", "width", "height")
    table = read_table(data / "index.csv", columns)
    table["image_id"] = table["file"].str.removesuffix(".png")
    return Tables(train=table)


IDC = Competition(
    name="idc",
    classes=("0", "1"),
    metric=LogLoss(),
    load=load,
    unit="image_id",
    group="patient_id",
    files="idc_patches_png.zip/{file}",
    reader="photo",
    tiles=TileGrid(size=128, count=1),
    training=Training(
        backbones=("mobilenetv2_100:frozen", "tf_efficientnet_lite0:frozen", "squeezenet1_1:frozen"),
        layers="all",
        seeds=3,
        # Three thousand patches bear less of a ridge than a hundred slides, and a rate at which thirty
        # epochs are enough.
        lr=3e-2,
        ridge=0.2,
        augment=1.0,
    ),
    tuning=Tuning(trials=4),
)
