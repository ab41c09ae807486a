"""Pictures of units: the most wrong, the best and the least sure ones, and all that are misclassified.

Each is one image of its unit as the store has it. Where the images, tiles or weights are not at hand, a
sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kit.errors import StageError
from kit.show import diagnosis
from kit.show.diagnosis import Scored
from kit.show.results import Results, without_folders
from kit.show.verdict import count, number

if TYPE_CHECKING:
    from kit.read.store import Tiles
    from kit.show.explained import Looks
    from kit.show.pictures import Picture

EACH = 4  # units of a kind that are explained
MISTAKES = 24  # misclassified units that are shown
SIDE = 240  # pixels of a thumbnail
ELSEWHERE = "There are no pictures: the predictions were made elsewhere, so no image was read."


@dataclass(frozen=True)
class Card:
    """One unit: who it is, what was said of it, and its pictures."""

    unit: str
    image: str
    label: str
    called: str
    said: str
    loss: str
    site: str
    pictures: list[Picture]
    note: str = ""


def section(results: Results) -> dict[str, Any]:
    """The kinds of units with their cards, and the gallery of mistakes; else why there are none."""
    reason = _absent(results)
    if reason:
        return {"reason": reason, "kinds": [], "mistakes": [], "notes": []}
    from kit.show.explained import Looks

    album, scored = Album(results, Looks(results.run)), results.scored
    kinds = [
        {"title": title, "words": words, "cards": [album.card(n, True) for n in rows]}
        for title, words, rows in chosen(scored)
    ]
    wrong = misclassified(scored)
    shown = [album.card(n, False) for n in wrong[:MISTAKES]]
    model = album.looks.model
    return {
        "reason": "",
        "kinds": [kind for kind in kinds if kind["cards"]],
        "mistakes": shown,
        "wrong": len(wrong),
        "units": len(scored.labels),
        "model": "" if model is None else model.name,
        "attends": bool(album.looks.shares),
        "bags": results.run.competition.tiles.count != 1,
        "notes": album.looks.notes,
    }


def _absent(results: Results) -> str:
    """Why there is nothing to show, if there is nothing."""
    run = results.run
    if not results.own:
        return ELSEWHERE
    if not (run.folder("tile") / "images.csv").is_file() or not (run.folder("tile") / "train").is_dir():
        return "There are no pictures: the tiles are not in the work folder any more."
    return ""


def chosen(scored: Scored) -> Iterator[tuple[str, str, list[int]]]:
    """The units of each kind that are shown, none of them twice."""
    ways = (
        ("Most wrong", "the largest −ln p of the true class", diagnosis.worst(scored, len(scored.labels))),
        ("Least sure", "probabilities that are the most alike", diagnosis.least_sure(scored)),
        ("Best", "the smallest −ln p of the true class", diagnosis.best(scored)),
    )
    taken: set[int] = set()
    for title, words, order in ways:
        mine = [n for n in order.tolist() if n not in taken][:EACH]
        taken |= set(mine)
        yield title, words, mine


def misclassified(scored: Scored) -> list[int]:
    """The positions of the units whose most probable class is not theirs, the largest loss first."""
    wrong = scored.probabilities.argmax(axis=1) != scored.labels
    return [n for n in diagnosis.worst(scored, len(wrong)).tolist() if wrong[n]]


@dataclass(frozen=True)
class Album:
    """Makes the cards of units."""

    results: Results
    looks: Looks

    def card(self, n: int, explained: bool) -> Card:
        """The card of the unit at a position of the scored ones."""
        scored, task = self.results.scored, self.results.run.competition
        about, values = scored.frame.iloc[n], scored.probabilities[n]
        unit, called = str(about.name), int(values.argmax())
        image, many = self._image(unit, task.classes[called])
        pictures, note = self._pictures(image, called, explained)
        if many > 1:
            note = f"{note}{'; ' if note else ''}one of its {count(many, 'image')}"
        return Card(
            unit,
            image,
            task.classes[int(scored.labels[n])],
            task.classes[called],
            said(task.classes, values),
            number(float(scored.losses[n]), 3),
            str(about["site"]),
            pictures,
            note,
        )

    def _image(self, unit: str, called: str) -> tuple[str, int]:
        """The image of a unit that speaks loudest for a class, and how many it has."""
        rows = self.looks.rows
        mine = rows[rows["unit_id"] == unit]
        if not len(mine):
            return "", 0
        found = mine[f"p_{called}"].astype(float)
        return str(found.index[int(np.argmax(found.to_numpy()))]), len(mine)

    def _pictures(self, image: str, called: int, explained: bool) -> tuple[list[Picture], str]:
        """The pictures of an image, or why there are none."""
        from kit.read import store

        if not image:
            return [], "no image of it was predicted"
        try:
            tiles = store.read(store.path_of(self.results.run.folder("tile"), "train", image))
            return list(self._drawn(image, tiles, called, explained)), ""
        except StageError as error:
            return [], without_folders(self.results.run, error.message)

    def _drawn(self, image: str, tiles: Tiles, called: int, explained: bool) -> Iterator[Picture]:
        from kit.show import sheet
        from kit.show.pictures import picture

        slide = bool(tiles.thumbnail().size)
        what = f"{count(len(tiles), 'tile')} outlined" if slide else "the picture"
        plain = sheet.small(tiles, SIDE)
        yield picture(plain, what, f"{image}: {what}")
        if not explained:
            return
        shares = self.looks.attended(image, tiles)
        if shares is not None and slide and len(tiles) > 1:
            title = "attention"
            yield picture(sheet.small_attended(tiles, shares, SIDE), title, f"{image}: {title}")
        shape = {} if slide else {"size": (plain.shape[1], plain.shape[0])}
        seen = self.looks.seen(image, tiles, called, **shape)
        if seen is not None:
            name = self.results.run.competition.classes[called]
            where = f" of tile {seen.place + 1}" if slide else ""
            title = f"Grad-CAM{where} for {name}, {seen.places}"
            yield picture(seen.picture if slide else seen.heat, title, f"{image}: {title}")


def said(classes: Sequence[str], values: NDArray[np.float64], most: int = 3) -> str:
    """The probabilities of two classes, or of the likeliest of more.

    >>> said(("A", "B"), np.array([0.25, 0.75]))
    'p(A) 0.250, p(B) 0.750'
    """
    order = (
        range(len(classes)) if len(classes) <= most else np.argsort(-values, kind="stable")[:most].tolist()
    )
    return ", ".join(f"p({classes[k]}) {number(float(values[k]), 3)}" for k in order)
