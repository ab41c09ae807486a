"""Who is kept together, and which fold each group is dealt to.

Everything here is a function of the set of rows, the settings and the seed: the order of rows does not
matter, and ties are broken by seeded draws.
"""

from __future__ import annotations

import logging
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from kit import seeds
from kit.errors import DataError

# What a deviation from equal folds costs: class shares first, then fold size, then site x class cells.
LABEL, SIZE, CELL = 1.0, 0.1, 0.01
# Limits that keep large tables fast: candidates a side of one exchange, exchanges, and passes over all pairs.
SAMPLE, STEPS, PASSES = 128, 2000, 20
log = logging.getLogger("kit")


# --- what belongs together --------------------------------------------------------------------------


def components(train: pd.DataFrame, links: pd.DataFrame | None = None) -> pd.Series[str]:
    """The group of every image: images linked by a group, a hash or a cluster, however indirectly.

    Args:
        train: indexed by image_id, with group_id and, where known, ``hash``.
        links: image_id and cluster; images of one cluster are near-duplicates. An empty hash or cluster
            links nothing, and images outside ``train`` are passed over.

    Returns:
        The smallest group_id of its connected component, by image_id.

    >>> train = pd.DataFrame({"group_id": ["p1", "p2", "p3"]}, index=["a", "b", "c"])
    >>> components(train, pd.DataFrame({"image_id": ["b", "c"], "cluster": ["7", "7"]})).tolist()
    ['p1', 'p2', 'p2']
    """
    groups = train["group_id"]
    pairs = []
    if "hash" in train:
        pairs.append(pd.DataFrame({"group": groups, "other": train["hash"]}))
    if links is not None:
        known = links[links["image_id"].isin(train.index)]
        of_image = groups.reindex(known["image_id"]).to_numpy()
        pairs.append(pd.DataFrame({"group": of_image, "other": known["cluster"].to_numpy()}))
    found = groups
    for pair in pairs:
        # Each kind of link is followed over the groups that the kind before it has joined.
        joined = groups.to_frame("group").assign(now=found).drop_duplicates("group").set_index("group")["now"]
        name = linked(joined.loc[pair["group"]].to_numpy(), pair["other"].to_numpy())
        found = found.map(lambda group, name=name: name.get(group, group))
    return found.rename("group_id")


def linked(left: NDArray[np.object_], right: NDArray[np.object_]) -> dict[str, str]:
    """The smallest name that each name of ``left`` is joined with by equal cells of ``right``.

    Row n joins ``left[n]`` with ``right[n]``; an empty cell of ``right`` joins nothing.
    """
    told = right != ""
    rows, names = pd.factorize(left[told], sort=True)
    columns, others = pd.factorize(right[told])
    size = len(names) + len(others)
    graph = coo_matrix((np.ones(len(rows)), (rows, columns + len(names))), shape=(size, size))
    part = connected_components(graph, directed=False)[1][: len(names)]
    smallest = pd.Series(names).groupby(part).transform("first")  # names are sorted
    return dict(zip(names, smallest, strict=True))


# --- folds ------------------------------------------------------------------------------------------


def fold_count(units: pd.DataFrame, k: int, what: str = "group") -> int:
    """``k``, or fewer where a class has fewer groups (a message says so).

    Raises:
        DataError: a class has fewer than two.
    """
    groups = units.groupby("label")["group_id"].nunique()
    if len(groups) < 2 or groups.min() < 2:
        raise DataError(
            f"class {groups.idxmin()} has {groups.min()} {what}(s), and folds need two of each class",
            f"add labelled {what}s of this class, or lower fold.holdout",
        )
    if groups.min() < k:
        least, name = groups.min(), groups.idxmin()
        log.warning("only %d %ss of class %s: %d folds, not %d", least, what, name, least, k)
    return int(min(k, groups.min()))


def deal(units: pd.DataFrame, k: int, seed: int, sites: bool = True) -> dict[str, int]:
    """Deal whole groups into ``k`` folds of equal class and site x class composition.

    Groups of equal content (units of each site x class cell) are one kind. As many of a kind as ``k``
    divides are dealt evenly; the fewer than ``k`` that remain go to different folds, chosen to minimise

        sum over folds f of  1.00  sum over classes l of (n_fl - p_l n_f)^2 / (L p_l)
                           + 0.10  (n_f - n / k)^2
                           + 0.01  sum over cells c of (n_fc - n_c / k)^2 / (C p_c)

    with n units, a share p_l of them in class l (of L) and p_c in cell c (of C): class shares first, then
    fold sizes, then cells; a group larger than an even fold counts as one. Large kinds are placed first,
    each where the sum grows least; then moves and exchanges between two folds are made while one lowers
    the sum; then a fold that lacks a class is given a group that has it. Last, among groups of a kind,
    those with many images go to the folds with few.

    What it guarantees: no group is split; and where a group is one unit, as a patient is, every cell of
    n units has floor(n / k) or ceil(n / k) units in every fold, the least imbalance there can be. It differs
    from scikit-learn's ``StratifiedGroupKFold``, which knows no sites, places groups one by one and
    takes none back, and before version 1.8 did not stratify with ``shuffle=True``.

    On large tables the work is bounded: the number of kinds, not of groups, decides; an exchange is the
    best of at most 128 x 128 drawn candidates, and there are at most 2,000 of them.

    Args:
        units: one row a unit, with group_id, site, label and, where known, images (how many it has).
        sites: whether cells are site x class; without, sites are not looked at.

    Returns:
        The fold, 0 to k - 1, of each group.

    >>> labels = ["CE"] * 12 + ["LAA"] * 4
    >>> table = pd.DataFrame({"group_id": [f"p{n:02d}" for n in range(16)], "label": labels})
    >>> table["site"] = ["east", "west"] * 8
    >>> folds = table["group_id"].map(deal(table, 2, seed=0))
    >>> table.groupby(["site", "label", folds]).size().tolist()  # each cell halves exactly
    [3, 3, 1, 1, 3, 3, 1, 1]
    """
    names, counts, label = group_counts(units, sites)
    kind = kinds_of(counts)
    _, first, number = np.unique(kind, return_index=True, return_counts=True)
    kinds = capped(counts[first], number, k)
    extra = np.zeros((len(kinds), k), dtype=bool)
    open_kinds = np.flatnonzero(number % k)
    places = coordinates(kinds[open_kinds], number @ kinds, label)
    found = search(places, number[open_kinds] % k, kinds[open_kinds].sum(axis=1), k, seed)
    has = np.stack([(kinds[:, label == n] > 0).any(axis=1) for n in range(label.max() + 1)], axis=1)
    extra[open_kinds] = cover(found, places, has[open_kinds], np.any(has[number >= k], axis=0))
    images = units["images"] if "images" in units else pd.Series(1, units.index)
    weight = images.groupby(units["group_id"]).sum().sort_index().to_numpy().astype(np.int64)
    fold = _hand_out(kind, extra, weight, seed)
    return dict(zip(names, fold.tolist(), strict=True))


def group_counts(units: pd.DataFrame, sites: bool) -> tuple[list[str], NDArray[np.int32], NDArray[np.int64]]:
    """Group names in order, their units of each cell ``(groups, cells)``, and each cell's class number."""
    group, names = pd.factorize(units["group_id"], sort=True)
    label, labels = pd.factorize(units["label"], sort=True)
    site = pd.factorize(units["site"], sort=True)[0] if sites else np.zeros_like(label)
    known, cell = np.unique(site * len(labels) + label, return_inverse=True)
    counts = np.bincount(group * len(known) + cell, minlength=len(names) * len(known))
    return list(names), counts.reshape(len(names), len(known)).astype(np.int32), known % len(labels)


def kinds_of(counts: NDArray[np.int32]) -> NDArray[np.int64]:
    """The number of each row's kind; equal rows are one kind, and kinds are in the order of their rows.

    >>> kinds_of(np.array([[0, 2], [1, 0], [0, 2]], dtype=np.int32))
    array([0, 1, 0])
    """
    kind = np.zeros(len(counts), dtype=np.int64)
    for column in counts.T:  # many times faster than np.unique over rows
        kind = pd.factorize(kind * (int(column.max()) + 1) + column, sort=True)[0]
    return kind


def capped(kinds: NDArray[np.int32], number: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """The kinds ``(kinds, cells)``, where a group larger than an even fold is scaled down to one.

    Else a giant would set the class shares that the other folds are to have, and draw them all to its own.

    >>> capped(np.array([[1], [90]], dtype=np.int32), np.array([8, 1]), 3).ravel().tolist()
    [1.0, 4.0]
    """
    size = kinds.sum(axis=1)
    largest = np.sort(np.repeat(size, np.minimum(number, k)))[::-1][:k]
    even = rest = float(number @ size)
    for n, most in enumerate(largest):  # an even fold of the groups that are smaller than the n largest
        even = max(rest / (k - n), 1)
        if most <= even:
            break
        rest -= most
    found: NDArray[np.float64] = kinds * np.minimum(1, even / size)[:, None]
    return found


def coordinates(
    kinds: NDArray[np.float64], total: NDArray[np.float64], label: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Where each kind lies ``(kinds, classes + 1 + cells)``.

    The objective of :func:`deal` is the squared length of a fold's sum of coordinates, about the mean fold.
    """
    one_hot = np.eye(label.max() + 1)[label]
    share, cell_share = total @ one_hot / total.sum(), total / total.sum()
    by_label = (kinds @ one_hot - kinds.sum(axis=1, keepdims=True) * share) * (
        LABEL / len(share) / share
    ) ** 0.5
    by_cell = kinds * (CELL / len(total) / cell_share) ** 0.5
    return np.hstack([by_label, kinds.sum(axis=1, keepdims=True) * SIZE**0.5, by_cell])


def search(
    places: NDArray[np.float64], number: NDArray[np.int64], size: NDArray[np.int64], k: int, seed: int
) -> NDArray[np.bool_]:
    """The folds ``(kinds, k)`` that get one more of each kind: a greedy start, then moves and exchanges."""
    draw = seeds.rng(seed, "deal", k)
    extra = np.zeros((len(places), k), dtype=bool)
    load, units = np.zeros((k, places.shape[1])), np.zeros(k)
    shuffled = draw.permutation(len(places))
    length = (places**2).sum(axis=1)
    # Rounding makes equal costs equal on every machine, so that the drawn tie break decides.
    order = shuffled[np.lexsort((-np.round(length, 9)[shuffled], -size[shuffled]))]
    for n in order:
        cost = np.round(load @ places[n], 9)
        chosen = np.lexsort((draw.random(k), units, cost))[: number[n]]
        extra[n, chosen] = True
        load[chosen] += places[n]
        units[chosen] += size[n]
    steps = 0
    for _ in range(PASSES):
        before = steps
        for pair in combinations(range(k), 2):
            while steps < STEPS and _exchange(places, extra, load, pair, draw):
                steps += 1
        if steps == before:
            break
    return extra


def _exchange(
    places: NDArray[np.float64],
    extra: NDArray[np.bool_],
    load: NDArray[np.float64],
    pair: tuple[int, int],
    draw: np.random.Generator,
) -> bool:
    """Make the one move or exchange between two folds that lowers the objective most, if any does."""
    a, b = pair
    mine = _some(extra[:, a] & ~extra[:, b], draw)
    theirs = _some(extra[:, b] & ~extra[:, a], draw)
    # Row and column 0 give nothing in return: a move.
    give = np.vstack([np.zeros(places.shape[1]), places[mine]])
    take = np.vstack([np.zeros(places.shape[1]), places[theirs]])
    gap = load[b] - load[a]
    gain = (give @ gap + (give**2).sum(axis=1))[:, None] + ((take**2).sum(axis=1) - take @ gap)[None, :]
    gain = np.round(gain - 2 * give @ take.T, 9)
    i, j = divmod(int(gain.argmin()), gain.shape[1])
    if gain[i, j] > -1e-6:
        return False
    for chosen, n, here, there in ((mine, i, a, b), (theirs, j, b, a)):
        if n:
            extra[chosen[n - 1], here], extra[chosen[n - 1], there] = False, True
    load[a] += take[j] - give[i]
    load[b] += give[i] - take[j]
    return True


def cover(
    extra: NDArray[np.bool_], places: NDArray[np.float64], has: NDArray[np.bool_], dealt: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Give every fold every class that it can have: where one lacks it, move the group that costs least.

    Args:
        has: which classes a kind has ``(kinds, classes)``.
        dealt: which classes every fold has already ``(classes,)``.
    """
    extra = extra.copy()
    for _ in range(extra.shape[1] * len(dealt)):
        count = extra.T.astype(np.int64) @ has + dealt  # (folds, classes)
        load = extra.T @ places
        best = (0, 0.0, 0, 0, 0)
        for b, label in zip(*np.nonzero(count == 0), strict=True):
            for n, a in zip(*np.nonzero(extra & (has[:, label] & ~extra[:, b])[:, None]), strict=True):
                lost = int((count[a] == 1) @ has[n]) - int((count[b] == 0) @ has[n])
                cost = round(float(places[n] @ (load[b] - load[a] + places[n])), 9)
                best = min(best, (lost, cost, int(n), int(a), int(b)))
        lost, _, n, a, b = best
        if lost == 0:
            break
        extra[n, a], extra[n, b] = False, True
    return extra


def _some(chosen: NDArray[np.bool_], draw: np.random.Generator) -> NDArray[np.int64]:
    """The numbers of the chosen, or of a sample of them where they are many."""
    found = np.flatnonzero(chosen)
    return found if len(found) <= SAMPLE else np.sort(draw.choice(found, SAMPLE, replace=False))


def _hand_out(
    kind: NDArray[np.int64], extra: NDArray[np.bool_], images: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """The fold of every group: rounds of ``k`` groups of a kind, many images to the fold that has few."""
    k = extra.shape[1]
    draw = seeds.rng(seed, "hand out", k)
    order = np.lexsort((draw.random(len(kind)), -images, kind))
    first = np.r_[True, np.diff(kind[order]) != 0]
    place = np.arange(len(kind)) - np.maximum.accumulate(np.where(first, np.arange(len(kind)), 0))
    starts = np.flatnonzero(place % k == 0)
    ends = np.r_[starts[1:], len(kind)]
    jitter = draw.random((len(starts), k))
    load = [0] * k
    fold = np.zeros(len(kind), dtype=np.int64)
    for n in np.argsort(-images[order[starts]], kind="stable"):
        members = order[starts[n] : ends[n]]
        folds = range(k) if len(members) == k else np.flatnonzero(extra[kind[members[0]]]).tolist()
        for group, f in zip(members, sorted(folds, key=lambda f: (load[f], jitter[n, f])), strict=True):
            fold[group] = f
            load[f] += int(images[group])
    return fold


# --- how alike folds are ----------------------------------------------------------------------------


def share_sd(label: pd.Series[str], fold: pd.Series[str]) -> float:
    """The standard deviation over folds of a class's share of the units: the largest of any class.

    >>> share_sd(pd.Series(list("aabb")), pd.Series(list("0101")))
    0.0
    """
    shares = pd.crosstab(fold, label, normalize="index")
    return float(shares.std(ddof=0).max())


def imbalance(site: pd.Series[str], label: pd.Series[str], fold: pd.Series[str]) -> tuple[int, int]:
    """The largest difference between folds in units of one site x class cell, and the least possible.

    The least is for groups of one unit: 0 where every cell divides by the number of folds, else 1.
    """
    table = pd.crosstab([site, label], fold).to_numpy()
    return int(np.ptp(table, axis=1).max()), int((table.sum(axis=1) % table.shape[1] != 0).any())
