"""Every image of a run with all that is known of it, joined by id: what is absent has no column."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import metrics
from kit.errors import SettingError
from kit.files import digest, numbers, read_strings
from kit.read.tiles import IMAGES, load_images
from kit.show.view.outdated import run_again
from kit.state import Run

WORDS = ("split", "image_id", "unit_id", "site", "label", "role", "fold", "status", "reason", "read_by")
COUNTS = ("width", "height", "tiles", "sections")
STORED = ("status", "reason", "read_by", "tissue", *COUNTS)
UNITS = {"train": ("oof.csv", "holdout.csv"), "test": ("test.csv",), "extra": ()}
LABELLED = ("train", "extra")


@dataclass(frozen=True)
class Listing:
    """The images by key, in the order of their ids.

    table: indexed by key; split, image_id, path, and of the others in ``WORDS`` and ``COUNTS``, tissue,
        ``p_<class>``, loss and doubt those that are known of any image.
    notes: what the columns are, or why they are absent.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    def row(self, key: str) -> Mapping[str, Any] | None:
        """What is known of an image, without what is not; ``None``: there is none of this key."""
        if key not in self.table.index:
            return None
        return {
            str(name): value
            for name, value in self.table.loc[key].items()
            if value not in ("", None) and value == value
        }

    def beside(self, key: str) -> tuple[str, str]:
        """The keys of the image before and after one; empty at an end."""
        keys = self.table.index.tolist()
        place = keys.index(key)
        return keys[place - 1] if place else "", keys[place + 1] if place + 1 < len(keys) else ""

    def as_json(self) -> str:
        """The table by column, for the page; its paths stay here."""
        columns = {"key": self.table.index.tolist()}
        for name in self.table.columns.drop("path"):
            columns[name] = [None if value != value else value for value in self.table[name].tolist()]
        content = {"count": len(self.table), "classes": self.classes, "columns": columns, "notes": self.notes}
        return json.dumps(content, separators=(",", ":"), allow_nan=False)


def gather(run: Run, splits: Sequence[str]) -> Listing:
    """Join what the stages have written, as it is.

    Args:
        splits: whose images are listed; those that the competition has not are left out.

    Raises:
        SettingError: it has none of them.
        DataError: a table breaks a rule.
    """
    tables = {"train": run.tables.train, "test": run.tables.test, "extra": run.tables.extra}
    found = [
        _of_split(table, split) for split, table in tables.items() if split in splits and table is not None
    ]
    if not found:
        raise SettingError(
            f"{run.name} has no table of {', '.join(splits)}", "leave --split out: train and test are listed"
        )
    notes: list[str] = []
    table = pd.concat(found, ignore_index=True).sort_values(["image_id", "split"], ignore_index=True)
    table = _with_folds(run, table, notes)
    table = _with_images(run, table, notes)
    table = _with_probabilities(run, table, notes)
    table = _with_losses(table, run.competition.classes)
    keys = [digest([split, name])[:16] for split, name in zip(table["split"], table["image_id"], strict=True)]
    return Listing(_known(table.set_index(pd.Index(keys, name="key"))), run.competition.classes, notes)


def _of_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    columns = [name for name in ("unit_id", "site", "label", "path") if name in table]
    found = table[columns].rename_axis("image_id").reset_index().assign(split=split)
    return found.astype({"image_id": str})


def _with_folds(run: Run, table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Role and fold of the labelled images."""
    if not run.folds.is_file():
        notes.append(f"no folds: {run.folds} is not there")
        return table
    folds = read_strings(run.folds)[["image_id", "role", "fold"]]
    both = [folds.assign(split=split) for split in LABELLED]
    return table.merge(pd.concat(both), on=["split", "image_id"], how="left")


def _with_images(run: Run, table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """What was read and found on each image."""
    place = run.folder("tile") / IMAGES
    if not place.is_file():
        notes.append(f"no tissue, sections and tiles: {place} is not there")
        return table
    images = load_images(run)
    names = [name for name in STORED if name in images]
    return table.merge(images[["split", "image_id", *names]], on=["split", "image_id"], how="left")


def _with_probabilities(run: Run, table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The calibrated probabilities of each image's unit; else the models' own of the image."""
    columns = [f"p_{name}" for name in run.competition.classes]
    folder, how, on = run.folder("combine"), "calibrated, of the whole unit", "unit_id"
    if not (folder / "oof.csv").is_file():
        folder, how, on = run.folder("predict"), "the mean of the models, of the image alone", "image_id"
    if not (folder / "oof.csv").is_file():
        notes.append(f"no probabilities: neither {run.folder('combine') / 'oof.csv'} nor predict's is there")
        return table
    found = []
    for split, names in UNITS.items():
        known = [_probabilities(folder / name, on, columns) for name in names if (folder / name).is_file()]
        if known and len(values := pd.concat(known)):
            found.append(values.rename_axis(on).reset_index().assign(split=split))
    notes.append(f"probabilities ({folder}): {how}; out of fold, or held out, wherever there is a label")
    if again := run_again(run.work, folder.name):
        notes.append(
            f"these probabilities are older than the rest: {again} was run again after {folder.name}"
        )
    return table.merge(pd.concat(found), on=["split", on], how="left") if found else table


def _probabilities(path: Path, on: str, columns: list[str]) -> pd.DataFrame:
    """One row an id ``(n, K)``: the geometric mean of what several models say."""
    cells = read_strings(path)
    if not set(columns) <= set(cells):
        return pd.DataFrame(columns=columns, dtype=float)
    logs = numbers(cells[columns]).clip(metrics.CLIP).apply(np.log)
    values = logs.groupby(cells[on]).mean().apply(np.exp)
    return values.div(values.sum(axis=1), axis=0)


def _with_losses(table: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """The loss of what is labelled, and how much the probabilities are in doubt: 0 sure, 1 all alike."""
    columns = [f"p_{name}" for name in classes]
    if not set(columns) <= set(table):
        return table
    values = table[columns].to_numpy(np.float64)
    known = np.isfinite(values).all(axis=1)
    table["doubt"], table["loss"] = np.nan, np.nan
    shares = metrics.normalise(values[known])
    entropy = -(shares * np.log(shares)).sum(axis=1) / np.log(len(classes))
    table.loc[known, "doubt"] = entropy.clip(0, 1)
    number = pd.Series(range(len(classes)), classes)
    labels = table.get("label", pd.Series("", table.index)).map(number)
    both = known & labels.notna().to_numpy()
    losses = metrics.row_losses(labels[both].to_numpy(np.int64), values[both])
    table.loc[both, "loss"] = losses
    return table


def _known(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns in which nothing is known; words that are absent are empty."""
    words = [name for name in WORDS if name in table]
    table = table.assign(**{name: table[name].fillna("").astype(str) for name in words})
    empty = [name for name in table if (table[name] == "").all() or table[name].isna().all()]
    same = table.get("unit_id", pd.Series("", table.index)).equals(table["image_id"])
    return table.drop(columns=[*empty, *(["unit_id"] if same and "unit_id" not in empty else [])])
