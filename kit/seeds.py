"""Randomness as a pure function of ``(seed, purpose, key...)``: no global state, so nothing to resume.

Another number of workers, a repeated run or a run that goes on after a kill draws the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np


def number(seed: int, *key: object) -> int:
    """A 63-bit integer that depends on the seed and every part of the key.

    >>> number(0, "fold") == number(0, "fold") != number(0, "tile")
    True
    """
    text = "\x1f".join([str(seed), *map(str, key)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *key: object) -> np.random.Generator:
    """A generator that depends on the seed and every part of the key."""
    return np.random.default_rng(number(seed, *key))
