"""Fits to try things on, and what is left of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from safetensors.torch import save

from kit.learn import loop, models
from kit.learn.bags import BagModel
from kit.learn.dataset import labelled
from kit.learn.fit import Fit
from kit.learn.models import Model
from kit.state import Run


class Stopped(Exception):
    """A kill, as a test can make one."""


def model_of(run: Run, spec: str = "test_efficientnet:frozen", **settings: object) -> Model:
    """A model as ``train.backbones`` would name it, with settings by the names that they have there."""
    return models.parse(spec, run.competition.training).having(settings)


def fit_of(run: Run, mode: str = "frozen", purpose: str = "fit", **settings: object) -> Fit:
    """A fit on every fold but the first; ``mode`` may name pixels too: ``scratch:24``."""
    images = labelled(run)
    images = images[(images["role"] == "fold") & (images["fold"] != "0")]
    return Fit(run, model_of(run, f"test_efficientnet:{mode}", **settings), images, purpose)


def weights_of(model: BagModel) -> bytes:
    return save({k: v.contiguous() for k, v in model.state_dict().items()})


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> list[tuple[int, int]]:
    """Let every fit die after some steps (never: -1); returns the epoch and step that each began with."""
    whole, began = loop.beginning, []

    def broken(source: Any, place: tuple[int, int]) -> Iterator[Any]:
        began.append(place)
        for n, batch in enumerate(whole(source, place)):
            if n == after:
                raise Stopped
            yield batch

    monkeypatch.setattr(loop, "beginning", broken)
    return began
