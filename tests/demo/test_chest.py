"""The made radiographs: what they show, what their readers say, and the best possible score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from sklearn.metrics import roc_auc_score

from kit.boxes import has_box, normalised
from kit.combine.agreement import agreement
from kit.combine.consensus import mixed
from kit.competition import find
from kit.demo.chest import ABNORMAL, ONLY_NORMAL, READERS, cohort, make, posterior, write_image, write_tables
from kit.demo.radiographs import WHITE, draw
from kit.errors import ImageError, SettingError
from kit.read.radiograph import open_image

SIZE = (40, 8)
GRID = find("vinbigdata").tiles


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cohort, drawn once."""
    made = tmp_path_factory.mktemp("chest")
    make(made, 0, *SIZE, workers=2)
    return made


def test_the_tables_are_those_of_the_declaration(folder: Path) -> None:
    task = find("vinbigdata")
    tables = task.tables(folder)
    assert tables.train["label"].value_counts().to_dict() == {"normal": 28, "abnormal": 12}
    assert tables.test is not None and len(tables.test) == 8
    assert all(Path(path).is_file() for table in (tables.train, tables.test) for path in table["path"])
    assert task.boxes is not None
    found = task.boxes(folder)
    assert mixed(found) == [] and normalised(found)[has_box(found).to_numpy()].notna().all(axis=None)
    assert (found.groupby("image_id")["reader"].nunique() == 3).all()


def test_tables_alone_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_tables(tmp_path, 0, *SIZE)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
    assert len(list(tmp_path.iterdir())) == 8


def test_an_image_that_exists_is_left_alone_and_one_that_is_gone_comes_back(folder: Path) -> None:
    first, second = sorted((folder / "train").iterdir())[:2]
    content, when = first.read_bytes(), second.stat().st_mtime_ns
    first.unlink()
    make(folder, 0, *SIZE, workers=1)
    assert first.read_bytes() == content and second.stat().st_mtime_ns == when


def test_files_are_of_the_kinds_that_readers_stumble_over(folder: Path) -> None:
    whole = [chest.film for chest in cohort(0, *SIZE) if not chest.film.truncated]
    kinds = set()
    for film in whole:
        data = pydicom.dcmread(folder / film.split / f"{film.image_id}.dicom")
        assert (data.Rows, data.Columns, data.BitsStored) == (film.height, film.width, 12)
        kinds.add(
            (data.PhotometricInterpretation, data.file_meta.TransferSyntaxUID.name, "WindowWidth" in data)
        )
        values = data.pixel_array
        expected = draw(0, film)
        np.testing.assert_array_equal(WHITE - values if film.inverted else values, expected)
    assert len(kinds) == 8


def test_the_kit_reads_of_every_kind_of_file_what_was_drawn(folder: Path) -> None:
    for chest in cohort(0, *SIZE):
        path = folder / chest.film.split / f"{chest.film.image_id}.dicom"
        if chest.film.truncated:
            with pytest.raises(ImageError):
                open_image(path, GRID)
            continue
        drawn = draw(0, chest.film).astype(float)
        expected = (drawn - drawn.min()) / np.ptp(drawn) * 255
        picture = open_image(path, GRID).overview(1)
        assert np.abs(picture[..., 0] - expected).max() <= 1
        assert picture[:10, :10].mean() < 60 < 120 < picture[-20:, 80:100].mean()  # air, and the belly


def test_one_image_is_always_the_same_bytes_and_reads_well(tmp_path: Path) -> None:
    for name in ("one.dicom", "two.dicom"):
        write_image(tmp_path / name)
    assert (tmp_path / "one.dicom").read_bytes() == (tmp_path / "two.dicom").read_bytes()
    assert open_image(tmp_path / "one.dicom", GRID).size == (200, 224)


def test_nothing_but_the_latent_decides_what_shows(folder: Path) -> None:
    people = cohort(1, 400, 8)
    sizes = np.array([chest.film.width * chest.film.height for chest in people])
    labels = np.array([chest.label == "abnormal" for chest in people])
    assert abs(roc_auc_score(labels, sizes) - 0.5) < 0.08
    strengths = np.array([chest.film.strength for chest in people])
    assert (np.argsort(strengths) == np.argsort([chest.latent for chest in people])).all()


def test_the_posterior_is_calibrated_and_bounds_the_log_loss() -> None:
    people = [chest for chest in cohort(2, 4000, 8) if chest.film.split == "train"]
    labels = np.array([chest.label == "abnormal" for chest in people])
    claimed = np.array([posterior(chest.latent) for chest in people])
    assert labels.mean() == pytest.approx(ABNORMAL) and claimed.mean() == pytest.approx(ABNORMAL, abs=0.01)
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        part = (claimed >= low) & (claimed < high)
        assert labels[part].mean() == pytest.approx(claimed[part].mean(), abs=0.04)
    assert -np.log(np.where(labels, claimed, 1 - claimed)).mean() == pytest.approx(0.22, abs=0.02)


def test_a_file_that_is_cut_off_has_the_share_of_the_class_as_its_posterior(folder: Path) -> None:
    table = pd.read_csv(folder / "posterior.csv").set_index("image_id")
    cut = [chest.film.image_id for chest in cohort(0, *SIZE) if chest.film.truncated]
    assert len(cut) == 2 and (table.loc[cut, "abnormal"] == ABNORMAL).all()


def test_readers_agree_more_on_a_heart_than_on_a_spot_and_some_see_normal_images_only(tmp_path: Path) -> None:
    write_tables(tmp_path, 0, 300, 8)
    task = find("vinbigdata")
    assert task.boxes is not None
    found = task.boxes(tmp_path)
    kappa = agreement(found, 50, 0)["kappa"]
    assert kappa["Cardiomegaly"] > kappa["Infiltration"] + 0.1 and kappa["Infiltration"] > 0.2
    drawn = set(found.loc[has_box(found), "reader"])
    assert drawn == set(READERS[ONLY_NORMAL:])


def test_detectors_find_something_on_normal_images_too(folder: Path) -> None:
    labels = find("vinbigdata").tables(folder).train["label"]
    for number in (1, 2):
        table = pd.read_csv(folder / f"detections_train_{number}.csv", index_col="image_id")[
            "PredictionString"
        ]
        assert table.index.tolist() == labels.index.tolist()
        assert (table.str.split().str.len() % 6 == 0).all()
        assert (~table[labels == "normal"].str.startswith("14 ")).mean() > 0.9
    one, two = (pd.read_csv(folder / f"detections_{number}.csv") for number in (1, 2))
    assert (one["image_id"] == two["image_id"]).all() and (
        one["PredictionString"] != two["PredictionString"]
    ).all()


def test_too_small_a_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="at least 40 training and 8 test images, not 39 and 8"):
        write_tables(tmp_path, 0, 39, 8)
