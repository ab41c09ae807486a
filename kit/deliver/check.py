"""The rules of a submission file, each naming the first row that breaks it and how to mend it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit.competition import Competition
from kit.errors import DataError, SettingError, SubmissionError
from kit.files import numbers, read_strings
from kit.metrics import CLIP, Array, Metric
from kit.tables import check_sample

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
OFF = 1e-6  # what printing may take away from a row's sum
ROOM = 2**20  # bytes that any file may have, whatever is expected
CELL = 64  # bytes that a number may take, written with every digit
# How files begin that are no text.
FOREIGN = {
    b"PK": "it is a zip archive or an Excel workbook: save it as CSV, and do not pack it",
    b"\xff\xfe": "it is UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16 text: save it as UTF-8",
    b"\x1f\x8b": "it is a gzip archive: unpack it",
}


@dataclass(frozen=True)
class Wanted:
    """What a submission must look like.

    unit: the name of the id column.
    classes: those of the other columns.
    ids: of the sample submission, in its order.
    """

    unit: str
    classes: tuple[str, ...]
    ids: Sequence[str]

    @property
    def columns(self) -> list[str]:
        """The header."""
        return [self.unit, *self.classes]

    @property
    def most(self) -> int:
        """Bytes beyond which a file is something else."""
        ids = sum(len(name.encode()) + 2 for name in self.ids)
        return ROOM + 4 * (ids + CELL * len(self.ids) * len(self.classes))


@dataclass(frozen=True)
class Sheet:
    """A file as it is: the cells of each row, and the line of the file that it ends in."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    @property
    def ids(self) -> list[str]:
        """The first cell of each row."""
        return [row[0] for row in self.rows]

    def fault(self, n: int, said: str, hint: str) -> SubmissionError:
        """What is wrong with row ``n``."""
        return SubmissionError(f"{self.path} line {self.lines[n]}: {self.header[0]} {said}", hint)


def check_submission(path: Path, unit: str, classes: Sequence[str], expected: Sequence[str]) -> None:
    """Check a submission as the competition will read it.

    Args:
        unit: the name of the id column.
        expected: the ids of the sample submission, in its order.

    Raises:
        SubmissionError: the columns, ids or values break a rule.
    """
    probabilities(path, Wanted(unit, tuple(classes), expected))


def probabilities(path: Path, wanted: Wanted) -> tuple[Sheet, Array]:
    """The rows of a sound submission, and their numbers ``(n, K)``.

    Raises:
        SubmissionError: it breaks a rule.
    """
    sheet = _read(path, wanted)
    _check_header(sheet, wanted)
    _check_ids(sheet, list(wanted.ids))
    return sheet, _check_values(sheet)


def judge(file: Path, sample: Path, task: Competition) -> tuple[str, int]:
    """Judge anybody's submission by a sample alone: what the console prints, and the exit code.

    Raises:
        SettingError: one of the two is no file.
        DataError: the sample is not one of this competition.
    """
    if not sample.is_file():
        raise SettingError(f"--sample: {sample} is not a file", "check the path")
    table = read_strings(sample)
    columns = [task.unit, *task.classes]
    if list(table.columns) != columns:
        raise DataError(
            f"{sample} line 1: a sample of {task.name} has the columns {', '.join(columns)}, and this one"
            f" {', '.join(map(str, table.columns))}",
            "give the sample_submission.csv of this competition, or name another competition",
        )
    if not len(table):
        raise DataError(f"{sample} has no row", "give the sample_submission.csv as it was shipped")
    table.attrs["source"] = str(sample)
    check_sample(table, task.unit, set(table[task.unit]))
    return verdict(file, task, table.set_index(task.unit))


def verdict(file: Path, task: Competition, sample: pd.DataFrame) -> tuple[str, int]:
    """What is said of a file, and 1 where it breaks a rule.

    Args:
        sample: indexed by the expected ids in their order; its cells are text, of every class or of none.

    Raises:
        SettingError: there is no such file.
    """
    if not file.is_file():
        raise SettingError(f"--check: {file} is not a file", "check the path")
    wanted = Wanted(task.unit, task.classes, list(sample.index))
    try:
        sheet, values = probabilities(file, wanted)
    except SubmissionError as error:
        return f"{error.message}\nto mend it: {error.hint}", 1
    known = list(task.classes)
    given = numbers(sample[known]).to_numpy(dtype=float) if set(known) <= set(sample) else None
    lines = [f"{file}: sound. {len(values)} rows with the columns, ids and order of the sample"]
    return "\n".join([*lines, *suspicions(sheet, values, given, task.metric)]), 0


def suspicions(sheet: Sheet, values: Array, sample: Array | None, metric: Metric) -> list[str]:
    """What no rule forbids and nobody wants, a sentence each.

    Args:
        values: the probabilities ``(n, K)``.
        sample: those of the sample; ``None`` where it has none.
    """
    found = []
    same = np.zeros(len(values), bool) if sample is None else (values == sample).all(axis=1)
    if len(values) and same.all():
        found.append("every row is that of the sample: nothing was predicted")
    elif same.any():
        found.append(f"{_rows(sheet, same)} as in the sample: was nothing predicted there?")
    if len(values) > 1 and not same.all() and (values == values[0]).all():
        prior = metric.fixed_prior
        known = prior is not None and bool(np.allclose(values[0], prior))
        what = "the prior that units without an image get" if known else "is it a fallback?"
        found.append(f"every row says the same, {', '.join(sheet.rows[0][1:])}: {what}")
    certain = ((values == 0) | (values == 1)).any(axis=1)
    if certain.any():
        found.append(
            f"{_rows(sheet, certain)} with a probability of exactly 0 or 1: one that is wrong adds"
            f" {-math.log(CLIP):.1f} to the sum of losses; keep away from both ends"
        )
    return [f"but {sentence}" for sentence in found]


def _rows(sheet: Sheet, some: NDArray[np.bool_]) -> str:
    """How many rows these are, and the first of them."""
    count, first = int(some.sum()), sheet.lines[int(some.argmax())]
    return f"{count} of {len(some)} rows {'is' if count == 1 else 'are'} (the first is line {first})"


# --- the file ---------------------------------------------------------------------------------------


def _read(path: Path, wanted: Wanted) -> Sheet:
    """The cells of a CSV; a BOM, quotes and any line ends are harmless."""
    reader = csv.reader(io.StringIO(_text(path, wanted), newline=""))
    try:
        found = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise SubmissionError(
            f"{path} line {reader.line_num}: it cannot be read as a CSV: {error}", "write it with to_csv"
        ) from error
    if not found:
        raise _unreadable(path, "it is empty", "write a header and a row for every id of the sample")
    return Sheet(path, found[0][1], [row for _, row in found[1:]], [line for line, _ in found[1:]])


def _text(path: Path, wanted: Wanted) -> str:
    try:
        size = path.stat().st_size
        if size > wanted.most:
            raise SubmissionError(
                f"{path} has {size:,} bytes, and {len(wanted.ids)} rows take less than {wanted.most:,}",
                "write one row an id, with the columns of the sample; is it the right file?",
            )
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error), "check the path and its rights") from error
    for start, hint in FOREIGN.items():
        if data.startswith(start):
            raise _unreadable(path, "it is no plain text", hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _unreadable(path, f"line {line} is not UTF-8", "save it as UTF-8") from error


def _unreadable(path: Path, why: str, hint: str) -> SubmissionError:
    return SubmissionError(f"{path} cannot be read as a CSV: {why}", hint)


def _check_header(sheet: Sheet, wanted: Wanted) -> None:
    """The columns of the sample in its order, and as many cells in every row."""
    if sheet.header != wanted.columns:
        raise SubmissionError(
            f"{sheet.path} line 1: the columns are {', '.join(sheet.header)}",
            f"they must be {', '.join(wanted.columns)}, in this order{_slip(sheet.header, wanted)}",
        )
    for row, line in zip(sheet.rows, sheet.lines, strict=True):
        if len(row) != len(sheet.header):
            comma = "; a decimal comma? write 0.5" if len(row) > len(sheet.header) else ""
            raise SubmissionError(
                f"{sheet.path} line {line}: it has {len(row)} cells, and the header {len(sheet.header)}:"
                f" {', '.join(row)}",
                f"write an id and a number for each of {', '.join(wanted.classes)}{comma}",
            )


def _slip(header: list[str], wanted: Wanted) -> str:
    """Why a header may be another than it must be."""
    columns = wanted.columns
    if header[0] in ("", "Unnamed: 0", "index") and header[1:] == columns:
        return f"; '{header[0]}' is the index of a data frame: write it with to_csv(path, index=False)"
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        return "; cells are parted by commas"
    if [name.strip().casefold() for name in header] == [name.casefold() for name in columns]:
        return "; spaces, upper and lower case count"
    if any(NUMBER.fullmatch(cell) for cell in header[1:]):
        return "; the first line is a row already: write the header above it"
    return ""


# --- ids --------------------------------------------------------------------------------------------


def _check_ids(sheet: Sheet, expected: list[str]) -> None:
    """Every id of the sample once, as text, in its order."""
    wanted = set(expected)
    seen: dict[str, int] = {}
    for n, name in enumerate(sheet.ids):
        if name in seen:
            raise sheet.fault(n, f"'{name}' is already in line {seen[name]}", "keep one row an id")
        if name not in wanted:
            raise sheet.fault(n, f"'{name}' is not in the sample", _stranger(name, expected, sheet.header[0]))
        seen[name] = sheet.lines[n]
    if missing := [name for name in expected if name not in seen]:
        raise SubmissionError(
            f"{sheet.path}: {len(missing)} ids of the sample are missing, first '{missing[0]}'",
            "give each a row; where nothing is known, the class shares that are scored",
        )
    for n, (name, right) in enumerate(zip(sheet.ids, expected, strict=True)):
        if name != right:
            hint = "keep the order of the sample"
            raise sheet.fault(n, f"'{name}' stands where the sample has '{right}'", hint)


def _stranger(name: str, expected: list[str], unit: str) -> str:
    """What an id that is not expected may have been."""
    for right in expected:
        if name.strip().casefold() == right.casefold():
            return f"write '{right}': spaces, upper and lower case count"
        if _same_number(right, name):
            return f"'{right}' was turned into a number: keep ids as text"
    if any(name.startswith(f"{right}_") for right in expected):
        return f"it looks like the id of an image: write one row a {unit}"
    return "take the ids of the sample, and leave out other rows"


def _same_number(text: str, other: str) -> bool:
    """Whether two different ids are the same number, as ``006388`` and ``6388`` are."""
    try:
        return text != other and float(text) == float(other)
    except ValueError:
        return False


# --- numbers ----------------------------------------------------------------------------------------


def _check_values(sheet: Sheet) -> Array:
    """Numbers from 0 to 1 whose rows sum to 1 ``(n, K)``."""
    cells = [[cell.strip(" \t") for cell in row[1:]] for row in sheet.rows]  # no other space is read as one
    plain = [[float(cell) if NUMBER.fullmatch(cell) else math.nan for cell in row] for row in cells]
    values = np.array(plain, dtype=np.float64).reshape(len(cells), len(sheet.header) - 1)
    with np.errstate(invalid="ignore"):  # a number may be too large to be one
        sums = values.sum(axis=1)
        faults = (
            (~np.isfinite(values), "is not a number in every class"),
            ((values < 0) | (values > 1), "is outside 0 to 1"),
            ((np.abs(sums - 1) > OFF)[:, None], "does not sum to 1"),
        )
    for bad, rule in faults:
        if bad.any():
            n, k = np.argwhere(bad)[0]
            hint = f"divide the row by its sum, {sums[n]:.9g}"
            if rule != "does not sum to 1":
                hint = f"{sheet.header[k + 1]} is '{sheet.rows[n][k + 1]}': {_number(cells[n][k], sums[n])}"
            said = f"'{sheet.ids[n]}' {rule}: {', '.join(sheet.rows[n][1:])}"
            raise sheet.fault(int(n), said, hint)
    return values


def _number(cell: str, total: float) -> str:
    """What to write instead of a cell that is no probability, of a row with this sum."""
    if not cell or cell.casefold() in ("nan", "na", "n/a", "null", "none"):
        return "fill what is empty, with the class shares that are scored where nothing is known"
    if cell.endswith("%") or abs(total - 100) < 1:
        return "divide percents by 100"
    if re.fullmatch(r"[+-]?\d*,\d+", cell):
        return "write a decimal point, not a comma"
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", cell):
        return "write it without separators of thousands"
    if NUMBER.fullmatch(cell) or cell.casefold().lstrip("+-") in ("inf", "infinity"):
        return "write a probability, not a logit or a score"
    return "write a probability such as 0.5"
