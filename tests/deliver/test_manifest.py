"""The manifest says how a submission was made, to whoever reads it and of nobody's private affairs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.competition import find
from kit.deliver import manifest, origin
from kit.errors import DataError
from kit.files import file_digest, write_json
from kit.state import Run

Submit = Callable[..., Path]
MINE = (
    "from dataclasses import replace\nfrom kit.competition import find\n"
    "MINE = replace(find('strip-ai'), name='mine')\n"
)


def test_it_says_how_the_run_was_made_and_what_it_claims(submitted: Submit, data: Path) -> None:
    folder = submitted("--seed", 3)
    content = manifest.read(folder)
    assert content["run"] == folder.name == content["keys"]["submit"][:12]
    assert list(content["keys"]) == ["combine", "submit"]
    assert (content["declared"]["kaggle"], content["declared"]["seed"]) == ("mayo-clinic-strip-ai", 3)
    assert content["declared"]["settings"]["combine.resamples"] == "50"
    assert content["external"] == {"oof": ["net"], "test": ["net"], "meta": False}
    assert content["data"]["folder"] == "data" and content["data"]["images"]["digest"] is None
    table = content["data"]["tables"]["train.csv"]
    assert table["size"] == (data / "train.csv").stat().st_size
    assert table["sha256"] == file_digest(data / "train.csv")
    assert set(content["data"]["tables"]) == {"train.csv", "test.csv", "sample_submission.csv"}
    assert content["timings"]["combine"]["seconds"] >= 0
    assert content["tolerance"] == {"same": 2e-6, "other": 1e-4}
    assert content["precision"] == "fp32" and content["batch"] == 32 and content["fallback"] == []
    rows = json.loads((folder / "metrics.json").read_text())["rows"]
    (row,) = [row for row in rows if row["kind"] == "default" and row["set"] == "oof"]
    assert all(content["claim"][name] == row[name] for name in ("name", "score", "low", "high", "nested"))
    assert content["claim"]["units"] == 36 and content["claim"]["metric"] == "weighted log loss"


def test_it_seals_every_file_beside_it_and_what_was_made_elsewhere(submitted: Submit, tmp_path: Path) -> None:
    folder = submitted()
    files = manifest.read(folder)["files"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(files) == there - {"manifest.json"}
    assert {"submission.csv", "oof_combined.csv", "external/oof/net.csv", "external/test/net.csv"} <= set(
        files
    )
    assert "folds.csv" not in files  # no fold table had a part in it
    assert all(file_digest(folder / name) == was for name, was in files.items())
    assert (folder / "external/oof/net.csv").read_bytes() == (tmp_path / "oof.csv").read_bytes()


def test_two_equal_runs_differ_in_their_clocks_alone(
    submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = origin.code()
    monkeypatch.setattr(origin, "code", lambda: code)  # somebody may be editing the package
    folder = submitted()
    first = manifest.read(folder)
    shutil.rmtree(folder)
    shutil.rmtree("work")
    again = manifest.read(submitted())
    assert {name for name in first if first[name] != again[name]} <= set(manifest.CLOCKS)


def test_nothing_private_is_in_it(
    submitted: Submit, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / "alice"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "alice")
    monkeypatch.setenv("WANDB_API_KEY", "hunter3")
    shutil.copytree(data, home / "strip")
    (home / "mine.py").write_text(MINE)
    (home / "near.csv").write_text("image_id,cluster\n006388_0,1\n2e3749_0,2\n")
    (home / "net.safetensors").write_bytes(b"weights")
    folder = submitted(
        *("--set", "tune.storage=postgresql+psycopg://alice:hunter2@host/db"),
        *("--duplicates", home / "near.csv", "--weights", home / "net.safetensors"),
        task=home / "mine.py", folder=home / "strip",
    )  # fmt: skip
    text = (folder / "manifest.json").read_text()
    for secret in ("alice", "hunter2", "hunter3", str(tmp_path), "home"):
        assert secret not in text
    assert manifest.read(folder)["declared"]["asked"] == "mine.py"
    assert manifest.read(folder)["data"]["folder"] == "strip"
    assert (folder / "declaration.py").read_text() == MINE


def test_what_our_own_models_are_made_of_is_named_without_its_folders(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "alice"
    (home / "slides" / "train").mkdir(parents=True)
    (home / "slides" / "train" / "006388_0.tif").write_bytes(b"12345")
    shutil.copytree(data, home / "slides", dirs_exist_ok=True)
    (home / "b.pth").write_bytes(b"b")
    work = home / "work" / "strip-ai"
    trained = {
        str(work / "train" / "resnet18" / f"fold0{end}"): f"is{end}"
        for end in (".json", ".safetensors", ".csv")
    }
    tile = {"ingredients": {"inputs": {"images": 52, "digest": "d1"}}}
    write_json(work / "state.json", {"train": {"outputs": trained}, "tile": tile})
    run = Run(find("strip-ai"), "strip-ai", home / "slides", work, weights={"resnet18": home / "b.pth"})
    assert manifest.weights(run) == {
        "attached": {"resnet18": file_digest(home / "b.pth")},
        "trained": {"resnet18/fold0.json": "is.json", "resnet18/fold0.safetensors": "is.safetensors"},
    }
    found = manifest.data(run, own=True)
    assert found["images"] == {"count": 52, "bytes": 5, "digest": "d1"}
    assert "alice" not in str(found)
    tile["ingredients"]["inputs"]["coords"] = "d2"  # where somebody else laid the tiles
    write_json(work / "state.json", {"train": {"outputs": trained}, "tile": tile})
    assert manifest.data(run, own=True)["images"]["coords"] == "d2"
    monkeypatch.setenv("USER", "slides")  # a folder that is named as its user
    assert manifest.data(run, own=True)["folder"] == ""


def test_a_byte_changed_anywhere_is_found(submitted: Submit) -> None:
    path = submitted() / "manifest.json"
    whole = path.read_bytes()
    manifest.read(path.parent)
    for place in [*range(0, len(whole), 97), len(whole) - 1]:
        # They turn a letter into its other case, a line end into another, and a space into a tab.
        for flip in (1, 32, 7, 41):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            with pytest.raises(DataError):
                manifest.read(path.parent)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"competition": "strip-ai", "files": {}}, "is of format 1, and this kit reads format 3"),
        ({"format": 4}, "is of format 4"),
        ([], "is of format none"),
        ({"format": manifest.FORMAT, "files": {}, "sha256": "0"}, "was changed after it was written"),
    ],
)
def test_a_manifest_that_is_none_of_this_version_is_refused_with_what_to_do(
    tmp_path: Path, content: Any, says: str
) -> None:
    write_json(tmp_path / "manifest.json", content)
    with pytest.raises(DataError) as caught:
        manifest.read(tmp_path)
    assert says in caught.value.message and "submit" in caught.value.hint


def test_a_folder_without_a_readable_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        manifest.read(tmp_path)
    for text in ("{", "[" * 100_000, "\xff"):
        (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match="is no JSON"):
            manifest.read(tmp_path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/oof.csv", "a/../../b", "..\\b", ""])
def test_a_manifest_that_covers_files_outside_its_folder_is_not_trusted(
    tmp_path: Path, name: str, seal: Callable[..., Path]
) -> None:
    seal(tmp_path, {"format": manifest.FORMAT, "files": {name: "0"}})
    with pytest.raises(DataError, match="lies outside the folder"):
        manifest.read(tmp_path)
