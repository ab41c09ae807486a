"""Predictions: out of fold means from the model that never saw the group; each row once."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from kit import folds, state
from kit.errors import DataError, WeightsError
from kit.files import read_strings, write_json
from kit.learn import embed, encode, losses, models, predict, train
from kit.learn.bags import BagModel
from kit.learn.dataset import labelled
from kit.learn.fit import Fit
from kit.learn.models import Model
from kit.read import store
from kit.state import Run

Make = Callable[..., Run]
MODELS = ("test_efficientnet-frozen", "test_efficientnet-scratch-24")
PROBABILITIES = ["p_a", "p_b"]


def table(run: Run, name: str) -> pd.DataFrame:
    found = read_strings(run.folder("predict") / f"{name}.csv")
    return found.assign(**{column: found[column].astype(float) for column in PROBABILITIES})


def flow(run: Run) -> dict[str, bytes]:
    for stage in ("tune", "train", "predict"):
        state.execute(run, stage)
    return {path.name: path.read_bytes() for path in run.folder("predict").iterdir()}


def test_a_row_comes_from_the_model_that_saw_no_image_of_its_group(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: dict[str, set[str]] = {}
    whole = train._fitted

    def watched(fit: Fit, *others: object) -> train.Fitted:
        learned[fit.purpose.split()[-1]] = set(fit.images.index)
        return whole(fit, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "_fitted", watched)
    run = make_run()
    flow(run)
    groups, oof = run.tables.train["group_id"], table(run, "oof")
    assert set(learned) == {"0", "1", "2"} and len(oof)
    for row in oof.itertuples():
        mine = set(groups.index[groups == groups[row.image_id]])
        assert row.image_id in mine and not mine & learned[row.fold]
    held = set(table(run, "holdout")["image_id"])
    assert held and not any(held & images for images in learned.values())


def test_a_row_is_what_its_model_says_of_the_image(finished_run: Run) -> None:
    run, oof = finished_run, table(finished_run, "oof")
    for given in models.of_run(run):
        for fold in "02":
            rows = oof[(oof["model"] == given.name) & (oof["fold"] == fold)].iloc[[0, -1]]
            model, network = predict.recorded(run, given, fold), predict.load_network(run, given, fold)
            for row in rows.itertuples():
                ids = np.array([row.image_id], object)
                found = predict.predict_images(run, model, network, "train", ids)[0]
                np.testing.assert_allclose(found, [row.p_a, row.p_b], atol=1e-5)


def test_every_image_of_the_folds_is_predicted_once_by_every_model(finished_run: Run) -> None:
    oof, images = table(finished_run, "oof"), folds.read_folds(finished_run.folds)
    mine = images[images["role"] == "fold"]
    counts = oof.groupby(["model", "image_id"]).size().unstack("image_id")
    assert (counts == 1).all(axis=None) and set(counts.columns) == set(mine.index)
    assert tuple(counts.index) == MODELS
    assert (oof["fold"].to_numpy() == mine.loc[oof["image_id"], "fold"].to_numpy()).all()


def test_held_out_and_test_images_are_predicted_by_every_fold_of_every_model(finished_run: Run) -> None:
    run, images = finished_run, folds.read_folds(finished_run.folds)
    held = set(images.index[images["role"] == "holdout"])
    assert held
    for name, wanted in (("holdout", held), ("test", set(run.tables.test.index))):  # type: ignore[union-attr]
        found = table(run, name)
        assert set(found["image_id"]) == wanted
        counts = found.groupby(["image_id", "model"])["fold"].agg(list)
        assert len(counts) == len(wanted) * 2 and all(mine == ["0", "1", "2"] for mine in counts)
        spread = found.groupby(["image_id", "model"])["p_b"].nunique()
        assert (spread > 1).any(), "the folds are different models"


@pytest.mark.parametrize("name", ["oof", "holdout", "test"])
def test_the_tables_are_sorted_and_hold_probabilities_of_known_units(name: str, finished_run: Run) -> None:
    found, run = table(finished_run, name), finished_run
    assert list(found.columns) == ["image_id", "unit_id", "model", "seed", "fold", *PROBABILITIES]
    place = list(zip(found["image_id"], found["model"], found["fold"], strict=True))
    assert place == sorted(place) and set(found["seed"]) == {"0"}
    values = found[PROBABILITIES].to_numpy()
    assert ((values > 0) & (values < 1)).all()
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-12)
    units = (run.tables.test if name == "test" else run.tables.train)["unit_id"]  # type: ignore[index]
    assert (found["unit_id"].to_numpy() == units[found["image_id"]].to_numpy()).all()


def test_the_files_are_the_same_bytes_each_time(make_run: Make) -> None:
    specs = ("test_efficientnet:frozen", "test_efficientnet:scratch")
    first = flow(make_run(*specs, folder="a", finetune_epochs=1))
    assert set(first) == {"oof.csv", "holdout.csv", "test.csv"}
    assert flow(make_run(*specs, folder="b", finetune_epochs=1, workers=2)) == first


def test_classes_keep_their_columns(finished_run: Run) -> None:
    """Colours are easy: the true class has the higher probability of the two."""
    oof = table(finished_run, "oof")
    oof = oof[oof["model"] == MODELS[0]]
    labels = finished_run.tables.train["label"][oof["image_id"]].to_numpy()
    assert ((oof["p_b"] > 0.5).to_numpy() == (labels == "b")).mean() > 0.8


def model_of(run: Run, mode: str = "frozen", **settings: object) -> Model:
    return models.parse(f"test_efficientnet:{mode}", run.competition.training).having(settings)


def fitted(run: Run, mode: str, **settings: object) -> tuple[Model, BagModel]:
    """A network of a bag run whose every part says something: nothing here depends on how it learned."""
    model = model_of(run, mode, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        if model.frozen:
            network = embed.new_head(run, model, embed.stored(run, model).mean_features())
        else:
            network = embed.new_encoder(run, model)
        for parameter in network.pool.parameters():
            parameter.data.normal_(0, 0.5 * parameter.shape[-1] ** -0.5)
        # What a random encoder says of two tiles differs little.
        network.head.weight.data.normal_(0, 0.3 if model.frozen else 3)
    return model, network.eval()


def logits_of(found: np.ndarray) -> float:
    return float(np.log(found[1] / found[0]))


def said_by(network: BagModel, pooled: np.ndarray) -> float:
    values = network.head(torch.from_numpy(pooled.astype(np.float32))).detach().numpy()
    return float(values[1] - values[0])


@pytest.mark.parametrize("mode", ["frozen", "scratch"])
def test_all_tiles_of_a_bag_are_predicted_in_all_views_whatever_was_drawn_in_training(
    mode: str, make_bags: Make
) -> None:
    run = make_bags(count=6, bag=2, views=4)
    model, network = fitted(run, mode)
    ids = np.array(sorted(labelled(run).index), object)[[3]]
    (tiles,) = embed.read_all(run, "train", ids)
    encoder = embed.frozen_encoder(run, model) if mode == "frozen" else network
    pixels = tiles.decode()
    seen = [
        encode.forward(encoder, np.ascontiguousarray(np.rot90(pixels, turn, axes=(1, 2))), 8)
        for turn in range(4)
    ]
    values = torch.from_numpy(np.mean(seen, axis=0))
    pooled = (network.embed(values) if mode == "frozen" else values).numpy().mean(axis=0)
    found = predict.predict_images(run, model, network, "train", ids)[0]
    assert logits_of(found) == pytest.approx(said_by(network, pooled), abs=1e-4)


@pytest.mark.parametrize("mode", ["frozen", "scratch"])
def test_sections_are_averaged_within_their_clot_and_clots_by_their_size(
    mode: str, make_bags: Make, cut: Callable[..., None]
) -> None:
    run = make_bags(count=9)
    cut(run, 3, 2)  # sections 0 and 2 are one clot, 1 is the other
    model, network = fitted(run, mode)
    known = embed.stored(run, model_of(run))
    (image,) = known.ids[known.counts == 9][:1]
    (tiles,) = embed.read_all(run, "train", [image])
    ids = np.array([image], object)
    if mode == "frozen":
        values = network.embed(torch.from_numpy(known.take(ids).mean_features())).numpy()
    else:
        values = encode.forward(network, tiles.decode(), 8)
    cuts = [values[tiles.section == n].mean(axis=0) for n in range(3)]  # of three tiles each
    expected = said_by(network, ((cuts[0] + cuts[2]) / 2 + cuts[1]) / 2)
    found = predict.predict_images(run, model, network, "train", ids)[0]
    assert logits_of(found) == pytest.approx(expected, abs=1e-4)
    flat = said_by(network, values.mean(axis=0))
    assert abs(flat - expected) > 1e-3, "all tiles alike would say another thing"


@pytest.mark.parametrize("pool", ["mean", "attention", "transformer", "vote"])
@pytest.mark.parametrize("mode", ["frozen", "scratch"])
def test_a_section_that_is_repeated_exactly_changes_no_prediction(
    mode: str, pool: str, make_bags: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_bags(count=6)
    model, network = fitted(run, mode, pool=pool)
    ids = np.array(["t0", "t1", "t2"], object)
    before = predict.predict_images(run, model, network, "test", ids)
    shutil.rmtree(run.folder("embed"), ignore_errors=True)
    monkeypatch.setattr(embed, "_CACHE", {})
    for image in ids:
        path = store.path_of(run.folder("tile"), "test", image)
        tiles = store.read(path)
        first = tiles.decode([0])[0]
        twice = store.packed(
            tiles.header,
            [first, *tiles.decode()],
            *(np.concatenate([part[:1], part]) for part in (tiles.x, tiles.y, tiles.size)),
            tissue=np.ones(len(tiles) + 1, np.float32),
        )
        ones = np.ones(len(tiles) - 1, np.int32)
        section, clot = np.concatenate([[0, 1], 1 + ones]), np.concatenate([[0, 0], ones])
        weight = np.where(clot == 0, 0.5, 1).astype(np.float32)
        store.write(path, dataclasses.replace(twice, section=section, clot=clot, weight=weight))
    after = predict.predict_images(run, model, network, "test", ids)
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("mode", ["frozen", "scratch"])
def test_an_image_is_predicted_the_same_in_any_company(mode: str, make_bags: Make) -> None:
    run = make_bags()
    model, network = fitted(run, mode, pool="transformer")
    ids = labelled(run).index.to_numpy(dtype=object)
    together = predict.predict_images(run, model, network, "train", ids)
    backwards = predict.predict_images(run, model, network, "train", ids[::-1])
    alone = np.concatenate(
        [predict.predict_images(run, model, network, "train", ids[n : n + 1]) for n in (0, 9)]
    )
    np.testing.assert_allclose(alone, together[[0, 9]], atol=1e-5)
    np.testing.assert_allclose(backwards[::-1], together, atol=1e-5)
    assert np.ptp(together[:, 0]) > 1e-3, "images that differ by much more"
    assert predict.predict_images(run, model, network, "train", ids[:0]).shape == (0, 2)


def test_images_of_few_tiles_fill_passes_together(make_bags: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_bags()
    model, network = fitted(run, "scratch")
    ids = labelled(run).index.to_numpy(dtype=object)
    monkeypatch.setattr(embed, "CHUNK", 1)
    batch = run.competition.training.infer_batch
    count, passes, embedded = sum(map(len, embed.read_all(run, "train", ids))), [], network.embed
    monkeypatch.setattr(network, "embed", lambda pixels: passes.append(len(pixels)) or embedded(pixels))
    found = []
    for full in (1, 1000):
        passes.clear()
        monkeypatch.setattr(predict, "FULL", full)
        found.append(predict.predict_images(run, model, network, "train", ids))
    assert passes == [batch] * -(-count // batch), "only the last one is padded"
    np.testing.assert_allclose(*found, atol=1e-5)


def test_a_class_of_no_images_is_dropped_and_sigmoids_are_made_to_sum_to_one(make_bags: Make) -> None:
    run = make_bags(extra="class", loss="binary")
    model, network = fitted(run, "frozen")
    ids = labelled(run).index.to_numpy(dtype=object)[:4]
    logits = predict.say(run, model, network, "train", ids).logits
    found = predict.predict_images(run, model, network, "train", ids)
    assert logits.shape == (4, 3) and found.shape == (4, 2)
    np.testing.assert_allclose(found, losses.probabilities(logits, "binary", 2))


def test_a_fold_is_predicted_with_the_settings_that_tuning_chose_for_it(make_run: Make) -> None:
    run = make_run(turned=("1", "2"))
    (given,) = models.of_run(run)
    state.execute(run, "tune")
    state.execute(run, "train")
    path = train.weights_path(run, given, "1").with_suffix(".json")
    record = json.loads(path.read_text())
    record["settings"] |= {"views": 8, "loss": "binary"}
    write_json(path, record)
    found = predict.recorded(run, given, "1")
    assert found.training.views == 8 and found.training.loss == "binary"
    assert found.training.turned == ("1", "2") and predict.recorded(run, given, "0") == given


def test_a_network_is_refused_where_pixels_are_not_those_it_was_trained_on(finished_run: Run) -> None:
    given = models.of_run(finished_run)[1]
    path = train.weights_path(finished_run, given, "0").with_suffix(".json")
    before = path.read_text()
    assert predict.load_network(finished_run, given, "0").encoder is not None
    try:
        write_json(path, json.loads(before) | {"std": [0.5, 0.5, 0.5], "interpolation": "nearest"})
        with pytest.raises(WeightsError, match="trained on other pixels") as caught:
            predict.load_network(finished_run, given, "0")
    finally:
        path.write_text(before)
    assert "std: (0.5, 0.5, 0.5)" in caught.value.message and "interpolation" in caught.value.message


def test_a_network_that_says_no_number_is_refused_by_name_and_nothing_is_written(make_run: Make) -> None:
    run = make_run()
    state.execute(run, "tune")
    state.execute(run, "train")
    (given,) = models.of_run(run)
    path = train.weights_path(run, given, "1")
    content = load_file(path)
    content["head.bias"][0] = float("inf")
    save_file(content, path)
    with pytest.raises(
        DataError, match="test_efficientnet-frozen without fold 1 says no number of image 'p"
    ) as caught:
        predict.run(run)
    assert "lr=0.001" in caught.value.hint and not (run.folder("predict") / "oof.csv").exists()


def test_without_a_test_table_its_predictions_are_an_empty_table(make_run: Make) -> None:
    run = make_run(test=False)
    assert flow(run)["test.csv"] == b"image_id,unit_id,model,seed,fold,p_a,p_b\n"


def test_a_test_image_without_tiles_has_no_row(make_run: Make, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run = make_run()
    data.mkdir()
    (data / "train").symlink_to(run.data / "train")
    (data / "test").mkdir()
    for n in (0, 1, 3):
        (data / "test" / f"t{n}.png").write_bytes((run.data / "test" / f"t{n}.png").read_bytes())
    run = dataclasses.replace(run, data=data, work=tmp_path / "fewer")
    for stage in ("fold", "tile"):
        state.execute(run, stage)
    flow(run)
    assert set(table(run, "test")["image_id"]) == {"t0", "t1", "t3"}
