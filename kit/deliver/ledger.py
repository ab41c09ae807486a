"""Scores of the leaderboard beside what was predicted, and what their difference says.

``submissions/<name>/ledger.csv`` keeps what the user typed, one row a submission.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.combine.sentences import aligned, number
from kit.competition import Competition
from kit.deliver import manifest
from kit.deliver.choice import Candidate, select
from kit.deliver.standing import Standing, alike, standing
from kit.errors import DataError, SettingError
from kit.files import read_strings, write_table

COLUMNS = ("run", "kind", "public", "private", "units", "note")
KINDS = ("safe", "bold")
ALARM = 3.0  # standard errors that no luck explains
HEAD = ("run", "kind", "CV", "95 % interval", "public", "surprise", "private", "surprise", "note")
BOARDS = ("public", "private")


@dataclass(frozen=True)
class Entry:
    """What the user typed: nothing of it, or a submission with what is known of it.

    run: its folder, or the digits of its name.
    units: of the hidden test; 0: not said.
    """

    run: str = ""
    public: float | None = None
    private: float | None = None
    bold: bool = False
    note: str = ""
    units: int = 0


@dataclass(frozen=True)
class Row:
    """A row of the ledger; what is not known is ``None`` (of units, 0)."""

    run: str
    kind: str
    public: float | None = None
    private: float | None = None
    units: int = 0
    note: str = ""

    @property
    def name(self) -> str:
        """How sentences call it."""
        return f"{self.run} ({self.kind})"


def ledger(task: Competition, data: Path | None, entry: Entry) -> str:
    """Note what was typed, and say what all scores so far amount to; what the console prints.

    Args:
        data: the competition's folder, for the labels of runs without folds of their own.

    Raises:
        SettingError: there is no such submission, or a score is none.
        DataError: the ledger or the submission cannot be read.
    """
    if entry.units < 0:
        raise SettingError(f"--units {entry.units} is no number of units", "it takes 1 or more")
    path = _place(task)
    if entry.run:
        folder = find(task, entry.run)
        _check(task, folder, entry)
        path = folder.parent / "ledger.csv"
        write(path, noted(read(path), folder.name, entry))
    elif entry != Entry(units=entry.units):
        raise SettingError("a score was typed, and not of which submission", "add it: --add RUN")
    rows = read(path)
    if not rows:
        runs = ", ".join(sorted(one.parent.name for one in path.parent.glob(f"*/{manifest.NAME}")))
        return f"nothing is noted yet ({path}). Type: kit ledger {task.name} --add RUN --public SCORE" + (
            f"\nsubmissions: {runs}" if runs else ""
        )
    return report(task, data, path.parent, rows, entry.units)


def _place(task: Competition) -> Path:
    """The ledger of a competition; of its demo where only that has one."""
    real, demo = (Path("submissions") / name / "ledger.csv" for name in _names(task))
    return demo if demo.is_file() and not real.is_file() else real


def _names(task: Competition) -> tuple[str, str]:
    return task.name, f"{task.name}-demo"


def find(task: Competition, asked: str) -> Path:
    """The folder of a submission, by its path or by the first digits of its name.

    Raises:
        SettingError: there is none, or several.
    """
    places = [Path("submissions") / name for name in _names(task)]
    found = [path.parent for place in places for path in place.glob(f"*/{manifest.NAME}")]
    mine = [folder for folder in found if folder.name.startswith(asked)]
    if (Path(asked) / manifest.NAME).is_file():
        mine = [Path(asked).resolve()]  # "." has neither a name nor a folder above
    if len(mine) != 1:
        what = "several submissions are" if mine else "no submission is"
        known = ", ".join(str(folder) for folder in sorted(mine or found)) or "there is none: run submit"
        raise SettingError(f"--add: {what} called '{asked}'", f"give one of: {known}")
    return mine[0]


def _check(task: Competition, folder: Path, entry: Entry) -> None:
    """The scores are scores, and the file that they are of is there, of this competition.

    Raises:
        SettingError: not so.
    """
    for board in BOARDS:
        value = getattr(entry, board)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise SettingError(f"--{board} {value:g} is no score", "it takes a number above 0, as 0.671")
    if entry.bold and not (folder / "submission_bold.csv").is_file():
        raise SettingError(f"{folder} has no submission_bold.csv", "leave --bold away: it was the safe one")
    of = manifest.read(folder).get("declared", {}).get("name")
    if of is not None and of not in _names(task):
        raise SettingError(f"{folder} is a submission of {of}, not of {task.name}", f"type: kit ledger {of}")


# --- the file ---------------------------------------------------------------------------------------


def noted(rows: Sequence[Row], run: str, entry: Entry) -> list[Row]:
    """The rows with what was typed; what was typed before stays where nothing is said now."""
    kind = KINDS[entry.bold]
    old = next((row for row in rows if (row.run, row.kind) == (run, kind)), Row(run, kind))
    new = Row(
        run,
        kind,
        old.public if entry.public is None else entry.public,
        old.private if entry.private is None else entry.private,
        entry.units or old.units,
        " ".join(entry.note.split()) or old.note,
    )
    return [row for row in rows if row.name != new.name] + [new]


def write(path: Path, rows: Sequence[Row]) -> None:
    """The ledger in one step, sorted by run and kind."""
    cells = [
        (row.run, row.kind, _cell(row.public), _cell(row.private), str(row.units or ""), row.note)
        for row in sorted(rows, key=lambda row: (row.run, KINDS.index(row.kind)))
    ]
    write_table(path, pd.DataFrame(cells, columns=list(COLUMNS), dtype=object))


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)


def read(path: Path) -> list[Row]:
    """The rows of a ledger; none where there is no file.

    Raises:
        DataError: names the line that is no row of a ledger.
    """
    if not path.is_file():
        return []
    table = read_strings(path)
    if list(table.columns) != list(COLUMNS):
        raise DataError(f"{path} line 1: the columns must be {', '.join(COLUMNS)}", "put them back")
    rows = [_row(path, line, cells) for line, cells in enumerate(table.itertuples(index=False), start=2)]
    for line, row in enumerate(rows, start=2):
        if row.name in [other.name for other in rows[: line - 2]]:
            raise DataError(f"{path} line {line}: {row.name} is there twice", "remove one of the two")
    return rows


def _row(path: Path, line: int, cells: Sequence[str]) -> Row:
    run, kind, *typed, units, note = cells
    try:
        public, private = (float(cell) if cell else None for cell in typed)
        many = int(units or 0)
    except ValueError as error:
        raise DataError(f"{path} line {line}: {error}", "correct the line, or remove it") from error
    sound = all(value is None or (math.isfinite(value) and value > 0) for value in (public, private))
    plain = Path(run).name == run != ".."  # a folder beside the ledger, and no other
    if kind not in KINDS or not run or not plain or not sound or many < 0:
        raise DataError(
            f"{path} line {line}: '{', '.join(cells)}' is no row of a ledger",
            f"it takes a run, {' or '.join(KINDS)}, and scores above 0; correct the line, or remove it",
        )
    return Row(run, kind, public, private, many, note)


# --- what it says -----------------------------------------------------------------------------------


def report(task: Competition, data: Path | None, place: Path, rows: Sequence[Row], units: int) -> str:
    """The table, and what it amounts to."""
    found: dict[str, Standing] = {}
    lost = []
    for row in rows:
        try:
            found[row.name] = standing(place / row.run, row.kind == "bold", units or row.units)
        except DataError as error:
            lost.append(f"{row.name}: its CV is not known, since {error.message}")
    ordered = sorted(rows, key=lambda row: found[row.name].cv if row.name in found else math.inf)
    table = aligned(HEAD, [_line(row, found.get(row.name)) for row in ordered])
    return "\n".join(
        [
            *table,
            "",
            *_assumed(list(found.values())),
            *lost,
            *alarms(task, rows, found),
            *choice(task, data, place, ordered, found),
        ]
    )


def _line(row: Row, known: Standing | None) -> tuple[str, ...]:
    cells = [row.run, row.kind, "", ""]
    if known is not None:
        cells[2:] = [number(known.cv), f"{number(known.low)} to {number(known.high)}"]
    for board in BOARDS:
        value = getattr(row, board)
        cells.append("" if value is None else f"{value:.5g}")
        cells.append("" if value is None or known is None else f"{known.surprise(value):+.1f}")
    return (*cells, row.note)


def _assumed(found: Sequence[Standing]) -> list[str]:
    """What a surprise is counted in."""
    sizes = sorted({(one.units, one.why) for one in found})
    if not sizes:
        return []
    listed = "; or ".join(f"{units} units, {why}" for units, why in sizes)
    return [
        "surprise: leaderboard less CV (above 0: worse than predicted), in standard errors: of the CV, and of"
        f" a test set of {listed}. Which share of them is public is not known: all are assumed, and fewer"
        " would make every surprise smaller"
    ]


def alarms(task: Competition, rows: Sequence[Row], found: Mapping[str, Standing]) -> list[str]:
    """Scores that luck does not explain, and those of a file that says nothing."""
    lines = []
    for row in rows:
        for board in BOARDS:
            value = getattr(row, board)
            if value is None:
                continue
            if is_constant(task, value):
                lines.append(
                    f"ALARM: {row.name}: {board} {value:g} is the score of a constant: the fallback was"
                    " submitted; look at the log of the kernel"
                )
            elif row.name in found and abs(z := found[row.name].surprise(value)) > ALARM:
                lines.append(
                    f"ALARM: {row.name}: {board} {value:g} is {abs(z):.1f} standard errors {_why(z)}"
                )
    return lines


def _why(surprise: float) -> str:
    if surprise > 0:
        return (
            "worse than its CV: a leak in the CV, a broken rerun, wrong rows, or a test of other sites?"
            " (kit evaluate, kit fold --audit, kit rehearse)"
        )
    return "better than its CV: the CV is of a harder set, or of another submission than this one?"


def is_constant(task: Competition, value: float) -> bool:
    """Whether it is what the scored prior of every class gets, as a leaderboard rounds or cuts it."""
    prior = task.metric.fixed_prior
    if prior is None:
        return False
    constant = -sum(share * math.log(share) for share in prior if share > 0)
    rounded = [round(constant, digits) for digits in (3, 4, 5, 6)]
    return abs(value - constant) < 1e-5 or any(math.isclose(value, one, abs_tol=1e-9) for one in rounded)


def choice(
    task: Competition,
    data: Path | None,
    place: Path,
    rows: Sequence[Row],
    found: Mapping[str, Standing],
) -> list[str]:
    """Which two to select, and by what."""
    known = [row for row in rows if row.name in found]
    if len(known) < 2:
        return ["there is nothing to choose yet: two submissions with a known CV are needed"]
    candidates = [
        Candidate(row.name, one.cv, one.se, one.noise, row.public)
        for row in known
        for one in [found[row.name]]
    ]
    correlation, lacking = alike(task, data, [found[row.name] for row in known])
    chosen = select(candidates, correlation)
    second = next(one for one in candidates if one.name == chosen.second)
    lines = [
        f"select {chosen.first} and {chosen.second}: the better of the two is expected at"
        f" {chosen.expected:.4f}, {chosen.alone - chosen.expected:.4f} below the best one alone",
    ]
    if any(one.public is not None for one in candidates):
        lines.append(
            f"by CV first: it counts {1 - second.weight:.0%} and a public score {second.weight:.0%}, by their"
            " inverse variances; what a public score says of its units it says of the other submissions too"
        )
    else:
        lines.append("by CV alone: no public score is noted")
    return lines + lacking
