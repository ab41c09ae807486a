"""Whole-slide images of any format: by the kit's own tile index where it can, else by OpenSlide.

The files of STRIP AI have one level of up to 5 Gpx and no usable resolution: nothing here reads a whole
level. Both ways give the same pixels.
"""

from __future__ import annotations

import logging
from pathlib import Path

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.files import split_archive
from kit.read.indexed import IndexedSlide
from kit.read.reader import Reader, check_there
from kit.read.tiff import AGAIN, NotIndexed, read_index

log = logging.getLogger("kit")


def open_image(path: Path, grid: TileGrid) -> Reader:
    """Open a slide.

    Args:
        grid: ``index`` says whether tiled TIFF is read by its index, and ``skip`` whether an overview
            passes over the tiles whose byte counts say that they are blank.

    Raises:
        ImageError: it is missing, or no slide that can be opened.
    """
    check_there(path)
    if split_archive(path)[1]:
        raise ImageError(f"{path}: a slide is not read inside an archive", "unpack the archive")
    why, hint = "tile.index=false", AGAIN
    try:
        index = read_index(path)  # it also refuses what no reader can hold, and OpenSlide would not
        if grid.index:
            return IndexedSlide(index, grid.skip)
    except NotIndexed as reason:
        why, hint = str(reason), reason.hint
    # Imported when needed: most slides are TIFF, and most kernels have one worker's memory to spare.
    from kit.read.vendor import VendorSlide

    log.debug("%s is read by OpenSlide: %s", path, why)
    return VendorSlide(path, why, hint)
