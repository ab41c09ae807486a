"""What the check of class folders found."""

from __future__ import annotations

from pathlib import Path

from kit import class_folders
from kit.competition import Competition, Tables
from kit.metrics import LogLoss
from kit.show.explore import duplicates, folders
from kit.show.explore.command import gathered
from kit.show.explore.content import Data
from kit.state import Run
from tests.show.explore.findings_made import draw_images
from tests.show.explore.tables_made import cells, cohort, made, options, words


def read(folder: Path) -> Data:
    """The class folders A and B of ``folder``."""
    task = Competition(
        "toy", ("A", "B"), LogLoss(), files="{file}", group="cluster",
        load=lambda data: Tables(class_folders.table(data, ("A", "B"))),
    )  # fmt: skip
    return gathered(Run(task, "toy", folder, folder / "work"), options())


def fill(folder: Path) -> None:
    """Three different images of each class."""
    for name in ("A", "B"):
        (folder / name).mkdir()
        for n in range(3):
            draw_images(folder / name, [f"{name}{n}"], (20 + n, 20 + (name == "B")))


def test_entries_that_are_no_image_are_listed_with_the_reason(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "A" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "A" / "<i>text.png").write_bytes(b"no picture")
    section = folders.section(read(tmp_path))
    assert section is not None
    assert (section.facts["skipped"], section.facts["broken"]) == (2, 1)
    assert [row[0] for row in cells(section, "Entries")] == ["A/.hidden.png", "A/<i>text.png"]
    assert "1 × a hidden file" in words(section)
    assert len(section.files["skipped"]) == 2


def test_equal_files_are_said_once_where_repetitions_are(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("A/copy", "B/other"):
        (tmp_path / f"{name}.png").write_bytes((tmp_path / "A" / "A0.png").read_bytes())
    (tmp_path / "A" / "note.txt").write_bytes(b"x")
    data = read(tmp_path)
    section, twice = folders.section(data), duplicates.section(data)
    assert section is not None and "equal" not in words(section) and "skipped" not in words(twice)
    assert not set(section.files) & set(twice.files)
    assert twice.facts["files"] == {
        "groups": 1, "images": 3, "by_label": {"A": 1, "B": 1}, "conflicts": 1,
        "conflicting": ["A0", "copy", "other"],
    }  # fmt: skip
    assert "1 group of equal files (by every byte), 3 images" in words(twice)
    assert "at least one of them is wrong" in words(twice)


def test_folders_without_anything_odd_are_said_to_be_so(tmp_path: Path) -> None:
    fill(tmp_path)
    section = folders.section(read(tmp_path))
    assert section is not None and section.files == {}
    assert words(section) == "6 images in 2 class folders. No entry was skipped."


def test_data_in_no_class_folders_have_no_such_section(tmp_path: Path) -> None:
    assert folders.section(made(tmp_path, cohort())) is None
