"""The held-out set: balanced over classes, spread over sites, matched in images, drawn before the folds."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit import seeds
from kit.competition import FoldPlan
from kit.dealing import group_counts

DRAWS, CANDIDATES = 32, 2000  # greedy draws of whole groups, and the groups looked at in one
log = logging.getLogger("kit")


def draw_holdout(units: pd.DataFrame, plan: FoldPlan, seed: int) -> set[str]:
    """The groups of the balanced held-out set; it depends on neither the scheme nor ``k``.

    Each class gives min(plan.holdout, plan.holdout_share of the rarest class) units, spread over sites by
    largest remainder without emptying a site x class cell; units without a site are a site of their own.
    Within a cell, units are taken so that images a unit are distributed as in the whole class. Where
    groups hold several units, whole groups are taken, and the counts come as near as groups allow. A
    group with more than plan.holdout_share of all units or images is never taken.

    Args:
        units: indexed by unit_id, with group_id, site, label and images.
    """
    rarest = units["label"].value_counts()
    wanted = min(plan.holdout, int(plan.holdout_share * rarest.min()))
    if wanted == 0:
        log.warning("no held-out set: the rarest class has only %d units", rarest.min())
        return set()
    size = units.groupby("group_id")["images"].agg(["size", "sum"])
    giant = size.index[(size > plan.holdout_share * size.sum()).any(axis=1)]
    pool = units[~units["group_id"].isin(giant)]
    single = pool[~pool["group_id"].duplicated(keep=False)]
    enough = single["label"].value_counts().reindex(rarest.index, fill_value=0).min() > 2 * wanted
    if enough or 0 < len(single) == len(pool):
        return _holdout_of_units(single, wanted, seed)
    held = _holdout_of_groups(pool, wanted, plan.holdout_share, seed) if len(pool) else set()
    if not held:
        log.warning("no held-out set: there are too few groups of several units to hold one out")
    return held


def _holdout_of_units(units: pd.DataFrame, wanted: int, seed: int) -> set[str]:
    """Exactly ``wanted`` units a class, allocated to sites by largest remainder."""
    held: set[str] = set()
    for _, mine in units.groupby("label"):
        # Each unit has a draw of its own, so that a row more or less changes hardly anybody's place.
        mine = mine.iloc[np.argsort([seeds.number(seed, "holdout", unit) for unit in mine.index])]
        stratum = image_strata(mine["images"].to_numpy(), wanted)
        due = np.bincount(stratum) * wanted / len(mine)
        have = np.zeros(len(due))
        seats = largest_remainder(mine["site"].value_counts().sort_index(), min(wanted, len(mine)))
        # Small sites choose first: large ones have units of every stratum, and make up for them.
        for site in sorted(seats, key=lambda name: (seats[name], name)):
            pool = np.flatnonzero(mine["site"] == site).tolist()
            for _ in range(seats[site]):
                # Sainte-Lague: the strata are near their due after every seat, not only after the last.
                best = max(pool, key=lambda n: due[stratum[n]] / (have[stratum[n]] + 0.5))
                have[stratum[best]] += 1
                pool.remove(best)
                held.add(str(mine["group_id"].iloc[best]))
    return held


def image_strata(images: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """The stratum of each unit by its number of images: each is due half a seat of ``wanted`` or more.

    >>> image_strata(np.array([1, 1, 1, 1, 1, 1, 2, 2, 3, 5]), 2)
    array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    """
    values, counts = np.unique(-images, return_counts=True)  # many images first
    place = {}
    stratum, due = 0, 0.0
    for value, count in zip(values, counts * wanted / len(images), strict=True):
        if due >= 0.5:
            stratum, due = stratum + 1, 0.0
        place[value], due = stratum, due + count
    return np.array([place[-n] for n in images])


def largest_remainder(sizes: pd.Series[int], wanted: int) -> dict[str, int]:
    """Share ``wanted`` seats in proportion to ``sizes``, never emptying a cell while others can give.

    >>> largest_remainder(pd.Series({"a": 6, "b": 3, "c": 1}), 5)
    {'a': 3, 'b': 2, 'c': 0}
    """
    have = sizes.to_numpy()
    exact = have / have.sum() * wanted
    seats = np.minimum(np.floor(exact), np.maximum(have - 1, 0)).astype(int)
    while seats.sum() < wanted:
        room = seats < have - 1
        room = room if room.any() else seats < have
        seats[np.argmax(np.where(room, exact - seats, -np.inf))] += 1
    return {str(site): int(n) for site, n in zip(sizes.index, seats, strict=True)}


def _holdout_of_groups(units: pd.DataFrame, wanted: int, share: float, seed: int) -> set[str]:
    """Whole groups whose counts come nearest to ``wanted`` a class: the best of several greedy draws.

    At most ``share`` of a class's groups are taken, but one, and at least three are left for the folds.
    """
    names, counts, label = group_counts(units, sites=True)
    total = counts.sum(axis=0)
    target = np.zeros(len(total))
    for n in range(label.max() + 1):
        mine = np.flatnonzero(label == n)
        target[mine] = list(largest_remainder(pd.Series(total[mine]), wanted).values())
    one_hot = np.eye(label.max() + 1)[label]
    groups = ((counts @ one_hot) > 0).sum(axis=0)
    most = np.minimum(np.maximum(np.floor(share * groups), 1), groups - 3)
    best: tuple[float, list[int]] = (np.inf, [])
    for attempt in range(DRAWS):
        order = seeds.rng(seed, "holdout groups", attempt).permutation(len(counts))[:CANDIDATES]
        miss, chosen = _fill(counts[order], one_hot, target, total, most)
        if miss < best[0]:
            best = (miss, [int(order[n]) for n in chosen])
    return {names[n] for n in best[1]}


def _fill(
    counts: NDArray[np.int32],
    one_hot: NDArray[np.float64],
    target: NDArray[np.float64],
    total: NDArray[np.int64],
    most: NDArray[np.float64],
) -> tuple[float, list[int]]:
    """Take groups in turn while they bring the counts nearer to ``target``; how far they stay, and which.

    No group empties a cell of ``total``, and ``most`` groups of a class are taken. The miss of a class
    counts ten times that of a cell.
    """
    have, groups = np.zeros(len(total)), np.zeros(len(most))

    def missing(now: NDArray[np.float64]) -> float:
        off = now - target
        return float(np.abs(off @ one_hot).sum() + 0.1 * np.abs(off).sum())

    miss, chosen = missing(have), []
    for n, mine in enumerate(counts):
        classes = mine @ one_hot > 0
        if ((have + mine >= total) & (mine > 0)).any() or (groups + classes > most).any():
            continue
        if (after := missing(have + mine)) < miss:
            have, groups, miss = have + mine, groups + classes, after
            chosen.append(n)
    return miss, chosen
