"""The made STRIP AI cohort: its structure, its best answer, and its bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest

from kit.demo import strip_ai
from kit.demo.strip_ai import (
    CENTERS,
    CLASSES,
    SLIDES,
    Patient,
    apportion,
    cohort,
    make,
    others,
    posterior,
    red_share,
)
from kit.errors import SettingError
from kit.files import read_strings


@contextmanager
def small_slides() -> Iterator[None]:
    """Slides of a few hundred thousand pixels, where only their structure is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strip_ai, "MEGAPIXELS", (0.12, 0.2, 0.4))
        yield


def make_small(folder: Path, workers: int) -> None:
    with small_slides():
        make(folder, seed=0, patients=24, test_patients=6, workers=workers, largest=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    make_small(folder, workers=2)
    return folder


@pytest.fixture(scope="module")
def people() -> list[Patient]:
    with small_slides():
        return cohort(0, 24, 6, 0)


@pytest.fixture(scope="module")
def added(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cohort with patients without a label of the task, made all at once."""
    made = tmp_path_factory.mktemp("added")
    with small_slides():
        make(made, seed=0, patients=24, test_patients=6, workers=2, largest=0, other=8)
    return made


def test_patients_without_a_label_change_nothing_of_the_others(folder: Path, added: Path) -> None:
    plain, more = bytes_of(folder), bytes_of(added)
    assert {name: more.get(name) for name in plain} == plain
    new = set(more) - set(plain)
    table = read_strings(added / "other.csv")
    assert list(table) == ["image_id", "patient_id", "image_num", "other_specified", "label"]
    assert new == {"other.csv", *(f"other/{image}.tif" for image in table["image_id"])}
    assert table["image_id"].is_monotonic_increasing and table["patient_id"].nunique() == 8
    known = {
        *read_strings(added / "train.csv")["patient_id"],
        *read_strings(added / "test.csv")["patient_id"],
    }
    assert not known & set(table["patient_id"])
    for image in table["image_id"]:
        pixels = read(added / "other" / f"{image}.tif")
        assert 0.11e6 < pixels.shape[0] * pixels.shape[1] < 0.41e6 and pixels.std() > 5


def test_patients_without_a_label_are_added_to_a_cohort_and_taken_away(
    folder: Path, added: Path, tmp_path: Path
) -> None:
    with small_slides():
        make(tmp_path, seed=0, patients=24, test_patients=6, workers=2, largest=0, other=3)
        few = read_strings(tmp_path / "other.csv")
        make(tmp_path, seed=0, patients=24, test_patients=6, workers=2, largest=0, other=8)
        assert bytes_of(tmp_path) == bytes_of(added)
        assert set(few["image_id"]) < set(read_strings(added / "other.csv")["image_id"])
        make(tmp_path, seed=0, patients=24, test_patients=6, workers=2, largest=0)
    assert {"other.csv"} == set(bytes_of(added)) - set(bytes_of(tmp_path))
    assert (tmp_path / "posterior.csv").read_bytes() == (folder / "posterior.csv").read_bytes()


def test_patients_without_a_label_are_of_either_class_or_of_neither() -> None:
    people = others(0, 400, ())
    of = {label: [p for p in people if p.label == label] for label in ("Unknown", "Other")}
    assert len(of["Unknown"]) / 400 == pytest.approx(0.84, abs=0.05)
    assert all((person.specified != "") == (person.label == "Other") for person in people)
    latents = {label: np.array([p.latent for p in some]) for label, some in of.items()}
    # A mixture 72 : 28 about -1.25 and 1.25; and one heap in between.
    assert latents["Unknown"].mean() == pytest.approx(1.25 * (0.28 - 0.72), abs=0.25)
    assert latents["Unknown"].std() == pytest.approx(1.5, abs=0.15)
    assert abs(latents["Other"].mean()) < 0.2 and latents["Other"].std() == pytest.approx(0.5, abs=0.1)
    assert (
        {person.split for person in people} == {plan.split for p in people for plan in p.slides} == {"other"}
    )
    assert people[:20] == others(0, 20, ())


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read(path: Path) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]


def test_the_folder_looks_like_the_competition_s(folder: Path) -> None:
    train, test = read_strings(folder / "train.csv"), read_strings(folder / "test.csv")
    assert list(train) == ["image_id", "center_id", "patient_id", "image_num", "label"]
    assert list(test) == ["image_id", "center_id", "patient_id", "image_num"]
    for table, split in ((train, "train"), (test, "test")):
        assert table["image_id"].is_monotonic_increasing
        assert (table["image_id"] == table["patient_id"] + "_" + table["image_num"]).all()
        files = {path.name for path in (folder / split).iterdir()}
        assert files == set(table["image_id"] + ".tif")
    sample = (folder / "sample_submission.csv").read_text().splitlines()
    assert sample[0] == "patient_id,CE,LAA"
    assert sample[1:] == [f"{one},0.5,0.5" for one in sorted(set(test["patient_id"]))]


def test_no_patient_is_both_in_train_and_in_test(folder: Path) -> None:
    train, test = read_strings(folder / "train.csv"), read_strings(folder / "test.csv")
    assert train["patient_id"].nunique() == 24
    assert test["patient_id"].nunique() == 6
    assert not set(train["patient_id"]) & set(test["patient_id"])


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(folder: Path, tmp_path: Path) -> None:
    make_small(tmp_path, workers=1)
    assert bytes_of(tmp_path) == bytes_of(folder)


def test_a_killed_run_goes_on_to_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []
    draw = strip_ai.write_slide

    def killed(path: Path, *rest: object) -> None:
        if len(drawn) == 10:
            raise KeyboardInterrupt
        draw(path, *rest)  # type: ignore[arg-type]
        drawn.append(path)

    monkeypatch.setattr(strip_ai, "write_slide", killed)
    with pytest.raises(KeyboardInterrupt):
        make_small(tmp_path, workers=1)
    assert len(drawn) == 10
    assert not list(tmp_path.glob("*.csv"))
    monkeypatch.undo()
    times = [path.stat().st_mtime_ns for path in drawn]
    make_small(tmp_path, workers=2)
    assert [path.stat().st_mtime_ns for path in drawn] == times
    assert bytes_of(tmp_path) == bytes_of(folder)


def test_another_seed_gives_other_patients() -> None:
    first, second = (
        {person.patient_id for person in cohort(seed, 24, 6, 0) if len(person.patient_id) == 6}
        for seed in (0, 1)
    )
    assert len(first) == len(second) == 30
    assert not first & second


def test_at_full_size_the_counts_are_the_real_ones() -> None:
    train = [person for person in cohort(0, 632, 6, 0) if person.split == "train"]
    cells = Counter((person.center, person.label) for person in train)
    assert cells == {
        (center, label): count
        for center, counts in CENTERS.items()
        for label, count in zip(CLASSES, counts, strict=True)
    }
    assert Counter(len(person.slides) for person in train) == SLIDES


@pytest.mark.parametrize("patients", [24, 37, 60, 120])
def test_a_small_cohort_keeps_classes_centers_and_siblings(patients: int) -> None:
    train = [person for person in cohort(0, patients, 6, 0) if person.split == "train"]
    assert len(train) == patients
    assert 0.25 <= np.mean([person.label == "LAA" for person in train]) <= 0.32
    assert Counter(person.center for person in train).most_common(1)[0][0] == 11
    assert len({person.center for person in train}) >= 9
    assert sum(len(person.slides) > 1 for person in train) >= patients // 10


def test_apportioned_numbers_add_up_and_are_off_by_less_than_one() -> None:
    counts = [count for pair in CENTERS.values() for count in pair]
    for total in range(200):
        exact = np.array(counts) * total / sum(counts)
        found = apportion(counts, total)
        assert sum(found) == total
        assert np.abs(found - exact).max() < 1


def test_too_small_a_cohort_is_refused() -> None:
    for sizes in ((23, 6), (24, 5)):
        with pytest.raises(SettingError, match="at least 24 training and 6 test patients"):
            cohort(0, *sizes, 0)


def test_ids_are_hex_and_some_would_be_read_as_numbers(people: list[Patient]) -> None:
    for split in ("train", "test"):
        ids = pd.Series([person.patient_id for person in people if person.split == split])
        assert ids.str.fullmatch("[0-9a-f]{6}").all()
        assert ids.str.fullmatch("0[0-9]{5}").any()
        assert ids.str.fullmatch("[1-9]e[0-9]{4}").any()
    everyone = [person.patient_id for person in people]
    assert len(set(everyone)) == len(everyone)


def test_one_training_slide_has_the_largest_size_and_the_others_are_ordinary() -> None:
    plans = [plan for person in cohort(0, 120, 24, 200) for plan in person.slides]
    sizes = sorted(plan.width * plan.height / 1e6 for plan in plans)
    (largest,) = (plan for plan in plans if plan.width * plan.height > 50e6)
    assert sizes[-1] == pytest.approx(200, rel=0.001)
    assert largest.split == "train"
    assert largest.kind == "clot"
    assert sizes[0] > 1.99
    assert sizes[-2] < 40.1
    assert 4.5 < np.median(sizes) < 6.5
    assert np.mean([plan.width < plan.height for plan in plans]) > 0.8


@pytest.mark.parametrize("sizes", [(24, 6), (61, 13), (120, 24)])
def test_the_oddities_are_there_at_any_size(sizes: tuple[int, int]) -> None:
    people = cohort(0, *sizes, 0)
    odd = [
        (person.split, plan.kind, number, len(person.slides) > 1)
        for person in people
        for number, plan in enumerate(person.slides)
        if plan.kind != "clot"
    ]
    assert sorted(odd) == [
        ("test", "blank", 0, False),
        ("train", "blank", 1, True),
        ("train", "truncated", 0, False),
    ]


def test_the_odd_slides_are_odd_on_disk(folder: Path, people: list[Patient]) -> None:
    for person in people:
        for plan in person.slides:
            path = folder / plan.split / f"{plan.image_id}.tif"
            if plan.kind == "truncated":
                with pytest.raises(openslide.OpenSlideError):
                    read(path)
                continue
            pixels = read(path)
            assert pixels.shape == (plan.height, plan.width, 3)
            covered = (pixels != plan.background).any(axis=-1).mean()
            assert (covered > 0.025) == (plan.kind == "clot")


def test_the_background_tells_the_center(folder: Path, people: list[Patient]) -> None:
    expected = {6: (196, 211, 192), 7: (196, 211, 192), 9: (234, 216, 254), 10: (234, 216, 254)}
    expected |= {1: (255, 241, 255), 5: (255, 241, 255)}
    seen = set()
    for person in people:
        plan = person.slides[0]
        if plan.kind == "truncated":
            continue
        pixels = read(folder / plan.split / f"{plan.image_id}.tif")
        colour = tuple(int(part) for part in np.median(pixels.reshape(-1, 3), axis=0))
        assert colour == expected.get(person.center, (255, 255, 255))
        seen.add(colour)
    assert len(seen) >= 3


def test_the_posterior_is_that_of_the_latent_and_one_half_where_nothing_can_be_read(
    folder: Path, people: list[Patient]
) -> None:
    text = (folder / "posterior.csv").read_text().splitlines()
    assert text[0] == "patient_id,label,CE,LAA"
    rows = {line.split(",")[0]: line.split(",")[1:] for line in text[1:]}
    assert list(rows) == sorted(person.patient_id for person in people)
    for person in people:
        label, ce, laa = rows[person.patient_id]
        unreadable = all(plan.kind != "clot" for plan in person.slides)
        assert label == person.label
        assert float(laa) == (0.5 if unreadable else posterior(person.latent))
        assert float(ce) + float(laa) == 1
    assert sum(row[1:] == ["0.5", "0.5"] for row in rows.values()) == 2


def test_the_posterior_is_calibrated_when_both_classes_weigh_the_same() -> None:
    people = [person for person in cohort(3, 3000, 6, 0) if person.split == "train"]
    laa = np.array([person.label == "LAA" for person in people])
    claimed = np.array([posterior(person.latent) for person in people])
    weight = np.where(laa, 0.5 / laa.sum(), 0.5 / (~laa).sum())
    bins = np.digitize(claimed, [0.1, 0.3, 0.5, 0.7, 0.9])
    for number in range(6):
        here = bins == number
        truth = np.average(laa[here], weights=weight[here])
        assert truth == pytest.approx(np.average(claimed[here], weights=weight[here]), abs=0.06)
    loss = -np.sum(weight * np.log(np.where(laa, claimed, 1 - claimed)))
    assert loss == pytest.approx(0.251, abs=0.01)  # its expectation, by numerical integration


def test_less_red_means_likelier_laa_on_every_slide_of_a_patient(people: list[Patient]) -> None:
    order = sorted(people, key=lambda person: posterior(person.latent))
    shares = [person.slides[0].share for person in order]
    assert shares == sorted(shares, reverse=True)
    assert 0.08 < min(shares) < 0.35 < 0.65 < max(shares) < 0.92
    for person in people:
        assert {plan.share for plan in person.slides} == {red_share(person.latent)}
