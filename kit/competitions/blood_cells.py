"""Which of eight kinds is a blood cell? 17,092 single cells of a hospital's analyser (PBC, Acevedo 2020).

https://data.mendeley.com/datasets/snkd93bnjr/1, as shipped: eight folders, or a zip of them. There are no
patient ids. Equal files are kept together, and are never held out.

The network starts from ImageNet's weights, which are attached: ``--weights mobilenetv2_100=FILE``. Without
any, the packaged ones do: ``--set train.backbones=tf_efficientnet_lite0:finetune``. The demo's cells are
drawn, and its networks are small.
"""

from __future__ import annotations

from pathlib import Path

from kit import class_folders
from kit.competition import Claim, Competition, Demo, FoldPlan, Tables, TileGrid, Training, Tuning
from kit.metrics import WeightedLogLoss

CLASSES = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "ig",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)
# As published, and as a report says that trained on them; `kit explore` holds it against the data.
PUBLISHED = (1218, 3117, 1551, 2895, 1214, 1420, 3329, 2348)
CLAIMS = (
    Claim("There are 17,092 images", "folders.images", 17092, 17092),
    *(
        Claim(f"{count:,} of them are of class {name}", f"labels.images.{name}", count, count)
        for name, count in zip(CLASSES, PUBLISHED, strict=True)
    ),
    Claim("One image is broken, and has to be left out", "folders.broken", 1, 1),
    Claim("Images are 360 px wide, the median is", "sizes.width.median", 360, 360),
    Claim("Images are 363 px high, the median is", "sizes.height.median", 363, 363),
    Claim("Their sizes do not differ: the widest has 360 px", "sizes.width.max", 360, 360),
)


def load(data: Path) -> Tables:
    """One row an image of the class folders, wherever they are in the data folder."""
    return Tables(train=class_folders.table(data, CLASSES))


BLOOD_CELLS = Competition(
    name="blood-cells",
    classes=CLASSES,
    metric=WeightedLogLoss((1 / len(CLASSES),) * len(CLASSES)),  # as the held-out set counts them
    load=load,
    group="cluster",
    files="{file}",
    reader="photo",
    folds=FoldPlan(k=2, scheme="group", holdout=313, holdout_share=0.3),
    tiles=TileGrid(size=64, count=1),
    training=Training(
        backbones=("mobilenetv2_100:finetune",),
        stem="fine",
        fixed=4,  # the stem and two stages: half of the time
        finetune_epochs=8,
        finetune_lr=1e-3,
        schedule="one-cycle",
        batch=32,
        infer_batch=64,
        bag=1,
        augment=1.0,
        preset="flips",
        views=1,
    ),
    tuning=Tuning(trials=0),
    demo=Demo(
        module="kit.demo.cells",
        patients=640,
        test_patients=0,
        settings=(
            ("fold.k", "3"),
            ("train.stem", "own"),
            (
                "train.backbones",
                "tf_efficientnet_lite0:frozen; layers=all; lr=0.03; ridge=0.1,lenet5:scratch:32; epochs=60",
            ),
        ),
    ),
    claims=CLAIMS,
)
