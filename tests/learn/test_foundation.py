"""Foundation encoders from a folder: the network, its pixels and its vector are those of the model's page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import SwiGLUPacked
from torch import Tensor, nn
from torch.nn import functional

from kit.errors import WeightsError
from kit.learn import backbones, foundation, preprocess, weights
from kit.learn.backbones import Encoder

# Networks of the pages' kinds, but tiny: what a folder's model_args say.
TINY = {"img_size": 56, "embed_dim": 32, "depth": 4, "num_heads": 2, "init_values": 0.3}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "UNI": ("vit_large_patch16_224", {**TINY, "img_size": 64, "dynamic_img_size": True}),
    "UNI2-h": (
        "vit_giant_patch14_224",
        {**TINY, "patch_size": 14, "mlp_ratio": 2.66667 * 2, "reg_tokens": 8, "no_embed_class": True},
    ),
    "Virchow": ("vit_huge_patch14_224", {**TINY, "mlp_ratio": 5.3375, "global_pool": ""}),
    "Virchow2": ("vit_huge_patch14_224", {**TINY, "mlp_ratio": 5.3375, "global_pool": "", "reg_tokens": 4}),
    "H-optimus-0": ("vit_giant_patch14_reg4_dinov2", {**TINY, "dynamic_img_size": False}),
}
MEAN = [0.7, 0.6, 0.7]


def source(name: str) -> nn.Module:
    """The network as the model's page builds it, with weights that differ."""
    network, arguments = NETWORKS[name]
    more: dict[str, Any] = {}
    if name in ("UNI2-h", "Virchow", "Virchow2"):  # as the pages say in words
        more = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = timm.create_model(network, num_classes=0, **arguments, **more)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


def folder_of(name: str, folder: Path) -> tuple[Path, nn.Module]:
    """A hub folder as the model's page offers it, and its model."""
    model = source(name)
    network, arguments = NETWORKS[name]
    size = arguments["img_size"]
    record = {
        "mean": MEAN,
        "std": [0.2, 0.3, 0.2],
        "interpolation": "bilinear",
        "input_size": [3, size, size],
    }
    said = {"architecture": network, "num_classes": 0, "model_args": arguments | {"num_classes": 0}}
    (folder / "config.json").write_text(json.dumps(said | {"pretrained_cfg": record}))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder, model


def loaded(typed: str, folder: Path, layers: Any = "last") -> Encoder:
    """The way from what is typed to an encoder."""
    backbone = backbones.parse(f"{typed}:frozen:56")
    path = weights.find_weights(backbone, weights.expand({typed: folder}))
    assert path is not None
    encoder = backbones.build(backbone.encoder, layers=layers, weights=path)
    weights.load_weights(encoder, path, backbone.encoder)
    assert preprocess.of(backbone.encoder, path).mean == tuple(MEAN)
    return encoder.eval()


def images(size: int) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("hub", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_gives_the_vector_of_the_models_page(name: str, hub: bool, tmp_path: Path) -> None:
    folder, model = folder_of(name, tmp_path)
    encoder = loaded(f"hf-hub:{foundation.CARDS[name].hub}" if hub else name, folder)
    shown = images(NETWORKS[name][1]["img_size"])
    with torch.inference_mode():
        tokens = model.forward_features(shown)
        found = encoder(shown)
    expected = tokens[:, 0]
    if name.startswith("Virchow"):
        registers = {"Virchow": 0, "Virchow2": 4}[name]
        expected = torch.cat([tokens[:, 0], tokens[:, 1 + registers :].mean(1)], dim=1)
    assert found.shape == (3, encoder.features) and float(expected.std()) > 0.01
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_class_tokens_of_earlier_blocks_join_on_demand(name: str, tmp_path: Path) -> None:
    folder, model = folder_of(name, tmp_path)
    encoder, last = loaded(name, folder, "all"), loaded(name, folder)
    shown = images(NETWORKS[name][1]["img_size"])
    with torch.inference_mode():
        pairs = model.forward_intermediates(shown, [0, 1, 2], return_prefix_tokens=True)[1]
        expected = torch.cat([*[prefix[:, 0] for _, prefix in pairs], last(shown)], dim=1)
        assert torch.allclose(encoder(shown), expected, atol=1e-5)
    assert encoder.features == 3 * 32 + last.features


@pytest.mark.parametrize("name", foundation.CARDS)
def test_the_true_network_has_the_features_that_its_page_says(name: str) -> None:
    with torch.device("meta"):
        encoder = backbones.build(name)
    assert encoder.features == foundation.CARDS[name].features
    millions = {"UNI": 303, "UNI2-h": 681, "Virchow2": 631, "H-optimus-0": 1135, "phikon": 86}
    count = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    assert name not in millions or abs(count - millions[name]) < 1


@pytest.mark.parametrize("typed", ["uni2-h", "MahmoodLab/UNI2-h", "hf-hub:MahmoodLab/UNI2-h"])
def test_every_way_to_write_a_name_is_one_encoder_whose_name_can_be_a_folder(typed: str) -> None:
    backbone = backbones.parse(f"{typed}:frozen:own")
    assert backbone == backbones.Backbone("UNI2-h", "frozen", 224) and "/" not in backbone.name


def test_without_a_folders_word_the_models_page_counts() -> None:
    found = preprocess.of("H-optimus-0")
    assert found.mean == (0.707223, 0.578729, 0.703617) and "bioptimus" in found.source


def test_a_folder_of_another_network_is_refused(tmp_path: Path) -> None:
    folder, _ = folder_of("UNI", tmp_path)
    path = folder / "model.safetensors"
    with pytest.raises(WeightsError, match="is of 'vit_large_patch16_224', and it was attached to resnet18"):
        backbones.build("resnet18", weights=path)
    with pytest.raises(WeightsError, match="UNI2-h, which is 'vit_giant_patch14_224'") as caught:
        backbones.build("UNI2-h", weights=path)
    assert "--weights UNI2-h=DIR" in caught.value.hint
    with pytest.raises(WeightsError, match="no weights for 'UNI2-h'") as caught:
        weights.find_weights(backbones.parse("UNI2-h"), {})
    assert "--weights UNI2-h=DIR" in caught.value.hint


def test_an_encoder_of_timm_is_built_as_its_folder_says(tmp_path: Path) -> None:
    said = {"architecture": "test_vit", "model_args": {"depth": 2, "embed_dim": 32}}
    (tmp_path / "config.json").write_text(json.dumps(said))
    encoder = backbones.build("test_vit", weights=tmp_path / "model.safetensors")
    assert encoder.features == 32 and len(encoder.body.blocks) == 2


WIDE, DEEP, PATCH = 24, 2, 16


def transformers_state() -> dict[str, Tensor]:
    """The tensors of a transformers ``ViTModel`` for images of 32 pixels, named as that library does."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, WIDE),
        "embeddings.position_embeddings": (1, 5, WIDE),
        "embeddings.patch_embeddings.projection.weight": (WIDE, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (WIDE,),
    }
    dense = {
        **{f"attention.attention.{part}": (WIDE, WIDE) for part in ("query", "key", "value")},
        "attention.output.dense": (WIDE, WIDE),
        "intermediate.dense": (4 * WIDE, WIDE),
        "output.dense": (WIDE, 4 * WIDE),
        **{f"layernorm_{part}": (WIDE,) for part in ("before", "after")},
    }
    parts = {f"encoder.layer.{n}.{key}": shape for n in range(DEEP) for key, shape in dense.items()}
    for key, shape in {**parts, "layernorm": (WIDE,), "pooler.dense": (WIDE, WIDE)}.items():
        shapes |= {f"{key}.weight": shape, f"{key}.bias": shape[:1]}
    draw = torch.Generator().manual_seed(5)
    return {key: 0.3 * torch.randn(shape, generator=draw) for key, shape in shapes.items()}


def as_transformers(state: dict[str, Tensor], shown: Tensor, heads: int) -> Tensor:
    """The class token of a ``ViTModel``'s last hidden state, written out."""

    def linear(x: Tensor, key: str) -> Tensor:
        return functional.linear(x, state[f"{key}.weight"], state[f"{key}.bias"])

    def norm(x: Tensor, key: str) -> Tensor:
        return functional.layer_norm(x, (WIDE,), state[f"{key}.weight"], state[f"{key}.bias"], 1e-12)

    key = "embeddings.patch_embeddings.projection"
    patches = functional.conv2d(shown, state[f"{key}.weight"], state[f"{key}.bias"], PATCH).flatten(2)
    first = state["embeddings.cls_token"].expand(len(shown), -1, -1)
    x = torch.cat([first, patches.transpose(1, 2)], 1) + state["embeddings.position_embeddings"]
    for n in range(DEEP):
        layer = f"encoder.layer.{n}"
        y = norm(x, f"{layer}.layernorm_before")
        query, key_, value = (
            linear(y, f"{layer}.attention.attention.{part}").unflatten(2, (heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        share = (query @ key_.transpose(2, 3) / math.sqrt(WIDE // heads)).softmax(-1)
        x = x + linear((share @ value).transpose(1, 2).flatten(2), f"{layer}.attention.output.dense")
        y = functional.gelu(linear(norm(x, f"{layer}.layernorm_after"), f"{layer}.intermediate.dense"))
        x = x + linear(y, f"{layer}.output.dense")
    return norm(x, "layernorm")[:, 0]


def transformers_folder(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    state = transformers_state()
    said = {
        **{"model_type": "vit", "architectures": ["ViTModel"], "hidden_size": WIDE, "image_size": 32},
        **{"num_hidden_layers": DEEP, "num_attention_heads": 3, "intermediate_size": 4 * WIDE},
        **{"patch_size": PATCH, "qkv_bias": True},
    }
    (folder / "config.json").write_text(json.dumps(said))
    pixels = {"image_mean": MEAN, "image_std": [0.2, 0.2, 0.2], "resample": 2, "size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    save_file({prefix + key: value for key, value in state.items()}, folder / "model.safetensors")
    return state


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_phikons_layout_of_transformers_gives_its_class_token(prefix: str, tmp_path: Path) -> None:
    state = transformers_folder(tmp_path, prefix)
    encoder = loaded("owkin/phikon", tmp_path)
    shown = images(32)
    with torch.inference_mode():
        found, expected = encoder(shown), as_transformers(state, shown, heads=3)
    assert found.shape == (3, WIDE) and float(expected.std()) > 0.01
    assert torch.allclose(found, expected, atol=1e-5)


def test_another_model_of_transformers_is_refused(tmp_path: Path) -> None:
    transformers_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    with pytest.raises(WeightsError, match="transformers model of type 'dinov2'"):
        backbones.build("phikon", weights=tmp_path / "model.safetensors")
