"""What a submission's own folder says of its score, and how alike two of them err."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from kit import metrics
from kit.combine.rivals import FEW
from kit.competition import Competition
from kit.deliver import manifest
from kit.errors import DataError
from kit.files import numbers, read_strings
from kit.metrics import Array

WIDTH = 2 * float(norm.ppf(0.975))  # standard errors from end to end of a 95 % interval
RESAMPLES = 500
ALIKE = 0.9  # correlation of the losses of two submissions where it cannot be known
Training = Callable[[], pd.DataFrame] | None  # reads the training table, once


@dataclass(frozen=True)
class Standing:
    """What a submission is expected to score.

    cv, low, high: its nested out-of-fold score, with the 95 % bootstrap interval.
    scored: the units behind it. units: those of the test set, and ``why`` so many.
    to_safe: correlation of its errors with those of the run's safe submission; 1 of that itself.
    """

    folder: Path
    cv: float
    low: float
    high: float
    scored: int
    units: int
    why: str
    to_safe: float = 1.0

    @property
    def se(self) -> float:
        """Standard error of the CV."""
        return (self.high - self.low) / WIDTH

    @property
    def noise(self) -> float:
        """Standard error of a score on the test's units, whose losses spread as those of the folds do."""
        return self.se * math.sqrt(self.scored / self.units)

    def surprise(self, score: float) -> float:
        """How far a score is from what was predicted, in standard errors; above 0: worse."""
        return (score - self.cv) / max(math.hypot(self.se, self.noise), 1e-12)


def standing(folder: Path, bold: bool, units: int) -> Standing:
    """Read a submission's folder.

    Args:
        units: of the test set; 0: those of the submission, unless these are a stand-in of a few.

    Raises:
        DataError: it cannot be read, was changed, or has no interval.
    """
    claim: dict[str, Any] = manifest.read(folder)["claim"]
    scored, near = int(claim["units"]), 1.0
    if bold:
        claim, near = _bold(folder, claim)
    if claim["low"] is None or claim["high"] is None:
        raise DataError(f"{folder}: its score has no interval", "score more units of every class")
    size, why = (units, "as was typed") if units else test_size(folder, scored)
    return Standing(folder, claim["score"], claim["low"], claim["high"], scored, size, why, near)


def test_size(folder: Path, scored: int) -> tuple[int, str]:
    """How many units the leaderboard has, and why that is assumed."""
    rows = len(read_strings(folder / "submission.csv"))
    if rows < max(FEW, scored // 10):
        why = f"as many as were scored, since the sample's {rows} stand in for a hidden test (else --units N)"
        return scored, why
    return rows, "those of the sample"


def _bold(folder: Path, safe: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The row of the bold submission in ``metrics.json``, and how its errors go with those of the safe."""
    content = json.loads((folder / "metrics.json").read_text())
    name = (content.get("submissions") or {}).get("name")
    rows = [row for row in content["rows"] if row["set"] == "oof" and row["name"] == name]
    if not rows or rows[0]["low"] is None:
        raise DataError(
            f"{folder}: metrics.json has no score of a bold submission", "repeat combine and submit"
        )
    spread = [(row["high"] - row["low"]) / WIDTH for row in (safe, rows[0])]
    apart = content["submissions"]["se"]
    if min(spread) <= 0:
        return rows[0], 1.0
    near = (spread[0] ** 2 + spread[1] ** 2 - apart**2) / (2 * spread[0] * spread[1])
    return rows[0], float(np.clip(near, -1.0, 1.0))


# --- how alike they are -----------------------------------------------------------------------------


def alike(task: Competition, data: Path | None, found: Sequence[Standing]) -> tuple[Array, list[str]]:
    """Correlation ``(n, n)`` of the errors of submissions, and what had to be assumed.

    Of two runs it is that of their bootstrapped scores on the units of both; a bold submission goes with
    others as far as the safe one of its run does.
    """
    folders = sorted({one.folder for one in found})
    training = None if data is None else cache(lambda: task.tables(data).train)
    between = {(a, b): _correlation(task, training, a, b) for a in folders for b in folders if a < b}
    many = len(found)
    matrix = np.eye(many)
    for n in range(many):
        for m in range(n):
            a, b = sorted((found[n].folder, found[m].folder))
            known = 1.0 if a == b else between[a, b]
            matrix[n, m] = matrix[m, n] = (ALIKE if known is None else known) * _chain(found[n], found[m])
    if None not in between.values():
        return matrix, []
    return matrix, [
        f"how alike some of them err is not known, and taken as {ALIKE}: their units or labels are not here;"
        " give --data DIR"
    ]


def _chain(first: Standing, second: Standing) -> float:
    """Over the safe submissions of both runs."""
    return first.to_safe * second.to_safe


def _correlation(task: Competition, training: Training, first: Path, second: Path) -> float | None:
    """Of the scores of two runs' safe submissions; ``None`` where it cannot be known."""
    labels = _labels(task, training, first)
    labels = _labels(task, training, second) if labels is None else labels
    tables = [read_strings(folder / "oof_combined.csv").set_index("unit_id") for folder in (first, second)]
    if labels is None:
        return None
    units = sorted(set(labels.index) & set(tables[0].index) & set(tables[1].index))
    y = labels.loc[units, "class"].to_numpy(dtype=np.int64)
    if len(units) == 0 or np.bincount(y, minlength=len(task.classes)).min() < 2:
        return None
    drawn = metrics.Bootstrap(labels.loc[units, "group_id"].to_numpy(dtype=object), RESAMPLES, 0)
    columns = [f"p_{name}" for name in task.classes]
    values = [numbers(table.loc[units, columns]).to_numpy(dtype=np.float64) for table in tables]
    scores = [drawn.scores(task.metric, y, metrics.row_losses(y, value)) for value in values]
    kept = np.isfinite(scores[0]) & np.isfinite(scores[1])
    if kept.sum() < 2 or min(score[kept].std() for score in scores) == 0:
        return None
    return float(np.corrcoef(scores[0][kept], scores[1][kept])[0, 1])


def _labels(task: Competition, training: Training, folder: Path) -> pd.DataFrame | None:
    """Class number and group of each labelled unit, by unit_id; of the run's folds, else of the data."""
    path = folder / "folds.csv"
    if path.is_file():
        table = read_strings(path)
        table = table[table["role"] == "fold"]
    elif training is not None:
        table = training()
    else:
        return None
    units = table.drop_duplicates("unit_id").set_index("unit_id")
    number = {name: n for n, name in enumerate(task.classes)}
    return units[["group_id"]].assign(**{"class": units["label"].map(number)})
