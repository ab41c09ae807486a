"""Rigid registration of two pieces of tissue: could they be two cuts of one clot?

One piece is turned in steps of 15 degrees (mirrored too), and every shift of each turn is tried at once by a
Fourier transform; the best few are refined to an affine map, which takes up the small deformations of serial
cuts (Evangelidis and Psarakis 2008, doi:10.1109/TPAMI.2008.113). What is compared is the outline and, inside,
the pattern of the dyes, each standardised within its piece: another strength of stain changes nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from kit.read import density
from kit.read.density import Mask
from kit.read.reader import Pixels

Field = NDArray[np.float32]

TURNS = 24
COARSE, COARSE_RADIUS = 48, 16.0  # px, side of the square in which shifts are tried, and the tissue's radius
FINE, FINE_RADIUS = 80, 32.0  # px, the same where a candidate is refined
NEAR = np.r_[0:9, -8:0]  # px, the shifts between the centres of mass that are tried, in the coarse square
CANDIDATES = 2
RATIO = 3.0  # of areas, beyond which two pieces are not compared
# A logistic regression on made slides, of the five numbers that ``compare`` returns.
WEIGHTS = np.array([4.76, 0.18, 15.26, -3.83, 2.51])
BIAS = -12.35
OUTLIER = 2.5  # standard deviations to which a dye is clipped: folds and pigment are no pattern
ITERATIONS = 12  # of the refinement
CELL = 3.0  # px of blur that are enough where a piece is averaged before it is blurred
FAINT = 1e-6  # px of the coarse square below which a piece cannot be seen in it


@dataclass(frozen=True)
class Piece:
    """Tissue in a crop: ``planes`` float32 (h, w, 3), two standardised patterns and the mask.

    ``centre`` is the centre of mass (x, y) and ``radius`` the distance of the farthest tissue from it, in
    px of the overview; ``area`` is in px.
    """

    planes: Field
    centre: tuple[float, float]
    radius: float
    area: int


@dataclass(frozen=True)
class Candidate:
    """A map of the larger piece onto the smaller, float32 (2, 3) in the fine square, and its coarse score."""

    matrix: Field
    score: float


def densities(pixels: Pixels, background: Pixels) -> Field:
    """Optical density against the glass, float32 (h, w, 3), never negative."""
    return np.asarray(cv2.LUT(pixels, density.table(background).astype(np.float32)[:, None]), np.float32)


def piece(pixels: Pixels, mask: Mask, background: Pixels) -> Piece:
    """A piece of tissue, from its crop uint8 (h, w, 3), its mask (h, w), and the colour of the glass (3,)."""
    dyes = densities(np.asarray(cv2.GaussianBlur(pixels, (0, 0), 0.8), np.uint8), background)
    total = dyes.sum(2)
    hue = (dyes[..., 0] - dyes[..., 2]) / (total + 0.05)
    patterns = [np.where(mask, _standard(plane, mask), 0) for plane in (total, hue)]
    y, x = np.nonzero(mask)
    centre = float(x.mean()), float(y.mean())
    radius = float(np.hypot(x - centre[0], y - centre[1]).max()) + 1
    planes = np.dstack([*patterns, mask]).astype(np.float32)
    return Piece(planes, centre, radius, len(x))


def _standard(plane: Field, mask: Mask) -> Field:
    """Mean 0 and deviation 1 within the mask, robust against a few extreme pixels."""
    values = plane[mask]
    low, middle, high = np.percentile(values, (16, 50, 84))
    clipped = np.clip((plane - middle) / ((high - low) / 2 + 1e-3), -OUTLIER, OUTLIER)
    return np.asarray(clipped - clipped[mask].mean(), np.float32)


class Template:
    """A piece prepared to be compared with many others that are not larger."""

    def __init__(self, large: Piece) -> None:
        self.piece = large
        coarse = _square(large, COARSE, COARSE_RADIUS / large.radius)
        turned = np.stack([_turn(coarse, number) for number in range(2 * TURNS)])
        self.areas = turned[..., 2].sum((1, 2))
        planes = np.ascontiguousarray(np.moveaxis(turned, -1, 0))
        self.spectra = np.conj(fft.rfft2(planes))
        self.fine = _square(large, FINE, FINE_RADIUS / large.radius)

    def log_odds(self, small: Piece) -> float:
        """The log-odds that a piece, not larger than this one, is another cut of the same clot."""
        if self.piece.area > RATIO * small.area:
            return -np.inf
        fit = self.compare(small)
        return -np.inf if fit is None else float(fit @ WEIGHTS + BIAS)

    def compare(self, small: Piece) -> Field | None:
        """How well the best map fits a piece that is not larger, float32 (5,).

        The numbers: overlap of the outlines (intersection over union), correlations of density and of hue
        where both are tissue, log ratio of the areas, and the best score of a rigid map. None where there
        is too little tissue, scattered too widely, to be seen in the square.
        """
        coarse = _square(small, COARSE, COARSE_RADIUS / self.piece.radius)
        if min(self.areas.min(), coarse[..., 2].sum()) < FAINT:
            return None
        areas = np.log(self.piece.area / small.area)
        found = self._candidates(coarse)
        fine = _square(small, FINE, FINE_RADIUS / self.piece.radius)
        best = max((_fit(self.fine, fine, candidate) for candidate in found), key=sum)
        return np.array([*best, areas, found[0].score], np.float32)

    def _candidates(self, coarse: Field) -> list[Candidate]:
        """The best shift of the best few turns, best first."""
        score = self._scores(np.ascontiguousarray(np.moveaxis(coarse, -1, 0)))
        peaks = score.max((1, 2))
        rings = peaks.reshape(2, TURNS)  # as it is, and mirrored
        local = (rings >= np.roll(rings, 1, 1)) & (rings >= np.roll(rings, -1, 1))
        order = np.argsort(np.where(local.ravel(), -peaks, np.inf), kind="stable")
        candidates = []
        for number in order[: min(CANDIDATES, int(local.sum()))]:
            row, column = np.unravel_index(score[number].argmax(), score[number].shape)
            shift = np.array([NEAR[column], NEAR[row]]) * FINE_RADIUS / COARSE_RADIUS
            candidates.append(Candidate(_matrix(FINE, int(number), shift), float(peaks[number])))
        return candidates

    def _scores(self, coarse: Field) -> Field:
        """Of each turn and shift (y, x): overlap of the masks, plus half the correlation of both patterns."""
        spectra = fft.rfft2(coarse)
        pattern = self.spectra[0] * spectra[0] + self.spectra[1] * spectra[1]
        pattern, overlap = _shifts(pattern), _shifts(self.spectra[2] * spectra[2])
        areas = self.areas[:, None, None] + coarse[2].sum()
        return np.asarray(overlap / (areas - overlap) + pattern / areas, np.float32)


def _shifts(spectrum: NDArray[np.complex64]) -> Field:
    """The inverse transform at the shifts NEAR only: (turns, shifts, shifts)."""
    rows = fft.ifft(spectrum, axis=1)[:, NEAR]
    return np.asarray(fft.irfft(rows, COARSE, axis=2)[..., NEAR], np.float32)


def _square(source: Piece, side: int, scale: float) -> Field:
    """The planes of a piece scaled, its centre of mass in the middle of a square.

    They are blurred to the distance of the samples; a bar that is thinner than that, which would fall
    between two of them, into the glass round its crop. Of a very large piece, cells are averaged first.
    """
    planes, centre = source.planes, np.array(source.centre)
    if scale < 0.7:
        step = max(1, int(0.4 / scale / CELL))
        planes, centre, scale = _averaged(planes, step), (centre + 0.5) / step - 0.5, scale * step
        sigma = 0.4 / scale
        # The weights were fitted to wide crops that are blurred as they are.
        margin = int(np.ceil(3 * sigma)) if min(planes.shape[:2]) < 6 * sigma else 0
        wide = cv2.copyMakeBorder(planes, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
        planes, centre = np.asarray(cv2.GaussianBlur(wide, (0, 0), sigma), np.float32), centre + margin
    offset = (side - 1) / 2 - scale * centre
    matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
    return np.asarray(cv2.warpAffine(planes, matrix, (side, side)), np.float32)


def _averaged(planes: Field, step: int) -> Field:
    """The mean of each cell of step x step px; outside of the planes all is 0."""
    if step == 1:
        return planes
    height, width = (-(-length // step) for length in planes.shape[:2])
    more = height * step - planes.shape[0], width * step - planes.shape[1]
    whole = cv2.copyMakeBorder(planes, 0, more[0], 0, more[1], cv2.BORDER_CONSTANT)
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _matrix(side: int, number: int, shift: NDArray[np.float64]) -> Field:
    """Turned about the middle by ``number`` steps, mirrored first from TURNS on, then shifted."""
    angle = 2 * np.pi * (number % TURNS) / TURNS
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if number >= TURNS:
        turn = turn @ np.diag([-1.0, 1.0])
    middle = np.full(2, (side - 1) / 2)
    return np.column_stack([turn, middle - turn @ middle + shift]).astype(np.float32)


def _turn(square: Field, number: int) -> Field:
    """A square turned about its middle by a number of steps."""
    matrix = _matrix(len(square), number, np.zeros(2))
    return np.asarray(cv2.warpAffine(square, matrix, square.shape[:2]), np.float32)


def _fit(template: Field, other: Field, candidate: Candidate) -> tuple[float, float, float]:
    """Overlap and the two correlations after the map of a candidate was refined."""
    matrix = candidate.matrix
    views = [square[..., 2] * 2 + square[..., 0] + square[..., 1] for square in (template, other)]
    with contextlib.suppress(cv2.error):  # it did not converge: the rigid map stands
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, 1e-4)
        _, refined = cv2.findTransformECC(views[0], views[1], matrix.copy(), cv2.MOTION_AFFINE, stop)
        matrix = np.asarray(refined, np.float32)
    if not 0.8 < abs(np.linalg.det(matrix[:, :2])) < 1.25:  # it shrank one to make it fit
        matrix = candidate.matrix
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = np.asarray(cv2.warpAffine(other, matrix, (FINE, FINE), flags=flags), np.float32)
    both = np.minimum(template[..., 2], moved[..., 2])
    common, whole = both.sum(), np.maximum(template[..., 2], moved[..., 2]).sum()
    total, hue = (_correlation(template[..., n], moved[..., n], both) for n in (0, 1))
    return float(common / whole), total, hue


def _correlation(a: Field, b: Field, weight: Field) -> float:
    """Pearson correlation where both are tissue."""
    total = weight.sum() + 1e-6
    a, b = a - (a * weight).sum() / total, b - (b * weight).sum() / total
    return float((a * b * weight).sum() / np.sqrt((a * a * weight).sum() * (b * b * weight).sum() + 1e-6))
