"""What image-level folds would have claimed: the same model with and without its patients in training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import folds, metrics
from kit.combine.units import Level, labels_of
from kit.errors import DataError
from kit.files import numbers, read_strings
from kit.metrics import Array
from kit.state import Run

FILES = ("images", "groups")
AGAIN = "type: python -m kit evaluate ... --leak-price"


def leak_section(run: Run, level: Level) -> dict[str, Any]:
    """Score the two tables of ``WORK/<name>/leak/`` by image, paired; or the reason why not.

    Returns:
        ``reason``; or images, image (score and AUC under image-level folds), group (under group-level
        folds) and gain, se, better: how much lower the first scores.

    Raises:
        DataError: the tables do not fit the train table or each other.
    """
    paths = {name: run.folder("leak") / f"{name}.csv" for name in FILES}
    if not all(path.is_file() for path in (*paths.values(), run.folds)):
        return {"reason": "run with --leak-price"}
    found = {name: _read(path, run) for name, path in paths.items()}
    if not found["images"].index.equals(found["groups"].index):
        raise DataError(f"{paths['images']} and {paths['groups']} hold different images", AGAIN)
    units = found["images"]["unit_id"]
    unknown = units[~units.isin(level.frame.index)]
    if len(unknown):
        raise DataError(f"{paths['images']}: unit '{unknown.iloc[0]}' is not in the train table", AGAIN)
    known = folds.training_folds(run)["fold"].reindex(units.index)
    if (found["groups"]["fold"] != known).any():
        return {"reason": "what is there is of other folds; run with --leak-price again"}
    return _scored(run, level.frame.loc[units], {n: _values(table) for n, table in found.items()})


def _scored(run: Run, frame: pd.DataFrame, values: dict[str, Array]) -> dict[str, Any]:
    # Images are scored under their own class shares, which the probe was fitted under.
    metric, plan = metrics.LogLoss(), run.competition.second_level
    labels, groups = labels_of(frame), frame["group_id"].to_numpy(dtype=object)
    bootstrap = metrics.Bootstrap(groups, plan.resamples, run.seed)
    difference = metrics.compare(metric, labels, values["images"], values["groups"], bootstrap)
    scores = {
        key: {"score": metric.score(labels, p), "auc": metrics.area_under_curve(labels, p)}
        for key, p in (("image", values["images"]), ("group", values["groups"]))
    }
    return {"images": len(frame), "scheme": run.competition.folds.scheme, **scores, **asdict(difference)}


def _read(path: Path, run: Run) -> pd.DataFrame:
    """unit_id, fold and the probabilities of each image, sorted by image_id."""
    table = read_strings(path)
    columns = [f"p_{name}" for name in run.competition.classes]
    lacking = [name for name in ("image_id", "unit_id", "fold", *columns) if name not in table]
    if lacking:
        raise DataError(f"{path} has no column {', '.join(lacking)}", AGAIN)
    values = numbers(table[columns])
    bad = ~np.isfinite(values.to_numpy()).all(axis=1)
    if bad.any():
        n = int(bad.argmax())
        raise DataError(f"{path} line {n + 2}: {list(table[columns].iloc[n])} is no probability", AGAIN)
    return table[["image_id", "unit_id", "fold"]].join(values).set_index("image_id").sort_index()


def _values(table: pd.DataFrame) -> Array:
    return table.drop(columns=["unit_id", "fold"]).to_numpy(dtype=np.float64)
