"""Boxes in shares of their images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from kit.show.explore import geometry
from tests.show.explore.findings_made import NOTHING, ROWS, galleries, read
from tests.show.explore.tables_made import cells, cohort, made, words


def test_quartiles_of_a_class_are_those_of_its_boxes_in_shares(tmp_path: Path) -> None:
    section = geometry.section(read(tmp_path))
    assert section is not None
    table = section.files["by-class"].set_index("class")
    assert table.loc["Nodule", "x_mid_q50"] == pytest.approx(0.21)
    assert table.loc["Nodule", "box_w_q50"] == pytest.approx(0.2)
    assert table.loc["Nodule", "area_q25"] == pytest.approx(0.04)
    assert table.index.tolist() == ["Mass <b> & more", "Nodule"]  # the larger boxes first
    assert cells(section, "Boxes in shares")[1][:3] == ("Nodule", "2", "0.21 (0.21 to 0.21)")
    json.dumps(section.facts, allow_nan=False)


def test_every_class_that_was_drawn_has_a_map_and_nothing_has_none(tmp_path: Path) -> None:
    (gallery,) = galleries(geometry.section(read(tmp_path)))
    assert [one.caption.split(":")[0] for one in gallery.pictures] == ["Mass <b> & more", "Nodule"]
    assert "at 21 % from the left and 20 % from the top" in gallery.pictures[1].alt


def test_without_sizes_it_is_said_what_to_type(tmp_path: Path) -> None:
    section = geometry.section(read(tmp_path, sizes=False))
    assert section is not None and section.facts["known"] == 0
    assert "type --sizes FILE" in words(section)


def test_sizes_from_elsewhere_serve_where_the_findings_have_none(tmp_path: Path) -> None:
    data = read(tmp_path, sizes=False)
    known = pd.DataFrame({"width": [100.0], "height": [200.0]}, index=pd.Index(["a"], name="image_id"))
    section = geometry.section(replace(data, sizes=known))
    assert section is not None and section.facts["known"] == 3
    assert "Of 1 more the size of the image is not known" in words(section)


def test_readers_who_found_nothing_at_all_leave_a_sentence(tmp_path: Path) -> None:
    section = geometry.section(read(tmp_path, [row for row in ROWS if row[1] == NOTHING]))
    assert section is not None and words(section) == "No reader has drawn a box."


def test_boxes_an_image_count_only_images_that_have_any(tmp_path: Path) -> None:
    section = geometry.section(read(tmp_path))
    assert section is not None
    assert section.facts["images"] == 2
    assert section.facts["an_image"]["max"] == 3 and section.facts["an_image"]["min"] == 1  # type: ignore[index]


def test_data_without_annotations_have_no_such_section(tmp_path: Path) -> None:
    assert geometry.section(made(tmp_path, cohort())) is None
