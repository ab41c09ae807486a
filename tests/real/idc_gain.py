"""What learning gains on real breast patches over a plain probe of two backbones, patient by patient.

python -m tests.real.idc_gain WORK   (the folder in which ``tests/real/idc.py`` was run)

The probe is what a careful person does in an hour: the last features of two frozen backbones, as the tiles
are, one logistic regression each, on the same folds; the mean of both probabilities.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from kit.files import write_table
from kit.learn import leak, models
from kit.learn.dataset import labelled
from kit.metrics import LogLoss
from kit.progress import Bar
from kit.state import Run

PLAIN = ("mobilenetv2_100:frozen; views=1; layers=last", "tf_efficientnet_lite0:frozen; views=1; layers=last")


def write_probe(run: Run, path: Path) -> Path:
    """The out-of-fold probabilities of the plain probe, as ``kit compare`` reads them."""
    torch.set_num_threads(run.threads)
    images = labelled(run)
    images = images[images["role"] == "fold"]
    found = np.mean([_probe(run, text, images) for text in PLAIN], axis=0)
    table = pd.DataFrame({"image_id": images.index, "p_0": found[:, 0], "p_1": found[:, 1]})
    write_table(path, table)
    return path


def _probe(run: Run, text: str, images: pd.DataFrame) -> np.ndarray:
    """Probabilities ``(n, 2)`` of one backbone, each image by the fit without its fold."""
    model = models.parse(text, run.competition.training)
    features = leak.image_features(run, model, images.index)
    y, fold = images["y"].to_numpy(np.int64), images["fold"].to_numpy()
    found = np.zeros((len(images), 2))
    for name in Bar(sorted(set(fold)), desc=f"plain probe, {model.backbone.encoder}", unit="fold"):
        held = fold == name
        found[held] = leak.probe(features[~held], y[~held], features[held])
    return found


def seed_spread(oof: Path, truth: pd.Series[int]) -> str:
    """The score of every model in every seed: how far luck alone moves it."""
    table = pd.read_csv(oof, dtype={"image_id": str, "unit_id": str})
    lines = ["seeds, each scored by itself and uncalibrated (log loss, AUC):"]
    for name, mine in table.groupby("model"):
        scores = [_score(rows, truth) for _, rows in mine.groupby("seed")]
        spread = np.std([loss for loss, _ in scores], ddof=1)
        said = ", ".join(f"{loss:.4f} {auc:.4f}" for loss, auc in scores)
        lines.append(f"  {name}: {said}; standard deviation {spread:.4f}")
    return "\n".join(lines)


def _score(rows: pd.DataFrame, truth: pd.Series[int]) -> tuple[float, float]:
    y = truth.loc[rows["image_id"]].to_numpy(np.int64)
    values = rows[["p_0", "p_1"]].to_numpy()
    return LogLoss().score(y, values), float(roc_auc_score(y, values[:, 1]))


def main() -> None:
    """Write the probe beside the run, compare both, and print the spread of the seeds."""
    from kit import __main__ as kit
    from kit.combine.compare import compare

    parser = argparse.ArgumentParser(prog="tests.real.idc_gain", description=__doc__)
    parser.add_argument("place", type=Path, help="the folder in which the flow was run")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="the options of that run")
    given = parser.parse_args()
    run = kit.make_run(kit.flow_parser().parse_args(given.options))
    images = labelled(run)
    probe = write_probe(run, given.place / "plain_probe.csv")
    print(compare(run, run.submission, probe))
    print(seed_spread(run.submission / "oof.csv", images["y"]))


if __name__ == "__main__":
    main()
