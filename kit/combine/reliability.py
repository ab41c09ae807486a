"""Whether probabilities mean what they say: bins of predicted and observed shares, and their distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kit.metrics import Array

LEAST = 10  # units of a bin
Z = 1.96


@dataclass(frozen=True)
class Bin:
    """Units of similar probability: what was predicted of them, and what was observed."""

    units: int
    share: float  # of the total weight
    effective: float  # how many equally weighted units would be as informative
    predicted: float
    observed: float
    low: float  # 95 % Wilson interval of the observed share
    high: float


def reliability(predicted: Array, hit: NDArray[np.bool_], weights: Array, most: int = 10) -> list[Bin]:
    """Bins of equal unit counts, from low to high; shares weigh units as the metric does.

    Args:
        predicted: probability of a class ``(n,)``.
        hit: whether a unit is of that class ``(n,)``.
        weights: the units' shares in the score ``(n,)``.
    """
    order = np.argsort(predicted, kind="stable")
    count = int(np.clip(len(order) // LEAST, 1, most))
    parts = [part for part in np.array_split(order, count) if weights[part].sum() > 0]
    return [_bin(predicted[part], hit[part], weights[part]) for part in parts]


def _bin(predicted: Array, hit: NDArray[np.bool_], weights: Array) -> Bin:
    total = float(weights.sum())
    effective = total**2 / float((weights**2).sum())
    observed = float(weights @ hit) / total
    low, high = wilson(observed, effective)
    return Bin(len(hit), total, effective, float(weights @ predicted) / total, observed, low, high)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share of ``n`` units: never empty, even at 0 or 1.

    >>> low, high = wilson(0.0, 10)
    >>> low, round(high, 3)
    (0.0, 0.278)
    """
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * float(np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the weighted mean distance of predicted and observed shares."""
    return sum(b.share * abs(b.observed - b.predicted) for b in bins) / sum(b.share for b in bins)


def chance_error(bins: list[Bin]) -> float:
    """The calibration error that perfect probabilities would show on so few units, about."""
    spread = [np.sqrt(2 / np.pi * b.predicted * (1 - b.predicted) / b.effective) for b in bins]
    return float(sum(b.share * s for b, s in zip(bins, spread, strict=True)) / sum(b.share for b in bins))


def shown_classes(labels: NDArray[np.int64], classes: int, most: int = 8) -> list[int]:
    """The classes that are shown one by one: the last of two; else each, or the commonest."""
    if classes == 2:
        return [1]
    counts = np.bincount(labels, minlength=classes)
    common = np.argsort(-counts, kind="stable")[:most]
    return sorted(int(k) for k in common)
