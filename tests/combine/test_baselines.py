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
