"""The rows of ``metrics.json``: scores with their intervals, and paired differences between them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit import metrics
from kit.combine.units import labels_of
from kit.metrics import Array
from kit.state import Run


@dataclass
class Scores:
    """Scores of one set, all on the same units with the same resamples.

    rows, gains: what ``metrics.json`` holds; a gain is how much lower the first scores than the second.
    absent: the rows that are not there, with the reason.
    values: the probabilities behind each row.
    """

    run: Run
    set: str
    frame: pd.DataFrame
    rows: list[dict[str, Any]] = field(default_factory=list)
    gains: list[dict[str, Any]] = field(default_factory=list)
    absent: list[dict[str, str]] = field(default_factory=list)
    values: dict[str, Array] = field(default_factory=dict)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The class number of each unit."""
        return labels_of(self.frame)

    @cached_property
    def bootstrap(self) -> metrics.Bootstrap:
        """The resamples of this set's groups."""
        groups = self.frame["group_id"].to_numpy(dtype=object)
        plan = self.run.competition.second_level
        return metrics.Bootstrap(groups, plan.resamples, self.run.seed)

    def add(self, name: str, kind: str, probabilities: Array, nested: bool | None) -> None:
        """Score probabilities ``(n, K)`` in the order of the frame."""
        metric = self.run.competition.metric
        low, high = metrics.interval(metric, self.labels, probabilities, self.bootstrap)
        row = {"name": name, "kind": kind, "nested": nested, "set": self.set}
        numbers = {
            "score": metric.score(self.labels, probabilities),
            "low": low,
            "high": high,
            "auc": metrics.area_under_curve(self.labels, probabilities),
        }
        self.rows.append(row | {k: v if math.isfinite(v) else None for k, v in numbers.items()})
        self.values[name] = probabilities

    def lack(self, name: str, reason: str) -> None:
        """Say why a row is absent."""
        self.absent.append({"name": name, "reason": reason})

    def difference(self, first: str, second: str) -> dict[str, Any]:
        """How much lower one row scores than another, paired."""
        metric, values = self.run.competition.metric, self.values
        found = metrics.compare(metric, self.labels, values[first], values[second], self.bootstrap)
        return asdict(found)

    def gain(self, first: str, second: str) -> None:
        """Compare two rows for the table."""
        names = {"first": first, "second": second, "set": self.set}
        self.gains.append(names | self.difference(first, second))
