"""What the viewer answers to which address: a handful of patterns, and an image by its key alone."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import KitError
from kit.show import page
from kit.show.verdict import number, percent
from kit.show.view import layers
from kit.show.view.listing import Listing
from kit.show.view.shelf import Cache
from kit.show.view.slides import Slides
from kit.state import Run

STATIC = Path(__file__).with_name("static")
TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
HTML, JSON, PLAIN = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"
MAPS = 2**23  # bytes of pictures of tissue and artefacts
TILE = r"tile/(\d{1,2})/(\d{1,6})_(\d{1,6})\.jpg(?:\?([0-9a-f]{16}))?"  # level, column, row, version
LONGEST = 300  # characters of an address: the longest of ours has 120

log = logging.getLogger("kit")


@dataclass(frozen=True)
class Answer:
    """What is sent back; ``keep``: whether the browser may keep it while the page is open."""

    code: int
    kind: str
    body: bytes
    keep: bool = False
    again: int = 0  # seconds after which it may be asked for again


def plain(code: int, words: str, again: int = 0) -> Answer:
    """A line of words."""
    return Answer(code, PLAIN, f"{words}\n".encode(), again=again)


NOTHING = plain(404, "there is nothing here")


class Pages:
    """All addresses of the viewer, for what follows the token."""

    def __init__(self, run: Run, listing: Listing) -> None:
        self._run, self._listing = run, listing
        self.slides = Slides(run, listing)
        self._maps = Cache(MAPS)
        files = [*STATIC.iterdir(), page.FOLDER / "style.css"]
        self._static = {path.name: path for path in files if path.suffix in TYPES}
        self._list = listing.as_json().encode()
        self._routes: list[tuple[re.Pattern[str], Callable[..., Answer]]] = [
            (re.compile(pattern, re.ASCII), answer)
            for pattern, answer in (
                ("/", self._index),
                ("/list.json", lambda: Answer(200, JSON, self._list)),
                (r"/static/([\w.-]{1,60})", self._file),
                ("/image/([0-9a-f]{16})/", self._slide),
                (r"/image/([0-9a-f]{16})/status\.json", self._status),
                (r"/image/([0-9a-f]{16})/layers\.json", self._layers),
                (r"/image/([0-9a-f]{16})/(tissue|artefacts)\.png", self._map),
                (r"/image/([0-9a-f]{16})/small\.jpg", self._small),
                (rf"/image/([0-9a-f]{{16}})/{TILE}", self._tile),
            )
        ]

    def answer(self, path: str) -> Answer:
        """What is at an address; nothing is where no pattern or no key fits. It raises nothing."""
        if len(path) > LONGEST:
            return plain(414, "the address is too long")
        for pattern, answer in self._routes:
            if found := pattern.fullmatch(path):
                return self._safely(answer, found.groups())
        return NOTHING

    def close(self) -> None:
        """Wait for what is being read, and close all images."""
        self.slides.close()

    def _safely(self, answer: Callable[..., Answer], words: tuple[str, ...]) -> Answer:
        """What cannot be read is said with what to type; a bug of ours is for the console alone."""
        try:
            return answer(*words)
        except KitError as error:
            return plain(422, f"{error.message}; {error.hint}")
        except MemoryError:
            return plain(503, "there is not enough memory for it now", again=5)
        except Exception:
            log.exception("view: %s", words)
            return plain(500, "this is a bug: the console says more")

    def _index(self) -> Answer:
        return _html(
            "view-list.html.j2", run=self._run, count=len(self._listing.table), notes=self._listing.notes
        )

    def _file(self, name: str) -> Answer:
        path = self._static.get(name)
        return NOTHING if path is None else Answer(200, TYPES[path.suffix], path.read_bytes(), keep=True)

    def _slide(self, key: str) -> Answer:
        row = self._listing.row(key)
        if row is None:
            return NOTHING
        before, after = self._listing.beside(key)
        facts = facts_of(row, self._listing.classes)
        return _html("view-slide.html.j2", run=self._run, row=row, facts=facts, before=before, after=after)

    def _status(self, key: str) -> Answer:
        if self._listing.row(key) is None:
            return NOTHING
        try:
            return _json(self.slides.state(key))
        except KitError as error:
            return _json({"state": "failed", "message": error.message, "hint": error.hint})

    def _layers(self, key: str) -> Answer:
        row = self._listing.row(key)
        return NOTHING if row is None else _json(layers.shapes(self._run, row))

    def _map(self, key: str, name: str) -> Answer:
        row = self._listing.row(key)
        found = None if row is None else layers.picture(self._run, row, name, self._maps)
        return NOTHING if found is None else Answer(200, "image/png", found, keep=True)

    def _small(self, key: str) -> Answer:
        """A thumbnail; where there can be none, nothing, which a browser does not call an error."""
        if self._listing.row(key) is None:
            return NOTHING
        try:
            found = self.slides.thumbnail(key)
        except KitError:
            found = None
        return Answer(204, "", b"") if found is None else Answer(200, "image/jpeg", found, keep=True)

    def _tile(self, key: str, level: str, column: str, row: str, version: str | None) -> Answer:
        """A tile; with a version only of the file as it was then: the browser keeps what it is given."""
        if self._listing.row(key) is None:
            return NOTHING
        try:
            found = self.slides.tile(key, int(level), int(column), int(row), version or "")
        except KitError as error:
            log.warning("view: %s", error.message)  # there is no room for it on the page
            raise
        return NOTHING if found is None else Answer(200, "image/jpeg", found, keep=True)


def facts_of(row: Mapping[str, Any], classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """What is known of an image before it is opened: a name and its value each; only what is known."""
    words = {
        "split": "split",
        "unit_id": "unit",
        "site": "site",
        "label": "label",
        "role": "role",
        "fold": "fold",
    }
    found = [(name, str(row[column])) for column, name in words.items() if column in row]
    found += [(f"P({name})", number(row[f"p_{name}"], 3)) for name in classes if f"p_{name}" in row]
    scored = {"loss": "loss", "doubt": "uncertainty"}
    found += [(words, number(row[name], 3)) for name, words in scored.items() if name in row]
    if "tissue" in row:
        found.append(("tissue", percent(row["tissue"], 1)))
    found += [(name, f"{row[name]:,.0f}") for name in ("sections", "tiles") if name in row]
    return found + [(name, row[name]) for name in ("status", "reason") if name in row]


def _html(template: str, **content: object) -> Answer:
    return Answer(200, HTML, page.render(template, alone=False, **content).encode())


def _json(content: Mapping[str, Any]) -> Answer:
    return Answer(200, JSON, json.dumps(content, separators=(",", ":")).encode())
