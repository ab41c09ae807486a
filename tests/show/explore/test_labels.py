"""How the classes are spread over images, units and columns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kit.show.explore import labels
from tests.show.explore.tables_made import captions, cells, cohort, made, words


def test_images_and_units_of_every_class_are_counted(tmp_path: Path) -> None:
    table = {"image_id": list("abcdef"), "p": list("112223"), "label": list("AABBBA")}
    section = labels.section(made(tmp_path, table, unit="p"))
    assert section.facts["images"] == {"A": 3, "B": 3} and section.facts["units"] == {"A": 2, "B": 1}
    assert "The 2 classes are even: 3 images each." in words(section) and len(captions(section)) == 2


def test_nearly_even_classes_are_told_from_even_ones() -> None:
    said = labels.balance(pd.Series({"A": 52, "B": 48}), "image")
    assert said == "The 2 classes are about even: of 100 images, A has 52.0\xa0% and B 48.0\xa0%."


def test_uneven_classes_are_said_to_be_so_with_numbers(tmp_path: Path) -> None:
    table = {"image_id": list("abcd"), "label": list("AAAB")}
    section = labels.section(made(tmp_path, table))
    assert "A has 75.0\xa0% and B 25.0\xa0%: 3.0 to one" in words(section)
    assert section.facts["ratio"] == 3


def test_a_class_that_is_declared_and_absent_is_named(tmp_path: Path) -> None:
    section = labels.section(made(tmp_path, {"image_id": ["a"], "label": ["A"]}))
    assert "B of the 2 declared classes has no image" in words(section) and section.facts["ratio"] is None


def test_images_of_a_unit_are_counted(tmp_path: Path) -> None:
    table = {"image_id": list("abcdef"), "p": list("112223"), "label": list("AABBBA"), "s": list("xx   y")}
    section = labels.units_section(made(tmp_path, table, unit="p", site="s"))
    assert section is not None
    assert section.facts["images_per_unit"] == {"1": 1, "2": 1, "3": 1} and section.facts["most"] == 3
    assert section.facts["two_labels"] == section.facts["two_sites"] == 0
    assert labels.units_section(made(tmp_path, cohort())) is None


def test_a_crosstab_counts_every_image_once_and_shades_shares(tmp_path: Path) -> None:
    table = cohort(40) | {"s": [k % 3 for k in range(40)], "long": [f"w{k // 2}" for k in range(40)]}
    section = labels.crosstabs_section(made(tmp_path, table, site="s"))
    assert section is not None
    counts = section.facts["counts"]
    assert isinstance(counts, dict) and list(counts) == ["s", "long"]
    assert sum(n for row in counts["s"].values() for n in row.values()) == 40
    assert counts["s"]["0"] == {"A": 7, "B": 7}
    assert cells(section, "Labels by s")[-1][:4] == ("all", "20", "20", "40")


def test_a_column_may_be_called_as_a_class_is_and_have_empty_cells(tmp_path: Path) -> None:
    table = cohort(40) | {"A": ["" if k < 15 else k % 2 for k in range(40)]}
    section = labels.crosstabs_section(made(tmp_path, table))
    assert section is not None
    assert section.files["1-A"].columns.tolist() == ["value of A", "A", "B"]
    assert cells(section, "Labels by A")[2][:3] == ("(empty)", "8", "7")
    section = labels.crosstabs_section(made(tmp_path, cohort(40) | {"s": ["", 1, 2, 2] * 10}, site="s"))
    assert section is not None and "0.0\xa0% (empty: 0 of 10)" in words(section)


def test_a_column_of_many_values_has_no_crosstab(tmp_path: Path) -> None:
    table = cohort(80) | {"word": [f"w{k // 2}" for k in range(80)]}
    assert labels.crosstabs_section(made(tmp_path, table)) is None
    section = labels.crosstabs_section(made(tmp_path, table, site="word"))
    assert section is not None and "word has 40 values: too many for a table" in words(section)


def test_fifteen_classes_are_told_apart_by_more_than_colour(tmp_path: Path) -> None:
    classes = tuple(f"class {k}" for k in range(15))
    table = cohort(60, classes) | {"s": [k % 2 for k in range(60)]}
    section = labels.crosstabs_section(made(tmp_path, table, classes=classes, site="s"))
    assert section is not None
    svg = section.blocks[2].charts[0].svg  # type: ignore[union-attr]
    assert "url(#crosstabs-0-counts-" in svg  # hatched, from the ninth on
    assert all(name in svg for name in classes)
