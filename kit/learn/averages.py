"""Averages of the weights over training: the model that is kept may be one, instead of the last weights."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kit.learn.bags import BagModel, Packed
from kit.learn.models import Model

TAIL = 0.75  # share of the steps after which epochs are averaged
POWER = 2 / 3  # of the moving average's warm-up


class Average:
    """The average of a network's weights, beside the network that goes on learning.

    ema: moves by ``1 - train.ema`` of the difference after each step, by more in the first steps, so that
    the random start is soon forgotten. swa: the equal average of the weights at the end of every epoch in
    the last quarter (Izmailov 2018). Floating buffers (the statistics of batch norm) are averaged like
    weights, the others copied.
    """

    def __init__(self, model: Model, network: BagModel) -> None:
        self.model, self.live, self.taken = model, network, 0
        self.mean = deepcopy(network).eval().requires_grad_(False)

    def update(self, step: int, total: int, made: bool = True) -> None:
        """Take note of the weights after a step, counted from 0, of ``total`` in the whole fit.

        A step that was not made moves no moving average; swa takes the weights of every epoch as they are.
        """
        if self.model.training.average == "ema":
            if made:
                self._move(1 - min(self.model.training.ema, 1 - (1 + self.taken) ** -POWER))
        elif (step + 1) % (total // self.model.epochs) == 0 and step + 1 > TAIL * total:
            self._move(1 / (1 + self.taken))

    @torch.no_grad()
    def _move(self, share: float) -> None:
        """Move by a share of the difference to the live weights; the first time, all the way."""
        live = self.live.state_dict()
        for name, value in self.mean.state_dict().items():
            if value.is_floating_point():
                value.lerp_(live[name].to(value), share)
            else:
                value.copy_(live[name])
        self.taken += 1

    def network(self) -> BagModel:
        """The averaged network, in evaluation mode; the live weights as long as there is no average."""
        if not self.taken:
            self.mean.load_state_dict(self.live.state_dict())
        return self.mean

    def refresh(self, batches: Iterable[Packed]) -> None:
        """Give the averaged network of swa the statistics that batch norm has with its weights.

        To be called before the network is judged, and at the end.

        A moving average has statistics that are as old as its weights. Nothing is read where no batch norm
        follows the tiles of training.
        """
        kept = self.model.backbone.mode == "finetune" and self.model.training.norm == "kept"
        if self.model.training.average == "swa" and self.taken and not kept:
            refresh(self.mean, batches)

    def state_dict(self) -> dict[str, Any]:
        """All that later averages depend on, beside the live network."""
        return {"taken": self.taken, "mean": self.mean.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another average of this fit was."""
        self.taken = int(state["taken"])
        self.mean.load_state_dict(state["mean"])


def make(model: Model, network: BagModel) -> Average | None:
    """The average that ``train.average`` names; ``None`` where the last weights are the model."""
    return None if model.training.average == "none" else Average(model, network)


@torch.no_grad()
def refresh(network: BagModel, batches: Iterable[Packed]) -> None:
    """Compute the statistics of batch norm anew: the mean over batches, without dropout."""
    layers = [layer for layer in network.modules() if _has_statistics(layer)]
    if not layers:
        return
    network.eval()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()  # type: ignore[operator]
        layer.momentum = None  # type: ignore[assignment]
        layer.train()
    device = next(network.parameters()).device
    for packed in batches:
        network.embed(packed.tiles.to(device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()


def _has_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.track_running_stats
