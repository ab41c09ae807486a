"""What any score must beat: features of metadata, and a regression on nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.combine import baselines
from kit.errors import DataError
from kit.metrics import LogLoss, WeightedLogLoss

NO_SITE = pd.Series({"u": "", "v": "", "w": ""})


def table(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=["u", "v", "w"], dtype=object)


def test_positive_numbers_are_logged_and_others_kept() -> None:
    found = baselines.features(table(width=["10", "100", "1000"], shift=["-1", "0", "5"]), NO_SITE)
    np.testing.assert_allclose(found["width"], np.log([10, 100, 1000]))
    assert found["shift"].tolist() == [-1, 0, 5]
    assert found.to_numpy().dtype == np.float64


def test_a_missing_number_is_the_median() -> None:
    units = pd.Index(list("uvwxy"))
    metadata = pd.DataFrame({"size": ["-1", "", "3", "8", "nothing"]}, units, dtype=object)
    found = baselines.features(metadata, pd.Series("", units))
    assert found["size"].tolist() == [-1, 3, 3, 8, 3]


def test_a_text_is_one_column_a_value_and_a_site_is_known_by_name() -> None:
    sites = pd.Series({"u": "3", "v": "11", "w": "3"})
    found = baselines.features(table(stain=["he", "pas", "he"]), sites)
    assert found.columns.tolist() == ["stain=he", "stain=pas", "site=11", "site=3"]
    assert found["stain=he"].tolist() == [1, 0, 1] and found["site=3"].tolist() == [1, 0, 1]
    assert "site=" not in str(baselines.features(table(stain=["he", "pas", "he"]), NO_SITE).columns)


def test_a_text_of_many_values_is_an_id_and_no_feature() -> None:
    units = pd.Index([f"u{n}" for n in range(41)])
    metadata = pd.DataFrame({"name": [f"x{n}" for n in range(41)], "size": "7"}, units, dtype=object)
    found = baselines.features(metadata, pd.Series("", units))
    assert found.columns.tolist() == ["size"]
    assert baselines.features(metadata.iloc[:40], pd.Series("", units[:40])).shape[1] == 41


def test_a_unit_without_metadata_takes_the_median_and_no_category() -> None:
    metadata = table(size=["1", "4", "4"], stain=["he", "pas", "he"]).reindex(list("uvwx"))
    found = baselines.features(metadata, pd.Series("", list("uvwx")))
    assert found.loc["x", "size"] == pytest.approx(np.log(4))
    assert found.loc["x", ["stain=he", "stain=pas"]].tolist() == [0, 0]
    assert np.isfinite(found.to_numpy()).all()


def test_image_metadata_become_those_of_units() -> None:
    units = pd.Series({"i1": "u", "i2": "u", "i3": "v", "i4": "w"})
    metadata = pd.DataFrame(
        {"size": ["1", "3", "5"], "stain": ["he", "pas", "he"]}, ["i1", "i2", "i3"], dtype=object
    )
    found = baselines.by_unit(metadata, units)
    assert found.loc["u", "size"] == 2 and found.loc["u", "stain"] == "he" and found.loc["u", "images"] == 2
    assert found.loc["v"].tolist() == [5, "he", 1]


@pytest.mark.parametrize("column", ["size", "stain"])
def test_numbers_alone_or_texts_alone_will_do(column: str) -> None:
    units = pd.Series({"i1": "u", "i2": "u", "i3": "v"})
    metadata = pd.DataFrame({column: ["1", "3", "5"] if column == "size" else ["x", "y", "z"]}, units.index)
    assert baselines.by_unit(metadata, units).index.tolist() == ["u", "v"]


def test_tiling_leaves_metadata_of_every_training_image(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text(
        "image_id,split,width,height,tissue,background,tiles,status,reason\n"
        "007,train,100,50,0.25,#ff8000,3,ok,\n008,train,0,0,0.0,,0,unreadable,bad\n009,test,1,1,1.0,#000000,1,ok,\n"
    )
    found = baselines.tile_metadata(path)
    assert found.index.tolist() == ["007", "008"]
    assert found.loc["007"].tolist() == [100, 50, 0.25, 255, 128, 0]
    assert found.loc["008"].isna().all(), "what could not be read has no size and no colour"


CORNERS = "corner_red,corner_green,corner_blue,corner_spread"


def test_what_is_not_tissue_makes_two_sets_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text(
        f"image_id,split,width,height,tissue,background,{CORNERS},background_spread,tiles,status,reason\n"
        "007,train,100,50,0.25,#ff8000,1.5,2.0,3.0,4.125,5.0,3,ok,\n"
        "008,train,0,0,0.0,,,,,,,0,unreadable,bad\n"
        "010,train,9,9,1.0,#000001,6.0,7.0,8.0,9.0,,1,ok,\n"
        "009,test,1,1,1.0,#000000,9.0,9.0,9.0,9.0,9.0,1,ok,\n"
    )
    found = baselines.shortcut_features(path)
    assert list(found) == ["background only", "corner only"] and not baselines.shortcuts_absent(path)
    assert all(frame.index.tolist() == ["007", "008", "010"] for frame in found.values())
    background, corner = found["background only"], found["corner only"]
    assert background.columns.tolist() == ["red", "green", "blue", "background_spread"]
    assert corner.columns.tolist() == CORNERS.split(","), "neither size, site, nor tissue"
    assert background.loc["007"].tolist() == [255, 128, 0, 5] and corner.loc["007"].tolist() == [
        1.5,
        2,
        3,
        4.125,
    ]
    assert background.loc["008"].isna().all() and corner.loc["008"].isna().all()
    assert background.loc["010"].isna().tolist() == [False, False, False, True], "all of it is tissue"


@pytest.mark.parametrize(
    ("column", "name"), [("background_spread", "background only"), ("corner_blue", "corner only")]
)
def test_a_set_whose_columns_were_not_measured_is_absent_with_a_reason(
    column: str, name: str, tmp_path: Path
) -> None:
    head = f"image_id,split,background,{CORNERS},background_spread".split(",")
    row = pd.DataFrame([["a", "train", "#ffffff", *"12345"]], columns=head).drop(columns=column)
    row.to_csv(tmp_path / "images.csv", index=False)
    found, absent = (
        make(tmp_path / "images.csv") for make in (baselines.shortcut_features, baselines.shortcuts_absent)
    )
    assert set(found) | {name} == set(baselines.SHORTCUTS) and name not in found
    assert absent == {name: f"images.csv has no column {column}; repeat tile"}


def test_a_label_in_the_corners_is_found_by_the_corners_and_not_by_the_background(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 200)
    table = pd.DataFrame(draw.normal(200, 5, (200, 5)), columns=[*CORNERS.split(","), "background_spread"])
    table["corner_green"] += 20 * labels
    table = table.assign(image_id=[f"i{n}" for n in range(200)], split="train", background="#f0f1f2")
    table.to_csv(tmp_path / "images.csv", index=False)
    right = {}
    for name, frame in baselines.shortcut_features(tmp_path / "images.csv").items():
        matrix = baselines.features(frame, None).to_numpy()
        p = baselines.predict(matrix[:100], labels[:100], matrix[100:], 2, LogLoss())
        right[name] = float((p.argmax(axis=1) == labels[100:]).mean())
    assert right["corner only"] > 0.9 and right["background only"] < 0.65


def test_what_an_image_shows_is_joined_without_the_number_of_images() -> None:
    units = pd.Series({"i1": "u", "i2": "u", "i3": "v"})
    frame = pd.DataFrame({"corner_red": [1.0, 3.0, np.nan]}, units.index)
    found = baselines.by_unit(frame, units, count=False)
    assert found.columns.tolist() == ["corner_red"] and found.loc["u", "corner_red"] == 2
    assert np.isnan(found.loc["v", "corner_red"]) and "images" in baselines.by_unit(frame, units)


def test_sites_need_not_be_known() -> None:
    metadata = table(size=["1", "4", "4"])
    pd.testing.assert_frame_equal(
        baselines.features(metadata, None), baselines.features(metadata, NO_SITE), check_exact=True
    )


def test_a_number_that_is_mostly_missing_is_no_feature_and_without_any_the_prior_is_said() -> None:
    empty = pd.DataFrame({"spread": [np.nan, np.nan, np.nan, 4.0]}, list("uvwx"))
    matrix = baselines.features(empty, None).to_numpy()
    assert np.ptp(matrix) == 0 and len(matrix) == 4
    found = baselines.predict(matrix, np.array([0, 0, 0, 1]), matrix, 2, LogLoss())
    np.testing.assert_allclose(found, [[0.75, 0.25]] * 4, atol=1e-3)


@pytest.mark.parametrize(
    ("head", "by_unit"), [("image,patient", False), ("image_id,patient", False), ("patient,extra", True),
                          ("unit_id,extra", True)]
)  # fmt: skip
def test_metadata_come_by_image_or_by_unit(head: str, by_unit: bool, tmp_path: Path) -> None:
    path = tmp_path / "meta.csv"
    path.write_text(f"{head},size\n1,x,3\n2,x,4\n2,x,9\n")
    found, units = baselines.external_metadata(path, "image", "patient")
    assert units is by_unit and found.index.tolist() == ["1", "2"] and found["size"].tolist() == ["3", "4"]
    assert "patient" not in found, "an id is no feature"


def test_metadata_without_ids_or_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text("name,size\nx,1\n")
    with pytest.raises(DataError, match="no id column; it has name, size") as caught:
        baselines.external_metadata(tmp_path / "meta.csv", "image", "patient")
    assert "image or patient" in caught.value.hint
    with pytest.raises(DataError, match="not there"):
        baselines.external_metadata(tmp_path / "none.csv", "image", "patient")


def test_a_regression_learns_from_metadata_and_moves_to_the_scored_prior() -> None:
    draw = np.random.default_rng(0)
    labels = (draw.random(400) < 0.2).astype(np.int64)
    matrix = np.stack([labels + draw.normal(0, 0.5, 400), draw.normal(0, 1, 400)], axis=1)
    plain = baselines.predict(matrix, labels, matrix, 2, LogLoss())
    even = baselines.predict(matrix, labels, matrix, 2, WeightedLogLoss((0.5, 0.5)))
    np.testing.assert_allclose(plain.sum(axis=1), 1)
    assert plain[labels == 1, 1].mean() > plain[labels == 0, 1].mean() + 0.3
    assert plain[:, 1].mean() == pytest.approx(labels.mean(), abs=0.02)
    odds = [values[:, 1] / values[:, 0] for values in (even, plain)]
    np.testing.assert_allclose(odds[0] / odds[1], (320 + 0.5) / (80 + 0.5), rtol=0.2)


def test_a_class_that_no_fold_has_seen_stays_possible() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 60) * 2
    found = baselines.predict(draw.normal(size=(60, 2)), labels, draw.normal(size=(5, 2)), 3, LogLoss())
    assert found.shape == (5, 3) and (found > 0).all()


def test_a_baseline_never_uses_the_labels_of_the_fold_that_it_predicts() -> None:
    draw = np.random.default_rng(0)
    labels, outer = draw.integers(0, 2, 80), np.arange(80) % 4
    matrix = draw.normal(size=(80, 3)) + labels[:, None]
    mine = outer == 2
    swapped = np.where(mine, 1 - labels, labels)
    clean, dirty = (baselines.nested(matrix, y, outer, LogLoss()) for y in (labels, swapped))
    np.testing.assert_array_equal(clean[mine], dirty[mine])
    assert not np.allclose(clean[~mine], dirty[~mine])
