"""Words of the field."""

from __future__ import annotations

from pathlib import Path

from kit.competition import find
from kit.show.explore import glossary
from tests.show.explore.tables_made import cells, cohort, made

FINDINGS = {
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD",
    "Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening",
    "Pneumothorax", "Pulmonary fibrosis", "No finding",
}  # fmt: skip


def test_the_words_of_a_declaration_are_a_table(tmp_path: Path) -> None:
    section = glossary.section(made(tmp_path, cohort(), glossary=(("<b>", "bold & strong"),)))
    assert section is not None and cells(section, "Words") == [("<b>", "bold & strong")]


def test_a_declaration_without_words_has_no_such_section(tmp_path: Path) -> None:
    assert glossary.section(made(tmp_path, cohort())) is None


def test_every_class_of_the_radiographs_is_explained_in_a_sentence_or_two() -> None:
    words = dict(find("vinbigdata").glossary)
    assert set(words) == FINDINGS
    assert all(60 < len(text) < 330 and text.endswith(".") for text in words.values())
