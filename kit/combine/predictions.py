"""Predictions of one model, ours or another team's: read, checked, and brought to units."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.combine.aggregate import UnitLogits, unit_logits
from kit.errors import DataError, did_you_mean, listed
from kit.files import numbers, read_strings
from kit.metrics import Array

COLUMNS = ("image_id", "unit_id", "model", "seed", "fold")


@dataclass(frozen=True)
class Source:
    """Where the ids of a file are looked up: images with their unit, and the class names."""

    units: pd.Series[str]  # unit_id of each image_id
    unit_column: str  # what the competition calls a unit
    image_column: str  # ... and an image
    classes: tuple[str, ...]


def read_own(path: Path, classes: tuple[str, ...]) -> dict[str, UnitLogits]:
    """The unit logits of every model in a table that `predict` wrote: model -> logits."""
    table = read_strings(path)
    columns = [f"p_{name}" for name in classes]
    values = table[columns].astype(float)
    found = {}
    for model, rows in table.groupby("model"):
        units = pd.Series(rows["unit_id"].to_numpy(), rows["image_id"].to_numpy())
        found[str(model)] = unit_logits(values.loc[rows.index].to_numpy(), units, classes)
    return found


def read_external(path: Path, source: Source) -> UnitLogits:
    """The unit logits of a file made elsewhere: by image or by unit.

    The columns are an id and either one column a class (``p_CE`` or ``CE``) or a single
    ``predictions``, the probability of the last class.

    Raises:
        DataError: no id column, an unknown or repeated id, or a value that is no probability.
    """
    if not path.is_file():
        raise DataError(f"{path} is not there", "check the path")
    table = read_strings(path)
    column, by_unit = _id_column(table, source, path)
    values = _probabilities(table, source.classes, path)
    _check(table[column], values, source, by_unit, path)
    ids = table[column].to_numpy()
    units = ids if by_unit else source.units.loc[ids].to_numpy()
    return unit_logits(values, pd.Series(units, ids), source.classes)


def _id_column(table: pd.DataFrame, source: Source, path: Path) -> tuple[str, bool]:
    for name in (source.image_column, "image_id"):
        if name in table:
            return name, False
    for name in (source.unit_column, "unit_id"):
        if name in table:
            return name, True
    raise DataError(
        f"{path} has no id column; it has {', '.join(map(str, table.columns))}",
        f"name its first column {source.image_column} or {source.unit_column}",
    )


def _probabilities(table: pd.DataFrame, classes: tuple[str, ...], path: Path) -> Array:
    """The table's probabilities ``(n, K)``; NaN where a cell is no number."""
    for names in ([f"p_{name}" for name in classes], list(classes)):
        if all(name in table for name in names):
            return numbers(table[names]).to_numpy(dtype=np.float64)
    if "predictions" in table and len(classes) == 2:
        last = pd.to_numeric(table["predictions"], errors="coerce").to_numpy(dtype=np.float64)
        return np.stack([1 - last, last], axis=1)
    raise DataError(
        f"{path} has no probabilities; it has the columns {', '.join(map(str, table.columns))}",
        f"it needs {', '.join('p_' + name for name in classes)}, or predictions for two classes",
    )


def _check(ids: pd.Series[str], values: Array, source: Source, by_unit: bool, path: Path) -> None:
    known = set(source.units) if by_unit else set(source.units.index)
    what = source.unit_column if by_unit else source.image_column
    unknown = [f"line {n}: {what} '{name}'" for n, name in enumerate(ids, 2) if name not in known]
    if unknown:
        name = next(name for name in ids if name not in known)
        some = difflib.get_close_matches(name, known, n=1) + sorted(known)[:3]
        message = f"{path}: ids that the tables do not have:\n{listed(unknown)}"
        raise DataError(message, did_you_mean(name, dict.fromkeys(some)))
    if ids.duplicated().any():
        n = int(ids.duplicated().to_numpy().argmax())
        raise DataError(f"{path} line {n + 2}: {what} '{ids.iloc[n]}' is repeated", "keep one row")
    bad = ~np.isfinite(values).all(axis=1) | (values < 0).any(axis=1) | (values > 1).any(axis=1)
    with np.errstate(invalid="ignore"):  # an infinity has been found already
        bad |= values.sum(axis=1) <= 0
    if bad.any():
        n = int(bad.argmax())
        raise DataError(
            f"{path} line {n + 2}: {what} '{ids.iloc[n]}' has {values[n].tolist()}, no probability",
            "every row needs numbers from 0 to 1 with a positive sum",
        )
