"""Fits to try things on, and what is left of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from safetensors.torch import save

from kit.learn import backbones, train
from kit.learn.bags import BagModel
from kit.learn.dataset import labelled
from kit.learn.train import Fit
from kit.state import Run


class Stopped(Exception):
    """A kill, as a test can make one."""


def fit_of(run: Run, mode: str = "frozen", purpose: str = "fit", **settings: object) -> Fit:
    """A fit on every fold but the first."""
    backbone = backbones.parse(f"test_efficientnet:{mode}")
    images = labelled(run)
    images = images[(images["role"] == "fold") & (images["fold"] != "0")]
    hyper = train.defaults(run.competition.training, backbone.mode)
    return Fit(run, backbone, dataclasses.replace(hyper, **settings), images, purpose)  # type: ignore[arg-type]


def weights_of(model: BagModel) -> bytes:
    return save({k: v.contiguous() for k, v in model.state_dict().items()})


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """Let the loader die after some batches; returns the epoch that each loader begins with."""
    whole, began = train.loader, []

    def broken(bags: Any, sampler: Any, workers: int) -> Iterator[Any]:
        began.append(sampler.first)
        for n, batch in enumerate(whole(bags, sampler, workers)):
            if n == after:
                raise Stopped
            yield batch

    monkeypatch.setattr(train, "loader", broken)
    return began
