"""Out-of-fold, held-out and test probabilities of every model: the `predict` stage.

An image is predicted from all of its tiles, by their weights: as a tile weighs one by the number of sections
of its clot, sections are averaged within their clot, and clots within the image.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.special import softmax
from tqdm.auto import tqdm

from kit.files import write_table
from kit.learn import backbones, embed
from kit.learn.backbones import Backbone
from kit.learn.bags import BagModel, Packed
from kit.learn.dataset import Ids, ids_with_tiles, labelled, read_tiles
from kit.learn.embed import device, embeddings
from kit.learn.train import fold_names, stored_embeddings, weights_path
from kit.state import Run

VERSION = 2
log = logging.getLogger("kit")
Floats = NDArray[np.float64]


def inputs(run: Run) -> dict[str, Any]:
    """Nothing but what the stages before it wrote."""
    return {}


def run(run: Run) -> list[Path]:
    """The stage: ``oof.csv``, ``holdout.csv`` and ``test.csv``, one row an image, model and fold."""
    torch.set_num_threads(run.threads)
    images = labelled(run)
    tables: dict[str, list[pd.DataFrame]] = {"oof": [], "holdout": [], "test": []}
    specs = [backbones.parse(spec) for spec in run.competition.training.backbones]
    jobs = [(backbone, fold) for backbone in specs for fold in fold_names(images)]
    for backbone, fold in tqdm(jobs, desc="predicting", unit="fold"):
        model = load_model(run, backbone, fold)
        held = images[images["role"] == "holdout"]
        mine = images[(images["role"] == "fold") & (images["fold"] == fold)]
        for name, rows in (("oof", mine), ("holdout", held)):
            tables[name].append(_table(run, backbone, model, fold, "train", rows["unit_id"]))
        if run.tables.test is not None:
            ids = ids_with_tiles(run, "test")
            units = run.tables.test["unit_id"].loc[list(ids)]
            tables["test"].append(_table(run, backbone, model, fold, "test", units))
    return [_write(run, name, parts) for name, parts in tables.items()]


def load_model(run: Run, backbone: Backbone, fold: str) -> BagModel:
    """The model that `train` fitted without this fold."""
    path = weights_path(run, backbone, fold)
    record = json.loads(path.with_suffix(".json").read_text())
    pool, classes = record["settings"]["pool"], len(record["classes"])
    encoder = None if backbone.mode == "frozen" else backbones.build(backbone.encoder)
    model = BagModel(encoder, record["features"], classes, pool, 0.0, record["mean"], record["std"])
    model.load_state_dict(load_file(path))
    return model.eval()


def _table(
    run: Run, backbone: Backbone, model: BagModel, fold: str, split: str, units: pd.Series[str]
) -> pd.DataFrame:
    """Predictions of some images in the columns that `combine` reads."""
    ids = units.index.to_numpy(dtype=object)
    values = predict_images(run, backbone, model, split, ids)
    table = pd.DataFrame(
        {"image_id": ids, "unit_id": units.to_numpy(), "model": backbone.name, "seed": run.seed, "fold": fold}
    )
    for n, name in enumerate(run.competition.classes):
        table[f"p_{name}"] = values[:, n]
    return table


def predict_images(run: Run, backbone: Backbone, model: BagModel, split: str, ids: Ids) -> Floats:
    """Probabilities ``(n, K)`` of images, in fp32, from all tiles of each."""
    if not len(ids):
        return np.zeros((0, model.head.out_features))
    if backbone.mode == "frozen":
        views = run.competition.training.views
        stored = (
            stored_embeddings(run, backbone, views)
            if split == "train"
            else embeddings(run, backbone, split, 1)
        ).take(ids)
        features, counts, weight = stored.features[:, 0], stored.counts, stored.weight
    else:
        features, counts, weight = _encode(run, model, split, ids, backbone.size)
    return np.asarray(softmax(_classify(model, features, counts, weight).astype(np.float64), axis=1))


def _encode(
    run: Run, model: BagModel, split: str, ids: Ids, size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Features ``(T, D)`` of tiles, how many each image has, and weights; a few bags are held at once."""
    model = model.to(device()).to(memory_format=torch.channels_last)
    features, weights = [], []
    for start in range(0, len(ids), embed.CHUNK):
        bags = [read_tiles(run, split, image, size) for image in ids[start : start + embed.CHUNK]]
        batch = run.competition.training.infer_batch
        features.append(embed.forward(model, np.concatenate([pixels for pixels, _ in bags]), batch))
        weights += [tiles.weight for _, tiles in bags]
    model.cpu()
    return np.concatenate(features), np.array([len(part) for part in weights]), np.concatenate(weights)


@torch.inference_mode()
def _classify(
    model: BagModel, features: NDArray[np.float32], counts: NDArray[np.int64], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Logits ``(B, K)`` of bags of weighted features, each by itself: no sum depends on its company."""
    found, ends = [], np.cumsum(counts)[:-1]
    for part, share in zip(np.split(features, ends), np.split(weight, ends), strict=True):
        tiles = torch.from_numpy(part)
        packed = Packed(tiles, torch.zeros(len(part), dtype=torch.int64), torch.from_numpy(share), 1)
        values = model.embed(tiles) if model.encoder is None else tiles
        found.append(model.classify(values, packed).numpy())
    return np.concatenate(found)


def _write(run: Run, name: str, parts: list[pd.DataFrame]) -> Path:
    columns = ["image_id", "unit_id", "model", "seed", "fold"]
    columns += [f"p_{label}" for label in run.competition.classes]
    table = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
    path = run.folder("predict") / f"{name}.csv"
    write_table(path, table[columns].sort_values(["image_id", "model", "fold"], kind="stable"))
    return path
