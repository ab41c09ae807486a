"""Made blood smears of four classes, with the best possible answer beside them.

Two latent numbers decide what the nuclei of an image look like, each normal with unit variance about +1.25 or
-1.25: their size (larger in Early and Pro) and their colour (pinker in Pre and Pro). As in the real data, a
person's images have neighbouring numbers, one stain and one camera, whose scale bar is burned into a corner;
and the stain follows the class: in seven persons of ten it is the class's own, else any of the other three.
So what can be known of an image is the product of three factors, two of the nuclei and one of the stain,
whatever network looks at it; ``posterior.csv`` has it. The stain alone is right in seven of ten.

Two neighbours of Pro are there twice, byte for byte.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit

from kit import seeds
from kit.errors import SettingError
from kit.files import write_bytes, write_table
from kit.parallel import run_all

VERSION = 1  # of the bytes that a seed makes
CLASSES = ("Benign", "Early", "Pre", "Pro")
NAMES = ("WBC-Benign", "WBC-Malignant-Early", "WBC-Malignant-Pre", "WBC-Malignant-Pro")
SIGNS = ((-1, -1), (1, -1), (-1, 1), (1, 1))  # of the means of size and colour, by class
SEPARATION = 2.5  # between the two means of a latent, in its standard deviations
STAINED = 0.7  # share of the persons of a class whose stain is its own
PERSON = 10  # images of one
APART = 80  # between the first numbers of two persons
SIDE = 96  # pixels of an image
FEWEST = 160  # images; with fewer there are too few persons for folds
GLASS = ((236, 232, 214), (206, 224, 244), (244, 226, 238), (246, 248, 244))  # of each stain
RED = ((196, 188, 176), (158, 172, 204), (214, 186, 198), (198, 206, 202))  # cells, of each stain
VIOLET, PINK = np.array([92.0, 60.0, 176.0]), np.array([208.0, 96.0, 170.0])  # nuclei
INKS = ((20, 20, 20), (190, 30, 40), (20, 20, 20), (60, 60, 60))  # of the scale bar, by stain
BOXED = (True, False, False, True)  # whether the scale bar has a white box, by stain
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Smear:
    """One image: its class and stain as numbers, and the latent size and colour of its nuclei."""

    image_id: str
    kind: int
    stain: int
    latents: tuple[float, float]

    @property
    def posterior(self) -> NDArray[np.float64]:
        """The probability of every class ``(4,)``, as well as pixels can tell it."""
        said = np.array([expit(SEPARATION * np.array(self.latents) * signs).prod() for signs in SIGNS])
        same = np.arange(len(CLASSES)) == self.stain
        said = said * np.where(same, STAINED, (1 - STAINED) / (len(CLASSES) - 1))
        return np.asarray(said / said.sum())


def make(
    folder: Path,
    seed: int,
    patients: int,
    test_patients: int = 0,
    workers: int = 1,
    largest: float = 0.0,
    **others: int,
) -> None:
    """Write the class folders, and ``posterior.csv`` beside them.

    An image that exists is left alone, so a folder belongs to one seed and one size. There is no test set.

    Args:
        patients: images in all, as many of each class.

    Raises:
        SettingError: there are too few for folds.
    """
    smears = cohort(seed, patients)
    todo = [smear for smear in smears if not _path(folder, smear).exists()]
    run_all(partial(_write, folder, seed), todo, workers, "demo smears")
    for copy, first in repeated(smears):
        write_bytes(_path(folder, copy), _path(folder, first).read_bytes())
    table = pd.DataFrame([smear.posterior for smear in smears], columns=list(CLASSES))
    table.insert(0, "label", [CLASSES[smear.kind] for smear in smears])
    table.insert(0, "image_id", [smear.image_id for smear in smears])
    write_table(folder / "posterior.csv", table.sort_values("image_id"))


# The folders are the tables.
write_tables = make


def cohort(seed: int, images: int) -> list[Smear]:
    """All images by class and person; the second and fourth of Pro repeat the ones before them.

    Raises:
        SettingError: there are too few for folds.
    """
    if images < FEWEST:
        raise SettingError(f"a demo of {images} images is too small", f"write demo.patients={FEWEST} or more")
    each = -(-images // len(CLASSES))
    made = [_smear(seed, kind, n) for kind in range(len(CLASSES)) for n in range(each)]
    same = {copy.image_id: first for copy, first in repeated(made)}
    return [
        Smear(smear.image_id, smear.kind, smear.stain, same[smear.image_id].latents)
        if smear.image_id in same
        else smear
        for smear in made
    ]


def repeated(smears: list[Smear]) -> list[tuple[Smear, Smear]]:
    """Images that are there twice: the copy, and what it is a copy of."""
    mine = [smear for smear in smears if CLASSES[smear.kind] == "Pro"]
    return [(mine[1], mine[0]), (mine[3], mine[2])]


def _smear(seed: int, kind: int, n: int) -> Smear:
    person, place = divmod(n, PERSON)
    rng = seeds.rng(seed, "demo", "person", kind, person)
    others = [stain for stain in range(len(CLASSES)) if stain != kind]
    stain = kind if rng.random() < STAINED else int(rng.choice(others))
    image_id = f"{NAMES[kind]}-{APART * person + place:03d}"
    means = np.array(SIGNS[kind]) * SEPARATION / 2
    size, colour = seeds.rng(seed, "demo", "smear", image_id).normal(means).tolist()
    return Smear(image_id, kind, stain, (size, colour))


# --- drawing --------------------------------------------------------------------------------------------


def _path(folder: Path, smear: Smear) -> Path:
    return folder / CLASSES[smear.kind] / f"{smear.image_id}.jpg"


def _write(folder: Path, seed: int, smear: Smear) -> None:
    stream = io.BytesIO()
    Image.fromarray(draw(seed, smear)).save(stream, "JPEG", quality=92)
    write_bytes(_path(folder, smear), stream.getvalue())


def draw(seed: int, smear: Smear) -> Pixels:
    """The image: uint8 (96, 96, 3)."""
    rng = seeds.rng(seed, "demo", "pixels", smear.image_id)
    image = np.full((SIDE, SIDE, 3), GLASS[smear.stain], np.uint8)
    for x, y in rng.integers(0, SIDE, (28, 2)).tolist():
        cv2.circle(image, (x, y), int(rng.integers(4, 7)), RED[smear.stain], -1, cv2.LINE_AA)
        cv2.circle(image, (x, y), 2, GLASS[smear.stain], -1, cv2.LINE_AA)
    size, pink = expit(np.array(smear.latents))
    colour = tuple((VIOLET + (PINK - VIOLET) * pink).tolist())
    for place in range(4):  # one in each quarter, where the scale bar is not
        x, y = (16 * (rng.integers(16, 30, 2) + 38 * np.array([place % 2, place // 2]))).tolist()
        cv2.circle(image, (x, y), round(16 * (5 + 6 * size)), colour, -1, cv2.LINE_AA, 4)  # in 16ths
    noise = rng.normal(0, 3, image.shape)
    image = np.clip(cv2.GaussianBlur(image, (3, 3), 0) + noise, 0, 255).astype(np.uint8)
    return _with_bar(image, smear.stain)


def _with_bar(image: Pixels, stain: int) -> Pixels:
    """A scale bar in the lower right corner, in the style of a camera."""
    if BOXED[stain]:
        image[SIDE - 12 :, SIDE - 17 :] = 255
    image[SIDE - 4, SIDE - 15 : SIDE - 2] = INKS[stain]
    image[SIDE - 6 : SIDE - 2, [SIDE - 15, SIDE - 3]] = INKS[stain]
    image[SIDE - 9 : SIDE - 7, SIDE - 12 : SIDE - 5 : 2] = INKS[stain]
    return image
