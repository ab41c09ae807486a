"""The ledger keeps what was typed, tells luck from faults, and says which two to select."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.competition import find
from kit.deliver import ledger
from kit.deliver.ledger import Row
from kit.errors import DataError
from kit.files import read_strings

Kit = Callable[..., Any]
Refused = Callable[..., str]
Write = Callable[..., Path]
LEDGER = Path("submissions/strip-ai/ledger.csv")


def cell(row: str, ended: Any, n: int) -> str:
    """A cell of the printed table: the row that begins with that run."""
    (line,) = [line for line in ended.out.splitlines() if line.split()[:1] == [row]]
    return line.split()[n]


def test_a_score_is_kept_and_counted_in_standard_errors(kit: Kit, written: Write) -> None:
    written("006388aa1234", 0.65)
    ended = kit("ledger", "strip-ai", "--add", "006388", "--public", 0.671, "--note", 'first, "safe"')
    assert ended.code == 0, ended.err
    table = read_strings(LEDGER)
    assert table.to_numpy().tolist() == [["006388aa1234", "safe", "0.671", "", "", 'first, "safe"']]
    assert cell("006388aa1234", ended, 2) == "0.6500"
    assert cell("006388aa1234", ended, 7) == "+0.5"
    assert "a test set of 100 units, those of the sample" in ended.out
    assert "Which share of them is public is not known" in ended.out
    assert not Path("work").exists()  # no demo was made for it


def test_what_was_typed_before_stays_where_nothing_is_said_now(kit: Kit, written: Write) -> None:
    written("aaaa", bold=0.66)
    kit("ledger", "strip-ai", "--add", "aaaa", "--public", 0.67, "--note", "first", "--units", 280)
    kit("ledger", "strip-ai", "--add", "aaaa", "--private", 0.68)
    kit("ledger", "strip-ai", "--add", "aaaa", "--public", 0.69, "--bold")
    assert ledger.read(LEDGER) == [
        Row("aaaa", "safe", 0.67, 0.68, 280, "first"),
        Row("aaaa", "bold", 0.69, None, 0, ""),
    ]
    ended = kit("ledger", "strip-ai")
    assert "280 units, as was typed" in ended.out and "100 units, those of the sample" in ended.out


@pytest.mark.parametrize("text", ["nan", "inf", "0", "-0.6"])
def test_a_number_that_is_no_score_is_refused_and_not_kept(
    text: str, refused: Refused, written: Write
) -> None:
    written("aaaa")
    refused("ledger", "strip-ai", "--add", "aaaa", f"--public={text}", says=["is no score"])
    assert not LEDGER.exists()


def test_a_submission_that_is_not_there_is_refused_with_those_that_are(
    refused: Refused, written: Write
) -> None:
    written("aa11")
    written("aa22")
    refused(
        "ledger", "strip-ai", "--add", "bb", "--public", 0.6, says=["no submission is called 'bb'", "aa11"]
    )
    refused(
        "ledger", "strip-ai", "--add", "aa", "--public", 0.6, says=["several submissions", "aa11", "aa22"]
    )
    refused("ledger", "strip-ai", "--add", "aa11", "--bold", says=["no submission_bold.csv"])
    refused("ledger", "strip-ai", "--public", 0.6, says=["not of which submission", "--add RUN"])


def test_a_number_of_units_below_none_is_refused(refused: Refused, written: Write) -> None:
    written("aaaa")
    refused("ledger", "strip-ai", "--units", "-5", says=["--units -5 is no number of units"])
    refused("ledger", "strip-ai", "--add", "aaaa", "--units", "-5", says=["--units -5"])
    assert not LEDGER.exists()


@pytest.mark.parametrize("asked", [".", "../aaaa/"])
def test_a_submission_may_be_named_from_inside_and_nothing_is_written_into_it(
    kit: Kit, written: Write, asked: str
) -> None:
    folder = written("aaaa").resolve()
    with contextlib.chdir(folder):
        assert kit("ledger", "strip-ai", "--add", asked, "--public", 0.66).code == 0
    assert not (folder / "ledger.csv").exists()
    assert [row.run for row in ledger.read(folder.parent / "ledger.csv")] == ["aaaa"]


def test_a_submission_of_another_competition_is_refused(
    refused: Refused, written: Write, seal: Callable[[Path, dict[str, Any]], Path]
) -> None:
    folder = written("aaaa")
    content = json.loads((folder / "manifest.json").read_text())
    seal(folder, content | {"declared": {"name": "idc"}})
    refused("ledger", "strip-ai", "--add", "aaaa", says=["is a submission of idc, not of strip-ai"])


def test_luck_is_no_alarm_and_what_luck_does_not_explain_is(kit: Kit, written: Write) -> None:
    written("aaaa", 0.60)
    assert "ALARM" not in kit("ledger", "strip-ai", "--add", "aaaa", "--public", 0.72).out
    worse = kit("ledger", "strip-ai", "--add", "aaaa", "--public", 0.75).out
    assert "ALARM: aaaa (safe): public 0.75 is 3.4 standard errors worse than its CV: a leak" in worse
    better = kit("ledger", "strip-ai", "--add", "aaaa", "--public", 0.42).out
    assert "standard errors better than its CV" in better


@pytest.mark.parametrize("score", [0.693, 0.6931, 0.69315, 0.69314])
def test_the_score_of_a_constant_is_recognised(score: float, kit: Kit, written: Write) -> None:
    written("aaaa", 0.66)
    assert (
        "is the score of a constant: the fallback was submitted"
        in kit("ledger", "strip-ai", "--add", "aaaa", "--private", score).out
    )


def test_a_score_near_that_of_a_constant_is_no_alarm() -> None:
    task = find("strip-ai")
    assert not any(ledger.is_constant(task, score) for score in (0.6929, 0.6933, 0.692, 0.694))


def test_two_are_selected_by_cv_first(kit: Kit, written: Write) -> None:
    for name, score, luck in (("aaaa", 0.60, 0), ("bbbb", 0.62, 1), ("cccc", 0.70, 2)):
        written(name, score, luck=luck)
    kit("ledger", "strip-ai", "--add", "aaaa", "--public", 0.66)
    assert "nothing to choose yet" in kit("ledger", "strip-ai").out
    kit("ledger", "strip-ai", "--add", "bbbb")
    ended = kit("ledger", "strip-ai", "--add", "cccc", "--public", 0.65)
    assert "select aaaa (safe) and bbbb (safe)" in ended.out
    assert "it counts 80% and a public score 20%" in ended.out
    assert [line.split()[0] for line in ended.out.splitlines()[2:4]] == ["bbbb", "cccc"]


def test_a_submission_that_is_gone_or_changed_keeps_its_row_without_a_cv(kit: Kit, written: Write) -> None:
    folder = written("aaaa")
    kit("ledger", "strip-ai", "--add", "aaaa", "--public", 0.66)
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("0.65", "0.55"))
    ended = kit("ledger", "strip-ai")
    assert ended.code == 0 and "aaaa (safe): its CV is not known" in ended.out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("aaaa,safe,much,,,", "line 2: could not convert"),
        ("aaaa,brave,0.6,,,", "line 2: 'aaaa, brave"),
        ("aaaa,safe,nan,,,", "is no row of a ledger"),
        ("aaaa,safe,0.6,,-3,", "is no row of a ledger"),
        ("../aaaa,safe,0.6,,,", "is no row of a ledger"),
        ("aaaa,safe,0.6,,,\naaaa,safe,0.5,,,", "line 3: aaaa (safe) is there twice"),
    ],
)
def test_a_ledger_that_was_spoilt_by_hand_is_named_by_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text(f"{','.join(ledger.COLUMNS)}\n{line}\n")
    with pytest.raises(DataError) as caught:
        ledger.read(path)
    assert says in caught.value.message and caught.value.hint


def test_without_a_ledger_it_says_how_to_begin(kit: Kit, written: Write) -> None:
    written("aaaa")
    ended = kit("ledger", "strip-ai")
    assert "--add RUN --public SCORE" in ended.out and "submissions: aaaa" in ended.out


def test_runs_of_predictions_made_elsewhere_need_the_data_to_be_told_apart(
    submitted: Callable[..., Path], kit: Kit, data: Path
) -> None:
    for folder in (submitted(), submitted("--set", "combine.method=logit mean")):
        kit("ledger", "strip-ai", "--add", folder)
    assert "how alike some of them err is not known" in kit("ledger", "strip-ai").out
    ended = kit("ledger", "strip-ai", "--data", data)
    assert "is not known, and taken" not in ended.out and "by CV alone: no public score is noted" in ended.out
