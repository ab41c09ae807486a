"""The search for settings: what was chosen, how it went, and which settings mattered.

All is read from ``trials.csv``, which `tune` writes from its study: a journal here, or a database elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit.files import read_json, read_strings
from kit.metrics import Array
from kit.show import search_plots, tables
from kit.show.results import Results
from kit.show.tables import Table
from kit.show.verdict import count, number, percent

if TYPE_CHECKING:
    from kit.learn.importance import Importance

ENOUGH = 20  # finished trials from which on an importance is computed
ROUGH = 10  # trials for each setting, below which it says little
FORESTS = 5  # resamples of the trials, each with a forest of its own
TREES = 24
WHOLE = "Shares add up to 100 % even where no setting matters."
DONE = ("complete", "pruned", "diverged")
FIXED = ("backbone", "fold", "trial", "state", "folds", "loss")


@dataclass(frozen=True)
class Trials:
    """The finished trials of one backbone, over all folds.

    frame: fold, trial, state, loss and the settings that differ between trials, as text.
    gain: how much lower each scores than the settings as given, in its fold ``(n,)``.
    """

    name: str
    frame: pd.DataFrame
    gain: Array

    @property
    def settings(self) -> list[str]:
        """The settings that differ between trials."""
        return [name for name in self.frame.columns if name not in FIXED]

    @property
    def complete(self) -> Trials:
        """Those that have seen all inner splits: the others' losses are of fewer units."""
        kept = (self.frame["state"] == "complete").to_numpy()
        return Trials(self.name, self.frame[kept], self.gain[kept])


def section(results: Results) -> dict[str, Any] | None:
    """What tuning chose, unless our own models take no part."""
    folder = results.run.folder("tune")
    best = read_json(folder / "best.json")
    if not best or not results.own:
        return None
    fits = [found for by_fold in best.values() for found in by_fold.values()]
    changed = sum(bool(found.get("trial")) for found in fits)
    path = folder / "trials.csv"
    trials = of_table(read_strings(path)) if path.is_file() else []
    return {
        "fits": len(fits),
        "changed": changed,
        "searched": any(found.get("trials") for found in fits),
        "table": tables.tuning(best),
        "searches": [search(n, mine, results) for n, mine in enumerate(trials) if len(mine.frame) > 1],
    }


def of_table(table: pd.DataFrame) -> list[Trials]:
    """The finished trials of each backbone in ``trials.csv``."""
    found = []
    for name, mine in table[table["state"].isin(DONE)].groupby("backbone", sort=True):
        losses = mine["loss"].astype(float)
        start = losses[mine["trial"] == "0"].groupby(mine["fold"]).first()
        gain = mine["fold"].map(start).to_numpy(dtype=np.float64) - losses.to_numpy()
        known = np.isfinite(gain)
        differ = [column for column in mine if column not in FIXED and mine[column].nunique() > 1]
        found.append(Trials(str(name), mine.loc[known, [*FIXED, *differ]], gain[known]))
    return found


def search(n: int, trials: Trials, results: Results) -> dict[str, Any]:
    """The charts of one backbone's search, and what its trials say of its settings."""
    complete = trials.complete
    found = importances(complete, results.run.seed)
    return {
        "name": trials.name,
        "sentence": sentence(trials),
        "history": search_plots.history(f"history-{n}", trials.name, histories(trials)),
        "parallel": search_plots.parallel(f"parallel-{n}", trials.name, axes_of(complete), complete.gain),
        "importance": importance_table(trials.name, found),
        "importance_chart": importance_chart(n, trials.name, found),
        "importance_words": importance_words(complete),
    }


def sentence(trials: Trials) -> str:
    """How many trials there were, and what the best of them gained."""
    counts = trials.frame["state"].value_counts()
    other = "".join(f", {counts[state]} {state}" for state in DONE[1:] if state in counts)
    folds = trials.frame["fold"].nunique()
    complete = trials.complete  # the others' losses are of fewer units
    best = float(complete.gain.max(initial=0.0))
    gained = "none scores lower than the settings as given"
    if best > 0:
        trial, fold = complete.frame[["trial", "fold"]].iloc[int(complete.gain.argmax())]
        gained = (
            f"the largest gain over the settings as given is {number(best)} (trial {trial} of fold {fold})"
        )
    done = (
        f"{len(trials.frame)} trials in {count(folds, 'fold')} ({counts.get('complete', 0)} complete{other})"
    )
    return f"{done}; {gained}."


def histories(trials: Trials) -> list[search_plots.History]:
    """The losses of each fold's trials in the order of their numbers."""
    found = []
    by_fold = trials.frame.assign(n=trials.frame["trial"].astype(int)).sort_values("n")
    for fold in sorted(by_fold["fold"].unique(), key=int):
        mine = by_fold[by_fold["fold"] == fold]
        whole = (mine["state"] == "complete").to_numpy()
        found.append(
            search_plots.History(fold, mine["n"].to_numpy(), mine["loss"].to_numpy(dtype=np.float64), whole)
        )
    return found


def axes_of(trials: Trials) -> list[search_plots.Axis]:
    """The settings as axes: numbers on a scale, words at places of their own."""
    return [axis(name, trials.frame[name].tolist()) for name in trials.settings]


def axis(name: str, texts: Sequence[str]) -> search_plots.Axis:
    """One setting of all trials: where each lies from 0 to 1, and what its ends are called."""
    values = pd.to_numeric(pd.Series(list(texts)), errors="coerce").to_numpy(dtype=np.float64)
    known = sorted(set(texts))
    if not np.isfinite(values).all() or len(known) <= 2:
        order = sorted(known, key=lambda text: (_float(text), text))
        place = {text: n / max(1, len(order) - 1) for n, text in enumerate(order)}
        return search_plots.Axis(
            name, np.array([place[text] for text in texts]), [(place[t], short(t)) for t in order]
        )
    log = values.min() > 0 and values.max() / values.min() >= 10
    scaled = np.log(values) if log else values
    place_of = (scaled - scaled.min()) / (scaled.max() - scaled.min())
    ends = [(0.0, short(str(values.min()))), (1.0, short(str(values.max())))]
    return search_plots.Axis(f"{name} (log)" if log else name, place_of, ends)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.inf


def short(text: str) -> str:
    """A setting for the end of an axis.

    >>> short("0.00213456"), short("mean"), short("16.0")
    ('0.0021', 'mean', '16')
    """
    return text if _float(text) == np.inf else f"{float(text):.2g}"


def importances(trials: Trials, seed: int) -> list[Importance]:
    """How much of the losses' variance each setting explains; none where there are too few trials.

    fANOVA (Hutter, Hoos and Leyton-Brown 2014) as Optuna has it, on how much each trial gains over the
    settings as given in its fold, so that trials of all folds can be taken together. The spread is that over
    resamples of the trials.
    """
    if len(trials.frame) < ENOUGH or not trials.settings or not np.ptp(trials.gain):
        return []
    from kit.learn import importance

    return importance.of_trials(trials.frame[trials.settings], trials.gain, seed, FORESTS, TREES)


def importance_table(name: str, found: Sequence[Importance]) -> Table | None:
    """The share of each setting with its least and most."""
    if not found:
        return None
    rows = [(one.name, percent(one.share), percent(one.low), percent(one.high)) for one in found]
    head = ("setting", "share of the variance", "least", "most")
    return Table(f"Importance of settings, {name}", head, rows)


def importance_chart(n: int, name: str, found: Sequence[Importance]) -> str:
    """The same as bars."""
    if not found:
        return ""
    from kit.show import score_plots

    bars = [
        (one.name, 100 * one.share, f"{percent(one.share)} ({percent(one.low)} to {percent(one.high)})")
        for one in found
    ]
    label = f"Importance of {len(bars)} settings of {name}: the first is {bars[0][0]} with {bars[0][2]}"
    return score_plots.bars(f"importance-{n}", label, "share of the losses' variance, %", bars)


def importance_words(trials: Trials) -> str:
    """How much the importance means, or why there is none."""
    count, settings = len(trials.frame), len(trials.settings)
    if count < ENOUGH:
        return (
            f"{count} complete trials are too few to say which settings matter: {ENOUGH} are needed"
            " (tune.trials=N gives each fold N)."
        )
    if count < ROUGH * settings:
        return (
            f"{count} trials of {settings} settings: this ranks them roughly at best. Least and most are over"
            f" {FORESTS} resamples of the trials; where these overlap, the order means nothing. {WHOLE}"
        )
    from kit.learn.importance import MOST

    drawn = f"{MOST} that were drawn of the {count} trials" if count > MOST else f"the {count} trials"
    return f"Least and most are over {FORESTS} resamples of {drawn}. {WHOLE}"
