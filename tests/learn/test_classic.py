"""The networks of older papers have the layers that their authors report, and are encoders like any other."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from kit.learn import backbones, classic, preprocess

CLASSIC = sorted(classic.default_cfgs)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("lenet5", 8, 61_836),
        ("lenet5_224", 8, 456 + 2_416 + (16 * 53 * 53 * 120 + 120) + 10_164 + 680),
        ("leukemia_cnn", 4, 687_428),
        ("leukemia_cnn_96", 4, 294_212),
        ("squeezenet1_1_bn", 2, 729_410),
        ("squeezenet1_1", 1000, 1_235_496),
        ("alexnet", 1000, 61_100_840),
        ("vgg16", 8, 134_293_320),
        ("inception_v3", 8, 21_801_960),
        ("efficientnet_b2", 2, 7_703_812),
        ("resnet50", 2, 23_512_130),
    ],
)
def test_a_network_has_as_many_parameters_as_reported(name: str, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        assert count(timm.create_model(name, num_classes=classes)) == parameters


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1"])
def test_torchvisions_own_weights_give_its_own_scores(name: str) -> None:
    theirs = torchvision.models.get_model(name, weights=None).eval()
    ours = timm.create_model(name).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("name", CLASSIC)
def test_a_classic_network_gives_scores_or_else_what_its_classifier_sees(name: str) -> None:
    model = timm.create_model(name, num_classes=5).eval()
    images = torch.rand(2, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert model(images).shape == (2, 5)
        before = model.forward_head(model.forward_features(images), pre_logits=True)
        model.reset_classifier(0)
        assert torch.equal(model(images), before) and before.shape == (2, model.head_hidden_size)
        model.reset_classifier(3)
        assert model.eval()(images).shape == (2, 3) and model.get_classifier().weight.shape[0] == 3


@pytest.mark.parametrize("name", CLASSIC)
def test_intermediates_are_what_feature_info_says(name: str) -> None:
    model = timm.create_model(name, num_classes=0).eval()
    images = torch.rand(1, *model.pretrained_cfg["input_size"])
    with torch.inference_mode():
        last, found = model.forward_intermediates(images)
        assert torch.equal(last, model.forward_features(images))
        assert [len(maps[0]) for maps in found] == [info["num_chs"] for info in model.feature_info]
        assert torch.equal(model.forward_intermediates(images, [-1], intermediates_only=True)[0], found[-1])
        assert torch.equal(model.forward_intermediates(images, 1)[1][0], found[-1])


def test_the_network_for_grey_images_takes_the_grey_value_of_colours() -> None:
    encoder = backbones.build("leukemia_cnn").eval()
    colours = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    grey = 0.299 * colours[:, :1] + 0.587 * colours[:, 1:2] + 0.114 * colours[:, 2:]
    with torch.inference_mode():
        assert torch.allclose(encoder(colours), encoder.body(grey), atol=1e-6)
        assert not torch.allclose(encoder(colours), encoder(colours.flip(1)), atol=1e-4)


@pytest.mark.parametrize("name", ["lenet5", "leukemia_cnn"])
def test_dropout_comes_before_the_last_layer_where_the_document_has_it(name: str) -> None:
    model = timm.create_model(name, num_classes=4)
    *_, drop, last = model.classifier
    assert isinstance(drop, nn.Dropout) and isinstance(last, nn.Linear)
    assert drop.p == 0.5 and timm.create_model(name, drop_rate=0.1).classifier[-2].p == 0.1


def test_a_fire_module_is_normalised_after_each_of_its_convolutions() -> None:
    model = timm.create_model("squeezenet1_1_bn", num_classes=2)
    fires = [layer for layer in model.features if hasattr(layer, "squeeze")]
    assert len(fires) == 8
    for fire in fires:
        for part in (fire.squeeze, fire.expand1x1, fire.expand3x3):
            assert [type(layer) for layer in part] == [nn.Conv2d, nn.BatchNorm2d]


def test_classic_networks_that_rescale_only_say_so() -> None:
    for name in ("lenet5", "lenet5_224", "leukemia_cnn"):
        found = preprocess.of(name)
        assert found.mean == (0.0, 0.0, 0.0) and found.std == (1.0, 1.0, 1.0)
    assert backbones.parse("lenet5:scratch:own").size == 32
