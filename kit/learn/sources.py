"""Where the batches of a fit come from: stored embeddings of the frozen mode, or tiles.

Both show, of every bag and in every epoch, some of the tiles of one section of each clot, drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from kit import seeds
from kit.learn import embed, pooling, ranks, views
from kit.learn.bags import BagModel, Mix, Packed
from kit.learn.dataset import (
    Epochs,
    epoch_order,
    find_sections,
    kept_counts,
    loader,
    quotas,
    ranges,
    split_batches,
    tile_bags,
)
from kit.learn.embed import Embedded
from kit.learn.fit import Fit

PASSES = 16  # steps of a frozen epoch, at most: larger sets take larger steps, not more of them
Integers = NDArray[np.int64]
Floats = NDArray[np.float32]
Batch = tuple[Packed, Tensor]  # bags, and the number of the sample (or the class) of each


def whole(network: BagModel, packed: Packed, mix: Mix | None) -> Tensor:
    """Logits ``(B, K)`` of bags of tiles."""
    logits: Tensor = network(packed, mix)
    return logits


@dataclass(frozen=True)
class Source:
    """Where a fit's batches come from.

    sizes: bags of each step of an epoch.
    y: the class of each sample ``(n,)``; -1 for an image without a label.
    batches: those from an epoch and step on, up to the last epoch.
    logits: how a network reads them.
    judged: the bags that measure an epoch, with their classes; ``None`` where nothing is set aside.
    shared: whether processes that were started together each get their share of a batch.
    """

    sizes: list[int]
    y: Tensor
    batches: Callable[[int, int], Iterator[Batch]]
    logits: Callable[[BagModel, Packed, Mix | None], Tensor] = whole
    judged: Callable[[], Iterator[Batch]] | None = None
    shared: bool = False

    def bags(self, epoch: int) -> Iterator[Packed]:
        """All bags of one epoch."""
        for packed, _ in islice(self.batches(epoch, 0), len(self.sizes)):
            yield packed

    def shown(self, undersample: float, oversample: int = 0) -> Tensor:
        """The class of every bag of an epoch ``(m,)``, in no order; copies count, too."""
        if not (undersample or oversample):
            return self.y
        found = quotas(self.y.numpy(), undersample, oversample)
        return torch.repeat_interleave(torch.tensor(list(found)), torch.tensor(list(found.values())))


@dataclass(frozen=True)
class Table:
    """Standardised embeddings of the tiles of a fit, in blocks of one row a tile.

    rows: ``(blocks * T, D)``. mean: the block of the mean view, by the angle that a sample is turned by.
    axes: the blocks of the single views of such a sample; none where only means are shown.
    """

    rows: Tensor
    tiles: int
    mean: Mapping[int, int]
    axes: Mapping[int, tuple[int, ...]]

    def place(self, tile: Integers, turn: Integers, view: Integers) -> Tensor:
        """The row that each tile ``(m,)`` shows: one of its views, or their mean (-1)."""
        found = np.empty(len(tile), np.int64)
        for angle in self.mean:
            blocks = np.array([*self.axes[angle], self.mean[angle]])  # the last one is at -1
            mine = turn == angle
            found[mine] = blocks[view[mine]] * self.tiles + tile[mine]
        return torch.from_numpy(found)


def tabled(stored: Embedded, mean: Floats, network: BagModel, angles: list[int], single: bool) -> Table:
    """The rows that samples turned by these angles show; single views too, or means alone.

    ``mean`` are the mean features ``(T, D)`` of tiles that are not turned.
    """
    tiles, count, width = stored.features.shape
    cosets = {angle: views.coset(stored.views, angle) for angle in angles}
    axes = {a: tuple(stored.symmetries.index(number) for number in coset) for a, coset in cosets.items()}
    means = {coset: angle for angle, coset in reversed(cosets.items())}  # the least angle of each
    first = count if single else 0
    rows = np.empty((first + len(means), tiles, width), np.float32)
    center, spread = network.center.numpy(), network.spread.numpy()
    blocks = [stored.features[:, n] for n in range(first)]
    blocks += [mean if angle == 0 else stored.mean_features(angle) for angle in means.values()]
    for row, block in zip(rows, blocks, strict=True):
        np.subtract(block, center, out=row)
        row /= spread
    place = {coset: first + n for n, coset in enumerate(means)}
    found = {angle: place[coset] for angle, coset in cosets.items()}
    return Table(
        torch.from_numpy(rows.reshape(-1, width)), tiles, found, axes if single else dict.fromkeys(axes, ())
    )


def of_embeddings(network: BagModel, packed: Packed, mix: Mix | None) -> Tensor:
    """Logits ``(B, K)`` of bags of standardised embeddings; of one row a bag, the row is the mean."""
    if not isinstance(network.pool, pooling.MeanPool) or len(packed.tiles) != packed.bags:
        return network.classify(packed.tiles, packed, mix)
    vectors = packed.tiles
    if mix is not None:
        vectors = torch.lerp(vectors[mix.partner], vectors, mix.share[:, None])
    logits: Tensor = network.head(network.drop(vectors))
    return logits


def embedded(fit: Fit, judged: pd.DataFrame | None, known: Embedded | None = None) -> tuple[BagModel, Source]:
    """A head to fit and the embeddings that it learns from; ``judged`` are images that are set aside.

    ``known`` stands in for the embeddings of the run.
    """
    stored = _stored(fit) if known is None else known
    # The labelled images come first: only they say what is standard.
    mine = stored.take(fit.samples.index.unique().to_numpy(dtype=object))
    mean = mine.mean_features()
    network = embed.new_head(fit.run, fit.model, mean[: int(mine.counts[: len(fit.images)].sum())])
    angles = sorted(set(fit.samples["turn"].tolist()))
    table = tabled(mine, mean, network, angles, fit.training.augment > 0)
    y = fit.samples["y"].to_numpy(dtype=np.int64, copy=True)
    count = sum(quotas(y, fit.training.undersample, fit.training.oversample).values())
    batch = max(fit.training.batch, -(-count // PASSES))
    sizes = [len(part) for part in split_batches(np.arange(count), batch)]
    aside = None
    if judged is not None:
        aside = _all_tiles(stored.take(judged.index.to_numpy(dtype=object)), network, judged)
    drawn = Drawn(fit, mine, table, batch)
    judge = None if aside is None else lambda: iter([aside])
    return network, Source(sizes, torch.from_numpy(y), drawn.batches, of_embeddings, judge)


def _stored(fit: Fit) -> Embedded:
    """The embeddings of the training images and, where they are shown, of those without a label."""
    stored = embed.stored(fit.run, fit.model)
    if not (fit.samples["role"] == "extra").any():
        return stored
    parts = stored, embed.stored(fit.run, fit.model, "extra")
    axes = [parts[1].symmetries.index(number) for number in stored.symmetries]
    names = ("ids", "counts", "section", "clot", "weight")
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    features = np.concatenate([stored.features, parts[1].features[:, axes]])
    return replace(stored, features=features, **joined)


def tiles(fit: Fit, judged: pd.DataFrame | None) -> Source:
    """The tiles that a whole network learns from; ``judged`` are images that are set aside."""
    training, seed = fit.training, fit.run.seed
    y = fit.samples["y"].to_numpy(dtype=np.int64, copy=True)
    bags = tile_bags(fit.run, fit.model, fit.samples, fit.purpose)
    unit = 2 if training.mixup else 1

    def batches(epoch: int, step: int) -> Iterator[Batch]:
        last, most, least = fit.model.epochs, training.undersample, training.oversample
        order = Mine(y, training.batch, epoch, last, seed, fit.purpose, most, step, least, unit)
        return loader(bags, order, fit.run.workers)

    count = sum(quotas(y, training.undersample, training.oversample).values())
    sizes = [len(part) for part in split_batches(np.arange(count), training.batch)]
    judge = None if judged is None else lambda: _plain(fit, judged)
    return Source(sizes, torch.from_numpy(y), batches, judged=judge, shared=True)


def _plain(fit: Fit, images: pd.DataFrame) -> Iterator[Batch]:
    """Bags of images as they are, the same ones each time, and their classes."""
    model, purpose = fit.model.having({"augment": 0.0, "bag_drop": 0.0}), f"{fit.purpose} inner"
    y = images["y"].to_numpy(dtype=np.int64, copy=True)
    bags = tile_bags(fit.run, model, images.assign(turn=0), purpose)
    order = Epochs(y, fit.training.batch, 0, 1, fit.run.seed, purpose)
    return ((packed, torch.from_numpy(y)[rows]) for packed, rows in loader(bags, order, fit.run.workers))


@dataclass(frozen=True)
class Mine(Epochs):
    """The same batches, of which only this process's share is read; one bag where it has none.

    unit: neighbours that stay together.
    """

    unit: int = 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """This process's share of every batch."""
        for whole in super().__iter__():
            if ranks.active():
                first, end = ranks.span(len(whole), self.unit)
                yield whole[first:end] or whole[:1]
            else:
                yield whole


def _all_tiles(stored: Embedded, network: BagModel, images: pd.DataFrame) -> Batch:
    """All tiles of some images, by their weights, as they are predicted from; and the classes."""
    rows = (stored.mean_features() - network.center.numpy()) / network.spread.numpy()
    bag = torch.from_numpy(np.repeat(np.arange(len(images)), stored.counts))
    packed = Packed(torch.from_numpy(rows), bag, torch.from_numpy(stored.weight), len(images))
    return packed, torch.from_numpy(images["y"].to_numpy(dtype=np.int64, copy=True))


class Drawn:
    """What the epochs of a frozen fit show."""

    def __init__(self, fit: Fit, stored: Embedded, table: Table, batch: int) -> None:
        self.fit, self.table, self.batch = fit, table, batch
        rows = stored.rows(fit.samples.index)
        sizes = stored.counts[rows]  # of the bags of the samples, whose tiles lie end to end
        self.samples, self.views = len(rows), stored.views
        self.labels = fit.samples["y"].to_numpy(dtype=np.int64)
        self.start = np.cumsum(sizes) - sizes
        self.owner = np.repeat(np.arange(len(rows)), sizes)
        self.turn = fit.samples["turn"].to_numpy()[self.owner]
        self.tile = ranges((np.cumsum(stored.counts) - stored.counts)[rows], sizes)
        self.sections = find_sections(self.owner, stored.clot[self.tile], stored.section[self.tile])
        self.single = bool((sizes == 1).all())
        self.pools = fit.training.pool == "mean"

    def batches(self, epoch: int, step: int) -> Iterator[Batch]:
        """Those from an epoch and step on."""
        for now in range(epoch, self.fit.model.epochs):
            yield from self._epoch(now, step if now == epoch else 0)

    def _epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        training, seed, purpose = self.fit.training, self.fit.run.seed, self.fit.purpose
        shown = epoch_order(self.labels, training.undersample, seed, purpose, epoch, training.oversample)
        # Samples that are shown again lie behind all of those that are shown once: see `epoch_order`.
        ids = np.sort(shown)
        place, counts = self._placed(epoch, ids)
        start = np.cumsum(counts) - counts
        for mine in split_batches(shown, self.batch)[first:]:
            at = np.searchsorted(ids, mine)
            chosen = torch.from_numpy(ranges(start[at], counts[at]))
            yield self._pack(place[chosen], counts[at]), torch.from_numpy(mine % self.samples)

    def _placed(self, epoch: int, ids: Integers) -> tuple[Tensor, Integers]:
        """The rows of the tiles that are shown of these samples, end to end, and how many of each.

        Only they are kept: a rare class that is shown a hundred times is not a hundred sets of all rows.
        """
        found, sizes = [], []
        for again in range(1 + int(ids[-1]) // self.samples):
            place, counts = self._drawn(epoch, again)
            mine = ids[ids // self.samples == again] % self.samples
            found.append(place[torch.from_numpy(ranges(self.start[mine], counts[mine]))])
            sizes.append(counts[mine])
        return torch.cat(found), np.concatenate(sizes)

    def _drawn(self, epoch: int, again: int) -> tuple[Tensor, Integers]:
        """The rows of the tiles of every bag in a drawn order, and how many of them are shown."""
        key = (epoch, again) if again else (epoch,)
        draw = seeds.rng(self.fit.run.seed, self.fit.purpose, "epoch", *key)
        order, counts = self._choose(draw, key)
        view = views.draw(draw, len(self.owner), self.views, self.fit.training.augment)
        return self.table.place(self.tile, self.turn, view)[torch.from_numpy(order)], counts

    def _choose(self, draw: np.random.Generator, key: tuple[int, ...]) -> tuple[Integers, Integers]:
        """The tiles of every bag in a drawn order, and how many of them are shown."""
        training = self.fit.training
        if self.single:
            return np.arange(self.samples), np.ones(self.samples, np.int64)
        kept = self.sections.draw(seeds.rng(self.fit.run.seed, self.fit.purpose, "section", *key))
        # Sorting random keys within each bag draws tiles without replacement, for all bags at once; the
        # tiles of sections that were not drawn come last.
        order = np.lexsort((draw.random(len(self.owner)) + ~kept, self.owner))
        counts = np.minimum(np.bincount(self.owner[kept], minlength=self.samples), training.bag)
        return order, kept_counts(draw, counts, training.bag_drop)

    def _pack(self, place: Tensor, counts: Integers) -> Packed:
        """Bags of rows; where the pool is the mean, of their mean, which is what it will be."""
        bags = len(counts)
        if len(place) == bags or self.pools:
            rows = self.table.rows[place] if len(place) == bags else self._means(place, counts)
            return Packed(rows, torch.arange(bags), torch.ones(bags), bags)
        bag = torch.from_numpy(np.repeat(np.arange(bags), counts))
        return Packed(self.table.rows[place], bag, torch.ones(len(place)), bags)

    def _means(self, place: Tensor, counts: Integers) -> Tensor:
        start = torch.from_numpy(np.cumsum(counts) - counts)
        return torch.nn.functional.embedding_bag(place, self.table.rows, start, mode="mean")
