"""A submission that the competition would refuse is refused before, by its first bad row."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.deliver.check import check_submission
from kit.errors import SubmissionError

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
