"""Images to look at: the first ones, one of every class, and the largest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from kit import seeds
from kit.boxes import CORNERS, has_box
from kit.combine.annotations_text import series
from kit.read.reader import Pixels
from kit.show.explore.content import Block, Data, Fact, Gallery, Section, Words
from kit.show.explore.pictures import Look, at_hand, first_ids, looks, unread
from kit.show.pictures import Picture, picture

CLASSES = 24  # of which an example is shown, at most
LINE, HALO = (255, 170, 51), (20, 20, 20)  # of a box on a picture, and around its line
TYPE = "give --data the folder as it is shipped, with its images"


def first(data: Data) -> Section | None:
    """The first images of the table with their labels; ``None``: no image is to be read."""
    if not data.images:
        return None
    ids, known, which = first_ids(data, data.images), at_hand(data), ""
    if known.isdisjoint(ids):
        ids = [name for name in first_ids(data, len(data.raw)) if name in known][: data.images]
        which = " that are at hand"
    if not ids:
        return Section("first", "The first images", (Words(f"No image is at hand: {TYPE}."),), {"shown": 0})
    found, labels = looks(data, ids), data.tables.train["label"]
    shown = [
        photograph(found[name], f"{labels[name]} · {name}") for name in ids if found[name].pixels is not None
    ]
    blocks: tuple[Block, ...] = (Gallery(f"The first {len(ids)} of the training table{which}", tuple(shown)),)
    facts: dict[str, Fact] = {"wanted": len(ids), "shown": len(shown)}
    facts["images"] = {name: [*found[name].size, str(labels[name])] for name in ids}
    return Section("first", "The first images", (*blocks, *_not_read(found)), facts)


def by_class(data: Data) -> Section | None:
    """One image of every class, drawn at random, findings with their boxes; ``None``: none is to be read."""
    if not data.images:
        return None
    known = at_hand(data)
    chosen = chosen_of(data, known)
    if known.isdisjoint(chosen.values()):
        said = f"No image of any class is at hand: {TYPE}."
        return Section(
            "examples", "An image of every class", (Words(said),), {"classes": len(chosen), "shown": 0}
        )
    found = looks(data, list(chosen.values()))
    shown = [
        example(data, kind, found[name]) for kind, name in chosen.items() if found[name].pixels is not None
    ]
    said = f"Drawn at random (seed {data.run.seed}) from the images of a class that are at hand."
    gallery = Gallery("One of each class", tuple(shown))
    facts: dict[str, Fact] = {"classes": len(chosen), "shown": len(shown), "images": dict(chosen)}
    return Section("examples", "An image of every class", (Words(said), gallery, *_not_read(found)), facts)


def largest(data: Data) -> Section | None:
    """The image with the most pixels; ``None``: it is not at hand, or no image is larger than another."""
    sizes = data.sizes.dropna()
    areas = sizes["width"] * sizes["height"]
    if not data.images or areas.nunique() < 2:
        return None
    name = str(areas.idxmax())
    if name not in at_hand(data):
        return None
    look = looks(data, [name])[name]
    label = str(data.tables.train.loc[name, "label"])
    shown = [] if look.pixels is None else [photograph(look, f"{label} · {name}")]
    gallery = [Gallery(f"Of {len(sizes):,} images whose size is known", tuple(shown))] if shown else []
    facts: dict[str, Fact] = {"image_id": name, "size": list(look.size)}
    return Section("largest", "The largest image", (*gallery, *_not_read({name: look})), facts)


def chosen_of(data: Data, known: frozenset[str]) -> dict[str, str]:
    """An image of each class, or of each finding where there are findings, by class; at hand, if any is."""
    rng = seeds.rng(data.run.seed, "explore", "examples")
    found = {}
    for kind, ids in _by_kind(data):
        order = [ids[n] for n in rng.permutation(len(ids))]
        found[kind] = next((name for name in order if name in known), order[0])
    return found


def _by_kind(data: Data) -> Iterable[tuple[str, list[str]]]:
    """The images of each class, in the order of the class names."""
    table = data.findings
    if table is None:
        train = data.tables.train
        kinds: pd.Series[str] = train["label"]
        ids = train.index.to_series()
    else:
        table = table.drop_duplicates(["image_id", "finding"])
        kinds, ids = table["finding"], table["image_id"]
    for kind in sorted(kinds.unique())[:CLASSES]:
        yield str(kind), sorted(ids[kinds == kind])


def example(data: Data, kind: str, look: Look) -> Picture:
    """An image of a class, with the boxes that are of that class."""
    assert look.pixels is not None
    if data.findings is None:
        return photograph(look, f"{kind} · {look.image_id}")
    table = data.findings
    mine = table[(table["image_id"] == look.image_id) & (table["finding"] == kind)]
    readers = series(sorted(mine["reader"].unique()))
    corners = mine.loc[has_box(mine), list(CORNERS)].to_numpy() / np.tile(look.size, 2)
    marked = Look(look.image_id, boxed(look.pixels, corners), look.size)
    return photograph(marked, f"{kind} · {look.image_id} · {readers}")


def photograph(look: Look, words: str) -> Picture:
    """A picture with its size below."""
    assert look.pixels is not None
    width, height = look.size
    return picture(look.pixels, f"{words} · {width:,} × {height:,} px", words)


def boxed(pixels: Pixels, corners: np.ndarray) -> Pixels:
    """With boxes ``(n, 4)``, in shares of width and height, drawn on it."""
    image = Image.fromarray(pixels)
    draw, size = ImageDraw.Draw(image), np.tile(image.size, 2)
    for colour, wide in ((HALO, 3), (LINE, 2)):
        for left, top, right, bottom in np.clip(corners, 0, 1) * (size - 1):
            draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=wide)
    return np.asarray(image)


def _not_read(found: Mapping[str, Look]) -> Sequence[Words]:
    """A sentence about what could not be read."""
    bad = unread(found)
    return [Words("Not shown: " + "; ".join(bad) + ".")] if bad else []
