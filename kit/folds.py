"""What is kept apart: the held-out set, the cross-validation folds and leave-site-out.

Groups are never split: a group is what the competition declares, joined by near-duplicates. The held-out
set is drawn first and never touched by any fitting; the rest is dealt into folds by ``fold.scheme``:

=========== ======================================================= =====================================
scheme      validation folds                                        says how a model does on
=========== ======================================================= =====================================
group-site  whole groups, alike in classes and site x class cells   new patients of the known sites
group       whole groups, alike in classes; sites are not looked at the same, with the luck of the draw
crossed     whole sites, ``k`` blocks of them alike in classes      new patients of new sites
site        one site each (the column ``fold_site``)                one new site at a time
=========== ======================================================= =====================================

A model is always trained on all other folds. In ``crossed`` and ``site`` it has therefore seen neither a
group nor a site of the fold it is judged on: a group lies in one block of sites, so leaving the block
out leaves its groups out as well, and folds inside a block would only take away training data.

Folds of ``group-site`` flatter a model that reads the site: as site x class cells are balanced, a site's
class share in the other folds foretells its share in the judged fold better than it foretells that of new
patients. Score such a model on folds of the scheme ``group``, which balance classes only.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.competition import FoldPlan
from kit.dealing import components, deal, fold_count, imbalance, linked, share_sd
from kit.errors import DataError, SettingError, listed
from kit.files import digest, file_digest, read_strings, write_json, write_table
from kit.holdout import draw_holdout
from kit.state import Run
from kit.tables import check_ids, read_table

VERSION = 3
COLUMNS = ["image_id", "unit_id", "group_id", "site", "label", "role", "fold", "fold_site"]
KEEP_SITES = "give every image its site, or use --set fold.scheme=group-site"
log = logging.getLogger("kit")


def inputs(run: Run) -> dict[str, Any]:
    """The digest of the tables and of the near-duplicates, without the place they came from."""
    place = file_digest(run.folds) if run.folds_given else str(run.folds)
    near = duplicates(run)
    alike = file_digest(near) if near else ""
    return {"tables": table_digest(run), "given": run.folds_given, "folds": place, "duplicates": alike}


def duplicates(run: Run) -> Path | None:
    """The table of near-duplicates, if one is given.

    Raises:
        SettingError: it is not there.
    """
    given = run.competition.folds.duplicates
    if given and not Path(given).is_file():
        raise SettingError(f"--duplicates: {given} is not a file", "check the path")
    return Path(given) if given else None


def table_digest(run: Run) -> str:
    """SHA-256 of the labelled tables: it says whether a fold table fits the data."""
    tables = [run.tables.train, run.tables.extra]
    return digest([None if t is None else t.drop(columns="path").to_csv() for t in tables])


def run(run: Run) -> list[Path]:
    """The stage: write the fold table and, beside it, how it was made; or check the one given."""
    train = grouped(run)
    plan = run.competition.folds
    if run.folds_given:
        check_given(run.folds, train)
        return [run.folds]
    table = assign(train, plan, run.seed)
    if run.tables.extra is not None:
        extra = run.tables.extra.drop(columns="path").assign(role="extra", fold="", fold_site="")
        extra["group_id"] = joined_groups(run).loc[extra.index]
        table = pd.concat([table, extra])
    chosen_folds(table, plan.scheme, run.folds)
    table = table.sort_index().reset_index()[COLUMNS]
    summary = describe(table)
    made: dict[str, Any] = {"scheme": plan.scheme, "k": plan.k, "seed": run.seed}
    made |= {"tables_sha256": table_digest(run), "duplicates_sha256": inputs(run)["duplicates"]}
    made["holdout_sha256"] = digest(sorted(set(table.loc[table["role"] == "holdout", "unit_id"])))
    beside = run.folds.with_suffix(".json")
    warn_of_change(beside, made)
    write_table(run.folds, table)
    write_json(beside, {**made, **summary})
    for line in summary["text"]:
        log.info("%s", line)
    return [run.folds, beside]


def grouped(run: Run) -> pd.DataFrame:
    """The train table with groups that share near-duplicate images joined; a message names them.

    Raises:
        DataError: the table of near-duplicates names an image that no table has.
    """
    train = run.tables.train
    joined = joined_groups(run).loc[train.index]
    what = noun(run.competition.group or run.competition.unit)
    moved = joined.isin(joined[joined != train["group_id"]])
    merged = [
        f"{len(part)} {what}s share near-duplicate images and are kept together: {', '.join(part)}"
        for part in train["group_id"][moved].groupby(joined[moved]).agg(lambda names: sorted(set(names)))
    ]
    if merged:
        log.info("%s", listed(merged))
    return train.assign(group_id=joined)


def joined_groups(run: Run) -> pd.Series[str]:
    """The group of every image with and without a label, by image_id: near-duplicates join both kinds.

    A component is named after its smallest group that has a label, if it has one.

    Raises:
        DataError: the table of near-duplicates names an image that no table has.
    """
    labelled = run.tables.train["group_id"]
    tables = [table for table in (run.tables.train, run.tables.extra) if table is not None]
    found = components(pd.concat(tables).fillna(""), _links(run))
    name = labelled.groupby(found.loc[labelled.index]).min()
    return found.map(lambda group: name.get(group, group))


def _links(run: Run) -> pd.DataFrame | None:
    path = duplicates(run)
    if path is None:
        return None
    links = read_table(path, ("image_id", "cluster"))
    others = (run.tables.train, run.tables.test, run.tables.extra)
    known = {image for table in others if table is not None for image in table.index}
    if (lost := ~links["image_id"].isin(known)).any():
        name, line = links["image_id"][lost].iloc[0], int(lost.to_numpy().argmax()) + 2
        message = f"{path} line {line}: image_id '{name}' is in no table ({lost.sum()} such rows)"
        raise DataError(message, "make the clusters from the images of this data folder")
    return links


def noun(column: str) -> str:
    """What a column of ids is about.

    >>> noun("patient_id")
    'patient'
    """
    return column.removesuffix("_id").replace("_", " ") or "group"


def warn_of_change(beside: Path, made: dict[str, Any]) -> None:
    """Say so where the same tables would now hold out other units than the file on disk does."""
    try:
        before = json.loads(beside.read_text())
        same = before["tables_sha256"] == made["tables_sha256"]
        if same and before["holdout_sha256"] != made["holdout_sha256"]:
            text = "the held-out set changes: %s holds out other units of the same tables; scores on the two"
            log.warning(
                text + " sets cannot be compared (seed %s, was %s)", beside, made["seed"], before["seed"]
            )
    except (OSError, ValueError, KeyError, TypeError):  # none there, or none of ours
        return


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
    """The fold table with ``fold`` replaced by the column of the chosen scheme.

    Raises:
        DataError: the table does not hold what the scheme promises.
    """
    return chosen_folds(read_folds(run.folds), run.competition.folds.scheme, run.folds)


def chosen_folds(table: pd.DataFrame, scheme: str, path: Path) -> pd.DataFrame:
    """``table`` (by image_id) with the fold that ``scheme`` trains by, after a check that sites are apart."""
    inside = table["role"] == "fold"
    if scheme == "site":
        if (table["fold_site"] == "").all():
            message = f"{path} has no leave-site-out folds: fewer than two sites are known"
            raise DataError(message, "use --set fold.scheme=group-site")
        lost = inside & table["fold_site"].eq("")
        if lost.any():
            message = f"{path}: {lost.sum()} images have no fold_site, first '{table.index[lost][0]}'"
            raise DataError(message, KEEP_SITES)
        return table.assign(fold=table["fold_site"])
    if scheme == "crossed":
        count = table[inside].groupby("site")["fold"].nunique()
        for site in [*count.index[count > 1], *count.index[count.index == ""]]:
            raise DataError(f"{path}: images of site '{site}' are not kept in one fold", KEEP_SITES)
    return table


def assign(train: pd.DataFrame, plan: FoldPlan, seed: int) -> pd.DataFrame:
    """Give every image of the train table a role, a fold and a leave-site-out fold.

    Args:
        train: indexed by image_id, with unit_id, group_id, site and label.

    Returns:
        The table with role ``fold`` or ``holdout`` and the fold columns as text.
    """
    units = train.drop_duplicates("unit_id").set_index("unit_id")[["group_id", "site", "label"]]
    units = units.assign(images=train.groupby("unit_id").size()).sort_index()
    held = draw_holdout(units, plan, seed)
    rest = units[~units["group_id"].isin(held)]
    block = site_blocks(rest)
    fold = _crossed(rest, block, plan, seed) if plan.scheme == "crossed" else _dealt(rest, plan, seed)
    order = sorted(set(block.values()), key=lambda site: (len(site), site))
    number = {name: str(n) for n, name in enumerate(order)} if len(order) > 1 else {}
    table = train.drop(columns=["path", "hash"], errors="ignore").copy()
    in_fold = ~table["group_id"].isin(held)
    table["role"] = np.where(in_fold, "fold", "holdout")
    table["fold"] = [str(fold[g]) if g in fold else "" for g in table["group_id"]]
    table["fold_site"] = table["site"].map(block).map(number).where(in_fold).fillna("").astype(object)
    count = pd.crosstab(table.loc[in_fold, "fold"], table.loc[in_fold, "label"])
    for n, label in zip(*np.nonzero(count.to_numpy() == 0), strict=True):
        what = (count.index[n], count.columns[label])
        log.warning("fold %s has no unit of class %s: too few groups have one", *what)
    _warn_of_giants(table[in_fold], "site" if plan.scheme == "crossed" else "group_id")
    return table


def _dealt(units: pd.DataFrame, plan: FoldPlan, seed: int) -> dict[str, int]:
    """The fold of each group in the schemes that spread sites, or do not look at them."""
    return deal(units, fold_count(units, plan.k), seed, sites=plan.scheme != "group")


def _crossed(units: pd.DataFrame, block: dict[str, str], plan: FoldPlan, seed: int) -> dict[str, int]:
    """The fold of each group where whole sites are dealt.

    Raises:
        DataError: the site of a unit is not known, so that no fold can be sure to be without it.
    """
    if (lost := units["site"] == "").any():
        message = f"fold.scheme=crossed keeps sites apart, and {lost.sum()} units have no site"
        raise DataError(f"{message}, first '{units.index[lost][0]}'", KEEP_SITES)
    blocks = units.assign(group_id=units["site"].map(block))
    fold = deal(blocks, fold_count(blocks, plan.k, "site"), seed, sites=False)
    return {str(group): fold[name] for group, name in zip(units["group_id"], blocks["group_id"], strict=True)}


def site_blocks(units: pd.DataFrame) -> dict[str, str]:
    """The block of each known site: sites that share a group cannot be kept apart, and are one block."""
    known = units[units["site"] != ""]
    block = linked(known["site"].to_numpy(), known["group_id"].to_numpy())
    for first in sorted(set(block.values())):
        if len(joined := [site for site, name in block.items() if name == first]) > 1:
            log.warning("sites %s share a group: they are left out together", ", ".join(joined))
    return block


def _warn_of_giants(table: pd.DataFrame, column: str) -> None:
    """Name every group that is larger than an even fold: no dealing can make its fold like the others."""
    k = table["fold"].nunique()
    what = noun(table.attrs.get("theirs", {}).get(column, column))
    warned: set[str] = set()
    for rows, thing in ((table.drop_duplicates("unit_id"), "units"), (table, "images")):
        sizes = rows.groupby(column).size()
        for name in sorted(set(sizes.index[sizes > 1.2 * len(rows) / k]) - warned - {""}):
            fold = rows.loc[rows[column] == name, "fold"].iloc[0]
            whole = int((rows["fold"] == fold).sum())
            text = f"{what} '{name}' has {sizes[name]} of {len(rows)} {thing}: fold {fold} holds"
            text += f" {whole / len(rows):.0%} of all, where {1 / k:.0%} would be even, and"
            log.warning("%s %.0f%% of those are of this %s", text, 100 * sizes[name] / whole, what)
            warned.add(name)


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
        counted = [f"{label} {n} ({n / len(mine):.1%})" for label, n in shares.items()]
        text.append(f"  {name}: {', '.join([f'{len(mine)} units', *counted])}")
    inside = units[units["role"] == "fold"]
    alike = {"share_sd": round(share_sd(inside["label"], inside["fold"]), 6)}
    most, least = imbalance(inside["site"], inside["label"], inside["fold"])
    alike |= {"cell_difference": most, "cell_difference_least": least}
    text.append(f"  over folds: class shares have sd {alike['share_sd']:.4f}")
    if inside.groupby("site")["fold"].nunique().max() > 1:
        text.append(f"  a site x class cell differs by up to {most} units; the least possible is {least}")
    return {**counts, **alike, "text": text}
