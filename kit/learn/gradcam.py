"""Which places of a tile speak for a class: Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: visual explanations
from deep networks via gradient-based localization").

The last maps of the encoder, before they are pooled, are added up, each weighted by the mean gradient of the
class's logit; what is below zero speaks for other classes and is cut off. The tile is looked at by itself,
as a bag of one: with any pool the map says what this tile shows, and not what its neighbours make of it.
The views that a model averages are averaged here too, each turned back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kit.errors import KitError, SettingError
from kit.learn import backbones, embed, encode, predict, preprocess, views
from kit.learn.bags import BagModel, Packed
from kit.learn.models import Model
from kit.state import Run


@dataclass(frozen=True)
class Cam:
    """What speaks for a class in one tile.

    heat: float32 ``(h, w)`` from 0 to 1, the places of the last map, as the tile is stored; all 0 where
        nothing speaks for the class.
    logits: float32 ``(K,)``, of the tile by itself.
    """

    heat: NDArray[np.float32]
    logits: NDArray[np.float32]


def places(model: Model, side: int) -> int:
    """How many places the last map of an encoder has for tiles of ``side`` pixels; 0 where it has none.

    From shapes alone: no weights are loaded and nothing is computed. 0, too, of a network that does not
    give its shapes away.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            encoder = backbones.build(model.backbone.encoder, stem=model.training.stem).eval()
            body: Any = encoder.body
            found = body.forward_features(torch.empty(1, 3, side, side))
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, KitError):
        return 0
    if found.ndim != 4:
        return 0
    *_, height, width = _channels_first(encoder, found).shape
    return int(height * width)


@dataclass
class Explainer:
    """The fold models of one model of a run; each is loaded once, on the processor."""

    run: Run
    model: Model
    _eyes: dict[str, BagModel] = field(default_factory=dict, repr=False)
    _networks: dict[str, BagModel] = field(default_factory=dict, repr=False)

    def explain(self, fold: str, tile: NDArray[np.uint8], label: int) -> Cam:
        """The map of a class in a tile ``(H, W, 3)``, by the model that was fitted without a fold.

        Raises:
            SettingError: the encoder has no maps.
            WeightsError: its pretrained weights are not at hand.
        """
        model = predict.recorded(self.run, self.model, fold)
        passes = embed.passes(self.run, model, views.coset(model.training.views, 0))
        seen = preprocess.resize(tile[None], passes.size, passes.interpolation)[0]
        network = self._network(fold)
        return of_tile(self._eye(model) if model.frozen else network, network, seen, passes.symmetries, label)

    def _network(self, fold: str) -> BagModel:
        if fold not in self._networks:
            if not self.model.frozen:  # whole networks are large, and asked for fold by fold
                self._networks.clear()
            self._networks[fold] = predict.load_network(self.run, self.model, fold).cpu().float()
        return self._networks[fold]

    def _eye(self, model: Model) -> BagModel:
        """The encoder of a frozen model: of all folds the same, unless tuning chose other layers."""
        key = f"{model.training.layers} {model.training.stem}"
        if key not in self._eyes:
            self._eyes[key] = embed.frozen_encoder(self.run, model).cpu()
        return self._eyes[key]


def of_tile(
    eye: BagModel, network: BagModel, tile: NDArray[np.uint8], symmetries: tuple[int, ...], label: int
) -> Cam:
    """Grad-CAM of one tile, in fp32 on one thread: the same numbers each time.

    Args:
        eye: whose encoder sees it: the network itself, or of a frozen model the pretrained one.
        tile: uint8 ``(H, W, 3)``, at the size that the encoder sees.
        symmetries: the views whose mean the network is shown, by number.
        label: the number of the class.

    Raises:
        SettingError: the encoder has no maps with more than one place.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(tile)).permute(2, 0, 1)
    shown = torch.stack([turned.contiguous() for turned in (views.turned(pixels, n) for n in symmetries)])
    with _one_thread(), encode.exact(), torch.enable_grad():
        maps, features = _seen(eye.eval(), shown)
        mean = features.mean(dim=0, keepdim=True)
        values = network.eval().embed(mean) if network is not eye else mean
        one = Packed(values, torch.zeros(1, dtype=torch.int64), torch.ones(1), 1)
        logits = network.classify(values, one)[0]
        (slopes,) = torch.autograd.grad(logits[label], maps)
    heat = class_map(_channels_first(eye.encoder, maps.detach()), _channels_first(eye.encoder, slopes))
    back = torch.stack([_turned_back(one, n) for one, n in zip(heat, symmetries, strict=True)]).mean(dim=0)
    top = float(back.max())
    scaled = back / top if top > 0 else back
    return Cam(scaled.numpy().astype(np.float32), logits.detach().numpy().astype(np.float32))


def class_map(maps: Tensor, slopes: Tensor) -> Tensor:
    """Maps ``(V, D, h, w)`` and the gradient by them -> what speaks for the class ``(V, h, w)``, 0 or up."""
    weight = slopes.mean(dim=(2, 3), keepdim=True)
    return torch.relu((weight * maps).sum(dim=1))


def _seen(eye: BagModel, shown: Tensor) -> tuple[Tensor, Tensor]:
    """The last maps of views ``(V, 3, H, W)`` as the network has them, and features ``(V, D)`` of them."""
    encoder: Any = eye.encoder
    caught: list[Tensor] = []
    with _without_gradients(eye), _caught(encoder.body, caught):
        features = eye.embed(shown)
    if not caught or caught[-1].ndim != 4:
        raise _no_maps(encoder, "it ends in a vector or in tokens")
    *_, height, width = _channels_first(encoder, caught[-1]).shape
    if height * width < 2:
        raise _no_maps(encoder, f"tiles of {shown.shape[-1]} px leave a map of one place")
    return caught[-1], features.float()


def _channels_first(encoder: Any, maps: Tensor) -> Tensor:
    """Maps ``(V, D, h, w)``; some of timm's transformers keep the channels last."""
    body = encoder.body
    last = str(getattr(body, "output_fmt", "")).endswith("NHWC")
    return maps.permute(0, 3, 1, 2) if last else maps


def _no_maps(encoder: Any, why: str) -> SettingError:
    name = getattr(encoder, "encoder_name", type(encoder).__name__)
    hint = "explain a convolutional network, such as tf_efficientnet_lite0"
    return SettingError(f"Grad-CAM needs the last maps of an encoder, and {name} has none: {why}", hint)


@contextmanager
def _caught(body: Any, caught: list[Tensor]) -> Iterator[None]:
    """Keep what a network gives to its own head, from where gradients are wanted.

    timm's networks are ``forward_head(forward_features(images))``; what comes before the head is computed
    without a graph.
    """
    head = getattr(body, "forward_head", None)
    if head is None:
        yield
        return

    def forward_head(maps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kept = maps.detach().requires_grad_()
        caught.append(kept)
        # A head may begin with an operation in place, which no leaf bears.
        found: Tensor = head(kept.clone(), *args, **kwargs)
        return found

    body.forward_head = forward_head
    try:
        yield
    finally:
        del body.forward_head


@contextmanager
def _without_gradients(model: BagModel) -> Iterator[None]:
    """No parameter asks for a gradient, so that no graph of the body is kept."""
    before = {name: value.requires_grad for name, value in model.named_parameters()}
    model.requires_grad_(False)
    try:
        yield
    finally:
        for name, value in model.named_parameters():
            value.requires_grad_(before[name])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on the number of threads; pages of one run are the same to the byte."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _turned_back(heat: Tensor, symmetry: int) -> Tensor:
    """A map ``(h, w)`` of a view as it lies on the tile: see `kit.learn.views.turned`."""
    upright = torch.rot90(heat, -(symmetry % 4), (-2, -1))
    return upright.flip(-1) if symmetry >= 4 else upright
