"""What is laid over a slide: tissue and artefacts as pictures, sections, tiles and attention as shapes.

All of it comes from the tile store and from what `predict` kept; shapes are in level-0 px.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from kit.errors import KitError
from kit.learn import attention
from kit.read import store
from kit.read.store import Tiles
from kit.read.tissue import KINDS, TISSUE
from kit.show import sheet
from kit.show.view.outdated import run_again
from kit.show.view.shelf import Cache
from kit.state import Run

MAPS = {"tissue": (TISSUE,), "artefacts": tuple(range(TISSUE + 1, len(KINDS)))}  # kinds of a picture
STEPS = 64  # colours of the scale of attention
Shapes = dict[str, Any]


def shapes(run: Run, row: Mapping[str, Any]) -> Shapes:
    """All that can be laid over an image; what is absent is empty.

    Args:
        row: of the listing.
    """
    found: Shapes = {"kinds": [], "sections": [], "tiles": [], "attention": [], "scale": [], "trouble": []}
    path = store.path_of(run.folder("tile"), row["split"], row["image_id"])
    if not path.is_file():
        return found
    try:
        tiles = store.read(path)
        found |= {"kinds": _kinds(tiles), "sections": _sections(tiles), "tiles": _tiles(tiles)}
    except KitError as error:
        return found | {"trouble": [f"{error.message}; {error.hint}"]}
    found["attention"], found["trouble"] = _attention(run, row, tiles)
    if found["attention"]:
        times = 2 ** np.linspace(-sheet.SPAN, sheet.SPAN, STEPS)
        found |= {"scale": [_hex(colour) for colour in sheet.heat_of(times).tolist()], "span": sheet.SPAN}
    return found


def picture(run: Run, row: Mapping[str, Any], name: str, cache: Cache) -> bytes | None:
    """The map of some kinds as a PNG, clear where they are not; ``None``: nothing is stored.

    Raises:
        StageError: it is damaged.
    """
    path = store.path_of(run.folder("tile"), row["split"], row["image_id"])
    if not path.is_file():
        return None
    return cache.get((path, name, path.stat().st_mtime_ns), lambda: _drawn(path, MAPS[name])) or None


def _drawn(path: Path, codes: Sequence[int]) -> bytes:
    kinds = store.read(path).kinds_map()
    colours = np.zeros((256, 4), np.uint8)
    for code in codes:
        colours[code] = (*sheet.PALETTE[KINDS[code]], 255)
    return store.encode(colours[kinds]) if kinds.size else b""


def _kinds(tiles: Tiles) -> list[Shapes]:
    """The kinds that occur: name, colour and share of the picture."""
    kinds = tiles.kinds_map()
    counts = np.bincount(kinds.ravel(), minlength=len(KINDS))
    return [
        {"kind": kind, "colour": _hex(sheet.PALETTE[kind]), "share": counts[code] / kinds.size}
        for code, kind in enumerate(KINDS)
        if code and counts[code]
    ]


def _sections(tiles: Tiles) -> list[Shapes]:
    """The outlines of each section, its name, and where that is written."""
    width, height = int(tiles.header["width"]), int(tiles.header["height"])
    small = tiles.sections_map()
    if not small.size:
        return []
    view = sheet.View(width, height, (1.0, 1.0), (width / small.shape[1], height / small.shape[0]))
    names = sheet.section_names(tiles)
    return [
        {
            "name": names.get(number, str(number + 1)),
            "lines": [line[:, 0].tolist() for line in lines],
            "at": sheet.name_place(lines),
        }
        for number, lines in sheet.outlines(tiles, view).items()
    ]


def _tiles(tiles: Tiles) -> list[Shapes]:
    """The tiles, best first; a photograph has none, since all of it is its tile."""
    if not tiles.thumbnail().size:
        return []
    names = sheet.section_names(tiles)
    columns = (tiles.x, tiles.y, tiles.size, tiles.tissue, tiles.section)
    rows = zip(*(values.tolist() for values in columns), strict=True)
    return [
        {"x": x, "y": y, "size": size, "tissue": round(tissue, 4), "section": names.get(section, "")}
        for x, y, size, tissue, section in rows
    ]


def _attention(run: Run, row: Mapping[str, Any], tiles: Tiles) -> tuple[list[Shapes], list[str]]:
    """What each model attended to: how many times its even share each tile counted; and what is wrong."""
    found, trouble = [], []
    files = sorted(attention.folder(run).glob(f"*/*{row['split']}.npz"))
    if files and (again := run_again(run.work, "predict")):  # the tiles may be others, of the same number
        command = f"python -m kit predict {run.asked or run.name}"
        return [], [f"attention is not shown: {again} was run again after predict; type: {command}"]
    for path in files:
        seed = path.stem.rpartition("-")[0]
        try:
            shares = attention.read(path).get(row["image_id"])
        except KitError as error:
            trouble.append(f"{error.message}; {error.hint}")
            continue
        name = f"{unquote(path.parent.name)} {seed}".strip()
        if shares is not None and len(shares) != len(tiles):
            trouble.append(f"attention of {name}: the tiles are not those that were predicted from")
        elif shares is not None:
            found.append({"model": name, "times": sheet.times_even(tiles, shares).tolist()})
    return found, trouble


def _hex(colour: Sequence[int]) -> str:
    return "#" + bytes(colour).hex()
