"""Predictions of one model, ours or another team's: read, checked, and brought to units."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.combine.aggregate import UnitLogits, unit_logits
from kit.competition import Competition
from kit.errors import DataError, did_you_mean, listed
from kit.files import numbers, read_strings, with_column
from kit.fold_audit import bare
from kit.metrics import Array

COLUMNS = ("image_id", "unit_id", "model", "seed", "fold")
PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")  # endings of compressed tables, which are read as they are


@dataclass(frozen=True)
class Source:
    """Where the ids of a file are looked up: images with their unit, and the class names."""

    units: pd.Series[str]  # unit_id of each image_id
    unit_column: str  # what the competition calls a unit
    image_column: str  # ... and an image
    classes: tuple[str, ...]


def read_own(path: Path, classes: tuple[str, ...]) -> dict[str, UnitLogits]:
    """The unit logits of every model in a table that `predict` wrote: model -> logits.

    Raises:
        DataError: a value is no number.
    """
    return own_logits(read_strings(path), classes, str(path))


def own_logits(table: pd.DataFrame, classes: tuple[str, ...], source: str) -> dict[str, UnitLogits]:
    """The same of a table that is read already; its cells may be text.

    Args:
        source: what a message calls the table.
    """
    columns = [f"p_{name}" for name in classes]
    values = numbers(table[columns])
    bad = ~np.isfinite(values.to_numpy()).all(axis=1)
    if bad.any():
        row = table.iloc[n := int(bad.argmax())]
        raise DataError(
            f"{source} line {n + 2}: model '{row['model']}' without fold {row['fold']} has no probability of"
            f" image '{row['image_id']}'",
            "repeat predict with --force; where it refuses, the fit has failed: give the model a lower rate",
        )
    found = {}
    for model, rows in table.groupby("model"):
        units = pd.Series(rows["unit_id"].to_numpy(), rows["image_id"].to_numpy())
        found[str(model)] = unit_logits(values.loc[rows.index].to_numpy(), units, classes)
    return found


def read_external(path: Path, source: Source) -> UnitLogits:
    """The unit logits of a file made elsewhere: by image or by unit.

    The columns are an id and either one column a class (``p_CE`` or ``CE``) or, for two classes, a single
    one with the probability of the last class: ``predictions``, ``p_LAA`` or ``LAA``, or whichever column
    ``FILE:COLUMN`` names, which only by the name of the first class (``CE``, ``p_CE``) is that of the first.
    An id may be the name of an image file: its folders and its ending are left away.

    Raises:
        DataError: no id column, an unknown or repeated id, or a value that is no probability.
    """
    file, asked = with_column(path)
    if not file.is_file():
        raise DataError(f"{path} is not there", "check the path; or name a column of a file: FILE:COLUMN")
    table = read_strings(file)
    column, by_unit = _id_column(table, source, file)
    if asked:
        _check_asked(table, asked, source.classes, file)
    told = table[[asked] if asked else _columns(table, source.classes, file)]
    values = _probabilities(told, source.classes)
    known = set(source.units) if by_unit else set(source.units.index)
    ids = _without_ending(table[column], known)
    what = source.unit_column if by_unit else source.image_column
    _check_ids(ids, known, what, path)
    _check_values(ids, told, values, what, path)
    units = ids if by_unit else source.units.loc[ids]
    return unit_logits(values, pd.Series(units.to_numpy(), ids.to_numpy()), source.classes)


def plain(path: Path, task: Competition) -> bytes:
    """A table made elsewhere as one CSV: its own bytes, or what a packed file or one column of it says.

    A run is known by these bytes, and they are kept beside its submission.

    Raises:
        DataError: the file cannot be read, or has no such column.
    """
    file, asked = with_column(path)
    if not asked and file.suffix.lower() not in PACKED:
        return file.read_bytes()
    table = read_strings(file)
    if asked:
        _check_there(table, asked, file)
        ids = dict.fromkeys((task.image, "image_id", task.unit, "unit_id"))
        known = [name for name in ids if name in table]
        # Of the first class it is told the other way round, as `predictions` is of the last one.
        last = _of_last(table[[asked]], task.classes) if _of_first(asked, task.classes) else table[asked]
        table = table[known].assign(predictions=last)
    return table.to_csv(index=False, lineterminator="\n").encode()


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


def _columns(table: pd.DataFrame, classes: tuple[str, ...], path: Path) -> list[str]:
    """The columns with the probability of each class, or the one with that of the second of two."""
    prefixed, plain = [f"p_{name}" for name in classes], list(classes)
    for names in (prefixed, plain):
        if all(name in table for name in names):
            return names
    hint = f"it needs {', '.join(prefixed)}"
    if len(classes) == 2:
        # Beside a column of the first class, one of the last is half of a pair whose names do not fit.
        alone = [] if {prefixed[0], plain[0]} & set(table.columns) else [prefixed[1], plain[1]]
        for name in ("predictions", *alone):
            if name in table:
                return [name]
        hint += f"; or one column with the probability of {plain[1]}: predictions or {plain[1]}"
    raise DataError(
        f"{path} has no probabilities; it has the columns {', '.join(map(str, table.columns))}", hint
    )


def _check_asked(table: pd.DataFrame, asked: str, classes: tuple[str, ...], path: Path) -> None:
    """The column that was asked for is there, and says all that is to be known."""
    _check_there(table, asked, path)
    if len(classes) != 2:
        raise DataError(
            f"{path}:{asked} is one column, and there are {len(classes)} classes",
            f"give a file with a column a class: {', '.join(f'p_{name}' for name in classes)}",
        )


def _check_there(table: pd.DataFrame, asked: str, path: Path) -> None:
    if asked not in table:
        raise DataError(f"{path} has no column '{asked}'", did_you_mean(asked, map(str, table.columns)))


def _probabilities(cells: pd.DataFrame, classes: tuple[str, ...]) -> Array:
    """The probabilities ``(n, K)`` that text cells tell; NaN where one is no number."""
    if cells.shape[1] > 1:
        return numbers(cells).to_numpy(dtype=np.float64)
    last = _of_last(cells, classes)
    return np.stack([1 - last, last], axis=1)


def _of_last(cells: pd.DataFrame, classes: tuple[str, ...]) -> Array:
    """The probability of the last of two classes ``(n,)``, from one column of text cells."""
    values = numbers(cells).to_numpy(dtype=np.float64)[:, 0]
    return np.asarray(1 - values if _of_first(str(cells.columns[0]), classes) else values)


def _of_first(column: str, classes: tuple[str, ...]) -> bool:
    """Whether a single column has the probability of the first of two classes: by its name alone."""
    return len(classes) == 2 and column in (classes[0], f"p_{classes[0]}")


def _without_ending(ids: pd.Series[str], known: set[str]) -> pd.Series[str]:
    """The ids, where one that is not known becomes the id in its file name, if that is known."""
    names = ids.map(bare)
    return names.where(~ids.isin(known) & names.isin(known), ids)


def _check_ids(ids: pd.Series[str], known: set[str], what: str, path: Path) -> None:
    """Every id is known, and none is there twice."""
    unknown = [f"line {n}: {what} '{name}'" for n, name in enumerate(ids, 2) if name not in known]
    if unknown:
        name = next(name for name in ids if name not in known)
        some = difflib.get_close_matches(name, known, n=1) + sorted(known)[:3]
        message = f"{path}: ids that the tables do not have:\n{listed(unknown)}"
        raise DataError(message, did_you_mean(name, dict.fromkeys(some)))
    if ids.duplicated().any():
        n = int(ids.duplicated().to_numpy().argmax())
        raise DataError(f"{path} line {n + 2}: {what} '{ids.iloc[n]}' is repeated", "keep one row")


def _check_values(ids: pd.Series[str], told: pd.DataFrame, values: Array, what: str, path: Path) -> None:
    """Every row is a probability; a message has the cells as they are in the file."""
    bad = ~np.isfinite(values).all(axis=1) | (values < 0).any(axis=1) | (values > 1).any(axis=1)
    with np.errstate(invalid="ignore"):  # an infinity has been found already
        bad |= values.sum(axis=1) <= 0
    if bad.any():
        n = int(bad.argmax())
        cells = ", ".join(f"{name} '{cell}'" for name, cell in told.iloc[n].items())
        raise DataError(
            f"{path} line {n + 2}: {what} '{ids.iloc[n]}' has {cells}, no probability",
            "every row needs numbers from 0 to 1 with a positive sum; divide percents by 100",
        )
