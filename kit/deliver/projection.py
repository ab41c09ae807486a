"""From a rehearsal of some images to the hours of the real hidden test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

START_UP = 180.0  # seconds that a rehearsal gets beside its share of the time: imports, hashes, the probe
ONCE = ("start", "install", "probe")  # what is done once, however many images there are


@dataclass(frozen=True)
class Work:
    """How much there is to do: images, their megapixels, and the tiles that are kept of them."""

    images: int
    megapixels: float
    tiles: float


@dataclass(frozen=True)
class Projection:
    """Seconds that the real test is going to take, by what they go up with."""

    once: float
    by_area: float
    by_image: float

    @property
    def hours(self) -> float:
        """All of them."""
        return (self.once + self.by_area + self.by_image) / 3600


def limit(hours: float, rehearsed: Work, expected: Work, slower: float) -> float:
    """Seconds that a rehearsal may take: its share of the area, and the start."""
    share = min(1.0, rehearsed.megapixels / max(expected.megapixels, 1e-9))
    return (hours * 3600 * share + START_UP) / slower


def project(report: Mapping[str, Any], seconds: float, expected: Work, slower: float) -> Projection:
    """The seconds of the real test.

    Reading goes up with the area. Predicting goes up with the tiles; where there are none, with the images.
    What the kernel has not measured itself (starting Python, hashing) counts as done once.

    Args:
        report: what the kernel wrote into ``kit_report.json``; without one, all goes up with the images.
        seconds: the whole rehearsal.
    """
    told = {name: float(value) for name, value in report.get("seconds", {}).items()}
    images = max(int(report.get("images", 1)), 1)
    if not told:
        return Projection(0.0, 0.0, slower * seconds / images * expected.images)
    tile, predict, combine = (told.get(name, 0.0) for name in ("tile", "predict", "combine"))
    once = max(seconds - tile - predict - combine, sum(told.get(name, 0.0) for name in ONCE))
    area, tiles = float(report.get("megapixels", 0)), float(report.get("tiles", 0))
    growth = expected.images / images
    by_area = tile * (expected.megapixels / area if area else growth)
    by_image = predict * (expected.tiles / tiles if tiles else growth) + combine * growth
    return Projection(slower * once, slower * by_area, slower * by_image)
