"""The rules of a submission file, each naming the first row that breaks it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit.errors import DataError, SubmissionError
from kit.files import numbers, read_strings


def check_submission(path: Path, unit: str, classes: Sequence[str], expected: Sequence[str]) -> None:
    """Check a submission as the competition will read it.

    Args:
        unit: the name of the id column.
        expected: the ids of the sample submission, in its order.

    Raises:
        SubmissionError: the columns, ids or values break a rule.
    """
    try:
        table = read_strings(path)
    except (OSError, DataError) as error:
        raise SubmissionError(f"{path} cannot be read as a CSV: {error}") from error
    columns = [unit, *classes]
    if list(table.columns) != columns:
        raise SubmissionError(
            f"{path} line 1: the columns are {', '.join(table.columns)}",
            f"they must be {', '.join(columns)}, in this order",
        )
    _check_ids(path, unit, table[unit].tolist(), list(expected))
    _check_values(path, unit, table, classes)


def _check_ids(path: Path, unit: str, ids: list[str], expected: list[str]) -> None:
    """Every id of the sample once, as text, in its order."""
    wanted = set(expected)
    seen: dict[str, int] = {}
    for line, name in enumerate(ids, start=2):
        if name in seen:
            raise SubmissionError(f"{path} line {line}: {unit} '{name}' is already in line {seen[name]}")
        if name not in wanted:
            as_number = [e for e in expected if _same_number(e, name)]
            hint = f"'{as_number[0]}' was turned into a number: keep ids as text" if as_number else ""
            raise SubmissionError(f"{path} line {line}: {unit} '{name}' is not in the sample", hint)
        seen[name] = line
    if missing := [name for name in expected if name not in seen]:
        raise SubmissionError(f"{path}: {len(missing)} ids of the sample are missing, first '{missing[0]}'")
    for line, (name, right) in enumerate(zip(ids, expected, strict=True), start=2):
        if name != right:
            raise SubmissionError(
                f"{path} line {line}: {unit} '{name}' stands where the sample has '{right}'",
                "keep the order of the sample",
            )


def _same_number(text: str, other: str) -> bool:
    """Whether two different ids are the same number, as ``006388`` and ``6388`` are."""
    try:
        return text != other and float(text) == float(other)
    except ValueError:
        return False


def _check_values(path: Path, unit: str, table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Numbers from 0 to 1 whose rows sum to 1."""
    values = numbers(table[list(classes)]).to_numpy(dtype=float)
    for bad, why in (
        (~np.isfinite(values).all(axis=1), "is not a number in every class"),
        (((values < 0) | (values > 1)).any(axis=1), "is outside 0 to 1"),
        (np.abs(values.sum(axis=1) - 1) > 1e-6, "does not sum to 1"),
    ):
        if bad.any():
            n = int(bad.argmax())
            cells = ", ".join(str(table[name][n]) for name in classes)
            raise SubmissionError(f"{path} line {n + 2}: {unit} '{table[unit][n]}' {why}: {cells}")
