"""Made overviews of slides on which the same clots were cut several times, and the truth about them.

A slide holds one to four distinct clots, each cut one to five times. A section is turned by any angle,
shifted, seldom mirrored, a little deformed, stained anew, and often cracked, folded or incomplete; the cuts
of one clot change gradually. About half of the further clots are look-alikes of an earlier one: nearly its
outline and size, its colours, but an inside of their own. Everything is a function of the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from kit import seeds

Field = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int32]
Rng = np.random.Generator

CANVAS = 352  # px, side of the square that a clot is drawn on
GAP = 14  # px of glass that are at least between two sections
LONGEST, SHORTEST = 1200, 600  # px, limits of an overview's longer side
# Optical densities (red, green, blue) of fibrin and of red cells, as three stains show them.
STAINS = (
    ((0.04, 0.32, 0.08), (0.04, 0.14, 0.75)),
    ((0.26, 0.18, 0.05), (0.14, 0.62, 0.48)),
    ((0.10, 0.30, 0.16), (0.12, 0.55, 0.36)),
)
GLASS = ((254, 254, 254), (243, 240, 243), (253, 238, 253), (226, 232, 222), (236, 228, 216))


@dataclass(frozen=True)
class Slide:
    """An overview uint8 (H, W, 3), the section of each pixel int32 (H, W), the clot of each section (S,).

    A label is 0 on glass and on debris, else one more than the number of the section.
    """

    overview: Pixels
    labels: Labels
    clot: Labels


@dataclass(frozen=True)
class Outline:
    """A bent band of discs: position (n, 2) and radius (n,) in px, and waves (k, 2) of its border."""

    centres: Field
    radii: Field
    waves: Field


@dataclass(frozen=True)
class Clot:
    """The fields, float32 (CANVAS, CANVAS), that two neighbouring cuts share, and those that replace them."""

    level: Field
    drift: Field
    cells: tuple[Field, Field]
    holes: Field
    densities: NDArray[np.float64]
    share: float
    porous: float


def slide(seed: int) -> Slide:
    """The made slide of a seed: its longer side has 600 to 1200 px."""
    rng = seeds.rng(seed, "clots", "slide")
    stain = np.array(STAINS[rng.integers(len(STAINS))])
    glass = np.array(GLASS[rng.integers(len(GLASS))], float)
    counts = rng.choice(
        [1, 2, 3, 4, 5], rng.choice([1, 2, 3, 4], p=[0.3, 0.3, 0.25, 0.15]), p=[0.2, 0.3, 0.25, 0.15, 0.1]
    )
    clots = _clots(rng, len(counts), stain)
    cuts = [(number, cut) for number, count in enumerate(counts) for cut in range(count)]
    order = rng.permutation(len(cuts))
    clot = np.array([cuts[i][0] for i in order], np.int32)
    drawn = [
        _section(seeds.rng(seed, "clots", "section", *cuts[i]), clots[cuts[i][0]], cuts[i][1]) for i in order
    ]
    density, labels = _place(rng, drawn)
    _debris(rng, density, labels, stain)
    density, labels = _fit(density, labels)
    return Slide(_expose(rng, density, glass), labels, clot)


def _clots(rng: Rng, count: int, stain: NDArray[np.float64]) -> list[Clot]:
    """Distinct clots of one slide; some repeat outline, colours and share of red of an earlier one."""
    outlines: list[Outline] = []
    clots: list[Clot] = []
    for number in range(count):
        alike = int(rng.integers(number)) if number and rng.random() < 0.5 else None
        outline = _outline(rng) if alike is None else _like(rng, outlines[alike])
        share = rng.uniform(0.15, 0.85) if alike is None else clots[alike].share + rng.normal(0, 0.05)
        tint = stain * np.exp(rng.normal(0, 0.08, (2, 3))) if alike is None else clots[alike].densities
        outlines.append(outline)
        scale = rng.uniform(10, 24)
        cells = (_texture(rng, scale), _texture(rng, scale))
        level = _level(outline)
        clots.append(Clot(level, _noise(rng, 30), cells, _noise(rng, 7), tint, share, rng.uniform(1.6, 3.2)))
    return clots


def _outline(rng: Rng) -> Outline:
    """A round or drawn-out clot, from 70 to about 200 px long."""
    steps = 24
    radius = rng.uniform(24, 48)
    length = radius * rng.choice([0.3, 1.5, 4.0]) * rng.uniform(0.7, 1.3)
    turn = np.cumsum(rng.normal(0, 0.12, steps)) + np.linspace(0, rng.uniform(-1.8, 1.8), steps)
    path = np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1) * length / steps, 0)
    width = np.interp(np.linspace(0, 1, steps), np.linspace(0, 1, 5), np.exp(rng.normal(0, 0.22, 5)))
    waves = rng.normal(0, 1, (6, 2)) * radius * 0.2 / np.arange(2, 8)[:, None]
    return Outline(
        np.float32(path - path.mean(0) + CANVAS / 2), np.float32(radius * width), np.float32(waves)
    )


def _like(rng: Rng, outline: Outline) -> Outline:
    """Nearly the same outline."""
    radii = outline.radii * np.exp(rng.normal(0, 0.05)) + np.repeat(rng.normal(0, 2.5, 6), 4)
    waves = 0.6 * outline.waves + 0.6 * rng.permutation(outline.waves)
    moved = outline.centres + np.repeat(rng.normal(0, 2.5, (6, 2)), 4, axis=0)
    return Outline(np.float32(moved), np.float32(np.maximum(radii, 12)), np.float32(waves))


def _level(outline: Outline) -> Field:
    """How far inside of the outline a pixel is, in px; negative outside."""
    y, x = np.mgrid[:CANVAS, :CANVAS].astype(np.float32)
    level = np.full((CANVAS, CANVAS), -1e3, np.float32)
    for (cx, cy), radius in zip(outline.centres, outline.radii, strict=True):
        level = np.maximum(level, radius - np.hypot(x - cx, y - cy))
    angle = np.arctan2(y - CANVAS / 2, x - CANVAS / 2)
    for number, (a, b) in enumerate(outline.waves, 2):
        level += a * np.cos(number * angle) + b * np.sin(number * angle)
    return level


def _noise(rng: Rng, scale: float) -> Field:
    """Smooth noise of mean 0 and variance 1 whose patches are about ``scale`` px wide."""
    noise = cv2.GaussianBlur(rng.normal(size=(CANVAS, CANVAS)).astype(np.float32), (0, 0), scale / 2)
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def _texture(rng: Rng, scale: float) -> Field:
    """Patches with finer ones in them."""
    return np.asarray(0.9 * _noise(rng, scale) + 0.45 * _noise(rng, 4), np.float32)


def _section(rng: Rng, clot: Clot, cut: int) -> tuple[Field, NDArray[np.bool_]]:
    """One cut: its optical density float32 (h, w, 3) and mask (h, w), cropped to the tissue."""
    depth = 0.22 * (cut + rng.uniform(-0.3, 0.3))
    level = clot.level + 5 * depth * clot.drift + 1.2 * _noise(rng, 5)
    cells = np.cos(depth) * clot.cells[0] + np.sin(depth) * clot.cells[1] + 0.25 * _noise(rng, 5)
    tissue = np.clip(level / 2 + 0.5, 0, 1) * (clot.holes + 0.3 * _noise(rng, 7) < clot.porous)
    red = 1 / (1 + np.exp(-3 * (cells + 2.2 * (clot.share - 0.5))))
    mixed = red[..., None] * clot.densities[1] + (1 - red[..., None]) * clot.densities[0]
    mixed *= np.exp(0.12 * _noise(rng, 3))[..., None] * np.exp(rng.normal(0, 0.18) + rng.normal(0, 0.07, 3))
    density, tissue = _damage(rng, np.asarray(mixed, np.float32), np.asarray(tissue, np.float32))
    warped = _warp(rng, np.dstack([density * tissue[..., None], tissue]).astype(np.float32))
    mask = warped[..., 3] > 0.5
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return warped[box][..., :3], mask[box]


def _damage(rng: Rng, density: Field, tissue: Field) -> tuple[Field, Field]:
    """Cracks, a lost piece, a fold; each on some sections only."""
    inside = np.argwhere(tissue > 0.5)
    extent = np.sqrt(len(inside))
    for _ in range(rng.choice([0, 1, 2], p=[0.55, 0.3, 0.15])):
        reach = rng.uniform(0.5, 2.5) * extent
        tissue = tissue * (_line(rng, inside, reach, rng.uniform(1.5, 5)) == 0)
    if rng.random() < 0.3:
        y, x = inside[rng.integers(len(inside))]
        far = np.hypot(*(np.mgrid[:CANVAS, :CANVAS] - np.array([y, x])[:, None, None]))
        edge = 0.85 * extent * rng.uniform(0.25, 0.45)
        border = (
            np.hypot(y - CANVAS / 2, x - CANVAS / 2) / extent
        )  # a piece near the middle leaves a small hole
        tissue = tissue * (far > edge * min(1, 0.4 + border))
    if rng.random() < 0.25:
        fold = cv2.GaussianBlur(
            _line(rng, inside, rng.uniform(0.5, 1.5) * extent, rng.uniform(3, 9)), (0, 0), 1
        )
        density = density * (1 + 1.2 * fold[..., None])
    return np.asarray(density, np.float32), np.asarray(tissue, np.float32)


def _line(rng: Rng, inside: NDArray[np.int64], reach: float, width: float) -> Field:
    """A wavy line through the tissue: 1 on it, 0 elsewhere."""
    centre = inside[rng.integers(len(inside))][::-1]
    angle = rng.uniform(0, np.pi)
    along = np.linspace(-0.5, 0.5, 9)[:, None] * reach
    across = np.cumsum(rng.normal(0, 0.03 * reach, 9))[:, None]
    ahead, aside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    points = np.rint(centre + along * ahead + across * aside).astype(np.int32)
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.polylines(canvas, [points], False, 1, max(1, round(width)))
    return canvas.astype(np.float32)


def _warp(rng: Rng, fields: Field) -> Field:
    """Turned by any angle, seldom mirrored, sheared and bent a little."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ (np.eye(2) + rng.normal(0, 0.025, (2, 2)))
    if rng.random() < 0.03:
        turn = turn @ np.diag([-1.0, 1.0])
    points = np.moveaxis(np.mgrid[:CANVAS, :CANVAS][::-1], 0, -1) - CANVAS / 2
    bend = np.stack([_noise(rng, 70), _noise(rng, 70)], -1) * rng.uniform(0.5, 3.5)
    source = (points @ turn.T + CANVAS / 2 + bend).astype(np.float32)
    return np.asarray(cv2.remap(fields, source[..., 0], source[..., 1], cv2.INTER_LINEAR), np.float32)


def _place(rng: Rng, drawn: list[tuple[Field, NDArray[np.bool_]]]) -> tuple[Field, Labels]:
    """The sections on one picture, with glass between them, which grows until all have a place."""
    area = sum((mask.shape[0] + GAP) * (mask.shape[1] + GAP) for _, mask in drawn)
    aspect = rng.uniform(1, 2)
    side = np.sqrt(1.4 * area / aspect)
    while True:
        size = (round(side * aspect) + 60, round(side) + 60)
        if min(size) > max(max(mask.shape) for _, mask in drawn) + 2 * GAP:
            placed = _try_places(rng, drawn, size)
            if placed is not None:
                return placed
        side *= 1.08


def _try_places(
    rng: Rng, drawn: list[tuple[Field, NDArray[np.bool_]]], size: tuple[int, int]
) -> tuple[Field, Labels] | None:
    """Random places without overlap, or none if a section found no place in many attempts."""
    density, labels = np.zeros((*size, 3), np.float32), np.zeros(size, np.int32)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * GAP + 1, 2 * GAP + 1))
    for number, (dyes, mask) in enumerate(drawn, 1):
        taken = cv2.dilate((labels > 0).astype(np.uint8), kernel)
        height, width = mask.shape
        for _ in range(300):
            y, x = rng.integers(GAP, size[0] - height - GAP), rng.integers(GAP, size[1] - width - GAP)
            box = np.s_[y : y + height, x : x + width]
            if not (taken[box] & mask).any():
                break
        else:
            return None
        density[box] = np.where(mask[..., None], dyes, density[box])
        labels[box] = np.where(mask, number, labels[box])
    return density, labels


def _debris(rng: Rng, density: Field, labels: Labels, stain: NDArray[np.float64]) -> None:
    """Crumbs of tissue on the glass, most of them beside a section; drawn in place."""
    tissue = np.argwhere(labels > 0)
    for _ in range(rng.integers(0, 25)):
        near = tissue[rng.integers(len(tissue))] + rng.normal(0, 25, 2)
        spot = near if rng.random() < 0.7 else rng.uniform(0, labels.shape)
        axes = np.rint(rng.uniform(1, 5, 2)).astype(int).tolist()
        crumb = np.zeros(labels.shape, np.uint8)
        centre = np.rint(spot[::-1]).astype(int).tolist()
        cv2.ellipse(crumb, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        free = (crumb > 0) & (labels == 0)
        density[free] = stain[rng.integers(2)] * rng.uniform(0.5, 1.3)


def _fit(density: Field, labels: Labels) -> tuple[Field, Labels]:
    """Smaller, or on more glass, so that the longer side keeps its limits."""
    longest = max(labels.shape)
    if longest > LONGEST:
        size = tuple(round(n * LONGEST / longest) for n in labels.shape[::-1])
        density = np.asarray(cv2.resize(density, size, interpolation=cv2.INTER_AREA), np.float32)
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.int32)
    more = max(0, SHORTEST - longest)
    return np.pad(density, ((0, more), (0, 0), (0, 0))), np.pad(labels, ((0, more), (0, 0)))


def _expose(rng: Rng, density: Field, glass: NDArray[np.float64]) -> Pixels:
    """What the scanner sees: glass that is not quite even, dyes, a little blur and noise."""
    height, width = density.shape[:2]
    slope = np.linspace(1, 1 - rng.uniform(0, 0.03), width)[None, :, None]
    soft = cv2.GaussianBlur(density, (0, 0), 0.6)
    pixels = glass * slope * 10 ** -soft.astype(np.float64) + rng.normal(0, 1.5, (height, width, 1))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
