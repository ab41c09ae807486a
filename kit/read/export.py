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
    """Write the coordinates of every image that has tiles to ``folder/<split>/<image>.h5``.

    Returns what the console prints.

    Raises:
        StageError: the tiles have not been made, or are damaged.
    """
    images = load_images(run)
    images = images[images["tiles"] > 0]
    for row in images.itertuples():
        split, image = str(row.split), str(row.image_id)
        tiles = store.read(store.path_of(run.folder("tile"), split, image))
        sides = np.unique(tiles.size)
        if len(sides) != 1:
            raise StageError(f"the tiles of image '{image}' have {len(sides)} sizes, and the files hold one",
                             "repeat tile with a recipe whose tiles are all of one size")  # fmt: skip
        path = store.path_of(folder, split, image).with_suffix(".h5")
        width, height = int(tiles.header["width"]), int(tiles.header["height"])
        write_coords(path, image, tiles.x, tiles.y, int(sides[0]), width, height)
    return f"the coordinates of {images['tiles'].sum()} tiles of {len(images)} images are in {folder}"
