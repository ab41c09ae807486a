"""Inner cross-validation: what a method's own settings are chosen on, inside its training rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kit import seeds
from kit.metrics import CLIP, Array

Labels = NDArray[np.int64]
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))  # the constants of splitmix64


def inner_folds(
    labels: Labels, groups: ArrayLike, k: int, seed: int = 0, weight: Array | None = None
) -> Labels:
    """Folds ``(n,)`` from 0 to k - 1 in which no group is split and classes are spread.

    Groups are sorted by the rarest class they hold, then by size, largest first, and dealt to and fro;
    ties are shuffled. So of groups of one row each, every class is spread as evenly as ``k`` divides it,
    and so are all rows. The folds depend on the names of the groups and not on the order of the rows;
    of fewer than ``k`` groups, some folds are empty.

    Args:
        labels: class of each row ``(n,)``.
        groups: name of each row's group ``(n,)``.
        weight: how often each row counts ``(n,)``.

    >>> inner_folds(np.array([0, 0, 1, 1, 0, 0]), ["a", "b", "c", "d", "e", "e"], k=2, seed=0).tolist()
    [1, 1, 0, 1, 0, 0]
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    rarity = np.argsort(np.argsort(np.bincount(labels, weight), kind="stable"))
    kind = np.full(len(names), len(rarity))
    np.minimum.at(kind, group, rarity[labels])
    size = np.bincount(group, weight)
    size = np.round(size / size.sum() * 1e9)  # a sum in another order must not change who comes first
    order = np.lexsort((seeds.rng(seed, "inner folds", k, len(names)).permutation(len(names)), -size, kind))
    count = np.bincount(kind, minlength=len(rarity))
    turn, seat = np.divmod(np.arange(len(names)) - np.repeat(np.cumsum(count) - count, count), k)
    fold = np.empty(len(names), dtype=np.int64)
    fold[order] = (np.where(turn % 2, k - 1 - seat, seat) + np.repeat(_first_folds(count, k), count)) % k
    return np.asarray(fold[group])


def _first_folds(count: Labels, k: int) -> Labels:
    """The fold at which to begin to deal each class, so that all classes' odd groups make one round."""
    low = high = 0  # the folds from low to high, counted round the table, have a group more than the others
    first = np.zeros(len(count), dtype=np.int64)
    for kind, (turns, odd) in enumerate(zip(*np.divmod(count, k), strict=True)):
        first[kind] = low if turns % 2 else high
        low, high = (low - odd, high) if turns % 2 else (low, high + odd)
    return first


def names_by_content(values: Array, labels: Labels, weight: Array) -> Labels:
    """A name ``(n,)`` for each row from what it holds, for rows that have no group.

    Sorted by a hash of values, label and weight, the rows are numbered from 0: another order of the same
    rows gives each the same number, up to rows that are alike.
    """
    mixed = np.zeros(len(labels), dtype=np.uint64)
    for column in (*values.reshape(len(labels), -1).T, labels, weight):
        bits = np.ascontiguousarray(column, dtype=np.float64).view(np.uint64)
        mixed = (mixed ^ bits) * MIX[0]
        mixed = (mixed ^ (mixed >> np.uint64(29))) * MIX[1]
    names = np.empty(len(labels), dtype=np.int64)
    names[np.argsort(mixed, kind="stable")] = np.arange(len(labels))
    return names


def held_out_losses(
    folds: Labels,
    labels: Labels,
    weight: Array,
    path: Callable[[NDArray[np.bool_]], Sequence[Array]],
) -> Array:
    """The log loss in nats ``(S,)`` of S settings on rows that their fits have not seen.

    Args:
        folds: of each row ``(n,)``; with all rows in one fold nothing can be held out: the losses are 0.
        path: fits every setting on the rows where its argument ``(n,)`` is true; returns their
            probabilities of the other rows, ``(rows, K)`` a setting.
    """
    total = np.zeros(1)
    present = np.unique(folds)
    for fold in present if len(present) > 1 else ():
        held = folds == fold
        true = np.stack([p[np.arange(len(p)), labels[held]] for p in path(~held)])
        total = total - np.log(np.maximum(true, CLIP)) @ weight[held]
    return total


def inner_count(labels: Labels, groups: NDArray[np.int64], most: int = 5) -> int:
    """``most`` folds, or as many as the rarest class has groups; two at least."""
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    return int(np.clip(np.bincount(pairs[0]).min(), 2, most))
