"""Augmentation: what a sample becomes depends on what it is, and on nothing before it."""

from __future__ import annotations

import numpy as np
import pytest

from kit.learn import augment


def tiles(count: int = 3, seed: int = 0) -> augment.Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 24, 24, 3), dtype=np.uint8)


def test_the_same_key_gives_the_same_pixels_from_any_transform() -> None:
    first = augment.apply(augment.make(0.7), tiles(), 0, "fit", 4, "image")
    again = augment.apply(augment.make(0.7), tiles(), 0, "fit", 4, "image")
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8 and first.shape == tiles().shape


@pytest.mark.parametrize("other", [(1, "fit", 4, "image"), (0, "fit", 5, "image"), (0, "fit", 4, "imagf"),
                                   (0, "fi", 4, "image")])  # fmt: skip
def test_another_seed_epoch_image_or_fit_gives_other_pixels(other: tuple[int, str, int, str]) -> None:
    transform = augment.make(0.7)
    first = augment.apply(transform, tiles(), 0, "fit", 4, "image")
    assert (augment.apply(transform, tiles(), *other) != first).any()


def test_equal_tiles_of_one_bag_are_augmented_differently() -> None:
    same = np.repeat(tiles(1), 8, axis=0)
    found = augment.apply(augment.make(1.0), same, 0, "image")
    assert len({tile.tobytes() for tile in found}) == 8


def test_no_state_is_carried_from_one_sample_to_the_next() -> None:
    transform = augment.make(1.0)
    alone = augment.apply(augment.make(1.0), tiles(2, seed=1), 0, "b")
    for company in range(3):
        augment.apply(transform, tiles(company + 1), 0, "a", company)
        np.testing.assert_array_equal(augment.apply(transform, tiles(2, seed=1), 0, "b"), alone)


def test_a_tile_does_not_depend_on_those_after_it() -> None:
    transform = augment.make(1.0)
    few, many = augment.apply(transform, tiles(1), 0, "a"), augment.apply(transform, tiles()[:1], 0, "a")
    np.testing.assert_array_equal(few, many)
    np.testing.assert_array_equal(augment.apply(transform, tiles(), 0, "a")[:1], many)


def test_strength_zero_is_the_identity() -> None:
    np.testing.assert_array_equal(augment.apply(augment.make(0.0), tiles(), 0, "a"), tiles())


def test_turns_are_symmetries_and_a_zoom_that_keep_the_colours() -> None:
    image = np.zeros((1, 60, 60, 3), np.uint8)
    image[:, 20:40, 25:35] = (10, 200, 90)
    found = augment.apply(augment.make(1.0, "turns"), np.repeat(image, 80, axis=0), 0, "a")
    area = (found[..., 1] > 100).sum(axis=(1, 2)) / 200
    assert area.min() >= 0.95 and 1.3 < area.max() <= 1.2**2 * 1.1, "up to a fifth wider and higher"
    tall = (found[..., 1] > 100).any(axis=2).sum(axis=1) > (found[..., 1] > 100).any(axis=1).sum(axis=1)
    assert 0.3 < tall.mean() < 0.7, "right angles"
    assert (found.reshape(-1, 3).max(axis=0) <= (10, 200, 90)).all(), "no colour is new"
    less = augment.apply(augment.make(0.5, "turns"), np.repeat(image, 80, axis=0), 0, "a")
    assert (less[..., 1] > 100).sum(axis=(1, 2)).max() < 200 * 1.1**2 * 1.1


def test_more_strength_moves_colours_further() -> None:
    grey = np.full((200, 8, 8, 3), (180, 120, 150), np.uint8)  # no flip or blur shows on it

    def moved(strength: float) -> float:
        found = augment.apply(augment.make(strength), grey, 0, "a").astype(float)
        return float(np.abs(found - grey).mean())

    assert 1 < moved(0.2) < moved(0.5) < moved(1.0)


def test_all_eight_orientations_are_drawn() -> None:
    transform = augment.make(1e-9)  # flips and right angles; colours change by rounding only
    tile = np.arange(24 * 24).reshape(1, 24, 24, 1).repeat(3, axis=3).astype(float) / 24 * 10
    tile = tile.astype(np.uint8)
    turned = np.stack([np.rot90(side, n) for side in (tile[0], tile[0][:, ::-1]) for n in range(4)])
    seen = set()
    for n in range(100):
        found = augment.apply(transform, tile, 0, n)[0].astype(int)
        away = np.abs(turned - found).max(axis=(1, 2, 3))
        assert away.min() <= 2
        seen.add(int(away.argmin()))
    assert seen == set(range(8))


def test_every_epoch_is_different() -> None:
    """The transform itself repeats the draws of its first epoch in every epoch of a loader's worker."""
    transform = augment.make(1.0)
    seen = {augment.apply(transform, tiles(1), 0, "fit", epoch, "a").tobytes() for epoch in range(30)}
    assert len(seen) > 24, "a fifth are flips without a change of colour, and those are only eight"


@pytest.mark.parametrize("preset", ["flips", "light", "histology"])
def test_every_preset_is_a_function_of_the_key_and_differs_between_epochs(preset: str) -> None:
    transform = augment.make(0.8, preset)
    first = [augment.apply(transform, tiles(), 0, "fit", epoch, "a") for epoch in range(6)]
    for epoch in reversed(range(6)):
        again = augment.apply(transform, tiles(), 0, "fit", epoch, "a")
        np.testing.assert_array_equal(again, first[epoch])
    assert len({found.tobytes() for found in first}) > 4
    np.testing.assert_array_equal(augment.apply(augment.make(0.0, preset), tiles(), 0, "a"), tiles())


def test_flips_move_pixels_and_change_none() -> None:
    tile = tiles(1)
    turned = {np.rot90(side, n).tobytes() for side in (tile[0], tile[0][:, ::-1]) for n in range(4)}
    found = {augment.apply(augment.make(0.1, "flips"), tile, 0, n)[0].tobytes() for n in range(100)}
    assert found == turned


def test_stains_as_they_are_leave_every_level_as_it_is() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    for tile in (levels, tiles(1)[0]):
        np.testing.assert_array_equal(augment.stained(tile, np.ones(3), np.zeros(3)), tile)


def test_a_denser_stain_is_more_of_its_own_colour_and_of_no_other() -> None:
    grey = np.full((4, 4, 3), 150, np.uint8)
    for number in range(3):
        scale = np.where(np.arange(3) == number, 1.3, 1.0)
        density = [-np.log((part.astype(float) + 1) / 256)[0, 0] for part in
                   (grey, augment.stained(grey, scale, np.zeros(3)))]  # fmt: skip
        change = (density[1] - density[0]) @ augment.UNMIX
        assert np.abs(change[np.arange(3) != number]).max() < 0.02
        own = (density[0] @ augment.UNMIX)[number]
        assert change[number] == pytest.approx(0.3 * own, abs=0.02)
    darker = augment.stained(grey, np.ones(3), np.array([0.2, 0, 0]))
    assert (darker < grey).all()


def test_histology_moves_stains_further_with_more_strength() -> None:
    tissue = np.full((300, 8, 8, 3), (180, 120, 150), np.uint8)

    def moved(strength: float) -> float:
        found = augment.apply(augment.make(strength, "histology"), tissue, 0, "a").astype(float)
        return float(np.median(np.abs(found - tissue).mean(axis=(1, 2, 3))))

    assert 0.5 < moved(0.2) < moved(0.5) < moved(1.0) < 60
