"""Each artefact alone, on a made overview whose truth is known pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kit.read.tissue import KINDS, find
from tests.bench.clots import slide
from tests.read import pictures

OVERVIEWS = Path(__file__).parents[2] / "../shared/data/strip-ai/overviews"
WHITE, VIOLET = pictures.GLASS["white"], pictures.GLASS["violet"]


def shares(found: NDArray[np.uint8], truth: NDArray[np.uint8], kind: str) -> dict[str, float]:
    """What the pixels that are truly of one kind were called: the share of each name."""
    counts = np.bincount(found[truth == KINDS.index(kind)], minlength=len(KINDS))
    return dict(zip(KINDS, counts / counts.sum(), strict=True))


@pytest.mark.parametrize("ink", pictures.INK)
@pytest.mark.parametrize("glass", pictures.GLASS.values(), ids=pictures.GLASS)
def test_a_marker_stroke_is_pen_and_the_clot_beside_it_is_not(ink: str, glass: tuple[int, ...]) -> None:
    made = pictures.Picture(seed=1)
    made.clot(180, 240, 200, pictures.PALE_BLUE, pictures.RED)
    made.pen((400, 60), (460, 420), 11, ink)
    pixels, truth = made.on(glass)
    kinds = find(pixels).kinds
    assert shares(kinds, truth, "pen")["pen"] > 0.97
    assert shares(kinds, truth, "tissue")["pen"] == 0


def test_a_green_patch_that_touches_a_clot_is_pen_and_the_clot_is_not() -> None:
    made = pictures.Picture(seed=1)
    made.clot(250, 240, 240, pictures.FIBRIN, pictures.RED)
    pixels, truth = made.on(WHITE)
    pixels[150:330, 330:480] = 0, 170, 0
    truth[150:330, 330:480] = KINDS.index("pen")
    kinds = find(pixels).kinds
    assert shares(kinds, truth, "pen")["pen"] > 0.97
    assert shares(kinds, truth, "tissue")["pen"] < 0.01


@pytest.mark.parametrize("stain", [pictures.RED, pictures.YELLOW, pictures.VIOLET, pictures.PALE_BLUE])
def test_no_stain_of_a_clot_is_pen_even_where_it_is_folded(stain: pictures.Stain) -> None:
    made = pictures.Picture(seed=2)
    made.clot(320, 240, 300, stain, stain)
    made.fold((240, 180), (400, 300), 7)
    assert "pen" not in pictures.removed(find(made.on(WHITE)[0]).kinds)


@pytest.mark.parametrize("seed", [2, 5, 34])
def test_saturated_magenta_fibrin_is_no_red_ink(seed: int) -> None:
    made = slide(seed)
    kinds = find(made.overview).kinds[made.labels > 0]
    others = [KINDS.index(kind) for kind in ("pen", "bubble", "edge", "dust", "border")]
    assert np.isin(kinds, others).mean() < 0.005


@pytest.mark.parametrize("radius", [12, 25, 70])
def test_a_bubble_is_its_ring_and_the_glass_in_it(radius: int) -> None:
    made = pictures.Picture(seed=3)
    made.bubble(300, 200, radius, 3)
    pixels, truth = made.on(VIOLET)
    tissue = find(pixels)
    assert shares(tissue.kinds, truth, "bubble")["bubble"] > 0.97
    assert tissue.share == 0


def test_a_round_vessel_wall_and_a_hole_in_a_clot_are_no_bubbles() -> None:
    made = pictures.Picture(seed=4)
    made.clot(450, 240, 200)
    rows, columns = np.ogrid[: made.kinds.shape[0], : made.kinds.shape[1]]
    for x, least in ((150, 30), (450, 0)):
        far = np.hypot(columns / pictures.FINE - x, rows / pictures.FINE - 240)
        made.density[far < 36], made.kinds[far < 36] = pictures.RED, 1
        hole = far < (least or 25)
        made.density[hole], made.kinds[hole] = 0, 0
    pixels, truth = made.on(WHITE)
    tissue = find(pixels)
    assert "bubble" not in pictures.removed(tissue.kinds)
    assert shares(tissue.kinds, truth, "tissue")["tissue"] > 0.97


def test_a_fold_is_found_in_its_place_and_stays_true_tissue() -> None:
    made = pictures.Picture(seed=5)
    made.clot(320, 240, 360, pictures.VIOLET, pictures.VIOLET)
    made.fold((250, 170), (390, 310), 8)
    pixels, truth = made.on(WHITE)
    tissue = find(pixels)
    assert shares(tissue.kinds, truth, "fold")["fold"] > 0.6
    assert shares(tissue.kinds, truth, "tissue")["fold"] < 0.02
    assert tissue.mask[truth == KINDS.index("fold")].mean() > 0.99
    assert not (tissue.usable & (tissue.kinds == KINDS.index("fold"))).any()


@pytest.mark.parametrize("seed", range(4))
def test_patches_of_red_cells_in_fibrin_are_no_folds(seed: int) -> None:
    made = pictures.Picture(seed=seed)
    made.clot(320, 240, 320, pictures.FIBRIN, pictures.RED)
    draw = np.random.default_rng(seed)
    for x, y in draw.integers((220, 160), (420, 320), (6, 2)).tolist():
        made.clot(x, y, 24, pictures.RED, pictures.RED)
    assert pictures.removed(find(made.on(WHITE)[0]).kinds).get("fold", 0) < 0.001


def test_a_dark_clot_in_a_pale_one_is_another_stain_and_no_fold() -> None:
    made = pictures.Picture(seed=6)
    made.clot(320, 240, 320, pictures.PALE_BLUE, pictures.RED)
    assert pictures.removed(find(made.on(WHITE)[0]).kinds).get("fold", 0) < 0.001


def test_dust_hairs_edges_and_frames_are_named_and_none_is_tissue() -> None:
    made = pictures.Picture(seed=7)
    made.hair(320, 240, 80)
    made.dust(40, 2.5)
    made.edge(560)
    made.frame(9)
    pixels, truth = made.on(VIOLET)
    tissue = find(pixels)
    assert tissue.share == 0
    for kind, least in (("dust", 0.5), ("edge", 0.97), ("border", 0.97)):
        assert shares(tissue.kinds, truth, kind)[kind] > least


def test_a_region_of_few_bytes_is_out_of_focus_where_bytes_are_given() -> None:
    made = pictures.Picture(seed=8)
    made.clot(320, 240, 360)
    pixels, truth = made.on(WHITE)
    detail = np.where(truth > 0, 1.39, 0.05).astype(np.float32)
    detail[:, 320:] = np.minimum(detail[:, 320:], 0.32)
    tissue = find(pixels, detail=detail)
    blurred = tissue.kinds == KINDS.index("blur")
    assert blurred[:, 340:][truth[:, 340:] == 1].mean() > 0.7
    assert blurred[:, :300].mean() == 0
    assert tissue.share == find(pixels).share


def test_smooth_tissue_is_not_called_blurred_without_strong_evidence() -> None:
    made = pictures.Picture(seed=9)
    made.clot(320, 240, 360, pictures.FIBRIN, pictures.RED)
    pixels, _ = made.on(WHITE)
    assert "blur" not in pictures.removed(find(pixels).kinds)
    half = pixels.copy()
    half[:, 320:] = cv2.GaussianBlur(pixels, (0, 0), 12)[:, 320:]
    assert "blur" in pictures.removed(find(half).kinds)


def test_a_slide_without_colour_keeps_its_tissue() -> None:
    made = pictures.Picture(seed=10)
    made.clot(320, 60, 260, pictures.RED, pictures.FIBRIN)  # it reaches the side of the picture
    pixels, truth = made.on((240, 240, 240))
    grey = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    assert find(grey).share == pytest.approx((truth > 0).mean(), abs=0.01)


@pytest.mark.skipif(not OVERVIEWS.is_dir(), reason="../shared/data is not there")
@pytest.mark.parametrize(
    ("name", "kinds"), [("02ebd5_0", {"fold", "dust", "border"}), ("08b8ef_0", {"fold"})]
)
def test_real_overviews_have_folds_and_neither_pen_nor_bubbles(name: str, kinds: set[str]) -> None:
    pixels = np.array(Image.open(OVERVIEWS / f"{name}.png").convert("RGB"))
    reasons = pictures.removed(find(pixels).kinds)
    assert kinds <= set(reasons) and not {"pen", "bubble", "blur"} & set(reasons)
    assert 0.005 < reasons["fold"] < 0.02
