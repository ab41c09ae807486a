"""A finer stem: the same weights, looked at in smaller steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kit import state
from kit.errors import SettingError
from kit.learn import backbones, embed, models, needs, predict
from kit.state import Run
from tests.learn.fits import fit_of, model_of

Make = Callable[..., Run]


def maps(encoder: backbones.Encoder, size: int = 64) -> torch.Size:
    """The size of the last maps of one image."""
    with torch.no_grad():
        found: torch.Tensor = encoder.eval().body.forward_features(torch.zeros(1, 3, size, size))  # type: ignore[operator]
    return found.shape[-2:]


@pytest.mark.parametrize("name", ["mobilenetv2_100", "tf_efficientnet_lite0", "resnet18", "squeezenet1_1"])
def test_a_fine_stem_doubles_the_maps_and_keeps_every_weight(name: str) -> None:
    own, fine = backbones.build(name), backbones.build(name, stem="fine")
    assert min(maps(fine)) >= 2 * min(maps(own)) - 1
    shapes = [{k: v.shape for k, v in e.state_dict().items()} for e in (own, fine)]
    assert shapes[0] == shapes[1]
    fine.load_state_dict(own.state_dict())
    assert fine.features == own.features


def test_weights_give_other_features_through_a_fine_stem() -> None:
    own, fine = backbones.build("mobilenetv2_100"), backbones.build("mobilenetv2_100", stem="fine")
    fine.load_state_dict(own.state_dict())
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(own.eval()(image), fine.eval()(image))


@pytest.mark.parametrize("name", ["vgg16", "lenet5"])
def test_a_network_whose_stem_is_fine_already_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="moves by one pixel anyhow"):
        backbones.build(name, stem="fine")


def test_a_transformer_has_no_stem_to_refine() -> None:
    with pytest.raises(SettingError, match="does not begin with a convolution"):
        backbones.build("vit_tiny_patch16_224", stem="fine")


def test_embeddings_of_another_stem_are_others_and_those_of_its_own_are_still_known(make_run: Make) -> None:
    run = make_run("test_efficientnet:frozen")
    own, fine = (model_of(run, stem=stem) for stem in ("own", "fine"))
    assert embed.key(run, own) == embed.key(run, model_of(run))
    assert embed.key(run, own) != embed.key(run, fine)
    assert (
        embed._folder(run, own).name.partition("-frozen")[2]
        != embed._folder(run, fine).name.partition("-frozen")[2]
    )


def test_a_fit_with_a_fine_stem_has_another_key(make_run: Make) -> None:
    run = make_run("test_efficientnet:scratch")
    assert needs.key(fit_of(run, "scratch", stem="fine")) != needs.key(fit_of(run, "scratch", stem="own"))


def test_a_fine_stem_is_there_again_when_weights_are_loaded(make_run: Make) -> None:
    run = make_run("test_efficientnet:scratch", stem="fine", finetune_epochs=1)
    state.execute(run, "tune")
    state.execute(run, "train")
    (model,) = models.of_run(run)
    network = predict.load_network(run, predict.recorded(run, model, "0"), "0")
    assert network.encoder is not None
    assert network.encoder.body.conv_stem.stride == (1, 1)  # type: ignore[union-attr]
