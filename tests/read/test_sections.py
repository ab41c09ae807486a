"""Repeated sections: on made slides, and on real ones where they are beside the project."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from kit.read.sections import Sections, find, main_part, same_clot, sections
from tests.bench.clots import slide
from tests.bench.sections import apart, lost, matched

Pixels = NDArray[np.uint8]
REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "strip-ai"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real slides are not in ../shared/data/strip-ai")


def picture(name: str) -> Pixels:
    """A real picture on white."""
    stored = cv2.imread(str(REAL / name), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    if stored.shape[2] == 4:
        share = stored[..., 3:] / 255
        stored = np.rint(stored[..., :3] * share + 255 * (1 - share)).astype(np.uint8)
    return np.ascontiguousarray(stored[..., ::-1])


def together(found: Sections, *places: tuple[int, int]) -> bool:
    """Whether tissue at these places (x, y) is of one clot, each a section of its own."""
    numbers = [int(found.labels[y, x]) - 1 for x, y in places]
    assert min(numbers) >= 0
    return len(set(numbers)) == len(places) and len({int(found.clot[n]) for n in numbers}) == 1


def test_on_made_slides_the_clots_are_found_and_few_are_lost() -> None:
    truth = [slide(seed) for seed in range(2000, 2004)]
    pairs = [(one.clot, matched(one, sections(one.overview))) for one in truth]
    assert np.mean([adjusted_rand_score(*pair) for pair in pairs]) >= 0.8
    assert sum(lost(*pair) for pair in pairs) <= 1


@pytest.mark.parametrize("seed", [2001, 2003])
def test_a_turned_and_shifted_slide_is_divided_alike(seed: int) -> None:
    truth = slide(seed)
    before = matched(truth, sections(truth.overview))
    glass = np.pad(truth.overview, ((40, 0), (17, 0), (0, 0)), mode="reflect")
    glass[:40], glass[:, :17] = truth.overview[0, 0], truth.overview[0, 0]
    for overview, labels in (
        (np.ascontiguousarray(np.rot90(truth.overview)), np.rot90(truth.labels)),
        (glass, np.pad(truth.labels, ((40, 0), (17, 0)))),
    ):
        after = matched(type(truth)(overview, labels, truth.clot), sections(overview))
        assert adjusted_rand_score(before, after) == 1


def test_clots_are_numbered_in_order_of_their_first_section() -> None:
    found = sections(slide(2001).overview)
    firsts = [int(np.flatnonzero(found.clot == clot)[0]) for clot in range(found.clot.max() + 1)]
    assert firsts == sorted(firsts)
    assert found.labels.dtype == np.int32 == found.clot.dtype


def test_the_same_slide_gives_the_same_answer() -> None:
    overview = slide(2002).overview
    once, again = sections(overview), sections(overview)
    assert np.array_equal(once.labels, again.labels) and np.array_equal(once.clot, again.clot)


def test_a_slide_without_tissue_has_no_sections() -> None:
    found = sections(np.full((200, 100, 3), 240, np.uint8))
    assert found.clot.shape == (0,) and not found.labels.any()
    assert found.of_tiles(np.array([0, 3200]), np.array([0, 64]), 512, 32).tolist() == [-1, -1]
    assert not same_clot(np.full((90, 90, 3), 240, np.uint8), slide(2001).overview)


@pytest.mark.parametrize("size", [(1, 800), (3, 700), (21, 800), (9, 1660), (800, 3), (1, 1)])
def test_thin_bars_and_single_pixels_are_sections_like_any_other(size: tuple[int, int]) -> None:
    mask = np.zeros((900, 1700), bool)
    mask[20 : 20 + size[0], 20 : 20 + size[1]] = True
    mask[40 : 40 + size[0], 1690 - size[1] : 1690] = True
    overview = np.where(mask[..., None], (200, 80, 150), (245, 245, 245)).astype(np.uint8)
    found = sections(overview, mask)
    assert np.array_equal(found.labels > 0, mask) and len(found.clot) == found.labels.max() >= 1


def test_scattered_pixels_along_a_line_are_sections() -> None:
    mask = np.zeros((40, 3100), bool)
    mask[10, 20:3020] = np.random.default_rng(0).random(3000) < 0.6
    mask[30, 20:3020] = np.random.default_rng(1).random(3000) < 0.6
    overview = np.where(mask[..., None], (200, 80, 150), (245, 245, 245)).astype(np.uint8)
    assert np.array_equal(sections(overview, mask).labels > 0, mask)


def test_the_main_part_of_a_section_has_its_cracked_halves_and_not_its_crumbs() -> None:
    mask = np.zeros((60, 90), bool)
    mask[10:30, 10:40] = True
    mask[10:30, 24:26] = False  # a crack
    main = mask.copy()
    mask[57, 80] = True  # a crumb
    assert np.array_equal(main_part(mask), main)


def test_crumbs_belong_to_the_nearest_section_and_no_tissue_is_left_out() -> None:
    mask = np.zeros((200, 400), bool)
    mask[50:150, 50:150] = mask[50:150, 250:350] = True
    mask[60:160:8, 165:190:8] = mask[60:160:8, 215:245:8] = True  # dozens of single pixels
    mask[100, 50:150] = False  # a crack
    labels = find(mask)
    assert labels.max() == 2
    assert np.array_equal(labels > 0, mask)
    assert set(np.unique(labels[:, :195])) == {0, 1} and set(np.unique(labels[:, 205:])) == {0, 2}


def test_hundreds_of_pieces_become_a_bounded_number_of_sections() -> None:
    mask = np.kron(np.pad(np.ones((1, 1), bool), ((0, 1), (0, 1))), np.ones((12, 12), bool))
    labels = find(np.tile(mask, (20, 20)))
    assert labels.max() == 32
    assert np.array_equal(labels > 0, np.tile(mask, (20, 20)))


def test_a_tile_has_the_section_that_covers_most_of_it_or_else_the_nearest() -> None:
    labels = np.zeros((10, 20), np.int32)
    labels[2:6, 2:6], labels[2:6, 6:12] = 1, 2
    found = Sections(labels, np.array([0, 0], np.int32))
    x, y = np.array([32 * 3, 32 * 5, 32 * 17, 0, -64]), np.array([32 * 2, 32 * 2, 32 * 7, 32 * 8, 32 * 3])
    numbers = found.of_tiles(x, y, 4 * 32, 32)
    assert numbers.tolist() == [0, 1, 1, 0, 0]
    assert numbers.dtype == np.int32


def test_the_benchmark_counts_a_clot_as_lost_where_another_takes_its_place() -> None:
    clot = np.array([0, 0, 1, 2], np.int32)
    assert lost(clot, np.array([5, 5, 5, 7], np.int32)) == 1
    assert lost(clot, np.array([0, 1, 2, 3], np.int32)) == 0
    truth = slide(2001)
    found = matched(truth, apart(truth.overview, truth.labels > 0))
    assert len(set(found.tolist())) == len(truth.clot)


@real
def test_every_large_section_of_a_real_slide_has_one_partner_in_its_other_half() -> None:
    found = sections(picture("overviews/08b8ef_0.png"))
    areas = np.bincount(found.labels.ravel())[1:]
    middle = np.array([np.nonzero(found.labels == number + 1)[0].mean() for number in range(len(areas))])
    lower = middle > found.labels.shape[0] / 2
    for number in np.flatnonzero(areas >= 0.1 * areas.max()):
        same = found.clot == found.clot[number]
        assert (same & (lower == lower[number])).sum() == 1
        assert (same & (lower != lower[number])).sum() == 1
    assert together(found, (170, 150), (185, 880))
    assert together(found, (330, 130), (330, 820))
    assert together(found, (220, 370), (265, 1070))
    assert together(found, (520, 240), (530, 890))  # red, and hangs together with another piece in one half
    assert together(found, (380, 60), (370, 735))  # small
    assert len(set(found.clot.tolist())) == 5


@real
def test_a_real_slide_without_repeated_sections_has_none() -> None:
    found = sections(picture("overviews/02ebd5_0.png"))
    assert len(set(found.clot.tolist())) == len(found.clot)


@real
def test_a_real_clot_is_the_same_when_it_is_turned_or_cut_again_and_another_is_not() -> None:
    one, turned = picture("tiles/026c97_0_0_0.tif"), picture("tiles/026c97_0_0_1.tif")
    upper, lower = picture("tiles/032f10_0_0_0.tif"), picture("tiles/032f10_0_3_0.tif")
    upper_turned, lower_turned = picture("tiles/032f10_0_0_1.tif"), picture("tiles/032f10_0_3_1.tif")
    assert same_clot(one, turned) and same_clot(turned, one)
    assert same_clot(upper, lower) and same_clot(upper, lower_turned) and same_clot(lower, upper_turned)
    assert not same_clot(one, upper) and not same_clot(lower, one) and not same_clot(turned, upper_turned)


@real
def test_a_real_slide_in_four_crops_has_two_sections_of_one_clot() -> None:
    crops = [picture(f"tiles/032f10_0_{row}_0.tif") for row in range(4)]
    assert sections(np.vstack(crops)).clot.tolist() == [0, 0]


@real
def test_four_times_the_same_real_clot_is_four_sections_of_one_clot() -> None:
    one, turned = picture("tiles/026c97_0_0_0.tif"), picture("tiles/026c97_0_0_1.tif")
    mosaic = np.vstack([np.hstack([one, turned]), np.hstack([np.rot90(one, 2), np.rot90(turned, 2)])])
    found = sections(mosaic)
    assert found.clot.tolist() == [0, 0, 0, 0]
