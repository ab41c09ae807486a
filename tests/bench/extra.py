"""What images without a label of the task are good for: four ways to use them, on the demo, fold by fold.

``python -m tests.bench.extra [--quick] [--json FILE]``

One small network from scratch is fitted without the images of ``other.csv`` (none), with them as bags of no
class (negative) or of a class of their own (class), and after a warm-up on them (pretrain). All four see
the same folds, and start from the same seed. A score is that of the patients out of fold, each way
calibrated alike and nested; a difference is paired by patient, and its standard error is printed below it:
a difference of less than two of those is none. The limit is what the made clots allow at all.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from kit import competition, settings, state
from kit.combine import compare
from kit.data import demo_data
from kit.files import write_json, write_table
from kit.state import Run
from tests.bench.harness import Row, machine, measure, table

WAYS = ("none", "negative", "class", "pretrain")
ENCODER = "test_efficientnet:scratch:64"
THREADS = 2
COMMON = ("demo.test_patients=6", "demo.largest=0", "tile.extra=true", "tune.trials=0")


@dataclass(frozen=True)
class Plan:
    """What is run: patients with and without a label, folds, epochs of the fits and of the warm-up."""

    patients: int
    other: int
    folds: int
    epochs: int
    warmup: int


FULL = Plan(96, 72, folds=5, epochs=6, warmup=10)
QUICK = Plan(36, 24, folds=3, epochs=3, warmup=3)


def rows(quick: bool) -> Iterator[Row]:
    """Score and AUC of every way, and how much lower than with none it scores."""
    plan = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        ready(plan, work)
        for way in WAYS:
            _, *cost = measure(partial(fitted, plan, way, work))
            yield from scored(plan, way, work, cost)
        yield Row(case(plan), "limit", 0, 0, 0, limit(plan, work), "weighted log loss")


def case(plan: Plan) -> str:
    """What the rows are about."""
    return f"{plan.patients} patients, {plan.other} without a label"


def run_of(plan: Plan, way: str, work: Path) -> Run:
    """The run of one way; all share the demo, its folds and its tiles."""
    task = competition.find("strip-ai")
    pairs = [*COMMON, f"demo.patients={plan.patients}", f"demo.other={plan.other}", f"fold.k={plan.folds}"]
    pairs += [f"train.backbones={ENCODER}", f"train.finetune_epochs={plan.epochs}"]
    pairs += [f"train.extra={way}", f"train.extra_epochs={plan.warmup}"]
    task = settings.apply(task, [*task.demo.settings, *map(settings.split, pairs)])
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    data = demo_data(task, work, workers)
    folds = work / "folds.csv"
    options = {"demo": True, "threads": THREADS, "workers": workers}
    return Run(task, "strip-ai-demo", data, work, fold_table=folds, **options)  # type: ignore[arg-type]


def ready(plan: Plan, work: Path) -> None:
    """Make, fold and tile the cohort, before anything is measured."""
    run = run_of(plan, "none", work)
    for stage in ("fold", "tile"):
        state.execute(run, stage)


def fitted(plan: Plan, way: str, work: Path) -> None:
    """Fit on every fold, and keep the out-of-fold rows."""
    run = replace(run_of(plan, way, work), workers=0)  # starting loader processes would be most of it
    torch.set_num_threads(THREADS)
    for stage in ("tune", "train", "predict"):
        state.execute(run, stage)
    write_table(kept(work, way), pd.read_csv(run.folder("predict") / "oof.csv", dtype=str))


def kept(work: Path, way: str) -> Path:
    """Where the out-of-fold rows of a way are kept."""
    return work / f"oof-{way}.csv"


def scored(plan: Plan, way: str, work: Path, cost: list[float]) -> Iterator[Row]:
    """A way beside the first one; that one beside itself has no difference, and none is told."""
    run = run_of(plan, way, work)
    first, second = kept(work, WAYS[0]), kept(work, way)
    sides = [compare.read_side(run, name, path) for name, path in (("none", first), (f"with {way}", second))]
    with threadpool_limits(1):
        found = compare.compared(compare.Match(run, *sides))
    score = {row["name"]: row["score"] for row in found["rows"]}
    yield Row(case(plan), way, *cost, score[f"with {way}, calibrated"], "weighted log loss")
    yield Row(case(plan), way, *cost, found["ranking"]["second"], "AUC")
    if way != WAYS[0]:
        yield Row(case(plan), way, *cost, -found["calibrated_alike"]["gain"], "... lower than with none")
        yield Row(case(plan), way, *cost, found["calibrated_alike"]["se"], "... +-")


def limit(plan: Plan, work: Path) -> float:
    """What the posterior scores that the demo was made with, on the patients of the folds."""
    run = run_of(plan, "none", work)
    folds = pd.read_csv(run.folds, dtype=str, keep_default_na=False)
    units = sorted(set(folds.loc[folds["role"] == "fold", "unit_id"]))
    best = (
        pd.read_csv(run.data / "posterior.csv", dtype={"patient_id": str}).set_index("patient_id").loc[units]
    )
    classes = run.competition.classes
    y = best["label"].map({name: n for n, name in enumerate(classes)}).to_numpy(np.int64)
    return run.competition.metric.score(y, best[list(classes)].to_numpy())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.extra", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer patients and epochs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    print(machine())
    found = list(rows(options.quick))
    print(table(found))
    if options.json is not None:
        write_json(options.json, {"machine": machine(), "rows": [asdict(row) for row in found]})


if __name__ == "__main__":
    main()
