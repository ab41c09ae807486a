"""A finished run in a notebook, read from the submission's folder alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import kit
from kit.errors import StageError
from kit.state import Run

Made = tuple[Run, str]


@pytest.fixture
def loaded(made: Made, tmp_path: Path) -> kit.Run:
    """A copy of the submission, without anything that it was made from."""
    return kit.Run.load(shutil.copytree(_folder(made), tmp_path / "submissions" / "toy" / "abc"))


def _folder(made: Made) -> Path:
    run = made[0]
    return next(run.data.glob(f"submissions/{run.name}/*"))


def test_a_run_is_loaded_from_its_submission_alone(loaded: kit.Run) -> None:
    assert loaded.scores["kind"].eq("default").sum() >= 1
    assert list(loaded.submission.columns) == ["A", "B"] and loaded.submission.index[0] == "000"
    assert set(loaded.oof.columns) >= {"p_A", "p_B"}
    assert loaded.oof[["p_A", "p_B"]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert loaded.report.is_file()


def test_a_folder_of_one_submission_stands_for_it_and_several_are_named(loaded: kit.Run) -> None:
    parent = loaded.folder.parent
    assert kit.Run.load(str(parent)).folder == loaded.folder
    shutil.copytree(loaded.folder, parent / "def")
    with pytest.raises(StageError, match="holds 2 submissions") as error:
        kit.Run.load(parent)
    assert str(parent / "def") in str(error.value.hint)


def test_a_folder_without_a_submission_or_with_a_torn_one_says_what_to_do(
    loaded: kit.Run, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=r"no manifest\.json"):
        kit.Run.load(tmp_path / "nowhere")
    (loaded.folder / "metrics.json").write_text("{")
    with pytest.raises(StageError, match=r"metrics\.json cannot be read") as error:
        kit.Run.load(loaded.folder)
    assert "kit verify" in str(error.value.hint)


def test_jupyter_shows_the_verdict_and_every_score_escaped(loaded: kit.Run) -> None:
    html = loaded._repr_html_()
    assert "Better than a constant" in html and "<table" in html and "<script" not in html
    evil = kit.Run(loaded.folder, {"declared": {"name": "<b>x"}}, loaded.metrics)
    assert "<b>x" not in evil._repr_html_()


def test_print_fits_a_terminal(loaded: kit.Run) -> None:
    lines = str(loaded).splitlines()
    assert len(lines) > 5 and max(map(len, lines)) <= 80
    assert re.search(r"^ridge pool +submitted +0\.\d{4} +0\.\d+ to 0\.\d+", str(loaded), re.M)
