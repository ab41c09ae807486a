"""An axis of an image cut into runs of whole overview pixels, so that averages are exact."""

from __future__ import annotations

import itertools


def cuts(length: int, factor: int, step: int) -> list[tuple[int, int]]:
    """Split an axis into runs of ``step`` overview pixels, an incomplete last pixel apart.

    Thus every other run holds whole multiples of ``factor``.

    Args:
        length: of the axis, level-0 px.
        factor: level-0 px an overview pixel.

    Returns:
        Start and end of each run, in overview pixels.

    >>> cuts(10, 4, 8)
    [(0, 2), (2, 3)]
    """
    whole = length // factor
    edges = [*range(0, whole, step), whole]
    if length % factor:
        edges.append(whole + 1)
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b]


def span(start: int, stop: int, ratio: float, length: int) -> tuple[int, int]:
    """A stretch of level-0 pixels in pixels of a level: at least one, and none beyond its end.

    Args:
        ratio: level-0 pixels to one of the level.
        length: of the level, its own pixels.

    >>> span(896, 901, 901 / 225, 225)
    (224, 225)
    """
    end = min(length, max(1, round(stop / ratio)))
    return min(round(start / ratio), end - 1), end


def reach(start: int, stop: int, size: int, length: int) -> tuple[int, int]:
    """The same of a stretch that may lie outside of the image; only what does ends outside of the level.

    Args:
        size: of the axis, level-0 px.
        length: of the level, its own pixels.

    >>> reach(898, 901, 901, 225), reach(898, 905, 901, 225)
    ((224, 225), (224, 226))
    """
    ratio = size / length
    if start >= 0 and stop <= size:
        return span(start, stop, ratio, length)
    first = round(start / ratio)
    return first, max(first + 1, round(stop / ratio))
