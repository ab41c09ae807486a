"""Who learns, how fast, and when: parameter groups, optimisers, schedules, and layers that wait."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Adam, AdamW, Optimizer

from kit.errors import SettingError
from kit.learn import backbones
from kit.learn.bags import BagModel
from kit.learn.models import Model

WARMUP = 0.1  # share of the steps in which the cosine's rate rises
RISE = 0.3  # ... the one-cycle's
START, END = 1 / 25, 1e-4 / 25  # of the one-cycle's rate
MOMENTUM = 0.9
EXEMPT = ("bias", "cls_token", "reg_token", "pos_embed")  # a transformer's tokens and places are no weights
GAIN = 1e-4  # relative, that counts as one: as in torch's ReduceLROnPlateau
Groups = list[dict[str, Any]]


def groups(network: BagModel, model: Model) -> Groups:
    """Parameters by learning rate and weight decay, for `make`.

    Biases and norms are not decayed. Fine-tuned: the rate falls by ``layer_decay`` from each block of the
    encoder to the one before it (Bao 2021); pool and head have the whole. Frozen: nothing is decayed here,
    for `ridge` is in the loss. ``scale`` of a group is its share of the scheduled rate.
    """
    rate, decay = float(model.get("lr")), 0.0 if model.frozen else float(model.get("weight_decay"))
    factors = _layer_factors(network, model)
    found: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        mine = 0.0 if _is_exempt(name, parameter) else decay
        found.setdefault((factors.get(name, 1.0), mine), []).append(parameter)
    return [
        {"params": parameters, "lr": rate * scale, "scale": scale, "weight_decay": mine}
        for (scale, mine), parameters in found.items()
    ]


def _is_exempt(name: str, parameter: Tensor) -> bool:
    return parameter.ndim <= 1 or name.rsplit(".", 1)[-1] in EXEMPT


def _layer_factors(network: BagModel, model: Model) -> dict[str, float]:
    """The share of the rate that each parameter of a fine-tuned encoder has."""
    encoder = network.encoder
    if encoder is None or model.backbone.mode != "finetune" or model.training.layer_decay == 1:
        return {}
    assert isinstance(encoder, backbones.Encoder), "it knows its layers"
    depth = backbones.depth_of(encoder)
    top = max(depth.values()) + 1
    return {f"encoder.{name}": model.training.layer_decay ** (top - n) for name, n in depth.items()}


def make(parameters: Groups, model: Model) -> Optimizer:
    """The optimiser that ``train.optimiser`` names, for the groups of `groups`.

    adamw: decoupled decay (Loshchilov 2019). adam: the decay is a ridge on the gradient. sgd: with a
    Nesterov momentum of 0.9.
    """
    if model.training.optimiser == "sgd":
        return SGD(parameters, momentum=MOMENTUM, nesterov=True)
    return AdamW(parameters) if model.training.optimiser == "adamw" else Adam(parameters)


def set_rate(optimiser: Optimizer, model: Model, factor: float) -> None:
    """Give every group its share of the learning rate times a schedule's factor."""
    for group in optimiser.param_groups:
        group["lr"] = float(model.get("lr")) * group["scale"] * factor


def ridge(network: nn.Module, model: Model, images: int) -> Tensor | float:
    """What a frozen model's loss adds for its weights: L2 as in a logistic regression; else 0.

    With few bags and many features only a true ridge in the loss tames a frozen model's head; decoupled
    decay does for the others. ``images`` are counted without turned copies, which are no new evidence.
    """
    if not model.frozen:
        return 0.0
    penalised = [p.square().sum() for p in network.parameters() if p.ndim > 1]
    return float(model.get("weight_decay")) / (2 * images) * torch.stack(penalised).sum()


def freeze(network: BagModel, model: Model, epoch: int) -> None:
    """Set who learns in an epoch, and the mode of every layer; to be called at its start.

    In the first ``train.freeze`` epochs of fine-tuning only pool and head learn, and the encoder is in
    evaluation mode. With ``train.norm=kept`` batch norm keeps its pretrained statistics in every epoch. The
    first ``train.fixed`` layers stay as they are, statistics too: their maps are the largest, and what they
    look for is the least particular (Yosinski 2014).

    Raises:
        SettingError: the encoder has no more layers than those.
    """
    network.train()
    if network.encoder is None or model.backbone.mode != "finetune":
        return
    waits = epoch < model.freeze
    network.encoder.requires_grad_(not waits)
    network.encoder.train(not waits)
    if model.training.norm == "kept":
        for layer in _batch_norms(network.encoder):
            layer.eval()
    if model.training.fixed:
        _fix(network.encoder, model)


def _fix(encoder: nn.Module, model: Model) -> None:
    assert isinstance(encoder, backbones.Encoder), "it knows its layers"
    depth, layers = backbones.depth_of(encoder), model.training.fixed
    if layers > (last := max(depth.values())):
        raise SettingError(
            f"{model.name}: train.fixed={layers} of {last + 1} layers: the encoder would never learn",
            "write a smaller number, or the mode frozen",
        )
    for name, layer in encoder.named_modules():
        for own, parameter in layer.named_parameters(prefix=name, recurse=False):
            if depth[own] < layers:
                parameter.requires_grad_(False)
                if isinstance(layer, _BatchNorm):
                    layer.eval()


def is_finite(network: nn.Module, *more: Tensor) -> bool:
    """Whether every weight and statistic of a network is a number, and all of some tensors more."""
    values = [*more, *(value for value in network.state_dict().values() if value.is_floating_point())]
    return bool(torch.stack([torch.isfinite(value).all() for value in values]).all())


def _batch_norms(network: nn.Module) -> Iterable[nn.Module]:
    return (layer for layer in network.modules() if isinstance(layer, _BatchNorm))


class Schedule:
    """The learning rate's factor at every step.

    cosine: a linear rise, then half a cosine. one-cycle: cosines up and down again (Smith 2018; the rate
    only). constant: 1. plateau: falls by ``train.factor`` after more than ``train.patience`` epochs without
    a lower loss. Only plateau has a state, and all can be kept and taken up again.

    Args:
        total: optimiser steps of the whole fit.
    """

    def __init__(self, model: Model, total: int) -> None:
        self.kind, self.total = model.training.schedule, total
        self.patience, self.factor = model.patience, model.training.factor
        self.best, self.bad, self.falls, self.seen = math.inf, 0, 0, -1

    def rate(self, step: int) -> float:
        """The factor at a step, counted from 0."""
        if self.kind == "plateau":
            return float(self.factor**self.falls)
        shapes = {"cosine": cosine, "one-cycle": one_cycle}
        return shapes[self.kind](step / self.total) if self.kind in shapes else 1.0

    def observe(self, epoch: int, loss: float) -> None:
        """Take note of the loss after an epoch; one that was seen already is not counted again."""
        if epoch <= self.seen:
            return
        self.seen = epoch
        if loss < self.best * (1 - GAIN):
            self.best, self.bad = loss, 0
            return
        self.bad += 1
        if self.bad > self.patience:
            self.falls, self.bad = self.falls + 1, 0

    def state_dict(self) -> dict[str, float]:
        """All that later factors depend on."""
        return {"best": self.best, "bad": self.bad, "falls": self.falls, "seen": self.seen}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on where another schedule of this fit was."""
        self.best, self.bad = float(state["best"]), int(state["bad"])
        self.falls, self.seen = int(state["falls"]), int(state["seen"])


def cosine(progress: float) -> float:
    """A linear rise, then half a cosine, at a share of all steps.

    >>> [round(cosine(x), 2) for x in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if progress < WARMUP:
        return max(progress / WARMUP, 0.01)
    return _half_cosine(1, 0, (progress - WARMUP) / (1 - WARMUP))


def one_cycle(progress: float) -> float:
    """Up from 1/25 in the first 30 % of the steps, and down to almost nothing.

    >>> [round(one_cycle(x), 2) for x in (0.0, 0.15, 0.3, 0.65, 1.0)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """
    if progress < RISE:
        return _half_cosine(START, 1, progress / RISE)
    return _half_cosine(1, END, (progress - RISE) / (1 - RISE))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
