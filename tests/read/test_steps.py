"""Steps from a photograph to a picture: those of a published recipe to the bit, and corrected ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kit.competition import TileGrid
from kit.demo import smears
from kit.errors import SettingError
from kit.read import photo, reader, steps

DATA = Path(__file__).parents[2] / "../shared/data/leukemia/native"


def noise(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """Blobs of all brightnesses: uint8 (height, width, 3)."""
    draw = np.random.default_rng(seed)
    rough = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)


def published(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The formulas as published: sharpened levels of 0 to 1 (224, 224), and what the network was given."""
    picture = np.array(Image.fromarray(picture).resize((224, 224)))
    image = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) / 255.0
    blurred = cv2.GaussianBlur(image, (5, 5), 0)
    sharpened = np.clip(cv2.addWeighted(image, 1.5, blurred, -0.2, 0), 0, 1)
    levels = np.uint8(sharpened)
    edges = cv2.Canny(cv2.GaussianBlur(levels, (5, 5), 0), threshold1=30, threshold2=100)
    contours, _ = cv2.findContours(edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    drawn = cv2.cvtColor(levels, cv2.COLOR_GRAY2RGB)
    cv2.drawContours(drawn, contours, -1, (0, 255, 0), 2)
    return sharpened, cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize("seed", range(8))
def test_the_published_recipe_is_followed_to_the_bit(seed: int) -> None:
    picture = noise(seed, *((224, 224) if seed % 2 else (96, 120)))
    sharpened, given = published(picture)
    mine = steps.apply(picture, ("resize-224", "grey", "sharpen"))
    for channel in range(3):
        # A level is cut off, as the published code does when it writes its pictures.
        np.testing.assert_array_equal(mine[:, :, channel], (sharpened * 255).astype(np.uint8))
    final = steps.apply(mine, ("roi",))
    np.testing.assert_array_equal(final[:, :, 1] / 255, given)
    assert set(np.unique(final)) == {0, 255}, "black and white is all that the network saw"


@pytest.mark.skipif(not DATA.is_dir(), reason="the real smears are not beside the project")
def test_on_real_smears_the_published_recipe_leaves_the_outlines_of_the_glass() -> None:
    shares = []
    for path in sorted(DATA.glob("*/*.jpg")):
        picture = np.array(Image.open(path).convert("RGB"))
        final = steps.apply(picture, ("resize-224", "grey", "sharpen", "roi"))
        np.testing.assert_array_equal(final[:, :, 0] / 255, published(picture)[1])
        shares.append((final == 255).mean())
    assert len(shares) == 100 and 0.3 < np.mean(shares) < 0.95


def test_sharpen_brightens_an_even_area_and_unsharp_leaves_it() -> None:
    even = np.full((20, 20, 3), 150, np.uint8)
    assert set(np.unique(steps.sharpen(even))) <= {194, 195}, "1.3 times as bright"
    np.testing.assert_array_equal(steps.unsharp(even), even)
    assert (steps.sharpen(np.full((9, 9, 3), 197, np.uint8)) == 255).all()
    edge = np.full((20, 20, 3), 100, np.uint8)
    edge[:, 10:] = 150
    assert steps.unsharp(edge)[:, 10:].max() > 150 > 100 > steps.unsharp(edge)[:, :10].min()


def test_grey_and_blur_are_those_of_opencv() -> None:
    picture = noise(1)
    weights = np.array([0.299, 0.587, 0.114])
    grey = steps.grey(picture)
    assert np.abs(grey[:, :, 0] - picture @ weights).max() <= 0.51
    assert (grey == grey[:, :, :1]).all()
    spot = np.zeros((11, 11, 3), np.uint8)
    spot[5, 5] = 255
    blurred = steps.blur(spot)
    assert (blurred[3:8, 3:8] > 0).any(axis=2).sum() == 25 and not blurred[:3].any()
    ratio = blurred[5, 6, 0] / blurred[5, 5, 0]
    assert ratio == pytest.approx(np.exp(-0.5 / 1.1**2), abs=0.03)


@pytest.mark.parametrize("stain", range(4))
def test_a_masked_corner_tells_nothing_of_the_scale_bar(stain: int) -> None:
    smear = smears.Smear("one", 0, stain, (0.0, 0.0))
    picture = smears.draw(0, smear)
    height, width = (round(share * smears.SIDE) for share in steps.BAR[::-1])
    other = picture.copy()
    other[-height:, -width:] = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    masked = steps.mask_bar(picture)
    np.testing.assert_array_equal(masked, steps.mask_bar(other))
    outside = np.ones(masked.shape[:2], bool)
    outside[-height:, -width:] = False
    np.testing.assert_array_equal(masked[outside], picture[outside])

    assert (picture[-4] != masked[-4]).any(), "there was a bar"


@pytest.mark.skipif(not DATA.is_dir(), reason="the real smears are not beside the project")
def test_the_corner_that_is_masked_holds_every_real_scale_bar() -> None:
    """Beyond it, the ink of a bar would make some rows darker than others in the mean of a class."""
    for folder in sorted(DATA.iterdir()):
        mean = np.mean([np.array(Image.open(path).convert("L")) for path in folder.glob("*.jpg")], axis=0)
        top, left = (round(224 * (1 - share)) for share in steps.BAR[::-1])
        inside, beside = mean[top:, left:].std(), mean[top - 40 : top, left - 40 : left].std()
        above, before = mean[top - 6 : top, left:].std(), mean[top:, left - 6 : left].std()
        assert inside > 1.5 * beside, f"the bar of {folder.name} is in the corner"
        assert max(above, before) < 2 * beside, f"nothing of the bar of {folder.name} is left"


def test_a_cell_is_cut_out_by_its_colour_and_without_one_all_is_kept() -> None:
    picture = np.full((100, 140, 3), 225, np.uint8)
    np.testing.assert_array_equal(steps.cell(picture), picture)
    cv2.circle(picture, (100, 40), 15, (110, 60, 170), -1)
    cv2.circle(picture, (20, 80), 5, (110, 60, 170), -1)
    cut = steps.cell(picture)
    assert cut.shape == (44, 44, 3)
    assert (cut[22, 22] == (110, 60, 170)).all() and (cut[0] == 225).all()
    cv2.circle(picture, (138, 98), 30, (110, 60, 170), -1)
    assert steps.cell(picture).shape[0] == steps.cell(picture).shape[1] > 44, "at an edge it is square too"


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (3, 3)])
@pytest.mark.parametrize("name", list(steps.STEPS))
def test_every_step_takes_the_smallest_pictures(name: str, size: tuple[int, int]) -> None:
    found = steps.STEPS[name](np.full((*size, 3), 90, np.uint8))
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3


def test_a_photograph_is_opened_with_its_steps_and_keeps_the_original(tmp_path: Path) -> None:
    picture = noise(3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    with photo.open_image(tmp_path / "a.png", TileGrid(steps=("grey", "resize-224"))) as image:
        assert image.size == (224, 224)
        np.testing.assert_array_equal(image.overview(1), steps.resize_224(steps.grey(picture)))
        np.testing.assert_array_equal(image.original, picture)


def test_an_unknown_step_is_refused_with_the_closest_one() -> None:
    with pytest.raises(SettingError, match="no step 'gray'") as refused:
        reader.check_steps("photo", ("blur", "gray"))
    assert "did you mean grey?" in refused.value.hint
    with pytest.raises(SettingError, match="reader 'slide' has no steps"):
        reader.check_steps("slide", ("grey",))
    reader.check_steps("slide", ())
