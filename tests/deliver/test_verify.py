"""A true submission passes, one flipped byte is found, and no program of a stranger runs unasked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.deliver import origin
from kit.deliver.findings import WIDTH
from kit.deliver.verify import Options, verify
from kit.errors import DataError
from kit.files import read_strings, write_json, write_table
from tests.deliver.verified import CUT, Place, asked, edit_json, failures, manifest, sealed

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_code")


# --- what is true passes ------------------------------------------------------------------------------


def test_a_submission_with_its_data_alone_passes_every_check_of_levels_0_to_2(
    photos: Place, clone: Path
) -> None:
    text, code = asked(clone, 2, data=photos.data)
    assert code == 0, text
    assert "The claim holds up to level 2." in text and "a constant scores" in text
    assert f"1 image has no tiles: {CUT} (unreadable)" in " ".join(text.split())
    assert "FAILED" not in text and "not checked" not in text
    *lines, command = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert command.endswith(f"verify {clone} --level 3 --data {photos.data} --bundle DIR --trust")
    (clone / "report.html").write_text("drawn afterwards")
    text, code = verify(clone, Options(level=0))
    assert code == 0 and "no other but report.html, which nothing vouches for" in " ".join(text.split())


def test_without_the_data_it_is_said_that_the_labels_are_the_submissions_own(clone: Path) -> None:
    text, code = asked(clone, 2)
    assert code == 0, text
    assert "as far as it was checked (not: tables, labels, ids)" in " ".join(text.split())
    assert "not checked  labels" in text and "not checked  tables" in text
    assert "submission.csv, of the new fit: the same bytes" in text


def test_predictions_made_elsewhere_are_verified_too(
    kit: Callable[..., Any], data: Path, oof: list[str], tmp_path: Path
) -> None:
    for stage in ("combine", "submit"):
        assert kit(stage, "strip-ai", "--data", data, *oof).code == 0
    (folder,) = (tmp_path / "submissions" / "strip-ai").iterdir()
    shutil.rmtree(tmp_path / "work")
    ended = kit("verify", folder, "--data", data)
    assert ended.code == 0 and "The claim holds up to level 2." in ended.out, ended.out
    assert "FAILED" not in ended.out and "not checked" not in ended.out
    ended = kit("verify", folder)
    assert ended.code == 2 and "level 1 (re-score) cannot be checked" in " ".join(ended.out.split())
    assert "--data DIR" in ended.out
    ended = kit("verify", folder, "--data", data, "--level", "3")
    assert ended.code == 2 and "The claim holds up to level 2; level 3" in ended.out
    made = folder / "external" / "oof" / "net.csv"
    table = read_strings(made)
    table.loc[table.index[:4], "predictions"] = "0.01"  # the first are LAA, CE, CE, LAA
    write_table(made, table)
    sealed(folder)
    ended = kit("verify", folder, "--data", data)
    assert (
        ended.code == 1 and "the first at level 1" in ended.out and "net (oof), score" in failures(ended.out)
    )


def test_groups_that_near_duplicates_join_are_joined_again(
    kit: Callable[..., Any], data: Path, oof: list[str], tmp_path: Path
) -> None:
    near = tmp_path / "near.csv"
    near.write_text("image_id,cluster\na00000_0,1\na00003_0,1\n")
    for stage in ("combine", "submit"):
        assert kit(stage, "strip-ai", "--data", data, "--duplicates", near, *oof).code == 0
    (folder,) = (tmp_path / "submissions" / "strip-ai").iterdir()
    near.unlink()
    ended = kit("verify", folder, "--data", data)
    assert ended.code == 0 and "key: the run's name follows" in ended.out, ended.out


def test_on_another_kind_of_machine_numbers_may_differ_in_their_last_digits(
    photos: Place, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((clone / "metrics.json").read_text())
    content["rows"][0]["score"] *= 1 + 1e-12
    write_json(clone / "metrics.json", content)
    sealed(clone)
    options = Options(level=1, data=photos.data, trust=True)
    assert "(oof), score" in failures(verify(clone, options)[0])
    monkeypatch.setattr(origin, "machine", lambda: "another processor, x86_64, no GPU")
    text, code = verify(clone, options)
    assert code == 0 and "the same within 1e-09" in text and "another processor" in text


def test_levels_0_to_2_need_no_torch(photos: Place, clone: Path) -> None:
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'torchvision', 'timm', 'openslide', 'tifffile', 'cv2'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from kit.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["verify", str(clone), "--level", "2", "--data", str(photos.data), "--trust"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The claim holds up to level 2." in done.stdout


# --- a stranger's program -------------------------------------------------------------------------------


@pytest.mark.parametrize("demo", [False, True])
def test_the_program_of_a_stranger_is_not_run_unasked(
    photos: Place, clone: Path, tmp_path: Path, demo: bool
) -> None:
    (clone / "declaration.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    assert asked(clone, 2, data=photos.data)[1] == 1  # it is not the one of the manifest
    sealed(clone, declared=manifest(clone)["declared"] | {"demo": demo})
    assert asked(clone, 0)[1] == 0
    text, code = verify(clone, Options(level=2, data=photos.data))
    assert code == 2 and "The claim holds up to level 0; level 1 (re-score) cannot be checked" in text
    assert "hint: read declaration.py, then add --trust" in text
    assert not (tmp_path / "run").exists()
    asked(clone, 1, data=photos.data)
    assert (tmp_path / "run").exists()


def test_the_verdict_says_that_the_senders_program_was_run(photos: Place, clone: Path) -> None:
    text, code = asked(clone, 1, data=photos.data)
    assert code == 0 and "BUT the sender's own program declaration.py was run" in " ".join(text.split())
    assert "BUT" not in asked(clone, 0)[0]
    mine = photos.data.parent / "my_task.py"
    text, code = verify(clone, Options(level=1, data=photos.data, task=mine))
    said = " ".join(text.split())
    assert code == 0 and "Your own my_task.py, which is its declaration.py, was run." in said
    mine = Path(shutil.copyfile(mine, "other.py"))
    mine.write_text(mine.read_text() + "\n")
    text, code = verify(clone, Options(level=1, data=photos.data, task=mine))
    assert code == 2 and "other.py is not the declaration.py that came with it" in " ".join(text.split())


def test_nothing_else_of_a_stranger_can_be_imported_and_nothing_is_left_beside_it(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert asked(clone, 1)[1] == 0
    assert asked(clone, 1)[1] == 0 and not (clone / "__pycache__").exists()
    (clone / "statistics_of_mine.py").write_text("")
    program = clone / "declaration.py"
    program.write_text("import statistics_of_mine\n" + program.read_text())
    edit_json(clone / "manifest.json", lambda content: content["files"].update({"statistics_of_mine.py": ""}))
    sealed(clone)
    text, code = asked(clone, 1)
    assert code == 2 and "No module named 'statistics_of_mine'" in " ".join(text.split())
    assert "--task FILE" in text


# --- one flipped byte ---------------------------------------------------------------------------------


def offsets(name: str, content: bytes, draw: np.random.Generator) -> list[int]:
    """Bytes to flip: some anywhere, and of each kind that a reader of the file might not look at."""
    kinds = (b" ", b"\n", b"0123456789", b'"', b",")
    places = [[n for n, byte in enumerate(content) if byte in kind] for kind in kinds]
    chosen = [int(draw.choice(place)) for place in places if place]
    return [0, len(content) - 1, *map(int, draw.integers(len(content), size=3)), *chosen]


def test_one_flipped_byte_anywhere_is_found(clone: Path) -> None:
    draw, count = np.random.default_rng(0), 0
    names = [path for path in sorted(clone.rglob("*")) if path.is_file()]
    assert {path.name for path in names} >= {"manifest.json", "declaration.py", "images.csv", "test.csv"}
    for path in names:
        content = path.read_bytes()
        for place in offsets(path.name, content, draw):
            spoilt = bytearray(content)
            spoilt[place] ^= 1 << int(draw.integers(8))
            path.write_bytes(spoilt)
            text, code = verify(clone, Options(level=0))
            assert code == 1 and failures(text).startswith("FAILED"), (path.name, place, text)
            count += 1
        path.write_bytes(content)
    assert count >= 60


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "oof.csv").unlink(), "oof.csv is missing"),
        (lambda folder: (folder / "notes.txt").write_text("x"), "notes.txt is not in the manifest"),
        (lambda folder: (folder / "a").mkdir() or (folder / "a" / "report.html").write_text(""), "a/report"),
        (lambda folder: sealed(folder, run="0123456789ab"), "is not the first 12 digits of its key"),
        (lambda folder: sealed(folder, files={}), "is not in the manifest"),
        (lambda folder: (folder / "images.csv").unlink() or sealed(folder), "images.csv is missing"),
        (lambda folder: (folder / "metrics.json").unlink() or sealed(folder), "metrics.json is missing"),
        (lambda folder: sealed(folder, declared={"name": "../../home"}), "'../../home' lies outside"),
        (lambda folder: sealed(folder, weights={"trained": {"/etc/x": ""}}), "'/etc/x' lies outside"),
        (lambda folder: sealed(folder, declared={}), "not as the kit writes it: KeyError('asked')"),
        (lambda folder: sealed(folder, declared=None), "does not say what it must of declared"),
        (lambda folder: (folder / "manifest.json").write_text("[" * 100_000), "manifest.json is no JSON"),
    ],
)
def test_a_folder_that_is_not_as_its_manifest_says_is_named(
    clone: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(clone)
    text, code = verify(clone, Options(level=2))
    assert code == 1 and says in failures(text)
    assert "level 1," not in text and "nothing above level 0 was tried" in " ".join(text.split())


def test_a_link_and_a_renamed_folder_are_named(clone: Path, tmp_path: Path) -> None:
    shutil.move(clone / "oof.csv", tmp_path / "elsewhere.csv")
    (clone / "oof.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert "oof.csv is a link" in failures(verify(clone, Options(level=0))[0])
    other = clone.rename(clone.with_name("mine"))
    assert "the folder is called 'mine'" in failures(verify(other, Options(level=0))[0])


def test_tables_that_the_manifest_does_not_name_are_not_checked(photos: Place, clone: Path) -> None:
    sealed(clone, data=manifest(clone)["data"] | {"tables": {}})
    text, code = verify(clone, Options(level=0, data=photos.data))
    assert code == 0 and "not checked  tables: the manifest does not know sample.csv, test.csv" in text


def test_what_is_no_submission_of_this_version_is_refused(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no manifest\.json"):
        verify(tmp_path, Options())
    sealed(clone, format=4)
    with pytest.raises(DataError, match="format 4"):
        verify(clone, Options())
    write_json(clone / "manifest.json", {"run": "x", "settings": {}})
    with pytest.raises(DataError, match="format 1"):
        verify(clone, Options())
