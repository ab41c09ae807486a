"""Reading the tables of a competition, and the rules that they must keep, named line by line."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from kit.errors import DataError, listed
from kit.files import read_strings

log = logging.getLogger("kit")


def read_table(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a table as shipped, every cell as text, and check its columns.

    The ``optional`` ones are taken where all of them are there; others are reported and ignored. Line
    numbers in later messages count the header as line 1.

    Raises:
        DataError: the file is absent or unreadable, or lacks a column.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is not there",
            "give --data the folder as the competition ships it, with its tables at the top",
        )
    table = read_strings(path)
    if missing := [name for name in columns if name not in table]:
        raise DataError(
            f"{path} line 1: the column{'s'[: len(missing) > 1]} {', '.join(missing)}"
            f" must be there; it has {', '.join(map(str, table.columns))}",
            "use the table as the competition ships it",
        )
    columns += optional if set(optional) <= set(table) else ()
    if extra := [str(name) for name in table.columns if name not in columns]:
        log.warning("%s: the extra columns %s are ignored", path, ", ".join(extra))
    table = table[list(columns)]
    table.attrs["source"] = str(path)
    return table


def first_of(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of these files that is in the folder; the first name where none is."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def read_optional(path: Path, columns: tuple[str, ...]) -> pd.DataFrame | None:
    """Like :func:`read_table`, but ``None`` where the file is absent."""
    return read_table(path, columns) if path.is_file() else None


def check_declared(table: pd.DataFrame, split: str, ours: dict[str, str]) -> None:
    """The columns that the declaration names are there and hold text.

    A test table has no label, and an extra one may lack the site.
    """
    source = table.attrs.get("source", f"the {split} table")
    optional = {"test": {"label"}, "other": {"site"}}.get(split, set())
    for name, theirs in ours.items():
        if theirs and theirs not in table and name not in optional:
            raise DataError(
                f"{source}: the declaration says {name.removesuffix('_id')}='{theirs}', which is no column",
                f"it has {', '.join(map(str, table.columns))}",
            )
    if numeric := [str(name) for name in table.select_dtypes(exclude=["object", "string"])]:
        raise DataError(
            f"{source}: the columns {', '.join(numeric)} were read as numbers, which spoils ids",
            "read tables with kit.tables.read_table, or with dtype=str",
        )


def check_ids(table: pd.DataFrame) -> None:
    """Every image has an id, a unit and a group, and none is there twice."""
    source = table.attrs["source"]
    for column in ("image_id", "unit_id", "group_id"):
        empty = table[column].str.strip() == ""
        if empty.any():
            message = f"{source} line {_line(empty)}: the {_theirs(table, column)} is empty"
            raise DataError(message, "give every row its id, or remove the row")
    _check_repeats(table, "image_id", "keep one row an image")


def check_train(table: pd.DataFrame, classes: tuple[str, ...]) -> None:
    """Every label is a class; a unit has one label and one group; a group has at most one site."""
    source = table.attrs["source"]
    wrong = table[~table["label"].isin(classes)]
    if len(wrong):
        image = _theirs(table, "image_id")
        rows = [
            f"line {n + 2}: {image} '{r.image_id}' has label '{r.label}'"
            for n, r in zip(wrong.index, wrong.itertuples(), strict=True)
        ]
        raise DataError(
            f"{source}: labels that are not a class of this competition:\n{listed(rows)}",
            f"the classes are {', '.join(classes)}",
        )
    _check_one_value(table, "unit_id", "label")
    _check_one_value(table, "unit_id", "group_id")
    _check_one_value(table, "group_id", "site")


def fill_sites(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the site of a group in all its rows, where some of them do not say it."""
    known = table["site"].where(table["site"] != "").groupby(table["group_id"]).transform("first")
    return table.assign(site=known.fillna("").astype(object))


def check_sample(sample: pd.DataFrame, unit: str, known: set[str]) -> None:
    """The sample submission asks for each unit once, and only for units of the test table."""
    source = sample.attrs["source"]
    unknown = [f"line {n}: {unit} '{name}'" for n, name in enumerate(sample[unit], 2) if name not in known]
    if unknown:
        raise DataError(
            f"{source}: units that the test table does not have:\n{listed(unknown)}",
            "take the sample submission and the test table of the same download",
        )
    _check_repeats(sample, unit, "keep one row a unit")


def _check_repeats(table: pd.DataFrame, column: str, hint: str) -> None:
    first: dict[str, int] = {}
    found = []
    for line, name in enumerate(table[column], start=2):
        if name in first:
            known = f"is already in line {first[name]}"
            found.append(f"line {line}: {_theirs(table, column)} '{name}' {known}")
        first.setdefault(name, line)
    if found:
        raise DataError(f"{table.attrs['source']}: repeated rows:\n{listed(found)}", hint)


def _check_one_value(table: pd.DataFrame, key: str, column: str) -> None:
    """Each value of ``key`` goes with one value of ``column``; an empty cell is no value."""
    told = table[table[column] != ""].drop_duplicates([key, column])
    one, other = _theirs(table, key), _theirs(table, column)
    found = []
    for name, rows in told[told[key].duplicated(keep=False)].groupby(key):
        lines = zip(rows.index, rows[column], strict=True)
        values = [f"'{value}' in line {n + 2}" for n, value in lines]
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        found.append(f"{one} '{name}' has {other} {', '.join(values[:5])}{more}")
    if found:
        raise DataError(
            f"{table.attrs['source']}: a {one} with more than one {other}:\n{listed(found)}",
            "correct these rows",
        )


def _theirs(table: pd.DataFrame, column: str) -> str:
    """What the file calls a column."""
    return str(table.attrs.get("theirs", {}).get(column, column))


def _line(wrong: pd.Series[bool]) -> int:
    return int(wrong.to_numpy().argmax()) + 2
