"""What the result of one fit depends on: as much as changes it, and no more.

A whole stage depends on more: on the other models of the run, on seeds and hours. A fit that is finished is
kept whatever becomes of these.
"""

from __future__ import annotations

from typing import Any

from kit.files import digest
from kit.learn import embed, extra, models, pixels, preprocess, ranks
from kit.learn.encode import device
from kit.learn.fit import Fit
from kit.learn.models import Model
from kit.learn.weights import find_weights, weights_digest
from kit.state import Run

VERSION = 3  # of how a fit learns: another one makes every fit again
# Settings of a run that say which fits are made, or what is logged of them.
BESIDE = ("backbones", "seeds", "hours", "logs")


def of_model(run: Run, model: Model) -> dict[str, Any]:
    """The digest of a model's pretrained weights, what pixels they want, and what they are warmed up with.

    Raises:
        WeightsError: the weights are not there, or what lies beside them contradicts itself.
    """
    weights = find_weights(model.backbone, run.weights)
    found: dict[str, Any] = {
        "weights": weights_digest(model.backbone, run.weights),
        "pixels": preprocess.of(model.backbone.encoder, weights).record(),
    }
    if (warmup := extra.version(run, model)) is not None:
        found["warmup"] = warmup
    return found


def of_code(run: Run) -> dict[str, Any]:
    """The versions of what is computed beside the stages, and the device: it changes sums."""
    return {"embed": embed.VERSION, "pixels": pixels.VERSION, "device": device().type}


def _settings(mode: str) -> list[str]:
    """The settings that make a difference to a fit of this mode, sorted."""
    own = {models.field_of(mode, name) for name in models.own_names(mode)}
    return sorted(own | set(models.SHARED) - set(BESIDE))


def key(fit: Fit) -> str:
    """The key of a fit: equal keys mean equal weights."""
    run, model, task = fit.run, fit.model, fit.run.competition
    backbone = model.backbone
    content = {
        "version": VERSION,
        "code": of_code(run),
        "purpose": fit.purpose,
        "encoder": [backbone.encoder, backbone.mode, backbone.size],
        "settings": {name: getattr(fit.training, name) for name in _settings(backbone.mode)},
        "images": list(zip(fit.images.index.tolist(), fit.images["y"].tolist(), strict=True)),
        "before": [run.key("fold"), run.key("tile")],
        "task": [list(task.classes), repr(task.metric)],
        "seed": run.seed,
        "threads": run.threads,
        "processes": 1 if model.frozen else ranks.world(),
        "warmed": extra.warm_key(run, model),
    }
    return digest(content | of_model(run, model))
