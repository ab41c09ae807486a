"""Images of the data as small pictures inside of the page; what cannot be read is said, never fatal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2

from kit import parallel
from kit.errors import ImageError, SettingError
from kit.files import split_archive
from kit.read.budget import SPEED
from kit.read.picture import Picture as Whole
from kit.read.reader import ImageRefused, Pixels, Reader, opener
from kit.read.tiler import told
from kit.show.explore.content import Data
from kit.show.pictures import SIDE, fitted
from kit.state import Run

SLOW = 25.0  # seconds of a core above which an image is not read for a thumbnail
BROKEN = (ImageError, SettingError, MemoryError, cv2.error)  # one bad image is no reason to have no page
Made = TypeVar("Made")


@dataclass(frozen=True)
class Bad:
    """Why an image cannot be shown; status: missing, unreadable or refused."""

    status: str
    reason: str


@dataclass(frozen=True)
class Look:
    """One image as a small picture, or why there is none.

    size: width and height at level 0, px; 0 where it was not read.
    """

    image_id: str
    pixels: Pixels | None = None
    size: tuple[int, int] = (0, 0)
    bad: Bad | None = None


def looks(data: Data, ids: Sequence[str]) -> dict[str, Look]:
    """Training images as their files have them (radiographs: after their steps), the same once each."""
    wanted = list(dict.fromkeys(ids))
    found = parallel.run_all(lambda name: look(data, name), wanted, data.run.workers, "explore")
    return {one.image_id: one for one in found}


def look(data: Data, image_id: str) -> Look:
    """One training image, its longer side at most ``SIDE`` pixels."""
    path = path_of(data, image_id)
    found = attempt(data.run, path, shrunk)
    return Look(image_id, bad=found) if isinstance(found, Bad) else Look(image_id, *found)


def attempt(run: Run, path: Path, use: Callable[[Reader], Made]) -> Made | Bad:
    """What ``use`` makes of an open image."""
    try:
        with opener(run.competition.reader)(path, run.competition.tiles) as image:
            check_quick(image, path)
            return use(image)
    except BROKEN as error:
        return Bad(*told(error, path))


def check_quick(image: Reader, path: Path) -> None:
    """Refuse what a page is not worth, by its header.

    Raises:
        ImageRefused: decoding its overview takes too long.
    """
    if isinstance(image, Whole):  # it is decoded by now
        return
    seconds = image.decoded(factor_of(image.size)) / 1e6 / SPEED[image.kind]
    if seconds > SLOW:
        raise ImageRefused(
            f"{path}: it is left out, since reading it takes about {seconds:.0f} s",
            "look at it with kit view, or with kit tile --pictures",
        )


def shrunk(image: Reader) -> tuple[Pixels, tuple[int, int]]:
    """A small picture of an open image, and the size that its file has."""
    if isinstance(image, Whole):
        return fitted(image.original), (image.original.shape[1], image.original.shape[0])
    return fitted(image.overview(factor_of(image.size))), image.size


def factor_of(size: tuple[int, int]) -> int:
    """Level-0 pixels a pixel of a picture."""
    return max(1, max(size) // SIDE)


def path_of(data: Data, image_id: str) -> Path:
    """Where a training image is."""
    return Path(str(data.tables.train.loc[image_id, "path"]))


def at_hand(data: Data) -> frozenset[str]:
    """The training images of which there is a file, or an archive where it should be."""
    train = data.tables.train
    places = {name: split_archive(Path(str(path)))[0] for name, path in train["path"].items()}
    files = {place for place in set(places.values()) if place.is_file()}
    return frozenset(str(name) for name, place in places.items() if place in files)


def first_ids(data: Data, count: int) -> list[str]:
    """The first images of the training table, in the order in which it is shipped."""
    return data.raw[data.run.competition.image].astype(str).head(count).tolist()


def unread(found: Mapping[str, Look]) -> list[str]:
    """What is to be said of images that could not be read: counts by status, and the first reason of each."""
    said = []
    for status in ("missing", "unreadable", "refused"):
        bad = [
            (one.image_id, one.bad.reason) for one in found.values() if one.bad and one.bad.status == status
        ]
        if bad:
            rest = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
            said.append(f"{bad[0][0]}{rest}: {status} ({bad[0][1]})")
    return said
