"""Frozen mode: the embeddings of every tile, computed once for all folds, heads, seeds and trials.

Kept in ``WORK/<name>/embed/<backbone>-<key>/``, a file a chunk of images and view. Chunks and forward passes
have fixed sizes, so that the numbers do not depend on where a run was interrupted.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray

from kit.files import digest, read_arrays, write_arrays
from kit.learn import backbones, encode, preprocess, views
from kit.learn.bags import BagModel, outputs
from kit.learn.dataset import ids_with_tiles, ranges, turned_copies
from kit.learn.encode import Passes, device
from kit.learn.models import Model
from kit.learn.weights import find_weights, load_weights, weights_digest
from kit.progress import Bar
from kit.read import store
from kit.read.store import Tiles
from kit.state import Run

VERSION = 1  # of the numbers: another one where the same tiles get other features
CHUNK = 32  # images a file: what a kill can cost
KEY = 12  # digits of a key in the name of a folder
NAMES = ("ids", "counts", "features", "section", "clot", "weight")  # of the arrays of a file
log = logging.getLogger("kit")
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Ids = NDArray[np.object_]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Embedded:
    """The embeddings of some images, end to end.

    ids: the images, sorted.
    counts: tiles of each image ``(n,)``.
    features: ``(T, V, D)``, V views a tile; which ones is in ``symmetries`` ``(V,)``, ascending.
    section, clot, weight: those of each tile ``(T,)``, as the store has them.
    views: over how many symmetric views a model takes the mean; see `kit.learn.views`.
    """

    ids: Ids
    counts: Integers
    features: Floats
    section: NDArray[np.int32]
    clot: NDArray[np.int32]
    weight: Floats
    symmetries: tuple[int, ...] = (0,)
    views: int = 1

    def rows(self, images: Iterable[str]) -> Integers:
        """The place of each of these images.

        Raises:
            KeyError: one of them has no embeddings.
        """
        place = {name: n for n, name in enumerate(self.ids)}
        return np.array([place[name] for name in images], dtype=np.int64)

    def take(self, images: Ids) -> Embedded:
        """The embeddings of these images, in this order.

        Raises:
            KeyError: one of them has none.
        """
        rows = self.rows(images)
        counts = self.counts[rows]
        index = ranges((np.cumsum(self.counts) - self.counts)[rows], counts)
        tiles = (self.features[index], self.section[index], self.clot[index], self.weight[index])
        return Embedded(images, counts, *tiles, self.symmetries, self.views)

    def mean_features(self, turn: int = 0) -> Floats:
        """What is predicted from, and mostly learned from: the mean over the views of each tile ``(T, D)``.

        ``turn`` is how many right angles the tiles were turned by before: of one or two views these are
        others.
        """
        axes = self._axes(turn)
        # One view after the other: a sum of fixed order, without a copy of all of them.
        total = self.features[:, axes[0]]
        for axis in axes[1:]:
            total = total + self.features[:, axis]
        return np.asarray(total / np.float32(len(axes)), np.float32)

    def _axes(self, turn: int) -> Integers:
        """Where the views of a turned tile are among ``symmetries``."""
        place = {number: axis for axis, number in enumerate(self.symmetries)}
        return np.array([place[number] for number in views.coset(self.views, turn)])


_CACHE: dict[str, tuple[Path, tuple[int, ...], Embedded]] = {}


def stored(run: Run, model: Model, split: str = "train") -> Embedded:
    """The embeddings of a split with all views that a model sees, read once for folds, trials and seeds."""
    # Only what is learned from is turned.
    turns = range(int(turned_copies(run).max()) + 1) if split != "test" else (0,)
    folder, wanted = _folder(run, model), views.needed(model.training.views, turns)
    for other, (place, _, _) in list(_CACHE.items()):
        if place != folder:  # one encoder at a time: they are large
            del _CACHE[other]
    if split not in _CACHE or _CACHE[split][:2] != (folder, wanted):
        _CACHE.pop(split, None)
        _CACHE[split] = (folder, wanted, embeddings(run, model, split, turns))
    return replace(_CACHE[split][2], views=model.training.views)


def embeddings(run: Run, model: Model, split: str, turns: Iterable[int] = (0,)) -> Embedded:
    """Read the embeddings of a split, and compute those that are not there yet.

    Args:
        turns: by how many right angles tiles may be turned before they are seen.
    """
    wanted = views.needed(model.training.views, turns)
    ids, folder = ids_with_tiles(run, split), _folder(run, model)
    chunks = [ids[n : n + CHUNK] for n in range(0, len(ids), CHUNK)]
    files = [[_file(folder, split, n, number) for number in wanted] for n in range(len(chunks))]
    parts = [[_kept(path, mine) for path in paths] for paths, mine in zip(files, chunks, strict=True)]
    if any(view is None for part in parts for view in part):
        network = frozen_encoder(run, model)
        with Bar(total=len(ids), desc=f"embedding {split}, {model.backbone.encoder}", unit="image") as bar:
            for mine, paths, part in zip(chunks, files, parts, strict=True):
                _complete(run, model, network, split, mine, paths, part, wanted)
                bar.update(len(mine))
        _free_others(folder)
    return _join(ids, parts, wanted, model.training.views)


def lacking(run: Run, model: Model, split: str, wanted: Iterable[int]) -> list[str]:
    """Names of those views of a split that are not there; models that share embeddings share the names."""
    folder, chunks = _folder(run, model), -(-len(ids_with_tiles(run, split)) // CHUNK)
    return [
        f"{folder.name} {split} {views.NAMES[number]}"
        for number in wanted
        if not all(_file(folder, split, n, number).is_file() for n in range(chunks))
    ]


def _file(folder: Path, split: str, chunk: int, number: int) -> Path:
    return folder / f"{split}-{chunk:05d}-{views.NAMES[number]}.npz"


def key(run: Run, model: Model) -> str:
    """What embeddings depend on: tiles, weights, preprocessing and the way they are computed."""
    weights = find_weights(model.backbone, run.weights)
    # The network's own stem is not named: what was kept before there was another is still good.
    stem = {} if model.training.stem == "own" else {"stem": model.training.stem}
    return digest(
        {
            "version": VERSION,
            "tiles": run.key("tile"),
            "encoder": model.backbone.encoder,
            "size": model.backbone.size,
            "layers": model.training.layers,
            "weights": weights_digest(model.backbone, run.weights),
            "preprocessing": preprocess.of(model.backbone.encoder, weights).record(),
            "batch": run.competition.training.infer_batch,
            "threads": run.threads,
            "device": str(device()),
        }
        | stem
    )


def passes(run: Run, model: Model, symmetries: Sequence[int]) -> Passes:
    """How the tiles of a run go through the encoder of a model."""
    weights = find_weights(model.backbone, run.weights)
    how = preprocess.of(model.backbone.encoder, weights).interpolation
    batch = run.competition.training.infer_batch
    return Passes(model.backbone.size, how, batch, tuple(symmetries), max(1, run.workers))


def frozen_encoder(run: Run, model: Model) -> BagModel:
    """The encoder with its pretrained weights and preprocessing, ready to embed."""
    # What is drawn after this must not depend on whether embeddings were there already.
    with torch.random.fork_rng(devices=[]):
        return new_encoder(run, model).to(device()).eval()


def new_encoder(run: Run, model: Model) -> BagModel:
    """A whole network with its pretrained weights, if its mode has any, and their preprocessing."""
    backbone, training = model.backbone, model.training
    weights = find_weights(backbone, run.weights)
    encoder = backbones.build(backbone.encoder, training.drop, training.layers, weights, training.stem)
    if weights is not None:
        load_weights(encoder, weights, backbone.encoder)
    record = preprocess.of(backbone.encoder, weights)
    count = outputs(len(run.competition.classes), training)
    network = BagModel(
        encoder, encoder.features, count, training.pool, training.drop, record.mean, record.std
    )
    return network.to(memory_format=torch.channels_last)


def new_head(run: Run, model: Model, features: Floats) -> BagModel:
    """A network without encoder, standardised by the embeddings ``(T, D)`` that it will learn from."""
    count = outputs(len(run.competition.classes), model.training)
    network = BagModel(None, features.shape[1], count, model.training.pool, model.training.drop)
    standardise(network, features)
    return network


def standardise(model: BagModel, features: Floats) -> None:
    """Give a frozen-mode model the mean and spread of its training fold's embeddings ``(T, D)``.

    The spread carries a factor sqrt(D), so that an embedding has a squared norm of about 1 and the
    same ridge suits every encoder.
    """
    center, spread = features.mean(axis=0), features.std(axis=0)
    # A constant feature must not be blown up.
    spread = np.maximum(spread, 1e-3 * max(float(spread.max()), 1e-6)) * np.sqrt(len(spread))
    model.center.copy_(torch.from_numpy(center))
    model.spread.copy_(torch.from_numpy(spread))


def _folder(run: Run, model: Model) -> Path:
    name = model.backbone.name + ("" if model.training.layers == "last" else f"-{model.training.layers}")
    name += "" if model.training.stem == "own" else f"-{model.training.stem}"
    return run.folder("embed") / f"{quote(name, safe='')}-{key(run, model)[:KEY]}"


def _complete(
    run: Run,
    model: Model,
    network: BagModel,
    split: str,
    ids: Ids,
    paths: Sequence[Path],
    part: list[Arrays | None],
    wanted: Sequence[int],
) -> None:
    """Compute and keep those views of a chunk of images that are None."""
    todo = [axis for axis, view in enumerate(part) if view is None]
    if not todo:
        return
    images = read_all(run, split, ids)
    found = encode.bags(network, images, passes(run, model, [wanted[axis] for axis in todo]))
    about = _about(ids, images)
    for n, axis in enumerate(todo):
        part[axis] = view = about | {"features": np.ascontiguousarray(found[:, n])}
        _keep(paths[axis], view)


def read_all(run: Run, split: str, ids: Iterable[str]) -> list[Tiles]:
    """What the store knows of the tiles of some images; their pixels are read when they are decoded."""
    return [store.read(store.path_of(run.folder("tile"), split, image)) for image in ids]


def _free_others(folder: Path) -> None:
    """Remove what the same backbone gave under other settings: nobody would ever remove it by hand."""
    stem = folder.name[:-KEY]
    pattern = re.compile(re.escape(stem) + f"[0-9a-f]{{{KEY}}}")
    for other in sorted(folder.parent.iterdir()):
        if other != folder and other.is_dir() and pattern.fullmatch(other.name):
            size = sum(path.stat().st_size for path in other.rglob("*") if path.is_file())
            shutil.rmtree(other, ignore_errors=True)
            log.info("removed %s, embeddings of other settings: %.0f MiB", other, size / 2**20)


def _about(ids: Ids, images: Sequence[Tiles]) -> Arrays:
    """What is kept of a chunk of images besides the features."""
    names = ("section", "clot", "weight")
    counts = np.array([len(tiles) for tiles in images], np.int64)
    rest = {name: np.concatenate([getattr(tiles, name) for tiles in images]) for name in names}
    return {"ids": ids.astype(str), "counts": counts, **rest}


def _keep(path: Path, arrays: Arrays) -> None:
    write_arrays(path, arrays)


def _kept(path: Path, ids: Ids) -> Arrays | None:
    """A view of a chunk as it was kept; ``None`` if its file is absent, damaged, or of other images.

    The images of a chunk change when one becomes readable: ``key`` does not know of that.
    """
    content = read_arrays(path, NAMES)
    return None if content is None or content["ids"].tolist() != ids.tolist() else content


def _join(ids: Ids, parts: list[list[Arrays | None]], symmetries: tuple[int, ...], count: int) -> Embedded:
    """Chunks end to end, their views side by side; ``parts`` is emptied: nothing is held twice."""
    known = [[view for view in part if view is not None] for part in parts]
    parts.clear()
    names = ("counts", "section", "clot", "weight")
    kinds = (np.int64, np.int32, np.int32, np.float32)
    rest: dict[str, Any] = {
        name: np.concatenate([np.zeros(0, kind), *(part[0][name] for part in known)], dtype=kind)
        for name, kind in zip(names, kinds, strict=True)
    }
    width = known[0][0]["features"].shape[1] if known else 1
    features = np.empty((int(rest["counts"].sum()), len(symmetries), width), np.float32)
    end = len(features)
    while known:
        for axis, view in enumerate(part := known.pop()):
            features[end - len(view["features"]) : end, axis] = view["features"]
        end -= len(part[0]["features"])
    return Embedded(ids, features=features, symmetries=symmetries, views=count, **rest)
