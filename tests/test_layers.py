"""A room imports only the ground and the rooms before it; combine runs without torch and openslide."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KIT = ROOT / "kit"
FILES = sorted(KIT.rglob("*.py"))
# What each room may import besides the ground and itself.
BEFORE: dict[str, set[str]] = {
    "read": set(),
    "learn": {"read"},
    "combine": set(),
    "deliver": {"read", "learn", "combine"},
    "show": {"read", "learn", "combine", "deliver"},
    "demo": set(),
    "competitions": set(),
}
HEAVY = {"torch", "torchvision", "timm", "openslide", "tifffile", "accelerate", "albumentations", "optuna"}


def imported(tree: ast.AST, deep: bool = True) -> set[str]:
    """Dotted names of what a file imports; unless ``deep``, not in functions, nor for type checkers alone."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif deep or not (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ):
            found |= imported(node, deep)
    return found


def of_file(path: Path, deep: bool = True) -> set[str]:
    return imported(ast.parse(path.read_text()), deep)


def rooms(names: set[str]) -> set[str]:
    """The rooms of the kit among imported names."""
    return {part[1] for part in (name.split(".") for name in names) if part[0] == "kit"} & set(BEFORE)


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    inside = path.relative_to(KIT).parts
    return inside[0] if len(inside) > 1 else ""


def test_imports_are_found_wherever_they_stand() -> None:
    text = "import kit.read.tiles\nif x:\n  from kit import learn\ndef f():\n  from kit.show import report"
    assert rooms(imported(ast.parse(text))) == {"read", "learn", "show"}
    assert rooms(imported(ast.parse(text), deep=False)) == {"read", "learn"}


def test_every_folder_of_the_kit_is_a_known_room() -> None:
    assert {room_of(path) for path in FILES} - {""} <= set(BEFORE)
    assert {"read", "learn", "combine", "deliver", "show", "demo", "competitions"} == set(BEFORE)


@pytest.mark.parametrize("path", [p for p in FILES if not room_of(p)], ids=label)
def test_the_ground_imports_no_room_and_nothing_heavy(path: Path) -> None:
    assert rooms(of_file(path, deep=False)) == set()
    assert {name.split(".")[0] for name in of_file(path)} & HEAVY == set()


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p)], ids=label)
def test_a_room_imports_only_the_ground_and_the_rooms_before_it(path: Path) -> None:
    assert rooms(of_file(path)) - {room_of(path)} - BEFORE[room_of(path)] == set()


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) == "combine"], ids=label)
def test_combine_imports_no_library_that_reads_or_learns(path: Path) -> None:
    assert {name.split(".")[0] for name in of_file(path)} & HEAVY == set()


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_file_is_longer_than_four_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_combine_and_submit_of_predictions_made_elsewhere_load_nothing_heavy(
    data: Path, oof: list[str], tmp_path: Path
) -> None:
    program = (
        "import json, sys\n"
        "from kit.__main__ import main\n"
        "words = json.loads(sys.argv[1])\n"
        "codes = [main([stage, 'strip-ai', *words]) for stage in ('combine', 'submit')]\n"
        "print(json.dumps([codes, sorted(sys.modules)]))\n"
    )
    words = ["--data", str(data), *oof]
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(words)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes, modules = json.loads(done.stdout.splitlines()[-1])
    assert codes == [0, 0] and "kit.combine.second_level" in modules
    assert {name.split(".")[0] for name in modules} & HEAVY == set()
    assert {name for name in modules if name.startswith(("kit.read", "kit.learn", "kit.demo"))} == set()
