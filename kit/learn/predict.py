"""Out-of-fold, held-out and test probabilities of every model: the `predict` stage.

An image is predicted from all of its tiles, by their weights: as a tile weighs one by the number of sections
of its clot, sections are averaged within their clot, and clots within the image. The features of a tile are
the mean over its symmetric views.
"""

from __future__ import annotations

import json
import logging
import shutil
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from kit.competition import Training
from kit.errors import DataError
from kit.files import write_table
from kit.learn import attention, backbones, embed, encode, losses, plan, pooling, preprocess, views
from kit.learn.bags import BagModel, Packed, outputs
from kit.learn.dataset import Ids, ids_with_tiles, labelled
from kit.learn.models import Model
from kit.learn.train import fold_names, weights_path
from kit.learn.weights import find_weights
from kit.progress import Bar
from kit.read.store import Tiles
from kit.state import Run

VERSION = 3
FULL = 8  # passes that images are gathered for, at least, where there are so many
log = logging.getLogger("kit")
Floats = NDArray[np.float64]
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Said:
    """What a network says of some images.

    logits: float32 ``(n, K)``, with a class more where ``train.extra`` asks for one.
    shares: what each tile of each image counted, float32 ``(T,)`` each; empty of a pool that attends to none.
    """

    logits: Features
    shares: list[Features]


def inputs(run: Run) -> dict[str, Any]:
    """Nothing but what the stages before it wrote, among it which models were fitted within the hours."""
    planned = plan.inputs(run)
    return {} if planned is None else {"plan": planned}


def run(run: Run) -> list[Path]:
    """The stage: ``oof.csv``, ``holdout.csv`` and ``test.csv``, one row an image, model and fold.

    Where a pool attends to tiles, their shares are kept too: see `kit.learn.attention`.
    """
    torch.set_num_threads(run.threads)
    # Those of other settings may be of models that this run does not have.
    shutil.rmtree(attention.folder(run), ignore_errors=True)
    images = labelled(run)
    tables: dict[str, list[pd.DataFrame]] = {"oof": [], "holdout": [], "test": []}
    kept: list[Path] = []
    names = fold_names(images)
    todo = plan.kept(run)
    with Bar(total=len(todo) * len(names), desc="predicting", unit="fold") as bar:
        for given in todo:
            attended = attention.Attended()
            for fold in names:
                _predict_fold(run, given, images, fold, tables, attended)
                bar.update(1)
            kept += attended.write(run, given)
    return [_write(run, name, parts) for name, parts in tables.items()] + kept


def _predict_fold(
    run: Run,
    given: Model,
    images: pd.DataFrame,
    fold: str,
    tables: dict[str, list[pd.DataFrame]],
    attended: attention.Attended,
) -> None:
    """The rows that the model without one fold is asked for."""
    model = recorded(run, given, fold)
    network = load_network(run, given, fold)
    held = images[images["role"] == "holdout"]
    mine = images[(images["role"] == "fold") & (images["fold"] == fold)]
    asked = [("oof", "train", mine["unit_id"]), ("holdout", "train", held["unit_id"])]
    if run.tables.test is not None:
        ids = ids_with_tiles(run, "test")
        asked.append(("test", "test", run.tables.test["unit_id"].loc[list(ids)]))
    for name, split, units in asked:
        ids = units.index.to_numpy(dtype=object)
        said = say(run, model, network, split, ids)
        _require_numbers(model, fold, ids, said.logits)
        tables[name].append(_table(run, model, fold, units, probabilities(run, model, said.logits)))
        if said.shares:
            attended.add(split, ids, said.shares)


def test_rows(
    run: Run, todo: Sequence[Model], names: Sequence[str], told: Callable[[str], None]
) -> pd.DataFrame:
    """The rows of ``test.csv``, of what was fitted elsewhere: nothing is known of any labelled image.

    Args:
        todo: the models. names: the folds that each was fitted without. told: is given a line a model and
            fold, when its images are predicted.
    """
    torch.set_num_threads(run.threads)
    assert run.tables.test is not None, "there is something to predict"
    units = run.tables.test["unit_id"].loc[list(ids_with_tiles(run, "test"))]
    parts = []
    for given in todo:
        for fold in names:
            model, network = recorded(run, given, fold), load_network(run, given, fold)
            said = say(run, model, network, "test", units.index.to_numpy(dtype=object))
            parts.append(_table(run, model, fold, units, probabilities(run, model, said.logits)))
            told(f"{given.purpose} without fold {fold}")
    return _sorted(run, parts)


def _require_numbers(model: Model, fold: str, ids: Ids, logits: Features) -> None:
    """What a network says are numbers.

    Raises:
        DataError: they are not, of some image.
    """
    bad = ~np.isfinite(logits).all(axis=1)
    if bad.any():
        lr = float(model.get("lr"))
        raise DataError(
            f"{model.purpose} without fold {fold} says no number of image '{ids[int(bad.argmax())]}'"
            f" ({int(bad.sum())} of {len(ids)} images)",
            f"its fit has failed: write '; lr={lr / 10:g}' behind it in train.backbones, and repeat train",
        )


def recorded(run: Run, model: Model, fold: str) -> Model:
    """The model with the settings that its fold was fitted with: tuning may have chosen others."""
    given = _record(weights_path(run, model, fold))["settings"]
    types = typing.get_type_hints(Training)
    # JSON has no tuples.
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if name in types
    }
    return replace(model, training=Training(**values))


def load_network(run: Run, model: Model, fold: str) -> BagModel:
    """The network that `train` fitted without this fold.

    Raises:
        WeightsError: it was trained on other pixels than its encoder would get now.
    """
    path = weights_path(run, model, fold)
    record = _record(path)
    weights = find_weights(model.backbone, run.weights)
    now = preprocess.of(model.backbone.encoder, weights)
    then = preprocess.from_record(record, str(path.with_suffix(".json")))
    preprocess.check(then, now)
    training = recorded(run, model, fold).training
    encoder = None
    if not model.frozen:
        encoder = backbones.build(model.backbone.encoder, 0.0, training.layers, weights, training.stem)
    count = outputs(len(record["classes"]), training)
    network = BagModel(encoder, record["features"], count, training.pool, 0.0, then.mean, then.std)
    network.load_state_dict(load_file(path))
    return network.eval()


def _record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return found


def predict_images(run: Run, model: Model, network: BagModel, split: str, ids: Ids) -> Floats:
    """Probabilities ``(n, K)`` of images, in fp32, from all tiles of each."""
    return probabilities(run, model, say(run, model, network, split, ids).logits)


def probabilities(run: Run, model: Model, logits: Features) -> Floats:
    """Of the classes of the task ``(n, K)``, as the model's loss means its logits."""
    return losses.probabilities(logits, model.training.loss, len(run.competition.classes))


@torch.inference_mode()
def say(run: Run, model: Model, network: BagModel, split: str, ids: Ids) -> Said:
    """Logits and attention of images: each by itself, no sum depends on its company."""
    bags = _stored(run, model, split, ids) if model.frozen else _encoded(run, model, network, split, ids)
    return _said(model, network, ids, bags)


@torch.inference_mode()
def say_of(model: Model, network: BagModel, bags: Sequence[tuple[Features, Features]]) -> Said:
    """The same of images whose features are in memory: see `features_of`."""
    return _said(model, network, np.arange(len(bags)).astype(object), bags)


def features_of(
    run: Run, model: Model, eye: BagModel, images: Sequence[Tiles]
) -> list[tuple[Features, Features]]:
    """Features ``(T, D)`` and weights ``(T,)`` of images in memory; embeddings are neither read nor kept.

    Args:
        eye: whose encoder sees them: the network, or of a frozen model the pretrained one.
    """
    eye.to(encode.device()).to(memory_format=torch.channels_last)
    passes = embed.passes(run, model, views.coset(model.training.views, 0))
    features = encode.bags(eye, images, passes, mean=True)[:, 0]
    ends = np.cumsum([len(tiles) for tiles in images])[:-1]
    return list(zip(np.split(features, ends), [tiles.weight for tiles in images], strict=True))


def _said(model: Model, network: BagModel, ids: Ids, bags: Iterable[tuple[Features, Features]]) -> Said:
    """Logits and attention of images from the features and weights of their tiles."""
    attends = model.training.pool in pooling.ATTENDING
    logits, shares = [np.zeros((0, network.head.out_features), np.float32)], []
    place = network.head.weight.device
    network = network.eval()
    with encode.exact():
        for name, (features, weight) in zip(ids, bags, strict=True):
            tiles = torch.from_numpy(features).to(network.head.weight.device)
            bag = torch.zeros(len(tiles), dtype=torch.int64)
            packed = Packed(tiles, bag, torch.from_numpy(weight), 1, (str(name),)).to(tiles.device)
            values = network.embed(tiles) if model.frozen else tiles
            logits.append(network.classify(values, packed).float().cpu().numpy())
            if attends:
                shares.append(network.attention(values, packed).float().cpu().numpy())
    network.to(place)
    return Said(np.concatenate(logits), shares)


def _stored(run: Run, model: Model, split: str, ids: Ids) -> Iterator[tuple[Features, Features]]:
    """Features ``(T, D)`` and weights ``(T,)`` of each image, from embeddings."""
    if not len(ids):
        return
    mine = embed.stored(run, model, split).take(ids)
    ends = np.cumsum(mine.counts)[:-1]
    yield from zip(np.split(mine.mean_features(), ends), np.split(mine.weight, ends), strict=True)


def _encoded(
    run: Run, model: Model, network: BagModel, split: str, ids: Ids
) -> Iterator[tuple[Features, Features]]:
    """The same from pixels; the features of a few images and the pixels of a few passes are held at once."""
    network.to(encode.device()).to(memory_format=torch.channels_last)
    passes = embed.passes(run, model, views.coset(model.training.views, 0))
    for images in _filling(run, split, ids, FULL * passes.batch):
        features = encode.bags(network, images, passes, mean=True)[:, 0]
        ends = np.cumsum([len(tiles) for tiles in images])[:-1]
        yield from zip(np.split(features, ends), [tiles.weight for tiles in images], strict=True)


def _filling(run: Run, split: str, ids: Ids, tiles: int) -> Iterator[list[Tiles]]:
    """Images, a few at a time, with at least so many tiles together: the last pass of each few is padded."""
    images: list[Tiles] = []
    for start in range(0, len(ids), embed.CHUNK):
        images += embed.read_all(run, split, ids[start : start + embed.CHUNK])
        if sum(map(len, images)) >= tiles or start + embed.CHUNK >= len(ids):
            yield images
            images = []


def _table(run: Run, model: Model, fold: str, units: pd.Series[str], values: Floats) -> pd.DataFrame:
    """Predictions of some images in the columns that `combine` reads."""
    ids, seed = units.index.to_numpy(dtype=object), run.seed + model.seed
    table = pd.DataFrame(
        {"image_id": ids, "unit_id": units.to_numpy(), "model": model.name, "seed": seed, "fold": fold}
    )
    for n, name in enumerate(run.competition.classes):
        table[f"p_{name}"] = values[:, n]
    return table


def _write(run: Run, name: str, parts: list[pd.DataFrame]) -> Path:
    path = run.folder("predict") / f"{name}.csv"
    write_table(path, _sorted(run, parts))
    return path


def _sorted(run: Run, parts: list[pd.DataFrame]) -> pd.DataFrame:
    columns = ["image_id", "unit_id", "model", "seed", "fold"]
    columns += [f"p_{label}" for label in run.competition.classes]
    table = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
    return table[columns].sort_values(["image_id", "model", "seed", "fold"], kind="stable")
