"""The map of boxes, and how far neighbours on it are alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import manifold
from threadpoolctl import threadpool_info

from kit.show.explore import tsne
from kit.show.explore.content import Charts, Data
from tests.show.explore.findings_made import Row, galleries, read
from tests.show.explore.tables_made import cells, words


def scattered(n: int = 140) -> list[Row]:
    """Boxes of two classes that lie apart, and of two that lie in one place."""
    draw = np.random.default_rng(0)
    rows: list[Row] = []
    for k in range(n):
        x, y = ((5, 10), (70, 150), (35, 90), (35, 90))[k % 4]
        x, y = (start + int(draw.integers(0, 9)) for start in (x, y))
        rows.append((f"i{k // 2:03d}", f"kind {k % 4}", k % 4, f"R{k % 2}", (x, y, x + 20, y + 30)))
    return rows


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    """140 boxes, and maps of few steps."""
    monkeypatch.setattr(tsne, "STEPS", 300)
    return replace(read(tmp_path, scattered()), boxes=130)


def test_a_map_is_the_same_whenever_and_by_how_many_workers_it_is_drawn(data: Data) -> None:
    one, two = (tsne.section(replace(data, run=replace(data.run, workers=workers))) for workers in (1, 2))
    assert one is not None and two is not None
    assert one.facts == two.facts
    assert one.files["points"].equals(two.files["points"]) and len(one.files["points"]) == 130


def test_a_map_is_computed_by_one_thread(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Fake:
        """t-SNE that looks at the threads it would have."""

        def __init__(self, **settings: object) -> None:
            pass

        def fit_transform(self, features: np.ndarray) -> np.ndarray:
            seen.extend(pool["num_threads"] for pool in threadpool_info())
            return features[:, :2]

    monkeypatch.setattr(manifold, "TSNE", Fake)
    assert tsne.section(replace(data, run=replace(data.run, workers=2))) is not None
    assert seen and set(seen) == {1}


def test_classes_that_lie_apart_are_told_and_those_in_one_place_are_not(data: Data) -> None:
    section = tsne.section(data)
    assert section is not None
    by_class = section.facts["by_class"]
    assert isinstance(by_class, dict)
    assert by_class["kind 0"] > 0.9 > 0.7 > by_class["kind 2"]  # type: ignore[operator]
    assert "130 of 140 boxes, drawn at random." in words(section)
    assert len(galleries(section)[0].pictures) == 4
    assert sum(int(row[1]) for row in cells(section, "The 10 nearest")) == 130
    (charts,) = (block for block in section.blocks if isinstance(block, Charts))
    for chart in charts.charts:
        assert chart.svg.count("<use ") >= 130 and "kind 2: " in chart.svg


def test_the_map_with_the_width_twice_knows_no_height() -> None:
    assert len(tsne.DOUBLED) == len(tsne.FEATURES) == 9
    assert tsne.DOUBLED.count("box_w") == 2 and "box_h" not in tsne.DOUBLED


def test_neighbours_of_the_same_image_do_not_count() -> None:
    points = np.array([[0.0], [0.1], [5.0], [5.1]])
    labels, images = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    found = tsne.neighbours(points, labels, images)
    assert found.share == 0 and found.by_class.tolist() == [0, 0]
    assert tsne.neighbours(points, labels, np.arange(4)).share == pytest.approx(1 / 3)
    assert tsne.by_chance(labels, images).tolist() == [0, 0]
    assert tsne.by_chance(labels, np.arange(4)).tolist() == pytest.approx([1 / 3, 1 / 3])


def test_neighbours_are_found_alike_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    points, labels, images = draw.normal(size=(60, 2)), draw.integers(0, 3, 60), draw.integers(0, 20, 60)
    whole = tsne.neighbours(points, labels, images)
    monkeypatch.setattr(tsne, "BLOCK", 7)
    assert np.array_equal(whole.by_class, tsne.neighbours(points, labels, images).by_class)


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.5, "hardly tells its class"), (0.8, "does not settle it"), (0.95, "all but settles its class")],
)
def test_what_neighbours_amount_to_follows_from_their_share(share: float, said: str) -> None:
    names, labels = ("one", "other", "single"), np.array([0] * 10 + [1] * 10 + [2])
    found = dict.fromkeys(
        ("map", "doubled", "features"), tsne.Neighbours(share, np.array([share, share, 0.0]))
    )
    told = tsne.said(names, labels, found, np.array([0.5, 0.4, 0.0]), 21, ())
    assert said in told
    # A class that is on one image alone cannot be told by other images: it is not the least.
    assert "least one" in told and "least single" not in told


def test_too_few_boxes_are_said_to_be_so(tmp_path: Path) -> None:
    section = tsne.section(replace(read(tmp_path), boxes=100))
    assert section is not None and "4 boxes are too few" in words(section)


def test_no_map_is_drawn_where_none_is_asked_for_or_no_size_is_known(tmp_path: Path) -> None:
    assert tsne.section(replace(read(tmp_path), boxes=0)) is None
    assert tsne.section(replace(read(tmp_path, sizes=False), boxes=100)) is None


def test_a_class_that_was_not_drawn_is_named(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tsne, "drawn", lambda every, most, seed: every.head(130))
    rows: list[Row] = [*scattered(), ("z", "rare", 9, "R1", (1, 1, 2, 2))]
    section = tsne.section(replace(read(tmp_path, rows), boxes=130))
    assert section is not None and "No box of rare is among them." in words(section)
