"""The command line: what it runs, and how it answers what a user got wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.__main__ import guarded, main, run_flow, run_one, weights_files
from kit.commands import COMMANDS
from kit.errors import SettingError
from kit.state import STAGES

ROOT = Path(__file__).parents[1]
FOLD = ("fold", "strip-ai", "--data")
Refused = Callable[..., str]


def rewrite(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change a table the way a user's program would."""
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def with_cell(line: int, column: str, value: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """One cell, by its line in the file."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[line - 2, column] = value
        return table

    return change


# --- tables that break a rule -----------------------------------------------------------------------


def test_a_train_table_without_patients_is_refused(refused: Refused, data: Path) -> None:
    rewrite(data / "train.csv", lambda t: t.drop(columns="patient_id"))
    refused(*FOLD, data, says=[f"{data / 'train.csv'} line 1", "patient_id must be there"])


def test_an_extra_column_is_reported_and_survived(kit: Callable[..., Any], data: Path) -> None:
    rewrite(data / "train.csv", lambda t: t.assign(age="60"))
    ended = kit(*FOLD, data)
    assert ended.code == 0
    assert f"{data / 'train.csv'}: the extra columns age are ignored" in ended.err


@pytest.mark.parametrize(
    ("line", "column", "value", "says"),
    [
        (6, "image_id", "006388_0", ["line 6: image_id '006388_0' is already in line 2"]),
        (5, "label", "Other", ["line 5: image_id 'a00000_0' has label 'Other'", "classes are CE, LAA"]),
        (3, "label", "CE", ["patient_id '006388' has label 'LAA' in line 2, 'CE' in line 3"]),
        (3, "center_id", "9", ["patient_id '006388' has center_id '1' in line 2, '9' in line 3"]),
        (4, "patient_id", "", ["line 4: the patient_id is empty"]),
        (4, "image_id", " ", ["line 4: the image_id is empty"]),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_by_line_and_value(
    refused: Refused, data: Path, line: int, column: str, value: str, says: list[str]
) -> None:
    rewrite(data / "train.csv", with_cell(line, column, value))
    refused(*FOLD, data, says=[str(data / "train.csv"), *says])


def test_a_sample_submission_with_an_unknown_patient_is_refused(refused: Refused, data: Path) -> None:
    rewrite(data / "sample_submission.csv", with_cell(4, "patient_id", "42"))
    refused(*FOLD, data, says=[f"{data / 'sample_submission.csv'}: units that", "line 4: patient_id '42'"])


def test_a_sample_submission_with_a_repeated_patient_is_refused(refused: Refused, data: Path) -> None:
    rewrite(data / "sample_submission.csv", with_cell(4, "patient_id", "000042"))
    refused(*FOLD, data, says=["sample_submission.csv", "line 4: patient_id '000042' is already in line 3"])


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "sample_submission.csv"])
def test_a_table_that_is_not_there_or_no_table_is_refused(refused: Refused, data: Path, name: str) -> None:
    (data / name).write_bytes(b"")
    refused(*FOLD, data, says=[f"{data / name} is not a readable CSV"])
    (data / name).unlink()
    refused(*FOLD, data, says=[f"{data / name} is not there"])


def test_too_few_patients_of_a_class_are_refused(refused: Refused, data: Path) -> None:
    rewrite(data / "train.csv", lambda t: t[(t["label"] == "CE") | (t["patient_id"] == "006388")])
    refused(*FOLD, data, says=["class LAA has 1 group(s), and folds need two of each class"])


def test_ids_that_look_like_numbers_survive_the_folds(
    kit: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    assert kit(*FOLD, data).code == 0
    lines = (tmp_path / "folds" / "strip-ai.csv").read_text().splitlines()
    assert any(line.startswith("006388_0,006388,006388,1,LAA,") for line in lines)
    assert any(line.startswith("2e3749_0,2e3749,2e3749,2,CE,") for line in lines)


# --- words that do not exist ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fodl", "strip-ai"], ["there is no stage 'fodl'", "did you mean fold?"]),
        (["xyz"], ["there is no stage 'xyz'", "Known: annotations, bundle"]),
        (["fold", "stripai"], ["there is no competition 'stripai'", "did you mean strip-ai?"]),
        (["fold", "none.py"], ["none.py is not there"]),
        (["fold", "strip-ai", "--set", "fold.kk=3"], ["no setting 'fold.kk'", "did you mean fold.k?"]),
        (["fold", "strip-ai", "--set", "fold.k=five"], ["fold.k cannot be 'five'", "of type int"]),
        (["fold", "strip-ai", "--set", "fold.k=0"], ["fold.k cannot be '0'", "2 or more"]),
        (["fold", "strip-ai", "--set", "fold.k"], ["--set takes key=value, and got 'fold.k'"]),
        (["fold", "strip-ai", "--set", "fold.scheme=sites"], ["one of: group, site"]),
        (["train", "strip-ai", "--weights", "net=none.pth"], ["--weights net: none.pth is not a file"]),
        (["combine", "strip-ai", "--oof", "a=none.csv"], ["--oof a: none.csv is not a file"]),
        (["combine", "strip-ai", "--oof", "a=."], ["--oof a: . is not a file"]),
        (["combine", "strip-ai", "--meta", "none.csv"], ["--meta: none.csv is not a file"]),
        (["fold", "strip-ai", "--folds", "none.csv"], ["--folds: none.csv is not a file"]),
        (["fold", "strip-ai", "--data", "none"], ["the data folder none is not there"]),
    ],
)
def test_a_word_that_does_not_exist_is_refused_with_what_does(
    refused: Refused, data: Path, words: list[str], says: list[str]
) -> None:
    given = [] if "--data" in words else ["--data", data]
    refused(*words, *given, says=says)


def test_a_folder_of_weights_stands_for_its_files(data: Path, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "resnet18.safetensors").write_bytes(b"")
    (tmp_path / "other.pth").write_bytes(b"")
    found = weights_files([str(tmp_path / "files"), f"mine={tmp_path / 'other.pth'}"])
    assert found == {"resnet18": tmp_path / "files" / "resnet18.safetensors", "mine": tmp_path / "other.pth"}


def test_a_file_of_weights_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "resnet18.pth").write_bytes(b"")
    program = (
        "import sys; from kit.__main__ import weights_files\n"
        "print(weights_files(sys.argv[1:]), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "resnet18.pth")],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith("{'resnet18': ") and done.stdout.endswith(" False\n"), done.stderr


def test_a_file_named_twice_is_refused(refused: Refused, data: Path, oof: list[str]) -> None:
    refused("combine", "strip-ai", "--data", data, *oof, *oof[:2], says=["--oof names 'net' twice"])


def test_a_text_file_is_no_data(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("x")
    refused(*FOLD, tmp_path / "train.txt", says=["train.txt is neither a folder nor a zip"])


@pytest.mark.parametrize("words", [["--seed", "x"], ["--threads", "0"], ["--workers", "-1"], ["--nothing"]])
def test_an_option_that_does_not_parse_ends_with_the_usage(
    kit: Callable[..., Any], data: Path, words: list[str]
) -> None:
    ended = kit(*FOLD, data, *words)
    assert ended.code == 2 and "usage: " in ended.err and words[0] in ended.err


def test_one_reader_and_no_worker_are_enough(kit: Callable[..., Any], data: Path) -> None:
    assert kit(*FOLD, data, "--workers", 0).code == 0


# --- a competition of one's own ---------------------------------------------------------------------

OWN = """
from kit.competition import Competition, Tables
from kit.metrics import LogLoss
from kit.tables import read_table

def load(data):
    return Tables(read_table(data / "cells.csv", ("image_id", "label")))

MINE = Competition("mine", ("A", "B"), LogLoss(), load)
"""


def test_a_file_of_ones_own_declares_a_competition_that_runs(
    kit: Callable[..., Any], tmp_path: Path, data: Path
) -> None:
    (tmp_path / "my_task.py").write_text(OWN)
    rows = [f"00{n},{'AB'[n % 2]}" for n in range(40)]
    (data / "cells.csv").write_text("image_id,label\n" + "\n".join(rows) + "\n")
    assert kit("fold", "my_task.py", "--data", data).code == 0
    assert "\n0010,0010,0010,,A," in (tmp_path / "folds" / "mine.csv").read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (OWN.replace("MINE = ", ""), "declares 0 competitions"),
        (OWN + "OTHER = Competition('other', ('A', 'B'), LogLoss(), load)\n", "declares 2 competitions"),
        (OWN.replace("kit.tables", "kit.tabels"), "my_task.py line 4 cannot be imported"),
        (OWN + "def (", "my_task.py"),
    ],
)
def test_a_file_of_ones_own_that_declares_no_competition_is_refused(
    refused: Refused, tmp_path: Path, data: Path, text: str, says: str
) -> None:
    (tmp_path / "my_task.py").write_text(text)
    refused("fold", "my_task.py", "--data", data, says=[says])


# --- predictions made elsewhere ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ["is not a readable CSV"]),
        ("id,predictions\n006388_0,.5\n", ["has no id column; it has id, predictions"]),
        ("image_id,score\n006388_0,.5\n", ["has no probabilities"]),
        ("image_id,predictions\n6388_0,.5\n", ["line 2: image_id '6388_0'"]),
        ("patient_id,predictions\n6388,.5\n", ["line 2: patient_id '6388'"]),
        ("image_id,predictions\n006388_0,.5\n006388_0,.4\n", ["line 3: image_id '006388_0' is repeated"]),
        ("image_id,predictions\n006388_0,high\n", ["line 2: image_id '006388_0' has", "no probability"]),
        ("image_id,predictions\n006388_0,1.5\n", ["line 2: image_id '006388_0' has", "no probability"]),
        ("image_id,CE,LAA\n006388_0,0,0\n", ["line 2: image_id '006388_0' has", "no probability"]),
    ],
)
def test_predictions_that_break_a_rule_are_refused_by_line_and_value(
    refused: Refused, data: Path, tmp_path: Path, content: str, says: list[str]
) -> None:
    (tmp_path / "bad.csv").write_text(content)
    refused("combine", "strip-ai", "--data", data, "--oof", "m=bad.csv", says=["bad.csv", *says])


def test_metadata_that_is_no_table_is_refused(
    refused: Refused, data: Path, tmp_path: Path, oof: list[str]
) -> None:
    (tmp_path / "meta.csv").write_text("")
    refused(
        "combine", "strip-ai", "--data", data, *oof, "--meta", "meta.csv", says=["meta.csv is not a read"]
    )


def test_test_predictions_without_their_oof_are_refused(refused: Refused, data: Path, oof: list[str]) -> None:
    refused("combine", "strip-ai", "--data", data, "--oof", oof[1], "--test", oof[3].replace("net", "other"),
            says=["--test other has no --oof other"])  # fmt: skip


def test_there_is_nothing_to_submit_without_test_predictions(
    kit: Callable[..., Any], refused: Refused, data: Path, oof: list[str]
) -> None:
    external = ["--data", data, *oof[:2], *oof[4:]]
    assert kit("combine", "strip-ai", *external).code == 0
    refused("submit", "strip-ai", *external, says=["no predictions of the test units", "--test NAME=FILE"])


# --- disks and folders ------------------------------------------------------------------------------


def test_a_work_folder_below_a_file_is_refused(
    refused: Refused, data: Path, tmp_path: Path, oof: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    for work in ("file", "file/work"):
        for words in (FOLD[:2], ("combine", "strip-ai", *oof)):
            refused(*words, "--data", data, "--work", work, says=[f"{work}/strip-ai/", "cannot be written"])


def test_a_file_in_the_place_of_the_folds_is_refused(refused: Refused, data: Path, tmp_path: Path) -> None:
    (tmp_path / "folds").write_text("")
    refused(*FOLD, data, says=["folds/strip-ai.csv cannot be written"])


@pytest.mark.parametrize("call", ["replace", "mkdir", "write"])
def test_a_full_disk_is_named_with_what_to_do(
    refused: Refused, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*{"replace": (os, "replace"), "mkdir": (Path, "mkdir"),
                        "write": (Path, "write_bytes")}[call], full)  # fmt: skip
        place = "work/strip-ai" if call == "mkdir" else "folds/strip-ai.csv"  # the first that is written
        refused(*FOLD, data, says=["no space is left on the disk", place, "--work DIR"])
    assert not list(tmp_path.rglob(".tmp-*")) and not (tmp_path / "folds" / "strip-ai.csv").exists()


def test_a_bug_keeps_its_traceback_and_a_users_error_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    def bug() -> None:
        raise FileNotFoundError(errno.ENOENT, "a bug")

    with pytest.raises(FileNotFoundError):
        guarded(bug)


def test_control_c_says_that_the_command_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    assert guarded(stopped) == 130
    assert "goes on where this one was" in capsys.readouterr().err


# --- the commands -----------------------------------------------------------------------------------


def test_there_is_one_subcommand_a_stage_in_flow_order_with_its_settings(
    kit: Callable[..., Any],
) -> None:
    shown = kit("--help").out
    places = [shown.index(f"\n    {name} ") for name in STAGES]
    assert places == sorted(places)
    mine = kit("tile", "--help").out
    assert "tile.size=224" in mine and "fold.k" not in mine


def test_the_help_tells_the_stages_of_the_flow_from_the_commands_beside_it(kit: Callable[..., Any]) -> None:
    shown = " ".join(kit("--help").out.split())
    assert f"The stages of the flow, in its order: {', '.join(STAGES)}. " in shown
    assert f"Commands beside the flow: {', '.join(COMMANDS)}." in shown


def test_the_options_of_a_command_are_shown_in_groups(kit: Callable[..., Any]) -> None:
    shown = kit("fold", "--help").out
    heads = ("data and results", "models", "predictions made elsewhere", "settings")
    firsts = ("--data DIR", "--weights NAME", "--oof NAME", "--recipe NAME")
    body = shown[shown.index("positional arguments") :]
    places = [body.index(f"\n{head}:\n  {first}") for head, first in zip(heads, firsts, strict=True)]
    assert places == sorted(places)
    words = " ".join(shown.split())
    assert "for combine and evaluate" in words and "the exit code is 1 if there is a leak" in words


def test_the_installed_command_is_a_function_that_returns_a_code() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["kit"]
    module, _, name = declared.partition(":")
    assert getattr(import_module(module), name) is main


def test_python_m_kit_ends_with_code_2_and_two_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kit", "fold", "stripai"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: there is no competition 'stripai'") and hint.startswith("hint: ")


def test_combine_prints_its_table_also_when_it_was_finished_before(
    kit: Callable[..., Any], data: Path, oof: list[str]
) -> None:
    first = kit("combine", "strip-ai", "--data", data, *oof)
    again = kit("combine", "strip-ai", "--data", data, *oof)
    assert "ridge pool *" in first.out and first.out == again.out
    assert "finished before" in again.err


def test_the_flow_runs_what_predictions_made_elsewhere_leave_to_do(
    kit: Callable[..., Any],  # for its folder and log
    data: Path,
    tmp_path: Path,
    oof: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_flow(["strip-ai", "--data", str(data), *oof])
    assert [r.getMessage()[:10] for r in caplog.records if r.getMessage().startswith("==")] == [
        "== combine", "== submit:", "== report:"]  # fmt: skip
    (folder,) = (tmp_path / "submissions" / "strip-ai").iterdir()
    assert {"submission.csv", "manifest.json", "report.html"} <= {path.name for path in folder.iterdir()}
    caplog.clear()
    run_flow(["strip-ai", "--data", str(data), *oof, "--force", "submit"])
    said = [record.getMessage() for record in caplog.records]
    assert "== combine: finished before" in said and "== submit: finished before" not in said


def test_the_flow_refuses_to_force_what_is_no_stage(
    kit: Callable[..., Any], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(lambda: run_flow(["strip-ai", "--data", str(data), "--force", "subit"])) == 2
    assert "did you mean submit?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["fold", "strip-ai"], ["predict", "strip-ai"]])
def test_processes_that_torchrun_starts_are_refused_by_all_stages_but_train(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match="torchrun has started 2"):
        run_one(words)
    with pytest.raises(SettingError, match="the whole flow takes one process"):
        run_flow(["strip-ai"])
