"""What it takes for a file of weights to be found and believed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from kit.errors import SettingError, WeightsError
from kit.learn import backbones, weights
from kit.learn.backbones import Backbone
from kit.learn.bags import BagModel

NAME = "test_efficientnet"
REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "weights"


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


def test_weights_that_are_not_attached_are_said_to_be_missing_by_name_and_place() -> None:
    with pytest.raises(WeightsError) as caught:
        weights.find_weights(Backbone("resnet18", "frozen"), {"vgg16": Path("v"), "resnet50": Path("r")})
    for part in ("'resnet18'", "--weights: resnet50, vgg16", "packaged ones (tf_efficientnet_lite0)"):
        assert part in caught.value.message
    assert "--weights resnet18=FILE" in caught.value.hint and "resnet18:scratch" in caught.value.hint


def test_attached_weights_come_before_packaged_ones_and_scratch_takes_none() -> None:
    lite = Backbone("tf_efficientnet_lite0", "frozen")
    mine = {"tf_efficientnet_lite0": Path("mine.pth")}
    assert weights.find_weights(lite, mine) == Path("mine.pth")
    assert weights.find_weights(Backbone(lite.encoder, "scratch"), mine) is None


def test_a_folder_may_hold_what_no_backbone_uses_but_a_slip_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A slip for packaged weights would go unseen: training would start from other weights than meant."""
    todo = [Backbone("resnet18", "frozen"), Backbone("tf_efficientnet_lite0", "frozen")]
    mine = {"resnet18": Path("wf/resnet18.pth"), "mobilenet_v2": Path("wf/mobilenet_v2.pth")}
    with caplog.at_level(logging.INFO, "kit"):
        weights.check_attached(todo, mine)
    assert "mobilenet_v2: wf/mobilenet_v2.pth" in caplog.text and "resnet18.pth" not in caplog.text
    for wrong in ({**mine, "tf_eficientnet_lite0": Path("x.pth")}, {"mobilenet_v2": Path("x.pth")}):
        used = todo if "resnet18" in wrong else todo[1:]
        with pytest.raises(SettingError, match=r"names '\w+' \(x.pth\), which is no backbone") as caught:
            weights.check_attached(used, wrong)
        assert "tf_efficientnet_lite0" in caught.value.hint
    with pytest.raises(WeightsError, match="no weights for 'resnet18'") as missing:
        weights.check_attached(todo, {"resnet_18": Path("r.pth")})
    assert "write resnet18=r.pth" in missing.value.hint


def test_what_is_odd_about_a_file_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = timm.create_model(NAME, num_classes=0)
    for name in ("a.pth", "b.pth"):
        state = {f"x{n}.{k.rsplit('.', 1)[-1]}": v for n, (k, v) in enumerate(model.state_dict().items())}
        path = saved(state, tmp_path / name)
        with caplog.at_level(logging.INFO, "kit"):
            for _ in range(3):
                weights.load_weights(model, path, NAME)
        assert caplog.text.count(f"{path}: other names") == 1


def test_the_packaged_weights_are_found_and_loaded() -> None:
    lite = Backbone("tf_efficientnet_lite0", "finetune")
    path = weights.find_weights(lite, {})
    assert path is not None and path.is_file()
    model = backbones.build(lite.encoder)
    weights.load_weights(model, path, lite.encoder)
    raw = torch.load(path, map_location="cpu", weights_only=True)
    given = [v for k, v in raw.items() if not k.endswith("num_batches_tracked")]
    loaded = [v for k, v in model.body.state_dict().items() if not k.endswith("num_batches_tracked")]
    assert len(given) in (len(loaded), len(loaded) + 2)
    assert all(torch.equal(a, b) for a, b in zip(loaded, given, strict=False))


Change = Callable[[dict[str, Tensor]], dict[str, object]]
LAYOUTS: dict[str, Change] = {
    "plain": lambda state: dict(state),
    "DataParallel": lambda state: {f"module.{k}": v for k, v in sorted(state.items())},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": {f"module.{k}": v for k, v in sorted(state.items())}, "best": 0.5},
    "averaged weights first": lambda state: {
        "state_dict": {k: torch.zeros_like(v) for k, v in state.items()},
        "state_dict_ema": {f"module.{k}": v for k, v in state.items()},
    },
    "compiled and parallel": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
    "Lightning": lambda state: {
        "epoch": 2,
        "state_dict": {**{f"model.{k}": v for k, v in state.items()}, "loss.weight": torch.ones(2)},
    },
    "Lightning's encoder": lambda state: {
        "state_dict": {**{f"net.encoder.{k}": v for k, v in state.items()}, "net.head.weight": torch.ones(2)}
    },
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
    weights.load_weights(model, tmp_path / "a.pth", NAME)
    wanted = source.state_dict()
    for key, value in model.body.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(value, wanted[key]), key


def test_attached_safetensors_load(tmp_path: Path) -> None:
    source = drawn(NAME)
    path = saved(source.state_dict(), tmp_path / "a.safetensors")
    model = backbones.build(NAME)
    weights.load_weights(model, path, NAME)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), source.eval()(images))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["mobilenetv2_100", "efficientnet_b0", "mnasnet_100", "convnext_tiny"])
def test_torchvisions_file_gives_torchvisions_own_scores(name: str, suffix: str, tmp_path: Path) -> None:
    """In safetensors the names are sorted, so that order says nothing."""
    require_same_scores(name, suffix, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(weights.TORCHVISION) - {"mobilenetv2_100", "convnext_tiny"}))
def test_every_network_that_is_known_to_be_torchvisions_is(name: str, tmp_path: Path) -> None:
    require_same_scores(name, ".safetensors", tmp_path)


def require_same_scores(name: str, suffix: str, folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        theirs = shaken(torchvision.models.get_model(weights.TORCHVISION[name], weights=None)).eval()
    path = saved(theirs.state_dict(), folder / f"theirs{suffix}")
    ours = timm.create_model(name).eval()
    weights.load_weights(ours, path, name)
    weights.load_weights(backbones.build(name), path, name)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = theirs(images), ours(images)
    assert float(expected.std()) > 1e-3, "scores that differ, so that the comparison says something"
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4 * float(expected.abs().max()))


def test_a_part_of_torchvisions_file_is_refused(tmp_path: Path) -> None:
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    state.pop("features.3.conv.2.weight")
    with pytest.raises(WeightsError, match="does not fit mobilenetv2_100"):
        weights.load_weights(
            backbones.build("mobilenetv2_100"), saved(state, tmp_path / "a.safetensors"), "mobilenetv2_100"
        )


def test_a_network_of_torchvision_with_other_constants_is_refused_though_all_shapes_fit(
    tmp_path: Path,
) -> None:
    """Its batch norm has an eps of .001, which no file tells."""
    state = torchvision.models.efficientnet_v2_s(weights=None).state_dict()
    with pytest.raises(WeightsError, match="does not fit efficientnetv2_s"):
        weights.load_weights(
            backbones.build("efficientnetv2_s"), saved(state, tmp_path / "a.pth"), "efficientnetv2_s"
        )


def test_real_squeezenet_weights_give_torchvisions_own_features() -> None:
    path = REAL / "squeezenet1_1_onnxzoo.safetensors"
    if not path.is_file():
        pytest.skip(f"the real weights are not in {REAL}")
    theirs = torchvision.models.squeezenet1_1(weights=None).eval()
    theirs.load_state_dict(load_file(path))
    ours = backbones.build("squeezenet1_1").eval()
    weights.load_weights(ours, path, "squeezenet1_1")
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs.features(images).mean(dim=(2, 3)), atol=1e-4)


def test_other_names_in_safetensors_are_refused_since_their_order_is_not_the_networks(tmp_path: Path) -> None:
    state = drawn(NAME).state_dict()
    other = {f"n{n}.{key.split('.')[-1]}": value for n, (key, value) in enumerate(state.items())}
    with pytest.raises(WeightsError, match="does not fit"):
        weights.load_weights(backbones.build(NAME), saved(other, tmp_path / "a.safetensors"), NAME)


def test_a_model_of_this_packages_own_is_taken_apart(tmp_path: Path) -> None:
    encoder = backbones.build(NAME)
    nn.init.normal_(encoder.body.conv_stem.weight)
    model = BagModel(encoder, encoder.features, 3, "mean", 0.0)
    again = backbones.build(NAME)
    weights.load_weights(again, saved(model.state_dict(), tmp_path / "fold0.safetensors"), NAME)
    assert torch.equal(again.body.conv_stem.weight, encoder.body.conv_stem.weight)


def test_position_embeddings_of_another_grid_are_resampled_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "vit_tiny_patch16_224"
    larger = drawn(name, img_size=96)
    path = saved(larger.state_dict(), tmp_path / "a.safetensors")
    model = timm.create_model(name, num_classes=0, img_size=64)
    with caplog.at_level(logging.WARNING, "kit"):
        weights.load_weights(model, path, name)
    assert "6 x 6, were resampled to 4 x 4" in caplog.text and str(path) in caplog.text
    expected = resample_abs_pos_embed(larger.state_dict()["pos_embed"], [4, 4])
    assert torch.equal(model.pos_embed, expected)


def test_position_embeddings_without_a_square_grid_are_refused(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    path = saved(drawn(name, img_size=(96, 64)).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"pos_embed is \(1, 25, 192\), and must be \(1, 17, 192\)"):
        weights.load_weights(timm.create_model(name, num_classes=0, img_size=64), path, name)


def test_another_architecture_is_refused_and_the_first_misfit_named(tmp_path: Path) -> None:
    path = saved(drawn("test_resnet").state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="does not fit test_efficientnet") as caught:
        weights.load_weights(backbones.build(NAME), path, NAME)
    lines = caught.value.message.splitlines()
    count = len([k for k in drawn(NAME).state_dict() if not k.endswith("num_batches_tracked")])
    assert f"of {count} tensors" in lines[0] and "are too many" in lines[0]
    assert lines[1] == "  missing: conv_stem.weight" and any("too many: conv1.0" in line for line in lines)
    assert len(lines) < 15 and f"--weights {NAME}=FILE" in caught.value.hint


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    state = dict(drawn(NAME).state_dict())
    state["conv_head.weight"] = state["conv_head.weight"][:100].clone()
    path = saved(state, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"conv_head.weight is \(100, .*must be \(256, "):
        weights.load_weights(backbones.build(NAME), path, NAME)


def test_the_same_shapes_in_another_order_are_refused(tmp_path: Path) -> None:
    """Batch norm's four vectors have one shape: only their kind tells them apart."""
    state = {k: v for k, v in drawn(NAME).state_dict().items() if not k.endswith("num_batches_tracked")}
    swapped = {}
    for n, (key, value) in enumerate(state.items()):
        kind = {"weight": "bias", "bias": "weight"}.get(key.split(".")[-1], key.split(".")[-1])
        swapped[f"{n:04d}.{kind if value.ndim == 1 else 'weight'}"] = value
    with pytest.raises(WeightsError, match="does not fit"):
        weights.load_weights(backbones.build(NAME), saved(swapped, tmp_path / "a.pth"), NAME)


def test_a_deeper_network_of_the_same_family_is_refused(tmp_path: Path) -> None:
    """Every tensor of a shallow network is in its deeper sibling too, under the same name and shape."""
    deeper = drawn("test_vit", depth=8)
    path = saved(deeper.state_dict(), tmp_path / "deep.safetensors")
    with pytest.raises(WeightsError, match=r"blocks\.6"):
        weights.load_weights(backbones.build("test_vit"), path, "test_vit")


def test_tensors_beside_the_encoder_do_no_harm(tmp_path: Path) -> None:
    """A head inside a named part, or an auxiliary one, is no sign of another network."""
    source = drawn("test_convnext", 7)
    assert any(key.startswith("head.fc") for key in source.state_dict())
    state = {**source.state_dict(), "AuxLogits.conv.weight": torch.zeros(2), "mask_token": torch.zeros(1)}
    model = backbones.build("test_convnext")
    weights.load_weights(model, saved(state, tmp_path / "a.safetensors"), "test_convnext")
    assert torch.equal(model.body.state_dict()["stem.0.weight"], state["stem.0.weight"])


def test_a_classifier_that_is_numbered_like_a_layer_is_still_one(tmp_path: Path) -> None:
    name = "inception_next_atto"
    source = drawn(name, 7)
    beyond = {"head.fc2.weight", "head.fc2.bias"}
    model = backbones.build(name)
    if beyond <= set(model.body.state_dict()):
        pytest.skip("this timm leaves it its classifier")
    assert (
        beyond == set(source.state_dict()) - set(model.body.state_dict())
        and "head.fc1.weight" in model.body.state_dict()
    )
    weights.load_weights(model, saved(source.state_dict(), tmp_path / "a.safetensors"), name)
    assert torch.equal(model.body.state_dict()["head.fc1.weight"], source.state_dict()["head.fc1.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_a_text_file_is_no_weights(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(WeightsError, match="no readable weights file") as caught:
        weights.load_weights(backbones.build(NAME), path, NAME)
    assert str(path) in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], 7])
def test_a_file_without_named_tensors_is_no_weights(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="no readable weights file"):
        weights.load_weights(backbones.build(NAME), tmp_path / "a.pth", NAME)


def test_a_missing_file_is_named_with_the_backbone(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        weights.load_weights(backbones.build(NAME), tmp_path / "gone.pth", NAME)
    assert NAME in caught.value.message and str(tmp_path / "gone.pth") in caught.value.message
    assert f"--weights {NAME}=FILE" in caught.value.hint


def made(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if path.suffix == ".json" else name)
    return folder


def test_a_folder_of_files_attaches_each_by_its_stem(tmp_path: Path) -> None:
    folder = made(tmp_path / "some", "resnet18.safetensors", "vit_base_patch16_224.dino.pth", "README.md")
    made(folder, "resnet18.json")
    dino = "vit_base_patch16_224.dino"
    expected = {"resnet18": folder / "resnet18.safetensors", dino: folder / f"{dino}.pth"}
    assert weights.expand({"some": folder}) == expected
    assert weights.expand({dino: folder, "x": Path("x.pth")}) == {dino: expected[dino], "x": Path("x.pth")}


def test_a_folder_with_a_list_attaches_what_the_list_names(tmp_path: Path) -> None:
    folder = made(tmp_path, "a.pth", "b.pth", "weights.json")
    record = {
        "resnet18": {"file": "b.pth", "mean": [0.5, 0.5, 0.5]},
        "hf-hub:MahmoodLab/UNI": {"file": "a.pth"},
    }
    (folder / "weights.json").write_text(json.dumps(record))
    assert weights.expand({folder.name: folder}) == {"resnet18": folder / "b.pth", "UNI": folder / "a.pth"}
    record["resnet50"] = {"file": "gone.pth"}
    (folder / "weights.json").write_text(json.dumps(record))
    with pytest.raises(WeightsError, match=r"resnet50: .*gone\.pth"):
        weights.expand({folder.name: folder})


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_hub_folder_is_one_encoder(file: str, tmp_path: Path) -> None:
    folder = made(tmp_path, "config.json", file)
    assert weights.expand({"MahmoodLab/UNI2-h": folder}) == {"UNI2-h": folder / file}


def test_folders_that_cannot_be_understood_are_refused(tmp_path: Path) -> None:
    empty, bare = made(tmp_path / "empty", "README"), made(tmp_path / "bare", "config.json")
    twice = made(tmp_path / "twice", "a.pth", "a.safetensors")
    some = made(tmp_path / "some", "resnet18.pth")
    for pairs, message in [
        ({"empty": empty}, "no weights in"),
        ({"bare": bare}, "no model.safetensors or pytorch_model.bin"),
        ({"twice": twice}, "has a.pth and a.safetensors"),
        ({"resnet50": some}, "has no 'resnet50'"),
    ]:
        with pytest.raises(WeightsError, match=message):
            weights.expand(pairs)
    with pytest.raises(SettingError, match="'resnet18' twice"):
        weights.expand({"some": some, "resnet18": Path("mine.pth")})


def test_the_digest_of_a_hub_folder_follows_the_network_that_it_describes(tmp_path: Path) -> None:
    folder = made(tmp_path, "model.safetensors")
    attached = {NAME: folder / "model.safetensors"}
    digests = [weights.weights_digest(Backbone(NAME, "frozen"), attached)]
    for arguments in ({"depth": 3}, {"depth": 4}):
        (folder / "config.json").write_text(json.dumps({"architecture": NAME, "model_args": arguments}))
        digests.append(weights.weights_digest(Backbone(NAME, "frozen"), attached))
    assert len(set(digests)) == 3
