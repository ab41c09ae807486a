"""A made cohort that looks like STRIP AI's, with the best possible answer beside it.

Centers, labels and slides a patient are those of the real training set, scaled down. Every patient
has a latent number x, normal with unit variance about +1 for LAA and -1 for CE, and x alone fixes
how much of the patient's clots is rich in red cells. So the class is known only up to
``P(LAA | x) = sigmoid(2 x)`` when both are equally likely beforehand, and no reading of the clots
can do better. (The center, visible in background and stain, is informative as well: LAA is common
in some. That is left out of the posterior, which is about clots.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import TypeVar

import numpy as np
import pandas as pd

from kit import seeds
from kit.demo.slides import SlidePlan, write_slide
from kit.demo.textures import Textures, textures
from kit.errors import SettingError
from kit.files import write_table
from kit.parallel import run_all

VERSION = 1  # of the bytes that a seed makes
CLASSES = ("CE", "LAA")
CENTERS = {  # training patients of each class
    1: (38, 10),
    2: (18, 3),
    3: (19, 19),
    4: (67, 22),
    5: (22, 8),
    6: (19, 13),
    7: (48, 20),
    8: (14, 2),
    9: (13, 2),
    10: (25, 7),
    11: (174, 69),
}
SLIDES = {1: 543, 2: 68, 3: 13, 4: 4, 5: 4}  # patients with so many slides
WHITE, GREEN, VIOLET, PINK = (255, 255, 255), (196, 211, 192), (234, 216, 254), (255, 241, 255)
BACKGROUNDS = {1: PINK, 5: PINK, 6: GREEN, 7: GREEN, 9: VIOLET, 10: VIOLET}  # elsewhere white
OTHERS = {  # images without a label of the task: label and other_specified
    ("Unknown", ""): 331,
    ("Other", "Dissection"): 33,
    ("Other", "Hypercoagulable"): 19,
    ("Other", "PFO"): 13,
}
OTHER = ("image_id", "patient_id", "image_num", "other_specified", "label")
SEPARATION = 2.5  # between the class means of the latent, in its standard deviations
MEGAPIXELS = (2.0, 5.5, 40.0)  # least, median and most of an ordinary slide
FEWEST = (24, 6)  # training and test patients; with fewer the oddities would be most of the cohort

T = TypeVar("T")


@dataclass(frozen=True)
class Patient:
    """One patient; ``latent`` decides what the slides show."""

    patient_id: str
    split: str
    center: int
    label: str
    latent: float
    slides: tuple[SlidePlan, ...]
    specified: str = ""  # the etiology of a label Other


def make(
    folder: Path,
    seed: int,
    patients: int,
    test_patients: int,
    workers: int,
    largest: float = 200.0,
    other: int = 0,
) -> None:
    """Write a cohort as the competition ships it, and ``posterior.csv`` beside its tables.

    One training slide has ``largest`` megapixels (none with 0). Among the training slides one is
    blank and one is cut off; one test patient has nothing but a blank slide. A slide that exists
    is left alone and the tables come last, so a run that was killed goes on where it stopped; a
    folder therefore belongs to one seed and one size. ``other.csv`` lists ``other`` patients without
    a label of the task; those of a smaller number are among those of a larger one, and none of them
    changes anything of the labelled patients.

    Raises:
        SettingError: fewer patients than it takes to hold every oddity.
    """
    people = everybody(seed, patients, test_patients, largest, other)
    plans = [plan for person in people for plan in person.slides]
    missing = [plan for plan in plans if not _path(folder, plan).exists()]
    # The largest first: were it last, one worker would draw it while the others wait.
    missing.sort(key=lambda plan: plan.width * plan.height, reverse=True)
    if missing:
        draw = partial(_draw, folder, seed, textures(seed))
        run_all(draw, missing, workers, "demo slides")
    _write_tables(folder, people)


def write_tables(
    folder: Path, seed: int, patients: int, test_patients: int, largest: float = 200.0, other: int = 0
) -> None:
    """Write the tables of the cohort that `make` would draw, without one of its slides.

    Raises:
        SettingError: fewer patients than it takes to hold every oddity.
    """
    _write_tables(folder, everybody(seed, patients, test_patients, largest, other))


def write_image(path: Path) -> None:
    """Write one slide, always the same: 16 megapixels, on a background that is not white."""
    plan = SlidePlan("image", "test", 3600, 4500, GREEN, (1.0, 1.0, 1.0), share=0.5)
    write_slide(path, 0, plan, textures(0))


def everybody(seed: int, patients: int, test_patients: int, largest: float, other: int) -> list[Patient]:
    """The cohort, and behind it the patients without a label of the task."""
    people = cohort(seed, patients, test_patients, largest)
    return people + others(seed, other, [person.patient_id for person in people])


def cohort(seed: int, patients: int, test_patients: int, largest: float) -> list[Patient]:
    """Who the patients are and what each of their slides will show; nothing is drawn yet.

    Raises:
        SettingError: fewer patients than it takes to hold every oddity.
    """
    if patients < FEWEST[0] or test_patients < FEWEST[1]:
        raise SettingError(
            f"the demo has at least {FEWEST[0]} training and {FEWEST[1]} test patients, "
            f"not {patients} and {test_patients}",
            f"ask for {FEWEST[0]} and {FEWEST[1]} patients or more",
        )
    train = _people(seed, "train", _ids(seed, "train", patients, ()))
    taken = [person.patient_id for person in train]
    test = _people(seed, "test", _ids(seed, "test", test_patients, taken))
    return _odd_train(train, largest) + _odd_test(test)


def others(seed: int, count: int, taken: Iterable[str]) -> list[Patient]:
    """Patients without a label of the task, each drawn by itself: the ``count`` first of an endless row.

    ``Unknown`` is a patient like those in training whose class nobody found out. ``Other`` is of
    neither class: the clots lie between the two.
    """
    return [_other(seed, patient_id) for patient_id in _ids(seed, "other", count, taken)]


def _other(seed: int, patient_id: str) -> Patient:
    rng = seeds.rng(seed, "demo", "other", patient_id)
    label, specified = _drawn(rng, OTHERS)
    center = _drawn(rng, {center: sum(counts) for center, counts in CENTERS.items()})
    totals = np.sum(list(CENTERS.values()), axis=0)
    mean = SEPARATION * (_drawn(rng, dict(zip((-0.5, 0.5), totals, strict=True))))
    latent = float(rng.normal(mean) if label == "Unknown" else rng.normal(0, 0.5))
    plans = tuple(
        _plan(seed, "other", f"{patient_id}_{number}", center, red_share(latent))
        for number in range(_drawn(rng, SLIDES))
    )
    return Patient(patient_id, "other", center, label, latent, plans, specified)


def _drawn(rng: np.random.Generator, counts: Mapping[T, int]) -> T:
    """One of the keys, each as likely as its count says."""
    return list(counts)[rng.choice(len(counts), p=np.array(list(counts.values())) / sum(counts.values()))]


def posterior(latent: float) -> float:
    """P(LAA) given the latent, both classes being equally likely beforehand."""
    return _sigmoid(SEPARATION * latent)


def red_share(latent: float) -> float:
    """The part of a patient's clots that is rich in red cells: less of it the likelier LAA is."""
    return 0.08 + 0.84 * _sigmoid(-latent)


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def apportion(counts: Sequence[int], total: int) -> list[int]:
    """Whole numbers that add up to ``total``, as proportional to ``counts`` as can be.

    The largest remainders are rounded up.

    >>> apportion([457, 175], 24)
    [17, 7]
    """
    exact = np.array(counts) * total / sum(counts)
    whole = np.floor(exact).astype(int)
    up = np.argsort(whole - exact, kind="stable")[: total - int(whole.sum())]
    whole[up] += 1
    return [int(number) for number in whole]


def _cells(count: int) -> list[tuple[int, str]]:
    """Center and label of each patient: the classes in proportion, then the centers of each."""
    of_class = list(zip(*CENTERS.values(), strict=True))
    totals = apportion([sum(counts) for counts in of_class], count)
    return [
        (center, label)
        for label, counts, total in zip(CLASSES, of_class, totals, strict=True)
        for center, number in zip(CENTERS, apportion(counts, total), strict=True)
        for _ in range(number)
    ]


def _ids(seed: int, split: str, count: int, taken: Iterable[str]) -> list[str]:
    """Six hex digits each; now and then one that a careless reader takes for a number."""
    rng = seeds.rng(seed, "demo", "ids", split)
    used, ids = set(taken), list[str]()
    while len(ids) < count:
        digits = f"{rng.integers(10_000, 100_000)}"
        forms = {0: f"0{digits}", 1: f"{digits[0]}e{digits[1:]}"}  # like 006388 and 2e3749
        patient_id = forms.get(len(ids) % 12, f"{rng.integers(16**6):06x}")
        if patient_id not in used:
            used.add(patient_id)
            ids.append(patient_id)
    return ids


def _people(seed: int, split: str, ids: list[str]) -> list[Patient]:
    """One patient an id, with center, label and number of slides dealt at random."""
    rng = seeds.rng(seed, "demo", "patients", split)
    cells, numbers = _cells(len(ids)), apportion(list(SLIDES.values()), len(ids))
    slides = np.repeat(list(SLIDES), numbers)[rng.permutation(len(ids))]
    latents = _latents(rng, [label for _, label in cells])
    people = []
    for patient_id, at, count in zip(ids, rng.permutation(len(ids)), slides, strict=True):
        (center, label), latent = cells[at], latents[at]
        plans = tuple(
            _plan(seed, split, f"{patient_id}_{number}", center, red_share(latent)) for number in range(count)
        )
        people.append(Patient(patient_id, split, center, label, latent, plans))
    return people


def _latents(rng: np.random.Generator, labels: list[str]) -> list[float]:
    """Normal about the mean of its class, one from each of as many slices of equal probability.

    Plain draws would make one small cohort easy and the next one hard.
    """
    latents = np.empty(len(labels))
    for label, mean in zip(CLASSES, (-SEPARATION / 2, SEPARATION / 2), strict=True):
        of_class = np.array(labels) == label
        count = int(of_class.sum())
        slices = (rng.permutation(count) + rng.random(count)) / count
        latents[of_class] = [NormalDist(mean).inv_cdf(part) for part in slices]
    return [float(latent) for latent in latents]


def _plan(seed: int, split: str, image_id: str, center: int, share: float) -> SlidePlan:
    """Size and colours of one slide: each center has its stain, each slide its brightness."""
    rng = seeds.rng(seed, "demo", "plan", image_id)
    least, median, most = MEGAPIXELS
    width, height = _size(rng, float(np.clip(median * rng.lognormal(0, 0.75), least, most)))
    tint = seeds.rng(seed, "demo", "stain", center).normal(1, 0.03, 3)
    red, green, blue = (float(factor) for factor in tint * rng.uniform(0.92, 1.06))
    background = BACKGROUNDS.get(center, WHITE)
    return SlidePlan(image_id, split, width, height, background, (red, green, blue), share)


def _size(rng: np.random.Generator, megapixels: float) -> tuple[int, int]:
    """Width and height; nine slides in ten stand upright."""
    short = (megapixels * 1e6 / rng.uniform(1.3, 2.4)) ** 0.5
    size = round(short), round(megapixels * 1e6 / short)
    return size if rng.random() < 0.9 else size[::-1]


def _odd_train(people: list[Patient], largest: float) -> list[Patient]:
    """Make a second slide blank, cut off an only slide, and enlarge another only slide."""
    single = [at for at, person in enumerate(people) if len(person.slides) == 1]
    second = next(at for at in range(len(people)) if at not in single)
    *_, large, cut = single  # from the end: the first patients have the odd ids
    people[second] = _change(people[second], 1, kind="blank")
    people[cut] = _change(people[cut], 0, kind="truncated")
    if largest:
        plan = people[large].slides[0]
        scale = (largest * 1e6 / (plan.width * plan.height)) ** 0.5
        size = {"width": round(plan.width * scale), "height": round(plan.height * scale)}
        people[large] = _change(people[large], 0, **size)
    return people


def _odd_test(people: list[Patient]) -> list[Patient]:
    """Make the only slide of one patient blank."""
    at = max(at for at, person in enumerate(people) if len(person.slides) == 1)
    people[at] = _change(people[at], 0, kind="blank")
    return people


def _change(person: Patient, number: int, **fields: object) -> Patient:
    plans = list(person.slides)
    plans[number] = replace(plans[number], **fields)  # type: ignore[arg-type]
    return replace(person, slides=tuple(plans))


def _path(folder: Path, plan: SlidePlan) -> Path:
    return folder / plan.split / f"{plan.image_id}.tif"


def _draw(folder: Path, seed: int, tissues: Textures, plan: SlidePlan) -> None:
    write_slide(_path(folder, plan), seed, plan, tissues)


def _write_tables(folder: Path, people: list[Patient]) -> None:
    """The competition's tables and the posterior, each sorted by its id."""
    train, test, other = (_images(people, split) for split in ("train", "test", "other"))
    write_table(folder / "train.csv", train)
    write_table(folder / "test.csv", test.drop(columns="label"))
    if len(other):
        specified = other["patient_id"].map({person.patient_id: person.specified for person in people})
        write_table(folder / "other.csv", other.assign(other_specified=specified)[list(OTHER)])
    else:
        (folder / "other.csv").unlink(missing_ok=True)
    sample = pd.DataFrame({"patient_id": sorted(set(test["patient_id"])), "CE": 0.5, "LAA": 0.5})
    write_table(folder / "sample_submission.csv", sample)
    write_table(folder / "posterior.csv", _posteriors(people))


def _images(people: list[Patient], split: str) -> pd.DataFrame:
    """One row a slide."""
    rows = [
        (plan.image_id, person.center, person.patient_id, number, person.label)
        for person in people
        if person.split == split
        for number, plan in enumerate(person.slides)
    ]
    columns = ["image_id", "center_id", "patient_id", "image_num", "label"]
    return pd.DataFrame(sorted(rows), columns=columns)


def _posteriors(people: list[Patient]) -> pd.DataFrame:
    """The best answer for each labelled patient: 0.5 where no slide shows a clot that can be read."""
    rows = []
    for person in people:
        if person.split == "other":
            continue
        readable = any(plan.kind == "clot" for plan in person.slides)
        laa = posterior(person.latent) if readable else 0.5
        rows.append((person.patient_id, person.label, 1 - laa, laa))
    return pd.DataFrame(sorted(rows), columns=["patient_id", "label", *CLASSES])
