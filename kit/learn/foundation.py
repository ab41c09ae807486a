"""Encoders of pathology by their hub name, from an attached folder: nothing is fetched.

A folder holds ``config.json`` (timm's hub layout, or that of Hugging Face transformers for a plain
vision transformer) and ``model.safetensors`` or ``pytorch_model.bin``, as the model's page offers them.
What a page says in words only (how tokens become one vector, which layers are gated) is in `CARDS`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from timm.layers.mlp import SwiGLUPacked
from torch import Tensor, nn

from kit.errors import WeightsError

log = logging.getLogger("kit")
# The names that weights have in a hub folder, the preferred one first.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BIOPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
GATED = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}


@dataclass(frozen=True)
class Card:
    """What the page of a foundation encoder says.

    hub: its name there. network, arguments: timm's, where the folder does not say them. layers: kinds of
    layers, which no ``config.json`` can say. pool: what stands for a tile, its class token alone or
    joined with the mean of its patch tokens (register tokens count for neither). features: D.
    """

    hub: str
    network: str
    features: int
    pool: Literal["class", "class+mean"] = "class"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Any] = field(default_factory=dict)
    norm: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET  # mean, std
    interpolation: str = "bicubic"
    size: int = 224


VIRCHOW = {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "dynamic_img_size": True}
UNI2 = {
    **{"img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536},
    **{"init_values": 1e-5, "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "reg_tokens": 8},
    "dynamic_img_size": True,
}
OPTIMUS = partial(
    Card,
    network="vit_giant_patch14_reg4_dinov2",
    features=1536,
    arguments={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False},
    norm=BIOPTIMUS,
)
CARDS = {
    # Chen et al. 2024, and its successor
    "UNI": Card(
        "MahmoodLab/UNI",
        "vit_large_patch16_224",
        1024,
        arguments={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True},
    ),
    "UNI2-h": Card("MahmoodLab/UNI2-h", "vit_giant_patch14_224", 1536, arguments=UNI2, layers=GATED),
    # Vorontsov et al. 2024; Zimmermann et al. 2024
    "Virchow": Card("paige-ai/Virchow", "vit_huge_patch14_224", 2560, "class+mean", VIRCHOW, GATED),
    "Virchow2": Card(
        "paige-ai/Virchow2",
        "vit_huge_patch14_224",
        2560,
        "class+mean",
        {**VIRCHOW, "reg_tokens": 4},
        GATED,
    ),
    # Saillard et al. 2024
    "H-optimus-0": OPTIMUS("bioptimus/H-optimus-0"),
    "H-optimus-1": OPTIMUS("bioptimus/H-optimus-1"),
    # Filiot et al. 2023; in the layout of Hugging Face transformers
    "phikon": Card(
        "owkin/phikon",
        "vit_base_patch16_224",
        768,
        layers={"norm_layer": partial(nn.LayerNorm, eps=1e-12)},
        interpolation="bilinear",
    ),
}


def canonical(name: str) -> str:
    """The short name of a foundation encoder; any other name as it is.

    >>> canonical("hf-hub:MahmoodLab/UNI"), canonical("paige-ai/Virchow2"), canonical("resnet18")
    ('UNI', 'Virchow2', 'resnet18')
    """
    bare = name.removeprefix("hf-hub:").removeprefix("hf_hub:").lower()
    for short, card in CARDS.items():
        if bare in (short.lower(), card.hub.lower()):
            return short
    return name


def typed(encoder: str) -> str:
    """How the weights of an encoder are attached.

    >>> typed("UNI"), typed("resnet18")
    ('--weights UNI=DIR', '--weights resnet18=FILE')
    """
    return f"--weights {encoder}={'DIR' if encoder in CARDS else 'FILE'}"


@cache
def say_once(level: int, sentence: str) -> None:
    """Log a sentence about attached weights once a process: every fold loads them."""
    log.log(level, "%s", sentence)


def config(weights: Path | None) -> dict[str, Any]:
    """The ``config.json`` beside weights that lie in a hub folder; empty where there is none.

    Raises:
        WeightsError: it cannot be read.
    """
    if weights is None or weights.name not in HUB_FILES:
        return {}
    return read_json(weights.with_name("config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file beside weights; empty where there is none.

    Raises:
        WeightsError: it is there, and no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(
            f"{path} is no readable JSON ({error})", "take the file as its page offers it"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no names and values", "take the file as its page offers it")
    return content


def network(encoder: str, weights: Path | None) -> tuple[str, dict[str, Any]]:
    """timm's name of an encoder's network and its arguments: the card's, and over them the folder's.

    Raises:
        WeightsError: the folder is of another network, or of one that timm does not have.
    """
    card, said = CARDS.get(encoder), config(weights)
    if card is None:
        _same(encoder, said, weights, encoder)
        return encoder, dict(said.get("model_args", {}))
    if "model_type" in said:
        arguments = _transformers_arguments(said, weights)
        return card.network, {**arguments, **card.layers, **_pooled(card)}
    _same(encoder, said, weights, card.network)
    arguments = {**card.arguments, **said.get("model_args", {}), **card.layers, **_pooled(card)}
    return card.network, arguments


def _pooled(card: Card) -> dict[str, str]:
    """Where patch tokens are needed too, the network gives all tokens and `joined` makes one vector."""
    return {"global_pool": "token" if card.pool == "class" else ""}


def joined(tokens: Tensor, prefix: int) -> Tensor:
    """Tokens ``(T, N, D)`` -> class token and mean of the patch tokens ``(T, 2D)``.

    Args:
        prefix: tokens before those of the patches: the class token and the registers.
    """
    return torch.cat([tokens[:, 0], tokens[:, prefix:].mean(dim=1)], dim=1)


def _same(encoder: str, said: Mapping[str, Any], weights: Path | None, network: str) -> None:
    """The folder is of the encoder's network."""
    theirs, mine = said.get("architecture", ""), network.partition(".")[0]
    if theirs and theirs.partition(".")[0] != mine:
        made = f", which is '{network}'" if network != encoder else ""
        raise WeightsError(
            f"the folder of {weights} says that it is of '{theirs}', and it was attached to {encoder}{made}",
            f"attach the folder of {encoder} ({typed(encoder)}),"
            f" or write --weights {theirs}=DIR, and {theirs} in train.backbones",
        )


def _transformers_arguments(said: Mapping[str, Any], weights: Path | None) -> dict[str, Any]:
    """timm's arguments for the configuration of a transformers ``ViTModel``."""
    if said["model_type"] != "vit":
        raise WeightsError(
            f"{weights} is a transformers model of type '{said['model_type']}': only 'vit' is known here",
            "attach the weights in timm's layout, if its page has them",
        )
    names = {
        "img_size": "image_size",
        "patch_size": "patch_size",
        "embed_dim": "hidden_size",
        "depth": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "qkv_bias": "qkv_bias",
    }
    arguments = {ours: said[theirs] for ours, theirs in names.items() if theirs in said}
    if {"intermediate_size", "hidden_size"} <= set(said):
        arguments["mlp_ratio"] = said["intermediate_size"] / said["hidden_size"]
    return arguments


# transformers' names of a vision transformer's parts, and timm's.
TRANSFORMERS = (
    (r"^vit\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
QUERY = re.compile(r"(.*)\.attention\.attention\.query\.(weight|bias)")


def is_transformers(names: Mapping[str, Tensor]) -> bool:
    """Whether tensors are named as transformers names those of a ``ViTModel``."""
    return any(map(QUERY.fullmatch, names)) and any(".layernorm_before." in key for key in names)


def from_transformers(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a transformers ``ViTModel`` by timm's names, without its pooler."""
    found = {}
    for key, tensor in given.items():
        if (match := QUERY.fullmatch(key)) is not None:
            three = [given[key.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            found[f"{_renamed(match[1] + '.')}attn.qkv.{match[2]}"] = torch.cat(three)
        elif not re.search(r"\.attention\.attention\.|(^|\.)pooler\.", key):
            found[_renamed(key)] = tensor
    return found


def _renamed(key: str) -> str:
    for theirs, ours in TRANSFORMERS:
        key = re.sub(theirs, ours, key)
    return key
