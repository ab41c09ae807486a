"""Who drew what: counts, readers and agreement of made findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.show.explore import findings
from kit.show.explore.command import page
from tests.show.explore.findings_made import NOTHING, ROWS, read
from tests.show.explore.tables_made import cells, cohort, made, words


def test_data_without_annotations_have_no_such_section(tmp_path: Path) -> None:
    assert findings.section(made(tmp_path, cohort())) is None


def test_rows_and_boxes_are_counted_by_class_and_by_reader(tmp_path: Path) -> None:
    section = findings.section(read(tmp_path))
    assert section is not None
    assert (section.facts["rows"], section.facts["boxes"], section.facts["classes"]) == (7, 4, 3)
    assert section.facts["rows_by_class"] == {NOTHING: 3, "Mass <b> & more": 2, "Nodule": 2}
    assert section.facts["boxes_by_reader"] == {"R1": 2, "R2": 2, "R3": 0}
    assert cells(section, "Classes")[0] == (NOTHING, "3", "42.9\xa0%", "0", "2", "3")
    assert cells(section, "Rows by class and reader")[0] == ("Mass <b> & more", "1", "1", "0")


def test_the_table_of_classes_and_readers_is_shaded_by_the_readers_share_of_the_class(tmp_path: Path) -> None:
    section = findings.section(read(tmp_path))
    assert section is not None
    (table,) = (block for block in section.blocks if getattr(block, "shares", None))
    assert table.shares[1] == pytest.approx((1 / 3, 1 / 3, 1 / 3))  # type: ignore[union-attr]


def test_readers_who_never_drew_are_named_and_so_are_those_who_hardly_did(tmp_path: Path) -> None:
    others = tuple((f"n{k}", NOTHING, 14, f"Q{k % 3}", None) for k in range(30))
    section = findings.section(read(tmp_path, (*ROWS, *others)))
    assert section is not None
    assert section.facts["never_drew"] == ["Q0", "Q1", "Q2", "R3"]
    assert section.facts["never_drew_count"] == 4 and section.facts["busiest_boxes"] == 0
    assert "Q0, Q1 and Q2 made 81.1\xa0% of all rows and 0.0\xa0% of all boxes" in words(section)
    assert "drew any: R1 (2) and R2 (2)" in words(section)


def test_an_image_that_is_nothing_to_some_readers_only_is_counted(tmp_path: Path) -> None:
    section = findings.section(read(tmp_path))
    assert section is not None
    assert section.facts["mixed"] == 1 and section.facts["images_by_nothing"] == {"0": 1, "1": 1, "2": 1}
    assert section.facts["nothing_share"] == pytest.approx(1 / 3)
    assert "On 1 image some readers say" in words(section)


def test_one_finding_of_one_reader_is_enough_and_agrees_with_nobody(tmp_path: Path) -> None:
    section = findings.section(read(tmp_path, ROWS[:1]))
    assert section is not None
    assert section.facts["labels_by_votes"] == {"1": 1} and section.facts["kappa"] == {"Nodule": None}
    assert section.facts["kappa_least"] is None
    json.dumps(section.facts, allow_nan=False)


def test_names_with_signs_of_html_stay_words_on_the_page(tmp_path: Path) -> None:
    data = read(tmp_path)
    section = findings.section(data)
    assert section is not None
    html = page(data.run, [section], {"findings": section.facts})
    assert "Mass &lt;b&gt; &amp; more" in html and "Mass <b> &" not in html


def test_every_table_of_the_section_is_written_whole(tmp_path: Path) -> None:
    section = findings.section(read(tmp_path))
    assert section is not None
    assert {name: len(table) for name, table in section.files.items()} == {
        "classes": 3, "readers": 3, "classes-by-reader": 3, "agreement": 3,
    }  # fmt: skip
    assert section.files["classes-by-reader"].columns.tolist() == ["class", "R1", "R2", "R3"]
