"""One image after the other into its tiles: what is found on it, which squares are kept, what is stored."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kit import files, seeds
from kit.competition import TileGrid
from kit.errors import ImageError, KitError, SettingError
from kit.read import appearance, budget, grid, recipes, sections, shortcuts, store, tissue
from kit.read.picture import original
from kit.read.reader import ImageMissing, ImageRefused, Pixels, Reader, check_steps, opener, resized
from kit.read.recipes import Bag, Cut, Findings
from kit.state import Run

if TYPE_CHECKING:
    from kit.read.exchange import Coords

log = logging.getLogger("kit")

VERSION = 5  # of everything that decides what is stored of an image
LESS = "use fewer --workers, or a lower tile.slide_mib"
LOOKS = "appearance"  # the key of a row under which the numbers of that table are
THUMBNAIL = 512  # pixels of the longer side of what is kept of an overview, at most


@dataclass(frozen=True)
class Source:
    """An image to be tiled."""

    split: str
    image_id: str
    path: Path
    fingerprint: str  # changes when the file does
    coords: str = ""  # digest of the coordinates that are given for it; empty where there are none


class Tiler:
    """Tiles one image after the other: what is the same for all of a run's images."""

    def __init__(self, run: Run) -> None:
        self.wanted: TileGrid = run.competition.tiles
        self.reader = run.competition.reader
        self.open_image = opener(self.reader)
        check_steps(self.reader, self.wanted.steps)
        self.seed = run.seed
        self.folder = run.folder("tile")
        self.coords = run.coords

    def done(self, source: Source) -> dict[str, Any] | None:
        """The row of an image whose tiles are stored already, else None."""
        tiles = store.find(self._path(source), self.key(source))
        return None if tiles is None else self._row(source, tiles)

    def tile(self, source: Source) -> dict[str, Any]:
        """Read one image and store its tiles; of a bad one, the row says what is wrong.

        Another worker, since killed, may have stored them before.
        """
        known = self.done(source)
        if known is not None:
            return known
        try:
            with self.open_image(source.path, self.wanted) as image:
                tiles = self._bag(source, image) if image.tileable else self._single(source, image)
        # None of these is a bug of ours: one bad slide is no reason to lose the others.
        except (ImageError, SettingError, MemoryError, cv2.error) as error:
            self._path(source).unlink(missing_ok=True)  # of the file as it was before it went bad
            return _failed(source, *told(error, source.path))
        store.write(self._path(source), tiles)
        return self._row(source, tiles)

    def lost(self, source: Source) -> dict[str, Any]:
        """The row of an image that ended every process that read it."""
        known = self.done(source)  # it was stored, and whoever did it died later
        if known is not None:
            return known
        self._path(source).unlink(missing_ok=True)
        return _failed(source, "unreadable", f"every worker that read it was killed; {LESS}")

    def _bag(self, source: Source, image: Reader) -> store.Tiles:
        """The best tiles of a slide, within its budget."""
        given = None if self.coords is None else corners(self.coords, source, image, self.wanted.size)
        counted = None if given is None else budget.Given(len(given), given.size)
        wanted, note = budget.within(image, self.wanted, counted)
        found = look(image, wanted)
        recipe = recipes.RECIPES[wanted.recipe]
        if given is not None:
            recipe = recipes.given(given.x, given.y, given.size)
        cuts: list[Cut] = []
        bag = recipe(image, found, wanted, seeds.rng(self.seed, "tiles", source.image_id))
        streams = [store.encode(pixels) for pixels in _noting(bag, cuts)]
        header = self._header(source, image, found.tissue.share, found.tissue.background)
        header |= {"grid": deciding(wanted), "note": note, "removed": _removed(found.tissue)}
        header |= shortcuts.measure(found.overview, found.tissue.mask)
        header["clot_of"] = [] if found.sections is None else found.sections.clot.tolist()
        header["reason"] = "" if cuts else why_empty(image, found, wanted, given is not None)
        rows = [(cut.x, cut.y, cut.side, cut.section, cut.clot) for cut in cuts]
        x, y, size, section, clot = np.array(rows, np.int64).reshape(-1, 5).T
        share = np.array([cut.tissue for cut in cuts], np.float32)
        weight = clot_weights(section, clot)
        return store.packed(
            header, streams, x, y, size, share, section=section, clot=clot, weight=weight, **_pictures(found)
        )

    def _single(self, source: Source, image: Reader) -> store.Tiles:
        """A photograph as its only tile, squeezed to a square; ``size`` is its longer side.

        The tile is its overview too. All of a photograph counts as tissue; where its background is,
        only the shortcuts ask. They, and all that is told of its looks, are those of the file: steps may hide
        from a network what tells the classes apart, and they may not hide it from the table.
        """
        side = self.wanted.size
        pixels = resized(image.overview(1), side, side)
        shipped = original(image)
        whole = resized(shipped, side, side)
        background = tissue.background_colour(whole)
        header = self._header(source, image, 1.0, background)
        header |= {"width": shipped.shape[1], "height": shipped.shape[0]}
        header |= shortcuts.measure(whole, tissue.tissue_mask(whole, background))
        header["appearance"] = appearance.measure(shipped)
        zero, longer = np.zeros(1, np.int64), np.array([max(image.size)])
        return store.packed(header, [pixels], zero, zero, longer, np.ones(1, np.float32))

    def _header(self, source: Source, image: Reader, share: float, background: Pixels) -> dict[str, Any]:
        return {
            "key": self.key(source),
            "version": VERSION,
            "fingerprint": source.fingerprint,
            "reader": self.reader,
            "read_by": image.how,
            "grid": deciding(self.wanted),
            "seed": self.seed,
            "width": image.size[0],
            "height": image.size[1],
            "tissue": round(share, 6),
            "background": "#" + background.tobytes().hex(),
        }

    def key(self, source: Source) -> str:
        """Everything that the tiles of an image depend on."""
        settings = [VERSION, budget.SETTINGS, self.reader, deciding(self.wanted), self.seed]
        if self.coords is not None:
            settings.append(source.coords)
        return files.digest([*settings, source.image_id, source.fingerprint])

    def _path(self, source: Source) -> Path:
        return store.path_of(self.folder, source.split, source.image_id)

    def _row(self, source: Source, tiles: store.Tiles) -> dict[str, Any]:
        head = tiles.header
        if len(tiles):
            return _row_of(source, "ok", "", head, len(tiles))
        return _failed(source, "empty", head["reason"], head)


def deciding(wanted: TileGrid) -> dict[str, Any]:
    """The settings that decide what is stored of an image: which images are tiled is none of them."""
    content = dataclasses.asdict(wanted)
    del content["extra"]
    return content


def told(error: Exception, path: Path) -> tuple[str, str]:
    """Status and reason of an image that has no tiles: missing, refused or unreadable, and what to do."""
    if isinstance(error, MemoryError):
        return "unreadable", f"it does not fit into memory; {LESS}"
    if not isinstance(error, KitError):
        what = " ".join(str(getattr(error, "err", error)).split())
        return "unreadable", f"OpenCV cannot work on it: {what}; look at it: is it a slide? Else {LESS}"
    kinds = {ImageMissing: "missing", ImageRefused: "refused", SettingError: "refused"}
    # The same text wherever the data is, since the row is part of the stage's result.
    parts = (error.message.removeprefix(f"{path}: "), error.hint)
    return kinds.get(type(error), "unreadable"), "; ".join(" ".join(part.split()) for part in parts if part)


def coords_digest(folder: Path, split: str, image_id: str) -> str:
    """A digest of the coordinates that are given for an image; empty where there are none.

    Raises:
        DataError: their file breaks a rule.
    """
    from kit.read.exchange import find_coords  # h5py is imported for those who bring such files

    found = find_coords(folder, split, image_id)
    return "" if found is None else f"{found.digest} {found.width} {found.height}"


def corners(folder: Path, source: Source, image: Reader, size: int) -> Coords:
    """The squares that are given for an image, all of them on it.

    Args:
        size: pixels of a stored tile, each side.

    Raises:
        ImageRefused: there are none, or they are not of this slide, or absurdly small or large.
        DataError: their file breaks a rule.
    """
    from kit.read.exchange import find_coords

    found = find_coords(folder, source.split, source.image_id)
    if found is None:
        raise ImageRefused(f"{source.path}: the folder of --import has no coordinates for it",
                           "write them too, or leave --import out")  # fmt: skip
    given, real = (found.width, found.height), image.size
    other = any(said not in (0, length) for said, length in zip(given, real, strict=True))
    if other or (len(found) and (found.x.max() >= real[0] or found.y.max() >= real[1])):
        said = f"are of a slide of {given[0]} x {given[1]}" if other else "lie outside"
        raise ImageRefused(
            f"{source.path}: its coordinates {said}, and it has {real[0]} x {real[1]} pixels",
            "are they of another slide, or of another level?",
        )
    least, most = (round(scale * size) for scale in grid.SCALES)
    if not least <= found.size <= most:
        raise ImageRefused(
            f"{source.path}: its coordinates are of squares of {found.size} px, and tiles of {size} px are"
            f" cut from {least} to {most} px",
            "type --set tile.size= something nearer",
        )
    return found


def why_empty(image: Reader, found: Findings, wanted: TileGrid, given: bool) -> str:
    """Why a slide that was read has no tiles."""
    tissue, share = found.tissue, f"{found.tissue.share:.2%} of the slide is tissue"
    if given:
        return "the coordinates that are given for it are none"
    if not tissue.mask.any():
        return "no tissue was found on it"
    if not tissue.usable.any():
        return f"{share}, and none of it is fit for tiles"
    if wanted.recipe == "roi" and found.sections is not None and not len(found.sections.clot):
        return f"{share}, and no section was found"
    side = grid.side_of(wanted, image.mpp) if wanted.recipe == "grid" else 0
    if side:
        squares = grid.candidates(image.size, side, wanted.overlap)
        if grid.shares(tissue.usable, *squares, side, found.factor).max() <= grid.LEAST:
            return f"{share}, and no square of {side} px has more than {grid.LEAST:.0%}"
    least = recipes.LOW_CONTRAST if wanted.recipe == "by-aspect" else 0
    return f"{share}, and no tile has a contrast of {max(wanted.contrast, least):g} or more"


def _noting(bag: Bag, cuts: list[Cut]) -> Iterator[Pixels]:
    """The pictures of a bag; where they were cut is added to ``cuts``."""
    for cut, pixels in bag:
        cuts.append(cut)
        yield pixels


def look(image: Reader, wanted: TileGrid) -> Findings:
    """Find the tissue, the artefacts and the sections of a slide on its overview."""
    factor = grid.overview_factor(image.size, wanted.overview)
    overview = image.overview(factor)
    found = tissue.find(overview, detail=image.detail(factor))
    marked = sections.sections(overview, found.mask) if wanted.sections else None
    return Findings(overview, factor, found, marked)


def clot_weights(section: store.Integers, clot: store.Integers) -> NDArray[np.float32]:
    """What tiles count in their bag: 1 / the number of sections of their clot that have tiles.

    So the sections of a clot are averaged, and a clot that was cut four times counts like any other.

    >>> clot_weights(np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1])).tolist()
    [0.5, 0.5, 0.5, 1.0]
    """
    pairs = np.unique(np.stack([clot, section]), axis=1)
    count = np.bincount(pairs[0], minlength=1)
    return np.asarray(1 / np.maximum(count, 1)[clot], np.float32)


def _pictures(found: Findings) -> dict[str, NDArray[Any]]:
    """The small pictures that are kept of a slide, so that looking at it does not read it again."""
    step = max(1, -(-max(found.overview.shape[:2]) // THUMBNAIL))
    kinds = found.tissue.kinds[::step, ::step]
    small = resized(found.overview, kinds.shape[1], kinds.shape[0])
    pictures: dict[str, NDArray[Any]] = {"overview": small, "kinds": kinds}
    if found.sections is not None:
        pictures["sections"] = found.sections.labels[::step, ::step]
    return pictures


def _removed(found: tissue.Tissue) -> list[list[Any]]:
    """Kind, share and box of every region that is not fit for tiles."""
    return [[region.kind, round(region.share, 6), list(region.box)] for region in found.removed]


def _failed(
    source: Source, status: str, reason: str, head: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    log.warning("image '%s' is %s (%s): %s", source.image_id, status, source.path, reason)
    return _row_of(source, status, reason, head or {}, 0)


def _kinds_removed(head: Mapping[str, Any]) -> str:
    """How much of a slide is not fit for tiles, by kind: ``fold 1.20%, pen 0.31%``."""
    total: dict[str, float] = {}
    for kind, share, _ in head.get("removed", []):
        total[kind] = total.get(kind, 0.0) + share
    return ", ".join(
        f"{kind} {share:.2%}" for kind, share in sorted(total.items(), key=lambda item: -item[1])
    )


def _row_of(source: Source, status: str, reason: str, head: Mapping[str, Any], count: int) -> dict[str, Any]:
    """What ``images.csv`` says of an image; and how it looks, for a table of its own."""
    return {
        "image_id": source.image_id,
        "split": source.split,
        "width": head.get("width", 0),
        "height": head.get("height", 0),
        "tissue": head.get("tissue", 0.0),
        "background": head.get("background", ""),
        **{name: head.get(name) for name in shortcuts.COLUMNS},
        "sections": len(head.get("clot_of", [])),
        "clots": len(set(head.get("clot_of", []))),
        "removed": _kinds_removed(head),
        "tiles": count,
        "status": status,
        "reason": reason,
        "read_by": head.get("read_by", ""),
        "note": head.get("note", ""),
        LOOKS: head.get("appearance", {}),
    }
