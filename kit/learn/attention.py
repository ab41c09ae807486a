"""What every tile counted in the prediction of its image: kept beside the predictions, for pictures.

``WORK/<name>/predict/attention/<model>/<split>.npz`` has the arrays ids ``(n,)``, counts ``(n,)`` and shares
``(T,)``: those of the tiles of each image in the order of its store, end to end; they sum to 1 in an image.
An image of a fold is seen by the model that was fitted without it; one outside the folds by all of them, and
its shares are their mean. Attention says where a model looked, and not why: it is no explanation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from kit.errors import StageError
from kit.files import read_arrays, write_arrays
from kit.state import Run

if TYPE_CHECKING:
    from kit.learn.models import Model  # which needs torch; whoever reads the shares does not

Shares = NDArray[np.float32]
SPLITS = ("test", "train")  # that are predicted


@dataclass
class Attended:
    """The shares of one model, as its folds come in: by split and image, each as often as it was seen."""

    seen: dict[str, dict[str, list[Shares]]] = field(default_factory=dict)

    def add(self, split: str, ids: Iterable[str], shares: Sequence[Shares]) -> None:
        """Add what one fold's model attended to."""
        mine = self.seen.setdefault(split, {})
        for image, share in zip(ids, shares, strict=True):
            mine.setdefault(image, []).append(share)

    def write(self, run: Run, model: Model) -> list[Path]:
        """One file a split, images by id; nothing of a model that attends to none."""
        found = []
        for split, images in sorted(self.seen.items()):
            path = place(run, model.name, model.seed, split)
            # The mean in double: float32 shares of many folds would not sum to 1.
            means = [np.stack(images[name]).astype(np.float64).mean(axis=0) for name in sorted(images)]
            arrays = {
                "ids": np.array(sorted(images), dtype=str),
                "counts": np.array([len(mean) for mean in means], np.int64),
                "shares": np.concatenate(means).astype(np.float32),
            }
            _keep(path, arrays)
            found.append(path)
        return found


def folder(run: Run) -> Path:
    """Where the shares of all models are kept."""
    return run.folder("predict") / "attention"


def place(run: Run, name: str, seed: int, split: str) -> Path:
    """Where the shares of a model are kept."""
    start = f"seed{seed}-" if seed else ""
    return folder(run) / quote(name, safe="") / f"{start}{split}.npz"


def files(run: Run, todo: Iterable[Model]) -> list[Path]:
    """The files of these models that are there, sorted; what lies beside them is of other settings."""
    places = {place(run, model.name, model.seed, split) for model in todo for split in SPLITS}
    return sorted(path for path in places if path.is_file())


def read(path: Path) -> dict[str, Shares]:
    """The shares of each image ``(T,)``, by id.

    Raises:
        StageError: the file is absent or damaged.
    """
    content = read_arrays(path, ("ids", "counts", "shares"))
    if content is None:
        raise StageError(
            f"{path} is {'damaged' if path.is_file() else 'not there'}",
            "type: python -m kit predict <competition> --force (same options), to make it again",
        )
    ends = np.cumsum(content["counts"])[:-1]
    return dict(zip(content["ids"].tolist(), np.split(content["shares"], ends), strict=True))


def _keep(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    write_arrays(path, arrays)
