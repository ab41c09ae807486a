"""What any score must beat: predictions from metadata alone, without looking at tissue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from kit.combine.method import class_shares
from kit.competition import Competition
from kit.errors import DataError, SettingError
from kit.files import numbers, read_strings
from kit.metrics import Array, Metric
from kit.state import Run

RIDGE = 0.1  # C of the logistic regression: few units, and features that repeat each other
MOST_MISSING = 0.1  # share of the units that metadata may lack
MOST_VALUES = 40  # a text column with more values is an id, not a category
# What of images.csv is neither tissue nor its amount: a score reached with these is a shortcut's.
SHORTCUTS = {
    "background only": ("background", "background_spread"),
    "corner only": ("corner_red", "corner_green", "corner_blue", "corner_spread"),
}


# How a photograph looks, by the columns of appearance.csv: those of the background, and all others.
COLOURS = {"colour only": True, "colour and texture": False}
PICTURES = ("photo", "radiograph")  # readers of images that are their own tiles, which alone have that table
LOOSE = 1.0  # C for these: where colours give a class away, they do so in thousands of images
BACKGROUND = "background_"  # what the columns of the background begin with


def tile_metadata(path: Path, splits: tuple[str, ...] = ("train",)) -> pd.DataFrame:
    """Size, tissue share and background colour of each image of these splits, from ``images.csv``."""
    table = images(path, splits)
    found = numbers(table[["width", "height", "tissue"]])
    found = found.where(found["width"] > 0)  # an image that could not be read has no size
    return found.join(_colours(table["background"]))


def shortcut_features(path: Path) -> dict[str, pd.DataFrame]:
    """What each training image shows besides its tissue, from ``images.csv``: sets of numbers by name.

    Returns:
        For each name of ``SHORTCUTS`` a frame by image_id, without site, size or tissue; NaN where an
        image could not be read. A set whose columns the table lacks is left out: see
        :func:`shortcuts_absent`.
    """
    table = images(path)
    found = {}
    for name, columns in SHORTCUTS.items():
        if not _lacking(table, columns):
            measured = [column for column in columns if column != "background"]
            parts = [_colours(table["background"])] if "background" in columns else []
            found[name] = pd.concat([*parts, numbers(table[measured])], axis=1)
    return found


def looks(path: Path) -> dict[str, pd.DataFrame]:
    """The colour and texture of each training image, from ``appearance.csv``: sets of numbers by name.

    Returns:
        For each name of ``COLOURS`` a frame by image_id: mean and spread of the background's colour; and
        the other colour and texture numbers. Nothing where there is no such file, as of slides.
    """
    if not path.is_file():
        return {}
    table = numbers(images(path).drop(columns="split"))
    behind = table.columns.str.startswith(BACKGROUND)
    return {name: table.loc[:, behind == background] for name, background in COLOURS.items()}


def shortcuts_absent(path: Path) -> dict[str, str]:
    """The sets that :func:`shortcut_features` leaves out, and why."""
    table = images(path)
    lacking = {name: _lacking(table, columns) for name, columns in SHORTCUTS.items()}
    return {
        name: f"{path.name} has no column {', '.join(columns)}; repeat tile"
        for name, columns in lacking.items()
        if columns
    }


def images(path: Path, splits: tuple[str, ...] = ("train",)) -> pd.DataFrame:
    """The rows of ``images.csv`` of these splits by image_id, cells as text."""
    table = read_strings(path)
    return table[table["split"].isin(splits)].drop_duplicates("image_id").set_index("image_id")


def _lacking(table: pd.DataFrame, columns: tuple[str, ...]) -> list[str]:
    return [column for column in columns if column not in table]


def _colours(cells: pd.Series[str]) -> pd.DataFrame:
    """``#rrggbb`` as numbers red, green and blue; NaN where an image could not be read."""
    values = np.array([rgb(text) for text in cells]).reshape(-1, 3)
    return pd.DataFrame(values, cells.index, ["red", "green", "blue"])


def rgb(text: str) -> tuple[float, ...]:
    """``#rrggbb`` as red, green and blue, 0 to 255; NaN of any other text."""
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


@dataclass(frozen=True)
class Feature:
    """One column of numbers that is made of a column of metadata.

    column: of the metadata. value: whether a unit has this one; ``None``: the column is a number.
    fill: what stands for a missing number. log: whether its logarithm is taken.
    """

    column: str
    value: str | None = None
    fill: float = 0.0
    log: bool = False

    @property
    def name(self) -> str:
        """What the column of numbers is called."""
        return self.column if self.value is None else f"{self.column}={self.value}"

    def of(self, metadata: pd.DataFrame) -> pd.Series[float]:
        """Its numbers; what is no number, or has no logarithm, is missing."""
        cells = metadata.get(self.column, pd.Series(np.nan, metadata.index))
        if self.value is not None:
            return (cells == self.value).astype(float)
        values = pd.to_numeric(cells, errors="coerce").astype(float)
        filled = values.where(~(values <= 0) if self.log else values.notna()).fillna(self.fill)
        return filled.map(np.log) if self.log else filled


def learned(metadata: pd.DataFrame) -> list[Feature]:
    """How metadata become numbers: logs of positive ones, a column a category, missing as the median.

    Args:
        metadata: one row a unit, numbers or text.
    """
    found = []
    for name, cells in metadata.items():
        values = pd.to_numeric(cells, errors="coerce")
        if values.notna().mean() > 0.5:
            median = float(values.median())
            found.append(Feature(str(name), None, median, bool((values.fillna(median) > 0).all())))
        # A number that is mostly missing is no category of its few values.
        elif not is_numeric_dtype(cells) and cells.nunique() <= MOST_VALUES:
            found += _categories(str(name), cells)
    return found


def _categories(name: str, cells: pd.Series[str]) -> list[Feature]:
    return [Feature(name, value) for value in sorted(set(cells.dropna()))]


def applied(found: Sequence[Feature], metadata: pd.DataFrame) -> pd.DataFrame:
    """The numbers of each unit; of units that nothing was learned from too."""
    columns = {feature.name: feature.of(metadata) for feature in found}
    # Without a feature, the regression still says the prior.
    return pd.DataFrame(columns or {"nothing": pd.Series(0.0, metadata.index)}, index=metadata.index)


def features(metadata: pd.DataFrame, sites: pd.Series[str] | None) -> pd.DataFrame:
    """A numeric matrix of metadata, as `learned` from all of its rows.

    Args:
        metadata: one row a unit, numbers or text.
        sites: the site of each unit, with the same index; None where it must not be known.
    """
    found = learned(metadata)
    if sites is not None and sites.nunique() > 1:
        found = [feature for feature in found if feature.column != "site"] + _categories("site", sites)
        metadata = metadata.assign(site=sites)
    return applied(found, metadata)


def by_unit(metadata: pd.DataFrame, units: pd.Series[str], count: bool = True) -> pd.DataFrame:
    """Image metadata as unit metadata: mean of numbers, first of text, and the number of images.

    Args:
        metadata: one row an image, numbers or text, by image_id.
        units: the unit of each image.
        count: whether to add the number of images, which is no part of what an image shows.
    """
    known = metadata.loc[metadata.index.intersection(units.index)]
    unit = units.loc[known.index]
    values = numbers(known)
    numeric = [name for name in known if is_numeric_dtype(known[name]) or values[name].notna().mean() > 0.5]
    text = [name for name in known if name not in numeric]
    joined = pd.concat([values[numeric].groupby(unit).mean(), known[text].groupby(unit).first()], axis=1)
    return joined.assign(images=units.value_counts().reindex(joined.index)) if count else joined


def matrices(run: Run, frame: pd.DataFrame, own: bool) -> dict[str, Array | str]:
    """What each baseline is given of each unit ``(units, features)``; or why it is absent.

    Args:
        frame: units by unit_id, with their site.
        own: whether our own models take part, so that our own ``images.csv`` is of these images.
    """
    units = run.tables.train["unit_id"]
    images = run.folder("tile") / "images.csv"
    found: dict[str, Array | str] = {}
    table = _known(run, own, units)
    if table is None:
        found["metadata only"] = "no metadata was given (--meta FILE)"
    else:
        found["metadata only"] = _matrix(table, frame, frame["site"])
    if own and images.is_file():
        for name, table in shortcut_features(images).items():
            found[name] = _matrix(by_unit(table, units, count=False), frame, None)
        for name, table in looks(images.with_name("appearance.csv")).items():
            found[name] = _matrix(by_unit(table, units, count=False), frame, None)
        if run.competition.reader in PICTURES:
            lacking = set(COLOURS) - set(found)
            found |= dict.fromkeys(sorted(lacking), "appearance.csv is not there; repeat tile")
        return found | shortcuts_absent(images)
    return found | dict.fromkeys(SHORTCUTS, "our own images.csv is needed: run tile")


@dataclass(frozen=True)
class Fused:
    """Metadata as one more model is given them.

    given: whether a file had them; else they are of our own ``images.csv``.
    found: how they become numbers, learned from the labelled units. table: the numbers of all units, by
    unit_id.
    """

    given: bool
    found: list[Feature]
    table: pd.DataFrame

    def to_json(self) -> dict[str, Any]:
        """What it takes to make the same numbers of other units."""
        return {"given": self.given, "features": [asdict(feature) for feature in self.found]}


def everywhere(run: Run, frame: pd.DataFrame, own: bool) -> Fused:
    """Features of all labelled and test units by unit_id, for a model that predicts the test too.

    Raises:
        SettingError: there are none.
    """
    tables = [table["unit_id"] for table in (run.tables.train, run.tables.test) if table is not None]
    units = pd.concat(tables)
    units = units[~units.index.duplicated()]  # a public test may be made of training images
    table = _known(run, own, units, ("train", "test"))
    if table is None:
        raise SettingError("combine.fusion=true needs metadata", "give --meta FILE, or run tile first")
    if lacking := _lacks(table, frame.index):
        raise SettingError(f"combine.fusion=true: {lacking}", "complete the file given to --meta")
    # Not from test units: a hidden test, of which nothing is known yet, is then treated as the public one.
    found = learned(table.reindex(frame.index))
    return Fused(run.external.meta is not None, found, applied(found, table.reindex(units.unique())))


def _known(
    run: Run, own: bool, units: pd.Series[str], splits: tuple[str, ...] = ("train",)
) -> pd.DataFrame | None:
    """Metadata by unit_id: of the file that was given, or else of our own tiles; ``None``: there are none."""
    if run.external.meta:
        return given_by_unit(run.competition, run.external.meta, units)
    images = run.folder("tile") / "images.csv"
    return by_unit(tile_metadata(images, splits), units) if own and images.is_file() else None


def given_by_unit(task: Competition, path: Path, units: pd.Series[str]) -> pd.DataFrame:
    """The metadata of a file by unit_id.

    Args:
        units: the unit of each image.
    """
    table, is_unit = external_metadata(path, task.image, task.unit)
    table = table.drop(columns=task.label, errors="ignore")  # a table of labels may be given
    return table if is_unit else by_unit(table, units)


def _matrix(table: pd.DataFrame, frame: pd.DataFrame, sites: pd.Series[str] | None) -> Array | str:
    lacking = _lacks(table, frame.index)
    return lacking or features(table.reindex(frame.index), sites).to_numpy(dtype=np.float64)


def _lacks(table: pd.DataFrame, units: pd.Index) -> str:
    """Why these metadata are too few, if they are."""
    missing = ~units.isin(table.index)
    few = missing.mean() > MOST_MISSING
    return f"the metadata lacks {missing.sum()} of {len(units)} units" if few else ""


def ridge_of(name: str) -> float:
    """How loosely the weights of a baseline are held: C of its logistic regression."""
    return LOOSE if name in COLOURS else RIDGE


def nested(
    matrix: Array,
    labels: NDArray[np.int64],
    outer: NDArray[np.int64],
    metric: Metric,
    ridge: float = RIDGE,
) -> Array:
    """Predictions of a baseline for units that its fit has not seen ``(n, K)``; ``ridge`` is C."""
    classes = int(labels.max()) + 1
    found = np.zeros((len(labels), classes))
    for fold in np.unique(outer):
        train, test = outer != fold, outer == fold
        found[test] = predict(matrix[train], labels[train], matrix[test], classes, metric, ridge)
    return found


@dataclass(frozen=True)
class MetadataModel:
    """Logistic regression on standardised features, as plain numbers.

    weights: of each feature and class ``(F, K)``; biases ``(K,)``.
    """

    weights: Array
    biases: Array

    @classmethod
    def fit(
        cls, matrix: Array, labels: NDArray[np.int64], classes: int, ridge: float = RIDGE
    ) -> MetadataModel:
        """Fit on features ``(n, F)``; a class without a row stays next to impossible."""
        scaler = StandardScaler().fit(matrix)
        model = LogisticRegression(C=ridge, max_iter=2000).fit(scaler.transform(matrix), labels)
        weights, biases = np.zeros((matrix.shape[1], classes)), np.full(classes, np.log(1e-6))
        # Two classes share one column of coefficients: those of the second against the first.
        two = len(model.classes_) == 2
        weights[:, model.classes_] = np.c_[0 * model.coef_[0], model.coef_[0]] if two else model.coef_.T
        biases[model.classes_] = np.r_[0.0, model.intercept_] if two else model.intercept_
        weights = weights / scaler.scale_[:, None]
        return cls(weights, biases - scaler.mean_ @ weights)

    def posterior(self, matrix: Array) -> Array:
        """Probabilities under the training prior ``(n, K)``."""
        return np.asarray(softmax(matrix @ self.weights + self.biases, axis=1))


def predict(
    train: Array,
    labels: NDArray[np.int64],
    test: Array,
    classes: int,
    metric: Metric,
    ridge: float = RIDGE,
) -> Array:
    """Logistic regression on metadata, moved to the scored prior: probabilities ``(n, K)``."""
    raw = MetadataModel.fit(train, labels, classes, ridge).posterior(test)
    prior = class_shares(labels, classes)
    moved = raw * (metric.scored_prior(prior) / prior)
    return np.asarray(moved / moved.sum(axis=1, keepdims=True))
