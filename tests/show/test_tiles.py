"""Pictures of the tiles, drawn from the store alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from kit.competition import Competition, Tables
from kit.errors import SettingError, StageError
from kit.files import write_table
from kit.metrics import WeightedLogLoss
from kit.read import store
from kit.read.tissue import KINDS
from kit.show import sheet
from kit.show.tiles import HEAVY, pictures
from kit.state import Run

Pixels = NDArray[np.uint8]
SIDE = 16  # of a stored tile


def bag(count: int = 3, wide: int = 80, high: int = 60, **header: Any) -> store.Tiles:
    """A slide of 100 level-0 px a stored one, two sections of one clot on it, a fold in the first."""
    kinds = np.zeros((high, wide), np.uint8)
    kinds[10:30, 10:30] = kinds[35:55, 40:70] = KINDS.index("tissue")
    kinds[10:12, 10:30] = KINDS.index("fold")
    sections = np.zeros((high, wide), np.uint16)
    sections[10:30, 10:30], sections[35:55, 40:70] = 1, 2
    overview = np.full((high, wide, 3), 250, np.uint8)
    overview[kinds > 0] = 200, 100, 150
    places = np.array([1000, 4000, 5000])[:count]
    head = {"width": wide * 100, "height": high * 100, "grid": {"size": SIDE}, "clot_of": [0, 0], **header}
    tiles = [np.full((SIDE, SIDE, 3), 60 * place, np.uint8) for place in range(count)]
    return store.packed(
        head, tiles, places, places, np.full(count, 1000), np.linspace(1, 0.5, count, dtype=np.float32),
        section=np.array([0, 1, 1])[:count], clot=np.zeros(count), overview=overview, kinds=kinds,
        sections=sections,
    )  # fmt: skip


def photograph() -> store.Tiles:
    tile, zero = np.full((SIDE, SIDE, 3), (200, 30, 30), np.uint8), np.zeros(1, np.int64)
    head = {"width": 400, "height": 100, "grid": {"size": SIDE}}
    return store.packed(head, [tile], zero, zero, np.array([400]), np.ones(1, np.float32))


def row(image_id: str, status: str = "ok", reason: str = "", **other: Any) -> dict[str, Any]:
    return {"image_id": image_id, "split": "train", "width": 8000, "height": 6000, "tissue": 0.2,
            "sections": 2, "clots": 1, "tiles": 3, "status": status, "reason": reason, "read_by": "tiff",
            "note": "", **other}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels of a size that is drawn in no time."""
    for name in ("HIGH", "WIDE", "LEAST", "ALONE"):
        monkeypatch.setattr(sheet, name, 300)


@pytest.fixture
def tiled(tmp_path: Path) -> Callable[..., Run]:
    """``tiled((row, tiles or None), ...)``: a run whose tiles are stored, and whose data is gone."""

    def make(*images: tuple[dict[str, Any], store.Tiles | None], labels: dict[str, str] | None = None) -> Run:
        def load(data: Path) -> Tables:
            if labels is None:
                raise StageError("the data is gone")
            return Tables(pd.DataFrame({"image_id": list(labels), "label": labels.values()}, dtype=object))

        task = Competition("made", ("CE", "LAA"), WeightedLogLoss((0.5, 0.5)), load)
        run = Run(task, "made", tmp_path / "data", tmp_path / "work")
        for cells, tiles in images:
            if tiles is not None:
                store.write(store.path_of(run.folder("tile"), cells["split"], cells["image_id"]), tiles)
        write_table(run.folder("tile") / "images.csv", pd.DataFrame([cells for cells, _ in images]))
        return run

    return make


class Page(HTMLParser):
    """The links, the pictures and the words of the page, in order."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.folder = run.folder("pictures")
        self.text = (self.folder / "index.html").read_text()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def values(self, tag: str, name: str) -> list[str]:
        return [attrs[name] or "" for found, attrs in self.tags if found == tag and name in attrs]


def drawn(run: Run, image_id: str) -> Pixels:
    path = store.path_of(run.folder("pictures") / "images", "train", image_id).with_suffix(".png")
    found = cv2.imread(str(path))
    assert found is not None
    return np.asarray(found[..., ::-1], np.uint8)


def test_every_link_and_thumbnail_of_the_page_leads_to_a_file_whatever_the_id(
    tiled: Callable[..., Run],
) -> None:
    ids = ["a/b c", 'x"><i>', "50%.v2", "ä" * 120]
    run = tiled(*[(row(image_id), bag()) for image_id in ids])
    pictures(run)
    page = Page(run)
    links = page.values("a", "href") + page.values("img", "src")
    assert len(links) == 2 * len(ids) == len(set(links))
    assert all((page.folder / unquote(link)).is_file() for link in links)
    assert "<i>" not in page.text
    assert page.values("img", "alt")[0].startswith("50%.v2: tissue")


def test_what_went_wrong_comes_before_all_pictures_and_the_rest_is_sorted_by_id(
    tiled: Callable[..., Run],
) -> None:
    run = tiled(
        (row("c"), bag()),
        (row("a"), bag()),
        (row("b", "empty", "no tissue", tiles=0), bag(0)),
        (row("d", "unreadable", "its header ends early", tiles=0), None),
        (row("e", note="4 times coarser"), bag()),
    )
    said = pictures(run)
    page = Page(run)
    first = page.text.index('id="all"')
    for words in ("no tissue", "its header ends early", "4 times coarser"):
        assert page.text.index(words) < first
    shown = [text.split(":")[0] for text in page.values("img", "alt")]
    assert shown == ["a", "b", "c", "e"]
    assert "4 of 5 images drawn" in said
    assert "d (unreadable): its header ends early" in said


def test_a_damaged_store_is_reported_and_its_old_picture_goes(tiled: Callable[..., Run]) -> None:
    run = tiled((row("a"), bag()), (row("b"), bag()))
    pictures(run)
    path = store.path_of(run.folder("tile"), "train", "b")
    path.write_bytes(path.read_bytes()[:600])
    assert "b (damaged)" in pictures(run)
    assert [p.name for p in sorted(run.folder("pictures").rglob("*.png"))] == ["a.png"]


def test_only_the_images_asked_for_are_drawn_and_the_page_stays_what_it_was(
    tiled: Callable[..., Run],
) -> None:
    run = tiled((row("a"), bag()), (row("b"), bag()))
    said = pictures(run, ["b"])
    assert [p.name for p in run.folder("pictures").rglob("*.*g")] == ["b.png"]
    assert not (run.folder("pictures") / "index.html").exists()
    assert said.splitlines()[-1].endswith("b.png")


def test_an_unknown_id_is_refused_with_the_one_that_was_meant(tiled: Callable[..., Run]) -> None:
    run = tiled(*[(row(f"{n:03d}_image"), None) for n in range(60)])
    with pytest.raises(SettingError, match="no image '007_imag'") as caught:
        pictures(run, ["007_imag"])
    assert "did you mean 007_image?" in caught.value.hint
    assert "059" not in caught.value.hint and "(60 ids)" in caught.value.hint
    assert not run.folder("pictures").exists()


def test_labels_are_shown_where_the_tables_are_still_there(tiled: Callable[..., Run]) -> None:
    run = tiled((row("a"), bag()), labels={"a": "LAA"})
    pictures(run)
    assert "LAA" in Page(run).text


def test_the_page_loads_nothing_from_elsewhere(tiled: Callable[..., Run]) -> None:
    run = tiled((row("a"), bag()))
    pictures(run)
    assert not re.search(r"https?:|//|@import|url\(", Page(run).text)


def test_a_thumbnail_stays_light_even_of_noise(tiled: Callable[..., Run]) -> None:
    tiles = bag()
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    loud = store.packed(
        tiles.header, tiles.decode(), tiles.x, tiles.y, tiles.size, tiles.tissue, overview=noise
    )
    run = tiled((row("a"), loud))
    pictures(run)
    assert 0 < (run.folder("pictures") / "small" / "train" / "a.webp").stat().st_size <= HEAVY


def test_the_same_store_gives_the_same_bytes(tiled: Callable[..., Run]) -> None:
    run = tiled((row("a"), bag()))
    found = []
    for _ in range(2):
        pictures(run)
        found.append({p.name: p.read_bytes() for p in run.folder("pictures").rglob("*.*") if p.is_file()})
    assert found[0] == found[1]


def test_sections_are_named_by_clot_and_letter() -> None:
    assert sheet.section_names(bag(3)) == {0: "1a", 1: "1b"}
    names = sheet.section_names(bag(0, clot_of=[0] * 28 + [1]))
    assert (names[25], names[26], names[27], names[28]) == ("1z", "1aa", "1ab", "2a")


def test_the_name_of_a_section_is_above_its_largest_part_and_not_above_a_crumb() -> None:
    def square(x: int, y: int, side: int) -> NDArray[np.int32]:
        return np.array([[[x, y]], [[x + side, y]], [[x + side, y + side]], [[x, y + side]]], np.int32)

    assert sheet.name_place([square(90, 2, 3), square(10, 40, 30), square(5, 80, 2)]) == (10, 40)


@pytest.mark.parametrize(
    ("count", "lines"), [(0, ["section"]), (1, ["section", "tile"]), (3, ["section", "tile"])]
)
def test_the_legend_names_what_occurs_and_nothing_else(count: int, lines: list[str]) -> None:
    tiles = bag(count)
    found = sheet.entries(tiles)
    share = f"{100 * (20 * 18 + 20 * 30) / (80 * 60):.2f}"
    assert found[:2] == [("tissue", f"tissue {share}\xa0%"), ("fold", "fold 0.83\xa0%")]
    assert [kind for kind, _ in found[2:]] == lines


def test_a_tile_is_drawn_where_it_is_on_the_slide() -> None:
    with_tile, without = (sheet.small(replace(bag(n), sections=np.zeros(0, np.uint8))) for n in (1, 0))
    changed = (with_tile != without).any(axis=2)
    scale = sheet.SMALL / 8000
    for axis in (0, 1):
        found = np.flatnonzero(changed.any(axis=axis))
        assert [found[0], found[-1] + 1] == pytest.approx([1000 * scale, 2000 * scale], abs=1)


def test_an_artefact_has_its_colour_where_it_is_and_tissue_keeps_its_own_on_a_thumbnail() -> None:
    picture = sheet.small(bag(0)).astype(int)
    scale = sheet.SMALL / 80
    fold, tissue = (
        picture[round(11 * scale), round(20 * scale)],
        picture[round(45 * scale), round(55 * scale)],
    )
    mixed = 0.55 * np.array(sheet.PALETTE["fold"]) + 0.45 * np.array((200, 100, 150))
    assert np.abs(fold - mixed).max() < 6
    assert np.abs(tissue - (200, 100, 150)).max() < 6


def test_a_slide_without_tiles_and_a_photograph_are_drawn_too(tiled: Callable[..., Run]) -> None:
    run = tiled((row("none", "empty", "no tissue", tiles=0), bag(0)), (row("photo"), photograph()))
    pictures(run)
    assert drawn(run, "none").std() > 0
    red = (drawn(run, "photo") == (200, 30, 30)).all(axis=2)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert len(columns) == 4 * len(rows)  # of its own shape, though its tile is a square


@pytest.mark.parametrize(("wide", "high"), [(512, 3), (3, 512), (1, 1)])
def test_no_shape_of_a_slide_is_too_odd(wide: int, high: int) -> None:
    grey = np.full((high, wide, 3), 200, np.uint8)
    head = {"width": wide * 90, "height": high * 90, "grid": {"size": SIDE}}
    tile, zero = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros(1, np.int64)
    tiles = store.packed(head, [tile], zero, zero, np.array([9000]), np.ones(1, np.float32), overview=grey)
    picture = sheet.sheet(tiles, "id " * 200, ["fact " * 100, ""])
    assert picture.dtype == np.uint8 and max(picture.shape) < 8000
    assert sheet.small(tiles).size
