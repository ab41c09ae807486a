"""Was it luck? The best trial of every search is scored again where the search never looked.

The best of many trials looks better than it is (Cawley and Talbot 2010). Its settings and the untuned
ones are fitted again on fresh splits of the same training fold: new deals of the same groups, none of
which a trial was scored on. The difference between the two scores of the winner is the search's optimism.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import seeds
from kit.competition import Competition
from kit.dealing import deal, linked
from kit.files import read_strings, write_table
from kit.learn.loop import Diverged
from kit.learn.models import Model, first_seeds
from kit.learn.scoring import Split, best_of, inner_splits, lost, paired, unit_losses
from kit.learn.study import Proposal, Score, Search, Trials, diverged, losses
from kit.learn.train import fold_names
from kit.state import Run

SIDES = ("untuned", "winner")  # slots take turns
TRIES = 20  # deals until one is not a split of the search
COLUMNS = ["backbone", "fold", "trial", "found", "fresh", "untuned", "untuned_fresh", "optimism", "gain",
           "standard_error", "units", "diverged", "taken"]  # fmt: skip
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Fresh:
    """What winner and untuned settings scored on fresh splits.

    loss, untuned: mean losses of the winner, and without tuning.
    gain, error: how much lower the winner's is, with the paired standard error over units.
    diverged: whose fits came to nothing: ``winner``, ``untuned``, ``both`` or none. Their losses are the
        greatest that there are.
    """

    loss: float
    untuned: float
    gain: float
    error: float
    units: int
    diverged: str = ""

    @property
    def holds(self) -> bool:
        """Whether the winner did not lose."""
        return self.gain >= 0 and self.diverged not in ("winner", "both")


def search(
    run: Run, model: Model, images: pd.DataFrame, fold: str, name: str, trials: Trials
) -> Search | None:
    """The fits that are left to do for one finished search; ``None`` if nothing is to be confirmed."""
    start, best = best_of(trials)
    if best is start:
        return None
    splits = fresh_splits(run, images, fold)
    tried = (start, best)

    def propose(slot: int, _: Trials) -> Proposal:
        trial = tried[slot % 2]
        return Proposal(trial.user_attrs["settings"], trial.params, trial.distributions)

    def score(slot: int, settings: dict[str, Any], _: Trials) -> Score:
        split = splits[slot // 2]
        try:
            return Score([unit_losses(run, model.having(settings), split).tolist()])
        except Diverged as error:
            side = SIDES[slot % 2]
            log.warning("%s: the %s settings lose on a fresh split: %s", model.name, side, error.message)
            return Score([lost(split)], True, diverged=error.message)

    return Search(f"{name}/confirm", 2 * len(splits), propose, score) if splits else None


def fresh(trials: Trials) -> Fresh:
    """What the finished trials of such a search say; even slots are untuned."""
    untuned, winner = (np.concatenate([losses(trial) for trial in trials[n::2]]) for n in (0, 1))
    gain, error = paired(untuned, winner)
    sides = [side for n, side in enumerate(SIDES) if any(map(diverged, trials[n::2]))]
    whose = "both" if len(sides) > 1 else "".join(sides)
    return Fresh(float(winner.mean()), float(untuned.mean()), gain, error, len(winner), whose)


def fresh_splits(run: Run, images: pd.DataFrame, fold: str) -> list[Split]:
    """``tune.confirm`` splits of the images outside ``fold``, of the sizes that the search has.

    The parts of one deal are judged in turn, so that no unit is judged twice before all were once.
    """
    rows = images[(images["role"] == "fold") & (images["fold"] != fold)]
    parts = _parts(run.competition, rows, len(fold_names(images)) - 1)
    seen = {frozenset(split.judged["unit_id"]) for split in inner_splits(run, images, fold)}
    found: list[Split] = []
    for n in range(run.competition.tuning.confirm if parts > 1 else 0):
        split = _split(run, rows, fold, parts, n, seen)
        if split is not None:
            found.append(split)
    if len(found) < run.competition.tuning.confirm:
        log.info("only %d fresh splits without fold %s: too few groups", len(found), fold)
    return found


def _split(
    run: Run, rows: pd.DataFrame, fold: str, parts: int, n: int, seen: set[frozenset[str]]
) -> Split | None:
    """Part ``n % parts`` of the deal ``n // parts``; ``None`` if it is none that the search did not see."""
    task, units = run.competition, _units(run.competition, rows)
    for attempt in range(TRIES):
        seed = seeds.number(run.seed, "confirm", fold, n // parts, attempt)
        dealt = deal(units, parts, seed, sites=task.folds.scheme == "group-site")
        part = rows["unit_id"].map(units["group_id"].map(dealt))
        learned, judged = rows[part != n % parts], rows[part == n % parts]
        if frozenset(judged["unit_id"]) not in seen and learned["y"].nunique() == len(task.classes):
            return Split(f"confirm {fold} {n}", learned, judged)
    return None


def _parts(task: Competition, rows: pd.DataFrame, wanted: int) -> int:
    """Into how many parts the groups can be dealt so that each has every class; below 2: not at all."""
    groups = _units(task, rows).groupby("label")["group_id"].nunique()
    return min(wanted, int(groups.min()))


def _units(task: Competition, rows: pd.DataFrame) -> pd.DataFrame:
    """One row a unit, as `deal` takes them; where folds keep sites apart, a site is a group."""
    units = rows.drop_duplicates("unit_id").set_index("unit_id")[["group_id", "site", "label"]]
    units = units.assign(images=rows.groupby("unit_id").size()).sort_index()
    if task.folds.scheme in ("site", "crossed"):
        block = linked(units["site"].to_numpy(), units["group_id"].to_numpy())
        units["group_id"] = units["site"].map(block)
    return units


def row(model: Model, fold: str, trials: Trials, checked: Fresh | None, taken: bool) -> dict[str, Any]:
    """A row of ``confirm.csv``; what was not scored again has empty cells."""
    start, best = best_of(trials)
    found: dict[str, Any] = {
        "backbone": model.name,
        "fold": fold,
        "trial": best.user_attrs["slot"],
        "found": best.value,
        "untuned": start.value,
        "taken": str(taken).lower(),
    }
    if checked is not None:
        optimism = checked.loss - float(best.value or 0.0)
        found |= {"fresh": checked.loss, "untuned_fresh": checked.untuned, "optimism": optimism}
        found |= {"gain": checked.gain, "standard_error": checked.error, "units": checked.units}
        found |= {"diverged": checked.diverged}
    return found


def write(run: Run, rows: list[dict[str, Any]]) -> Path:
    """``WORK/<name>/tune/confirm.csv``."""
    path = run.folder("tune") / "confirm.csv"
    write_table(path, pd.DataFrame(rows, columns=COLUMNS).astype({"units": "Int64"}))
    return path


def text(run: Run) -> str:
    """What was found, model by model, for the console."""
    best = json.loads((run.folder("tune") / "best.json").read_text())
    table = read_strings(run.folder("tune") / "confirm.csv")
    idle = {model.name: _idle(run, model) for model in first_seeds(run) if model.space}
    lines = [
        _line(name, folds, table[table["backbone"] == name], idle.get(name, ""))
        for name, folds in sorted(best.items())
    ]
    return "\n".join(lines)


def _idle(run: Run, model: Model) -> str:
    """What is used in place of declared ranges and choices, should the model not have been tuned."""
    tuning = run.competition.tuning
    missing = [] if tuning.trials else ["--set tune.trials=N"]
    if not (model.frozen or tuning.finetune):
        missing.append("--set tune.finetune=true")
    more = f" (to search it: {' '.join(missing)})" if missing else ""
    used = ", ".join(f"{key}={model.get(key)}" for key in model.space)
    return f"the declared ranges were not searched, {used} is used{more}"


def _line(name: str, folds: dict[str, Any], table: pd.DataFrame, idle: str = "") -> str:
    """One model: its mean losses over folds, as found and as fresh."""
    if not len(table):
        return f"tuning {name}: none, {idle or 'settings as given'}"
    text = f"tuning {name}: found {_mean(table, 'found')} (untuned {_mean(table, 'untuned')})"
    again = table[table["fresh"] != ""]
    if len(again):
        text += f", on fresh splits {_mean(again, 'fresh')} (untuned {_mean(again, 'untuned_fresh')})"
        text += f", optimism {_mean(again, 'optimism')}"
    for side in SIDES:
        if count := again["diverged"].isin([side, "both"]).sum():
            text += f"; {side} settings diverged there in {count} folds"
    return f"{text}; taken in {(table['taken'] == 'true').sum()} of {len(folds)} folds"


def _mean(table: pd.DataFrame, column: str) -> str:
    """The mean of a column of text over folds, in four digits."""
    return f"{table[column].astype(float).mean():.4f}"
