"""Pictures of what every tile counted in the prediction of its image, from what `predict` kept.

``WORK/<name>/pictures/attention/<model>/<split>/`` gets one picture an image: the model is the one that was
fitted without it. Attention says where a model looked, and not why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit import parallel
from kit.errors import SettingError, StageError, did_you_mean, listed
from kit.files import write_bytes
from kit.learn import attention, plan
from kit.read import store
from kit.read.tiles import load_images
from kit.show import sheet
from kit.show.tiles import facts
from kit.state import Run, finished


@dataclass(frozen=True)
class Look:
    """What one model attended to in one image.

    head: the image's row of ``images.csv``. model: the folder of its shares; seed: ``""`` of the first.
    """

    head: dict[str, Any]
    model: str
    seed: str
    shares: NDArray[np.float32]


def pictures(run: Run, ids: Sequence[str] = ()) -> str:
    """Draw the attention of every model that has one.

    Args:
        ids: of the images to draw; all if there are none.

    Returns:
        what the console prints.

    Raises:
        SettingError: there is no image of such an id, or no model attends to tiles.
        StageError: `predict` is not finished, or was made from other tiles.
        StorageError: the disk is full, or the folder cannot be written.
    """
    if not finished(run, "predict"):
        raise StageError(
            "predict has not been finished with these options and settings",
            f"type: python -m kit predict {run.asked or run.name} (same options), then repeat the command",
        )
    looks = _looks(run, ids)
    draw = partial(_drawn, run.folder("tile"), run.folder("pictures") / "attention")
    drawn = parallel.run_all(draw, looks, run.workers, "pictures")
    paths = [found for found in drawn if isinstance(found, Path)]
    left = [found for found in drawn if isinstance(found, str)]
    lines = [f"pictures of attention: {len(paths):,} in {run.folder('pictures') / 'attention'}"]
    lines += [str(path) for path in paths] if ids else []
    lines += ["not drawn:", listed(left)] if left else []
    return "\n".join(lines)


def _looks(run: Run, ids: Sequence[str]) -> list[Look]:
    """What there is to draw, by model, split and image."""
    rows: list[dict[str, Any]] = load_images(run).to_dict("records")  # type: ignore[assignment]
    heads = {(row["split"], row["image_id"]): row for row in rows}
    found = []
    for path in _files(run):
        seed, _, split = path.stem.rpartition("-")
        for image, shares in attention.read(path).items():
            if not ids or image in ids:
                found.append(Look(heads[split, image], path.parent.name, seed, shares))
    seen = {look.head["image_id"] for look in found}
    for name in ids:
        if name not in seen:
            raise _unseen(run, name, rows)
    return found


def _unseen(run: Run, name: str, rows: Sequence[dict[str, Any]]) -> SettingError:
    """Why there is nothing to draw of an image."""
    mine = [row for row in rows if row["image_id"] == name]
    if not mine:
        hint = did_you_mean(name, {row["image_id"] for row in rows})[:400]
        return SettingError(f"no model attended to an image '{name}'", hint)
    place = run.folder("tile") / "images.csv"
    why = [f"{row['status']}: {row['reason']}" for row in mine if row["status"] != "ok"]
    if why:
        return SettingError(
            f"image '{name}' has no tiles ({why[0]})", f"ask for an image that is ok in {place}"
        )
    message = f"no model attended to image '{name}': it has tiles, and was not predicted"
    return SettingError(message, "ask for an image of a fold, of the held-out set or of the test table")


def _files(run: Run) -> list[Path]:
    files = attention.files(run, plan.kept(run))
    if not files:
        raise SettingError(
            f"no model of this run attends to tiles: train.pool={run.competition.training.pool}",
            "use --set train.pool=attention (or heads, transformer, vote) for train and predict",
        )
    return files


def _drawn(source: Path, target: Path, look: Look) -> Path | str:
    """Draw one image; or say why it cannot be drawn."""
    split, image = look.head["split"], look.head["image_id"]
    try:
        tiles = store.read(store.path_of(source, split, image))
        if len(tiles) != len(look.shares):
            return f"{image}: its tiles are not those that were predicted from"
        words = [f"{look.model} {look.seed}".strip(), *facts({"label": "", **look.head}, tiles)]
        picture = sheet.attended(tiles, look.shares, image, words)
    except StageError as error:
        return f"{image}: {error.message}"
    place = target / look.model / look.seed if look.seed else target / look.model
    path = store.path_of(place, split, image).with_suffix(".png")
    write_bytes(path, store.encode(picture))
    return path
