"""Code and machine are told apart, and nobody's repository is taken for the kit's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kit import __version__
from kit.deliver import origin


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two files, in the place of the kit."""
    folder = tmp_path / "repository" / "kit"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("a = 1\n")
    (folder / "recipe.toml").write_text("b = 2\n")
    monkeypatch.setattr(origin, "PACKAGE", folder)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    return folder


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True)


def test_the_digest_is_of_sources_their_names_and_nothing_else(package: Path, tmp_path: Path) -> None:
    before = origin.source_digest(package)
    (package / "notes.txt").write_text("x")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_bytes(b"x")
    shutil.copytree(package, tmp_path / "copy")
    assert origin.source_digest(package) == before == origin.source_digest(tmp_path / "copy")
    (package / "recipe.toml").rename(package / "other.toml")
    renamed = origin.source_digest(package)
    (package / "__init__.py").write_text("a = 2\n")
    assert len({before, renamed, origin.source_digest(package)}) == 3


def test_commit_and_changes_are_told_where_git_keeps_the_package(package: Path) -> None:
    assert origin.code() == {
        "version": __version__, "digest": origin.source_digest(package), "commit": None, "dirty": None,
    }  # fmt: skip
    git(package.parent, "init")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-m", "first")
    clean = origin.code()
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (package.parent / "readme").write_text("beside the package")
    assert origin.code() == clean
    (package / "new.py").write_text("")
    assert origin.code()["dirty"] is True


def test_a_package_installed_inside_another_repository_has_no_commit(package: Path) -> None:
    git(package.parent, "init")
    git(package.parent, "commit", "--allow-empty", "-m", "of something else")
    assert (origin.code()["commit"], origin.code()["dirty"]) == (None, None)


def test_without_git_there_is_no_commit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(package))
    assert origin.code()["commit"] is None


def test_the_machine_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert origin.machine() == origin.machine() and "\n" not in origin.machine()
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert origin.machine().endswith("no GPU")


def test_the_repository_of_a_parent_process_is_not_taken_for_the_packages(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(package.parent, "init")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-m", "first")
    right = origin.code()["commit"]
    git(tmp_path, "init", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert right is not None and origin.code()["commit"] == right
