"""One image as one picture: what it shows, what was found on it, and which tiles were taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kit.read.reader import Pixels, resized
from kit.read.store import Tiles
from kit.read.tissue import KINDS, TISSUE
from kit.show.layout import GAP, WHITE, Colour, bordered, framed, joined, lettering, written
from kit.show.verdict import percent

Place: TypeAlias = tuple[float, float]

HIGH = 700  # pixels of a panel's height, at most; a thumbnail is made larger, so that lines are fine
WIDE = 1500  # ... and of its width, where the two panels are one below the other
BESIDE = 1.25  # width over height up to which the panels are side by side
LEAST = 1200  # pixels of a sheet's width, so that its words have room
MARGIN = 28
STRIP = 8  # tiles that are shown, and numbered on the panel
ALONE = 600  # pixels of the longer side of a photograph
SMALL = 360  # pixels of the longer side of a thumbnail on the page
HEAT = "viridis"  # its light and dark are the same with any colour vision
SPAN = 3.0  # doublings from the middle of its scale to an end
TINT = 0.55  # how much of a pixel's colour tells its kind
INK: Colour = (29, 35, 41)
MUTED: Colour = (92, 103, 115)
# Okabe and Ito (2008): told apart with any colour vision. Tissue has the lightest; grey is not of theirs.
PALETTE: Mapping[str, Colour] = {
    "tissue": (86, 180, 233),
    "fold": (213, 94, 0),
    "blur": (240, 228, 66),
    "pen": (204, 121, 167),
    "bubble": (0, 114, 178),
    "edge": (0, 158, 115),
    "dust": (0, 0, 0),
    "border": (130, 130, 130),
}
assert set(PALETTE) == set(KINDS[1:]), "a colour a kind"


class View(NamedTuple):
    """A panel: its size in pixels, and how many of them a level-0 pixel and a stored one are."""

    width: int
    height: int
    level: Place
    stored: Place

    @classmethod
    def of(cls, tiles: Tiles, picture: Pixels, wide: float, high: float) -> View:
        """The largest panel of the picture's shape within a box."""
        height, width = picture.shape[:2]
        scale = min(wide / width, high / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        slide = max(1, tiles.header["width"]), max(1, tiles.header["height"])
        return cls(*size, (size[0] / slide[0], size[1] / slide[1]), (size[0] / width, size[1] / height))


def sheet(tiles: Tiles, title: str, facts: Iterable[str]) -> Pixels:
    """The picture of one image: its overview, what was found on it, and its first tiles.

    Args:
        tiles: from the store; of a photograph, which has no overview, its only tile is shown.
        title: its id.
        facts: what else is to be said, one line each; they are wrapped.

    Returns:
        uint8 (H, W, 3), red first.

    Raises:
        StageError: a tile or a small picture is damaged.
    """
    overview = tiles.thumbnail()
    if not overview.size:
        return _sheet(_single(tiles, ALONE), [], title, facts)

    def mark(grey: Pixels, view: View) -> Pixels:
        marked = _tinted(grey, tiles.kinds_map(), range(1, len(KINDS)))
        marked = _with_tiles(_with_sections(marked, tiles, view, 2), tiles, view, numbers=True)
        return _with_names(marked, tiles, view)

    both = _twice(tiles, overview, mark)
    width = max(both.shape[1], LEAST)
    return _sheet(both, [_legend(entries(tiles), width), *_strip(tiles, width)], title, facts)


def _twice(tiles: Tiles, overview: Pixels, mark: Callable[[Pixels, View], Pixels]) -> Pixels:
    """The overview as it is, and marked on grey, side by side or one below the other."""
    beside = overview.shape[1] <= BESIDE * overview.shape[0]
    view = View.of(tiles, overview, HIGH * BESIDE if beside else WIDE, HIGH)
    plain = resized(overview, view.width, view.height)
    return joined([framed(plain), framed(mark(_grey(plain), view))], axis=1 if beside else 0)


def small(tiles: Tiles, side: int = SMALL) -> Pixels:
    """The overview with artefacts, sections and tiles, as a thumbnail: uint8 (H, W, 3)."""
    overview = tiles.thumbnail()
    if not overview.size:
        return _single(tiles, side)
    view = View.of(tiles, overview, side, side)
    picture = resized(overview, view.width, view.height)
    picture = _tinted(picture, tiles.kinds_map(), range(TISSUE + 1, len(KINDS)))
    return _with_tiles(_with_sections(picture, tiles, view, 0), tiles, view, numbers=False)


def attended(tiles: Tiles, shares: NDArray[np.float32], title: str, facts: Iterable[str]) -> Pixels:
    """The picture of what each tile counted: over the overview, and the tiles that counted most and least.

    Args:
        tiles: from the store.
        shares: of each tile ``(T,)``, which sum to 1. Shown is how many times its even share (that of its
            weight) a tile counted.

    Returns and raises what `sheet` does, and takes the rest as it does.
    """
    overview = tiles.thumbnail()
    if not overview.size:
        return _sheet(_single(tiles, ALONE), [], title, facts)
    times = times_even(tiles, shares)
    both = _twice(tiles, overview, lambda grey, view: _with_heat(grey, tiles, view, times))
    width = max(both.shape[1], LEAST)
    order = np.argsort(-times, kind="stable").tolist()
    scale = f"1/{2**SPAN:.0f} or less on the left, 1 in the middle, {2**SPAN:.0f} or more on the right"
    below = [written([(f"Times its even share: {scale}", lettering(19), INK)], width), _bar(width)]
    for heading, chosen in (("most", order[:STRIP]), ("least", order[STRIP:][-STRIP:])):
        captions = {place: f"{place + 1} · {times[place]:.2g} ×" for place in chosen}
        below += _row(tiles, captions, f"The tiles that counted {heading}: number · times", width)
    return _sheet(both, below, title, facts)


def times_even(tiles: Tiles, shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """How many times its even share, that of its weight, each tile counted ``(T,)``."""
    return np.asarray(shares / (tiles.weight / tiles.weight.sum()).clip(1e-9), np.float32)


def small_attended(tiles: Tiles, shares: NDArray[np.float32], side: int = SMALL) -> Pixels:
    """The grey overview with the tiles in the colours of what they counted, as a thumbnail."""
    overview = tiles.thumbnail()
    if not overview.size:
        return _single(tiles, side)
    view = View.of(tiles, overview, side, side)
    grey = _grey(resized(overview, view.width, view.height))
    return _with_heat(grey, tiles, view, times_even(tiles, shares))


def heat_of(times: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours ``(..., 3)``: the logarithm of how many times its share a tile counted."""
    place = 0.5 + np.log2(np.maximum(times, 2.0**-SPAN)) / (2 * SPAN)
    found: NDArray[np.uint8] = matplotlib.colormaps[HEAT](place, bytes=True)[..., :3]
    return found


def _bar(width: int) -> Pixels:
    """The colours of the scale: uint8 (20, width, 3)."""
    return heat_of(2 ** np.tile(np.linspace(-SPAN, SPAN, width), (20, 1)))


def _with_heat(picture: Pixels, tiles: Tiles, view: View, times: NDArray[np.float32]) -> Pixels:
    """The tiles filled with the colours of what they counted, the highest on top."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    for place, colour in zip(np.argsort(times, kind="stable"), heat_of(np.sort(times)), strict=True):
        draw.rectangle(_box(tiles, view, int(place)), (*colour.tolist(), 190), (*INK, 90))
    return np.asarray(image)


def section_names(tiles: Tiles) -> dict[int, str]:
    """``1a``, ``1b``, ``2a``: the clot of a section and which of its sections it is."""
    clots: list[int] = tiles.header.get("clot_of", [])
    names, seen = {}, dict.fromkeys(clots, 0)
    for section, clot in enumerate(clots):
        names[section] = f"{clot + 1}{_letters(seen[clot])}"
        seen[clot] += 1
    return names


def _letters(number: int) -> str:
    """a to z, then aa, ab, and so on."""
    first, last = divmod(number, 26)
    return (_letters(first - 1) if first else "") + chr(ord("a") + last)


def _single(tiles: Tiles, side: int) -> Pixels:
    """The first tile in the shape of its photograph, whose longer side becomes ``side``; else a blank."""
    if not len(tiles):
        return np.full((side, side, 3), 255, np.uint8)
    width, height = int(tiles.header["width"]), int(tiles.header["height"])
    scale = side / max(width, height)
    return resized(tiles.decode([0])[0], max(1, round(width * scale)), max(1, round(height * scale)))


def _grey(picture: Pixels) -> Pixels:
    """Without its colours, and paler, so that those of the kinds are what they are in the legend."""
    grey = 64 + 0.75 * cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def _tinted(picture: Pixels, kinds: NDArray[np.uint8], codes: Iterable[int]) -> Pixels:
    """The picture with the colours of some kinds laid over it."""
    if not kinds.size:
        return picture
    size = picture.shape[1], picture.shape[0]
    shown = cv2.resize(kinds, size, interpolation=cv2.INTER_NEAREST)
    colours = np.zeros((len(KINDS), 3), np.uint8)
    for code in codes:
        colours[code] = PALETTE[KINDS[code]]
    mixed = cv2.addWeighted(picture, 1 - TINT, colours[shown], TINT, 0)
    return np.where(np.isin(shown, list(codes))[..., None], mixed, picture).astype(np.uint8)


def _with_sections(picture: Pixels, tiles: Tiles, view: View, core: int) -> Pixels:
    """The outlines of the sections: dark with a white core of some pixels."""
    picture = np.ascontiguousarray(picture)
    for lines in outlines(tiles, view).values():
        cv2.polylines(picture, lines, True, INK, core + 3 if core else 1, cv2.LINE_AA)
        if core:
            cv2.polylines(picture, lines, True, WHITE, core, cv2.LINE_AA)
    return picture


def outlines(tiles: Tiles, view: View) -> dict[int, list[NDArray[np.int32]]]:
    """The outer edges of each section, (n, 1, 2) pixels of the panel each."""
    numbers, found = tiles.sections_map(), {}
    for number in np.unique(numbers[numbers > 0]).tolist():
        mask = (numbers == number).astype(np.uint8)
        lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        found[number - 1] = [np.rint((line + 0.5) * np.array(view.stored)).astype(np.int32) for line in lines]
    return found


def _with_names(picture: Pixels, tiles: Tiles, view: View) -> Pixels:
    """The name of each section above it, within the picture."""
    image, font = Image.fromarray(picture), lettering(26, bold=True)
    draw, found = ImageDraw.Draw(image), outlines(tiles, view)
    for section, name in section_names(tiles).items():
        if section not in found:  # too small for the stored picture
            continue
        x, y = name_place(found[section])
        room = font.getlength(name) / 2 + 5
        at = float(np.clip(x, room, max(room, image.width - room))), max(y - 6, 32)
        draw.text(at, name, INK, font, anchor="ms", stroke_width=4, stroke_fill=WHITE)
    return np.asarray(image)


def name_place(lines: Sequence[NDArray[np.int32]]) -> tuple[int, int]:
    """The highest point, x and y, of the largest of a section's outlines, (n, 1, 2) each: a crumb is none."""
    points = max(lines, key=cv2.contourArea)[:, 0]
    x, y = points[points[:, 1].argmin()].tolist()
    return x, y


def _with_tiles(picture: Pixels, tiles: Tiles, view: View, numbers: bool) -> Pixels:
    """The squares of the tiles; the first, which is the best of most recipes, has the strongest line."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")  # blends with what is there
    font = lettering(17, bold=True)
    for place in reversed(range(len(tiles))):
        left, top, right, bottom = _box(tiles, view, place)
        strength = round(255 - 150 * place / max(1, len(tiles) - 1))
        line = round(np.clip(0.06 * (right - left), 1, 3))
        draw.rectangle((left, top, right, bottom), (*WHITE, 50), (*INK, strength), line)
        if numbers and place < STRIP and right - left >= 24:
            draw.text((left + 5, top + 3), str(place + 1), INK, font, stroke_width=2, stroke_fill=WHITE)
    return np.asarray(image)


def _box(tiles: Tiles, view: View, place: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a tile on a panel, within it."""
    x, y, size = (int(values[place]) for values in (tiles.x, tiles.y, tiles.size))
    right = min((x + size) * view.level[0], view.width) - 1
    bottom = min((y + size) * view.level[1], view.height) - 1
    return min(x * view.level[0], right), min(y * view.level[1], bottom), right, bottom


def entries(tiles: Tiles) -> list[tuple[str, str]]:
    """What the legend names: a kind of ``PALETTE`` or of line, and its words. Only what occurs."""
    kinds = tiles.kinds_map()
    counts = np.bincount(kinds.ravel(), minlength=len(KINDS))
    share = counts / max(1, kinds.size)
    found = [
        (kind, f"{kind} {_share(share[code])}") for code, kind in enumerate(KINDS) if code and counts[code]
    ]
    if tiles.sections_map().any():
        found.append(("section", "section: clot and letter"))
    if len(tiles):
        found.append(("tile", "tile: the first have the strongest lines" if len(tiles) > 1 else "tile"))
    return found


def _share(value: float) -> str:
    return f"< {percent(0.0001, 2)}" if value < 0.0001 else percent(value, 2)


def _legend(named: Sequence[tuple[str, str]], width: int) -> Pixels:
    """The entries in as many lines as they need: uint8 (H, width, 3)."""
    font, line = lettering(19), 34
    places: list[tuple[int, int]] = []
    x, y = 0, 0
    for _, words in named:
        room = 36 + round(font.getlength(words))
        if x and x + room > width:
            x, y = 0, y + line
        places.append((x, y))
        x += room + 30
    image = Image.new("RGB", (width, y + line if named else 1), WHITE)
    draw = ImageDraw.Draw(image)
    for (kind, words), (x, y) in zip(named, places, strict=True):
        _swatch(draw, kind, (x, y + 7, x + 26, y + 26))
        draw.text((x + 36, y + 17), words, INK, font, anchor="lm")
    return np.asarray(image)


def _swatch(draw: ImageDraw.ImageDraw, kind: str, box: tuple[int, int, int, int]) -> None:
    if kind in PALETTE:
        # As it is on the panel: over the pale grey of glass.
        mixed = tuple(round(TINT * part + (1 - TINT) * 240) for part in PALETTE[kind])
        draw.rectangle(box, mixed, MUTED)
    elif kind == "tile":
        draw.rectangle(box, WHITE, INK, 3)
    else:
        middle = (box[1] + box[3]) // 2
        for colour, line in ((INK, 6), (WHITE, 2)):
            draw.line((box[0], middle, box[2], middle), colour, line)


def _strip(tiles: Tiles, width: int) -> list[Pixels]:
    """The first tiles in a row, under a line that says how many there are; nothing of an empty slide."""
    count = min(STRIP, len(tiles))
    if not count:
        return []
    names, captions = section_names(tiles), {}
    for place in range(count):
        section = names.get(int(tiles.section[place]), "")
        tissue = percent(float(tiles.tissue[place]))
        captions[place] = f"{place + 1} · {tissue}{' · ' if section else ''}{section}"
    heading = f"The first {count} of {len(tiles)} tiles" if len(tiles) > count else "All tiles"
    return _row(tiles, captions, f"{heading}: number · tissue · section", width)


def _row(tiles: Tiles, captions: Mapping[int, str], heading: str, width: int) -> list[Pixels]:
    """Some tiles side by side, each over its words, under a heading; nothing where there are none."""
    if not captions:
        return []
    side = min((width - (STRIP - 1) * GAP) // STRIP, 2 * int(tiles.header["grid"]["size"]))
    cells = [
        joined([resized(tile, side, side), written([(words, lettering(16), MUTED)], side)], axis=0, gap=6)
        for tile, words in zip(tiles.decode(list(captions)), captions.values(), strict=True)
    ]
    return [written([(heading, lettering(19), INK)], width), joined(cells, axis=1)]


def _sheet(picture: Pixels, below: Sequence[Pixels], title: str, facts: Iterable[str]) -> Pixels:
    """Title, facts, picture and the rest, one below the other, with a margin."""
    width = max(LEAST, picture.shape[1], *(part.shape[1] for part in below), 0)
    lines = [
        (title, lettering(32, bold=True), INK),
        *((fact, lettering(20), MUTED) for fact in facts if fact),
    ]
    rows = joined([written(lines, width), picture, *below], axis=0)
    return bordered(rows, MARGIN, WHITE)
