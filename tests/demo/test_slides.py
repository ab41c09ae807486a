"""One made slide: what is drawn, and the file that holds it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from scipy import ndimage

from kit import seeds
from kit.demo.slides import (
    INSIDE,
    TILE,
    Painter,
    SlidePlan,
    draw_clot,
    draw_layers,
    write_slide,
)
from kit.demo.textures import PERIOD, Textures, textures

GREEN = (196, 211, 192)


@pytest.fixture(scope="module")
def tissues() -> Textures:
    return textures(0)


def plan(image_id: str = "a00000_0", **fields: Any) -> SlidePlan:
    settings: dict[str, Any] = {"width": 700, "height": 1100, "background": GREEN, "share": 0.4}
    settings |= {"stain": (1.0, 1.0, 1.0)} | fields
    return SlidePlan(image_id, "train", **settings)


def read(path: Path) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]


@pytest.mark.parametrize("share", [0.08, 0.37, 0.5, 0.92])
def test_the_red_part_of_a_clot_is_the_asked_share_to_the_cell(share: float) -> None:
    for number in range(5):
        tissue, red = draw_clot(seeds.rng(number, "clot"), 90, share)
        cells = int((tissue >= INSIDE).sum())
        assert ((red >= INSIDE) & (tissue >= INSIDE)).sum() == round(share * cells)


def test_a_clot_is_one_piece_that_does_not_touch_its_box() -> None:
    for number in range(10):
        tissue, _ = draw_clot(seeds.rng(number, "clot"), 60, 0.5)
        assert ndimage.label(tissue > 0)[1] == 1
        assert 0.2 < (tissue >= INSIDE).mean() <= 0.5
        assert not tissue[[0, -1]].any()
        assert not tissue[:, [0, -1]].any()


def test_every_section_on_a_slide_has_the_planned_share() -> None:
    for number in range(20):
        for _, share in sections(plan(f"a{number:05d}_0")):
            assert share == pytest.approx(0.4, abs=0.01)


def test_about_four_slides_in_ten_hold_the_same_clot_more_than_once() -> None:
    repeated = 0
    for number in range(150):
        found = sections(plan(f"a{number:05d}_0"))
        repeated += len(set(found)) < len(found)
    assert 0.28 < repeated / 150 < 0.52


def sections(of: SlidePlan) -> list[tuple[int, float]]:
    """Cells and red share of each piece of tissue: equal for the sections of one clot."""
    layers = draw_layers(0, of)
    pieces, count = ndimage.label(layers.tissue > 0)
    masks = [(pieces == number) & (layers.tissue >= INSIDE) for number in range(1, count + 1)]
    return [(int(mask.sum()), float((layers.red[mask] >= INSIDE).mean())) for mask in masks]


def test_tissue_covers_about_an_eighth_of_a_slide() -> None:
    plans = [plan(f"a{number:05d}_0", width=1600, height=3000) for number in range(60)]
    cells = 1600 * 3000 / 64
    covered = [float((draw_layers(0, one).tissue >= INSIDE).sum()) / cells for one in plans]
    assert 0.10 < np.median(covered) < 0.16
    assert min(covered) > 0.02
    assert max(covered) < 0.28


def test_two_readers_see_the_same_pixels(tmp_path: Path, tissues: Textures) -> None:
    path = tmp_path / "slide.tif"
    write_slide(path, 0, plan(), tissues)
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (700, 1100)
        assert slide.level_count == 1
    assert np.array_equal(read(path), tifffile.imread(path))


def test_the_file_is_laid_out_like_the_real_ones(tmp_path: Path, tissues: Textures) -> None:
    path = tmp_path / "slide.tif"
    write_slide(path, 0, plan(), tissues)
    with tifffile.TiffFile(path) as tiff:
        (page,) = tiff.pages
        assert (page.tilewidth, page.tilelength) == (TILE, TILE)
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.predictor == tifffile.PREDICTOR.HORIZONTAL
        assert page.get_resolution("centimeter") == (10, 10)
        assert not {"ImageDescription", "DateTime", "Software"} & {tag.name for tag in page.tags}


def test_the_same_plan_gives_the_same_bytes_and_another_seed_others(
    tmp_path: Path, tissues: Textures
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_slide(tmp_path / name, seed, plan(), tissues)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again != other


def test_what_is_drawn_of_a_tile_does_not_depend_on_its_neighbours(tissues: Textures) -> None:
    one = plan(share=0.5, width=1400)
    painter = Painter(one, draw_layers(0, one), tissues)
    rows, columns = painter.layers.touched.shape
    for row in range(rows):
        tiles = [painter.strip(row, column, column + 1) for column in range(columns)]
        assert np.array_equal(painter.strip(row, 0, columns), np.hstack(tiles))


def test_tiles_that_nothing_touches_are_pure_background(tissues: Textures) -> None:
    one = plan(width=1400, height=2000)
    painter = Painter(one, draw_layers(0, one), tissues)
    blank = np.argwhere(~painter.layers.touched).tolist()
    assert blank
    for row, column in blank:
        assert (painter.strip(row, column, column + 1) == GREEN).all()


@pytest.mark.parametrize("share", [0.1, 0.35, 0.65, 0.9])
def test_the_pixels_show_the_planned_share(tmp_path: Path, tissues: Textures, share: float) -> None:
    one = plan(share=share, width=1200, height=2000)
    write_slide(tmp_path / "slide.tif", 0, one, tissues)
    tissue = draw_layers(0, one).tissue[1:-1, 1:-1]
    inside = cv2.resize(tissue, None, fx=8, fy=8)[: one.height, : one.width] >= INSIDE
    red, green, blue = np.moveaxis(read(tmp_path / "slide.tif")[inside].astype(int), -1, 0)
    # Fibres are pale and nuclei are blue.
    assert np.mean((green < 130) & (red > blue)) == pytest.approx(share, abs=0.04)


def test_the_background_has_its_colour_with_a_little_dust(tmp_path: Path, tissues: Textures) -> None:
    write_slide(tmp_path / "slide.tif", 0, plan(kind="blank"), tissues)
    dust = (read(tmp_path / "slide.tif") != GREEN).any(axis=-1)
    assert 0 < dust.mean() < 0.02


def test_a_blank_slide_has_no_tissue() -> None:
    assert not draw_layers(0, plan(kind="blank")).tissue.any()


def test_a_truncated_slide_has_a_whole_header_but_cannot_be_read(tmp_path: Path, tissues: Textures) -> None:
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    write_slide(whole, 0, plan(), tissues)
    write_slide(cut, 0, plan(kind="truncated"), tissues)
    assert cut.read_bytes() == whole.read_bytes()[: int(0.4 * whole.stat().st_size)]
    with tifffile.TiffFile(cut) as tiff:
        assert tiff.pages[0].shape == (1100, 700, 3)
    # A small slide is hashed when it is opened, a large one fails when a lost tile is read.
    with pytest.raises(openslide.OpenSlideError):
        read(cut)


def test_a_stain_changes_the_tissue_and_not_the_background(tissues: Textures) -> None:
    one = plan()
    layers = draw_layers(0, one)
    row = int(np.argmax(layers.touched.any(axis=1))) + 1
    plain, dark = (
        Painter(plan(stain=stain), layers, tissues).strip(row, 0, layers.touched.shape[1])
        for stain in ((1.0, 1.0, 1.0), (0.8, 0.8, 0.8))
    )
    assert (dark[plain != dark] < plain[plain != dark]).all()
    assert (plain != dark).any()
    assert ((plain == GREEN).all(axis=-1) == (dark == GREEN).all(axis=-1)).mean() > 0.99


def test_the_textures_repeat_without_a_seam(tissues: Textures) -> None:
    assert PERIOD % TILE == 0
    for texture in (tissues.red, tissues.fibrin):
        steps = np.abs(np.diff(texture.astype(int), axis=1, append=texture[:, :1])).mean(axis=(0, 2))
        assert steps[-1] < 1.3 * steps[:-1].max()


def test_memory_does_not_grow_to_the_size_of_the_slide(tmp_path: Path, tissues: Textures) -> None:
    one = plan(width=5000, height=6000)  # 90 MB of pixels
    tracemalloc.start()
    write_slide(tmp_path / "slide.tif", 0, one, tissues)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
