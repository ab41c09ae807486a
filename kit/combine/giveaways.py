"""What tells the label without a look at the picture: the size of the image, and who read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from kit import metrics
from kit.boxes import SIZES
from kit.combine import baselines
from kit.combine.inner import inner_folds
from kit.combine.method import class_shares
from kit.metrics import Array, Metric
from kit.state import Run

Labels = NDArray[np.int64]
SHRINK = 5.0  # images of the overall class shares that each size is taken to have had besides its own
FEWEST = 2  # groups of a class: one to learn from, one to be scored
OFTEN = 39  # sizes that are a category of the metadata; with "other" as many as a baseline there takes
UNKNOWN = "unknown"  # the category of an image whose size is not known


@dataclass(frozen=True)
class Giveaway:
    """The nested score of one shortcut, each number with its 95 % interval by image."""

    name: str
    features: int
    score: float
    low: float
    high: float
    auc: float
    auc_low: float
    auc_high: float


def metadata(table: pd.DataFrame) -> pd.DataFrame:
    """What is known of each image beside its pixels, by image_id, sorted; for ``--meta``.

    Args:
        table: findings as :func:`kit.boxes.check` gives them.

    Returns:
        width and height (where known), size (the sizes that most images have, as text; else
        other, and unknown where it is), and for
        each reader whether the image was read by that one: 0 or 1.
    """
    readers = table.groupby(["image_id", "reader"]).size().unstack(fill_value=0).clip(upper=1)
    readers = readers.rename_axis(columns=None)
    if not set(SIZES) <= set(table):
        return readers
    sizes = table.groupby("image_id")[list(SIZES)].first()
    text = _texts(sizes)
    known = sizes.notna().all(axis=1)
    often = text[known].value_counts().sort_index().sort_values(ascending=False, kind="stable").index
    text = text.where(text.isin(often[: OFTEN - (not known.all())]), "other").where(known, UNKNOWN)
    return pd.concat([sizes, text.rename("size"), readers], axis=1)


def giveaways(run: Run, table: pd.DataFrame) -> list[Giveaway]:
    """Nested scores of shortcuts over all images of the train table that were read.

    Args:
        table: findings as :func:`kit.boxes.check` gives them.

    Returns:
        The exact size as a category (see :func:`size_shares`), width and height as two numbers, and who read
        it (both by logistic regression); without the first two where sizes are not known.
    """
    known = metadata(table)
    frame = run.tables.train.loc[lambda train: train.index.isin(known.index)]
    known = known.loc[frame.index]
    task = run.competition
    labels = pd.Categorical(frame["label"], list(task.classes)).codes.astype(np.int64)
    groups = frame["group_id"].to_numpy(dtype=object)
    outer = inner_folds(labels, groups, task.second_level.folds, run.seed)
    values: dict[str, tuple[int, Array]] = {}
    if set(SIZES) <= set(known) and known[list(SIZES)].notna().all(axis=None):
        sizes = known[list(SIZES)]
        values["exact size"] = 1, size_shares(_texts(sizes), labels, outer, task.metric)
        values["width and height"] = 2, baselines.nested(np.log(sizes.to_numpy()), labels, outer, task.metric)
    readers = known.drop(columns=[*SIZES, "size"], errors="ignore").to_numpy(dtype=np.float64)
    values["who read it"] = readers.shape[1], baselines.nested(readers, labels, outer, task.metric)
    return _scored(run, labels, groups, values)


def too_few(run: Run, table: pd.DataFrame) -> str:
    """Why no shortcut can be scored nested; empty where each can.

    Args:
        table: findings as :func:`kit.boxes.check` gives them.
    """
    train = run.tables.train
    groups = train[train.index.isin(table["image_id"])].groupby("label")["group_id"].nunique()
    counts = groups.reindex(list(run.competition.classes), fill_value=0)
    few = counts[counts < FEWEST]
    if few.empty:
        return ""
    return f"class {few.index[0]} has {few.iloc[0]} groups of images, and {FEWEST} are needed"


def size_shares(sizes: pd.Series[str], labels: Labels, outer: Labels, metric: Metric) -> Array:
    """Class shares among the training images of exactly the same size, drawn to those of all: ``(n, K)``.

    A size is a device and a field of view: two numbers hide that, a category does not.

    Args:
        sizes: of each image, as text ``(n,)``.
        outer: the fold of each image, whose labels its own share does not know ``(n,)``.
    """
    classes = int(labels.max()) + 1
    known = np.unique(sizes.to_numpy(dtype=str), return_inverse=True)[1]
    found = np.zeros((len(labels), classes))
    for fold in np.unique(outer):
        train = outer != fold
        prior = class_shares(labels[train], classes)
        cells = np.bincount(known[train] * classes + labels[train], minlength=(known.max() + 1) * classes)
        shares = cells.reshape(-1, classes) + SHRINK * prior
        found[~train] = (shares / shares.sum(axis=1, keepdims=True))[known[~train]]
        found[~train] *= metric.scored_prior(prior) / prior
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def area_interval(labels: Labels, values: Array, groups: NDArray[np.object_]) -> tuple[float, float]:
    """The 95 % interval of the area under the ROC curve of two classes.

    DeLong, DeLong, Clarke-Pearson 1988, https://doi.org/10.2307/2531595, of rows by themselves; of groups
    Obuchowski 1997, https://doi.org/10.2307/2533958.

    Args:
        labels: 0 or 1 ``(n,)``. values: the higher the likelier 1 ``(n,)``.
        groups: what each row belongs to; rows of one hang together ``(n,)``.
    """
    ranks = rankdata(values)
    positive, negative = (ranks[labels == k] - rankdata(values[labels == k]) for k in (1, 0))
    # The share of the other class that each row stands on the right side of.
    right = positive / len(negative), 1 - negative / len(positive)
    area = float(right[0].mean())
    names, known = np.unique(groups.astype(str), return_inverse=True)
    total = len(names)
    # How far the rows of each group are off the mean together, positives and negatives, as shares of all.
    sides = [known[labels == k] for k in (1, 0)]
    off = [np.bincount(s, r - area, total) / len(r) for s, r in zip(sides, right, strict=True)]
    counts = [len(np.unique(side)) for side in sides]
    alone = sum(n / (n - 1) * float(part @ part) for n, part in zip(counts, off, strict=True))
    together = 2 * total / (total - 1) * float(off[0] @ off[1])
    reach = float(ndtri(0.975)) * float(np.sqrt(max(0.0, alone + together)))
    return max(0.0, area - reach), min(1.0, area + reach)


def _texts(sizes: pd.DataFrame) -> pd.Series[str]:
    return sizes["width"].map("{:g}".format) + "x" + sizes["height"].map("{:g}".format)


def _scored(
    run: Run, labels: Labels, groups: NDArray[np.object_], values: Mapping[str, tuple[int, Array]]
) -> list[Giveaway]:
    metric = run.competition.metric
    bootstrap = metrics.Bootstrap(groups, run.competition.second_level.resamples, run.seed)
    found = []
    for name, (features, p) in values.items():
        area = metrics.area_under_curve(labels, p)
        two = p.shape[1] == 2
        areas = area_interval(labels, p[:, 1], groups) if two else (np.nan, np.nan)
        interval = metrics.interval(metric, labels, p, bootstrap)
        found.append(Giveaway(name, features, metric.score(labels, p), *interval, area, *areas))
    return found
