"""Stored tiles as samples: which images a fold learns from, and the batches of every epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kit import folds, seeds
from kit.errors import DataError
from kit.learn import augment
from kit.learn.bags import Packed
from kit.read import store
from kit.read.tiles import load_images
from kit.state import Run

Ids = NDArray[np.object_]


def ids_with_tiles(run: Run, split: str) -> Ids:
    """The images of a split that have tiles, sorted."""
    images = load_images(run)
    mine = images[(images["split"] == split) & (images["tiles"] > 0)]
    return np.array(sorted(mine["image_id"]), dtype=object)


def read_tiles(run: Run, split: str, image: str, size: int) -> NDArray[np.uint8]:
    """All tiles ``(T, size, size, 3)`` of an image, the best first; ``size`` 0 keeps them as stored."""
    return resize(store.read(store.path_of(run.folder("tile"), split, image)).decode(), size)


def resize(tiles: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Tiles ``(T, H, W, 3)`` at the size that an encoder sees: area when shrinking, cubic when growing."""
    if size in (0, tiles.shape[1]):
        return tiles
    how = cv2.INTER_AREA if size < tiles.shape[1] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(tile, (size, size), interpolation=how) for tile in tiles])


def labelled(run: Run) -> pd.DataFrame:
    """Labelled images with tiles, indexed by image_id: unit_id, role, fold (of the chosen scheme), y.

    Raises:
        DataError: a class has none.
    """
    table = folds.training_folds(run)
    readable = table.index.isin(ids_with_tiles(run, "train"))
    table = table[readable & (table["role"] != "extra")].sort_index()
    classes = {name: n for n, name in enumerate(run.competition.classes)}
    table = table.assign(y=table["label"].map(classes).astype(int))
    for name, n in classes.items():
        if not (table.loc[table["role"] == "fold", "y"] == n).any():
            raise DataError(
                f"no image of class {name} has tiles",
                f"see the reasons in {run.folder('tile') / 'images.csv'}",
            )
    return table


@dataclass(frozen=True)
class TileBags(Dataset[tuple[NDArray[np.uint8], int]]):
    """A map from (epoch, image) to augmented tiles: every sample is a function of its key alone."""

    folder: Path
    ids: Ids
    size: int
    bag: int
    strength: float
    seed: int
    purpose: str

    def __getitem__(self, key: tuple[int, int]) -> tuple[NDArray[np.uint8], int]:
        """The tiles ``(T, H, W, 3)`` drawn for an image in an epoch, and the image's number."""
        epoch, n = key
        image = self.ids[n]
        content = store.read(store.path_of(self.folder, "train", image))
        draw = seeds.rng(self.seed, self.purpose, "bag", epoch, image)
        chosen = draw.permutation(len(content))[: self.bag].tolist()
        tiles = resize(content.decode(chosen), self.size)
        transform = augment.make(self.strength)
        return augment.apply(transform, tiles, self.seed, self.purpose, epoch, image), n


@dataclass(frozen=True)
class Epochs:
    """A batch sampler over several epochs: batches of (epoch, image number)."""

    n: int
    batch: int
    first: int
    last: int
    seed: int
    purpose: str

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Every epoch in an order of its own."""
        for epoch in range(self.first, self.last):
            order = seeds.rng(self.seed, self.purpose, "order", epoch).permutation(self.n)
            for part in split_batches(order, self.batch):
                yield [(epoch, int(n)) for n in part]


def split_batches(order: NDArray[np.int64], batch: int) -> list[NDArray[np.int64]]:
    """Batches of nearly equal size: a last batch of one image would spoil batch norm.

    >>> [len(part) for part in split_batches(np.arange(9), 4)]
    [5, 4]
    """
    return list(np.array_split(order, max(1, len(order) // batch)))


def pack(samples: list[tuple[NDArray[np.uint8], int]]) -> tuple[Packed, Tensor]:
    """Bags end to end, and the number of each bag's image."""
    tiles = torch.from_numpy(np.concatenate([tiles for tiles, _ in samples])).permute(0, 3, 1, 2)
    bag = torch.repeat_interleave(
        torch.arange(len(samples)), torch.tensor([len(tiles) for tiles, _ in samples])
    )
    packed = Packed(tiles.contiguous(), bag, torch.ones(len(tiles)), len(samples))
    return packed, torch.tensor([n for _, n in samples])


def loader(bags: TileBags, sampler: Epochs, workers: int) -> Iterable[tuple[Packed, Tensor]]:
    """Batches of all epochs, read by ``workers`` processes (none: in this one)."""
    return DataLoader(bags, batch_sampler=sampler, num_workers=workers, collate_fn=pack)
