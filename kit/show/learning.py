"""Learning curves: the loss of every epoch, and which epoch became the model.

A fit keeps its last epoch, or with ``train.stop=inner`` the best one on a part of the training fold that
nothing is learned from. No validation fold and no held-out image has a say in that: the best of many epochs
on a set looks better there than it is anywhere else.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.files import read_strings
from kit.metrics import Array
from kit.show import score_plots
from kit.show.tables import Table
from kit.show.verdict import number
from kit.state import Run

LOG = ".log.csv"


@dataclass(frozen=True)
class Fitted:
    """One fit: the mean training loss of its epochs ``(E,)`` and the loss of what was set aside, or NaN."""

    name: str
    loss: Array
    inner: Array

    @property
    def best(self) -> int | None:
        """The epoch with the lowest loss of what was set aside, from 1; ``None`` where nothing was."""
        return None if np.isnan(self.inner).all() else int(np.nanargmin(self.inner)) + 1


def section(run: Run) -> dict[str, Any] | None:
    """The table of all fits and a chart a model; ``None`` where no model of this run has a log.

    The fits of this run are those that predicted: others of the work folder are of other settings or folds.
    """
    found = {name: of_model(run.folder("train") / name, fits) for name, fits in _fits(run).items()}
    found = {name: fits for name, fits in found.items() if fits}
    if not found:
        return None
    return {
        "aside": any(fit.best for fits in found.values() for fit in fits),
        "table": table(found),
        "charts": [chart(n, name, fits) for n, (name, fits) in enumerate(found.items())],
    }


def _fits(run: Run) -> dict[str, set[str]]:
    """The names of the fits that the out-of-fold and held-out rows are of, by model."""
    found: dict[str, set[str]] = {}
    for file in ("oof.csv", "holdout.csv"):
        path = run.folder("predict") / file
        rows = read_strings(path) if path.is_file() else pd.DataFrame(columns=["model", "seed", "fold"])
        for model, seed, fold in rows[["model", "seed", "fold"]].drop_duplicates().to_numpy():
            again = int(seed) - run.seed
            found.setdefault(model, set()).add(f"seed{again}-fold{fold}" if again else f"fold{fold}")
    return dict(sorted(found.items()))


def of_model(folder: Path, names: Collection[str]) -> list[Fitted]:
    """The fits of a model by these names that have a whole epoch, by name."""
    paths = [folder / f"{name}{LOG}" for name in sorted(names)]
    fits = [read(path) for path in paths if path.is_file()]
    return [fit for fit in fits if len(fit.loss)]


def read(path: Path) -> Fitted:
    """What a fit noted while it learned: rows of some steps each, weighed by their images."""
    epochs: dict[int, list[tuple[float, float]]] = {}
    inner: dict[int, float] = {}
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream):
            epoch = int(row["epoch"])
            epochs.setdefault(epoch, []).append((float(row["loss"]), float(row["bags"])))
            if row["inner_loss"]:
                inner[epoch] = float(row["inner_loss"])
    losses = [
        np.average([loss for loss, _ in rows], weights=[n for _, n in rows]) for rows in epochs.values()
    ]
    aside = [inner.get(epoch, np.nan) for epoch in epochs]
    return Fitted(path.name.removesuffix(LOG), np.array(losses, np.float64), np.array(aside, np.float64))


def table(found: dict[str, list[Fitted]]) -> Table:
    """A row a fit: its last and its best epoch side by side."""
    head = (
        "model",
        "fit",
        "epochs",
        "training loss",
        "set aside: last epoch",
        "best epoch",
        "its loss",
        "kept",
    )
    rows = []
    for name, fits in found.items():
        for fit in fits:
            best = fit.best
            aside = ("-", "-", "-", "last") if best is None else (
                number(float(fit.inner[-1])), str(best), number(float(fit.inner[best - 1])), "best"
            )  # fmt: skip
            rows.append((name, fit.name, str(len(fit.loss)), number(float(fit.loss[-1])), *aside))
    return Table("Last and best epoch of every fit", head, rows, words=frozenset({0, 1, 7}))


def chart(n: int, name: str, fits: Sequence[Fitted]) -> str:
    """The curves of all fits of a model, one above the other."""
    last = float(np.mean([fit.loss[-1] for fit in fits]))
    label = f"Learning curves of {name}: {len(fits)} fits, mean training loss of the last epoch {last:.3f}"
    curves = [(fit.loss, fit.inner) for fit in fits]
    return score_plots.learning(f"learning-{n}", label, name, curves)
