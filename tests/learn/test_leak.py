"""The leak price: what a model gains where a patient's images are on both sides of a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit import metrics, seeds, state
from kit.competition import FoldPlan, Tables
from kit.errors import DataError, StageError
from kit.files import read_strings
from kit.folds import read_folds
from kit.learn import embed, leak
from kit.state import Run

Make = Callable[..., Run]
PATIENTS, EACH, SIDE = 48, 5, 32


@pytest.fixture(scope="session")
def look_alikes(tmp_path_factory: pytest.TempPathFactory, photo_run: Make) -> Run:
    """48 patients with five images each: a pattern of their own, and a class that it says nothing of."""
    place = tmp_path_factory.mktemp("look-alikes")
    (place / "train").mkdir()
    labels = seeds.rng(0, "labels").permutation(["a", "b"] * (PATIENTS // 2))
    rows = []
    for patient, label in enumerate(labels):
        pattern = seeds.rng(0, "pattern", patient).integers(40, 216, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
        for n in range(EACH):
            noise = seeds.rng(0, "noise", patient, n).normal(0, 8, (SIDE, SIDE, 3))
            pixels = np.clip(pattern + noise, 0, 255).astype(np.uint8)
            rows.append({"image_id": f"p{patient}-{n}", "patient": f"p{patient}", "label": str(label)})
            Image.fromarray(pixels).save(place / "train" / f"p{patient}-{n}.png")
    tables = Tables(pd.DataFrame(rows, dtype=object))
    toy = photo_run(place / "toy", test=False)
    task = replace(toy.competition, load=lambda data: tables, unit="patient", folds=FoldPlan(k=4, holdout=2))
    run = replace(toy, competition=task, data=place, work=place / "work", fold_table=place / "folds.csv")
    for stage in ("fold", "tile"):
        state.execute(run, stage)
    return run


@pytest.fixture(scope="session")
def price(look_alikes: Run) -> dict[str, pd.DataFrame]:
    """The two tables, by image_id."""
    return {path.stem: read_strings(path).set_index("image_id") for path in leak.run(look_alikes)}


def scores(table: pd.DataFrame, run: Run) -> tuple[float, float]:
    """Log loss and AUC of images."""
    truth = read_folds(run.folds).loc[table.index, "label"].eq("b").to_numpy(dtype=np.int64)
    values = table[["p_a", "p_b"]].to_numpy(dtype=np.float64)
    return metrics.LogLoss().score(truth, values), metrics.area_under_curve(truth, values)


def test_a_model_that_saw_the_patient_scores_well_and_one_that_did_not_scores_like_chance(
    price: dict[str, pd.DataFrame], look_alikes: Run
) -> None:
    (loss, area), (chance, half) = (scores(price[name], look_alikes) for name in ("images", "groups"))
    assert loss < 0.55 and area > 0.85
    assert chance > 0.65 and 0.3 < half < 0.7


def test_patients_are_on_both_sides_by_image_and_on_one_by_group(
    price: dict[str, pd.DataFrame], look_alikes: Run
) -> None:
    table = read_folds(look_alikes.folds).loc[price["groups"].index]
    assert price["groups"]["fold"].equals(table["fold"])
    assert price["images"]["fold"].groupby(table["group_id"]).nunique().gt(1).mean() > 0.9


def test_both_dealings_have_folds_of_the_same_sizes_and_class_counts(
    price: dict[str, pd.DataFrame], look_alikes: Run
) -> None:
    label = read_folds(look_alikes.folds)["label"]
    counts = [pd.crosstab(table["fold"], label.loc[table.index]) for table in price.values()]
    pd.testing.assert_frame_equal(*counts)


def test_the_tables_hold_every_image_of_the_folds_once_in_order_and_no_held_out_one(
    price: dict[str, pd.DataFrame], look_alikes: Run
) -> None:
    table = read_folds(look_alikes.folds)
    inside = table[table["role"] == "fold"].sort_index()
    assert 0 < len(inside) < len(table)
    for found in price.values():
        assert found.columns.tolist() == ["unit_id", "fold", "p_a", "p_b"]
        assert found.index.tolist() == inside.index.tolist()
        assert found["unit_id"].equals(inside["unit_id"])
        values = found[["p_a", "p_b"]].astype(float)
        np.testing.assert_allclose(values.sum(axis=1), 1)
        assert values["p_a"].map(repr).tolist() == found["p_a"].tolist()


def test_a_second_run_writes_the_same_bytes_and_embeds_nothing_again(
    price: dict[str, pd.DataFrame], look_alikes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [look_alikes.folder("leak") / f"{name}.csv" for name in price]
    before = [path.read_bytes() for path in paths]
    monkeypatch.setattr(embed, "frozen_encoder", None)
    monkeypatch.setattr("kit.learn.embed._CACHE", {})
    assert leak.run(look_alikes) == paths
    assert [path.read_bytes() for path in paths] == before


def test_another_seed_deals_images_otherwise() -> None:
    images = pd.DataFrame({"fold": list("0123") * 9, "label": ["a"] * 20 + ["b"] * 16})
    first = leak.by_image(images, 0)
    assert first.equals(leak.by_image(images, 0)) and not first.equals(leak.by_image(images, 1))


def test_the_mean_over_tiles_and_views_is_that_of_each_image_by_itself(make_bags: Make) -> None:
    run = make_bags(views=2)
    state.execute(run, "fold")
    model = leak.frozen_model(run)
    ids = pd.Index(["p3-1", "p0-0", "p7-2"])
    found = leak.image_features(run, model, ids)
    stored = embed.embeddings(run, model, "train")
    assert stored.features.shape[1] == 2
    for name, row in zip(ids, found, strict=True):
        tiles = stored.take(np.array([name], object)).features
        np.testing.assert_allclose(row, tiles.mean(axis=(0, 1)), rtol=1e-5, atol=1e-6)
    assert len(set(stored.counts)) > 1


def test_the_mean_over_tiles_goes_by_their_weights(make_bags: Make, cut: Callable[..., None]) -> None:
    run = make_bags()
    cut(run, 3, 2)
    stored = embed.embeddings(run, leak.frozen_model(run), "train")
    found = leak.image_features(run, leak.frozen_model(run), pd.Index(stored.ids))
    for name, row in zip(stored.ids, found, strict=True):
        mine = stored.take(np.array([name], object))
        expected = np.average(mine.mean_features(), axis=0, weights=mine.weight)
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_the_probe_says_the_same_in_other_units_and_with_a_feature_that_never_changes() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(60, 5)).astype(np.float32), np.arange(60) % 3
    x[:, 4] = 7
    found = leak.probe(x, y, x[:9])
    assert found.shape == (9, 3)
    np.testing.assert_allclose(leak.probe(4 * x + 1, y, 4 * x[:9] + 1), found, atol=1e-4)
    moved = x[:9] + np.array([0, 0, 0, 0, 1e-4], np.float32)
    np.testing.assert_allclose(leak.probe(x, y, moved), found, atol=0.02)


def test_a_run_without_a_frozen_backbone_is_told_so(make_run: Make) -> None:
    with pytest.raises(StageError, match=r"needs a frozen backbone.*test_efficientnet:scratch") as caught:
        leak.run(make_run("test_efficientnet:scratch"))
    assert "train.backbones" in caught.value.hint


def test_a_run_that_is_not_tiled_is_told_what_to_type(make_run: Make, tmp_path: Path) -> None:
    run = replace(make_run(), work=tmp_path / "elsewhere")
    with pytest.raises(StageError, match="needs the result of fold") as caught:
        leak.run(run)
    assert "python -m kit fold toy" in caught.value.hint


def test_a_class_of_one_fold_is_refused() -> None:
    images = pd.DataFrame({"fold": list("0011"), "label": list("aaab")})
    with pytest.raises(DataError, match="class b are in fold 1"):
        leak.check_folds(images, ("a", "b"))
