"""Reading slides block by block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from kit.errors import ImageError
from kit.read import slide
from kit.read.reader import ImageMissing


def averaged(pixels: Any, factor: int) -> Any:
    """The mean of each cell of factor x factor pixels, the incomplete ones at the edges too."""
    rows = range(0, pixels.shape[0], factor)
    columns = range(0, pixels.shape[1], factor)
    means = [[pixels[y : y + factor, x : x + factor].mean(axis=(0, 1)) for x in columns] for y in rows]
    return np.array(means)


@pytest.fixture
def noise() -> Any:
    return np.random.default_rng(1).integers(0, 256, (777, 901, 3), dtype=np.uint8)


@pytest.mark.parametrize("factor", [7, 32, 1000])
@pytest.mark.parametrize("block", [128, 1024])
def test_an_overview_is_the_mean_of_its_cells_whatever_the_block(
    factor: int, block: int, noise: Any, tmp_path: Path, write_slide: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(slide, "BLOCK", block)
    with slide.open_image(write_slide(tmp_path / "a.tif", noise)) as image:
        overview = image.overview(factor)
    wanted = averaged(noise, factor)
    assert overview.shape == wanted.shape and overview.dtype == np.uint8
    assert np.abs(overview - wanted).max() <= 0.51


def test_a_region_is_the_area_mean_of_its_square(noise: Any, tmp_path: Path, write_slide: Any) -> None:
    with slide.open_image(write_slide(tmp_path / "a.tif", noise)) as image:
        assert image.size == (901, 777)
        np.testing.assert_array_equal(image.overview(1), noise)
        np.testing.assert_array_equal(image.region(100, 33, 64, 64), noise[33:97, 100:164])
        shrunk = image.region(5, 256, 400, 50)
        assert np.abs(shrunk - averaged(noise[256:656, 5:405], 8)).max() <= 0.51
        wanted = cv2.resize(noise[:300, :300], (224, 224), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(image.region(0, 0, 300, 224), wanted)
        assert image.region(0, 0, 20, 64).shape == (64, 64, 3)


def test_a_region_goes_on_in_white_outside_of_the_slide(tmp_path: Path, write_slide: Any) -> None:
    pixels = np.full((200, 300, 3), (90, 40, 120), np.uint8)
    with slide.open_image(write_slide(tmp_path / "a.tif", pixels)) as image:
        region = image.region(200, 100, 200, 200)
    assert (region[:100, :100] == (90, 40, 120)).all()
    assert (region[100:] == 255).all() and (region[:, 100:] == 255).all()


def test_no_more_than_a_block_is_read_at_once(tmp_path: Path, write_slide: Any, monkeypatch: Any) -> None:
    sizes = []
    real = openslide.OpenSlide.read_region

    def spy(self: Any, location: Any, level: int, size: Any) -> Any:
        sizes.append(size)
        return real(self, location, level, size)

    monkeypatch.setattr(openslide.OpenSlide, "read_region", spy)
    pixels = np.zeros((1500, 2500, 3), np.uint8)
    with slide.open_image(write_slide(tmp_path / "a.tif", pixels)) as image:
        image.overview(16)
    assert max(max(size) for size in sizes) <= slide.BLOCK
    assert sum(w * h for w, h in sizes) == 1500 * 2500, "every pixel once"


def test_a_pyramid_is_read_at_its_best_level(tmp_path: Path, monkeypatch: Any) -> None:
    big = cv2.resize(
        np.random.default_rng(2).integers(60, 250, (16, 20, 3), dtype=np.uint8),
        (1280, 1024),
        interpolation=cv2.INTER_CUBIC,
    )
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate"}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(big, **options)
        for scale in (4, 16):
            small = cv2.resize(big, (1280 // scale, 1024 // scale), interpolation=cv2.INTER_AREA)
            file.write(small, subfiletype=1, **options)
    levels = []
    real = openslide.OpenSlide.read_region

    def spy(self: Any, location: Any, level: int, size: Any) -> Any:
        levels.append(level)
        return real(self, location, level, size)

    monkeypatch.setattr(openslide.OpenSlide, "read_region", spy)
    with slide.open_image(tmp_path / "a.tif") as image:
        overview = image.overview(32)
        region = image.region(256, 128, 512, 128)
    assert set(levels) == {1, 2}
    assert np.abs(overview - averaged(big, 32)).max() < 3
    assert np.abs(region - averaged(big[128:640, 256:768], 4)).max() < 3


def test_a_nonsense_resolution_tag_changes_nothing(noise: Any, tmp_path: Path, write_slide: Any) -> None:
    plain = write_slide(tmp_path / "a.tif", noise)
    tagged = write_slide(tmp_path / "b.tif", noise, resolution=(10, 10), resolutionunit="CENTIMETER")
    with slide.open_image(plain) as one, slide.open_image(tagged) as two:
        assert one.size == two.size
        np.testing.assert_array_equal(one.overview(8), two.overview(8))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("not a slide"), "OpenSlide"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.mkdir(), "folder"),
    ],
)
def test_what_is_no_slide_is_an_image_error_with_the_reason(
    make: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    make(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=words):
        slide.open_image(tmp_path / "a.tif")


def test_a_missing_slide_is_told_apart(tmp_path: Path) -> None:
    for name in ("none.tif", "a" * 300 + ".tif", "archive.zip/a.tif"):
        with pytest.raises(ImageError):
            slide.open_image(tmp_path / name)
    with pytest.raises(ImageMissing):
        slide.open_image(tmp_path / "none.tif")


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
def test_a_truncated_slide_is_an_image_error(
    kept: float, noise: Any, tmp_path: Path, write_slide: Any
) -> None:
    path = write_slide(tmp_path / "a.tif", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageError, match=r"a\.tif"), slide.open_image(path) as image:
        image.overview(16)
