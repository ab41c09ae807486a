"""What any score must beat: predictions from metadata alone, without looking at tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kit.combine.calibrate import training_prior
from kit.errors import DataError
from kit.files import numbers, read_strings
from kit.metrics import Array, Metric

MOST_VALUES = 40  # a text column with more values is an id, not a category


def tile_metadata(path: Path) -> pd.DataFrame:
    """Size, tissue share and background colour of each training image, from ``images.csv``."""
    table = read_strings(path)
    table = table[table["split"] == "train"].set_index("image_id")
    found = numbers(table[["width", "height", "tissue"]])
    found = found.where(found["width"] > 0)  # an image that could not be read has no size
    colours = np.array([_rgb(text) for text in table["background"]])
    return found.assign(red=colours[:, 0], green=colours[:, 1], blue=colours[:, 2])


def _rgb(text: str) -> tuple[float, ...]:
    """``#rrggbb`` as three numbers; NaN where an image could not be read."""
    if len(text) != 7:
        return (np.nan, np.nan, np.nan)
    return tuple(float(int(text[n : n + 2], 16)) for n in (1, 3, 5))


def external_metadata(path: Path, image_column: str, unit_column: str) -> tuple[pd.DataFrame, bool]:
    """A metadata file by image or by unit: its frame indexed by id, and whether ids are units."""
    if not path.is_file():
        raise DataError(f"{path} is not there", "check the path given to --meta")
    table = read_strings(path)
    names = ((image_column, False), ("image_id", False), (unit_column, True), ("unit_id", True))
    for column, by_unit in names:
        if column in table:
            table = table.drop_duplicates(column).set_index(column)
            return table.drop(columns=[unit_column], errors="ignore"), by_unit
    raise DataError(
        f"{path} has no id column; it has {', '.join(map(str, table.columns))}",
        f"name its first column {image_column} or {unit_column}",
    )


def features(metadata: pd.DataFrame, sites: pd.Series[str]) -> pd.DataFrame:
    """A numeric matrix: logs of positive numbers, one column a category, missing as the median.

    Args:
        metadata: one row a unit, numbers or text.
        sites: the site of each unit, with the same index.
    """
    columns: dict[str, pd.Series[float]] = {}
    for name, cells in metadata.items():
        values = pd.to_numeric(cells, errors="coerce")
        if values.notna().mean() > 0.5:
            filled = values.fillna(values.median())
            columns[str(name)] = np.log(filled) if (filled > 0).all() else filled
        elif cells.nunique() <= MOST_VALUES:
            columns |= _one_hot(str(name), cells)
    if sites.nunique() > 1:
        columns |= _one_hot("site", sites)
    return pd.DataFrame(columns, index=metadata.index)


def _one_hot(name: str, cells: pd.Series[str]) -> dict[str, pd.Series[float]]:
    return {f"{name}={value}": (cells == value).astype(float) for value in sorted(set(cells.dropna()))}


def by_unit(metadata: pd.DataFrame, units: pd.Series[str]) -> pd.DataFrame:
    """Image metadata as unit metadata: mean of numbers, first of text, and the number of images."""
    known = metadata.loc[metadata.index.intersection(units.index)]
    unit = units.loc[known.index]
    values = numbers(known)
    numeric = [name for name in known if values[name].notna().mean() > 0.5]
    text = [name for name in known if name not in numeric]
    joined = pd.concat([values[numeric].groupby(unit).mean(), known[text].groupby(unit).first()], axis=1)
    joined["images"] = units.value_counts()
    return joined


def predict(train: Array, labels: NDArray[np.int64], test: Array, classes: int, metric: Metric) -> Array:
    """Logistic regression on metadata, moved to the scored prior: probabilities ``(n, K)``."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    model.fit(train, labels)
    prior = training_prior(labels, classes)
    raw = np.full((len(test), classes), 1e-6)
    raw[:, model.classes_] = model.predict_proba(test)
    moved = raw * (metric.scored_prior(prior) / prior)
    return np.asarray(moved / moved.sum(axis=1, keepdims=True))
