"""One of several processes at work on the same searches, for tests that start many and kill some.

Fits are replaced by a function of the settings that takes a while. Every trial that is scored to its end
is noted in a file, so that one that was done twice shows.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.distributions import FloatDistribution
from tqdm.auto import tqdm

from kit import seeds
from kit.competition import Competition, Tables, Tuning
from kit.learn import study
from kit.learn.storage import open_storage
from kit.learn.study import Proposal, Score, Search, Space, Trials
from kit.metrics import LogLoss
from kit.state import Run

TASK = Competition("toy", ("a", "b"), LogLoss(), lambda data: Tables(pd.DataFrame()))
FIRST = {"lr": 0.01, "drop": 0.2, "augment": 0.5}
SPACE: Space = {
    "lr": FloatDistribution(1e-3, 1e-1, log=True),
    "drop": FloatDistribution(0, 0.6),
    "augment": FloatDistribution(0, 1),
}


def run_in(folder: Path, url: str = "") -> Run:
    """A run whose studies are kept in ``folder`` or in a database; it has no data."""
    return Run(dataclasses.replace(TASK, tuning=Tuning(storage=url)), "toy", folder, folder)


def loss_of(settings: dict[str, Any]) -> list[list[float]]:
    """What a trial scores: it depends on the settings alone."""
    away = np.log(settings["lr"] / 0.03) ** 2 + settings["drop"] + settings["augment"]
    noise = seeds.rng(0, "noise").normal(0, 0.01, (2, 10))
    return np.round(0.3 + 0.05 * away + noise, 6).tolist()


def searches(run: Run, slots: int, seconds: float = 0.0, folds: int = 2) -> list[Search]:
    """Searches whose trials take so long."""

    def search(fold: str) -> Search:
        def score(slot: int, settings: dict[str, Any], trials: Trials) -> Score:
            time.sleep(seconds)
            with (run.work / "scored.txt").open("a") as stream:
                stream.write(f"{fold} {slot}\n")
            return Score(loss_of(settings))

        def propose(slot: int, trials: Trials) -> Proposal:
            seed = seeds.number(0, fold, slot) % 2**32
            drawn = study.draw("tpe", seed, SPACE, trials) if slot else FIRST
            return Proposal(drawn, drawn, SPACE)

        return Search(f"net/{fold}", slots, propose, score)

    return [search(str(fold)) for fold in range(folds)]


def summary(run: Run, slots: int) -> str:
    """All finished trials, as every process must see them in the end."""
    storage = open_storage(run)
    rows = [
        (search.name, study.slot_of(trial), trial.value, trial.user_attrs["settings"])
        for search in searches(run, slots)
        for trial in study.finished(storage, search)
    ]
    return "\n".join(map(repr, rows))


def main() -> None:
    folder, url, slots, seconds = sys.argv[1:]
    run = run_in(Path(folder), url)
    with tqdm(disable=True) as bar:
        study.work(open_storage(run), searches(run, int(slots), float(seconds)), bar)
    (run.work / f"ended-{os.getpid()}.txt").write_text(summary(run, int(slots)))


if __name__ == "__main__":
    main()
