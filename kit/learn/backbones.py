"""Encoders by their timm name, or that of a foundation encoder: images in, one vector a tile out."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from kit.errors import SettingError, did_you_mean
from kit.learn import classic, foundation, preprocess

MODES = ("frozen", "finetune", "scratch")
MOST = 4096  # pixels of a tile, each side: more is a slip, and costs gigabytes
QUARTERS = 4  # a network without stages is looked at after each quarter of its blocks
assert classic.default_cfgs, "importing the classic networks registers them with timm"


@dataclass(frozen=True)
class Backbone:
    """One model of the first level: an encoder and how it learns.

    frozen: embeddings are computed once, only pool and head learn. finetune: everything learns, from
    pretrained weights. scratch: everything learns, from a random start.
    """

    encoder: str
    mode: str
    size: int = 0  # pixels of the tiles it sees, each side; 0: as stored

    @property
    def name(self) -> str:
        """What tables and files call it."""
        return f"{self.encoder}-{self.mode}" + (f"-{self.size}" if self.size else "")


def parse(spec: str) -> Backbone:
    """``encoder``, ``encoder:mode`` or ``encoder:mode:pixels`` of ``train.backbones``; frozen by default.

    The encoder is timm's name, with a tag if wanted (``vit_base_patch16_224.dino``), or a foundation
    encoder's (``UNI``, ``hf-hub:MahmoodLab/UNI``). ``own`` pixels are those that the encoder was made for.

    Raises:
        SettingError: there is no such encoder, tag, mode or size, or a fourth part.
    """
    hub = "hf-hub:" if spec.startswith("hf-hub:") else ""
    encoder, mode, size, *rest = [*spec.removeprefix(hub).split(":"), "", ""]
    if any(rest):
        raise SettingError(f"backbone {encoder} takes no '{rest[0]}'", "it is written encoder:mode:pixels")
    encoder = _canonical(encoder)
    _require_known(encoder)
    mode = mode or "frozen"
    if mode not in MODES:
        raise SettingError(f"backbone {encoder} has no mode '{mode}'", did_you_mean(mode, MODES))
    if size and size != "own" and not (size.isdecimal() and len(size) < 9 and int(size) <= MOST):
        hint = f"give a number up to {MOST}, or own"
        raise SettingError(f"backbone {encoder} cannot see tiles of '{size}' pixels", hint)
    return Backbone(encoder, mode, preprocess.of(encoder).size if size == "own" else int(size or 0))


def _canonical(encoder: str) -> str:
    """The name that tables use; case does not count in names that are not timm's own."""
    lower = encoder.casefold()
    return lower if lower in classic.default_cfgs else foundation.canonical(encoder)


def _require_known(encoder: str) -> None:
    if encoder in foundation.CARDS:
        return
    if not timm.is_model(encoder):
        known = [*timm.list_models(), *foundation.CARDS]
        close = did_you_mean(encoder, known).partition("Known:")[0].strip()  # there are a thousand
        hint = close or "a model is written encoder:mode:pixels; timm.list_models() lists encoders"
        raise SettingError(f"timm has no backbone '{encoder}'", hint)
    try:
        timm.get_pretrained_cfg(encoder)
    except RuntimeError as error:  # the tag is not one of this network's
        name, _, tag = encoder.partition(".")
        tags = [known.partition(".")[2] for known in timm.list_models(f"{name}.*", include_tags=True)]
        raise SettingError(
            f"timm's {name} has no tag '{tag}'", did_you_mean(tag, filter(None, tags))
        ) from error


class Encoder(nn.Module):
    """An encoder without classifier: normalised images ``(T, 3, H, W)`` -> features ``(T, D)``.

    body: timm's network, whose names its parameters keep. features: D. size: pixels of an image, each
    side, where the network takes no other size, else 0. step: what the size must be a multiple of, or 0.
    With ``layers`` "all", the mean of every stage's maps (a vision transformer's class token after each
    quarter of its blocks) comes before the last features: what early layers know of texture helps where
    objects are not those of photographs.
    """

    def __init__(self, body: nn.Module, name: str, layers: Literal["last", "all"] = "last") -> None:
        super().__init__()
        self.body = body
        self.encoder_name = name
        self.layers = layers
        self.size = _fixed_size(body)
        self.step = _patch(body)
        self.taken = _stages(body, name) if layers == "all" else []
        self.features = _count(self)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(T, D)``, in one pass through the network.

        Raises:
            SettingError: the network does not take images of this size.
        """
        self._require_size(*images.shape[-2:])
        if self.layers == "last":
            return self._vector(self.body(images))
        last, stages = self._intermediates(images)
        pooled = [_pooled(stage) for stage in stages]
        return torch.cat([*pooled, self._vector(self.body.forward_head(last))], dim=1)  # type: ignore[operator]

    def _require_size(self, height: int, width: int) -> None:
        name = self.encoder_name
        if self.size and (height, width) != (self.size, self.size):
            raise SettingError(
                f"{name} takes tiles of {self.size} pixels, not {width}",
                f"write {name}:MODE:{self.size} (or :own) in train.backbones",
            )
        if self.step and (height % self.step or width % self.step):
            near = max(round(width / self.step), 1) * self.step
            raise SettingError(
                f"{name} cuts tiles into patches of {self.step} pixels, and {width} is no multiple of that",
                f"write {name}:MODE:{near} in train.backbones",
            )

    def _intermediates(self, images: Tensor) -> tuple[Tensor, list[Any]]:
        forward: Any = self.body.forward_intermediates
        options = {"return_prefix_tokens": True} if _has_class_token(self.body) else {}
        last, stages = forward(images, indices=self.taken, **options)
        return last, stages

    def _vector(self, found: Tensor) -> Tensor:
        """What the network gives for each image, as one vector."""
        return foundation.joined(found, int(self.body.num_prefix_tokens)) if found.ndim == 3 else found  # type: ignore[arg-type]


def build(
    encoder: str,
    drop: float = 0.0,
    layers: Literal["last", "all"] = "last",
    weights: Path | None = None,
    stem: Literal["own", "fine"] = "own",
) -> Encoder:
    """An encoder with random weights.

    Args:
        drop: share of the features that dropout leaves out in training.
        layers: see `Encoder`.
        weights: the file that will be loaded: ``config.json`` beside it may say how the network is made.
        stem: fine lets the first convolution move by one pixel; its weights are as they were.

    Raises:
        SettingError: ``layers`` is "all" and the network does not show its stages; ``stem`` is "fine" and
            its first layer is no convolution, or moves by one pixel anyhow.
        WeightsError: the folder of the weights is of another network.
    """
    name, arguments = foundation.network(encoder, weights)
    body = timm.create_model(name, pretrained=False, **{**arguments, "num_classes": 0, "drop_rate": drop})
    if stem == "fine":
        _refine(body, encoder)
    return Encoder(body, encoder, layers)


def _refine(body: nn.Module, name: str) -> None:
    """Let the first convolution move by one pixel.

    On images far smaller than those that it was made for, a network's maps keep the size at which its later
    layers learned to look: the device of CIFAR's ResNet (He et al. 2016), here with pretrained weights.
    """
    said: Any = (getattr(body, "pretrained_cfg", None) or {}).get("first_conv") or ()
    first = [body.get_submodule(layer) for layer in ([said] if isinstance(said, str) else said)]
    convolutions = [layer for layer in first if isinstance(layer, nn.Conv2d)]
    hint = "write --set train.stem=own, or '; stem=own' behind it in train.backbones"
    if not convolutions or hasattr(body, "patch_embed"):
        raise SettingError(f"{name} does not begin with a convolution, so train.stem cannot be 'fine'", hint)
    if all(max(layer.stride) == 1 for layer in convolutions):
        raise SettingError(
            f"the first convolution of {name} moves by one pixel anyhow: 'fine' is its own", hint
        )
    for layer in convolutions:
        layer.stride = (1, 1)


def depth_of(encoder: Encoder) -> dict[str, int]:
    """How deep each parameter lies, by name: 0 is the stem, the largest number the last block.

    For learning rates that fall from the last block to the stem (Howard and Ruder 2018; Bao et al. 2022).
    """
    matcher: Any = getattr(encoder.body, "group_matcher", None)
    if matcher is None:
        parts = list(dict.fromkeys(name.partition(".")[0] for name, _ in encoder.body.named_parameters()))
        found = {name: parts.index(name.partition(".")[0]) for name, _ in encoder.body.named_parameters()}
    else:
        found = group_parameters(encoder.body, matcher(coarse=False), reverse=True)
    order = {depth: n for n, depth in enumerate(sorted(set(found.values())))}
    return {f"body.{name}": order[found[name]] for name, _ in encoder.body.named_parameters()}


def _fixed_size(body: nn.Module) -> int:
    """The only input size that a network takes; 0 if it takes others too."""
    patches: Any = getattr(body, "patch_embed", None)
    if hasattr(patches, "strict_img_size"):
        strict = patches.strict_img_size and patches.img_size is not None
        return int(patches.img_size[0]) if strict else 0
    record: Any = getattr(body, "pretrained_cfg", None) or {}
    return int(record["input_size"][-1]) if record.get("fixed_input_size") else 0


def _patch(body: nn.Module) -> int:
    """Pixels of a patch, where the sides of an image must be a multiple of it; else 0."""
    patches: Any = getattr(body, "patch_embed", None)
    if not hasattr(patches, "dynamic_img_pad") or patches.dynamic_img_pad:
        return 0
    return int(patches.patch_size[0])


def _stages(body: nn.Module, name: str) -> list[int]:
    """Which of a network's intermediate outputs stand for its stages."""
    info: Any = getattr(body, "feature_info", None)
    if not info or not hasattr(body, "forward_intermediates"):
        raise SettingError(
            f"{name} does not show its stages, so train.layers cannot be 'all'",
            "write --set train.layers=last",
        )
    count, spans = len(info), {info[n]["reduction"] for n in range(len(info))}
    if len(spans) > 1 or count < QUARTERS:
        return list(range(count))
    # All blocks of a plain transformer have one resolution. The last features are made of its last block.
    return [count * n // QUARTERS - 1 for n in range(1, QUARTERS)]


def _has_class_token(body: nn.Module) -> bool:
    if getattr(body, "cls_token", None) is None:
        return False
    return "return_prefix_tokens" in inspect.signature(body.forward_intermediates).parameters  # type: ignore[arg-type]


def _pooled(stage: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The class token of a stage that has one, else the mean of its maps ``(T, D, h, w)``."""
    return stage[1][:, 0] if isinstance(stage, tuple) else stage.mean(dim=(2, 3))


def _count(encoder: Encoder) -> int:
    """The number of features that come out, from shapes alone where the network allows it."""
    record: Any = getattr(encoder.body, "pretrained_cfg", None) or {}
    size = encoder.size or int((record.get("input_size") or (3, 224, 224))[-1])
    training = encoder.training
    encoder.eval()
    named = [*encoder.named_parameters(), *encoder.named_buffers()]
    shapes = {name: torch.empty_like(value, device="meta") for name, value in named}
    try:
        with torch.no_grad():
            image = torch.empty(1, 3, size, size, device="meta")
            found: Tensor = torch.func.functional_call(encoder, shapes, (image,))
    except (
        RuntimeError,
        NotImplementedError,
    ):  # a tensor that is no buffer, or an operation that needs numbers
        with torch.no_grad():
            found = encoder(torch.zeros(1, 3, size, size))
    encoder.train(training)
    if found.ndim != 2:
        raise SettingError(
            f"{encoder.encoder_name} gives {found.ndim - 1}-dimensional features", "choose another"
        )
    return int(found.shape[1])
