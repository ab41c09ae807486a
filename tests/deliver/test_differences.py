"""Two submissions that were not made alike: what is different, and nothing besides."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.deliver import manifest
from kit.deliver.differences import differences

Seal = Callable[..., Path]
STAGES = ("fold", "tile", "tune", "train", "predict", "combine", "submit")
DIGEST = "0123456789abcdef" * 4


def content() -> dict[str, Any]:
    """A manifest of our own two models."""
    return {
        "format": manifest.FORMAT,
        "declared": {
            "asked": "strip-ai", "name": "strip-ai", "kaggle": "m", "demo": False, "seed": 0, "threads": 1,
            "settings": {"tile.size": "224", "train.lr": "0.01", "train.epochs": "5"},
        },
        "code": {"version": "1", "digest": DIGEST, "commit": None, "dirty": None},
        "data": {
            "folder": "a",
            "tables": {"train.csv": {"size": 10, "sha256": DIGEST}},
            "images": {"count": 3, "bytes": 99, "digest": DIGEST},
        },
        "weights": {"attached": {}, "trained": {"net/fold0.safetensors": DIGEST, "net/fold0.json": DIGEST}},
        "environment": {"numpy": "2.0", "torch": "2.1"},
        "machine": {"class": "x"},
        "precision": "fp32",
        "batch": 32,
        "tolerance": {"same": 2e-6, "other": 1e-4},
        "keys": {name: f"{name}0" for name in STAGES},
        "timings": {"train": {"seconds": 100.0, "peak_mib": 1000}, "fold": {"seconds": 0.1, "peak_mib": 900}},
        "fallback": [],
        "files": {"external/oof/x.csv": DIGEST, "oof.csv": DIGEST},
    }  # fmt: skip


@pytest.fixture
def compared(tmp_path: Path, seal: Seal) -> Callable[..., str]:
    """The differences of that manifest and one with some entries changed, by dotted path."""

    def changed(changes: dict[str, Any]) -> str:
        other = copy.deepcopy(content())
        for path, value in changes.items():
            *way, last = path.split("/")
            place = other
            for name in way:
                place = place[name]
            place[last] = value
        folders = []
        for name, made in (("a", content()), ("b", other)):
            (tmp_path / name).mkdir()
            folders.append(seal(tmp_path / name, made))
        return differences(*folders)

    return changed


def rows(text: str) -> list[list[str]]:
    """The cells of the table."""
    return [line.split() for line in text.partition("\n\n")[2].splitlines()[1:]]


def test_what_only_clocks_and_folders_tell_apart_was_made_alike(compared: Callable[..., str]) -> None:
    text = compared(
        {
            "timings/train": {"seconds": 149.0, "peak_mib": 1400},
            "timings/fold": {"seconds": 0.9, "peak_mib": 900},
            "data/folder": "b",
            "files/oof.csv": "1",
        }
    )
    assert text.startswith("A and B were made alike")


def test_the_first_stage_is_named_with_what_it_was_given(compared: Callable[..., str]) -> None:
    later = {f"keys/{name}": "new" for name in ("train", "predict", "combine", "submit")}
    text = compared(later | {"declared/settings/train.lr": "0.001"})
    assert "the first stage that differs is train; predict, combine, submit rest on train" in text
    assert rows(text) == [["settings", "train.lr", "0.01", "0.001"]]


def test_folds_and_a_declaration_that_differ_are_named(compared: Callable[..., str]) -> None:
    text = compared({"files/folds.csv": "1", "files/declaration.py": "2"})
    assert rows(text) == [["beside", "declaration.py", "-", "2"], ["folds.csv", "-", "1"]]


def test_what_has_other_keys_was_not_made_alike_whatever_else_is_the_same(
    compared: Callable[..., str],
) -> None:
    text = compared({"keys/submit": "new"})
    assert "the first stage that differs is submit" in text and "in neither manifest" in text


def test_two_stages_that_do_not_rest_on_each_other_are_both_first(compared: Callable[..., str]) -> None:
    text = compared({f"keys/{name}": "new" for name in STAGES} | {"declared/seed": 1})
    assert "the first stage that differs is fold, and beside it tile; tune" in text
    assert rows(text) == [["seeds", "seed", "0", "1"]]


def test_every_kind_of_difference_is_one_short_line(compared: Callable[..., str]) -> None:
    other = "f" * 64
    text = compared(
        {
            "data/tables/train.csv": {"size": 11, "sha256": other},
            "data/images/count": 4,
            "code/digest": other,
            "code/dirty": True,
            "environment/torch": "2.2",
            "machine/class": "y",
            "weights/trained": {"net/fold0.safetensors": other, "odd/fold0.safetensors": DIGEST},
            "fallback": ["006388"],
            "timings/train": {"seconds": 151.0, "peak_mib": 1000},
        }
    )
    found = rows(text)
    groups = ["data", "weights", "code", "libraries", "machine", "no", "time"]
    assert [row[0] for row in found if row[0] in groups] == groups
    assert ["libraries", "torch", "2.1", "2.2"] in found and ["machine", "class", "x", "y"] in found
    assert ["time", "train", "100", "s", "151", "s"] in found
    assert "10 bytes, 0123456789ab" in text and "11 bytes, ffffffffffff" in text
    assert "model odd" in text and "1 of 1 fits, first net/fold0.safetensors" in text
    assert ["no", "image", "units", "that", "get", "the", "prior", "none", "006388"] in found
    assert DIGEST not in text and all(len(line) < 200 for line in text.splitlines())


def test_many_settings_are_cut(compared: Callable[..., str]) -> None:
    text = compared({f"declared/settings/tile.x{n}": "1" for n in range(30)})
    assert len(rows(text)) == 9 and "... and 22 more" in text


def test_files_of_predictions_have_nothing_to_compare(tmp_path: Path, seal: Seal) -> None:
    seal(tmp_path, content())
    assert differences(tmp_path, tmp_path / "oof.csv") == ""


def test_a_manifest_that_cannot_be_trusted_spoils_no_comparison_of_scores(tmp_path: Path, seal: Seal) -> None:
    seal(tmp_path, content())
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace("0.01", "0.02"))
    text = differences(tmp_path, tmp_path)
    assert text.startswith("how they were made cannot be compared") and "was changed" in text


def test_compare_of_two_submissions_says_how_they_were_made(
    submitted: Callable[..., Path], kit: Callable[..., Any], data: Path
) -> None:
    first, second = submitted(), submitted("--seed", 1)
    ended = kit("compare", "strip-ai", "--data", data, first, second)
    assert ended.code == 0, ended.err
    assert "as they came:" in ended.out and "the first stage that differs is combine" in ended.out
    assert ["seeds", "seed", "0", "1"] in [line.split() for line in ended.out.splitlines()]
