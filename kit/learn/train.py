"""Fitting every backbone on every fold: the `train` stage."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from tqdm.auto import tqdm

from kit import seeds
from kit.competition import Training
from kit.errors import SettingError, did_you_mean
from kit.files import digest, file_digest, write_bytes, write_file, write_json
from kit.learn import backbones, embed
from kit.learn.backbones import Backbone
from kit.learn.bags import BagModel, Packed
from kit.learn.dataset import (
    Epochs,
    TileBags,
    find_sections,
    labelled,
    loader,
    ranges,
    split_batches,
    turned_copies,
    with_copies,
)
from kit.learn.embed import Embedded, device, embeddings, standardise
from kit.state import Run

VERSION = 2
WARMUP = 0.1  # share of the steps in which the learning rate rises
Batches = Iterator[tuple[int, Packed, Tensor]]
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Hyper:
    """What tuning may choose for one fit."""

    lr: float
    weight_decay: float
    drop: float
    pool: str
    bag: int
    augment: float


@dataclass(frozen=True)
class Fit:
    """One model to fit: on which images, with which settings, under which name."""

    run: Run
    backbone: Backbone
    hyper: Hyper
    images: pd.DataFrame  # indexed by image_id, with y
    purpose: str  # names the fit: all its draws depend on it

    @property
    def frozen(self) -> bool:
        """Whether the encoder stays as it is, and embeddings stand in for tiles."""
        return self.backbone.mode == "frozen"

    @cached_property
    def samples(self) -> pd.DataFrame:
        """What an epoch shows: every image, and turned copies of it if they are asked for."""
        return with_copies(self.images, turned_copies(self.run))

    @property
    def epochs(self) -> int:
        """How long it learns; fixed, since stopping early would look at the validation fold."""
        training = self.run.competition.training
        return training.epochs if self.frozen else training.finetune_epochs


def defaults(training: Training, mode: str) -> Hyper:
    """The settings of a fit that was not tuned."""
    lr = {"frozen": training.lr, "finetune": training.finetune_lr, "scratch": training.scratch_lr}
    values = {f.name: getattr(training, f.name) for f in dataclasses.fields(Hyper)}
    if mode == "frozen":
        values["weight_decay"] = training.ridge
    return Hyper(**(values | {"lr": lr[mode]}))


def inputs(run: Run) -> dict[str, Any]:
    """Digests of the pretrained weights, and the device (it changes sums)."""
    todo = [backbones.parse(spec) for spec in run.competition.training.backbones]
    found = {backbone.name: backbones.weights_digest(backbone, run.weights) for backbone in todo}
    return {"weights": found, "device": device().type}


def check(run: Run) -> None:
    """Settings make sense; backbones exist, their weights fit, and they take tiles of the chosen size.

    Raises:
        WeightsError, SettingError: one does not.
    """
    turned_copies(run)
    todo = [backbones.parse(spec) for spec in run.competition.training.backbones]
    names = [backbone.name for backbone in todo]
    if not names or len(set(names)) < len(names):
        raise SettingError(f"train.backbones is '{', '.join(names)}'", "name each backbone once")
    for name in run.weights:
        if name not in {backbone.encoder for backbone in todo}:
            hint = did_you_mean(name, {backbone.encoder for backbone in todo})
            raise SettingError(f"--weights names '{name}', which is no backbone of this run", hint)
    for backbone in todo:
        model = embed.new_encoder(run, backbone, drop=0.0).eval()
        size = backbone.size or run.competition.tiles.size
        try:
            embed.forward(model.to(device()), np.zeros((1, size, size, 3), np.uint8), 1)
        except (AssertionError, RuntimeError) as error:  # what timm and torch raise for a wrong size
            wanted = backbones.preprocessing(backbone.encoder)["input_size"][-1]
            raise SettingError(
                f"{backbone.encoder} does not take tiles of {size} pixels: {error}",
                f"write {backbone.encoder}:{backbone.mode}:{wanted} in train.backbones",
            ) from error


def run(run: Run) -> list[Path]:
    """The stage: one file of weights a backbone and fold, each with its description."""
    torch.set_num_threads(run.threads)
    images = labelled(run)
    chosen = json.loads((run.folder("tune") / "best.json").read_text())
    outputs = []
    jobs = [
        (backbones.parse(spec), fold)
        for spec in run.competition.training.backbones
        for fold in fold_names(images)
    ]
    for backbone, fold in tqdm(jobs, desc="training", unit="fold"):
        rows = images[(images["role"] == "fold") & (images["fold"] != fold)]
        hyper = Hyper(**chosen[backbone.name][fold]["settings"])
        fit = Fit(run, backbone, hyper, rows, f"{backbone.name} fold {fold}")
        outputs += _train_fold(fit, fold)
    return outputs


def fold_names(images: pd.DataFrame) -> list[str]:
    """The folds in numeric order."""
    return sorted(set(images.loc[images["role"] == "fold", "fold"]), key=int)


def weights_path(run: Run, backbone: Backbone, fold: str) -> Path:
    """Where the weights of a fold's model are kept."""
    return run.folder("train") / backbone.name / f"fold{fold}.safetensors"


def _train_fold(fit: Fit, fold: str) -> list[Path]:
    """Fit and keep one fold's model, unless a run that was stopped has already done so."""
    path = weights_path(fit.run, fit.backbone, fold)
    beside = path.with_suffix(".json")
    key = digest([fit.run.key("train"), fit.purpose])
    if _is_kept(path, beside, key):
        return [path, beside]
    model = train(fit, path.with_suffix(".ckpt"))
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    write_bytes(path, save(state))
    record = {
        "timm": fit.backbone.encoder,
        "mode": fit.backbone.mode,
        "fold": fold,
        "seed": fit.run.seed,
        "classes": list(fit.run.competition.classes),
        "tile": fit.run.competition.tiles.size,
        "settings": dataclasses.asdict(fit.hyper),
        "key": key,
        "sha256": file_digest(path),
        "features": int(model.head.in_features),
        **backbones.preprocessing(fit.backbone.encoder),
    }
    write_json(beside, record)
    path.with_suffix(".ckpt").unlink(missing_ok=True)
    return [path, beside]


def _is_kept(path: Path, beside: Path, key: str) -> bool:
    """Whether the weights are there, of this very fit, and as they were written."""
    if not (beside.is_file() and path.is_file()):
        return False
    record = json.loads(beside.read_text())
    return bool(record["key"] == key and record.get("sha256") == file_digest(path))


def train(fit: Fit, checkpoint: Path | None = None) -> BagModel:
    """Fit one model.

    Args:
        checkpoint: kept after every epoch where an epoch takes long; a stopped run goes on from it.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seeds.number(fit.run.seed, fit.purpose, "start"))
        if fit.frozen:
            return _train_frozen(fit)
        model = embed.new_encoder(fit.run, fit.backbone, fit.hyper.drop, fit.hyper.pool)
        return _loop(
            fit, model, _tile_batches(fit), _steps(fit, fit.run.competition.training.batch), checkpoint
        )


def _train_frozen(fit: Fit) -> BagModel:
    views = fit.run.competition.training.views
    stored = stored_embeddings(fit.run, fit.backbone, views)
    mine = stored.take(fit.images.index.to_numpy(dtype=object))
    model = BagModel(
        None, mine.features.shape[2], len(fit.run.competition.classes), fit.hyper.pool, fit.hyper.drop
    )
    standardise(model, mine.features[:, 0])
    # A pass over cached embeddings is cheap: large sets take larger steps, not more of them.
    batch = max(fit.run.competition.training.batch, -(-len(fit.samples) // 16))
    return _loop(fit, model, lambda first: _embedding_batches(fit, mine, batch), _steps(fit, batch), None)


_CACHE: dict[str, Embedded] = {}


def stored_embeddings(run: Run, backbone: Backbone, views: int) -> Embedded:
    """The embeddings of the train split, turned views included, read once for all folds and trials."""
    turns = int(turned_copies(run).max())
    key = embed.key(run, backbone, views, turns)
    if key not in _CACHE:
        _CACHE.clear()
        _CACHE[key] = embeddings(run, backbone, "train", views, turns)
    return _CACHE[key]


def _steps(fit: Fit, batch: int) -> int:
    """Optimiser steps of an epoch."""
    return len(split_batches(np.arange(len(fit.samples)), batch))


def _tile_batches(fit: Fit) -> Callable[[int], Batches]:
    """Batches of augmented tiles from the store, beginning with any epoch."""
    run, hyper = fit.run, fit.hyper
    bags = TileBags(
        run.folder("tile"),
        fit.samples.index.to_numpy(dtype=object),
        fit.samples["turn"].to_numpy(),
        fit.backbone.size,
        hyper.bag,
        hyper.augment,
        run.seed,
        fit.purpose,
    )
    size, batch = len(fit.samples), run.competition.training.batch

    def batches(first: int) -> Batches:
        steps = _steps(fit, batch)
        sampler = Epochs(size, batch, first, fit.epochs, run.seed, fit.purpose)
        for step, (packed, rows) in enumerate(loader(bags, sampler, run.workers)):
            yield first + step // steps, packed, rows

    return batches


def _embedding_batches(fit: Fit, stored: Embedded, batch: int) -> Batches:
    """Batches of stored embeddings: some tiles of every sample's bag, some of them as augmented views."""
    rows, turn = stored.rows(fit.samples.index), fit.samples["turn"].to_numpy()
    sizes = stored.counts[rows]  # of the bags of the samples, whose tiles lie end to end
    start, owner = np.cumsum(sizes) - sizes, np.repeat(np.arange(len(rows)), sizes)
    tile = ranges((np.cumsum(stored.counts) - stored.counts)[rows], sizes)
    sections = find_sections(owner, stored.clot[tile], stored.section[tile])
    views = stored.features.shape[1] - int(turned_copies(fit.run).max())
    for epoch in range(fit.epochs):
        kept = sections.draw(seeds.rng(fit.run.seed, fit.purpose, "section", epoch))
        present = np.bincount(owner[kept], minlength=len(rows))
        draw = seeds.rng(fit.run.seed, fit.purpose, "epoch", epoch)
        # Sorting random keys within each bag draws tiles without replacement, for all bags at once; the
        # tiles of sections that were not drawn come last.
        shuffled = np.lexsort((draw.random(len(owner)) + ~kept, owner))
        view = _draw_views(draw, len(owner), views, fit.hyper.augment)
        view = np.where((view == 0) & (turn[owner] > 0), views - 1 + turn[owner], view)
        for mine in split_batches(draw.permutation(len(rows)), batch):
            counts = np.minimum(present[mine], fit.hyper.bag)
            drawn = shuffled[ranges(start[mine], counts)]
            features = torch.from_numpy(stored.features[tile[drawn], view[drawn]])
            bag = torch.from_numpy(np.repeat(np.arange(len(mine)), counts))
            packed = Packed(features, bag, torch.ones(len(drawn)), len(mine))
            yield epoch, packed, torch.from_numpy(mine)


def _draw_views(draw: np.random.Generator, tiles: int, views: int, strength: float) -> NDArray[np.int64]:
    """The view of each tile: the tile itself, or with probability ``strength`` an augmented one."""
    if views == 1:
        return np.zeros(tiles, np.int64)
    other = draw.integers(1, views, tiles)
    return np.where(draw.random(tiles) < strength, other, 0)


def _loop(
    fit: Fit,
    model: BagModel,
    batches: Callable[[int], Batches],
    steps: int,
    checkpoint: Path | None,
) -> BagModel:
    """AdamW with warm-up and a cosine over a fixed number of epochs; resumes at an epoch's start."""
    truth = torch.from_numpy(fit.samples["y"].to_numpy(dtype=np.int64, copy=True))
    accelerator = Accelerator(
        mixed_precision=fit.run.competition.training.precision, cpu=device().type == "cpu"
    )
    # With few bags and many features only a true ridge in the loss tames a frozen model's head;
    # AdamW's decoupled decay does for the others. Turned copies are no new evidence against the ridge.
    decay, ridge = (
        (0.0, fit.hyper.weight_decay / (2 * len(fit.images))) if fit.frozen else (fit.hyper.weight_decay, 0.0)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=fit.hyper.lr, weight_decay=decay)
    start_at_prior(model, truth)
    model, optimiser = accelerator.prepare(model, optimiser)
    done = _resume(fit, model, optimiser, checkpoint)
    penalised = [p for p in model.parameters() if p.ndim > 1] if fit.frozen else []
    model.train()
    epoch = -1
    for step, (now, packed, rows) in enumerate(batches(done), start=done * steps):
        if now != epoch:
            _checkpoint(fit, model, optimiser, now, checkpoint if epoch >= 0 else None)
            epoch = now
            # Dropout must not depend on where a stopped run went on.
            torch.manual_seed(seeds.number(fit.run.seed, fit.purpose, "dropout", epoch))
        for group in optimiser.param_groups:
            group["lr"] = fit.hyper.lr * schedule(step / (steps * fit.epochs))
        with accelerator.autocast():
            logits = model(packed.to(accelerator.device))
        loss = nn.functional.cross_entropy(logits.float(), truth[rows].to(accelerator.device))
        loss = loss + ridge * sum((p**2).sum() for p in penalised)
        optimiser.zero_grad()
        accelerator.backward(loss)
        optimiser.step()
    fitted: BagModel = accelerator.unwrap_model(model).cpu().eval()
    return fitted


def start_at_prior(model: BagModel, truth: Tensor) -> None:
    """Let an untrained model say the class shares: no step is spent on learning them."""
    counts = torch.bincount(truth, minlength=model.head.out_features) + 0.5
    with torch.no_grad():
        model.head.bias.copy_(torch.log(counts / counts.sum()))


def schedule(progress: float) -> float:
    """The learning rate's factor at a share of all steps: a linear rise, then half a cosine.

    >>> [round(schedule(x), 2) for x in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if progress < WARMUP:
        return max(progress / WARMUP, 0.01)
    return float(0.5 * (1 + np.cos(np.pi * (progress - WARMUP) / (1 - WARMUP))))


def _checkpoint(fit: Fit, model: nn.Module, optimiser: Any, epoch: int, path: Path | None) -> None:
    """Keep everything that the next epoch depends on."""
    if path is None:
        return
    content = {
        "key": _checkpoint_key(fit),
        "epoch": epoch,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    write_file(path, lambda temporary: torch.save(content, temporary))


def _resume(fit: Fit, model: nn.Module, optimiser: Any, path: Path | None) -> int:
    """Load a checkpoint of this very fit; returns the epoch to go on with."""
    if path is None or not path.is_file():
        return 0
    content = torch.load(path, weights_only=True)
    if content["key"] != _checkpoint_key(fit):
        return 0
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    return int(content["epoch"])


def _checkpoint_key(fit: Fit) -> str:
    return digest([fit.run.key("train"), fit.purpose, dataclasses.asdict(fit.hyper)])
