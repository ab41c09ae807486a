r"""What a score on blood smears is worth: two networks and two colour baselines, under three splits.

python -m tests.real.leukemia --data ../shared/data/leukemia [--work DIR] [--epochs 25] [--quick]

By image, as most published scores are; by blocks of neighbouring numbers, which stand for people; and by
clusters of the background's colour, which stand for a stain and a camera. The colour baselines are those of
``kit evaluate``: logistic regressions on six numbers of the background, and on 120 of colours and textures.
Everything is out of fold, three folds, and its interval is from drawing blocks (or clusters) anew.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler

from kit import competition, metrics, recipe, settings
from kit.combine import baselines
from kit.competition import Competition, FoldPlan, Tables
from kit.files import digest, read_strings, write_table
from kit.learn import models
from kit.learn.dataset import labelled
from kit.learn.fit import Fit
from kit.learn.predict import predict_images
from kit.learn.train import fold_names, train
from kit.state import Run, execute

SPLITS = {"image": "image_id", "blocks": "block", "stain": "stain"}  # and what they keep together
CLUSTERS = 12  # of the background's colour
FOLDS = 3
SEED_STEPS = "grey,sharpen,roi"  # the seed's, without its enlargement to 224 pixels
Array = metrics.Array
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class System:
    """A network: its recipe, what is changed in it, and how many of the folds it is judged on."""

    name: str
    recipes: tuple[str, ...] = ()
    changes: tuple[tuple[str, str], ...] = ()
    judged: int = FOLDS

    @property
    def folder(self) -> str:
        """What its folder is called."""
        return re.sub("[^a-z0-9]+", "-", self.name.lower())

    def of(self, task: Competition) -> Competition:
        """The competition as this system wants it, in three folds and without a held-out set."""
        for name in self.recipes:
            task = recipe.apply(task, name)
        return replace(settings.apply(task, self.changes), folds=FoldPlan(k=FOLDS, scheme="group", holdout=0))


def systems(epochs: int) -> list[System]:
    """The kit's default, and the seed's network at 96 pixels in so many of its 40 epochs."""
    seed = (
        ("tile.size", "96"),
        ("tile.steps", SEED_STEPS),
        ("train.backbones", "leukemia_cnn_96:scratch:96; lr=1e-4"),
        ("train.finetune_epochs", str(epochs)),
        # 1,000 of a class in all, of which two thirds are learned from.
        ("train.oversample", str(1000 * (FOLDS - 1) // FOLDS)),
        ("train.precision", "bf16"),
    )
    name = f"the seed's network, bf16, {epochs} of 40 epochs, one fold of three"
    return [System("the kit's default, frozen lite0"), System(name, ("leukemia-seed",), seed, judged=1)]


def split_by(task: Competition, column: str, stain: pd.Series[str]) -> Competition:
    """The competition whose folds keep the images of one value of a column together."""

    def load(data: Path) -> Tables:
        tables = task.load(data)
        return replace(tables, train=tables.train.assign(stain=tables.train["image_id"].map(stain)))

    return replace(task, load=load, group=column)


def stains(six: pd.DataFrame) -> pd.Series[str]:
    """The cluster of each image's background colour."""
    found = KMeans(CLUSTERS, n_init=10, random_state=0).fit_predict(StandardScaler().fit_transform(six))
    return pd.Series([f"stain {n}" for n in found], six.index)


def out_of_fold(task: Competition, data: Path, work: Path, workers: int, judged: int) -> pd.DataFrame:
    """Fold and probabilities of every image, by image_id, of the first ``judged`` folds; NaN in the others.

    What was computed before is found again.
    """
    run = Run(task, task.name, data, work, workers=workers, fold_table=work / f"{task.group}-folds.csv")
    for stage in ("fold", "tile"):
        execute(run, stage)
    # By all that they follow from: other settings or images are computed anew.
    known = {name: str(value) for name, value in settings.known(task).items()}
    key = digest([run.key("fold"), run.key("tile"), known, judged])[:12]
    kept = work / f"{task.group}-{key}.csv"
    if not kept.is_file():
        images = labelled(run)
        parts = [_predicted(run, images, fold, key) for fold in fold_names(images)[:judged]]
        write_table(kept, images[["fold"]].join(pd.concat(parts)).reset_index())
    table = read_strings(kept).set_index("image_id").sort_index()
    return table.assign(**{f"p_{name}": pd.to_numeric(table[f"p_{name}"]) for name in task.classes})


def _predicted(run: Run, images: pd.DataFrame, fold: str, key: str) -> pd.DataFrame:
    """The images of a fold, as the run's one model says that was fitted without them."""
    (model,) = models.of_run(run)
    torch.set_num_threads(run.threads)
    fit = Fit(run, model, images[images["fold"] != fold], f"{model.purpose} fold {fold}")
    network = train(fit, run.work / f"{run.competition.group}-{key}-{fold}.ckpt")
    mine = images.index[images["fold"] == fold]
    values = predict_images(run, model, network, "train", mine.to_numpy(dtype=object))
    return pd.DataFrame(values, mine, [f"p_{name}" for name in run.competition.classes])


def looks(task: Competition, data: Path, work: Path, workers: int) -> dict[str, pd.DataFrame]:
    """The colour and texture numbers that the stage tile writes, by image_id: a table for each baseline."""
    run = Run(task, task.name, data, work, workers=workers, fold_table=work / "folds.csv")
    for stage in ("fold", "tile"):
        execute(run, stage)
    return baselines.looks(run.folder("tile") / "appearance.csv")


@dataclass(frozen=True)
class Judge:
    """What predictions of one split are scored by.

    labels: the class of each image ``(n,)``. bootstrap: draws blocks, or clusters, anew.
    """

    labels: Integers
    bootstrap: metrics.Bootstrap

    def right(self, p: Array) -> Array:
        """1 for every image whose class is named, else 0; NaN where nothing is said of it."""
        return np.where(np.isnan(p).any(axis=1), np.nan, p.argmax(axis=1) == self.labels)

    def loss(self, p: Array) -> Array:
        """The log loss of every image; NaN where nothing is said of it."""
        found = np.full(len(p), np.nan)
        said = ~np.isnan(p).any(axis=1)
        found[said] = metrics.row_losses(self.labels[said], p[said])
        return found

    def mean(self, values: Array) -> tuple[float, float, float]:
        """The mean of the numbers that are there, and its interval of 95 %."""
        there = ~np.isnan(values)
        names = len(self.bootstrap.names)
        total = np.bincount(self.bootstrap.which[there], values[there], names)
        count = np.bincount(self.bootstrap.which[there], minlength=names)
        drawn = self.bootstrap.counts.astype(float)
        means = (drawn @ total) / np.maximum(drawn @ count, 1e-9)
        low, high = np.quantile(means[drawn @ count > 0], [0.025, 0.975])
        return float(values[there].mean()), float(low), float(high)


Found = Mapping[tuple[str, str], Array]  # probabilities (n, K) by system and split


def table(found: Found, judges: Mapping[str, Judge]) -> str:
    """One row a system: accuracy and log loss in every split, each with its interval."""
    cells = [["", *(f"by {split}" for split in judges)]]
    for name in dict.fromkeys(name for name, _ in found):
        for what in ("accuracy", "log loss"):
            row = [f"{name}: {what}"]
            for split, judge in judges.items():
                p = found.get((name, split))
                row.append("-" if p is None else _cell(judge, p, what))
            cells.append(row)
    wide = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
    return "\n".join("  ".join(map(str.ljust, row, wide)).rstrip() for row in cells)


def _cell(judge: Judge, p: Array, what: str) -> str:
    if what == "accuracy":
        return "{:.1%} ({:.1%} - {:.1%})".format(*judge.mean(judge.right(p)))
    return "{:.3f} ({:.3f} - {:.3f})".format(*judge.mean(judge.loss(p)))


def conclusions(found: Found, judges: Mapping[str, Judge]) -> list[str]:
    """What the table amounts to, in words, from its numbers alone."""
    names = list(dict.fromkeys(name for name, _ in found))
    said = [_price(name, found, judges) for name in names]
    said += [
        _against(network, colours, split, judge, found)
        for split, judge in judges.items()
        for network in names
        for colours in names
        if colours in baselines.COLOURS and network not in baselines.COLOURS and (network, split) in found
    ]
    won = [line for line in said if " beats colour and texture " in line]
    shown = "; ".join(won) if won else "no network, under any split"
    return [*said, f"that a network knows more than colours and textures tell: {shown}"]


def _price(name: str, found: Found, judges: Mapping[str, Judge]) -> str:
    """What a system loses when what it is judged on is kept apart.

    The folds of two splits hold other images: of a system that is judged on a part of them, a difference
    would be of the images too, and none is told.
    """
    share = {
        split: judge.right(found[name, split]) for split, judge in judges.items() if (name, split) in found
    }
    if len(share) > 1 and any(np.isnan(right).any() for right in share.values()):
        return f"{name}: judged on other images in every split, so that no price can be told"
    means = {split: float(np.nanmean(right)) for split, right in share.items()}
    lost = [
        f"{100 * (means['image'] - mean):.1f} points of it are lost by {split}"
        for split, mean in means.items()
        if split != "image" and "image" in means
    ]
    return f"{name}: " + ", ".join([f"{means['image']:.1%} by image", *lost] if lost else ["one split alone"])


def _against(network: str, colours: str, split: str, judge: Judge, found: Found) -> str:
    """Whether a network says more than colours do, by the paired difference of their accuracies."""
    gain, low, high = judge.mean(judge.right(found[network, split]) - judge.right(found[colours, split]))
    verb = "is not told apart from" if low <= 0 <= high else "beats" if gain > 0 else "LOSES TO"
    numbers = f"{100 * gain:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}"
    return f"by {split}: {network} {verb} {colours} ({numbers})"


def judged(given: argparse.Namespace) -> tuple[Found, dict[str, Judge]]:
    """Every system in every split, by the kit's own stages; what was computed before is found again."""
    task = competition.find("leukemia")
    default = systems(given.epochs)[0]
    numbers = looks(default.of(task), given.data, given.work / default.folder, given.workers)
    train, stain = task.tables(given.data).train, stains(numbers["colour only"])
    labels = train["label"].map({name: n for n, name in enumerate(task.classes)}).to_numpy(np.int64)
    found: dict[tuple[str, str], Array] = {}
    judges = {}
    for split in given.splits:
        mine, units = split_by(task, SPLITS[split], stain), stain if split == "stain" else train["group_id"]
        judges[split] = Judge(labels, metrics.Bootstrap(units.loc[train.index].to_numpy(object), 2000, 0))
        for system in systems(given.epochs)[: 1 if given.quick else None]:
            place, wanted = given.work / system.folder, system.of(mine)
            oof = out_of_fold(wanted, given.data, place, given.workers, system.judged).loc[train.index]
            for name, columns in numbers.items():
                matrix = baselines.features(columns.loc[train.index], None).to_numpy()
                folds = oof["fold"].to_numpy(dtype=np.int64)
                ridge = baselines.ridge_of(name)
                if (name, split) not in found:
                    found[name, split] = baselines.nested(matrix, labels, folds, task.metric, ridge)
            found[system.name, split] = oof[[f"p_{name}" for name in task.classes]].to_numpy()
    order = [*baselines.COLOURS, *(system.name for system in systems(given.epochs))]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0][0]))), judges


def main() -> None:
    """Print the table and what follows from it."""
    parser = argparse.ArgumentParser(prog="tests.real.leukemia", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("work/leukemia-price"))
    parser.add_argument("--epochs", type=int, default=25, help="of the seed's network; it names 25 and 40")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=list(SPLITS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="the colours and the kit's default alone")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found, judges = judged(given)
    print("95 % intervals; a network judged on one fold of three is compared on it", end="\n\n")
    print(table(found, judges), *conclusions(found, judges), sep="\n")


if __name__ == "__main__":
    main()
