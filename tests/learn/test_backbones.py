"""Encoders by name, and what it takes for a file of weights to be believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from kit.errors import SettingError, WeightsError
from kit.learn import backbones
from kit.learn.backbones import Backbone

NAME = "test_efficientnet"


def drawn(name: str, classes: int = 0, **options: int) -> nn.Module:
    """A network with random weights, and statistics of batch norm that are not 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return shaken(timm.create_model(name, num_classes=classes, **options))


def shaken(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return model


def saved(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("spec", "expected", "name"),
    [
        (NAME, Backbone(NAME, "frozen", 0), "test_efficientnet-frozen"),
        (f"{NAME}:", Backbone(NAME, "frozen", 0), "test_efficientnet-frozen"),
        (f"{NAME}:scratch", Backbone(NAME, "scratch", 0), "test_efficientnet-scratch"),
        (f"{NAME}:finetune:64", Backbone(NAME, "finetune", 64), "test_efficientnet-finetune-64"),
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
        (f"{NAME}:froze", "no mode 'froze'", "did you mean frozen"),
        (f"{NAME}:frozen:big", "tiles of 'big' pixels", "give a number"),
        (f"{NAME}:frozen:-3", "tiles of '-3' pixels", "give a number"),
        (f"{NAME}:frozen:64:7", "'7'", "encoder:mode:pixels"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_with_what_was_probably_meant(
    spec: str, message: str, hint: str
) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        backbones.parse(spec)
    assert hint in caught.value.hint
    assert len(caught.value.hint) < 200, "not all thousand names of timm"


def test_weights_that_are_not_attached_are_said_to_be_missing_by_name_and_place() -> None:
    with pytest.raises(WeightsError) as caught:
        backbones.find_weights(Backbone("resnet18", "frozen"), {"vgg16": Path("v"), "resnet50": Path("r")})
    for part in ("'resnet18'", "--weights: resnet50, vgg16", "packaged ones (tf_efficientnet_lite0)"):
        assert part in caught.value.message
    assert "--weights resnet18=FILE" in caught.value.hint and "resnet18:scratch" in caught.value.hint


def test_attached_weights_come_before_packaged_ones_and_scratch_takes_none() -> None:
    lite = Backbone("tf_efficientnet_lite0", "frozen")
    mine = {"tf_efficientnet_lite0": Path("mine.pth")}
    assert backbones.find_weights(lite, mine) == Path("mine.pth")
    assert backbones.find_weights(Backbone(lite.encoder, "scratch"), mine) is None


def test_the_packaged_weights_are_found_and_loaded() -> None:
    lite = Backbone("tf_efficientnet_lite0", "finetune")
    path = backbones.find_weights(lite, {})
    assert path is not None and path.is_file()
    model = backbones.build(lite.encoder)
    backbones.load_weights(model, path, lite.encoder)
    raw = torch.load(path, map_location="cpu", weights_only=True)
    given = [v for k, v in raw.items() if not k.endswith("num_batches_tracked")]
    loaded = [v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")]
    assert len(given) in (len(loaded), len(loaded) + 2)
    assert all(torch.equal(a, b) for a, b in zip(loaded, given, strict=False))


Change = Callable[[dict[str, Tensor]], dict[str, object]]
LAYOUTS: dict[str, Change] = {
    "plain": lambda state: dict(state),
    "DataParallel": lambda state: {f"module.{k}": v for k, v in sorted(state.items())},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": {f"module.{k}": v for k, v in sorted(state.items())}, "best": 0.5},
    "without counters": lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
    "other names": lambda state: {f"n{n}.{k.split('.')[-1]}": v for n, (k, v) in enumerate(state.items())},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", [0, 5])
def test_every_usual_layout_of_a_pth_loads_with_or_without_its_classifier(
    layout: str, classes: int, tmp_path: Path
) -> None:
    source = drawn(NAME, classes)
    torch.save(LAYOUTS[layout](dict(source.state_dict())), tmp_path / "a.pth")
    model = backbones.build(NAME)
    backbones.load_weights(model, tmp_path / "a.pth", NAME)
    wanted = source.state_dict()
    for key, value in model.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(value, wanted[key]), key


def test_attached_safetensors_load(tmp_path: Path) -> None:
    source = drawn(NAME)
    path = saved(source.state_dict(), tmp_path / "a.safetensors")
    model = backbones.build(NAME)
    backbones.load_weights(model, path, NAME)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), source.eval()(images))


def test_torchvision_names_load_by_order_and_give_torchvisions_own_features(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        theirs = shaken(torchvision.models.mobilenet_v2(weights=None)).eval()
    path = saved(theirs.state_dict(), tmp_path / "mobilenet_v2.pth")
    ours = backbones.build("mobilenetv2_100")
    backbones.load_weights(ours, path, "mobilenetv2_100")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs.features(images).mean(dim=(2, 3))
        found = ours.eval()(images)
    assert float(expected.std()) > 0.01, "features that differ, so that the comparison says something"
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4)


def test_another_architecture_is_refused_and_the_first_misfit_named(tmp_path: Path) -> None:
    path = saved(drawn("test_resnet").state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="does not fit test_efficientnet") as caught:
        backbones.load_weights(backbones.build(NAME), path, NAME)
    assert "none is called conv_stem.weight" in caught.value.message
    assert NAME in caught.value.hint


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    state = dict(drawn(NAME).state_dict())
    state["conv_head.weight"] = state["conv_head.weight"][:100].clone()
    path = saved(state, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"conv_head.weight is \(100, .*must be \(256, "):
        backbones.load_weights(backbones.build(NAME), path, NAME)


def test_the_same_shapes_in_another_order_are_refused(tmp_path: Path) -> None:
    """Batch norm's four vectors have one shape: only their kind tells them apart."""
    state = {k: v for k, v in drawn(NAME).state_dict().items() if not k.endswith("num_batches_tracked")}
    swapped = {}
    for n, (key, value) in enumerate(state.items()):
        kind = {"weight": "bias", "bias": "weight"}.get(key.split(".")[-1], key.split(".")[-1])
        swapped[f"{n:04d}.{kind if value.ndim == 1 else 'weight'}"] = value
    with pytest.raises(WeightsError, match="does not fit"):
        backbones.load_weights(backbones.build(NAME), saved(swapped, tmp_path / "a.safetensors"), NAME)


def test_a_deeper_network_of_the_same_family_is_refused(tmp_path: Path) -> None:
    """Every tensor of a shallow network is in its deeper sibling too, under the same name and shape."""
    deeper = drawn("test_vit", depth=8)
    path = saved(deeper.state_dict(), tmp_path / "deep.safetensors")
    with pytest.raises(WeightsError, match=r"blocks\.6"):
        backbones.load_weights(backbones.build("test_vit"), path, "test_vit")


def test_tensors_beside_the_encoder_do_no_harm(tmp_path: Path) -> None:
    """A head inside a named part, or an auxiliary one, is no sign of another network."""
    source = drawn("test_convnext", 7)
    assert any(key.startswith("head.fc") for key in source.state_dict())
    state = {**source.state_dict(), "AuxLogits.conv.weight": torch.zeros(2), "mask_token": torch.zeros(1)}
    model = backbones.build("test_convnext")
    backbones.load_weights(model, saved(state, tmp_path / "a.safetensors"), "test_convnext")
    assert torch.equal(model.state_dict()["stem.0.weight"], state["stem.0.weight"])


def test_a_classifier_that_is_numbered_like_a_layer_is_still_one(tmp_path: Path) -> None:
    name = "inception_next_atto"
    source = drawn(name, 7)
    beyond = {"head.fc2.weight", "head.fc2.bias"}
    model = backbones.build(name)
    assert (
        beyond == set(source.state_dict()) - set(model.state_dict())
        and "head.fc1.weight" in model.state_dict()
    )
    backbones.load_weights(model, saved(source.state_dict(), tmp_path / "a.safetensors"), name)
    assert torch.equal(model.state_dict()["head.fc1.weight"], source.state_dict()["head.fc1.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_a_text_file_is_no_weights(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(WeightsError, match="no readable weights file") as caught:
        backbones.load_weights(backbones.build(NAME), path, NAME)
    assert str(path) in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], 7])
def test_a_file_without_named_tensors_is_no_weights(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="no readable weights file"):
        backbones.load_weights(backbones.build(NAME), tmp_path / "a.pth", NAME)


def test_a_missing_file_is_named_with_the_backbone(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        backbones.load_weights(backbones.build(NAME), tmp_path / "gone.pth", NAME)
    assert NAME in caught.value.message and str(tmp_path / "gone.pth") in caught.value.message
    assert f"--weights {NAME}=FILE" in caught.value.hint


def test_pixels_are_prepared_as_the_encoder_was_trained() -> None:
    record = backbones.preprocessing("tf_efficientnet_lite0")
    assert record["mean"] == (0.5, 0.5, 0.5) and record["std"] == (0.5, 0.5, 0.5)
    assert record["interpolation"] == "bicubic" and record["input_size"] == (3, 224, 224)
    assert backbones.preprocessing("resnet18")["mean"] == (0.485, 0.456, 0.406)


def test_an_encoder_has_no_classifier() -> None:
    images = torch.zeros(2, 3, 32, 32)
    assert backbones.build(NAME).eval()(images).shape == (2, 256)
