"""How long the fits of a model will take, from a few of their steps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from kit.learn import embed, encode, plan, sources, views
from kit.learn.bags import BagModel
from kit.learn.begin import begun
from kit.learn.checkpoint import Keeper
from kit.learn.dataset import turned_copies
from kit.learn.embed import Embedded
from kit.learn.encode import device
from kit.learn.fit import Fit
from kit.learn.loop import Loop
from kit.learn.models import Model
from kit.learn.monitor import Monitor
from kit.learn.plan import Cost
from kit.learn.sources import Source
from kit.read.tiles import load_images
from kit.state import Run


def cost(run: Run, model: Model, learned: pd.DataFrame) -> Cost:
    """What one fit of a model on these images takes.

    Of a frozen model the embeddings that are not there yet come on top, once for all that share them.
    """
    fit = Fit(run, model, learned, f"{model.purpose} timed")
    with torch.random.fork_rng():
        if not model.frozen:
            return Cost(_seconds(fit, *begun(fit, None), whole=False))
        network = embed.frozen_encoder(run, model)
        known = _empty(fit, network.head.in_features)
        head, source = sources.embedded(fit, None, known)
        shared = _embedding(run, model, network, known.symmetries)
        return Cost(_seconds(fit, head.to(device()), source, whole=True), shared)


def _seconds(fit: Fit, network: BagModel, source: Source, whole: bool) -> float:
    """Of a fit, from a few steps or, where these are short, from a few whole epochs."""
    steps: Iterable[int] = Loop(fit, network, source, Keeper(None), Monitor()).steps_made()
    count = len(source.sizes)
    if whole:  # what an epoch draws counts too
        return plan.per_step(itertools.islice(steps, count - 1, None, count)) * fit.model.epochs
    return plan.per_step(steps) * count * fit.model.epochs


def _splits(model: Model) -> tuple[str, ...]:
    return ("train", "extra") if model.training.extra in ("negative", "class") else ("train",)


def _empty(fit: Fit, width: int) -> Embedded:
    """Embeddings as large as those that the fit will learn from; what they say takes no time."""
    table = load_images(fit.run)
    tiles = table[table["split"].isin(_splits(fit.model))].set_index("image_id")["tiles"]
    ids = fit.samples.index.unique().to_numpy(dtype=object)
    counts = tiles.loc[list(ids)].to_numpy(dtype=np.int64)
    total = int(counts.sum())
    none = np.zeros(total, np.int32)
    wanted = views.needed(fit.training.views, range(int(turned_copies(fit.run).max()) + 1))
    features = np.zeros((total, len(wanted), width), np.float32)
    ones = np.ones(total, np.float32)
    return Embedded(ids, counts, features, none, none, ones, wanted, fit.training.views)


def _embedding(run: Run, model: Model, network: BagModel, wanted: tuple[int, ...]) -> dict[str, float]:
    """Seconds of the views of all tiles that are not stored, by view, from two passes of empty tiles."""
    lacking = [(split, name) for split in _splits(model) for name in embed.lacking(run, model, split, wanted)]
    if not lacking:
        return {}
    batch, size = run.competition.training.infer_batch, model.backbone.size or run.competition.tiles.size
    empty = np.zeros((batch, size, size, 3), np.uint8)
    encode.forward(network, empty, batch)
    start = time.perf_counter()
    encode.forward(network, empty, batch)
    each = (time.perf_counter() - start) / batch
    tiles = load_images(run).groupby("split")["tiles"].sum()
    return {name: each * float(tiles[split]) for split, name in lacking}
