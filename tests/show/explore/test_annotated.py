"""The annotations as rows, and the image with the most boxes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.show.explore import annotated
from kit.show.explore.content import Charts, Section
from tests.show.explore.findings_made import NOTHING, ROWS, draw_images, read
from tests.show.explore.tables_made import captions, cells, cohort, made, words


def svg_of(section: Section) -> str:
    """The drawing of the section."""
    (charts,) = (block for block in section.blocks if isinstance(block, Charts))
    return charts.charts[0].svg


def test_the_first_rows_are_image_by_image_and_in_shares(tmp_path: Path) -> None:
    section = annotated.section(read(tmp_path))
    assert section is not None
    rows = cells(section, "The first 5 rows")
    assert [(row[0], row[3]) for row in rows] == [
        ("a", "R1"),
        ("a", "R2"),
        ("a", "R2"),
        ("b", "R1"),
        ("b", "R2"),
    ]
    assert rows[0][4:8] == ("100", "200", "0.100000", "0.100000")
    assert rows[3][6:] == ("",) * 9  # nothing has no box


def test_the_image_with_the_most_boxes_is_drawn_with_all_of_them(tmp_path: Path) -> None:
    section = annotated.section(read(tmp_path))
    assert section is not None
    assert "The image with the most boxes is a: 3 of 2 classes by 2 readers" in words(section)
    assert [row[:3] for row in cells(section, "All rows of image a")] == [
        ("1", "Nodule", "R1"), ("2", "Nodule", "R2"), ("3", "Mass <b> & more", "R2"),
    ]  # fmt: skip
    svg = svg_of(section)
    assert svg.count("<title>") == 3 and "<title>3: Mass &lt;b&gt; &amp; more, R2</title>" in svg
    assert "on an empty frame: the image is not at hand" in captions(section)[0]
    assert "<image " not in svg


def test_boxes_lie_over_the_image_where_it_is_at_hand(tmp_path: Path) -> None:
    draw_images(tmp_path, ["a"])
    section = annotated.section(read(tmp_path, images=3))
    assert section is not None
    assert '<image href="data:image/webp;base64,' in svg_of(section)
    assert "not at hand" not in captions(section)[0]


def test_an_image_that_cannot_be_read_leaves_an_empty_frame(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    section = annotated.section(read(tmp_path, images=3))
    assert section is not None and "<image " not in svg_of(section)


def test_without_sizes_there_are_rows_and_no_drawing(tmp_path: Path) -> None:
    section = annotated.section(read(tmp_path, sizes=False))
    assert section is not None
    assert captions(section) == [] and cells(section, "All rows of image a")[0][3:] == ("",) * 9


@pytest.mark.parametrize("rows", [ROWS[:1], [row for row in ROWS if row[1] == NOTHING]])
def test_one_box_or_none_is_enough(tmp_path: Path, rows: list) -> None:  # type: ignore[type-arg]
    section = annotated.section(read(tmp_path, rows))
    assert section is not None and ("most" in section.facts) == (rows[0][4] is not None)


def test_data_without_annotations_have_no_such_section(tmp_path: Path) -> None:
    assert annotated.section(made(tmp_path, cohort())) is None
