"""Searching training settings with Optuna, honestly: the `tune` stage.

Every training fold has a study of its own, and a trial is scored on inner splits of that training fold,
so no setting is chosen by looking at the fold it will be judged on. Trial 0 is the settings as given;
another trial replaces them only if it is better by more than one paired standard error, and does not lose
on fresh splits. Further seeds of a model share the settings of its first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import sqlalchemy
import torch
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from kit import folds, state
from kit.errors import SettingError, StageError, StorageError
from kit.files import digest, write_json, write_table
from kit.learn import confirm, models, needs, scoring, study
from kit.learn.dataset import labelled
from kit.learn.models import Model
from kit.learn.space import defaults, propose, space
from kit.learn.storage import journal_path, masked, open_storage
from kit.learn.study import Search, Trials
from kit.learn.train import fold_names
from kit.learn.train import reads as train_inputs
from kit.progress import Bar
from kit.state import Run

VERSION = 5
LEAST_FOLDS = 3  # one to judge on, one for an inner split, one to learn from
COLUMNS = ["backbone", "fold", "trial", "state", "folds", "loss"]
BESIDE = ("storage", "finetune")  # settings of the search that no trial depends on
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Cell:
    """One model without one fold, and the search for its settings, if there is one."""

    model: Model
    fold: str
    search: Search | None


def inputs(run: Run) -> dict[str, Any]:
    """The same as training reads."""
    return train_inputs(run)


def check(run: Run) -> None:
    """Training can begin, the ranges make sense, the storage answers, and there are inner splits.

    Raises:
        WeightsError, SettingError: something does not.
    """
    state.preflight(run, ["train"])  # what it would complain of is better known before the search
    todo = [model for model in models.first_seeds(run) if trials_of(run, model)]
    for model in todo:
        space(run.competition, model)
    if not todo:
        return
    if run.competition.tuning.storage:
        with answering(run):
            open_storage(run)
    given = state.finished(run, "fold") or run.folds_given
    inside = folds.training_folds(run) if given else None
    count = run.competition.folds.k if inside is None else len(fold_names(inside))
    by_site = inside is None and run.competition.folds.scheme == "site"  # there are as many folds as sites
    if count < LEAST_FOLDS and not by_site:
        hint = f"draw at least {LEAST_FOLDS} folds (fold.k={LEAST_FOLDS}), or do without: --set tune.trials=0"
        raise SettingError(
            f"with {count} folds, no part of a training fold can be set aside for tuning", hint
        )


def run(run: Run) -> list[Path]:
    """The stage: the settings of every backbone and fold, and tables of all trials and of fresh scores."""
    torch.set_num_threads(run.threads)
    images = labelled(run)
    images = images[images["role"] == "fold"]
    cells = [
        Cell(model, fold, search_of(run, model, images, fold))
        for model in models.first_seeds(run)
        for fold in fold_names(images)
    ]
    if not any(cell.search for cell in cells):
        return _write(run, [(cell, [], None) for cell in cells])
    with answering(run):
        storage = open_storage(run)
        searches = [cell.search for cell in cells if cell.search is not None]
        _work(storage, searches, "tuning")
        trials = {search.name: study.finished(storage, search) for search in searches}
        again = {
            cell.search.name: found
            for cell in cells
            if cell.search and (found := _confirmation(run, images, cell, trials[cell.search.name]))
        }
        _work(storage, list(again.values()), "confirming")
        checked = {name: confirm.fresh(study.finished(storage, found)) for name, found in again.items()}
    names = [cell.search.name if cell.search else "" for cell in cells]
    pairs = zip(cells, names, strict=True)
    return _write(run, [(cell, trials.get(name, []), checked.get(name)) for cell, name in pairs])


def _work(storage: BaseStorage, searches: list[Search], what: str) -> None:
    if searches:
        with Bar(total=sum(search.slots for search in searches), desc=what, unit="trial") as bar:
            study.work(storage, searches, bar)


def _confirmation(run: Run, images: pd.DataFrame, cell: Cell, trials: Trials) -> Search | None:
    if cell.search is None or not run.competition.tuning.confirm:
        return None
    return confirm.search(run, cell.model, images, cell.fold, cell.search.name, trials)


def show(run: Run) -> str:
    """What was found, for the console."""
    return confirm.text(run)


def forget(run: Run) -> None:
    """Delete the studies of these settings, so that every trial is done again.

    Raises:
        StageError: another process is at work on one.
    """
    images = labelled(run)
    names = [study_name(run, m, fold) for m in models.first_seeds(run) for fold in fold_names(images)]
    if not (run.competition.tuning.storage or journal_path(run).is_file()):
        return
    with answering(run):
        at_work = study.forget(
            open_storage(run), [full for name in names for full in (name, f"{name}/confirm")]
        )
    if at_work:
        numbers = ", ".join(f"process {owner.pid}" for owner in at_work)
        hint = "stop it; or leave out --force, to work together with it"
        raise StageError(f"tune cannot begin anew: {numbers} is at work on it", hint)


@contextlib.contextmanager
def answering(run: Run) -> Iterator[None]:
    """A database that goes away is no bug of ours.

    Raises:
        StorageError: it does; without its password.
    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError) as error:
        shown = masked(run.competition.tuning.storage)
        hint = "look after the server, then repeat the command: it goes on with the trials that it has"
        raise StorageError(f"tune.storage: '{shown}' does not answer any more", hint) from error


def trials_of(run: Run, model: Model) -> int:
    """Trials a fold of this backbone: fine-tuning is searched only when asked for, since it is slow."""
    tuning = run.competition.tuning
    return tuning.trials if model.frozen or tuning.finetune else 0


def study_name(run: Run, model: Model, fold: str) -> str:
    """The study of a model without a fold: settings that change a loss have a study of their own."""
    return f"{model.name}/fold{fold}/{digest([_key(run, model), fold])[:12]}"


def _key(run: Run, model: Model) -> str:
    """What the trials of a model depend on: more models, seeds or hours leave its studies as they are."""
    task, backbone = run.competition, model.backbone
    train, search = dataclasses.asdict(model.training), dataclasses.asdict(task.tuning)
    content: dict[str, Any] = {
        "versions": [VERSION, needs.VERSION],
        "code": needs.of_code(run),
        "before": [run.key("fold"), run.key("tile")],
        "task": [list(task.classes), repr(task.metric)],
        "seed": run.seed,
        "threads": run.threads,
        "model": [model.name, backbone.encoder, backbone.mode, backbone.size],
        "train": {name: value for name, value in train.items() if name not in needs.BESIDE},
        "space": {name: repr(values) for name, values in space(task, model).items()},
        "tune": {name: value for name, value in search.items() if name not in BESIDE},
    }
    return digest(content | needs.of_model(run, model))


def search_of(run: Run, model: Model, images: pd.DataFrame, fold: str) -> Search | None:
    """The trials of one backbone and fold; ``None`` if there are to be none."""
    wanted = trials_of(run, model)
    if not wanted:
        return None
    splits = scoring.inner_splits(run, images, fold)
    if not splits:
        log.info("no tuning without fold %s: no inner split of the rest has every class", fold)
        return None
    return Search(
        study_name(run, model, fold),
        wanted,
        lambda slot, trials: propose(run, model, fold, slot, trials),
        lambda slot, settings, trials: scoring.score(run, model.having(settings), splits, slot, trials),
    )


def choose(model: Model, trials: Trials, checked: confirm.Fresh | None) -> dict[str, Any]:
    """The best trial, if it beats trial 0 by more than one paired standard error and on fresh splits too.

    Args:
        trials: those of a finished search, by slot; none where there was no search.
        checked: what both scored on fresh splits, if they were scored there.
    """
    if not trials:
        return {"settings": defaults(model), "trial": None, "trials": 0}
    start, best = scoring.best_of(trials)
    gain, error = scoring.paired(study.losses(start), study.losses(best))
    is_better = gain > error and (checked is None or checked.holds)
    taken = best if is_better else start
    found = {
        "settings": taken.user_attrs["settings"],
        "trial": study.slot_of(taken),
        "trials": len(trials),
        "pruned": sum(trial.state == TrialState.PRUNED for trial in trials),
        "diverged": sum(bool(study.diverged(trial)) for trial in trials),
        "inner_loss": taken.value,
        "inner_loss_untuned": start.value,
        "standard_error": error,
    }
    if checked is not None:
        fresh = checked.loss if is_better else checked.untuned
        found |= {"fresh_loss": fresh, "fresh_loss_untuned": checked.untuned}
    return found


def _write(run: Run, found: list[tuple[Cell, Trials, confirm.Fresh | None]]) -> list[Path]:
    """``best.json``, ``trials.csv`` and ``confirm.csv``."""
    best: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    names = list(COLUMNS)
    for cell, trials, checked in found:
        chosen = choose(cell.model, trials, checked)
        best.setdefault(cell.model.name, {})[cell.fold] = chosen
        names += [name for name in defaults(cell.model) if name not in names]
        rows += [_row(cell, trial) for trial in trials]
        if trials:
            taken = chosen["trial"] != 0
            again.append(confirm.row(cell.model, cell.fold, trials, checked, taken))
    folder = run.folder("tune")
    write_json(folder / "best.json", best)
    write_table(folder / "trials.csv", pd.DataFrame(rows, columns=names))
    return [folder / "best.json", folder / "trials.csv", confirm.write(run, again)]


def _row(cell: Cell, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """A row of ``trials.csv``: ``folds`` counts the inner splits that it has seen; diverged is as pruned."""
    place: dict[str, Any] = {"backbone": cell.model.name, "fold": cell.fold, "trial": study.slot_of(trial)}
    state = "diverged" if study.diverged(trial) else trial.state.name.lower()
    done = {"state": state, "folds": len(trial.user_attrs["losses"]), "loss": trial.value}
    return {**place, **done, **trial.user_attrs["settings"]}
