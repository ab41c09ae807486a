"""Frozen mode: the embeddings of every tile, computed once per backbone and kept.

Kept in ``WORK/<name>/embed/<backbone>-<key>/``, a file a chunk of images. Chunks and forward passes
have fixed sizes, so that the numbers do not depend on where a run was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from kit.files import digest, read_arrays, write_file
from kit.learn import augment, backbones
from kit.learn.backbones import Backbone
from kit.learn.bags import BagModel
from kit.learn.dataset import ids_with_tiles, ranges, read_tiles
from kit.read.store import Tiles
from kit.state import Run

CHUNK = 32  # images a file: what a kill can cost
log = logging.getLogger("kit")
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """The embeddings of some images, end to end.

    ids: the images, sorted.
    counts: tiles of each image ``(n,)``.
    features: ``(T, V, D)``, V views a tile: as it is, augmented, turned by one, two, ... right angles.
    section, clot, weight: those of each tile ``(T,)``, as the store has them.
    """

    ids: NDArray[np.object_]
    counts: NDArray[np.int64]
    features: Floats
    section: NDArray[np.int32]
    clot: NDArray[np.int32]
    weight: Floats

    def rows(self, images: Iterable[str]) -> NDArray[np.int64]:
        """The place of each of these images.

        Raises:
            KeyError: one of them has no embeddings.
        """
        place = {name: n for n, name in enumerate(self.ids)}
        return np.array([place[name] for name in images], dtype=np.int64)

    def take(self, images: NDArray[np.object_]) -> Embedded:
        """The embeddings of these images, in this order.

        Raises:
            KeyError: one of them has none.
        """
        rows = self.rows(images)
        counts = self.counts[rows]
        index = ranges((np.cumsum(self.counts) - self.counts)[rows], counts)
        tiles = (self.features[index], self.section[index], self.clot[index], self.weight[index])
        return Embedded(images, counts, *tiles)


def embeddings(run: Run, backbone: Backbone, split: str, views: int, turns: int = 0) -> Embedded:
    """Read the embeddings of a split, and compute those that are not there yet.

    Args:
        views: the tile as it is and its augmented views.
        turns: further views, turned by 1 to ``turns`` right angles.
    """
    ids = ids_with_tiles(run, split)
    folder = run.folder("embed") / f"{backbone.name}-{key(run, backbone, views, turns)[:12]}"
    chunks = [ids[n : n + CHUNK] for n in range(0, len(ids), CHUNK)]
    files = [folder / f"{split}-{n:05d}.npz" for n in range(len(chunks))]
    parts = [_kept(path, mine) for path, mine in zip(files, chunks, strict=True)]
    todo = [n for n, part in enumerate(parts) if part is None]
    if todo:
        model = frozen_encoder(run, backbone)
        bar = tqdm(total=len(ids), desc=f"embedding {split}, {backbone.encoder}", unit="image")
        bar.update(sum(len(part) for n, part in enumerate(chunks) if n not in todo))
        for n in todo:
            shown = [_views(run, split, image, backbone.size, views, turns) for image in chunks[n]]
            part = _embed_chunk(model, chunks[n], shown, run.competition.training.infer_batch)
            _keep(files[n], part)
            parts[n] = part
            bar.update(len(chunks[n]))
        bar.close()
    return _join(ids, parts)


def key(run: Run, backbone: Backbone, views: int, turns: int = 0) -> str:
    """What embeddings depend on: tiles, weights, preprocessing and the way they are computed."""
    training = run.competition.training
    turned = {"turns": turns} if turns else {}
    return digest(
        {
            "tiles": run.key("tile"),
            "encoder": backbone.encoder,
            "size": backbone.size,
            "weights": backbones.weights_digest(backbone, run.weights),
            "preprocessing": backbones.preprocessing(backbone.encoder),
            "views": views,
            "seed": run.seed,
            "batch": training.infer_batch,
            "threads": run.threads,
            "strength": 1.0,
            "device": str(device()),
        }
        | turned
    )


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def frozen_encoder(run: Run, backbone: Backbone) -> BagModel:
    """The encoder with its pretrained weights and preprocessing, ready to embed."""
    return new_encoder(run, backbone, drop=0.0).to(device()).eval()


def new_encoder(run: Run, backbone: Backbone, drop: float, pool: str = "mean") -> BagModel:
    """A whole model with its pretrained weights, if its mode has any, and their preprocessing."""
    encoder = backbones.build(backbone.encoder, drop)
    weights = backbones.find_weights(backbone, run.weights)
    if weights is not None:
        backbones.load_weights(encoder, weights, backbone.encoder)
    record: dict[str, Any] = backbones.preprocessing(backbone.encoder)
    features = int(encoder.num_features)  # type: ignore[arg-type]
    features = int(getattr(encoder, "head_hidden_size", features) or features)
    model = BagModel(
        encoder, features, len(run.competition.classes), pool, drop, record["mean"], record["std"]
    )
    return model.to(memory_format=torch.channels_last)


def _embed_chunk(
    model: BagModel, ids: NDArray[np.object_], shown: list[tuple[NDArray[np.uint8], Tiles]], batch: int
) -> Embedded:
    """Embed bags of tiles with their views, each ``(T, V, H, W, 3)`` and what the store knows of it."""
    counts = np.array([len(views) for views, _ in shown])
    views = np.concatenate([views for views, _ in shown])  # (T, V, H, W, 3)
    flat = views.reshape(-1, *views.shape[2:])
    features = forward(model, flat, batch).reshape(*views.shape[:2], -1)
    section = np.concatenate([tiles.section for _, tiles in shown])
    clot = np.concatenate([tiles.clot for _, tiles in shown])
    return Embedded(ids, counts, features, section, clot, np.concatenate([t.weight for _, t in shown]))


def _keep(path: Path, part: Embedded) -> None:
    arrays = {item.name: getattr(part, item.name) for item in fields(part)}
    arrays["ids"] = part.ids.astype(str)
    write_file(path, lambda temporary: np.savez(temporary, allow_pickle=False, **arrays))


def _kept(path: Path, ids: NDArray[np.object_]) -> Embedded | None:
    """A chunk as it was kept; ``None`` if its file is absent, damaged, or of other images.

    The images of a chunk change when one becomes readable: ``key`` does not know of that.
    """
    content = read_arrays(path, [item.name for item in fields(Embedded)])
    if content is None or content["ids"].tolist() != ids.tolist():
        return None
    return Embedded(**(content | {"ids": ids}))


def _views(
    run: Run, split: str, image: str, size: int, views: int, turns: int
) -> tuple[NDArray[np.uint8], Tiles]:
    """The tiles of an image, augmented and turned ``(T, V, H, W, 3)``, and what the store knows of them."""
    tiles, content = read_tiles(run, split, image, size)
    transform = augment.make(1.0)
    more = [augment.apply(transform, tiles, run.seed, "view", n, image) for n in range(1, views)]
    turned = [np.rot90(tiles, turn, axes=(1, 2)) for turn in range(1, turns + 1)]
    return np.stack([tiles, *more, *turned], axis=1), content


@torch.inference_mode()
def forward(model: BagModel, tiles: NDArray[np.uint8], batch: int) -> Floats:
    """Features ``(T, D)`` of tiles ``(T, H, W, 3)``, in fp32.

    Every pass has ``batch`` tiles, the last one padded: another batch size changes the last digits.
    """
    found = []
    for start in range(0, len(tiles), batch):
        part = tiles[start : start + batch]
        full = np.zeros((batch, *tiles.shape[1:]), np.uint8)
        full[: len(part)] = part
        pixels = torch.from_numpy(full).permute(0, 3, 1, 2).to(device())
        found.append(model.embed(pixels)[: len(part)].float().cpu().numpy())
    return np.concatenate(found)


def _join(ids: NDArray[np.object_], parts: Sequence[Embedded | None]) -> Embedded:
    none, one = np.zeros(0, np.int32), np.zeros(0, np.float32)
    empty = Embedded(ids[:0], np.zeros(0, np.int64), np.zeros((0, 1, 1), np.float32), none, none, one)
    known = [part for part in parts if part is not None] or [empty]
    names = [item.name for item in fields(Embedded) if item.name != "ids"]
    return Embedded(ids, *(np.concatenate([getattr(part, name) for part in known]) for name in names))


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
