"""Made chest radiographs with the boxes of made readers, and the best possible answer beside them.

Every image has a latent number x, normal with unit variance about +1.25 where the label is abnormal and
-1.25 where it is normal, and x alone fixes what shows: the heart, the aorta and the spots in the lungs.
Three images in ten are abnormal. So ``P(abnormal | x) = sigmoid(2.5 x + ln(3 / 7))``, and no reading of the
image can do better: a log loss of .226 on average. (Who read it tells something too, as in the real
annotations: some readers only ever see normal images. That is a shortcut, and left out of the posterior.)

Three readers look at every image. They agree that an image is normal, but of what an abnormal one shows each
misses some, and draws the rest a little elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from kit import seeds
from kit.boxes import CORNERS
from kit.demo.radiographs import Box, Film, Sign, draw_spots, write_film
from kit.errors import SettingError
from kit.files import write_table
from kit.parallel import run_all

VERSION = 1  # of the bytes that a seed makes
ABNORMAL = 0.3  # share of the images
SEPARATION = 2.5  # between the class means of the latent, in its standard deviations
FEWEST = (40, 8)  # training and test images; with fewer the oddities would be many of them
FINDINGS = {
    0: "Aortic enlargement",
    3: "Cardiomegaly",
    6: "Infiltration",
    7: "Lung Opacity",
    8: "Nodule/Mass",
    14: "No finding",
}
NOTHING, AORTA, HEART, SPOTS = 14, 0, 3, (6, 7, 8)
EMPTY = f"{NOTHING} 1 0 0 1 1"  # the prediction string of an image without a finding
READERS = tuple(f"R{number}" for number in range(1, 9))
ONLY_NORMAL = 4  # the first of them have never seen an abnormal image
SEEN = {AORTA: 0.85, HEART: 0.9, 6: 0.6, 7: 0.6, 8: 0.7}  # how often a reader draws what there is
JITTER = 0.07  # of a reader's corners, in shares of the box
FOUND = 0.85  # of what shows, by a detector
DETECTORS = 2  # whose boxes are beside the tables


@dataclass(frozen=True)
class Chest:
    """One radiograph; ``latent`` decides how much it shows.

    shown: all that could be taken for a finding. signs: what of it is one, if the label is abnormal.
    """

    film: Film
    label: str
    latent: float
    shown: tuple[Sign, ...]
    signs: tuple[Sign, ...]


def make(
    folder: Path, seed: int, patients: int, test_patients: int, workers: int, largest: float = 0.0
) -> None:
    """Write a cohort as the competition ships it, and beside its tables what the real one has not.

    ``posterior.csv`` has the best answer of each image, ``detections*.csv`` what two made detectors found.
    One training and one test image are cut off. An image that exists is left alone and the tables come last,
    so a run that was killed goes on where it stopped; a folder belongs to one seed and one size.

    Args:
        patients, test_patients: images with a label, and without. largest: not used: no film is large.

    Raises:
        SettingError: fewer images than it takes to hold every oddity.
    """
    chests = cohort(seed, patients, test_patients)
    missing = [chest.film for chest in chests if not _path(folder, chest.film).exists()]
    run_all(partial(_write, folder, seed), missing, workers, "demo radiographs")
    _write_tables(folder, seed, chests)


def write_tables(folder: Path, seed: int, patients: int, test_patients: int, largest: float = 0.0) -> None:
    """Write the tables of the cohort that `make` would draw, without one of its images.

    Raises:
        SettingError: fewer images than it takes to hold every oddity.
    """
    _write_tables(folder, seed, cohort(seed, patients, test_patients))


def write_image(path: Path) -> None:
    """Write one radiograph, always the same: of the kind that needs most of a decoder."""
    write_film(path, 0, Film("one", "train", 200, 224, 0.5, ((0.3, 0.4, 0.05),), inverted=True, packed=True))


def posterior(latent: float) -> float:
    """P(abnormal) given the latent."""
    return float(expit(SEPARATION * latent + logit(ABNORMAL)))


def cohort(seed: int, patients: int, test_patients: int) -> list[Chest]:
    """What each radiograph will show; nothing is drawn yet.

    Raises:
        SettingError: fewer images than it takes to hold every oddity.
    """
    if patients < FEWEST[0] or test_patients < FEWEST[1]:
        raise SettingError(
            f"the demo has at least {FEWEST[0]} training and {FEWEST[1]} test images,"
            f" not {patients} and {test_patients}",
            f"ask for {FEWEST[0]} and {FEWEST[1]} images or more",
        )
    chests = []
    for split, count in (("train", patients), ("test", test_patients)):
        part = _part(seed, split, count)
        part[-1] = replace(part[-1], film=replace(part[-1].film, truncated=True))
        chests += part
    return chests


def _part(seed: int, split: str, count: int) -> list[Chest]:
    rng = seeds.rng(seed, "demo", "chests", split)
    labels = np.where(np.arange(count) < round(ABNORMAL * count), "abnormal", "normal")
    labels = labels[rng.permutation(count)]
    latents = np.empty(count)
    for label, mean in (("abnormal", SEPARATION / 2), ("normal", -SEPARATION / 2)):
        of_class = np.flatnonzero(labels == label)
        # One from each of as many slices of equal probability: plain draws make one cohort easy, one hard.
        slices = (rng.permutation(len(of_class)) + rng.random(len(of_class))) / max(1, len(of_class))
        latents[of_class] = [NormalDist(mean).inv_cdf(part) for part in slices]
    return [
        _chest(
            seed, split, f"{rng.integers(2**63):016x}{rng.integers(2**63):016x}", str(label), float(latent)
        )
        for label, latent in zip(labels, latents, strict=True)
    ]


def _chest(seed: int, split: str, image_id: str, label: str, latent: float) -> Chest:
    """Size, spots and file format of one image are drawn without a look at its label."""
    rng = seeds.rng(seed, "demo", "chest", image_id)
    height, shape = int(rng.integers(190, 257)), float(rng.choice((0.82, 0.9, 1.0)))
    spots = draw_spots(rng, int(rng.integers(1, 4)))
    kinds = [bool(rng.random() < share) for share in (0.4, 0.3, 0.3)]
    film = Film(image_id, split, round(shape * height), height, float(expit(latent)), spots, *kinds)
    there = [Sign(HEART, film.heart), Sign(AORTA, film.aorta)]
    there += [Sign(int(rng.choice(SPOTS)), film.spot(number)) for number in range(len(spots))]
    kept = [sign for sign in there if rng.random() < 0.7] or there[:1]
    return Chest(film, label, latent, tuple(there), tuple(kept))


def _path(folder: Path, film: Film) -> Path:
    return folder / film.split / f"{film.image_id}.dicom"


def _write(folder: Path, seed: int, film: Film) -> None:
    write_film(_path(folder, film), seed, film)


# --- readers and detectors ----------------------------------------------------------------------------


def read(seed: int, chest: Chest) -> list[tuple[object, ...]]:
    """The rows of three readers of one image."""
    film = chest.film
    rng = seeds.rng(seed, "demo", "readers", film.image_id)
    who = READERS if chest.label == "normal" else READERS[ONLY_NORMAL:]
    rows: list[tuple[object, ...]] = []
    for reader in rng.choice(who, 3, replace=False):
        if chest.label == "normal":
            rows.append((film.image_id, FINDINGS[NOTHING], NOTHING, str(reader), "", "", "", ""))
            continue
        seen = [sign for sign in chest.signs if rng.random() < SEEN[sign.class_id]] or chest.signs[:1]
        for sign in seen:
            box = _moved(rng, film, sign.box, JITTER)
            rows.append(
                (film.image_id, FINDINGS[sign.class_id], sign.class_id, str(reader), *map(float, box))
            )
    return rows


def _moved(rng: np.random.Generator, film: Film, box: Box, jitter: float) -> Box:
    """The box with every corner a little elsewhere, still inside of the image and at least 4 pixels wide."""
    left, top, right, bottom = box
    sides = np.array([right - left, bottom - top] * 2)
    x, y, x2, y2 = np.round(np.array(box) + jitter * sides * rng.standard_normal(4)).astype(int).tolist()
    x, y = min(max(x, 0), film.width - 4), min(max(y, 0), film.height - 4)
    return x, y, min(max(x2, x + 4), film.width), min(max(y2, y + 4), film.height)


def detect(seed: int, chest: Chest, detector: int) -> str:
    """The prediction string of a detector that finds signs well and hardly knows a normal image.

    Like those of the competition it was trained on abnormal images only: how sure it is follows only loosely
    how much shows, and it finds something on every image.
    """
    film = chest.film
    rng = seeds.rng(seed, "demo", "detector", detector, film.image_id)
    words = []
    for sign in chest.shown:
        score = expit(rng.normal(0.8 if sign in chest.signs else -0.8) + 0.3 * chest.latent)
        mistaken = sign.class_id in SPOTS and rng.random() < 0.2
        number = int(rng.choice(SPOTS)) if mistaken else sign.class_id
        if rng.random() < FOUND:
            box = " ".join(map(str, _moved(rng, film, sign.box, JITTER)))
            words.append(f"{number} {score:.4f} {box}")
    return " ".join(words) or EMPTY


# --- tables -------------------------------------------------------------------------------------------


def _write_tables(folder: Path, seed: int, chests: Sequence[Chest]) -> None:
    """The competition's tables, the sizes, the posterior and the detections, each sorted by its id."""
    chests = sorted(chests, key=lambda chest: chest.film.image_id)
    train, test = ([chest for chest in chests if chest.film.split == split] for split in ("train", "test"))
    rows = [row for chest in train for row in read(seed, chest)]
    columns = ["image_id", "class_name", "class_id", "rad_id", *CORNERS]
    write_table(folder / "train.csv", pd.DataFrame(rows, columns=columns))
    names = [chest.film.image_id for chest in test]
    write_table(
        folder / "sample_submission.csv", pd.DataFrame({"image_id": names, "PredictionString": EMPTY})
    )
    sizes = [(chest.film.image_id, chest.film.height, chest.film.width) for chest in train]
    write_table(folder / "train_meta.csv", pd.DataFrame(sizes, columns=["image_id", "dim0", "dim1"]))
    write_table(folder / "posterior.csv", _posteriors(chests))
    for part, suffix in ((test, ""), (train, "_train")):
        for number in range(1, DETECTORS + 1):
            found = [(chest.film.image_id, detect(seed, chest, number)) for chest in part]
            table = pd.DataFrame(found, columns=["image_id", "PredictionString"])
            write_table(folder / f"detections{suffix}_{number}.csv", table)


def _posteriors(chests: Sequence[Chest]) -> pd.DataFrame:
    """The best answer for each image: the share of the class where the file cannot be read."""
    rows = []
    for chest in chests:
        abnormal = ABNORMAL if chest.film.truncated else posterior(chest.latent)
        rows.append((chest.film.image_id, chest.label, abnormal, 1 - abnormal))
    return pd.DataFrame(rows, columns=["image_id", "label", "abnormal", "normal"])
