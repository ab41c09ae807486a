"""The price of a leak: one model, judged with the images of a patient on both sides of a split, and without.

Many published scores come from images that were dealt into folds one by one. The probe here is fitted twice
on the same embeddings, once so and once by the run's own folds. Both dealings have folds of the same sizes
and class counts, so that what lies between their scores is what the probe gains from having seen the
patient. It is the price for this probe: a network whose every layer learns can remember a patient better.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from kit import seeds
from kit.errors import DataError, StageError
from kit.files import write_table
from kit.learn import models
from kit.learn.bags import BagModel
from kit.learn.dataset import labelled
from kit.learn.embed import standardise, stored
from kit.learn.models import Model
from kit.progress import Bar
from kit.state import Run, finished

# Inverse ridge for features of squared norm 1: that of the untuned frozen head (train.ridge is 0.5), and
# fixed, so that neither dealing is tuned to its own kind of validation fold.
C = 2.0
Floats = NDArray[np.float64]


def run(run: Run) -> list[Path]:
    """Out-of-fold probabilities by image and by group: ``WORK/<name>/leak/images.csv`` and ``groups.csv``.

    Columns are image_id, unit_id, fold and ``p_<class>``; rows are sorted by image_id. Held-out units are in
    neither.

    Raises:
        StageError: the run has no frozen backbone, or `fold` or `tile` is not finished.
        DataError: a class lies in one fold.
        WeightsError: the backbone's weights are not there.
    """
    torch.set_num_threads(run.threads)
    model = frozen_model(run)
    for stage in ("fold", "tile"):
        if not finished(run, stage):
            hint = f"type: python -m kit {stage} {run.asked or run.name} (same options)"
            raise StageError(f"the leak price needs the result of {stage}, which is not finished", hint)
    images = labelled(run)
    images = images[images["role"] == "fold"]
    check_folds(images, run.competition.classes)
    features = image_features(run, model, images.index)
    dealt = {"images": by_image(images, run.seed), "groups": images["fold"]}
    tables = {name: _out_of_fold(run, images.assign(fold=fold), features) for name, fold in dealt.items()}
    paths = {name: run.folder("leak") / f"{name}.csv" for name in tables}
    for name, table in tables.items():
        write_table(paths[name], table)
    return list(paths.values())


def frozen_model(run: Run) -> Model:
    """The first model of the run whose encoder stays frozen: its embeddings know nothing of any fold.

    Raises:
        StageError: the run has none.
    """
    for model in models.first_seeds(run):
        if model.frozen:
            return model
    specs = run.competition.training.backbones
    raise StageError(
        f"the leak price needs a frozen backbone, and this run has none: train.backbones={','.join(specs)}",
        "add one to train.backbones, for example tf_efficientnet_lite0:frozen (its weights come packaged)",
    )


def check_folds(images: pd.DataFrame, classes: Sequence[str]) -> None:
    """Every class is outside every fold as well: a model can only predict what it has seen.

    Raises:
        DataError: a class lies in one fold.
    """
    spread = images.groupby("label")["fold"].nunique()
    for name in classes:
        if spread[name] < 2:
            fold = images.loc[images["label"] == name, "fold"].iloc[0]
            message = (
                f"all images of class {name} are in fold {fold}: no model can learn it without that fold"
            )
            raise DataError(message, "use --set fold.scheme=group-site")


def by_image(images: pd.DataFrame, seed: int) -> pd.Series[str]:
    """A fold of every image, whatever its group: the folds of each class shuffled among its images."""
    fold = images["fold"].copy()
    for _, mine in images.groupby("label"):
        # A draw of its own for each class: another class's images must not move these.
        order = seeds.rng(seed, "leak", mine["label"].iloc[0]).permutation(len(mine))
        fold.loc[mine.index] = mine["fold"].to_numpy()[order]
    return fold


def image_features(run: Run, model: Model, ids: pd.Index) -> NDArray[np.float32]:
    """The weighted mean embedding ``(n, D)`` of the tiles of each image, computed only where none is kept.

    That of a tile is the mean over its views.
    """
    known = stored(run, model)
    start = np.cumsum(known.counts) - known.counts
    total = np.add.reduceat(known.mean_features() * known.weight[:, None], start, axis=0)
    mean = total / np.add.reduceat(known.weight.astype(np.float64), start)[:, None]
    return mean[pd.Index(known.ids).get_indexer(ids)].astype(np.float32)


def _out_of_fold(run: Run, images: pd.DataFrame, features: NDArray[np.float32]) -> pd.DataFrame:
    """Every image as the probe says that was fitted without its fold."""
    classes = run.competition.classes
    fold, y = images["fold"].to_numpy(), images["y"].to_numpy(dtype=np.int64)
    found = np.zeros((len(images), len(classes)))
    for name in Bar(sorted(set(fold)), desc="leak price", unit="fold"):
        held = fold == name
        with threadpool_limits(1):  # sums depend on the number of threads
            found[held] = probe(features[~held], y[~held], features[held])
    table = images.reset_index()[["image_id", "unit_id", "fold"]]
    return table.assign(**{f"p_{name}": found[:, n] for n, name in enumerate(classes)})


def probe(features: NDArray[np.float32], y: NDArray[np.int64], new: NDArray[np.float32]) -> Floats:
    """Probabilities ``(m, K)`` of ``new`` ``(m, D)``, from a logistic regression on ``features`` ``(n, D)``.

    It is what the frozen mode learns before any tuning: the same standardisation, the same ridge.
    """
    head = BagModel(None, features.shape[1], 1, "mean", 0.0)
    standardise(head, features)
    known, asked = (head.embed(torch.from_numpy(part)).double().numpy() for part in (features, new))
    model = LogisticRegression(C=C, max_iter=1000).fit(known, y)
    return np.asarray(model.predict_proba(asked))
