"""A winner's package runs by itself, and says truly what it is made of."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
from packaging.requirements import Requirement

from kit.deliver import archive, entry, winner
from kit.deliver.bundle import Options
from kit.errors import SettingError, StageError
from kit.state import Run
from tests.deliver import toy


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the toy is finished."""
    folder = tmp_path_factory.mktemp("toy")
    toy.finished(folder)
    return folder


@pytest.fixture(scope="module")
def package(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its package, with the data where SETTINGS.json says."""
    folder = tmp_path_factory.mktemp("winner") / "package"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        text = winner.package(toy.run_of(place), Options(out=folder))
    assert str(folder) in text and "places are left to be written by you" in text
    (folder / "data").symlink_to(place / "data")
    return folder


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(place)
    return toy.run_of(place)


def typed(package: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run an entry point as a stranger would, with the package's own copy of the kit."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True)


def test_the_package_has_what_kaggle_asks_of_winners(package: Path) -> None:
    names = {path.name for path in package.iterdir()}
    assert {"SETTINGS.json", "entry_points.md", "directory_structure.txt", "requirements.txt"} <= names
    assert {"prepare_data.py", "train.py", "predict.py", "model_summary.md", "kit", "task"} <= names
    assert archive.check_weights(package / "models") == []


@pytest.mark.parametrize("script", sorted(winner.STEPS))
def test_an_entry_point_finds_its_folders(package: Path, script: str) -> None:
    done = typed(package, script, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("toy: ") and f"MODEL_DIR={package / 'models'}" in done.stdout
    assert script in (package / "entry_points.md").read_text()


def test_predicting_gives_the_submission_of_the_run(package: Path, run: Run) -> None:
    done = typed(package, "predict.py")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    theirs = pd.read_csv(package / "submission" / "submission.csv", index_col=0)
    mine = pd.read_csv(run.submission / "submission.csv", index_col=0)
    assert theirs.index.equals(mine.index)
    assert (theirs - mine).abs().to_numpy().max() <= 2e-6


@pytest.mark.slow
def test_preparing_and_training_again_give_the_same_models(package: Path) -> None:
    before = archive.digests(package / "models" / "models")
    for script in ("prepare_data.py", "train.py"):
        done = typed(package, script, "--workers", "0")
        assert done.returncode == 0, done.stderr[-2000:]
    after = archive.digests(package / "models" / "models")
    weights = [name for name in before if name.endswith(".safetensors")]
    assert after.keys() == before.keys() and [after[n] for n in weights] == [before[n] for n in weights]
    assert (package / "work" / "toy" / "tile" / "images.csv").is_file()


def test_settings_that_cannot_be_used_are_explained(package: Path, tmp_path: Path) -> None:
    settings = tmp_path / "SETTINGS.json"
    settings.write_text('{"RAW_DATA_DIR": "data"}')
    with pytest.raises(SettingError, match="CLEAN_DATA_DIR") as error:
        entry.read(settings)
    assert "MODEL_DIR" in error.value.hint
    done = typed(package, "predict.py", "--settings", str(tmp_path / "nothing.json"))
    assert done.returncode == 2 and "hint: " in done.stderr and "Traceback" not in done.stderr


def test_data_that_are_not_there_are_named(package: Path, tmp_path: Path) -> None:
    for name in ("bundle.json", "SETTINGS.json"):
        (tmp_path / name).write_bytes((package / name).read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert entry.main("prepare", ["--dry-run"]) == 2


def test_requirements_are_pins_of_what_is_installed_here(package: Path) -> None:
    lines = (package / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    for pin in pins:
        (only,) = pin.specifier
        assert only.operator == "==" and metadata.version(pin.name).partition("+")[0] == only.version
    names = {pin.name for pin in pins}
    assert {"torch", "timm", "numpy", "pandas", "safetensors", "optuna", "openslide-bin"} <= names
    assert not names & {"pytest", "competition-kit", "mypy"}


def test_the_structure_lists_every_file(package: Path) -> None:
    lines = (package / "directory_structure.txt").read_text().splitlines()
    listed = {line.strip() for line in lines}
    assert {
        "kit/",
        "my_task.py",
        "model_summary.md",
        "directory_structure.txt",
        "second_level.json",
    } <= listed
    depth = {line.strip(): len(line) - len(line.lstrip()) for line in lines}
    assert depth["models/"] in (2, 4) and depth["my_task.py"] == 4


def test_the_summary_tells_the_numbers_of_the_run_and_marks_what_is_to_be_written(
    package: Path, run: Run
) -> None:
    text = (package / "model_summary.md").read_text()
    claim = json.loads((run.submission / "manifest.json").read_text())["claim"]
    assert f"{claim['score']:.4f} ({claim['low']:.4f} to {claim['high']:.4f}, 95 %)" in text
    assert run.submission.name in text and "`test_efficientnet:scratch`" in text
    assert re.search(r"\| train \| \d+ ", text) and text.count(winner.MARK) >= 6


def test_the_package_names_no_place_of_this_machine(package: Path, place: Path) -> None:
    files = [path for path in package.rglob("*") if path.is_file() and "data" not in path.parts]
    assert [path for path in files if str(place).encode() in path.read_bytes()] == []


def test_a_folder_with_other_files_is_refused_and_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("all of it")
    with pytest.raises(SettingError, match="other files"):
        winner.package(run, Options(out=tmp_path))
    assert (tmp_path / "thesis.doc").is_file()


def test_a_run_that_is_not_finished_has_no_package(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="a bundle needs"):
        winner.package(replace(run, seed=7), Options(out=tmp_path / "new"))
