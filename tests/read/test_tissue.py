"""Background colour and tissue mask, on made slides whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from kit.read.tissue import KINDS, LISTED, background_colour, find, tissue_mask
from tests.read import pictures

OVERVIEWS = Path(__file__).parents[2] / "../shared/data/strip-ai/overviews"
GLASS = {
    "white": (255, 255, 255),
    "grey-green": (196, 211, 192),
    "violet": (234, 216, 254),
    "pink": (255, 241, 255),
    "dim": (170, 170, 165),
}


def share_of(pixels: Any) -> float:
    return float(tissue_mask(pixels, background_colour(pixels)).mean())


@pytest.mark.parametrize("glass", GLASS.values(), ids=GLASS)
@pytest.mark.parametrize("share", [0.03, 0.2, 0.7])
def test_background_and_tissue_are_found_on_any_glass(
    glass: tuple[int, int, int], share: float, paint: Any
) -> None:
    pixels, truth = paint(600, 500, glass, share)
    background = background_colour(pixels)
    assert np.abs(background.astype(int) - glass).max() <= 3
    mask = tissue_mask(pixels, background)
    assert mask.shape == (500, 600) and mask.dtype == bool
    assert abs(mask.mean() - truth.mean()) < 0.02
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_flat_tissue_of_one_colour_is_not_taken_for_the_glass() -> None:
    for glass in GLASS.values():
        pixels = np.full((300, 400, 3), glass, np.uint8)
        pixels[:210] = np.array((200, 115, 165)) * np.array(glass) // 255
        np.testing.assert_array_equal(background_colour(pixels), glass)
        assert share_of(pixels) == pytest.approx(0.7, abs=0.02)


def test_pale_tissue_beside_dark_tissue_is_kept() -> None:
    pixels = np.full((400, 400, 3), 250, np.uint8)
    pixels[100:300, 100:300] = (225, 205, 235)
    pixels[180:280, 120:280] = (110, 20, 50)
    assert share_of(pixels) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("glass", GLASS.values(), ids=GLASS)
def test_an_empty_slide_with_noise_dust_and_uneven_light_has_no_tissue(
    glass: tuple[int, int, int],
) -> None:
    rng = np.random.default_rng(3)
    light = np.linspace(1.0, 0.94, 500)[None, :, None]
    pixels = np.array(glass) * light + rng.normal(0, 3, (400, 500, 3))
    for y, x in rng.integers(5, 390, (60, 2)):
        pixels[y : y + 2, x : x + 3] = (90, 80, 70)
    assert share_of(np.clip(pixels, 0, 255).astype(np.uint8)) < 0.001


def test_a_soft_shadow_alone_is_no_tissue() -> None:
    pixels = np.full((400, 500, 3), (240, 240, 235), np.float32)
    pixels[100:250, 100:300] *= 0.86
    assert share_of(cv2.GaussianBlur(pixels, (0, 0), 5).astype(np.uint8)) == 0.0


def test_black_borders_and_grey_edges_of_the_glass_are_no_tissue(paint: Any) -> None:
    pixels, truth = paint(600, 500, (234, 216, 254), 0.1)
    pixels[:40] = 0
    pixels[:, -30:] = (12, 10, 11)
    pixels[:, 20:26] = np.array((234, 216, 254)) // 2  # a line from edge to edge
    assert share_of(cv2.blur(pixels, (3, 3))) == pytest.approx(truth.mean(), abs=0.01)


def test_dark_red_tissue_is_not_taken_for_black() -> None:
    pixels = np.full((200, 200, 3), 245, np.uint8)
    pixels[50:150, 50:150] = (46, 8, 14)
    assert share_of(pixels) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (3, 2), (40, 40)])
def test_odd_sizes_and_all_black_pictures_are_survived(shape: tuple[int, int]) -> None:
    for level in (0, 255):
        assert share_of(np.full((*shape, 3), level, np.uint8)) == 0.0


def test_a_picture_of_nothing_but_stained_tissue_is_tissue() -> None:
    rng = np.random.default_rng(4)
    pixels = np.array((190, 90, 140)) + rng.normal(0, 15, (200, 200, 3))
    assert share_of(np.clip(pixels, 0, 255).astype(np.uint8)) > 0.95


def squares(mask: Any, side: int = 16) -> Any:
    """The share of each square of a mask."""
    rows, columns = mask.shape[0] // side, mask.shape[1] // side
    return mask[: rows * side, : columns * side].reshape(rows, side, columns, side).mean(axis=(1, 3))


@pytest.mark.parametrize("glass", pictures.GLASS.values(), ids=pictures.GLASS)
def test_on_spoiled_slides_the_share_and_the_squares_of_tissue_are_right(glass: tuple[int, ...]) -> None:
    hits = calls = truths = 0
    for seed in range(3):
        pixels, kinds = pictures.spoiled(seed).on(glass)
        truth, tissue = np.isin(kinds, (1, 2, 3)), find(pixels)
        assert tissue.share == pytest.approx(truth.mean(), abs=0.005)
        real, called = squares(truth) >= 0.25, squares(tissue.mask) >= 0.25
        hits, calls, truths = hits + (real & called).sum(), calls + called.sum(), truths + real.sum()
    assert hits / truths > 0.985 and hits / calls > 0.96


def test_the_removed_regions_add_up_to_the_kinds_and_are_sorted() -> None:
    tissue = find(pictures.spoiled(1).on(GLASS["violet"])[0])
    listed = dict.fromkeys(pictures.removed(tissue.kinds), 0.0)
    for one in tissue.removed:
        x, y, wide, high = one.box
        inside = tissue.kinds[y : y + high, x : x + wide] == KINDS.index(one.kind)
        assert wide > 0 and high > 0 and inside.sum() >= one.share * tissue.kinds.size - 0.5
        listed[one.kind] += one.share
    assert listed == pytest.approx(pictures.removed(tissue.kinds))
    assert [one.share for one in tissue.removed] == sorted((o.share for o in tissue.removed), reverse=True)
    assert {"pen", "bubble", "edge", "dust", "border", "fold"} == set(listed)


def test_many_removed_regions_are_summed_by_kind() -> None:
    made = pictures.Picture(seed=2)
    made.dust(400, 4)
    tissue = find(made.on(GLASS["white"])[0])
    assert len(tissue.removed) <= LISTED + len(KINDS)
    assert sum(one.share for one in tissue.removed) == pytest.approx(
        sum(pictures.removed(tissue.kinds).values())
    )


def test_a_background_that_is_given_is_used_and_the_picture_is_not_changed() -> None:
    pixels = np.full((60, 80, 3), (200, 150, 190), np.uint8)
    before = pixels.copy()
    assert find(pixels, np.array((250, 250, 250), np.uint8)).share > 0.99
    assert find(pixels, np.array((200, 150, 190), np.uint8)).share == 0
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.skipif(not OVERVIEWS.is_dir(), reason="../shared/data is not there")
@pytest.mark.parametrize(("name", "least", "most"), [("02ebd5_0", 0.17, 0.24), ("08b8ef_0", 0.12, 0.17)])
def test_two_real_overviews_give_plausible_shares(name: str, least: float, most: float) -> None:
    pixels = np.array(Image.open(OVERVIEWS / f"{name}.png").convert("RGB"))
    assert background_colour(pixels).min() >= 250
    assert least < share_of(pixels) < most
