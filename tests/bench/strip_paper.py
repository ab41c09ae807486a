"""The stroke-clot paper's recipe beside the kit's default, on the demo, with one table for both.

No ImageNet weights of its networks come with the kit, so that it is the recipe ``strip-paper-scratch``, with
its epochs scaled down for a CPU. The paper's own score weighed
the classes .3 and .7, which no leaderboard does: it is a footnote.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit import competition
from kit.combine import confusion
from kit.metrics import WeightedLogLoss
from tests.bench.environment import ROOT
from tests.bench.harness import Row, measure

RECIPE = "strip-paper-scratch"
FULL = ("fold.k=3",)
SHORTEN = 0.03  # 60, 200 and 60 epochs become 2, 6 and 2
SMALL = ("demo.patients=24", "demo.test_patients=6", "demo.largest=0", "fold.k=3", "tune.trials=1")
TINY = ("tile.size=64", "train.shorten=0.01")  # of the paper's networks, for a quick look
PAPER = (0.3, 0.7)  # its weights of CE and LAA


@dataclass(frozen=True)
class Flow:
    """One run of everything: its name, the options beyond the demo's, and whether it is the paper's."""

    name: str
    options: tuple[str, ...]


def rows(quick: bool) -> Iterator[Row]:
    """Score, interval and AUC of both blends and of the paper's single networks; the footnote is printed."""
    both = SMALL if quick else FULL
    paper = TINY if quick else (f"train.shorten={SHORTEN}",)
    with tempfile.TemporaryDirectory() as place:
        for flow in (
            Flow("kit", ("--set", *both)),
            Flow("strip-paper", ("--recipe", RECIPE, "--set", *both, *paper)),
        ):
            folder = Path(place) / flow.name
            folder.mkdir()
            _, *cost = measure(partial(run_all, folder, flow.options))
            cost[2] = peak(folder)
            yield from scored(flow.name, folder, cost)
            if flow.name != "kit":
                print("\n".join([*confusions(folder), footnote(folder)]))


def run_all(folder: Path, options: Sequence[str]) -> None:
    """The main job on the demo, in an empty folder."""
    words = [sys.executable, str(ROOT / "run_all.py"), "strip-ai", *options]
    subprocess.run(words, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


def peak(folder: Path) -> float:
    """The most memory that any stage took, in MiB."""
    content = json.loads((folder / "work/strip-ai-demo/state.json").read_text())
    return float(max(record["peak_mib"] for record in content.values()))


def scored(system: str, folder: Path, cost: Sequence[float]) -> Iterator[Row]:
    """The out-of-fold rows of a finished flow: single networks, and what it submits."""
    content = json.loads((submission(folder) / "metrics.json").read_text())
    for row in content["rows"]:
        if row["set"] != "oof" or row["kind"] not in ("default", "model"):
            continue
        case = f"the demo, {row['name']}"
        for unit, value in (
            ("weighted log loss", row["score"]),
            ("... its interval from", row["low"]),
            ("... to", row["high"]),
            ("AUC", row["auc"]),
        ):
            yield Row(case, system, *cost, value, unit)


def submission(folder: Path) -> Path:
    """The folder of the one submission that a flow has made."""
    (found,) = (folder / "submissions" / "strip-ai-demo").iterdir()
    return found


def confusions(folder: Path) -> list[str]:
    """Patients by true and by likelier class, for every network of a flow."""
    oof, truth = out_of_fold(folder)
    classes = competition.find("strip-ai").classes
    lines = [" | ".join(confusion.head(classes))]
    for name, table in oof.groupby("model"):
        mean = table.groupby("unit_id")[[f"p_{label}" for label in classes]].mean()
        counts = confusion.confusion(numbered(truth.loc[mean.index], classes), mean.to_numpy())
        lines.append(" | ".join(confusion.cells({"name": name, "counts": counts}, classes)))
    return ["confusion matrices, patients out of fold:", *lines]


def numbered(labels: pd.Series[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """The place of each label among the classes."""
    return labels.map({name: n for n, name in enumerate(classes)}).to_numpy(np.int64)


def out_of_fold(folder: Path) -> tuple[pd.DataFrame, pd.Series[str]]:
    """The out-of-fold rows of every network, and the class of every patient."""
    text: dict[str, Any] = {"image_id": str, "unit_id": str, "fold": str}
    oof = pd.read_csv(submission(folder) / "oof.csv", dtype=text)
    folds = pd.read_csv(submission(folder) / "folds.csv", dtype=str).drop_duplicates("unit_id")
    return oof, folds.set_index("unit_id")["label"]


def footnote(folder: Path) -> str:
    """What the submitted blend scores under the paper's weights."""
    task = competition.find("strip-ai")
    _, truth = out_of_fold(folder)
    table = pd.read_csv(submission(folder) / "oof_combined.csv", dtype={"unit_id": str}).set_index("unit_id")
    y = numbered(truth.loc[table.index], task.classes)
    values = table[[f"p_{name}" for name in task.classes]].to_numpy()
    score = WeightedLogLoss(weights=PAPER).score(y, values)
    return f"footnote: with the paper's weights {PAPER} of the classes its blend scores {score:.4f}"
