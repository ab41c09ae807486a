"""What is there twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit.show.explore import duplicates
from tests.show.explore.tables_made import cells, cohort, made, words


def test_test_images_that_are_training_images_are_said(tmp_path: Path) -> None:
    table = {"image_id": list("abcd"), "p": list("1123"), "s": list("xxyz"), "label": list("AABB")}
    test = {"image_id": list("abqr"), "p": list("1129"), "s": list("xyyz")}
    section = duplicates.section(made(tmp_path, table, test, unit="p", site="s"))
    assert section.facts["test"] == {"images": 2, "rows": 1, "units": 2, "siblings": 1}
    assert "2 are training images too (a, b), 1 of them equal rows" in words(section)
    assert section.files["test-images"]["image_id"].tolist() == ["a", "b"]


def test_a_test_table_of_its_own_shares_nothing(tmp_path: Path) -> None:
    section = duplicates.section(made(tmp_path, cohort(), {"image_id": ["x"]}))
    assert "none has an image or a unit of the training table" in words(section)


def test_equal_files_are_found_and_conflicting_labels_stand_out(tmp_path: Path) -> None:
    for k, content in enumerate((b"same", b"same", b"diff", b"longer")):
        (tmp_path / f"i{k:03d}.png").write_bytes(content)
    section = duplicates.section(made(tmp_path, cohort(5), images=1))
    found: Any = section.facts["files"]
    assert (found["groups"], found["images"], found["conflicts"]) == (1, 2, 1)
    assert cells(section, "Equal files") == [("i000", "2", "i000, i001", "A and B")]


def test_files_are_left_alone_where_no_image_is_to_be_read(tmp_path: Path) -> None:
    (tmp_path / "i000.png").write_bytes(b"x")
    section = duplicates.section(made(tmp_path, cohort(2)))
    assert "not looked at (--images 0)" in words(section) and "files" not in section.facts
    assert "none is at hand" in words(duplicates.section(made(tmp_path / "no", cohort(2), images=1)))


def test_sizes_that_several_images_have_are_listed_most_frequent_first(tmp_path: Path) -> None:
    table = cohort(6) | {"width": [5, 5, 5, 7, 7, 9], "height": [1] * 6}
    section = duplicates.section(made(tmp_path, table))
    assert section.facts["sizes"] == {"repeated": 2, "images": 5, "distinct": 3}
    assert cells(section, "Sizes that") == [("5 x 1", "3"), ("7 x 1", "2")]
