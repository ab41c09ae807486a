"""Grad-CAM finds what a network looks at, whatever its views and its pool, and the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit.competition import Training
from kit.errors import SettingError
from kit.learn import backbones, pooling
from kit.learn.backbones import Backbone
from kit.learn.bags import BagModel
from kit.learn.gradcam import Cam, class_map, of_tile, places
from kit.learn.models import Model
from kit.learn.views import NAMES, SUBGROUPS

SIDE = 32
CLASSES = 2


class Bright(nn.Module):
    """Two maps of 8 x 8 places: how bright each place is, and how dark; their means are the features."""

    num_prefix_tokens = 0

    def forward_features(self, x: Tensor) -> Tensor:
        bright = nn.functional.avg_pool2d(x.mean(dim=1, keepdim=True), 4)
        return torch.cat([bright, 1 - bright], dim=1)

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class Last(Bright):
    """The same, with the channels last."""

    output_fmt = "NHWC"

    def forward_features(self, x: Tensor) -> Tensor:
        return super().forward_features(x).permute(0, 2, 3, 1)

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2))


class Corner(Bright):
    """Only the upper left corner of the maps is ever looked at."""

    def forward_head(self, x: Tensor) -> Tensor:
        return x[:, :, :2, :2].mean(dim=(2, 3))


def network(body: nn.Module, pool: str = "mean", encoder: bool = True) -> BagModel:
    """Class 1 is for bright tiles, class 0 for dark ones."""
    made = backbones.Encoder(body, "made") if encoder else None
    model = BagModel(made, 2, CLASSES, pool, 0.0)
    if encoder:
        model.std.fill_(255.0)  # pixels from 0 to 1
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
    return model


def tile(row: int = 0, column: int = 0) -> np.ndarray:
    """Black, but for one bright quarter."""
    found = np.zeros((SIDE, SIDE, 3), np.uint8)
    half = SIDE // 2
    found[row * half : (row + 1) * half, column * half : (column + 1) * half] = 255
    return found


def quarters(cam: Cam) -> np.ndarray:
    """The mean heat of each quarter (2, 2)."""
    height, width = cam.heat.shape
    return cam.heat.reshape(2, height // 2, 2, width // 2).mean(axis=(1, 3))


@pytest.mark.parametrize("body", [Bright, Last])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_heat_lies_on_the_quarter_that_makes_the_class(
    body: type[nn.Module], row: int, column: int
) -> None:
    model = network(body())
    cam = of_tile(model, model, tile(row, column), (0,), 1)
    expected = np.zeros((2, 2))
    expected[row, column] = 1
    np.testing.assert_allclose(quarters(cam), expected, atol=1e-6)
    assert cam.heat.shape == (8, 8) and cam.heat.dtype == np.float32


def test_the_other_class_has_the_other_places() -> None:
    model = network(Bright())
    dark = of_tile(model, model, tile(0, 1), (0,), 0)
    np.testing.assert_allclose(quarters(dark), [[1, 0], [1, 1]], atol=1e-6)


def test_the_heat_is_from_0_to_1_and_all_0_where_nothing_speaks_for_the_class() -> None:
    model = network(Bright())
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    cam = of_tile(model, model, noise, (0,), 1)
    assert cam.heat.min() >= 0 and cam.heat.max() == 1
    black = of_tile(model, model, np.zeros((SIDE, SIDE, 3), np.uint8), (0,), 1)
    assert not black.heat.any() and np.isfinite(black.heat).all()


@pytest.mark.parametrize("views", SUBGROUPS)
def test_the_views_of_a_tile_are_turned_back_before_they_are_averaged(views: int) -> None:
    model = network(Bright())
    cam = of_tile(model, model, tile(0, 1), SUBGROUPS[views], 1)
    np.testing.assert_allclose(quarters(cam), [[0, 1], [0, 0]], atol=1e-6)


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_each_single_view_is_turned_back_to_the_tile_as_it_is_stored(number: int) -> None:
    model = network(Bright())
    cam = of_tile(model, model, tile(1, 0), (number,), 1)
    np.testing.assert_allclose(quarters(cam), [[0, 0], [1, 0]], atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "max", "attention", "heads", "vote", "transformer"])
def test_any_pool_shows_the_tile_by_itself_with_the_logits_of_a_bag_of_one(pool: str) -> None:
    model = network(Bright(), pool)
    cam = of_tile(model, model, tile(), (0,), 1)
    assert cam.heat.max() == 1 and cam.logits.shape == (CLASSES,)
    if pool != "transformer":  # its layers have numbers of their own
        # A bag of voting tiles gives logarithms of shares.
        assert cam.logits[0] - cam.logits[1] == pytest.approx(1.0, abs=1e-5)
        assert quarters(cam).argmax() == 0


def test_a_frozen_model_is_followed_from_its_head_through_its_embeddings_standards() -> None:
    eye, head = network(Bright()), network(Bright(), encoder=False)
    whole = of_tile(eye, eye, tile(0, 1), (0, 2), 1)
    head.center.copy_(torch.tensor([0.2, 0.8]))
    head.spread.fill_(0.5)
    split = of_tile(eye, head, tile(0, 1), (0, 2), 1)
    np.testing.assert_array_equal(split.heat, whole.heat)
    np.testing.assert_allclose(split.logits, [-0.2, 0.2], atol=1e-6)  # (0.25 - 0.2) / 0.5, and less


def test_the_weight_of_a_map_is_its_mean_gradient_and_what_is_below_zero_is_cut_off() -> None:
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])
    slopes = torch.tensor([[[[1.0, 3.0]], [[-1.0, 1.0]]]])
    assert class_map(maps, slopes).tolist() == [[[2.0, 4.0]]]
    assert class_map(maps, -slopes).tolist() == [[[0.0, 0.0]]]


def test_a_class_that_depends_on_one_corner_is_explained_by_that_corner_alone() -> None:
    model = network(Corner())
    everywhere = np.full((SIDE, SIDE, 3), 255, np.uint8)
    assert of_tile(model, model, everywhere, (0,), 1).logits[1] == pytest.approx(1.0)
    corner = of_tile(model, model, tile(0, 0), (0,), 1)
    assert quarters(corner).argmax() == 0
    elsewhere = of_tile(model, model, tile(1, 1), (0,), 1)
    assert elsewhere.logits[1] == pytest.approx(-1.0)


def test_a_real_network_of_timm_is_explained_the_same_each_time_and_left_as_it_was() -> None:
    torch.manual_seed(0)
    encoder = backbones.build("test_efficientnet")
    model = BagModel(encoder, encoder.features, CLASSES, "mean", 0.0)
    nn.init.normal_(model.head.weight)
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    threads, before = torch.get_num_threads(), {k: v.clone() for k, v in model.state_dict().items()}
    first, again = (of_tile(model, model, pixels, (0, 1, 2, 3), 0) for _ in range(2))
    np.testing.assert_array_equal(first.heat, again.heat)
    assert torch.get_num_threads() == threads
    assert all(value.requires_grad for value in model.parameters())
    assert "forward_head" not in vars(encoder.body)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        plain = model.embed(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        alone = of_tile(model, model, pixels, (0,), 0).logits
    np.testing.assert_allclose(alone, model.head(plain)[0].detach().numpy(), atol=1e-5)


def test_earlier_layers_among_the_features_do_not_hide_the_last_map() -> None:
    encoder = backbones.build("test_efficientnet", layers="all")
    model = BagModel(encoder, encoder.features, CLASSES, "mean", 0.0)
    nn.init.normal_(model.head.weight)
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert of_tile(model, model, pixels, (0,), 0).heat.shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "side", "why"), [("test_vit", 160, "tokens"), ("test_efficientnet", 32, "one place")]
)
def test_an_encoder_without_maps_says_so(name: str, side: int, why: str) -> None:
    encoder = backbones.build(name)
    model = BagModel(encoder, encoder.features, CLASSES, "mean", 0.0)
    with pytest.raises(SettingError, match=f"{name} has none.*{why}"):
        of_tile(model, model, np.zeros((side, side, 3), np.uint8), (0,), 0)


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [("test_efficientnet", 64, 4), ("test_efficientnet", 32, 1), ("test_vit", 160, 0), ("lenet5", 64, 169),
     ("swin_tiny_patch4_window7_224", 224, 49), ("swin_tiny_patch4_window7_224", 64, 0)],
)  # fmt: skip
def test_the_places_of_a_map_are_known_before_anything_is_loaded(
    name: str, side: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.learn.embed.new_encoder", lambda *_: pytest.fail("it is loaded"))
    assert places(Model(name, Backbone(name, "frozen"), Training()), side) == expected


def test_every_attending_pool_is_among_those_that_are_tried_here() -> None:
    tried: Any = {"mean", "max", "attention", "heads", "vote", "transformer"}
    assert set(pooling.ATTENDING) <= tried
