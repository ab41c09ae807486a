"""Stored tiles as samples: which images a fold learns from, and the batches of every epoch.

Serial sections of one clot repeat it: an epoch of training shows one of them, drawn anew each time, and
predictions weigh the tiles of all of them (see ``kit.learn.predict``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kit import folds, seeds
from kit.errors import DataError, SettingError
from kit.learn import augment
from kit.learn.bags import Packed
from kit.read import store
from kit.read.tiles import load_images
from kit.state import Run

Ids = NDArray[np.object_]
Integers = NDArray[np.int64]
MOST_TURNS = 3  # a fourth right angle is the image itself


def ids_with_tiles(run: Run, split: str) -> Ids:
    """The images of a split that have tiles, sorted."""
    images = load_images(run)
    mine = images[(images["split"] == split) & (images["tiles"] > 0)]
    return np.array(sorted(mine["image_id"]), dtype=object)


def read_tiles(run: Run, split: str, image: str, size: int) -> tuple[NDArray[np.uint8], store.Tiles]:
    """All tiles ``(T, size, size, 3)`` of an image, the best first, and what the store knows of them.

    ``size`` 0 keeps them as stored.
    """
    content = store.read(store.path_of(run.folder("tile"), split, image))
    return resize(content.decode(), size), content


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


def turned_copies(run: Run) -> Integers:
    """Turned copies of a training image, by class ``(K,)``; zeros where ``train.turned`` is not set.

    Raises:
        SettingError: it is not one whole number from 0 to 3 for each class.
    """
    given, classes = run.competition.training.turned, run.competition.classes
    allowed = [str(n) for n in range(MOST_TURNS + 1)]
    if given and (len(given) != len(classes) or not set(given) <= set(allowed)):
        raise SettingError(
            f"train.turned is '{','.join(given)}', for {len(classes)} classes",
            f"give a whole number from 0 to {MOST_TURNS} for each of {', '.join(classes)}, in this order, "
            f"for example train.turned={','.join(['1', '3', '2'][n % 3] for n in range(len(classes)))}",
        )
    return np.array([int(n) for n in given] or [0] * len(classes), np.int64)


def with_copies(images: pd.DataFrame, copies: Integers) -> pd.DataFrame:
    """The samples of an epoch: images of class c ``1 + copies[c]`` times; ``turn`` counts right angles.

    Args:
        images: the images to learn from, with y.
        copies: turned copies of an image, by class ``(K,)``.

    This device for class balance (one turned copy of a CE image, three of an LAA image) changes the class
    shares that a model learns, and so what it says of every image; the bias that the second level fits
    on the out-of-fold rows, of which none is a copy, moves them back. More shown is not more known.
    """
    times = 1 + copies[images["y"].to_numpy(dtype=np.int64)]
    turn = ranges(np.zeros(len(images), np.int64), times)
    return images.iloc[np.repeat(np.arange(len(images)), times)].assign(turn=turn)


def ranges(start: Integers, length: Integers) -> Integers:
    """Whole numbers from each start on, end to end.

    >>> ranges(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    before = np.cumsum(length) - length
    found: Integers = np.arange(length.sum()) + np.repeat(start - before, length)
    return found


@dataclass(frozen=True)
class Sections:
    """Which tiles are of which section, and which sections repeat a clot.

    of_tile: the section of each tile ``(T,)``, numbered over all bags.
    clot: the clot of each section ``(S,)``, numbered over all bags, ascending.
    """

    of_tile: Integers
    clot: Integers

    def draw(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Whether each tile ``(T,)`` is of the section that stands for its clot; all are equally likely."""
        order = np.lexsort((rng.random(len(self.clot)), self.clot))
        first = np.flatnonzero(np.diff(self.clot, prepend=-1))  # of each clot; the clots stay in order
        chosen = np.zeros(len(self.clot), bool)
        chosen[order[first]] = True
        drawn: NDArray[np.bool_] = chosen[self.of_tile]
        return drawn


def find_sections(
    bag: Integers, clot: NDArray[np.integer[Any]], section: NDArray[np.integer[Any]]
) -> Sections:
    """The sections present in some bags, from the bag, clot and section of each tile, all ``(T,)``."""
    keys = np.stack([bag, clot, section], axis=1).astype(np.int64)
    found, of_tile = np.unique(keys, axis=0, return_inverse=True)
    new = np.any(np.diff(found[:, :2], axis=0, prepend=found[:1, :2]), axis=1)
    return Sections(of_tile.reshape(-1), np.cumsum(new))


@dataclass(frozen=True)
class TileBags(Dataset[tuple[NDArray[np.uint8], int]]):
    """A map from (epoch, sample) to augmented tiles, a function of the epoch, the image and its turn alone.

    ids, turns: the image of each sample ``(n,)``, and the right angles that it is turned by.
    """

    folder: Path
    ids: Ids
    turns: Integers
    size: int
    bag: int
    strength: float
    seed: int
    purpose: str

    def __getitem__(self, key: tuple[int, int]) -> tuple[NDArray[np.uint8], int]:
        """The tiles ``(T, H, W, 3)`` drawn for a sample in an epoch, and the sample's number."""
        epoch, n = key
        image, turn = self.ids[n], int(self.turns[n])
        sample = (epoch, image, turn) if turn else (epoch, image)
        content = store.read(store.path_of(self.folder, "train", image))
        chosen = self._choose(content, sample)[: self.bag].tolist()
        tiles = resize(content.decode(chosen), self.size)
        tiles = np.ascontiguousarray(np.rot90(tiles, turn, axes=(1, 2)))
        transform = augment.make(self.strength)
        return augment.apply(transform, tiles, self.seed, self.purpose, *sample), n

    def _choose(self, content: store.Tiles, sample: tuple[object, ...]) -> Integers:
        """The tiles of one section a clot, in a drawn order."""
        order = seeds.rng(self.seed, self.purpose, "bag", *sample).permutation(len(content))
        sections = find_sections(np.zeros(len(content), np.int64), content.clot, content.section)
        # A draw of its own: where no clot repeats, the tiles are those of the order alone.
        kept = sections.draw(seeds.rng(self.seed, self.purpose, "section", *sample))
        return order[kept[order]]


@dataclass(frozen=True)
class Epochs:
    """A batch sampler over several epochs: batches of (epoch, sample number)."""

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
    """Bags end to end, and the number of each bag's sample; as one section stands for a clot, all weigh 1."""
    tiles = torch.from_numpy(np.concatenate([tiles for tiles, _ in samples])).permute(0, 3, 1, 2)
    bag = torch.repeat_interleave(
        torch.arange(len(samples)), torch.tensor([len(tiles) for tiles, _ in samples])
    )
    packed = Packed(tiles.contiguous(), bag, torch.ones(len(tiles)), len(samples))
    return packed, torch.tensor([n for _, n in samples])


def loader(bags: TileBags, sampler: Epochs, workers: int) -> Iterable[tuple[Packed, Tensor]]:
    """Batches of all epochs, read by ``workers`` processes (none: in this one)."""
    return DataLoader(bags, batch_sampler=sampler, num_workers=workers, collate_fn=pack)
