"""Pictures of what the stage ``tile`` has done, from what it stored: no image is read again.

``WORK/<name>/pictures/`` gets one picture an image, and ``index.html``, a contact sheet of them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import pandas as pd

from kit import parallel
from kit.errors import KitError, SettingError, StageError, did_you_mean, listed
from kit.files import write_bytes, write_text
from kit.read import store
from kit.read.reader import Pixels
from kit.read.tiles import load_images
from kit.show import sheet
from kit.show.page import render
from kit.show.verdict import count, percent
from kit.state import Run

HEAVY = 25_000  # bytes of a thumbnail, at most: a page of 750 is then below 20 MB
QUALITIES = (75, 60, 45, 30, 15, 5)
PNG = (
    cv2.IMWRITE_PNG_COMPRESSION,
    3,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_PAETH,
)  # small and quick
ABSENT = ("missing", "unreadable", "refused")  # of these nothing is stored


@dataclass(frozen=True)
class Card:
    """One image on the page.

    status: ``ok``, or why it has no tiles; ``damaged`` where its store cannot be read any more.
    picture, thumbnail: relative to the page; empty where nothing could be drawn.
    size: of the thumbnail, in pixels.
    """

    image_id: str
    split: str
    label: str
    status: str
    reason: str
    note: str
    facts: str
    picture: str = ""
    thumbnail: str = ""
    size: tuple[int, int] = (0, 0)


def pictures(run: Run, ids: Sequence[str] = ()) -> str:
    """Draw the images, and write the page unless only some of them are asked for.

    Args:
        ids: of the images to draw; all if there are none.

    Returns:
        what the console prints.

    Raises:
        SettingError: there is no image of such an id.
        StageError: the stage has not been run.
        StorageError: the disk is full, or the folder cannot be written.
    """
    rows = _rows(run, ids)
    draw = partial(_drawn, run.folder("tile"), run.folder("pictures"), _labels(run))
    cards = parallel.run_all(draw, rows, run.workers, "pictures")
    if not ids:
        write_text(run.folder("pictures") / "index.html", page(run, cards))
    return _said(run, cards, bool(ids))


def page(run: Run, cards: Sequence[Card]) -> str:
    """The contact sheet as text: what went wrong first, then all images by id."""
    return render(
        "tiles.html.j2",
        alone=False,
        run=run,
        counts=_counts(cards),
        failed=[card for card in cards if card.status != "ok"],
        noted=[card for card in cards if card.note and card.status == "ok"],
        shown=[card for card in cards if card.picture],
        several=len({card.split for card in cards}) > 1,
        labelled=any(card.label for card in cards),
    )


def facts(head: dict[str, Any], tiles: store.Tiles) -> list[str]:
    """What a picture says of its image below the title: lines of words.

    Args:
        head: the image's row of ``images.csv``, and its label.
        tiles: from the store.
    """
    width, height, side = head["width"], head["height"], int(tiles.header["grid"]["size"])
    about = [head["split"], head["label"], f"{width:,} × {height:,} px ({_area(width * height)})"]
    about.append(f"read by {head['read_by']}" if head.get("read_by") else "")
    scale = f" of {side} px, {_scales(tiles, side)} level-0 px a pixel" if len(tiles) else ""
    return [" · ".join(filter(None, about)), f"{_summary(head)}{scale}", head["reason"], head.get("note", "")]


def _scales(tiles: store.Tiles, side: int) -> str:
    """Level-0 pixels a tile pixel: one number, or from the finest tile to the coarsest."""
    return " to ".join(dict.fromkeys(f"{size / side:.4g}" for size in (tiles.size.min(), tiles.size.max())))


def _rows(run: Run, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of ``images.csv`` to draw, by id and split."""
    images = load_images(run).sort_values(["image_id", "split"])
    known = set(images["image_id"])
    for name in ids:
        if name not in known:
            where = run.folder("tile") / "images.csv"
            raise SettingError(f"there is no image '{name}' in {where}", _hint(name, known))
    chosen = images[images["image_id"].isin(set(ids))] if ids else images
    found: list[dict[str, Any]] = chosen.to_dict("records")  # type: ignore[assignment]
    return found


def _hint(name: str, known: set[str], most: int = 20) -> str:
    """Of hundreds of ids only the first ones are listed, after the one that was meant."""
    hint = did_you_mean(name, known)
    return hint if len(known) <= most else f"{hint[: 40 * most].rsplit(', ', 1)[0]}, ... ({len(known)} ids)"


def _labels(run: Run) -> dict[str, str]:
    """What the tables say of training images, and of those without a label of the task, by image.

    Nothing where the tables are not at hand any more.
    """
    try:
        tables = [run.tables.train, run.tables.extra]
    except KitError:
        return {}
    labels = pd.concat([table["label"] for table in tables if table is not None])
    return {str(image_id): str(label) for image_id, label in labels.items()}


def _drawn(source: Path, target: Path, labels: dict[str, str], row: dict[str, Any]) -> Card:
    """Draw one image from its store, unless nothing is stored of it."""
    split, image_id = row["split"], row["image_id"]
    head = row | {"label": "" if split == "test" else labels.get(image_id, "")}
    card = partial(Card, image_id, split, head["label"], note=head.get("note", ""), facts=_summary(head))
    paths = [store.path_of(target / kind, split, image_id) for kind in ("images", "small")]
    picture, thumbnail = (path.with_suffix(end) for path, end in zip(paths, (".png", ".webp"), strict=True))
    try:
        if row["status"] in ABSENT:
            raise StageError(row["reason"])
        tiles = store.read(store.path_of(source, split, image_id))
        drawn, light = sheet.sheet(tiles, image_id, facts(head, tiles)), sheet.small(tiles)
    except StageError as error:
        for path in (picture, thumbnail):  # of the image as it was before it went bad
            path.unlink(missing_ok=True)
        if row["status"] in ABSENT:
            return card(row["status"], row["reason"])
        return card("damaged", f"{error.message}; {error.hint}")
    write_bytes(picture, store.encode(drawn, ".png", PNG))
    write_bytes(thumbnail, webp(light))
    links = [quote(path.relative_to(target).as_posix()) for path in (picture, thumbnail)]
    return card(row["status"], row["reason"], picture=links[0], thumbnail=links[1], size=light.shape[1::-1])


def webp(picture: Pixels) -> bytes:
    """As WebP of the best quality that is light enough."""
    for quality in QUALITIES:
        stream = store.encode(picture, ".webp", (cv2.IMWRITE_WEBP_QUALITY, quality))
        if len(stream) <= HEAVY:
            break
    return stream


def _summary(row: dict[str, Any]) -> str:
    """Tissue, sections and tiles of an image in a few words."""
    sections, clots = int(row.get("sections") or 0), int(row.get("clots") or 0)
    words = [f"tissue {percent(row['tissue'], 1)}"]
    if sections:
        words.append(f"{count(sections, 'section')} of {count(clots, 'clot')}")
    return " · ".join([*words, count(row["tiles"], "tile")])


def _area(pixels: int) -> str:
    """Pixels as giga- or megapixels.

    >>> _area(1_905_000_000), _area(120_000)
    ('1.91 Gpx', '0.12 Mpx')
    """
    return f"{pixels / 1e9:.2f} Gpx" if pixels >= 1e8 else f"{pixels / 1e6:.2f} Mpx"


def _counts(cards: Sequence[Card]) -> str:
    """How many images there are, and how many of each status: ``3 images: 2 ok, 1 empty``."""
    counts = Counter(card.status for card in cards)
    return f"{count(len(cards), 'image')}: " + ", ".join(
        f"{n:,} {status}" for status, n in counts.most_common()
    )


def _said(run: Run, cards: Sequence[Card], some: bool) -> str:
    """Where the pictures are, how many, and what could not be drawn."""
    folder = run.folder("pictures")
    drawn, left = [card for card in cards if card.picture], [card for card in cards if not card.picture]
    lines = [f"pictures: {len(drawn):,} of {count(len(cards), 'image')} drawn in {folder / 'images'}"]
    lines.append(_counts(cards))
    if left:
        lines.append("without a picture:")
        lines.append(listed([f"{card.image_id} ({card.status}): {card.reason}" for card in left]))
    if some:
        lines += [
            str(store.path_of(folder / "images", c.split, c.image_id).with_suffix(".png")) for c in drawn
        ]
    else:
        lines.append(f"all of them: {folder / 'index.html'}")
    return "\n".join(lines)
