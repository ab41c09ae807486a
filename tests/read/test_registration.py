"""Two pieces of tissue laid on each other."""

from __future__ import annotations

import itertools
import tracemalloc

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kit.read.registration import Piece, Template, piece

Pixels = NDArray[np.uint8]
GLASS = np.array((250, 240, 250), np.uint8)


def clot(seed: int, side: int = 160) -> Pixels:
    """An egg of patches of two dyes on glass."""
    rng = np.random.default_rng(seed)
    patches = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), 7) > 0
    y, x = np.mgrid[:side, :side] / side - 0.5
    inside = (x / 0.4) ** 2 + (y / (0.22 + 0.2 * x)) ** 2 < 1
    dyes = np.where(patches[..., None], (0.05, 0.3, 0.1), (0.1, 0.5, 0.6)) * inside[..., None]
    return np.rint(GLASS * 10**-dyes).astype(np.uint8)


def of(pixels: Pixels, strength: float = 1.0) -> Piece:
    """The piece of a picture, stained more or less strongly."""
    stained = np.rint(GLASS * (pixels / GLASS) ** strength).astype(np.uint8)
    return piece(stained, (pixels < GLASS).any(2), GLASS)


def turned(pixels: Pixels, angle: float, x: float = 0, y: float = 0) -> Pixels:
    """Turned by an angle in degrees about the middle, then shifted."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1) + np.array([[0, 0, x], [0, 0, y]])
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), borderValue=GLASS.tolist()), np.uint8)


@pytest.mark.parametrize("angle", [0, 7, 90, 131, 180, 278])
def test_a_turned_shifted_and_darker_piece_is_the_same_clot(angle: float) -> None:
    one = clot(1)
    assert Template(of(one)).log_odds(of(turned(one, angle, 6, -9), 1.3)) > 3


def test_a_mirrored_piece_is_the_same_clot() -> None:
    one = clot(2)
    assert Template(of(one)).log_odds(of(turned(np.ascontiguousarray(one[:, ::-1]), 40))) > 3


def test_a_piece_of_the_same_outline_and_another_pattern_is_another_clot() -> None:
    assert Template(of(clot(1))).log_odds(of(clot(3))) < -1


def test_a_much_smaller_piece_is_not_compared() -> None:
    assert Template(of(clot(1))).log_odds(of(clot(1, 80))) == -np.inf


def test_the_best_map_of_a_piece_onto_itself_is_the_identity() -> None:
    fit = Template(of(clot(4))).compare(of(clot(4)))
    assert fit is not None
    np.testing.assert_allclose(fit[:4], [1, 1, 1, 0], atol=0.02)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_tissue_of_a_few_equal_pixels_has_a_finite_fit(size: int) -> None:
    pixels = np.full((9, 9, 3), 250, np.uint8)
    mask = np.zeros((9, 9), bool)
    mask[2 : 2 + size, 3 : 3 + size] = True
    tiny = piece(pixels, mask, GLASS)
    fit = Template(tiny).compare(tiny)
    assert fit is not None and np.isfinite(fit).all()


def bar(length: int, height: int, angle: float) -> Piece:
    """A bar of two dyes in turns, in a crop that has no glass round it."""
    side = 2 * (length // 2) + 5
    mask, dyed = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    middle, ahead = np.full(2, side // 2), np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    for number, (start, stop) in enumerate(itertools.pairwise(np.linspace(-length / 2, length / 2, 8))):
        ends = [np.rint(middle + way * ahead).astype(int).tolist() for way in (start, stop)]
        for plane, value in ((mask, 1), (dyed, number % 2)):
            cv2.line(plane, ends[0], ends[1], value, height)
    y, x = np.nonzero(mask)
    box = np.s_[y.min() : y.max() + 1, x.min() : x.max() + 1]
    dyes = np.where(dyed[box][..., None], (0.05, 0.3, 0.1), (0.1, 0.5, 0.6)) * mask[box][..., None]
    return piece(np.rint(GLASS * 10**-dyes).astype(np.uint8), mask[box] > 0, GLASS)


@pytest.mark.parametrize("angle", [0, 17, 45, 90, 135])
@pytest.mark.parametrize(("length", "height"), [(800, 3), (800, 9), (1660, 9)])
def test_a_thin_bar_is_seen_however_it_lies(length: int, height: int, angle: float) -> None:
    one, other = bar(length, height, 0), bar(length, height, angle)
    for large, small in ((one, other), (other, one)):
        fit = Template(large).compare(small)
        assert fit is not None and np.isfinite(fit).all() and fit[0] > 0.5


def test_tissue_scattered_too_widely_is_no_match_and_never_not_a_number() -> None:
    planes = np.zeros((3, 5000, 3), np.float32)
    planes[1, [0, -1]] = 1e-3
    sparse = Piece(planes, (2499.5, 1), 2500.5, 2)
    assert Template(sparse).log_odds(sparse) == -np.inf
    empty = Piece(0 * planes, (2499.5, 1), 2500.5, 2)
    assert Template(empty).compare(sparse) is None


def test_the_blur_of_a_long_thin_piece_takes_memory_by_its_area() -> None:
    mask = np.ones((2, 30000), bool)
    long = piece(np.full((2, 30000, 3), 100, np.uint8), mask, GLASS)
    tracemalloc.start()
    Template(long)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
