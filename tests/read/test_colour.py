"""Colour normalisation, on tissue made of known stains."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kit.read import colour

Pixels = NDArray[np.uint8]
WHITE = np.full(3, 255, np.uint8)
VIOLET = np.array((234, 216, 254), np.uint8)
# Two stains that are not the reference's, about as far apart.
OTHER = np.array(((0.65, 0.70, 0.29), (0.27, 0.57, 0.78)))
OTHER /= np.linalg.norm(OTHER, axis=1, keepdims=True)


def amounts(seed: int = 0, size: int = 128) -> NDArray[np.float64]:
    """How much of each of two stains a pixel has, (size * size, 2): some have little of one of them."""
    rng = np.random.default_rng(seed)
    mix = rng.beta(0.4, 0.4, size * size)
    strength = rng.uniform(0.5, 2.0, size * size)
    return np.stack([mix * strength, (1 - mix) * strength * 0.55], axis=1)


def stained(stains: NDArray[np.float64], seed: int = 0, glass: Pixels = WHITE) -> Pixels:
    """A picture (128, 128, 3) of two stains, with two rows of glass."""
    light = (glass + 1.0) * np.exp(-amounts(seed) @ stains) - 1
    pixels = np.clip(np.rint(light), 0, 255).astype(np.uint8).reshape(128, 128, 3)
    pixels[:2] = glass
    return pixels


def degrees(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))


def mean_lab(pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    lab = cv2.cvtColor((pixels.reshape(1, -1, 3) / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    return lab.mean(axis=0), lab.std(axis=0)


@pytest.mark.parametrize("name", ["background", "reinhard", "macenko"])
@pytest.mark.parametrize("glass", [WHITE, VIOLET, np.array((196, 211, 192), np.uint8)], ids=str)
def test_glass_becomes_white_on_a_tile_with_tissue(name: str, glass: Pixels) -> None:
    tile = stained(OTHER, glass=glass)
    new = colour.normaliser(name, glass, tile[2:])(tile)  # type: ignore[arg-type]
    assert new.shape == tile.shape and new.dtype == np.uint8
    np.testing.assert_array_equal(new[:2], 255)


def test_the_background_ratio_gives_the_pixels_that_white_glass_would_have_given() -> None:
    onto_white, onto_violet = (stained(OTHER, glass=glass) for glass in (WHITE, VIOLET))
    new = colour.background_ratio(onto_violet, VIOLET)
    assert np.abs(new.astype(int) - onto_white).max() <= 2
    brighter = np.full((2, 2, 3), 255, np.uint8)
    np.testing.assert_array_equal(colour.background_ratio(brighter, VIOLET), 255)


@pytest.mark.parametrize("glass", [WHITE, VIOLET], ids=str)
def test_reinhard_gives_the_tissue_the_statistics_of_the_reference(glass: Pixels) -> None:
    rng = np.random.default_rng(0)
    grey = rng.normal(0, 18, (64, 64, 1)) + rng.normal(0, 5, (64, 64, 3))
    tile = np.clip(grey + np.array((150, 95, 140)), 0, 255).astype(np.uint8)
    new = colour.normaliser("reinhard", glass, tile)(tile)
    mean, spread = mean_lab(new)
    np.testing.assert_allclose(mean, colour.LAB_MEAN, atol=1.5)
    np.testing.assert_allclose(spread, colour.LAB_SPREAD, rtol=0.1)


@pytest.mark.parametrize("stains", [OTHER, colour.STAINS.astype(np.float64)], ids=["other", "reference"])
def test_the_stains_of_a_slide_are_found_within_three_degrees(stains: NDArray[np.float64]) -> None:
    densities = (amounts() @ stains).astype(np.float32)
    found = colour.stain_vectors(densities + np.random.default_rng(1).normal(0, 0.01, densities.shape))
    assert found is not None
    assert [degrees(a, b) < 3 for a, b in zip(found, stains, strict=True)] == [True, True]


def test_macenko_maps_a_restained_slide_onto_the_reference() -> None:
    reference = stained(colour.STAINS.astype(np.float64))
    restained = stained(OTHER * 0.8, glass=VIOLET)
    new = colour.normaliser("macenko", VIOLET, restained[2:])(restained)
    kept = colour.normaliser("macenko", WHITE, reference[2:])(reference)
    before, after = (np.abs(a.astype(int) - kept).mean() for a in (restained, new))
    assert after < 4 < 10 < before


def test_a_slide_that_is_the_reference_stays_as_it_is() -> None:
    rng = np.random.default_rng(2)
    # Amounts whose 99th percentile is the reference's: of each stain alone, and mixed.
    alone = np.kron(np.eye(2), np.ones((2000, 1))) * rng.uniform(0.5, 1, (4000, 1)) * colour.AMOUNTS / 0.99
    light = 256 * np.exp(-alone @ colour.STAINS) - 1
    tile = np.rint(light).astype(np.uint8).reshape(40, 100, 3)
    new = colour.normaliser("macenko", WHITE, tile)(tile)
    assert np.abs(new.astype(int) - tile).mean() < 3

    lab = colour.LAB_MEAN + rng.normal(0, 1, (4096, 3)).clip(-2, 2) * colour.LAB_SPREAD * (0.7, 0.7, 0.7)
    rgb = cv2.cvtColor(lab.astype(np.float32)[None], cv2.COLOR_LAB2RGB)[0]
    tile = np.rint(rgb * 255).clip(0, 255).astype(np.uint8).reshape(64, 64, 3)
    mean, spread = mean_lab(tile)
    with pytest.MonkeyPatch.context() as patch:  # the reference is this very tile
        patch.setattr(colour, "LAB_MEAN", mean)
        patch.setattr(colour, "LAB_SPREAD", spread)
        new = colour.normaliser("reinhard", WHITE, tile)(tile)
    assert np.abs(new.astype(int) - tile).max() <= 1


@pytest.mark.parametrize("name", ["reinhard", "macenko"])
def test_a_tile_without_tissue_is_returned_as_it_is(name: str) -> None:
    normalise = colour.normaliser(name, VIOLET, stained(OTHER, glass=VIOLET)[2:])  # type: ignore[arg-type]
    empty = np.full((16, 16, 3), VIOLET, np.uint8)
    np.testing.assert_array_equal(normalise(empty), empty)
    both = np.stack([empty, stained(OTHER, glass=VIOLET)[:16, :16]])
    np.testing.assert_array_equal(normalise(both)[0], empty)
    np.testing.assert_array_equal(normalise(both)[1], normalise(both[1]))


@pytest.mark.parametrize("name", ["reinhard", "macenko"])
def test_a_slide_without_tissue_changes_its_background_only(name: str) -> None:
    tile = stained(OTHER, glass=VIOLET)
    for sample in (np.zeros((0, 3), np.uint8), np.full((50, 3), VIOLET, np.uint8)):
        new = colour.normaliser(name, VIOLET, sample)(tile)  # type: ignore[arg-type]
        np.testing.assert_array_equal(new, colour.background_ratio(tile, VIOLET))


def test_a_slide_of_one_stain_is_not_split_into_two() -> None:
    strength = np.random.default_rng(0).uniform(0.3, 2, (4000, 1))
    noisy = strength * colour.STAINS[1] + np.random.default_rng(1).normal(0, 0.02, (4000, 3))
    assert colour.stain_vectors(noisy.astype(np.float32)) is None


@pytest.mark.parametrize("name", ["none", "background", "reinhard", "macenko"])
def test_the_same_slide_gives_the_same_tiles_one_by_one_or_as_a_stack(name: str) -> None:
    sample = stained(OTHER, seed=1)
    tiles = np.stack([stained(OTHER, seed=seed)[:40, :40] for seed in (2, 3)])
    kept = tiles.copy()
    once, again = (colour.normaliser(name, WHITE, sample) for _ in range(2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(once(tiles), np.stack([again(tile) for tile in tiles]))
    np.testing.assert_array_equal(tiles, kept)  # the input is not written to
    assert once(tiles[:0]).shape == (0, 40, 40, 3)


def test_glass_and_tissue_meet_without_an_outline() -> None:
    pale = np.array((222, 205, 226)) + np.random.default_rng(0).normal(0, 4, (4000, 3))
    normalise = colour.normaliser("reinhard", WHITE, np.rint(pale).astype(np.uint8))
    ramp = np.repeat(np.arange(255, 199, -1, dtype=np.uint8), 3).reshape(1, -1, 3)
    new = normalise(ramp)[0].astype(int)
    assert new[0].tolist() == [255] * 3 and new[-1].max() < 180
    assert np.abs(np.diff(new, axis=0)).max() <= 16
