"""Stored tiles as samples: which images a fold learns from, and the batches of every epoch.

Serial sections of one clot repeat it: an epoch of training shows one of them, drawn anew each time, and
predictions weigh the tiles of all of them (see ``kit.learn.predict``).

Every draw is a function of the seed, the fit's purpose, the epoch and the sample: batches are the same for
any number of loader workers, and from any epoch and step on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from kit.learn import augment, pixels, preprocess
from kit.learn.bags import Packed
from kit.learn.models import Model
from kit.learn.pixels import Bag, Pixels
from kit.learn.weights import find_weights
from kit.read.tiles import load_images
from kit.state import Run

Ids = NDArray[np.object_]
Integers = NDArray[np.int64]
Tiles = NDArray[np.uint8]
MOST_TURNS = 3  # a fourth right angle is the image itself
AHEAD = 4  # batches that each worker makes before they are asked for


def ids_with_tiles(run: Run, split: str) -> Ids:
    """The images of a split that have tiles, sorted."""
    images = load_images(run)
    mine = images[(images["split"] == split) & (images["tiles"] > 0)]
    return np.array(sorted(mine["image_id"]), dtype=object)


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
        images: the images to learn from, with y; one without a label, of y = -1, has no copies.
        copies: turned copies of an image, by class ``(K,)``.

    This device for class balance (one turned copy of a CE image, three of an LAA image) changes the class
    shares that a model learns, and so what it says of every image; the bias that the second level fits
    on the out-of-fold rows, of which none is a copy, moves them back. More shown is not more known.
    """
    # y = -1 takes the last place.
    times = 1 + np.append(copies, 0)[images["y"].to_numpy(dtype=np.int64)]
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


def kept_counts(draw: np.random.Generator, counts: Integers, share: float) -> Integers:
    """How many tiles of bags that drew so many are kept ``(B,)``, where each is left out with ``share``.

    They lie in a drawn order, so that keeping the first ones leaves out any. One is always kept.
    """
    if not share:
        return counts
    return np.maximum(draw.binomial(counts, 1 - share), 1)


def quotas(labels: Integers, most: float, least: int = 0) -> dict[int, int]:
    """How many samples of each class an epoch shows, by class; -1 stands for those without a label.

    Args:
        labels: the class of every sample ``(n,)``.
        most: samples of a class for each of the rarest; 0: all. Every class keeps at least one.
        least: samples of a class, at least: those of one that has fewer are shown again.
    """
    classes, counts = np.unique(labels, return_counts=True)
    known = counts[classes >= 0]
    if most and len(known):
        counts = np.minimum(counts, max(1, int(most * known.min())))
    counts = np.where(classes >= 0, np.maximum(counts, least), counts)
    return dict(zip(classes.tolist(), counts.tolist(), strict=True))


def epoch_order(
    labels: Integers, most: float, seed: int, purpose: str, epoch: int, least: int = 0
) -> Integers:
    """The samples of an epoch in the order in which they are shown: others of the frequent classes each time.

    Sample ``n`` shown for the ``r``-th time again is ``n + r * len(labels)``; see `apart`. Undersampling and
    showing again change the class shares that a model learns, as turned copies do.

    Args:
        most, least: see `quotas`.
    """
    order = seeds.rng(seed, purpose, "order", epoch).permutation(len(labels))
    if not (most or least):
        return order
    mine, again = labels[order], list[Integers]()
    shown = np.zeros(len(order), bool)
    for label, count in quotas(labels, most, least).items():
        places = np.flatnonzero(mine == label)
        shown[places[:count]] = True
        for turn, first in enumerate(range(len(places), count, len(places)), start=1):
            again.append(order[places[: count - first]] + turn * len(labels))
    if not again:
        return order[shown]
    return seeds.rng(seed, purpose, "again", epoch).permutation(np.concatenate([order[shown], *again]))


def apart(shown: int, samples: int) -> tuple[int, int]:
    """Which sample is shown, and how often it was shown before in this epoch.

    >>> apart(12, 5)
    (2, 2)
    """
    again, n = divmod(shown, samples)
    return n, again


@dataclass(frozen=True)
class TileBags(Dataset[tuple[Tiles, int]]):
    """A map from (epoch, sample) to augmented tiles, a function of the epoch, the image and its turn alone.

    A sample that is shown again (see `epoch_order`) has other tiles and another augmentation each time.

    pixels: the tiles of each split. ids, splits, turns: the image of each sample ``(n,)``, the split that it
    is of, and the right angles that it is turned by. bag, drop: tiles drawn, and the share left out again.
    """

    pixels: Mapping[str, Pixels]
    ids: Ids
    splits: Ids
    turns: Integers
    bag: int
    drop: float
    strength: float
    preset: str
    seed: int
    purpose: str

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tiles, int]:
        """The tiles ``(T, H, W, 3)`` drawn for a sample in an epoch, and the sample's number."""
        epoch, (n, again) = key[0], apart(key[1], len(self.ids))
        image, turn = self.ids[n], int(self.turns[n])
        sample: tuple[object, ...] = (epoch, image, turn) if turn else (epoch, image)
        sample = (*sample, "again", again) if again else sample
        content = self.pixels[self.splits[n]].bag(image)
        tiles = content.read(self._choose(content, sample).tolist())
        tiles = np.ascontiguousarray(np.rot90(tiles, turn, axes=(1, 2)))
        transform = augment.make(self.strength, self.preset)
        return augment.apply(transform, tiles, self.seed, self.purpose, *sample), n

    def _choose(self, content: Bag, sample: tuple[object, ...]) -> Integers:
        """Some tiles, of one section a clot, in a drawn order."""
        order = seeds.rng(self.seed, self.purpose, "bag", *sample).permutation(len(content))
        if content.repeats:
            sections = find_sections(np.zeros(len(content), np.int64), content.clot, content.section)
            # A draw of its own: where no clot repeats, the tiles are those of the order alone.
            order = order[sections.draw(seeds.rng(self.seed, self.purpose, "section", *sample))[order]]
        drawn = order[: self.bag]
        draw = seeds.rng(self.seed, self.purpose, "drop", *sample)
        return drawn[: int(kept_counts(draw, np.array([len(drawn)]), self.drop)[0])]


def tile_bags(run: Run, model: Model, samples: pd.DataFrame, purpose: str) -> TileBags:
    """The bags of a fit's samples, with the pixels that the model's encoder wants, decoded once.

    Args:
        samples: by image_id, with turn and role; those of role ``extra`` are of the split of that name.

    Raises:
        WeightsError: the pretrained weights are not there.
        StageError: a tile is damaged.
    """
    backbone, training = model.backbone, model.training
    how = preprocess.of(backbone.encoder, find_weights(backbone, run.weights)).interpolation
    splits = np.where(samples["role"].to_numpy() == "extra", "extra", "train").astype(object)
    return TileBags(
        {
            split: pixels.of(run, split, ids_with_tiles(run, split), backbone.size, how)
            for split in sorted(set(splits))
        },
        samples.index.to_numpy(dtype=object),
        splits,
        samples["turn"].to_numpy(dtype=np.int64),
        training.bag,
        training.bag_drop,
        training.augment,
        training.preset,
        run.seed,
        purpose,
    )


@dataclass(frozen=True)
class Epochs:
    """A batch sampler over several epochs: batches of (epoch, sample number).

    labels: the class of every sample ``(n,)``, -1 without one. batch: bags a step, about. first, last: the
    epochs; the last is not shown. undersample, oversample: see `quotas`. step: steps of the first epoch to
    leave out.
    """

    labels: Integers
    batch: int
    first: int
    last: int
    seed: int
    purpose: str
    undersample: float = 0.0
    step: int = 0
    oversample: int = 0

    @property
    def steps(self) -> int:
        """Batches of a whole epoch; of all epochs the same number."""
        shown = sum(quotas(self.labels, self.undersample, self.oversample).values())
        return len(split_batches(np.arange(shown), self.batch))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Every epoch in an order of its own."""
        for epoch in range(self.first, self.last):
            order = epoch_order(
                self.labels, self.undersample, self.seed, self.purpose, epoch, self.oversample
            )
            for part in split_batches(order, self.batch)[self.step if epoch == self.first else 0 :]:
                yield [(epoch, int(n)) for n in part]


def split_batches(order: NDArray[np.int64], batch: int) -> list[NDArray[np.int64]]:
    """Batches of nearly equal size: a last batch of one image would spoil batch norm.

    >>> [len(part) for part in split_batches(np.arange(9), 4)]
    [5, 4]
    """
    return list(np.array_split(order, max(1, len(order) // batch)))


def pack(samples: list[tuple[Tiles, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Tiles ``(T, 3, H, W)`` of bags end to end, how many each has, and the number of each bag's sample.

    They stay channels-last in memory, as networks want them.
    """
    tiles = torch.from_numpy(np.concatenate([tiles for tiles, _ in samples])).permute(0, 3, 1, 2)
    counts, numbers = zip(*((len(tiles), n) for tiles, n in samples), strict=True)
    return tiles, torch.tensor(counts), torch.tensor(numbers)


def loader(bags: TileBags, sampler: Epochs, workers: int) -> Iterator[tuple[Packed, Tensor]]:
    """Batches of all epochs, with the samples' numbers, read by ``workers`` processes (0: in this one).

    All tiles weigh 1: one section stands for a clot.
    """
    more: dict[str, Any] = {"prefetch_factor": AHEAD, "worker_init_fn": _start_worker} if workers else {}
    batches = DataLoader(
        bags,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=pack,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its draws, of which none is used, are not taken from torch's own
        **more,
    )
    for tiles, counts, numbers in batches:
        names = tuple(str(bags.ids[n]) for n in numbers.tolist())
        bag = torch.repeat_interleave(torch.arange(len(counts)), counts)
        yield Packed(tiles, bag, torch.ones(len(tiles)), len(counts), names), numbers


def _start_worker(number: int) -> None:
    """One thread a worker: there are as many workers as cores are to be used."""
    cv2.setNumThreads(0)
