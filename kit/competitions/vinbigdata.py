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
from kit.competition import Claim, Competition, Demo, FoldPlan, Tables, TileGrid, Training
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
# What the readers' words mean on a chest radiograph, in plain words; no help for a diagnosis.
GLOSSARY = (
    (
        "Aortic enlargement",
        "The thoracic aorta looks wider than it should: a broad aortic knob, a wide mediastinum. It may be an"
        " aneurysm, and as well an aorta that age or high blood pressure has unfolded: the film alone does"
        " not tell which.",
    ),
    (
        "Atelectasis",
        "A part of a lung, a lobe or all of it has lost its air and its volume. It is denser, and fissures,"
        " diaphragm or mediastinum are drawn towards it.",
    ),
    (
        "Calcification",
        "Calcium in tissue, white and sharply edged: in healed scars of the lung, in lymph nodes, in the"
        " pleura, or in the wall of the aorta. It is often the trace of something long past.",
    ),
    (
        "Cardiomegaly",
        "The heart's shadow is large: by rule of thumb wider than half of the inner width of the chest"
        " (cardiothoracic ratio above 0.5), on a posteroanterior film of an adult in full inspiration. On an"
        " anteroposterior or a shallow breath's film a normal heart looks as wide.",
    ),
    (
        "Consolidation",
        "Fluid, pus, blood or cells fill the alveoli instead of air, as in pneumonia. The area is evenly"
        " dense and hides its vessels, while bronchi with air may show in it as dark branches (air"
        " bronchogram).",
    ),
    (
        "ILD",
        "Interstitial lung disease: many diseases of the tissue between the alveoli and around the vessels,"
        " by inflammation or scarring. Fine lines, small nodules or haze, mostly in both lungs.",
    ),
    (
        "Infiltration",
        "An older, vague word for an ill-defined density in a lung, whatever fills or thickens it. It"
        " overlaps with consolidation and opacity, and glossaries of radiology advise against it.",
    ),
    (
        "Lung Opacity",
        "An area of a lung that is whiter than it should be. It says what is seen and not what it is: other"
        " classes are opacities too.",
    ),
    (
        "Nodule/Mass",
        "A rounded opacity: a nodule up to 3 cm across, a mass beyond. Among the causes are cancer of the"
        " lung, metastases, granulomas as of tuberculosis, other infections and benign tumours.",
    ),
    (
        "Other lesion",
        "Whatever readers marked that no other class names, as fractures and other changes of bone, or air"
        " below the skin (subcutaneous emphysema).",
    ),
    (
        "Pleural effusion",
        "Fluid between the two layers of the pleura: like water, or pus, blood, lymph. On an upright film it"
        " blunts the angle between diaphragm and ribs and climbs at the side; lying down it may only veil the"
        " lung.",
    ),
    (
        "Pleural thickening",
        "The pleura is thicker than a fine line, mostly scarred by infection, bleeding or asbestos, rarely by"
        " a tumour: a band along the chest wall, often a cap at the top of the lung.",
    ),
    (
        "Pneumothorax",
        "Air in the pleural space, so that the lung falls together in part or in whole. The edge of the lung"
        " shows as a thin white line, and beyond it there are no vessels.",
    ),
    (
        "Pulmonary fibrosis",
        "Scarring of the lung: coarse lines, less volume, vessels and bronchi pulled out of place, in some"
        " diseases a honeycomb. Inflammation may have led to it and is not the same.",
    ),
    (
        "No finding",
        "The reader marked nothing of all this. It is what one reader says of one film, and no proof of"
        " health.",
    ),
)
# What a well-known notebook on the annotations says of them; `kit explore` holds it against the data.
CLAIMS = (
    Claim("There are 15,000 annotated images", "findings.images", 15000, 15000),
    Claim("There are 67,914 annotations", "findings.rows", 67914, 67914),
    Claim("They have 15 class names", "findings.classes", 15, 15),
    Claim("Three radiologists made 40 to 50 % of the annotations", "findings.busiest_rows", 0.4, 0.5),
    Claim("There are 10 radiologists besides these", "findings.other_readers", 10, 10),
    Claim("7 radiologists have only ever said that there is nothing", "findings.never_drew_count", 7, 7),
    Claim("On no image do readers differ whether it is normal", "findings.mixed", 0, 0),
    Claim("On findings readers do differ: a kappa below 1", "findings.kappa_least", -1, 0.999),
    Claim("Almost 70 % of the images are normal", "findings.nothing_share", 0.69, 0.71),
    Claim("Only 30 % of the images have something to locate", "findings.something_share", 0.29, 0.31),
    Claim(
        "t-SNE of the boxes does not separate the classes: neighbours are alike about as often as by chance",
        "map.map_times_chance",
        0.5,
        1.5,
    ),
)
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
    glossary=GLOSSARY,
    claims=CLAIMS,
)
