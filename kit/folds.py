"""What is kept apart: the held-out set, the cross-validation folds and leave-site-out.

Groups are never split. The held-out set is drawn first and never touched by any fitting; the rest is
dealt into folds so that every fold has the same share of each class and of each site x class cell.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit import seeds
from kit.competition import FoldPlan
from kit.errors import DataError, listed
from kit.files import digest, file_digest, read_strings, write_json, write_table
from kit.state import Run
from kit.tables import check_ids, read_table

VERSION = 1
COLUMNS = ["image_id", "unit_id", "group_id", "site", "label", "role", "fold", "fold_site"]
log = logging.getLogger("kit")


def inputs(run: Run) -> dict[str, Any]:
    """The digest of the tables, without the place they came from."""
    place = file_digest(run.folds) if run.folds_given else str(run.folds)
    return {"tables": table_digest(run), "given": run.folds_given, "folds": place}


def table_digest(run: Run) -> str:
    """SHA-256 of the labelled tables: it says whether a fold table fits the data."""
    tables = [run.tables.train, run.tables.extra]
    return digest([None if t is None else t.drop(columns="path").to_csv() for t in tables])


def run(run: Run) -> list[Path]:
    """The stage: write the fold table and, beside it, how it was made; or check the one given."""
    if run.folds_given:
        check_given(run.folds, run.tables.train)
        return [run.folds]
    table = assign(run.tables.train, run.competition.folds, run.seed)
    if run.tables.extra is not None:
        extra = run.tables.extra.drop(columns="path").assign(role="extra", fold="", fold_site="")
        table = pd.concat([table, extra])
    table = table.sort_index().reset_index()[COLUMNS]
    write_table(run.folds, table)
    summary = describe(table)
    beside = run.folds.with_suffix(".json")
    plan = {"scheme": run.competition.folds.scheme, "k": run.competition.folds.k, "seed": run.seed}
    write_json(beside, {**plan, "tables_sha256": table_digest(run), **summary})
    for line in summary["text"]:
        log.info("%s", line)
    return [run.folds, beside]


def read_folds(path: Path) -> pd.DataFrame:
    """A fold table as text cells, indexed by image_id; fold columns are empty outside the folds."""
    return read_strings(path).set_index("image_id")


def check_given(path: Path, train: pd.DataFrame) -> None:
    """A fold table from elsewhere fits the tables, and keeps every group together.

    Raises:
        DataError: a column or image is missing, an image is unknown or another one, or a group is split.
    """
    table = read_table(path, tuple(COLUMNS))
    check_ids(table)
    table = table[table["role"] != "extra"].set_index("image_id")
    for found, what in (
        (sorted(set(train.index) - set(table.index)), "images of the train table are missing"),
        (sorted(set(table.index) - set(train.index)), "images are not in the train table"),
    ):
        if found:
            raise DataError(f"{path}: {len(found)} {what}, first '{found[0]}'", "draw new folds")
    table = table.loc[train.index]
    for column in ("unit_id", "label"):
        if (other := table[column] != train[column]).any():
            values = f"{column} '{table[column][other].iloc[0]}', not '{train[column][other].iloc[0]}'"
            raise DataError(f"{path}: image_id '{train.index[other][0]}' has {values}", "draw new folds")
    if (count := table.loc[table["role"] == "fold", "fold"].nunique()) < 2:
        raise DataError(f"{path} has {count} fold, and at least two are needed", "draw new folds")
    numbered = table["role"].eq("fold") & table["fold"].str.fullmatch("[0-9]+")
    numbered &= table["fold_site"].str.fullmatch("[0-9]*")
    if (bad := ~(numbered | table["role"].eq("holdout"))).any():
        cells = f"role '{table['role'][bad].iloc[0]}' and fold '{table['fold'][bad].iloc[0]}'"
        hint = "the role is fold, holdout or extra; a row of role fold has a fold number"
        raise DataError(f"{path}: image_id '{train.index[bad][0]}' has {cells}", hint)
    parts = table[["role", "fold", "fold_site"]].agg(" ".join, axis=1).groupby(train["group_id"]).unique()
    if split := [f"group '{g}' is in {', '.join(p)}" for g, p in parts.items() if len(p) > 1]:
        message = f"{path}: groups that are not kept together:\n{listed(split)}"
        raise DataError(message, "move all images of a group to one fold, or draw new folds")


def training_folds(run: Run) -> pd.DataFrame:
    """The fold table with ``fold`` replaced by the column of the chosen scheme."""
    table = read_folds(run.folds)
    if run.competition.folds.scheme == "site":
        if (table["fold_site"] == "").all():
            raise DataError(
                f"{run.folds} has no leave-site-out folds: fewer than two sites are known",
                "use --set fold.scheme=group",
            )
        lost = table["role"].eq("fold") & table["fold_site"].eq("")
        if lost.any():
            raise DataError(
                f"{run.folds}: {lost.sum()} images have no fold_site, first '{table.index[lost][0]}'",
                "give every image its site, or use --set fold.scheme=group",
            )
        table["fold"] = table["fold_site"]
    return table


def assign(train: pd.DataFrame, plan: FoldPlan, seed: int) -> pd.DataFrame:
    """Give every image of the train table a role, a fold and a leave-site-out fold.

    Args:
        train: indexed by image_id, with unit_id, group_id, site and label.

    Returns:
        The table with role ``fold`` or ``holdout`` and the fold columns as text.
    """
    units = train.drop_duplicates("unit_id").set_index("unit_id")[["group_id", "site", "label"]]
    held = draw_holdout(units, plan, seed)
    rest = units[~units["group_id"].isin(held)]
    fold = deal(rest, fold_count(rest, plan.k), seed)
    sites = sorted(set(rest["site"]) - {""}, key=lambda site: (len(site), site))
    by_site = {site: str(n) for n, site in enumerate(sites)} if len(sites) > 1 else {}
    table = train.drop(columns="path", errors="ignore").copy()
    in_fold = ~table["group_id"].isin(held)
    table["role"] = np.where(in_fold, "fold", "holdout")
    table["fold"] = [str(fold[g]) if g in fold else "" for g in table["group_id"]]
    table["fold_site"] = table["site"].map(by_site).where(in_fold).fillna("")
    return table


def fold_count(units: pd.DataFrame, k: int) -> int:
    """``k``, or fewer where a class has fewer groups (a message says so)."""
    groups = units.groupby("label")["group_id"].nunique()
    if len(groups) < 2 or groups.min() < 2:
        raise DataError(
            f"class {groups.idxmin()} has {groups.min()} group(s), and folds need two of each class",
            "add labelled groups of this class, or lower fold.holdout",
        )
    if groups.min() < k:
        log.warning(
            "only %d groups of class %s: %d folds, not %d", groups.min(), groups.idxmin(), groups.min(), k
        )
    return int(min(k, groups.min()))


def group_counts(units: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """How many units of each cell (say label x site) every group holds: groups x cells."""
    cells = units[columns].agg("|".join, axis=1)
    return pd.crosstab(units["group_id"], cells)


def deal(units: pd.DataFrame, k: int, seed: int) -> dict[str, int]:
    """Deal whole groups into ``k`` folds of equal class and site x class composition.

    Groups go one by one, the largest and rarest cells first, to the fold where the squared deviations
    from equal shares grow least: class counts weigh most, then site x class cells, then size.

    Returns:
        The fold of each group.
    """
    cells = group_counts(units, ["label", "site"])
    labels = group_counts(units, ["label"])
    order = _dealing_order(cells, seed)
    counts = np.concatenate([labels.to_numpy(), cells.to_numpy()], axis=1).astype(float)
    # A cell's deviation counts relative to its size, so that rare classes are spread as evenly.
    weight = np.concatenate([np.full(labels.shape[1], 100.0), np.ones(cells.shape[1])])
    weight = weight / counts.sum(axis=0)
    load = np.zeros((k, counts.shape[1]))
    jitter = seeds.rng(seed, "deal", k)
    chosen: dict[str, int] = {}
    row = {group: n for n, group in enumerate(cells.index)}
    for group in order:
        mine = counts[row[group]]
        growth = ((2 * load + mine) * mine * weight).sum(axis=1)
        size = load[:, : labels.shape[1]].sum(axis=1)
        rank = np.lexsort((jitter.random(k), size, np.round(growth, 9)))
        chosen[group] = int(rank[0])
        load[rank[0]] += mine
    return chosen


def _dealing_order(cells: pd.DataFrame, seed: int) -> list[str]:
    """Groups in the order they are dealt: large first, then by cell, rare cells first, shuffled within."""
    shuffled = cells.iloc[seeds.rng(seed, "dealing order").permutation(len(cells))]
    size = shuffled.sum(axis=1)
    main = shuffled.idxmax(axis=1)
    frame = pd.DataFrame({"size": -size, "rarity": main.map(cells.sum()), "cell": main})
    return [str(group) for group in frame.sort_values(["size", "rarity", "cell"], kind="stable").index]


def draw_holdout(units: pd.DataFrame, plan: FoldPlan, seed: int) -> set[str]:
    """The groups of the balanced held-out set.

    Each class gives min(plan.holdout, plan.holdout_share of the rarest class), spread over sites by
    largest remainder. Where groups hold several units, whole groups are taken and the class counts
    come as close to that as a group allows.
    """
    rarest = int(units["label"].value_counts().min())
    wanted = min(plan.holdout, int(plan.holdout_share * rarest))
    if wanted == 0:
        log.warning("no held-out set: the rarest class has only %d units", rarest)
        return set()
    if units["group_id"].is_unique:
        return _holdout_of_units(units, wanted, seed)
    return _holdout_of_groups(units, wanted, seed)


def _holdout_of_units(units: pd.DataFrame, wanted: int, seed: int) -> set[str]:
    """Exactly ``wanted`` units a class, allocated to sites by largest remainder."""
    held: set[str] = set()
    for label, mine in units.groupby("label"):
        sizes = mine["site"].value_counts().sort_index()
        for site, take in largest_remainder(sizes, wanted).items():
            pool = sorted(mine.loc[mine["site"] == site, "group_id"])
            draw = seeds.rng(seed, "holdout", label, site).permutation(len(pool))
            held |= {pool[n] for n in draw[:take]}
    return held


def largest_remainder(sizes: pd.Series[int], wanted: int) -> dict[str, int]:
    """Share ``wanted`` seats in proportion to ``sizes``, never emptying a cell while others can give.

    >>> largest_remainder(pd.Series({"a": 6, "b": 3, "c": 1}), 5)
    {'a': 3, 'b': 2, 'c': 0}
    """
    have = sizes.to_numpy()
    exact = have / have.sum() * wanted
    room = np.maximum(have - 1, 0) if np.maximum(have - 1, 0).sum() >= wanted else have
    seats = np.minimum(np.floor(exact), room).astype(int)
    while seats.sum() < wanted:
        seats[np.argmax(np.where(seats < room, exact - seats, -np.inf))] += 1
    return {str(site): int(n) for site, n in zip(sizes.index, seats, strict=True)}


def _holdout_of_groups(units: pd.DataFrame, wanted: int, seed: int) -> set[str]:
    """Whole groups whose class counts come nearest to ``wanted`` each: the best of many greedy draws."""
    counts = group_counts(units, ["label"])
    best: tuple[float, list[int]] = (np.inf, [])
    for attempt in range(64):
        order = seeds.rng(seed, "holdout groups", attempt).permutation(len(counts))
        miss, chosen = _fill(counts.to_numpy()[order], wanted)
        if miss < best[0]:
            best = (miss, [int(order[n]) for n in chosen])
    return {str(group) for group in counts.index[best[1]]}


def _fill(counts: NDArray[np.int64], wanted: int) -> tuple[float, list[int]]:
    """Take groups in turn while they bring the class counts nearer to ``wanted``; the miss is summed."""
    have = np.zeros(counts.shape[1])
    miss, chosen = float(wanted * counts.shape[1]), []
    for n, mine in enumerate(counts):
        after = float(np.abs(have + mine - wanted).sum())
        if after < miss:
            have, miss = have + mine, after
            chosen.append(n)
    return miss, chosen


def describe(table: pd.DataFrame) -> dict[str, Any]:
    """Counts of a fold table, and the same in words."""
    roles = {str(k): int(n) for k, n in table["role"].value_counts().sort_index().items()}
    counts = {"images": len(table), "units": int(table["unit_id"].nunique()), "roles": roles}
    units = table[table["role"] != "extra"].drop_duplicates("unit_id")
    text = [
        f"{len(table)} images of {counts['units']} units: "
        + ", ".join(f"{n} images {role}" for role, n in roles.items())
    ]
    for name, mine in [
        ("held out", units[units["role"] == "holdout"]),
        *((f"fold {f}", part) for f, part in units.groupby("fold") if f != ""),
    ]:
        shares = mine["label"].value_counts().sort_index()
        text.append(
            f"  {name}: {len(mine)} units, "
            + ", ".join(f"{label} {n} ({n / len(mine):.1%})" for label, n in shares.items())
        )
    return {**counts, "text": text}
