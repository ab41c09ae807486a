"""Missed units of each class beside the tolerances that a laboratory gives."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.combine import classification, tolerance
from kit.errors import DataError

CLASSES = ("ig", "platelet", "monocyte")


def test_tolerances_are_shares_or_per_cent(tmp_path: Path) -> None:
    (path := tmp_path / "t.csv").write_text("label,tolerance\nig,0.02\nplatelet,5%\n")
    assert tolerance.read(path, CLASSES) == {"ig": 0.02, "platelet": 0.05}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("platelets,0.1", "line 2: 'platelets' is no class"),
        ("ig,0.1\nig,0.2", "line 3: 'ig' is there already"),
        ("ig,2", "line 2: '2' is no tolerance"),
        ("ig,", "line 2: '' is no tolerance"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: str, said: str) -> None:
    (path := tmp_path / "t.csv").write_text(f"label,tolerance\n{rows}\n")
    with pytest.raises(DataError, match=said):
        tolerance.read(path, CLASSES)


def report(counts: np.ndarray, size: int = 1) -> list[dict[str, Any]]:
    """The report of each class, where so many units that lie end to end are a group."""
    labels, called = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    groups = (np.arange(len(labels)) // size).astype(object)
    return [asdict(row) for row in classification.report(labels, np.eye(3)[called], groups, CLASSES)]


def test_units_of_few_groups_are_too_few_for_a_verdict() -> None:
    counts = np.array([[1000, 0, 0], [100, 900, 0], [0, 0, 1000]])
    rows = tolerance.standings(counts, report(counts, size=100), dict.fromkeys(CLASSES, 0.05))
    assert [row.verdict for row in rows] == ["not known"] * 3


def test_the_verdict_waits_for_enough_units() -> None:
    counts = np.array([[1000, 0, 0], [100, 900, 0], [1, 0, 9]])
    rows = tolerance.standings(counts, report(counts), dict.fromkeys(CLASSES, 0.05))
    assert [row.verdict for row in rows] == ["within", "beyond", "not known"]
    assert [(row.missed, row.added) for row in rows] == [(0, 101), (100, 0), (1, 0)]


def test_a_class_that_nobody_gave_a_tolerance_is_left_out() -> None:
    counts = np.eye(3, dtype=np.int64)
    rows = tolerance.standings(counts, report(counts), {"monocyte": 0.1})
    assert [row.name for row in rows] == ["monocyte"]
