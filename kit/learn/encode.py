"""Tiles through an encoder, in fp32 and in passes of one size: the numbers do not depend on the way.

Pixels are decoded a few passes ahead on threads of their own, so that no more than these are ever held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kit.learn import preprocess
from kit.learn.bags import BagModel
from kit.learn.views import turned
from kit.read.store import Tiles

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Span = tuple[int, range]  # an image, and some of its tiles
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Passes:
    """How tiles go through an encoder; all but ``threads`` is part of the result.

    size, interpolation: of the pixels that the encoder sees; size 0 keeps tiles as stored.
    batch: tiles a pass. symmetries: the views of each tile, by number. threads: that decode.
    """

    size: int
    interpolation: str
    batch: int
    symmetries: tuple[int, ...] = (0,)
    threads: int = 1


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bags(model: BagModel, images: Sequence[Tiles], passes: Passes, mean: bool = False) -> Floats:
    """Features ``(T, V, D)`` of all tiles of some images, end to end, by view; ``mean``: ``(T, 1, D)``.

    Raises:
        StageError: a tile is damaged.
    """
    pieces = spans([len(tiles) for tiles in images], passes.batch)
    load = partial(_load, images, passes)
    loaded = ahead(load, pieces, passes.threads)
    return _all(model, loaded, sum(map(len, images)), passes.symmetries, mean)


def forward(model: BagModel, tiles: Pixels, batch: int) -> Floats:
    """Features ``(T, D)`` of tiles ``(T, H, W, 3)``, as they are.

    Every pass has ``batch`` tiles, the last one padded: another batch size changes the last digits.
    """
    parts = (_padded(tiles[start : start + batch], batch) for start in range(0, len(tiles), batch))
    return _all(model, parts, len(tiles), (0,))[:, 0]


def spans(counts: Sequence[int], batch: int) -> list[list[Span]]:
    """Which tiles of which images each pass takes, one after the other.

    >>> spans([3, 2], 4)
    [[(0, range(0, 3)), (1, range(0, 1))], [(1, range(1, 2))]]
    """
    passes: list[list[Span]] = []
    room = 0
    for image, count in enumerate(counts):
        start = 0
        while start < count:
            if not room:
                passes.append([])
                room = batch
            end = min(count, start + room)
            passes[-1].append((image, range(start, end)))
            room, start = room - (end - start), end
    return passes


def ahead(work: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[U]:
    """The results in order, of which up to ``threads`` are being made while one is used."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        waiting: deque[object] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > max(1, threads):
                    yield waiting.popleft().result()  # type: ignore[attr-defined]
            while waiting:
                yield waiting.popleft().result()  # type: ignore[attr-defined]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def exact() -> Iterator[None]:
    """Convolutions and products in true fp32, by kernels that add in one order.

    On GPUs, cuDNN's default of TF32 has ten binary digits after the point, as fp16 has.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _load(images: Sequence[Tiles], passes: Passes, pieces: Sequence[Span]) -> Pixels:
    """The pixels of one pass ``(batch, H, W, 3)``, resized and padded."""
    parts = [
        preprocess.resize(images[image].decode(chosen), passes.size, passes.interpolation)
        for image, chosen in pieces
    ]
    return _padded(np.concatenate(parts), passes.batch)


def _padded(tiles: Pixels, batch: int) -> Pixels:
    if len(tiles) == batch:
        return tiles
    full = np.zeros((batch, *tiles.shape[1:]), np.uint8)
    full[: len(tiles)] = tiles
    return full


@torch.inference_mode()
def _all(
    model: BagModel, loaded: Iterable[Pixels], count: int, symmetries: Sequence[int], mean: bool = False
) -> Floats:
    """Features ``(count, V, D)`` of passes, of which the last one is padded."""
    with exact():
        # They stay on the device until the end: nothing waits for a copy.
        found = [_views(model, pixels, symmetries, mean) for pixels in loaded]
        if not found:
            return np.zeros((0, 1 if mean else len(symmetries), model.center.shape[0]), np.float32)
        return torch.cat(found)[:count].cpu().numpy()


def _views(model: BagModel, tiles: Pixels, symmetries: Sequence[int], mean: bool) -> Tensor:
    """Features ``(T, V, D)`` of one pass ``(T, H, W, 3)``, one view after the other, or their mean."""
    place = model.mean.device
    pixels = torch.from_numpy(tiles)
    if place.type == "cuda":
        pixels = pixels.pin_memory().to(place, non_blocking=True)
    pixels = pixels.permute(0, 3, 1, 2)
    found = [model.embed(turned(pixels, number)).float() for number in symmetries]
    return sum(found[1:], found[0])[:, None] / len(found) if mean else torch.stack(found, dim=1)
