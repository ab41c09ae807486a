"""Judge any fold table or list of test images: whom it splits, how alike its parts are, what ours would be.

Nothing is asked of the file but that one column holds image ids or the ids of units or groups. Columns are
recognised by what they hold: folds by number or name, one 0/1 column a fold, train / val / test, or, in
a file that names only some images, lists of test images that leave the rest for training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd

from kit.dealing import deal, imbalance, share_sd
from kit.errors import DataError, listed
from kit.files import read_strings
from kit.folds import grouped, noun
from kit.holdout import draw_holdout
from kit.state import Run

NAMES = {"cv", "split", "splits", "set", "list", "subset", "partition", "part", "role", "phase", "usage"}
NAMES |= {"val", "valid", "validation", "test", "holdout"}
YES_NO = {"1": "1", "1.0": "1", "true": "1", "0": "0", "0.0": "0", "false": "0"}
SPLIT = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "holdout"}
ASIDE = ("held out", "-1")  # kept apart from the folds, so no fold of a cross-validation
OUTSIDE = "the rest"


@dataclass(frozen=True)
class Division:
    """One way in which a file divides the images.

    part: the part of each image, indexed by image_id; an image that is listed twice is there twice.
    """

    name: str
    kind: Literal["folds", "split", "list"]
    part: pd.Series[str]


@dataclass(frozen=True)
class Audit:
    """What was found, in words, and how many groups are in more than one part."""

    text: str
    leaks: int


@dataclass(frozen=True)
class Judge:
    """What a division is judged by: the train table with its groups, and the words for them."""

    run: Run
    train: pd.DataFrame
    group: str  # patient
    unit: str
    site: str  # center; empty where the competition declares none

    def frame(self, division: Division) -> pd.DataFrame:
        """The images of a division with their part, unit, group, site and label."""
        return division.part.to_frame("part").join(self.train).reset_index(names="image_id")

    def shares(self, labels: pd.Series[str]) -> str:
        """How many units of each class there are."""
        counts = labels.value_counts()
        return ", ".join(
            f"{name} {counts.get(name, 0)} ({counts.get(name, 0) / len(labels):.1%})"
            for name in self.run.competition.classes
        )


def audit(run: Run, path: Path) -> Audit:
    """Judge the file against the competition's train table; nothing is written.

    Raises:
        DataError: no column holds ids of the train table.
    """
    train = grouped(run)
    task = run.competition
    judge = Judge(
        run, train, noun(task.group or task.unit), noun(task.unit), noun(task.site) if task.site else ""
    )
    table = read_listing(path, train)
    column, ids, rows = match(table, train, path)
    others = {image for t in (run.tables.test, run.tables.extra) if t is not None for image in t.index}
    text = [f"{path}: {_coverage(ids, rows, train, others)}"]
    verdicts, leaks = [], 0
    for division in divisions(table.drop(columns=column), rows, len(train)):
        found = _judge_list(judge, division) if division.kind == "list" else _judge_parts(judge, division)
        lines, verdict, split = found
        text += ["", *lines]
        verdicts.append(f"verdict on {division.name}: {verdict}")
        leaks += split
    return Audit("\n".join([*text, "", *verdicts]), leaks)


# --- reading ----------------------------------------------------------------------------------------


def read_listing(path: Path, train: pd.DataFrame) -> pd.DataFrame:
    """The file as text cells; a first line that holds a known id is no header."""
    table = read_strings(path)
    known = {*train.index, *train["unit_id"], *train["group_id"]}
    if known & {word for name in table.columns for word in (str(name), bare(str(name)))}:
        first = pd.DataFrame([list(table.columns)], columns=table.columns)
        table = pd.concat([first, table], ignore_index=True)
        table.columns = pd.Index([f"column {n + 1}" for n in range(table.shape[1])])
    return table


def bare(name: str) -> str:
    """An image id without the folders and the ending of a file name.

    >>> bare("train/006388_0.tif")
    '006388_0'
    """
    return re.sub(r"\.[A-Za-z][A-Za-z0-9]{1,4}$", "", PurePosixPath(name.strip().replace("\\", "/")).name)


def match(table: pd.DataFrame, train: pd.DataFrame, path: Path) -> tuple[str, pd.Series[str], pd.DataFrame]:
    """The column of ids, its cells as ids, and every match: the number of a row and an image_id.

    A row of a unit or group stands for all its images.
    """
    kinds = {"image_id": pd.Series(train.index, train.index)}
    kinds |= {name: train[name] for name in ("unit_id", "group_id")}
    for values in kinds.values():
        known = set(values)
        cells = {name: table[name].where(table[name].isin(known), table[name].map(bare)) for name in table}
        column = max(table.columns, key=lambda name: len(known & set(cells[name])))
        if known & set(cells[column]):
            ids = cells[column].reset_index(drop=True)
            asked = pd.DataFrame({"row": ids.index, "id": ids})
            named = pd.DataFrame({"id": values.to_numpy(), "image_id": train.index})
            return str(column), ids, asked.merge(named, on="id")[["row", "image_id"]]
    message = f"{path}: no column holds ids of the train table, such as '{train.index[0]}'"
    raise DataError(message, f"it has the columns {', '.join(map(str, table.columns))}")


def _coverage(ids: pd.Series[str], rows: pd.DataFrame, train: pd.DataFrame, others: set[str]) -> str:
    """How the rows of the file match the images of the train table, and of the ``others``."""
    left = ids[~ids.index.isin(rows["row"])]
    unknown = sorted(set(left) - others)
    missing = int((~train.index.isin(rows["image_id"])).sum())
    text = f"{len(ids)} rows: {rows['row'].nunique()} match, {left.isin(others).sum()} are of other tables,"
    text += f" {len(unknown)} ids are unknown; {missing} of {len(train)} labelled images are not named"
    if unknown:
        text += f"\n  unknown: {', '.join(unknown[:5])}"
        short = {name.lstrip("0") for name in [*train.index, *train["unit_id"]] if name.startswith("0")}
        if short & set(unknown):
            text += " (ids that were read as numbers have lost their zeros: read them as text)"
    return text


def divisions(table: pd.DataFrame, rows: pd.DataFrame, images: int) -> list[Division]:
    """Every way in which the columns beside the ids divide the images.

    Args:
        rows: row and image_id, as :func:`match` gives them.
        images: how many the train table has; a file that names fewer than half of them lists test images.
    """
    few = rows["image_id"].nunique() < images / 2
    if {"role", "fold"} <= set(table.columns):
        part = table["fold"].where(table["role"] == "fold", "held out")
        columns = {"fold": part}
    elif (one := _one_hot(table)) is not None:
        columns = {str(one.name): one}
    else:
        columns = {name: table[name] for name in table.columns if _divides(name, table[name])}
    found = []
    for name, cells in columns.items():
        part = _of_images(cells.str.replace(r"^(-?\d+)\.0$", r"\1", regex=True), rows)
        if few and "fold" not in name.lower():
            for value in sorted(set(part)):
                found.append(Division(f"the list '{value}'", "list", part[part == value]))
        elif len(part):
            split = {value.lower() for value in set(part)} <= SPLIT
            found.append(Division(f"'{name}'", "split" if split else "folds", part))
    everything = _of_images(pd.Series("listed", table.index), rows)
    return found or [Division("the list", "list", everything)]


def _one_hot(table: pd.DataFrame) -> pd.Series[str] | None:
    """The fold of each row where every fold has a column of 0 and 1; columns of 0 alone are no fold."""
    names = [name for name in table.columns if _divides(name, table[name])]
    flags = table[names].apply(lambda cells: cells.str.lower().map(YES_NO)) == "1"
    used = [name for name in names if flags[name].any() and set(table[name].str.lower()) <= set(YES_NO)]
    if len(used) < 2 or not flags[used].sum(axis=1).eq(1).all():
        return None
    fold: pd.Series[str] = flags[used].idxmax(axis=1).rename(f"{used[0]} ... {used[-1]}")
    return fold


def _divides(name: str, cells: pd.Series[str]) -> bool:
    words = set(re.split(r"[^a-z]+", name.lower()))
    return ("fold" in name.lower() or bool(words & NAMES)) and cells.nunique() <= max(2, len(cells) // 2)


def _of_images(cells: pd.Series[str], rows: pd.DataFrame) -> pd.Series[str]:
    """The cells of rows as cells of images; rows without a value are left out, and exact repeats."""
    part = rows.assign(part=cells.to_numpy()[rows["row"]]).drop_duplicates(["image_id", "part"])
    part = part[~part["part"].str.strip().str.lower().isin(["", "nan", "none"])]
    return part.set_index("image_id")["part"]


# --- judging ----------------------------------------------------------------------------------------


def _judge_parts(judge: Judge, division: Division) -> tuple[list[str], str, int]:
    """Folds, or train / val / test: the lines, the verdict, and the number of groups that are split."""
    frame = judge.frame(division)
    parts = sorted(set(frame["part"]), key=lambda name: (name in ASIDE, len(name), name))
    lines = [f"{division.name}: {len(parts)} parts of {len(frame)} images"]
    for name in parts:
        mine = frame[frame["part"] == name]
        units = mine.drop_duplicates("unit_id")["label"]
        lines.append(f"  {name}: {len(mine)} images, {len(units)} {judge.unit}s, {judge.shares(units)}")
    split = frame.groupby("group_id")["part"].unique()
    split = split[split.map(len) > 1]
    if len(split):
        lines.append(f"  {len(split)} {judge.group}s are in more than one part:")
        lines.append(listed([f"{name}: {', '.join(sorted(p))}" for name, p in split.items()], most=20))
    verdict = (
        f"LEAKS: {len(split)} {judge.group}s are in more than one part"
        if len(split)
        else (f"no leak: every {judge.group} is in one part")
    )
    beside = judge.train[~judge.train.index.isin(frame["image_id"])]
    if other := int(beside["group_id"].isin(frame["group_id"]).sum()):
        lines.append(f"  {other} images in no part are of {judge.group}s in these: do not train on them")
    cross = frame[~frame["part"].isin(ASIDE)]
    if division.kind == "folds" and cross["part"].nunique() > 1:
        balance, words = _balance(judge, cross)
        lines += balance
        verdict += words
    return lines, verdict, len(split)


def _balance(judge: Judge, frame: pd.DataFrame) -> tuple[list[str], str]:
    """How alike folds are, beside the kit's own with as many folds; and whether sites are kept apart."""
    units = frame.drop_duplicates(["unit_id", "part"])
    k = frame["part"].nunique()
    count = frame[frame["site"] != ""].groupby("site")["part"].nunique()
    apart = len(count) > 1 and bool((count == 1).all())
    name, theirs = _uneven(judge.run.competition.classes, units["label"], units["part"])
    size = frame.groupby("unit_id").size()
    once = units.drop_duplicates("unit_id").set_index("unit_id").assign(images=size)
    kept = once["site"] if apart else once["group_id"]
    ours = kept.map(deal(once.assign(group_id=kept), k, judge.run.seed, sites=not apart)).astype(str)
    sd = share_sd(once["label"], ours)
    by = judge.site if apart else judge.group
    lines = [f"  {name}-share sd over folds {theirs:.4f}; ours, {k} folds by {by}: {sd:.4f}"]
    words = f"; {name}-share sd {theirs:.4f}, ours {sd:.4f}"
    if not judge.site:
        return lines, words
    if apart:
        lines.append(f"  every {judge.site} is in one fold: scores are of {judge.site}s not seen in training")
        return lines, f"; grouped by {judge.site}{words}"
    most, least = imbalance(units["site"], units["label"], units["part"])
    own, _ = imbalance(once["site"], once["label"], ours)
    lines.append(
        f"  a {judge.site} x class cell differs by up to {most} {judge.unit}s between folds;"
        f" ours by {own}; the least possible is {least}"
    )
    lines.append(f"  {(count > 1).sum()} of {len(count)} {judge.site}s are in more than one fold")
    return lines, f"; not grouped by {judge.site}{words}"


def _uneven(classes: Sequence[str], label: pd.Series[str], fold: pd.Series[str]) -> tuple[str, float]:
    """The class whose share differs most between folds (the last of equal ones), and the sd of its share."""
    spread = pd.crosstab(fold, label, normalize="index").std(ddof=0).round(12)
    name = max(reversed([c for c in classes if c in spread.index]), key=lambda c: spread[c])
    return name, float(spread[name])


def _judge_list(judge: Judge, division: Division) -> tuple[list[str], str, int]:
    """A list of test images: what it holds, and the groups that have other images outside it."""
    train, inside = judge.train, judge.train.index.isin(division.part.index)
    mine, rest = train[inside], train[~inside]
    units = mine.drop_duplicates("unit_id")
    lines = [
        f"{division.name}: {len(mine)} images of {len(units)} {judge.unit}s, {judge.shares(units['label'])}"
    ]
    everyone = train.drop_duplicates("unit_id")
    lines.append(f"  all {judge.unit}s: {judge.shares(everyone['label'])}")
    if judge.site:
        lines.append(f"  from {mine['site'].nunique()} of {train['site'].nunique()} {judge.site}s")
    others = rest[rest["group_id"].isin(mine["group_id"])]
    split = [
        f"{name}: {', '.join(mine.index[mine['group_id'] == name])} in it, {', '.join(part.index)} outside"
        for name, part in others.groupby("group_id")
    ]
    if split:
        lines.append(f"  {len(split)} {judge.group}s have other images outside it, left for training:")
        lines.append(listed(split, most=20))
    plan, seed = judge.run.competition.folds, judge.run.seed
    sized = everyone.set_index("unit_id").assign(images=train.groupby("unit_id").size()).sort_index()
    own = sized[sized["group_id"].isin(draw_holdout(sized, plan, seed))]
    if len(own):
        words = f"  ours would hold out {len(own)} whole {judge.unit}s, {judge.shares(own['label'])}"
        lines.append(words + (f", from {own['site'].nunique()} {judge.site}s" if judge.site else ""))
    if not split:
        return lines, f"no leak: every {judge.group} is inside it or outside", 0
    return lines, f"LEAKS: {len(split)} {judge.group}s have images inside it and outside", len(split)
