"""Made overviews of slides, painted in optical density, whose truth is known pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.read.tissue import KINDS

Stain = tuple[float, float, float]
Array = NDArray[np.float32]
GLASS = {
    "white": (255, 255, 255),
    "grey-green": (196, 211, 192),
    "violet": (234, 216, 254),
    "pink": (255, 241, 255),
}
FIBRIN, RED, YELLOW, VIOLET = (0.09, 0.15, 0.08), (0.13, 0.48, 0.4), (0.09, 0.17, 0.5), (0.3, 0.5, 0.22)
PALE_BLUE = (0.13, 0.11, 0.05)
INK = {
    "blue": (1.0, 0.75, 0.16),
    "green": (1.1, 0.27, 0.6),
    "pure green": (1.2, 0.05, 1.2),
    "black": (1.0, 1.0, 1.0),
    "red": (0.06, 1.0, 0.8),
}
FINE = 2  # painted pixels to one pixel of the overview, so that edges are mixtures


@dataclass
class Picture:
    """A slide in the making: densities at ``FINE`` times the size, and what each pixel is."""

    width: int = 640
    height: int = 480
    seed: int = 0
    density: Array = field(init=False)
    kinds: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.density = np.zeros((self.height * FINE, self.width * FINE, 3), np.float32)
        self.kinds = np.zeros(self.density.shape[:2], np.uint8)

    def clot(self, x: float, y: float, size: float, stain: Stain = RED, other: Stain = RED) -> None:
        """A ragged clot about ``size`` pixels wide with holes, of one stain with patches of another."""
        rows, columns = np.ogrid[: self.kinds.shape[0], : self.kinds.shape[1]]
        far = np.hypot(columns / FINE - x, (rows / FINE - y) * self.rng.uniform(1.0, 1.6)) / (size / 2)
        body = (far + 0.25 * self._noise(size / 8)) < 1
        body &= self._noise(size / 20) < 2.2
        patch = (self._noise(size / 10) > 0.4)[..., None]
        rough = 1 + 0.18 * self._noise(1.0) + 0.1 * self._noise(0.4)
        colour = np.where(patch, np.float32(other), np.float32(stain)) * rough[..., None]
        self.density[body] = colour[body]
        self.kinds[body] = KINDS.index("tissue")

    def fold(self, start: tuple[float, float], end: tuple[float, float], wide: float) -> None:
        """A band in which the tissue lies twice."""
        band = self._line(start, end, wide) & np.isin(self.kinds, (1, 2))
        self.density[band] *= 2.2
        self.kinds[band] = KINDS.index("fold")

    def pen(self, start: tuple[float, float], end: tuple[float, float], wide: float, ink: str) -> None:
        """A stroke of a marker."""
        self._lay(self._line(start, end, wide), INK[ink], "pen")

    def bubble(self, x: float, y: float, radius: float, wide: float = 3, dense: float = 0.35) -> None:
        """Air: a dark ring round a little haze."""
        rows, columns = np.ogrid[: self.kinds.shape[0], : self.kinds.shape[1]]
        far = np.hypot(columns / FINE - x, rows / FINE - y)
        self._lay(far < radius, (0.01, 0.01, 0.01), "bubble")
        self._lay((far < radius) & (far > radius - wide), (dense, dense, dense * 1.05), "bubble")

    def dust(self, count: int, most: float = 3) -> None:
        """Grey specks."""
        for x, y, size in self.rng.uniform((0, 0, 0.4), (self.width, self.height, most), (count, 3)):
            self._lay(self._line((x, y), (x + size / 2, y), size), (0.5, 0.52, 0.55), "dust")

    def hair(self, x: float, y: float, length: float) -> None:
        """A thin grey arc."""
        canvas = np.zeros(self.kinds.shape, np.uint8)
        axes = (round(length * FINE / 2), round(length * FINE / 4))
        cv2.ellipse(canvas, (round(x * FINE), round(y * FINE)), axes, 20, 10, 140, 1, round(2.5 * FINE))
        self._lay(canvas > 0, (0.3, 0.32, 0.33), "dust")

    def edge(self, at: float, wide: float = 5) -> None:
        """The grey edge of the cover glass, a line from the top to the bottom."""
        self._lay(self._line((at, -9), (at + 6, self.height + 9), wide), (0.25, 0.25, 0.26), "edge")

    def frame(self, wide: int) -> None:
        """The black frame of the scanner, on the top and the left."""
        for part in (np.s_[: wide * FINE], np.s_[:, : wide * FINE]):
            self.density[part], self.kinds[part] = 3, KINDS.index("border")

    def shadow(self, x: float, y: float, size: float) -> None:
        """A soft pale shadow."""
        rows, columns = np.ogrid[: self.kinds.shape[0], : self.kinds.shape[1]]
        far = np.hypot(columns / FINE - x, rows / FINE - y) / size
        self.density += (0.05 * np.exp(-(far**2)))[..., None].astype(np.float32)

    def on(self, glass: tuple[int, ...], noise: float = 1.5) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The overview (height, width, 3) on this glass, and the kind of each of its pixels."""
        colour = (np.array(glass, np.float32) + 1) * np.power(np.float32(10), -self.density) - 1
        small = cv2.resize(colour, (self.width, self.height), interpolation=cv2.INTER_AREA)
        light = np.linspace(1, 0.98, self.width, dtype=np.float32)[None, :, None]
        grain = self.rng.normal(0, noise, small.shape).astype(np.float32)
        pixels = np.clip(np.rint(small * light + grain), 0, 255).astype(np.uint8)
        return pixels, np.ascontiguousarray(self.kinds[FINE // 2 :: FINE, FINE // 2 :: FINE])

    def _lay(self, where: NDArray[np.bool_], density: tuple[float, ...], kind: str) -> None:
        self.density[where] += np.float32(density)
        self.kinds[where] = KINDS.index(kind)

    def _line(self, start: tuple[float, float], end: tuple[float, float], wide: float) -> NDArray[np.bool_]:
        canvas = np.zeros(self.kinds.shape, np.uint8)
        ends = [(round(x * FINE), round(y * FINE)) for x, y in (start, end)]
        cv2.line(canvas, ends[0], ends[1], 1, max(1, round(wide * FINE)))
        return canvas > 0

    def _noise(self, scale: float) -> Array:
        """Smooth noise of unit variance that changes over ``scale`` pixels."""
        step = max(1.0, scale * FINE / 2)
        small = (int(self.kinds.shape[1] / step) + 3, int(self.kinds.shape[0] / step) + 3)
        grain = cv2.GaussianBlur(self.rng.standard_normal(small[::-1]).astype(np.float32), (0, 0), 1)
        wide = cv2.resize(grain / grain.std(), self.kinds.shape[::-1], interpolation=cv2.INTER_CUBIC)
        return np.asarray(wide, np.float32)


def removed(kinds: NDArray[np.uint8]) -> dict[str, float]:
    """The share of the slide that each kind of artefact covers; absent kinds left out."""
    counts = np.bincount(kinds.ravel(), minlength=len(KINDS))
    return {kind: counts[code] / kinds.size for code, kind in enumerate(KINDS) if code > 1 and counts[code]}


def spoiled(seed: int, width: int = 640, height: int = 480) -> Picture:
    """A slide with four clots, pale and dark, and every artefact."""
    made = Picture(width, height, seed)
    stains = (FIBRIN, RED), (RED, RED), (YELLOW, VIOLET), (PALE_BLUE, RED)
    places = (0.25, 0.3), (0.7, 0.3), (0.3, 0.75), (0.75, 0.75)
    for (x, y), (stain, other) in zip(places, stains, strict=True):
        made.clot(x * width, y * height, made.rng.uniform(90, 150), stain, other)
    made.fold((0.2 * width, 0.25 * height), (0.3 * width, 0.36 * height), 5)
    made.fold((0.27 * width, 0.8 * height), (0.33 * width, 0.7 * height), 4)
    made.dust(60)
    made.hair(0.5 * width, 0.5 * height, 60)
    made.bubble(0.5 * width, 0.2 * height, made.rng.uniform(12, 40))
    made.bubble(0.1 * width, 0.55 * height, made.rng.uniform(8, 20), 2)
    for ink, x in (("blue", 0.45), ("green", 0.5), ("black", 0.55), ("red", 0.6)):
        made.pen((x * width, 0.66 * height), (x * width + 8, 0.92 * height), made.rng.uniform(8, 13), ink)
    made.edge(0.96 * width)
    made.frame(7)
    made.shadow(0.5 * width, 0.4 * height, 30)
    return made
