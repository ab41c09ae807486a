"""A small made image in the golden inputs: is it read, and cut into tiles, as when the bundle was made?

Tiles that were cut before tell nothing of decoders, nor of what chooses tiles. The image is one of the
competition's demo, so that nobody's data travel in a bundle; a competition without one goes without.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kit.data import demo_image
from kit.deliver.sketch import PIXELS, other_pixels, sketched
from kit.files import read_arrays
from kit.read import store
from kit.read.tiler import Source, Tiler
from kit.state import Run

STANDARD = 0.225  # standard deviation of ImageNet's pixels between 0 and 1, as these are
NAMES = ("specimen file", "specimen cuts", "specimen pixels")


def made(run: Run) -> dict[str, NDArray[Any]]:
    """The file, where tiles are cut from it ``(T, 3)`` and what they show; nothing without a demo's image."""
    with TemporaryDirectory() as place:
        path = demo_image(run.competition, Path(place))
        if path is None:
            return {}
        cuts, pixels, _ = tiled(run, path)
        return dict(zip(NAMES, (np.frombuffer(path.read_bytes(), np.uint8), cuts, pixels), strict=True))


def read_otherwise(run: Run, golden: Path, kind: str) -> str:
    """How the image in the golden inputs is read otherwise than it was; empty if it is not, or not there.

    Args:
        kind: same or other, as the machine and the libraries are.
    """
    content = read_arrays(golden, NAMES)
    if content is None:
        return ""
    file, before, pixels = (content[name] for name in NAMES)
    with TemporaryDirectory() as place:
        path = Path(place) / f"specimen{Path(run.competition.files).suffix}"
        path.write_bytes(file.tobytes())
        cuts, now, reason = tiled(run, path)
    if reason and len(before):
        return f"a made image cannot be read any more: {reason}"
    if not np.array_equal(cuts, before):
        return f"other tiles are cut from a made image: {len(cuts)} now, {len(before)} before, or elsewhere"
    how = other_pixels(now, pixels, PIXELS[kind] * STANDARD) if len(cuts) else ""
    return how and f"tiles of a made image show other pixels: {how}"


def tiled(run: Run, path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32], str]:
    """Left, top and side of each tile of an image, a sketch of them, and why there are none."""
    worker = Tiler(replace(run, work=path.parent / "work", coords=None))
    row = worker.tile(Source("test", "specimen", path, ""))
    if row["status"] != "ok":
        return np.zeros((0, 3), np.int64), np.zeros((0, 3, 0), np.float32), str(row["reason"])
    tiles = store.read(store.path_of(worker.folder, "test", "specimen"))
    pixels = torch.from_numpy(tiles.decode()).permute(0, 3, 1, 2) / 255
    return np.stack([tiles.x, tiles.y, tiles.size], axis=1), sketched(pixels), ""
