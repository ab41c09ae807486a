"""A submission that the competition would refuse is refused before, by its first bad row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.competition import find
from kit.deliver.check import ROOM, check_submission, judge
from kit.errors import DataError, SettingError, SubmissionError

ROOT = Path(__file__).parents[2]

IDS = ["2e3749", "006388", "1e5", "b00001"]  # the order of the sample
GOOD = ["patient_id,CE,LAA", "2e3749,0.5,0.5", "006388,1.0,0.0", "1e5,0.25,0.75", "b00001,0.1,0.9"]


def check(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("\n".join(lines) + "\n")
    check_submission(path, "patient_id", ("CE", "LAA"), IDS)


def with_line(n: int, *lines: str) -> list[str]:
    """The good file with line ``n`` (the header is 1) replaced by others."""
    return [*GOOD[: n - 1], *lines, *GOOD[n:]]


def test_a_sound_submission_passes(tmp_path: Path) -> None:
    check(tmp_path, GOOD)


def test_sums_may_be_off_by_what_printing_takes_away(tmp_path: Path) -> None:
    check(tmp_path, with_line(4, "1e5,0.3333333,0.6666666"))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (with_line(1, "patient_id,LAA,CE"), "line 1: the columns are patient_id, LAA, CE"),
        (with_line(1, "id,CE,LAA"), "line 1: the columns are id, CE, LAA"),
        ([f"{line},1" for line in GOOD[:1]] + [f"{line},1" for line in GOOD[1:]], "line 1: the columns"),
        (GOOD[:-1], "1 ids of the sample are missing, first 'b00001'"),
        (with_line(3), "1 ids of the sample are missing, first '006388'"),
        (GOOD[:1], "4 ids of the sample are missing, first '2e3749'"),
        ([*GOOD, "c1,0.5,0.5"], "line 6: patient_id 'c1' is not in the sample"),
        (with_line(4, "", "1e5,0.25,0.75", "2e3749,0.5,0.5"), "patient_id '2e3749' is already in line 2"),
        (with_line(3, GOOD[3], GOOD[2])[:4] + GOOD[4:], "line 3: patient_id '1e5' stands where the sample"),
        (with_line(3, "6388,1.0,0.0"), "line 3: patient_id '6388' is not in the sample"),
        (with_line(2, "inf,0.5,0.5"), "line 2: patient_id 'inf' is not in the sample"),
        (with_line(4, "100000.0,0.25,0.75"), "line 4: patient_id '100000.0' is not in the sample"),
        (with_line(3, "006388,,1.0"), "line 3: patient_id '006388' is not a number in every class: , 1.0"),
        (with_line(3, "006388,٠.٤,0.6"), "line 3: patient_id '006388' is not a number in every class"),
        (with_line(3, "006388,\u00a00.4,0.6"), "line 3: patient_id '006388' is not a number in every class"),
        (with_line(3, "006388,nan,1.0"), "line 3: patient_id '006388' is not a number in every class"),
        (with_line(3, "006388,inf,1.0"), "line 3: patient_id '006388' is not a number in every class"),
        (with_line(3, "006388,high,1.0"), "line 3: patient_id '006388' is not a number in every class: high"),
        (with_line(4, "1e5,-0.25,1.25"), "line 4: patient_id '1e5' is outside 0 to 1: -0.25, 1.25"),
        (with_line(4, "1e5,0.5,0.50001"), "line 4: patient_id '1e5' does not sum to 1: 0.5, 0.50001"),
        ([*GOOD[:3], "1e5,0.5,0.6", "b00001,0.5,0.7"], "line 4: patient_id '1e5' does not sum to 1"),
        ([], "cannot be read as a CSV"),
    ],
)
def test_the_first_row_that_breaks_a_rule_is_named(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(SubmissionError) as caught:
        check(tmp_path, lines)
    assert str(tmp_path / "submission.csv") in caught.value.message
    assert says in caught.value.message


@pytest.mark.parametrize(("bad", "right"), [("6388", "006388"), ("100000.0", "1e5"), ("inf", "2e3749")])
def test_an_id_that_was_turned_into_a_number_is_recognised(tmp_path: Path, bad: str, right: str) -> None:
    lines = [line.replace(f"{right},", f"{bad},") for line in GOOD]
    with pytest.raises(SubmissionError) as caught:
        check(tmp_path, lines)
    assert caught.value.hint == f"'{right}' was turned into a number: keep ids as text"


def test_wrong_order_and_columns_come_with_what_is_right(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError) as caught:
        check(tmp_path, with_line(1, "patient_id,LAA,CE"))
    assert caught.value.hint == "they must be patient_id, CE, LAA, in this order"
    with pytest.raises(SubmissionError) as caught:
        check(tmp_path, [GOOD[0], *GOOD[:0:-1]])
    assert caught.value.hint == "keep the order of the sample"


def test_a_submission_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="cannot be read as a CSV"):
        check_submission(tmp_path / "none.csv", "patient_id", ("CE", "LAA"), IDS)


def says(tmp_path: Path, lines: list[str]) -> tuple[str, str]:
    """Message and hint of a file that is refused."""
    with pytest.raises(SubmissionError) as caught:
        check(tmp_path, lines)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(
    ("cells", "rule", "hint"),
    [
        (",1.0", "is not a number", "CE is '': fill what is empty"),
        ("NaN,1.0", "is not a number", "CE is 'NaN': fill what is empty"),
        ("0.5,None", "is not a number", "LAA is 'None': fill what is empty"),
        ("high,1.0", "is not a number", "CE is 'high': write a probability such as 0.5"),
        ('"0,5",0.5', "is not a number", "CE is '0,5': write a decimal point, not a comma"),
        ('"1,000.5",0.5', "is not a number", "without separators of thousands"),
        ("1_0,0", "is not a number", "CE is '1_0': write a probability"),
        ("50%,50%", "is not a number", "divide percents by 100"),
        ("40,60", "is outside 0 to 1", "CE is '40': divide percents by 100"),
        ("-1.3,2.3", "is outside 0 to 1", "CE is '-1.3': write a probability, not a logit or a score"),
        ("1e999,0", "is not a number", "CE is '1e999': write a probability, not a logit"),
        ("-inf,0", "is not a number", "CE is '-inf': write a probability, not a logit"),
        ("0x1,0", "is not a number", "CE is '0x1': write a probability such as 0.5"),
        ("0.4,0.4", "does not sum to 1", "divide the row by its sum, 0.8"),
    ],
)
def test_a_bad_cell_is_named_with_its_rule_and_what_to_write(
    tmp_path: Path, cells: str, rule: str, hint: str
) -> None:
    message, fix = says(tmp_path, with_line(3, f"006388,{cells}"))
    assert f"submission.csv line 3: patient_id '006388' {rule}" in message
    assert hint in fix


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        ([",patient_id,CE,LAA", "0,2e3749,0.5,0.5"], "the columns are , patient_id", "index=False"),
        (["Unnamed: 0,patient_id,CE,LAA", "0,2e3749,0.5,0.5"], "Unnamed: 0", "index=False"),
        (["patient_id;CE;LAA", "2e3749;0.5;0.5"], "line 1", "cells are parted by commas"),
        (["Patient_ID,ce, LAA", *GOOD[1:]], "line 1", "spaces, upper and lower case count"),
        (GOOD[1:], "line 1: the columns are 2e3749", "write the header above it"),
        (with_line(4, "1e5,0,25,0,75"), "line 4: it has 5 cells, and the header 3", "a decimal comma?"),
        (with_line(4, "1e5,0.25"), "line 4: it has 2 cells, and the header 3: 1e5, 0.25", "write an id"),
        (with_line(4, "1e5 ,0.25,0.75"), "line 4: patient_id '1e5 '", "write '1e5': spaces"),
        (
            with_line(4, "1E5,0.25,0.75"),
            "line 4: patient_id '1E5'",
            "write '1e5': spaces, upper and lower case count",
        ),
        (with_line(5, "B00001,0.1,0.9"), "line 5: patient_id 'B00001'", "write 'b00001'"),
        (
            with_line(3, "006388_0,0.1,0.9"),
            "line 3: patient_id '006388_0'",
            "the id of an image: write one row",
        ),
        ([*GOOD, "c1,0.5,0.5"], "line 6: patient_id 'c1' is not in the sample", "leave out other rows"),
        ([*GOOD, GOOD[1]], "line 6: patient_id '2e3749' is already in line 2", "keep one row an id"),
        (GOOD[:-1], "1 ids of the sample are missing", "give each a row"),
    ],
)
def test_every_fault_comes_with_a_fix(tmp_path: Path, lines: list[str], message: str, hint: str) -> None:
    said, fix = says(tmp_path, lines)
    assert message in said and hint in fix


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + "\n".join(GOOD),
        "\r\n".join(GOOD) + "\r\n",
        "\r".join(GOOD),
        "\n".join([*GOOD[:2], "", *GOOD[2:], "", ""]),
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in GOOD),
        "\n".join([*GOOD[:2], "006388,1,0", "1e5,2.5e-1,7.5E-01", "b00001, 0.1,+.9"]),
    ],
)
def test_what_changes_no_value_is_harmless(tmp_path: Path, text: str) -> None:
    path = tmp_path / "submission.csv"
    path.write_bytes(text.encode())
    check_submission(path, "patient_id", ("CE", "LAA"), IDS)


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "it is empty", "write a header"),
        (b"\n\n", "it is empty", "write a header"),
        (b"PK\x03\x04", "no plain text", "Excel workbook"),
        ("\ufeff".join(["", *GOOD]).encode("utf-16-le"), "no plain text", "save it as UTF-8"),
        (b"\x1f\x8b\x08", "no plain text", "unpack it"),
        ("\n".join(GOOD).encode() + b"\n\xe9,1,0\n", "line 6 is not UTF-8", "save it as UTF-8"),
        (b"a" * 200_000, "cannot be read as a CSV: field larger", "to_csv"),
        (b"x," * (2 * ROOM), "bytes, and 4 rows take less than", "is it the right file?"),
    ],
)
def test_a_file_that_is_no_table_of_that_size_is_refused_before_its_rows(
    tmp_path: Path, content: bytes, message: str, hint: str
) -> None:
    path = tmp_path / "submission.csv"
    path.write_bytes(content)
    with pytest.raises(SubmissionError) as caught:
        check_submission(path, "patient_id", ("CE", "LAA"), IDS)
    assert message in caught.value.message and hint in caught.value.hint


# --- the verdict on anybody's file ------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., tuple[str, int]]:
    """The verdict on these lines by the sample of the four ids."""
    sample = tmp_path / "sample_submission.csv"
    sample.write_text("\n".join([GOOD[0], *(f"{name},0.5,0.5" for name in IDS)]))

    def verdict(lines: list[str]) -> tuple[str, int]:
        path = tmp_path / "submission.csv"
        path.write_text("\n".join(lines))
        return judge(path, sample, find("strip-ai"))

    return verdict


SOUND = [GOOD[0], "2e3749,0.4,0.6", "006388,0.9,0.1", "1e5,0.25,0.75", "b00001,0.1,0.9"]


def test_a_sound_file_is_said_to_be_sound_and_nothing_else(judged: Callable[..., tuple[str, int]]) -> None:
    text, code = judged(SOUND)
    assert code == 0 and "sound. 4 rows" in text and "\n" not in text


def test_a_fault_is_told_with_its_fix_and_code_1(judged: Callable[..., tuple[str, int]]) -> None:
    text, code = judged(SOUND[:-1])
    assert code == 1 and "1 ids of the sample are missing, first 'b00001'\nto mend it: give each" in text


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        ([GOOD[0], *(f"{name},0.50,0.5" for name in IDS)], "every row is that of the sample: nothing was"),
        (
            [GOOD[0], *(f"{name},0.3,0.7" for name in IDS)],
            "every row says the same, 0.3, 0.7: is it a fallback?",
        ),
        ([*SOUND[:2], "006388,0.5,0.5", *SOUND[3:]], "1 of 4 rows is (the first is line 3) as in the sample"),
        (
            [*SOUND[:3], "1e5,0,1", "b00001,1,0"],
            "2 of 4 rows are (the first is line 4) with a probability of",
        ),
    ],
)
def test_what_is_legal_and_suspicious_is_said_with_code_0(
    judged: Callable[..., tuple[str, int]], lines: list[str], warned: str
) -> None:
    text, code = judged(lines)
    first, *others = text.splitlines()
    assert code == 0 and "sound" in first and len(others) == 1
    assert others[0].startswith("but ") and warned in others[0]


def test_a_certain_row_is_told_what_it_may_cost(judged: Callable[..., tuple[str, int]]) -> None:
    assert "adds 34.5 to the sum of losses" in judged([*SOUND[:3], "1e5,0.0,1.0", SOUND[4]])[0]


def test_a_sample_or_file_that_cannot_judge_is_a_slip_of_the_command(
    tmp_path: Path, judged: Callable[..., tuple[str, int]]
) -> None:
    judged(SOUND)
    file, sample = tmp_path / "submission.csv", tmp_path / "sample_submission.csv"
    with pytest.raises(SettingError, match=r"--sample: .* is not a file"):
        judge(file, tmp_path / "none.csv", find("strip-ai"))
    with pytest.raises(SettingError, match=r"--check: .* is not a file"):
        judge(tmp_path / "none.csv", sample, find("strip-ai"))
    sample.write_text("image_id,a,b\n1,0,1\n")
    with pytest.raises(DataError, match="a sample of strip-ai has the columns patient_id, CE, LAA"):
        judge(file, sample, find("strip-ai"))
    sample.write_text("patient_id,CE,LAA\n")
    with pytest.raises(DataError, match="has no row"):
        judge(file, sample, find("strip-ai"))


def test_by_the_data_of_a_run_a_file_is_judged_and_nothing_written(
    kit: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.csv"
    lines = (data / "sample_submission.csv").read_text().replace("0.5,0.5", "0.4,0.6").splitlines()
    path.write_text("\n".join(lines))
    ended = kit("submit", "strip-ai", "--data", data, "--check", path)
    assert ended.code == 0 and "sound. 5 rows" in ended.out
    path.write_text("\n".join(lines[:-1]))
    ended = kit("submit", "strip-ai", "--data", data, "--check", path)
    assert ended.code == 1 and "1 ids of the sample are missing, first '1e5'" in ended.out
    assert not (tmp_path / "submissions").exists() and not (tmp_path / "work").exists()


def test_a_check_by_a_sample_alone_makes_no_demo_and_loads_nothing_heavy(
    tmp_path: Path, judged: Callable[..., tuple[str, int]]
) -> None:
    judged(SOUND)
    words = ["submit", "strip-ai", "--check", "submission.csv", "--sample", "sample_submission.csv"]
    program = (
        f"import json, sys\nfrom kit.__main__ import main\ncode = main({words})\n"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0 and not (tmp_path / "work").exists()
    assert {name.split(".")[0] for name in modules} & {
        "torch",
        "timm",
        "openslide",
        "optuna",
        "sklearn",
    } == set()
