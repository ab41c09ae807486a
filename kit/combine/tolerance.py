"""How many units of each class go wrong, beside the tolerances of a laboratory, which it alone can give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit.errors import DataError, did_you_mean
from kit.tables import read_table


@dataclass(frozen=True)
class Standing:
    """One class: its units, how many of them are missed and how many others are taken for it.

    low, high: the 95 % interval of the missed share, that of the class's recall. verdict: "within" where even
    ``high`` is tolerated, "beyond" where not even ``low`` is, else "not known": too few units to say.
    """

    name: str
    units: int
    missed: int
    added: int
    low: float
    high: float
    tolerance: float
    verdict: str


def read(path: Path, classes: Sequence[str]) -> dict[str, float]:
    """The tolerated share of missed units by class, from a table ``label,tolerance``; .02 or 2%.

    Raises:
        DataError: a label is no class or comes twice, or a tolerance is no share.
    """
    table, found = read_table(path, ("label", "tolerance")), dict[str, float]()
    for line, (label, text) in enumerate(zip(table["label"], table["tolerance"], strict=True), 2):
        if label not in classes:
            raise DataError(f"{path} line {line}: '{label}' is no class", did_you_mean(label, classes))
        if label in found:
            raise DataError(f"{path} line {line}: '{label}' is there already", "keep one row a class")
        found[label] = _share(text, f"{path} line {line}")
    return found


def _share(text: str, where: str) -> float:
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise DataError(f"{where}: '{text}' is no tolerance", "write a share such as 0.02, or 2%")
    return value


def standings(
    counts: NDArray[np.int64], report: Sequence[Mapping[str, Any]], tolerances: Mapping[str, float]
) -> list[Standing]:
    """Every class that has a tolerance and units, from counts ``(K, K)`` by true and by called class.

    Args:
        report: a row a class, as `kit.combine.classification.ClassReport`: its name and recall, whose
            interval knows that units of a group are not independent.
    """
    found = []
    for k, row in enumerate(report):
        name = row["name"]
        units = int(counts[k].sum())
        if name not in tolerances or not units:
            continue
        missed, added = units - int(counts[k, k]), int(counts[:, k].sum() - counts[k, k])
        low, high = 1 - row["recall"]["high"], 1 - row["recall"]["low"]
        least = tolerances[name]
        verdict = "within" if high <= least else "beyond" if low > least else "not known"
        found.append(Standing(name, units, missed, added, low, high, least, verdict))
    return found


HEAD = ("class", "units", "missed", "added", "missed share", "95 % interval", "tolerated", "verdict")


def cells(row: Standing) -> tuple[str, ...]:
    """One class as a line."""
    share = f"{row.missed / row.units:.4f}"
    counts = str(row.units), str(row.missed), str(row.added)
    return (row.name, *counts, share, f"{row.low:.4f} - {row.high:.4f}", f"{row.tolerance:g}", row.verdict)
