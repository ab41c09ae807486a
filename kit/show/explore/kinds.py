"""What kind of variable a column of text cells is, by rules that are written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from kit.competition import Competition

Kind = Literal["identifier", "nominal", "discrete number", "continuous number", "empty"]
RULES = (
    "identifier: the image, unit or group of the declaration; else as many values as rows, if they are no"
    " numbers or the name ends in id",
    "nominal: the label or the site of the declaration; else a column with a cell that is no number, or a"
    " whole number that begins with 0",
    "discrete number: whole numbers only",
    "continuous number: numbers, one of them with a fraction",
)
LARGEST = 1e100  # a number beyond is no measurement, and its square is none at all
FEW = 30  # values that a table of labels by value may have


@dataclass(frozen=True)
class Column:
    """One column of a table.

    why: what decided its kind. numbers: its cells as numbers, NaN where one is none or is missing.
    """

    name: str
    kind: Kind
    why: str
    missing: int
    distinct: int
    numbers: pd.Series[float]

    @property
    def numeric(self) -> bool:
        """Whether it counts or measures something."""
        return self.kind.endswith("number")


def columns(raw: pd.DataFrame, task: Competition) -> dict[str, Column]:
    """Every column of a training table by its name."""
    return {str(name): column(raw[name], task) for name in raw}


def column(cells: pd.Series[str], task: Competition) -> Column:
    """One column of a training table."""
    name, there = str(cells.name), ~missing(cells)
    values = pd.to_numeric(cells.where(there), errors="coerce").astype(float)
    values = values.where(values.abs() < LARGEST)
    kind, why = _kind(name, cells[there], values[there], _roles(task))
    distinct = int(cells[there].nunique())
    return Column(name, kind, why, int((~there).sum()), distinct, values)


def missing(cells: pd.Series[str]) -> pd.Series[bool]:
    """Which cells hold nothing, or nothing but spaces."""
    return cells.isna() | (cells.astype(str).str.strip() == "")


def _roles(task: Competition) -> dict[str, tuple[Kind, str]]:
    """The columns whose kind the declaration says, with their role."""
    found: dict[str, tuple[Kind, str]] = {
        task.site: ("nominal", "the site"),
        task.label: ("nominal", "the label"),
    }
    for name, role in ((task.group, "group"), (task.unit, "unit"), (task.image, "image")):
        found[name] = "identifier", f"the {role}"
    return found


def _kind(
    name: str, cells: pd.Series[str], values: pd.Series[float], roles: Mapping[str, tuple[Kind, str]]
) -> tuple[Kind, str]:
    if not len(cells):
        return "empty", "every cell is empty"
    if name in roles:
        return roles[name]
    whole = np.isfinite(values) & (values % 1 == 0)
    if np.isfinite(values).all() and not whole.all():
        return "continuous number", "numbers, some with a fraction"
    words = not np.isfinite(values).all()
    if len(cells) > 1 and cells.nunique() == len(cells) and (words or name.lower().endswith("id")):
        return "identifier", "every value is there once"
    if words:
        return "nominal", "not every cell is a number"
    if cells.astype(str).str.fullmatch(r"\s*0\d+\s*").any():
        return "nominal", "a whole number begins with 0"
    return "discrete number", "whole numbers"


def ordered(values: pd.Series[str]) -> list[str]:
    """The different values: numbers by size, then words by name."""
    names = values.astype(str).unique()
    numbers = pd.to_numeric(pd.Series(names, dtype=object), errors="coerce")
    pairs = zip(names, numbers, strict=True)
    return [
        name for name, _ in sorted(pairs, key=lambda p: (np.isnan(p[1]), p[1] if p[1] == p[1] else 0, p[0]))
    ]


def looks_like(cells: pd.Series[str]) -> dict[str, int]:
    """How many different ids a program would take for numbers, and spoil by that.

    Returns:
        digits: all digits; zeros: of those, that begin with 0 and would lose it; floats: like 2e3749, which
        would become infinite or another number.
    """
    names = pd.Series(cells.dropna().astype(str).unique(), dtype=object)
    digits = names.str.fullmatch(r"\d+")
    floats = names.str.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?") & ~digits
    zeros = digits & names.str.fullmatch(r"0\d+")
    return {"digits": int(digits.sum()), "zeros": int(zeros.sum()), "floats": int(floats.sum())}
