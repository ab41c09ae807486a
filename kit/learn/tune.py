"""Searching training settings with Optuna, honestly: the `tune` stage.

Every training fold has a study of its own, and a trial is scored on inner folds cut from that
training fold, so no setting is chosen by looking at the fold it will be judged on. Trial 0 is the
settings as given; another trial replaces them only if it is better by more than one paired standard
error.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from numpy.typing import NDArray
from optuna.storages import journal
from tqdm.auto import tqdm

from kit import seeds
from kit.competition import Competition
from kit.files import digest, write_json, write_table
from kit.learn import backbones
from kit.learn.backbones import Backbone
from kit.learn.dataset import labelled
from kit.learn.predict import predict_images
from kit.learn.train import Fit, Hyper, defaults, fold_names, train
from kit.learn.train import inputs as train_inputs
from kit.state import Run

VERSION = 2
log = logging.getLogger("kit")
Distributions = dict[str, optuna.distributions.BaseDistribution]


def inputs(run: Run) -> dict[str, Any]:
    """The same as training reads."""
    return train_inputs(run)


def space(task: Competition, backbone: Backbone) -> Distributions:
    """What a trial may choose; a bag of one has no pool and no choice of tiles, and zero stays zero."""
    # The centre of each range is the untuned value; the frozen mode's decay is its ridge.
    first = defaults(task.training, backbone.mode)
    wide = 30.0 if backbone.mode == "frozen" else 5.0
    found: Distributions = {
        name: optuna.distributions.FloatDistribution(value / width, value * width, log=True)
        for name, value, width in (("lr", first.lr, 4.0), ("weight_decay", first.weight_decay, wide))
        if value
    }
    found["drop"] = optuna.distributions.FloatDistribution(0.0, max(0.6, first.drop))
    found["augment"] = optuna.distributions.FloatDistribution(0.0, 1.0)
    if task.tiles.count > 1:
        found["pool"] = optuna.distributions.CategoricalDistribution(["mean", "attention"])
        bags = {size for size in (2, 4, 8, 16, 32) if size <= task.tiles.count} | {first.bag}
        found["bag"] = optuna.distributions.CategoricalDistribution(sorted(bags))
    return found


def run(run: Run) -> list[Path]:
    """The stage: the settings of every backbone and fold, and a table of all trials."""
    torch.set_num_threads(run.threads)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    images = labelled(run)
    images = images[images["role"] == "fold"]
    names = fold_names(images)
    best: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    todo = [backbones.parse(spec) for spec in run.competition.training.backbones]
    trials = sum(trials_of(run, backbone) for backbone in todo) * len(names)
    with tqdm(total=trials, desc="tuning", unit="trial", disable=not trials) as bar:
        for backbone in todo:
            best[backbone.name] = {}
            for fold in names:
                study = search(run, backbone, images, fold, bar)
                best[backbone.name][fold] = choose(run, backbone, study)
                # Counted here: of a search that was stopped, the study has numbers of failed trials.
                rows += [_row(backbone, fold, n, trial) for n, trial in enumerate(_finished(study))]
    folder = run.folder("tune")
    write_json(folder / "best.json", best)
    columns = ["backbone", "fold", "trial", "loss", *Hyper.__dataclass_fields__]
    write_table(folder / "trials.csv", pd.DataFrame(rows, columns=columns))
    return [folder / "best.json", folder / "trials.csv"]


def trials_of(run: Run, backbone: Backbone) -> int:
    """Trials a fold of this backbone: fine-tuning is searched only when asked for, since it is slow."""
    tuning = run.competition.tuning
    return tuning.trials if backbone.mode == "frozen" or tuning.finetune else 0


def search(
    run: Run, backbone: Backbone, images: pd.DataFrame, fold: str, bar: tqdm[Any]
) -> optuna.Study | None:
    """Run the trials of one backbone and fold that are not finished yet."""
    wanted = trials_of(run, backbone)
    if not wanted:
        return None
    if not inner_folds(run, images, fold):
        log.info("no tuning without fold %s: no inner split of the rest has every class", fold)
        bar.update(wanted)
        return None
    name = f"{backbone.name}/fold{fold}/{digest([run.key('tune'), backbone.name, fold])[:12]}"
    study = optuna.create_study(storage=storage(run), study_name=name, load_if_exists=True)
    bar.update(min(len(_finished(study)), wanted))
    first = dataclasses.asdict(defaults(run.competition.training, backbone.mode))
    choices = space(run.competition, backbone)
    while (done := len(_finished(study))) < wanted:
        retry_stale(study, choices)
        # Reseeded for each trial: a study that is reopened would repeat its first suggestions.
        study.sampler = optuna.samplers.TPESampler(
            seed=seeds.number(run.seed, "tune", backbone.name, fold, done) % 2**32, n_startup_trials=4
        )
        if done == 0 and not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
            study.enqueue_trial({k: v for k, v in first.items() if k in choices})
        trial = study.ask(choices)
        settings = Hyper(**(first | trial.params))
        losses = inner_losses(run, backbone, settings, images, fold)
        trial.set_user_attr("losses", losses.tolist())
        study.tell(trial, float(losses.mean()))
        bar.update(1)
    return study


def storage(run: Run) -> optuna.storages.BaseStorage:
    """A journal file in the work folder, or the database that ``tune.storage`` names."""
    url = run.competition.tuning.storage
    if url:
        return optuna.storages.RDBStorage(url)
    path = run.folder("tune") / "study.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    drop_torn_line(path)
    # A kill may leave the lock behind; a lock that nobody renews for some seconds is taken over.
    backend = journal.JournalFileBackend(
        str(path), lock_obj=journal.JournalFileOpenLock(str(path), grace_period=5)
    )
    return optuna.storages.JournalStorage(backend)


def drop_torn_line(path: Path) -> None:
    """Cut off what a kill left of a line, so that the next entry begins on a line of its own."""
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


def retry_stale(study: optuna.Study, choices: Distributions) -> None:
    """A trial that a kill left running is closed, and its parameters are tried again."""
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        # One that was stopped while it was drawn is drawn again, from the same seed.
        if set(trial.params) == set(choices):
            study.enqueue_trial(trial.params)


def _finished(study: optuna.Study | None) -> list[optuna.trial.FrozenTrial]:
    if study is None:
        return []
    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def inner_losses(
    run: Run, backbone: Backbone, settings: Hyper, images: pd.DataFrame, fold: str
) -> NDArray[np.float64]:
    """The log loss of every image of the inner validation folds ``(n,)``; ``fold`` is not looked at."""
    losses = []
    for inner in inner_folds(run, images, fold):
        seen = images[(images["fold"] != fold) & (images["fold"] != inner)]
        judged = images[images["fold"] == inner]
        model = train(Fit(run, backbone, settings, seen, f"{backbone.name} tune {fold} {inner}"))
        found = predict_images(run, backbone, model, "train", judged.index.to_numpy(dtype=object))
        truth = judged["y"].to_numpy()
        losses.append(-np.log(np.maximum(found[np.arange(len(truth)), truth], 1e-6)))
    return np.concatenate(losses)


def inner_folds(run: Run, images: pd.DataFrame, fold: str) -> list[str]:
    """The inner validation folds: those that follow in turn and leave every class to learn from."""
    names = fold_names(images)
    place = names.index(fold)
    others = [names[(place + n) % len(names)] for n in range(1, len(names))]
    classes = len(run.competition.classes)
    usable = [name for name in others if images[~images["fold"].isin([fold, name])]["y"].nunique() == classes]
    return usable[: run.competition.tuning.inner]


def choose(run: Run, backbone: Backbone, study: optuna.Study | None) -> dict[str, Any]:
    """The best trial if it beats trial 0 by more than one paired standard error; else trial 0."""
    first = dataclasses.asdict(defaults(run.competition.training, backbone.mode))
    trials = _finished(study)
    if not trials:
        return {"settings": first, "trial": None, "trials": 0}
    start, best = trials[0], min(trials, key=lambda trial: (trial.value, trial.number))
    gains = np.subtract(start.user_attrs["losses"], best.user_attrs["losses"])
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0
    taken = best if float(gains.mean()) > error else start
    return {
        "settings": first | taken.params,
        "trial": trials.index(taken),
        "trials": len(trials),
        "inner_loss": taken.value,
        "inner_loss_untuned": start.value,
        "standard_error": error,
    }


def _row(backbone: Backbone, fold: str, n: int, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    place = {"backbone": backbone.name, "fold": fold, "trial": n, "loss": trial.value}
    return place | trial.params
