"""Encoders by name: what may be typed, and what a network gives for a tile."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from kit.errors import SettingError
from kit.learn import backbones, preprocess
from kit.learn.backbones import Backbone

NAME = "test_efficientnet"
VIT = "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("spec", "expected", "name"),
    [
        (NAME, Backbone(NAME, "frozen", 0), "test_efficientnet-frozen"),
        ("LeNet5:scratch:32", Backbone("lenet5", "scratch", 32), "lenet5-scratch-32"),
        (f"{NAME}:scratch:4096", Backbone(NAME, "scratch", 4096), "test_efficientnet-scratch-4096"),
        (f"{NAME}:", Backbone(NAME, "frozen", 0), "test_efficientnet-frozen"),
        (f"{NAME}:scratch", Backbone(NAME, "scratch", 0), "test_efficientnet-scratch"),
        (f"{NAME}:finetune:64", Backbone(NAME, "finetune", 64), "test_efficientnet-finetune-64"),
        (
            "test_vit.r160_in1k::own",
            Backbone("test_vit.r160_in1k", "frozen", 160),
            "test_vit.r160_in1k-frozen-160",
        ),
        (f"{NAME}::96", Backbone(NAME, "frozen", 96), "test_efficientnet-frozen-96"),
    ],
)
def test_a_spec_is_encoder_mode_and_pixels_and_frozen_unless_it_says_so(
    spec: str, expected: Backbone, name: str
) -> None:
    assert backbones.parse(spec) == expected
    assert expected.name == name


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("mobilenetv3_larg_100", "no backbone 'mobilenetv3_larg_100'", "did you mean mobilenetv3_large_100"),
        ("vit_base_patch16_224.dinoo", "has no tag 'dinoo'", "did you mean dino"),
        ("Virchow3", "no backbone 'Virchow3'", "did you mean Virchow"),
        (f"{NAME}:froze", "no mode 'froze'", "did you mean frozen"),
        (f"{NAME}:frozen:big", "tiles of 'big' pixels", "give a number"),
        (f"{NAME}:frozen:-3", "tiles of '-3' pixels", "give a number"),
        (f"{NAME}:frozen:4097", "tiles of '4097' pixels", "up to 4096, or own"),
        (f"{NAME}:frozen:²", "tiles of '²' pixels", "give a number"),
        (f"{NAME}:frozen:64:7", "'7'", "encoder:mode:pixels"),
        ("1e-3", "no backbone '1e-3'", "encoder:mode:pixels"),
        (":frozen", "no backbone ''", "encoder:mode:pixels"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_with_what_was_probably_meant(
    spec: str, message: str, hint: str
) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        backbones.parse(spec)
    assert hint in caught.value.hint
    assert len(caught.value.hint) < 200, "not all thousand names of timm"


def test_pixels_are_prepared_as_the_encoder_was_trained() -> None:
    found = preprocess.of("tf_efficientnet_lite0")
    assert found.mean == (0.5, 0.5, 0.5) and found.std == (0.5, 0.5, 0.5)
    assert (found.interpolation, found.size) == ("bicubic", 224)
    assert preprocess.of("resnet18").mean == (0.485, 0.456, 0.406)


NEWER = pytest.mark.skipif(
    not hasattr(timm.models.DenseNet, "forward_intermediates"), reason="this timm does not show its stages"
)
# One network of each kind that timm builds in its own way.
KINDS = [
    *("test_efficientnet", "test_vit", "test_vit2", "test_resnet", "test_convnext", "test_byobnet"),
    *("mobilenetv3_large_100", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"),
    *(pytest.param(name, marks=NEWER) for name in ("hrnet_w18_small", "densenet121")),
    *("squeezenet1_1", "lenet5", "leukemia_cnn"),
]


def shown(encoder: backbones.Encoder, seed: int = 0) -> Tensor:
    size = encoder.size or 64
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", KINDS)
def test_an_encoder_says_exactly_how_many_features_it_gives(name: str) -> None:
    for layers in ("last", "all"):
        encoder = backbones.build(name, layers=layers)
        assert encoder.training
        with torch.inference_mode():
            assert encoder.eval()(shown(encoder)).shape == (2, encoder.features)


@pytest.mark.parametrize("name", KINDS)
def test_all_layers_end_with_what_the_last_one_gives(name: str) -> None:
    last, every = backbones.build(name).eval(), backbones.build(name, layers="all").eval()
    every.load_state_dict(last.state_dict())
    with torch.inference_mode():
        expected, found = last(shown(last)), every(shown(last))
    assert found.shape[1] > expected.shape[1]
    assert torch.allclose(found[:, -expected.shape[1] :], expected, atol=1e-5)


def test_all_layers_begin_with_the_mean_of_every_stages_maps() -> None:
    every = backbones.build("mobilenetv2_100", layers="all").eval()
    x, expected = every.body.bn1(every.body.conv_stem(images := shown(every))), []
    with torch.inference_mode():
        for n, block in enumerate(every.body.blocks):
            x = block(x)
            if n in (0, 1, 2, 4, 6):  # the last blocks before each halving
                expected.append(x.mean(dim=(2, 3)))
        found = every(images)
    assert torch.allclose(found[:, :-1280], torch.cat(expected, 1), atol=1e-5)


def test_all_layers_take_one_pass() -> None:
    every, calls = backbones.build(NAME, layers="all").eval(), []
    every.body.conv_stem.register_forward_hook(lambda *_: calls.append(1))
    every(shown(every))
    assert len(calls) == 1


def test_a_transformer_shows_its_class_token_after_each_quarter() -> None:
    every = backbones.build(VIT, layers="all").eval()
    seen: list[Tensor] = []
    for n in (2, 5, 8):
        every.body.blocks[n].register_forward_hook(lambda layer, inputs, out: seen.append(out[:, 0]))
    with torch.inference_mode():
        found = every(shown(every))
    assert torch.allclose(found[:, :-192], torch.cat(seen, 1))


class Closed(nn.Module):
    """A network that shows nothing of its inside."""

    pretrained_cfg: dict[str, Any] = {"input_size": (3, 8, 8)}  # noqa: RUF012

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


def test_a_network_that_does_not_show_its_stages_is_refused_by_the_setting() -> None:
    assert backbones.Encoder(Closed(), "closed").features == 3
    with pytest.raises(SettingError, match=r"closed does not show its stages.*train\.layers") as caught:
        backbones.Encoder(Closed(), "closed", "all")
    assert "train.layers=last" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "size"), [(VIT, 224), ("lenet5", 32), ("swin_tiny_patch4_window7_224", 224)]
)
def test_an_encoder_of_one_size_refuses_every_other(name: str, size: int) -> None:
    encoder = backbones.build(name)
    assert encoder.size == size
    with pytest.raises(SettingError, match=f"{name} takes tiles of {size} pixels, not 96") as caught:
        encoder(torch.zeros(1, 3, 96, 96))
    assert f"{name}:MODE:{size}" in caught.value.hint and ":own" in caught.value.hint


def test_an_encoder_of_patches_refuses_a_size_that_they_do_not_fill() -> None:
    encoder = backbones.build("test_vit")
    assert encoder.size == 0 and encoder.step == 16
    with pytest.raises(SettingError, match="patches of 16 pixels, and 100 is no multiple") as caught:
        encoder(torch.zeros(1, 3, 100, 100))
    assert "test_vit:MODE:96" in caught.value.hint


def test_parameters_keep_timms_names() -> None:
    encoder, timms = backbones.build(NAME), timm.create_model(NAME, num_classes=0)
    assert list(encoder.state_dict()) == [f"body.{key}" for key in timms.state_dict()]


@pytest.mark.parametrize("name", KINDS)
def test_depth_grows_from_the_stem_to_the_last_block_without_gaps(name: str) -> None:
    encoder = backbones.build(name)
    depth = backbones.depth_of(encoder)
    assert list(depth) == [key for key, _ in encoder.named_parameters()]
    assert set(depth.values()) == set(range(max(depth.values()) + 1)) and max(depth.values()) >= 2
    first, *_, last = (key for key, value in encoder.named_parameters() if value.ndim in (2, 4))
    assert depth[first] == 0 and depth[last] > 0


def test_depth_follows_the_blocks() -> None:
    depth = backbones.depth_of(backbones.build(VIT))
    assert depth["body.patch_embed.proj.weight"] == depth["body.pos_embed"] == 0
    blocks = [depth[f"body.blocks.{n}.attn.qkv.weight"] for n in range(12)]
    assert blocks == list(range(1, 13)) and depth["body.norm.weight"] == 12
    depth = backbones.depth_of(backbones.build("lenet5"))
    order = [f"body.{part}.weight" for part in ("features.0", "features.3", "classifier.0", "classifier.2")]
    assert [depth[key] for key in order] == [0, 1, 2, 3]


def test_depth_of_a_network_that_says_nothing_of_it_is_the_order_of_its_parts() -> None:
    class Plain(Closed):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.then = nn.Conv2d(3, 2, 1), nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))

    depth = backbones.depth_of(backbones.Encoder(Plain(), "plain"))
    assert depth["body.first.bias"] == 0 and depth["body.then.0.weight"] == depth["body.then.1.bias"] == 1


def test_an_encoder_has_no_classifier() -> None:
    images = torch.zeros(2, 3, 32, 32)
    assert backbones.build(NAME).eval()(images).shape == (2, 256)


def test_dropout_is_that_of_the_encoder() -> None:
    encoder = backbones.build(NAME, drop=1.0)
    images = torch.rand(2, 3, 32, 32)
    assert not encoder(images).any() and encoder.eval()(images).any()
