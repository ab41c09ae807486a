"""The coordinates of a run's tiles, written for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kit.errors import StageError
from kit.read import store
from kit.read.exchange import write_coords
from kit.read.tiles import load_images
from kit.state import Run


def export(run: Run, folder: Path) -> str:
    """Write the coordinates of every slide that was read to ``folder/<split>/<image>.h5``.

    A slide without tissue has a file without coordinates. Returns what the console prints.

    Raises:
        StageError: tiles differ in size, or are damaged; then nothing is written.
    """
    images = load_images(run)
    images = images[images["status"].isin(["ok", "empty"])]
    named = [(str(row.split), str(row.image_id)) for row in images.itertuples()]
    bags = [store.read(store.path_of(run.folder("tile"), split, image)) for split, image in named]
    sides = [_side(image, tiles) for (_, image), tiles in zip(named, bags, strict=True)]
    for (split, image), tiles, side in zip(named, bags, sides, strict=True):
        path = store.path_of(folder, split, image).with_suffix(".h5")
        width, height = int(tiles.header["width"]), int(tiles.header["height"])
        write_coords(path, image, tiles.x, tiles.y, side, width, height)
    return f"the coordinates of {images['tiles'].sum()} tiles of {len(images)} images are in {folder}"


def _side(image: str, tiles: store.Tiles) -> int:
    """The side of all tiles of an image; of one without tiles it says nothing, and is 1."""
    sides = np.unique(tiles.size)
    if len(sides) > 1:
        raise StageError(
            f"the tiles of image '{image}' have {len(sides)} sizes, and the files hold one",
            "repeat tile with a recipe whose tiles are all of one size, as tile.recipe=grid",
        )
    return int(sides[0]) if len(sides) else 1
