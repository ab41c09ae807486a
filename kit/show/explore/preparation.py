"""From a file to what a network sees: preprocessing before and after, and the declared augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from kit import seeds
from kit.competition import Competition
from kit.read import budget, recipes
from kit.read.density import Mask
from kit.read.reader import Pixels, Reader, opener, resized
from kit.read.steps import STEPS, apply
from kit.read.tiler import look as slide_findings
from kit.show.explore.content import Data, Fact, Gallery, Section, Words
from kit.show.explore.pictures import Bad, at_hand, attempt, path_of, shrunk
from kit.show.pictures import Picture, fitted, picture
from kit.show.sheet import PALETTE
from kit.show.verdict import percent

DRAWS = 11  # of the augmentation, beside the tile itself
TRIED = 24  # images that are looked at until one can be read
FILE = {"radiograph": "the values of the file: least black, greatest white"}
AFTER = {"roi": ("grey", "sharpen", "roi")}  # steps that mean nothing without those before them
GLASS = 0.35  # how much of the picture is left where there is no tissue


@dataclass(frozen=True)
class Shot:
    """One picture on the way, and what has been done to it."""

    pixels: Pixels
    words: str


@dataclass(frozen=True)
class Way:
    """The pictures of one image on its way to a network, and the tile at its end, where there is one."""

    image_id: str
    shots: tuple[Shot, ...]
    tile: Pixels | None
    facts: dict[str, Fact]


def section(data: Data) -> Section | None:
    """Preprocessing and augmentation of the first image that can be read; ``None``: none is to be read."""
    if not data.images:
        return None
    way = first_way(data)
    if not isinstance(way, Way):
        reason = f" ({way.reason})" if way else ""
        said = f"No image is at hand that could be prepared{reason}: give --data the folder with its images."
        return Section("preparation", "What a network sees", (Words(said),), {"shown": 0})
    task = data.run.competition
    blocks: list[Words | Gallery] = [Words(_said(task)), _gallery(f"{way.image_id}, step by step", way.shots)]
    facts: dict[str, Fact] = {"image_id": way.image_id, "shown": len(way.shots), **way.facts}
    others = other_steps(data, way.image_id)
    if others:
        blocks.append(_gallery("Every step that a photograph may take (tile.steps), each alone", others))
    if way.tile is not None:
        draws = augmented(data, way.image_id, way.tile)
        blocks += [Words(_augmentation(task)), _gallery(f"One tile, and {DRAWS} draws of it", draws)]
        facts |= {"preset": task.training.preset, "strength": task.training.augment, "draws": len(draws) - 1}
    return Section("preparation", "What a network sees", tuple(blocks), facts)


def first_way(data: Data) -> Way | Bad | None:
    """The way of the first image that can be read; else why the first one cannot; ``None``: none is there."""
    bad: Bad | None = None
    task = data.run.competition
    names, known = data.raw[task.image].astype(str), at_hand(data)
    for name in [name for name in names if name in known][:TRIED]:
        way = way_of(data, name)
        if isinstance(way, Way):
            return way
        bad = bad or way
    return bad


def way_of(data: Data, name: str) -> Way | Bad:
    """One image on its way to a network."""
    path = path_of(data, name)

    def way(image: Reader) -> Way:
        return (
            _slide(data, name, image) if image.tileable else _single(data.run.competition, path, name, image)
        )

    return attempt(data.run, path, way)


# --- a photograph or a radiograph: its steps, one after the other ----------------------------------------


def _single(task: Competition, path: Path, name: str, image: Reader) -> Way:
    """The file, then what each declared step makes of it, then the square that is stored."""
    shots, before = [], np.zeros(0, np.uint8)
    for n in range(len(task.tiles.steps) + 1):
        pixels = image.overview(1) if n == len(task.tiles.steps) else _after(task, path, n)
        same = np.array_equal(before, pixels)
        words = f"{n}. {task.tiles.steps[n - 1]}" if n else FILE.get(task.reader, "the file as it is")
        shots.append(Shot(fitted(pixels), f"{words}: changes nothing here" if same else words))
        before = pixels
    tile = resized(image.overview(1), task.tiles.size, task.tiles.size)
    shots.append(Shot(tile, f"the tile: {task.tiles.size} × {task.tiles.size} px"))
    return Way(name, tuple(shots), tile, {"steps": list(task.tiles.steps)})


def _after(task: Competition, path: Path, count: int) -> Pixels:
    """An image after the first ``count`` of the declared steps."""
    with opener(task.reader)(path, replace(task.tiles, steps=task.tiles.steps[:count])) as image:
        return image.overview(1)


def other_steps(data: Data, name: str) -> list[Shot]:
    """What each step of photographs makes of one, alone; nothing where the reader is another."""
    if data.run.competition.reader != "photo":
        return []
    found = attempt(data.run, path_of(data, name), shrunk_original)
    if isinstance(found, Bad):
        return []
    chains = {name: AFTER.get(name, (name,)) for name in STEPS}
    return [Shot(fitted(apply(found, chain)), ", ".join(chain)) for chain in chains.values()]


def shrunk_original(image: Reader) -> Pixels:
    """A photograph as its file has it, not larger than a picture on the page."""
    return shrunk(image)[0]


# --- a slide: background, tissue, tile --------------------------------------------------------------------


def _slide(data: Data, name: str, image: Reader) -> Way:
    """The overview, the glass and the tissue on it, its best tile, and the notebook's grey."""
    wanted, _ = budget.within(image, data.run.competition.tiles)
    found = slide_findings(image, wanted)
    colour = "#" + found.tissue.background.tobytes().hex()
    share = found.tissue.share
    shots = [
        Shot(fitted(found.overview), f"overview, {found.factor} level-0 px a pixel"),
        Shot(_swatch(found.tissue.background), f"the colour of its glass: {colour}"),
        Shot(_marked(found.overview, found.tissue.mask), f"tissue: {percent(share, 2)} of the slide"),
    ]
    rng = seeds.rng(data.run.seed, "tiles", name)
    tile = next((pixels for _, pixels in recipes.RECIPES[wanted.recipe](image, found, wanted, rng)), None)
    if tile is not None:
        shots.append(
            Shot(tile, f"the first tile of recipe {wanted.recipe}: {wanted.size} × {wanted.size} px")
        )
    grey = np.rint(255 * recipes.seed_overview(image)).astype(np.uint8)
    shots.append(Shot(fitted(np.repeat(grey, 3, axis=2)), "recipe seed-overview: 5 %, grey, blurred"))
    return Way(name, tuple(shots), tile, {"background": colour, "tissue": share, "recipe": wanted.recipe})


def _swatch(colour: Pixels) -> Pixels:
    return np.tile(colour.reshape(1, 1, 3), (96, 96, 1))


def _marked(overview: Pixels, mask: Mask) -> Pixels:
    """The tissue as it is within an outline, and all else pale and grey, at the size that is shown."""
    small = fitted(overview)
    size = small.shape[1], small.shape[0]
    tissue = np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA), np.uint8)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[:, :, None]
    pale = (255 - GLASS * (255 - grey.astype(np.float32))).astype(np.uint8)
    marked = np.ascontiguousarray(np.where(tissue[:, :, None] > 0, small, pale))
    lines, _ = cv2.findContours(tissue, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(marked, lines, -1, PALETTE["bubble"], 1, cv2.LINE_AA), np.uint8)


# --- augmentation -----------------------------------------------------------------------------------------


def augmented(data: Data, name: str, tile: Pixels) -> list[Shot]:
    """The tile, and what the declared augmentation makes of it, drawn again and again."""
    from kit.learn import augment  # imported where a tile is shown: it takes seconds

    training = data.run.competition.training
    way = augment.make(training.augment, training.preset)
    draws = [augment.apply(way, tile[None], data.run.seed, "explore", name, n)[0] for n in range(DRAWS)]
    return [Shot(tile, "as it is stored"), *(Shot(made, f"draw {n}") for n, made in enumerate(draws, 1))]


def _augmentation(task: Competition) -> str:
    training = task.training
    if not training.augment:
        return "The declaration asks for no augmentation (train.augment=0)."
    seen = "tiles as they are"
    if training.views > 1:
        seen = f"the mean of {training.views} views of a tile, turned or mirrored (train.views)"
    # Every preset turns by any right angle and mirrors.
    upright = " Radiographs are turned upside down and mirrored too: left is then right."
    return (
        f"Training shows a tile differently each time: train.preset={training.preset} at"
        f" train.augment={training.augment:g}, drawn anew by image and epoch."
        f"{upright if task.reader == 'radiograph' else ''} That is for encoders that learn; a frozen one sees"
        f" {seen}. Split first, then augment: a turned copy in another fold is a leak."
    )


def _said(task: Competition) -> str:
    steps = ", ".join(task.tiles.steps) or "none"
    if task.reader == "slide":
        return (
            "The glass is estimated on each slide, since its colour differs from scanner to scanner; tissue"
            " is what is denser than it, and tiles are cut where there is enough of it."
        )
    return f"Steps that are declared (tile.steps): {steps}. Then the picture is made square for the network."


def _gallery(caption: str, shots: Iterator[Shot] | tuple[Shot, ...] | list[Shot]) -> Gallery:
    return Gallery(caption, tuple(_shown(shot) for shot in shots))


def _shown(shot: Shot) -> Picture:
    pixels = np.ascontiguousarray(fitted(shot.pixels))
    return picture(pixels, shot.words, shot.words)
