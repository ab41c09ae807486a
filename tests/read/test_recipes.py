"""The recipes that make a bag of a slide, on slides held in memory."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kit.competition import TileGrid
from kit.read import recipes
from kit.read.reader import resized
from kit.read.recipes import RECIPES, Cut, Findings

STRIP_AI = Path(__file__).parents[2] / "../shared/data/strip-ai"
VIOLET = np.array((234, 216, 254), np.uint8)
PINK = np.array((205, 110, 165), np.uint8)
Pixels = NDArray[np.uint8]


@dataclass
class Canvas:
    """A slide whose pixels are an array; it remembers what it was asked for."""

    pixels: Pixels
    mpp: float | None = None
    largest: int = 0  # square
    finest: int = 1000  # factor of an overview

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    def overview(self, factor: int) -> Pixels:
        self.finest = min(self.finest, factor)
        height, width = (-(-length // factor) for length in self.pixels.shape[:2])
        return resized(self.pixels, width, height)

    def region(self, x: int, y: int, size: int, out: int) -> Pixels:
        self.largest = max(self.largest, size)
        whole = np.full((size, size, 3), 255, np.uint8)
        part = self.pixels[y : y + size, x : x + size]
        whole[: part.shape[0], : part.shape[1]] = part
        return resized(whole, out, out)


class Sections:
    """Sections whose tiles are told by the label in their middle."""

    def __init__(self, labels: NDArray[np.int32], clot: list[int]) -> None:
        self.labels, self.clot = labels, np.array(clot, np.int32)

    def of_tiles(self, x: Any, y: Any, side: int, factor: int) -> NDArray[np.int32]:
        rows, columns = (((start + side // 2) // factor) for start in (y, x))
        return np.maximum(self.labels[rows, columns] - 1, 0)


BOXES = ((100, 100, 500, 300), (100, 700, 500, 260), (1000, 200, 200, 600))  # x, y, width, height


def slide(factor: int = 20) -> tuple[Canvas, Any]:
    """Three sections on violet glass; the first two, of which one is smaller, are of one clot."""
    pixels = np.full((1200, 1600, 3), VIOLET, np.uint8)
    labels = np.zeros((1200, 1600), np.int32)
    texture = np.random.default_rng(0).normal(0, 12, (1200, 1600, 1))
    for number, (x, y, width, height) in enumerate(BOXES, 1):
        part = (slice(y, y + height), slice(x, x + width))
        pixels[part] = np.clip(PINK * (VIOLET / 255.0) + texture[part], 0, 255)
        labels[part] = number
    image = Canvas(pixels)
    small = np.ascontiguousarray(labels[::factor, ::factor])
    tissue: Any = SimpleNamespace(background=VIOLET, usable=small > 0, mask=small > 0)
    sections: Any = Sections(small, [0, 0, 1])
    return image, Findings(image.overview(factor), factor, tissue, sections)


def bag(name: str, image: Any, found: Any, **settings: Any) -> list[tuple[Cut, Pixels]]:
    wanted = TileGrid(**{"recipe": name, "size": 64, "scale": 2.0, **settings})
    return list(RECIPES[name](image, found, wanted, np.random.default_rng(0)))


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_yields_tiles_of_one_size_that_lie_on_the_slide(name: str) -> None:
    image, found = slide()
    cuts = bag(name, image, found)
    assert cuts
    for cut, tile in cuts:
        assert tile.shape == (64, 64, 3) and tile.dtype == np.uint8
        assert min(cut.x, cut.y) >= 0 and cut.x + cut.width <= 1600 and cut.y + cut.height <= 1200
        assert 0 < cut.tissue <= 1 and cut.side == max(cut.width, cut.height)
    again = bag(name, image, found)
    assert [cut for cut, _ in again] == [cut for cut, _ in cuts]
    assert all((a == b).all() for (_, a), (_, b) in zip(cuts, again, strict=True))


def test_grid_tiles_know_their_section_and_clot_and_share() -> None:
    image, found = slide()
    cuts = [cut for cut, _ in bag("grid", image, found, count=0, min_tissue=0.6)]
    assert {(cut.section, cut.clot) for cut in cuts} == {(0, 0), (1, 0), (2, 1)}
    for cut in cuts:
        x, y, width, height = BOXES[cut.section]
        assert x - 64 <= cut.x < x + width and y - 64 <= cut.y < y + height
        assert cut.tissue >= 0.6 and cut.side == 128
    unknown = replace(found, sections=None)
    assert {(cut.section, cut.clot) for cut, _ in bag("grid", image, unknown)} == {(0, 0)}


def test_a_flat_square_is_passed_over_and_the_next_best_taken() -> None:
    image, found = slide()
    x, y, width, height = BOXES[0]
    image.pixels[y : y + height, x : x + width] = PINK  # without texture
    all_cuts = [cut for cut, _ in bag("grid", image, found, count=0, min_tissue=0.9)]
    wanted = [cut for cut in all_cuts if cut.section != 0][:4]
    kept = bag("grid", image, found, count=4, min_tissue=0.9, contrast=2)
    assert [cut for cut, _ in kept] == wanted and all_cuts[:4] != wanted


def test_what_a_square_has_outside_of_a_small_slide_gets_the_colour_of_its_glass() -> None:
    tile = recipes.square(Canvas(np.full((50, 30, 3), PINK, np.uint8)), 0, 0, 100, 20, VIOLET)  # type: ignore[arg-type]
    np.testing.assert_array_equal(tile[:10, :6], np.broadcast_to(PINK, (10, 6, 3)))
    np.testing.assert_array_equal(tile[10:], np.broadcast_to(VIOLET, (10, 20, 3)))
    np.testing.assert_array_equal(tile[:, 6:], np.broadcast_to(VIOLET, (20, 14, 3)))


def test_micrometres_use_what_the_slide_says() -> None:
    image, found = slide()
    image.mpp = 0.5
    assert {cut.side for cut, _ in bag("grid", image, found, mpp=1.0)} == {128}


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ((10536, 8268), 1),
        ((6600, 28652), 4),
        ((28652, 6600), 4),
        ((1000, 1600), 2),
        ((1, 7), 7),
        ((1, 2**20), 64),
    ],
)
def test_the_pieces_of_a_slide_cover_it_once_along_its_longer_side(size: tuple[int, int], count: int) -> None:
    boxes = recipes.by_aspect(size)
    assert len(boxes) == count
    along, across = (0, 1) if size[0] > size[1] else (1, 0)
    assert {(box[across], box[2 + across]) for box in boxes} == {(0, size[across])}
    ends = [box[along] + box[2 + along] for box in boxes]
    assert [box[along] for box in boxes] == [0, *ends[:-1]] and ends[-1] == size[along]
    lengths = [box[2 + along] for box in boxes]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.skipif(not STRIP_AI.is_dir(), reason="../shared/data is not there")
def test_two_real_slides_give_as_many_pieces_as_were_published() -> None:
    rows = [line.split(",") for line in (STRIP_AI / "slide_sizes_train.csv").read_text().splitlines()[1:]]
    sizes = {name: (int(width), int(height)) for name, width, height in rows}
    for name in ("026c97_0", "032f10_0"):
        published = len(list((STRIP_AI / "tiles").glob(f"{name}_*_0.tif")))
        assert len(recipes.by_aspect(sizes[name])) == published > 0


def test_pieces_in_order_are_what_a_resized_crop_shows_and_empty_ones_are_dropped() -> None:
    pixels = np.full((3000, 1000, 3), VIOLET, np.uint8)
    pixels[2100:2900, 200:600] = PINK
    pixels[100:400, 200:600] = 0.9 * PINK
    image = Canvas(pixels)
    overview = image.overview(20)
    tissue: Any = SimpleNamespace(background=VIOLET, usable=overview[..., 0] < 220)
    found = Findings(overview, 20, tissue, None)
    (first, upper), (second, lower) = bag("by-aspect", image, found)
    assert (first.y, second.y) == (0, 2000) and first.height == second.height == 1000
    for cut, tile in ((first, upper), (second, lower)):
        expected = resized(pixels[cut.y : cut.y + 1000], 64, 64)
        assert np.abs(tile.astype(int) - expected).mean() < 2
    ((best, _),) = bag("by-aspect", image, found, count=1)
    assert best.y == 2000, "the one with most tissue"
    assert (image.largest, image.finest) == (0, 8), "one overview of twice the pixels or less is read"
    image.finest = 1000
    for cut, tile in bag("by-aspect", image, found, size=30):
        expected = resized(pixels[cut.y : cut.y + 1000], 30, 30)
        assert np.abs(tile.astype(int) - expected).mean() < 2
    assert image.finest == 1000, "none where that of the tissue is fine enough"


def test_pieces_are_read_one_by_one_where_their_overview_would_be_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, found = slide()
    whole = bag("by-aspect", image, found, size=512)
    assert image.finest < 20 and image.largest == 0
    monkeypatch.setattr(recipes, "WHOLE", 1_000_000)
    image.finest = 1000
    parts = bag("by-aspect", image, found, size=512)
    assert image.finest == 1000 and 0 < image.largest <= recipes.BLOCK
    assert [cut for cut, _ in parts] == [cut for cut, _ in whole]
    for (_, tile), (_, expected) in zip(parts, whole, strict=True):
        assert np.abs(tile.astype(int) - expected).mean() < 1


def test_a_roi_of_low_contrast_is_passed_over_and_the_next_clot_taken() -> None:
    image, found = slide()
    found.sections.clot[:] = 0, 1, 2
    cuts = [cut for cut, _ in bag("roi", image, found)]
    first = cuts[0]
    image.pixels[first.y : first.y + first.height, first.x : first.x + first.width] = VIOLET
    found = replace(found, overview=image.overview(20))
    assert [cut for cut, _ in bag("roi", image, found, count=2, contrast=2)] == cuts[1:]


def test_a_piece_of_low_contrast_is_passed_over_and_the_next_one_taken() -> None:
    image, found = slide()
    image.pixels = np.hstack([image.pixels] * 3)
    image.pixels[:, 3200:] = PINK
    usable = found.tissue.usable
    found.tissue.usable = np.hstack([usable, usable, usable | True])
    found = replace(found, overview=image.overview(20), sections=None)
    kept = [cut for cut, _ in bag("by-aspect", image, found, count=2)]
    assert [cut.x for cut in kept] == [2400, 0], "most tissue first"


def test_a_square_inside_of_the_slide_is_what_the_reader_returned() -> None:
    image = Canvas(np.full((200, 200, 3), PINK, np.uint8))
    kept = np.full((20, 20, 3), PINK, np.uint8)
    kept.flags.writeable = False
    image.region = lambda *_: kept  # type: ignore[method-assign,assignment]
    assert recipes.square(image, 0, 0, 100, 20, VIOLET) is kept  # type: ignore[arg-type]
    assert (recipes.square(image, 150, 0, 100, 20, VIOLET)[:, 10:] == VIOLET).all()  # type: ignore[arg-type]


def test_a_roi_is_cut_from_the_overview_where_that_is_fine_enough() -> None:
    image, found = slide(factor=4)
    cuts = bag("roi", image, found)
    assert image.largest == 0
    finer = bag("roi", image, found, size=256)
    assert image.largest > 0 and len(cuts) == len(finer)


def test_roi_has_one_section_a_clot_the_one_with_the_most_usable_tissue() -> None:
    image, found = slide()
    cuts = [cut for cut, _ in bag("roi", image, found)]
    assert [(cut.section, cut.clot) for cut in cuts] == [(0, 0), (2, 1)]
    found.tissue.usable[:20] &= np.arange(80) % 2 == 0  # half of the first section is spoiled
    assert [(cut.section, cut.clot) for cut, _ in bag("roi", image, found)] == [(1, 0), (2, 1)]
    assert len(bag("roi", image, found, count=1)) == 1


def test_of_equal_sections_the_first_is_the_roi() -> None:
    labels = np.kron(np.eye(4, dtype=np.int32), np.ones((10, 10), np.int32)) * np.arange(1, 5).repeat(10)
    cuts = recipes.roi_cuts(labels, np.array([1, 0, 0, 1], np.int32), labels > 0, 1, (40, 40))
    assert [(cut.section, cut.clot) for cut in cuts] == [(0, 1), (1, 0)]


def test_a_crumb_beyond_another_section_does_not_widen_the_roi_and_a_crack_does_not_part_it() -> None:
    labels = np.zeros((60, 90), np.int32)
    labels[10:30, 10:40] = 1
    labels[10:30, 24:26] = 0  # a crack
    labels[40:55, 10:40] = 2
    labels[57, 80] = 1  # a crumb
    first, second = recipes.roi_cuts(labels, np.array([0, 1], np.int32), labels > 0, 1, (90, 60))
    assert first == Cut(8, 8, 34, 24, pytest.approx(0.69, abs=0.02), 0, 0)
    assert second.section == 1


def test_a_roi_keeps_its_shape_on_white_and_reads_in_blocks() -> None:
    image, found = slide()
    tall = np.repeat(np.repeat(image.pixels, 3, axis=0), 3, axis=1)
    big = Canvas(tall)
    cuts = bag("roi", big, replace(found, factor=60))
    x, y, width, height = (3 * value for value in BOXES[2])
    (cut, tile) = cuts[1]
    assert cut.x < x and cut.y < y and cut.x + cut.width > x + width and cut.y + cut.height > y + height
    assert cut.width < 1.4 * width and cut.height < 1.2 * height
    dark = (tile < 240).all(axis=2)
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(height / width, rel=0.15)
    np.testing.assert_array_equal(tile[~cv2.dilate(dark.astype(np.uint8), np.ones((5, 5))).astype(bool)], 255)
    assert big.largest <= recipes.BLOCK


def test_the_roi_of_an_overview_is_that_of_the_slide_in_small() -> None:
    image, found = slide()
    sections = found.sections
    arrays = (found.overview, sections.labels, sections.clot, found.tissue.usable, VIOLET)
    small = recipes.roi(*arrays, 64)
    assert small.shape == (2, 64, 64, 3) and small.dtype == np.uint8
    for picture, (_, tile) in zip(small, bag("roi", image, found), strict=True):
        assert np.abs(cv2.blur(picture, (9, 9)).astype(int) - cv2.blur(tile, (9, 9))).mean() < 8
    empty = (found.overview, 0 * sections.labels, sections.clot[:0], found.tissue.usable, VIOLET)
    assert recipes.roi(*empty, 64).shape == (0, 64, 64, 3)


@pytest.mark.parametrize("factor", [1, 3, 8])
def test_a_rectangle_read_in_blocks_is_the_average_of_its_pixels(factor: int) -> None:
    image, _ = slide()
    cut = Cut(16, 24, 1536 if factor != 3 else 1500, 1152 if factor != 3 else 1002)
    found = recipes.rectangle(image, cut, factor)  # type: ignore[arg-type]
    part = image.pixels[24 : 24 + cut.height, 16 : 16 + cut.width]
    blocks = part.reshape(cut.height // factor, factor, cut.width // factor, factor, 3).mean(axis=(1, 3))
    assert np.abs(found - blocks).max() <= 1


def test_the_seed_overview_is_grey_blurred_and_at_five_per_cent() -> None:
    image, found = slide()
    picture = recipes.seed_overview(image)  # type: ignore[arg-type]
    assert picture.shape == (60, 80, 1) and picture.dtype == np.float32
    grey = image.overview(20).astype(float) @ (0.299, 0.587, 0.114) / 255
    weights = np.array((1, 4, 6, 4, 1)) / 16  # OpenCV's kernel of five where no sigma is given
    expected = sum(
        a * b * np.pad(grey, 2, mode="reflect")[i : i + 60, j : j + 80]
        for (i, a), (j, b) in itertools.product(enumerate(weights), repeat=2)
    )
    np.testing.assert_allclose(picture[..., 0], expected, atol=0.003)
    ((cut, tile),) = bag("seed-overview", image, found)
    assert cut == Cut(0, 0, 1600, 1200, pytest.approx(found.tissue.usable.mean()))
    assert (tile[..., 0] == tile[..., 1]).all() and (tile[..., 0] == tile[..., 2]).all()
    assert tile.mean() == pytest.approx(picture.mean() * 255, abs=1)


@pytest.mark.parametrize("name", ["grid", "by-aspect", "roi", "seed-overview"])
def test_colour_is_normalised_where_it_is_asked_for(name: str) -> None:
    image, found = slide()
    plain, whitened = (bag(name, image, found, colour=colour) for colour in ("none", "background"))
    for (cut, before), (same, after) in zip(plain, whitened, strict=True):
        assert cut == same
        if name == "roi":
            np.testing.assert_array_equal(before, after)
        else:
            assert before.max() < 255 and after.mean() > before.mean()


def test_a_slide_without_tissue_gives_no_squares_no_roi_and_no_pieces() -> None:
    image, _ = slide()
    image.pixels[:] = VIOLET
    nothing = np.zeros((60, 80), np.int32)
    tissue: Any = SimpleNamespace(background=VIOLET, usable=nothing > 0, mask=nothing > 0)
    sections: Any = Sections(nothing, [])
    for blank in (Findings(image.overview(20), 20, tissue, s) for s in (sections, None)):
        assert [len(bag(name, image, blank)) for name in RECIPES] == [0, 0, 0, 1]


def test_given_squares_are_cut_all_and_in_their_order() -> None:
    image, found = slide()
    recipe = recipes.given(np.array([1000, 0]), np.array([260, 0]), 160)
    cuts = list(recipe(image, found, TileGrid(size=16), np.random.default_rng(0)))
    assert [cut for cut, _ in cuts] == [
        Cut(1000, 260, 160, 160, 1.0, 2, 1),
        Cut(0, 0, 160, 160, 9 / 64, 0, 0),
    ]
    np.testing.assert_array_equal(cuts[1][1][:8, :8], np.broadcast_to(VIOLET, (8, 8, 3)))
