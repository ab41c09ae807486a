"""Blank tiles by their byte counts: no tissue is passed over, however pale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from kit.competition import TileGrid
from kit.read import background, slide
from kit.read.indexed import IndexedSlide

WIDTH, HEIGHT = 2000, 1500
FORMATS: dict[str, dict[str, Any]] = {
    "deflate": {"compression": "deflate", "predictor": 2, "photometric": "rgb"},
    "plain": {"compression": "deflate", "photometric": "rgb"},
    "lzw": {"compression": "lzw", "predictor": 2, "photometric": "rgb"},
    "jpeg": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)},
}


def blobs(rng: np.random.Generator, count: int, blur: float = 0) -> Any:
    """Ellipses: how much of each pixel is tissue, float32 (HEIGHT, WIDTH)."""
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    for _ in range(count):
        centre = (int(rng.uniform(0, WIDTH)), int(rng.uniform(0, HEIGHT)))
        axes = (int(rng.uniform(60, 350)), int(rng.uniform(60, 300)))
        cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, 1, -1)
    if not blur:
        return mask
    small = cv2.resize(mask, (WIDTH // 8, HEIGHT // 8), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), blur / 8), (WIDTH, HEIGHT))


def scene(seed: int, glass: Any = (255, 241, 255), noise: float = 0.0, pale: float = 8.0) -> tuple[Any, Any]:
    """Stained tissue and pale, blurred tissue on glass; and where either is."""
    rng = np.random.default_rng(seed)
    pixels = np.broadcast_to(np.asarray(glass, np.float32), (HEIGHT, WIDTH, 3)).copy()
    fibrin = blobs(rng, 3, blur=float(rng.choice([10, 60, 150])))
    soft = cv2.resize(rng.normal(0, rng.choice([0, 1]), (24, 32)).astype(np.float32), (WIDTH, HEIGHT))
    pixels -= (fibrin * (pale + soft))[..., None]
    stained = blobs(rng, 2) > 0
    texture = cv2.resize(rng.normal(0, 15, (HEIGHT // 8, WIDTH // 8)).astype(np.float32), (WIDTH, HEIGHT))
    pixels[stained] = np.array((205, 120, 165)) + texture[stained][:, None]
    if noise:
        pixels += rng.normal(0, noise, pixels.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), stained | (fibrin * pale > 3)


def opened(path: Path, skip: bool = True) -> IndexedSlide:
    found = slide.open_image(path, TileGrid(skip=skip))
    assert isinstance(found, IndexedSlide)
    return found


def looked(path: Path, pixels: Any, truth: Any, kind: str = "deflate", **options: Any) -> tuple[int, float]:
    """The largest difference that passing over tiles makes in tissue; and the share passed over."""
    tifffile.imwrite(path, pixels, **{"tile": (128, 128), **FORMATS[kind], **options})
    with opened(path) as one, opened(path, skip=False) as two:
        quick, whole = one.overview(32), two.overview(32)
        blank = one._blank[0]
    size = (quick.shape[1], quick.shape[0])
    shown = cv2.resize(truth.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    away = cv2.absdiff(quick, whole).max(axis=2)
    return int(away[shown].max(initial=0)), 0.0 if blank is None else float(blank.mean())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_no_tissue_is_passed_over_on_exact_glass(kind: str, seed: int, tmp_path: Path) -> None:
    pixels, truth = scene(seed, pale=(8, 12, 15)[seed])
    away, _ = looked(tmp_path / "a.tif", pixels, truth, kind)
    assert away <= 3


@pytest.mark.parametrize("kind", ["deflate", "jpeg"])
@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_no_tissue_is_passed_over_on_noisy_glass(kind: str, noise: float, tmp_path: Path) -> None:
    pixels, truth = scene(7, glass=(234, 216, 250), noise=noise)
    assert looked(tmp_path / "a.tif", pixels, truth, kind)[0] <= 3


@pytest.mark.parametrize("kind", ["deflate", "lzw"])
def test_one_pale_spot_in_the_noise_of_the_glass_is_not_passed_over(kind: str, tmp_path: Path) -> None:
    """Its tiles take the bytes of glass, and a sample of tiles is unlikely to hold one."""
    noise = np.random.default_rng(0).integers(-1, 2, (3000, 4000, 1), dtype=np.int16)
    spot = cv2.circle(np.zeros((3000, 4000), np.float32), (1700, 1230), 140, 1, -1)
    spot = cv2.blur(spot, (60, 60))
    pixels = np.clip(240 + noise - np.rint(spot * 10)[..., None], 0, 255).astype(np.uint8).repeat(3, axis=2)
    assert looked(tmp_path / "a.tif", pixels, spot > 0.3, kind) == (0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_no_tissue_is_passed_over_on_many_slides(kind: str, tmp_path: Path) -> None:
    for seed in range(20, 60):
        noise = (0.0, 0.0, 0.0, 0.3, 2.0)[seed % 5]
        pixels, truth = scene(seed, noise=noise, pale=8 + seed % 8)
        tile = (64, 128, 256)[seed % 3]
        away, _ = looked(tmp_path / "a.tif", pixels, truth, kind, tile=(tile, tile))
        assert away <= 5, seed


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("glass", [(255, 255, 255), (196, 211, 192)])
def test_blank_glass_is_passed_over(kind: str, glass: Any, tmp_path: Path) -> None:
    """What the whole thing is for; stained tissue alone, so that most tiles are blank."""
    pixels, truth = scene(3, glass=glass, pale=0)
    away, skipped = looked(tmp_path / "a.tif", pixels, truth, kind)
    assert away <= 3 and skipped > 0.3


@pytest.mark.parametrize("kind", FORMATS)
def test_a_slide_full_of_tissue_is_decoded_whole(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.normal(0, 20, (HEIGHT // 6, WIDTH // 6, 3)), (WIDTH, HEIGHT))
    pixels = np.clip(texture + np.array((190, 120, 160)), 0, 255).astype(np.uint8)
    away, skipped = looked(tmp_path / "a.tif", pixels, np.ones((HEIGHT, WIDTH)), kind)
    assert (away, skipped) == (0, 0.0)


@pytest.mark.parametrize("across", [1024, 1000])
def test_two_colours_of_glass_are_told_apart(across: int, tmp_path: Path) -> None:
    """Half of the slide white and half grey, whether the seam lies between tiles or not."""
    pixels, truth = scene(4, glass=(255, 255, 255), pale=0)
    grey, other = scene(4, glass=(225, 225, 225), pale=0)
    pixels[:, across:], truth[:, across:] = grey[:, across:], other[:, across:]
    looked(tmp_path / "a.tif", pixels, truth)
    with opened(tmp_path / "a.tif") as one, opened(tmp_path / "a.tif", skip=False) as two:
        assert cv2.absdiff(one.overview(32), two.overview(32)).max() <= 3


def test_pale_tissue_of_one_colour_takes_the_bytes_of_glass_and_is_not_passed_over(tmp_path: Path) -> None:
    """A plateau that is 8 grey levels darker than the glass: its tiles take exactly as many bytes."""
    pixels = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(truth, (900, 700), (600, 480), 20, 0, 360, 1, -1)
    pixels[truth > 0] = 242
    away, skipped = looked(tmp_path / "a.tif", pixels, truth)
    assert away == 0 and skipped > 0.2


def test_black_frames_do_not_take_tissue_with_them(tmp_path: Path) -> None:
    pixels, truth = scene(5, pale=10)
    for edge in (pixels[:130], pixels[-200:], pixels[:, :300]):
        edge[...] = 0
    truth[:130], truth[-200:], truth[:, :300] = False, False, False
    assert looked(tmp_path / "a.tif", pixels, truth)[0] <= 3


def test_equal_byte_counts_tell_nothing(tmp_path: Path) -> None:
    pixels, truth = scene(6)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(128, 128), photometric="rgb")
    with opened(tmp_path / "a.tif") as image:
        assert image._blank[0] is None and image.detail(32) is None
        assert not background.blank_tiles(image._index.levels[0]).any()
        assert truth.any()


def test_tiles_without_bytes_are_blank(tmp_path: Path) -> None:
    pixels, truth = scene(8, pale=0)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(128, 128), **FORMATS["deflate"])
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        tag = file.pages[0].tags["TileByteCounts"]
        corners = [(y, x) for y in range(0, HEIGHT, 128) for x in range(0, WIDTH, 128)]
        shows = [truth[y : y + 128, x : x + 128].any() for y, x in corners]
        tag.overwrite([count * bool(show) for count, show in zip(tag.value, shows, strict=True)])
    with opened(tmp_path / "a.tif") as one, opened(tmp_path / "a.tif", skip=False) as two:
        assert (two._index.levels[0].counts == 0).any()
        shown = cv2.resize(truth.astype(np.float32), (63, 47), interpolation=cv2.INTER_AREA) > 0
        away = cv2.absdiff(one.overview(32), two.overview(32)).max(axis=2)
        assert away[shown].max() <= 3


def test_detail_is_highest_where_bytes_are(tmp_path: Path) -> None:
    pixels, truth = scene(3, pale=0)
    looked(tmp_path / "a.tif", pixels, truth)
    with opened(tmp_path / "a.tif") as image:
        detail = image.detail(32)
        assert detail is not None and detail.shape == image.overview(32).shape[:2]
    shown = cv2.resize(truth.astype(np.float32), detail.shape[::-1], interpolation=cv2.INTER_AREA)
    assert detail[shown > 0.99].mean() > 10 * np.median(detail)
