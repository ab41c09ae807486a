"""Fitting every backbone on every fold: the `train` stage.

Under ``torchrun`` several processes fit together: see `kit.learn.ranks`. Those beside the first leave when
the stage is done; it alone goes on.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save

from kit import seeds, settings, state
from kit.competition import Training
from kit.errors import KitError, SettingError, did_you_mean
from kit.files import file_digest, write_bytes, write_json
from kit.learn import (
    embed,
    encode,
    extra,
    models,
    monitor,
    needs,
    plan,
    pooling,
    preprocess,
    projection,
    ranks,
    views,
)
from kit.learn.bags import BagModel
from kit.learn.begin import begun
from kit.learn.checkpoint import Keeper
from kit.learn.dataset import labelled, turned_copies
from kit.learn.encode import device
from kit.learn.fit import Fit
from kit.learn.loop import AfterEpoch, Diverged, Loop
from kit.learn.models import Model
from kit.learn.monitor import Monitor
from kit.learn.plan import Job
from kit.learn.weights import check_attached, find_weights
from kit.progress import Bar
from kit.state import Run

VERSION = needs.VERSION  # the stage does nothing else
RETRIES = 1  # of a fit whose loss is not finite
log = logging.getLogger("kit")


def inputs(run: Run) -> dict[str, Any]:
    """What `reads` says, what tuning has chosen, the hours, and how many processes fit, if several."""
    count = _processes(run)
    asked = {"hours": run.competition.training.hours, "tuned": _tuned(run)}
    return reads(run) | asked | ({"processes": count} if count > 1 else {})


def reads(run: Run) -> dict[str, Any]:
    """What weights, pixels and code tuning and training depend on, beside settings and the stages before."""
    return needs.of_code(run) | {"models": {m.name: needs.of_model(run, m) for m in models.first_seeds(run)}}


def _tuned(run: Run) -> dict[str, Any] | None:
    """The settings that were chosen for every model and fold; ``None`` before tuning is finished.

    The key of `tune` does not say them: which trial is best may depend on how many processes searched.
    """
    if not state.finished(run, "tune"):
        return None
    best = json.loads((run.folder("tune") / "best.json").read_text())
    return {name: {fold: found["settings"] for fold, found in mine.items()} for name, mine in best.items()}


def check(run: Run) -> None:
    """Settings make sense; backbones exist, their weights fit, and they take tiles of the chosen size.

    Raises:
        WeightsError, SettingError: one does not.
    """
    turned_copies(run)
    todo = models.first_seeds(run)
    _check_names(run, todo)
    _say_idle(todo)
    monitor.check(run.competition.training)
    extra.check(run)
    check_attached([model.backbone for model in todo], run.weights)
    for model in todo:
        for sentence in models.check(model, run.competition.metric):
            log.info("%s: %s", model.name, sentence)
        pooling.check(model.training)
        views.coset(model.training.views, 0)
        _check_pixels(run, model)


def _check_names(run: Run, todo: Sequence[Model]) -> None:
    """No model is called as another row of the tables, and there is every one that is to be blended.

    Raises:
        SettingError: one is, or is not there.
    """
    task = run.competition.second_level
    names = [model.name for model in todo]
    if taken := [name for name in names if name in (*settings.ROWS, task.method)]:
        hint = f"give it a name of its own in train.backbones: my-{taken[0]} = encoder:mode"
        raise SettingError(f"a model is called '{taken[0]}', as another row of the tables is", hint)
    names += run.external.oof
    if unknown := [name for name in task.models if name not in names]:
        message = f"combine.models names '{unknown[0]}', and no model is called so"
        raise SettingError(message, did_you_mean(unknown[0], names))


def _say_idle(todo: Sequence[Model]) -> None:
    """Say which settings of some models do nothing in their mode."""
    plain, said = Training(), dict[tuple[str, ...], list[str]]()
    for model in todo:
        idle = [
            n for n in models.IDLE[model.backbone.mode] if getattr(model.training, n) != getattr(plain, n)
        ]
        if idle:
            said.setdefault((model.backbone.mode, *idle), []).append(model.name)
    for (mode, *idle), names in said.items():
        listed = ", ".join(f"train.{name}" for name in idle)
        verb = "make" if len(idle) > 1 else "makes"
        log.info("%s %s no difference to %s: %s", listed, verb, mode, ", ".join(names))


def _check_pixels(run: Run, model: Model) -> None:
    """One tile goes through the whole network."""
    backbone = model.backbone
    network = embed.new_encoder(run, model).eval()
    size = backbone.size or run.competition.tiles.size
    try:
        encode.forward(network.to(device()), np.zeros((1, size, size, 3), np.uint8), 1)
    except (AssertionError, RuntimeError) as error:  # what timm and torch raise for a wrong size
        wanted = preprocess.of(backbone.encoder, find_weights(backbone, run.weights)).size
        raise SettingError(
            f"{backbone.encoder} does not take tiles of {size} pixels: {error}",
            f"write {backbone.encoder}:{backbone.mode}:{wanted} in train.backbones",
        ) from error


def run(run: Run) -> list[Path]:
    """The stage: one file of weights a model and fold, each with its description.

    A fit that fails does not end the night: the others are made, and what failed is said at the end. The
    processes that ``torchrun`` started beside the first one leave here with exit code 0.

    Raises:
        KitError: a fit failed; the others are kept, and are not made again.
    """
    with ranks.joined():
        torch.set_num_threads(run.threads)
        if ranks.rank():
            log.setLevel(logging.ERROR)
        _pin(run)
        images = labelled(run)
        jobs = [(model, fold) for model in models.of_run(run) for fold in fold_names(images)]
        outputs, failures = _fit_all(run, images, _affordable(run, images, jobs))
        ranks.wait()
    if ranks.rank():
        raise SystemExit(0)
    if failures:
        whole = "\n".join(f"{error.message}\n  hint: {error.hint}" for error in failures)
        message = f"{len(failures)} of {len(jobs)} fits failed:\n{whole}"
        raise KitError(message, "the others are kept: mend the setting, and repeat the command")
    return outputs


def _fit_all(run: Run, images: pd.DataFrame, jobs: Sequence[Job]) -> tuple[list[Path], list[KitError]]:
    """Fit what is not there yet; the files, and what went wrong."""
    chosen = json.loads((run.folder("tune") / "best.json").read_text())
    outputs, failures = [], []
    for model, fold in Bar(jobs, desc="training", unit="fold", disable=bool(ranks.rank())):
        rows = images[(images["role"] == "fold") & (images["fold"] != fold)]
        tuned = model.having(chosen[model.name][fold]["settings"])
        try:
            outputs += _train_fold(Fit(run, tuned, rows, f"{model.purpose} fold {fold}"), fold)
        except KitError as error:
            if ranks.active() and not model.frozen and not isinstance(error, Diverged):
                raise  # the other processes do not know of it, and would wait
            log.error("%s", error.message)
            failures.append(error)
    return outputs, failures


def _affordable(run: Run, images: pd.DataFrame, jobs: list[Job]) -> list[Job]:
    """The jobs for which there is time: see `kit.learn.plan`."""
    if not run.competition.training.hours:
        return jobs
    learned = images[(images["role"] == "fold") & (images["fold"] != fold_names(images)[0])]
    costs: plan.Costs = lambda model: projection.cost(run, model, learned)  # noqa: E731
    if ranks.active():  # steps are made by all together, the plan by the first
        known = {model.name: costs(model) for model in models.first_seeds(run)}
        costs = lambda model: known[model.name]  # noqa: E731
    return ranks.from_first(plan.affordable(run, jobs, costs) if ranks.rank() == 0 else jobs)


def forget(run: Run) -> None:
    """Remove what the stage would go on from: records and checkpoints of fits, and the plan."""
    for pattern in ("*/*.json", "*/*.ckpt", "*/*.log.csv", "plan.json"):
        for path in run.folder("train").glob(pattern):
            path.unlink(missing_ok=True)  # of several processes each comes here


def fold_names(images: pd.DataFrame) -> list[str]:
    """The folds in numeric order."""
    return sorted(set(images.loc[images["role"] == "fold", "fold"]), key=int)


def weights_path(run: Run, model: Model, fold: str) -> Path:
    """Where the weights of a fold's model are kept."""
    seed = f"seed{model.seed}-" if model.seed else ""
    return run.folder("train") / model.name / f"{seed}fold{fold}.safetensors"


def _train_fold(fit: Fit, fold: str) -> list[Path]:
    """Fit and keep one fold's model, unless a run that was stopped has already done so."""
    path = weights_path(fit.run, fit.model, fold)
    beside = path.with_suffix(".json")
    key = needs.key(fit)
    if ranks.from_first(_is_kept(path, beside, key)):
        return [path, beside]
    if fit.model.frozen and ranks.rank():
        return [path, beside]  # the first process alone fits it
    found = _fitted(fit, path.with_suffix(".ckpt"), path.with_suffix(".log.csv"))
    if ranks.rank():
        return [path, beside]
    write_bytes(path, save({k: v.contiguous() for k, v in found.network.state_dict().items()}))
    write_json(beside, _record(fit, fold, found) | {"key": key, "sha256": file_digest(path)})
    path.with_suffix(".ckpt").unlink(missing_ok=True)
    return [path, beside]


def _record(fit: Fit, fold: str, found: Fitted) -> dict[str, Any]:
    """What it takes to use the weights, and how they came about."""
    model, training = fit.model, fit.training
    weights = find_weights(model.backbone, fit.run.weights)
    return {
        "timm": model.backbone.encoder,
        "mode": model.backbone.mode,
        "fold": fold,
        "seed": fit.run.seed + model.seed,
        "classes": list(fit.run.competition.classes),
        "tile": fit.run.competition.tiles.size,
        "size": model.backbone.size,
        "settings": dataclasses.asdict(training),
        "loss": training.loss,
        "pool": training.pool,
        "layers": training.layers,
        "features": int(found.network.head.in_features),
        "epochs_done": found.epochs,
        "retries": found.retries,
        "parts": found.parts,
        "processes": ranks.world() if not model.frozen else 1,
        **preprocess.of(model.backbone.encoder, weights).record(),
    }


def _is_kept(path: Path, beside: Path, key: str) -> bool:
    """Whether the weights are there, of this very fit, and as they were written."""
    if not (beside.is_file() and path.is_file()):
        return False
    record = json.loads(beside.read_text())
    return bool(record["key"] == key and record.get("sha256") == file_digest(path))


@dataclass(frozen=True)
class Fitted:
    """A network and how it came about: after how many epochs, retries, and in how many parts a batch."""

    network: BagModel
    epochs: int
    retries: int
    parts: int


def train(
    fit: Fit,
    checkpoint: Path | None = None,
    after_epoch: AfterEpoch | None = None,
    retries: int = RETRIES,
) -> BagModel:
    """Fit one model.

    Args:
        checkpoint: kept after every epoch, and every minute within one; a stopped run goes on from it.
        after_epoch: is given each epoch's number and network, and says whether it is enough.
        retries: how often it may begin again with a tenth of the rate.

    Raises:
        DataError: a class has no image to learn from.
        SettingError: the loss is not finite, with a tenth of the rate neither; or the memory is too small.
    """
    return _fitted(fit, checkpoint, None, after_epoch, retries).network


def _fitted(
    fit: Fit,
    checkpoint: Path | None,
    logged: Path | None,
    after_epoch: AfterEpoch | None = None,
    most: int = RETRIES,
) -> Fitted:
    """Fit one model; one whose loss is not finite begins again with a tenth of the rate, said aloud."""
    fit.need_all_classes()
    judged = None
    keeper = Keeper(checkpoint, needs.key(fit) if checkpoint else "")
    if fit.training.stop == "inner":
        fit, judged = fit.aside()
    kept = keeper.load()
    retries = int(kept["retries"]) if kept else 0
    while True:
        try:
            return _attempt(fit, judged, keeper, logged, retries, after_epoch)
        except Diverged as error:
            if retries >= most:
                raise
            log.warning("%s: it begins again with a tenth of that", error.message)
            log.warning("to choose another rate: %s", error.hint)
            retries += 1
            keeper.drop()
            if logged is not None:
                logged.unlink(missing_ok=True)


def _attempt(
    fit: Fit,
    judged: pd.DataFrame | None,
    keeper: Keeper,
    logged: Path | None,
    retries: int,
    after_epoch: AfterEpoch | None,
) -> Fitted:
    first = ranks.rank() == 0
    title = fit.purpose if logged and first else ""
    watch = Monitor(logged if first else None, title, fit.training.logs if first else ())
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seeds.number(fit.run.seed, fit.purpose, "start"))
            network, source = begun(fit, judged)
            loop = Loop(fit, network, source, keeper, watch, retries)
            found = loop.run(after_epoch)
    finally:
        watch.close()
    return Fitted(found, loop.progress.epoch, retries, loop.progress.parts)


# -- several processes


def _processes(run: Run) -> int:
    """How many processes fit, or have fitted, this run's models together."""
    if ranks.world() > 1:
        return ranks.world()
    path = _pinned(run)
    return int(json.loads(path.read_text())) if path.is_file() else 1


def _pinned(run: Run) -> Path:
    return run.folder("train") / "processes.json"


def _pin(run: Run) -> None:
    """Note the number of processes, so that the stages behind, which have one each, know the key."""
    path, count = _pinned(run), ranks.world()
    if count > 1 and ranks.rank() == 0:
        write_json(path, count)
    elif count == 1 and path.is_file():
        path.unlink()
        run.forget_keys("tune")  # those behind it were made for as many processes as before
    ranks.wait()
