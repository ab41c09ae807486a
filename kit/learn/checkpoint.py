"""Everything that the rest of a fit depends on, kept so that a kill costs a minute.

When it is kept is for a clock to say; what is computed never is: every draw is a function of the seed, the
purpose, the epoch and the step or image, so that a fit that goes on from any of them ends in the same bytes.
"""

from __future__ import annotations

import logging
import math
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kit.files import write_file

EVERY = 60.0  # seconds after which a fit is kept in mid-epoch
log = logging.getLogger("kit")


@dataclass
class Progress:
    """Where a fit is, in what a checkpoint can hold.

    epoch, step: what comes next. losses: of the steps of this epoch. parts: of a batch. skipped, left_out:
    steps that fp16 left out, in a row and in all. best, best_epoch: of the part that was set aside. done:
    nothing more is to come.
    """

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    parts: int = 1
    skipped: int = 0
    left_out: int = 0
    best: float = math.inf
    best_epoch: int = -1
    done: bool = False


class Keeper:
    """The checkpoint of one fit.

    Args:
        path: its file; ``None`` keeps nothing.
        key: of the fit; the checkpoint of another one is not taken.
    """

    def __init__(self, path: Path | None, key: str = "") -> None:
        self.path, self.key = path, key
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed to keep a fit in mid-epoch."""
        return self.path is not None and time.monotonic() - self.last >= EVERY

    def save(self, content: dict[str, Any]) -> None:
        """Keep a state of tensors, numbers, texts, lists and dictionaries, in one step."""
        if self.path is None:
            return
        whole = content | {"key": self.key}
        write_file(self.path, lambda temporary: torch.save(whole, temporary))
        self.last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What was kept of this very fit; ``None`` if nothing was, or its file is damaged."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError):
            log.warning("%s is damaged: the fit begins again", self.path)
            return None
        return content if content.get("key") == self.key else None

    def drop(self) -> None:
        """The fit is done, or must begin again."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
