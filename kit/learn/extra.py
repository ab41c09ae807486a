"""Images without a label of the task: which model may learn from them, and encoders warmed up on them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from kit import folds
from kit.errors import DataError, SettingError
from kit.files import locked
from kit.learn import models, warmup
from kit.learn.dataset import Ids, ids_with_tiles
from kit.learn.models import Model
from kit.learn.warmup import Warmup
from kit.state import Run

log = logging.getLogger("kit")


def everyone(run: Run) -> pd.DataFrame:
    """The fold table of the labelled images, and every image without a label as a row of role ``extra``.

    The latter come from the data folder, since a fold table from elsewhere need not list them.
    """
    table = folds.training_folds(run)
    table = table[table["role"] != "extra"]
    if run.tables.extra is None:
        return table
    extra = run.tables.extra.drop(columns="path").assign(role="extra", fold="", fold_site="")
    return pd.concat([table, extra.assign(group_id=folds.joined_groups(run).loc[extra.index])])


def allowed(table: pd.DataFrame, *judged: str) -> Ids:
    """The images without a label that may teach a model that is judged on these folds, sorted.

    Args:
        table: by image_id, with unit_id, group_id, role and fold; see `everyone`.
        judged: folds that the model does not learn from. The held-out set is never learned from.

    An image of a patient who has labelled ones goes with those: it is used where they are, else not.
    """
    seen = (table["role"] == "fold") & ~table["fold"].isin(judged)
    return beside(table, table.index[seen])


def beside(table: pd.DataFrame, seen: Iterable[str]) -> Ids:
    """The images without a label that may teach a model that learns from these labelled ones, sorted.

    Left out are those of any unit or group that has a labelled image outside ``seen``: the model may be
    judged on it, or stopped or tuned by it.
    """
    extra = table["role"] == "extra"
    unseen = table[~extra & ~table.index.isin(list(seen))]
    taken = table["unit_id"].isin(unseen["unit_id"]) | table["group_id"].isin(unseen["group_id"])
    return np.array(sorted(table.index[extra & ~taken]), dtype=object)


def unlabelled(run: Run, seen: Iterable[str]) -> pd.DataFrame:
    """The rows that `beside` allows and that have tiles, with y = -1, by image_id; see ``train.extra``.

    Raises:
        DataError: there is none.
    """
    table = everyone(run)
    ids = beside(table, seen)
    tiled = set(ids_with_tiles(run, "extra"))
    found = table.loc[[image for image in ids if image in tiled]]
    if found.empty:
        raise DataError(
            f"train.extra={run.competition.training.extra}, and no image without a label can be used:"
            f" {len(ids)} may be, and none of them has tiles",
            f"see the reasons in {run.folder('tile') / 'images.csv'}",
        )
    return found.assign(y=-1)


def check(run: Run) -> None:
    """The way in which images without a label are to be used is possible.

    Raises:
        SettingError: they are not tiled, or no model of the run could be warmed up on them.
    """
    chosen = run.competition.training.extra
    if chosen == "none":
        return
    if not run.competition.tiles.extra:
        message = f"train.extra={chosen} needs the tiles of images without a label"
        raise SettingError(message, "add --set tile.extra=true, and repeat tile")
    frozen = [model.name for model in models.first_seeds(run) if model.frozen]
    if chosen != "pretrain" or not frozen:
        return
    if len(frozen) == len(models.first_seeds(run)):
        raise SettingError(
            "train.extra=pretrain warms up encoders that go on learning, and all of this run are frozen",
            "use finetune or scratch in train.backbones, or train.extra=negative or class",
        )
    log.warning("train.extra=pretrain does nothing for frozen models: %s", ", ".join(frozen))


def version(run: Run, model: Model) -> int | None:
    """The version of the warm-up that a model's encoder goes through; ``None`` if it goes through none."""
    return warmup.VERSION if _is_warmed(run, model) else None


def warm_key(run: Run, model: Model) -> str | None:
    """The key of that warm-up, for which tiles must be there."""
    return _warmup(run, model).key if _is_warmed(run, model) else None


def _is_warmed(run: Run, model: Model) -> bool:
    return run.competition.training.extra == "pretrain" and not model.frozen


def _warmup(run: Run, model: Model) -> Warmup:
    return Warmup(run, model, unlabelled(run, ()).index.to_numpy(dtype=object))


def warm(run: Run, model: Model) -> Path | None:
    """The weights of a model's encoder after the warm-up, made at the first call.

    Every model with this backbone starts from them, in all folds and seeds; what tuning or a model's own
    settings change does not matter. Another process that asks for the same ones waits.

    Returns:
        WORK/<name>/extra/<backbone>-<key>.safetensors, a JSON beside it; ``None`` where nothing is warmed
        up: without ``train.extra=pretrain``, and for frozen models.

    Raises:
        SettingError: the encoder has collapsed, or its loss was not finite.
        DataError: there are too few images.
    """
    if not _is_warmed(run, model):
        return None
    work = _warmup(run, model)
    path = run.folder("extra") / f"{model.backbone.name}-{work.key[:12]}.safetensors"
    with locked(path.with_suffix(".lock")):
        if not work.is_kept(path):
            work.learn(path)
    return path
