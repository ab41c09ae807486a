"""Writing the submission and everything needed to check it: the `submit` stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.competition import Competition
from kit.deliver import evidence, manifest
from kit.deliver.check import check_submission, verdict
from kit.errors import DataError, SubmissionError
from kit.files import digest, read_strings, write_file, write_table
from kit.state import Run

VERSION = 3
FORMAT = "%.9f"
log = logging.getLogger("kit")


def inputs(run: Run) -> dict[str, Any]:
    """The ids that the submission must have; held-out ones follow from the stages before."""
    return {"ids": "held-out" if run.tables.test is None else digest(expected_ids(run))}


def expected_ids(run: Run) -> list[str]:
    """The sample's ids in its order; else the test units; else, with no test table, the held-out ones."""
    if run.tables.sample is not None:
        return list(run.tables.sample.index)
    if run.tables.test is not None:
        return sorted(set(run.tables.test["unit_id"]))
    path = run.folder("combine") / "holdout.csv"
    return sorted(read_strings(path)["unit_id"]) if path.is_file() else []


def run(run: Run) -> list[Path]:
    """The stage: ``submissions/<name>/<run>/``, checked, with its manifest written last."""
    table, fallback = build(run, "holdout" if run.tables.test is None else "test")
    files = [_write(run, "submission.csv", table)]
    if fallback:
        log.warning(
            "%d of %d units have no usable image and get the prior: %s",
            len(fallback),
            len(table),
            ", ".join(fallback[:10]),
        )
    bold = run.submission / "submission_bold.csv"
    if run.tables.test is not None and len(read_strings(run.folder("combine") / "bold.csv")):
        files.append(_write(run, bold.name, build(run, "bold")[0]))
    else:
        bold.unlink(missing_ok=True)
    files += evidence.copy(run)
    return [*files, manifest.write(run, files, fallback)]


def judge(run: Run, file: Path) -> tuple[str, int]:
    """Judge anybody's submission by the ids of this run: what the console prints, and the exit code.

    Raises:
        DataError: no ids are known.
        SettingError: there is no such file.
    """
    sample, ids = run.tables.sample, expected_ids(run)
    if not ids:
        raise DataError(
            f"it is not known which {run.competition.unit} a submission of {run.name} must have",
            "give --sample FILE; or run fold and combine: they are the held-out ones",
        )
    return verdict(file, run.competition, pd.DataFrame(index=pd.Index(ids)) if sample is None else sample)


def write_checked(path: Path, table: pd.DataFrame, task: Competition, ids: Sequence[str]) -> Path:
    """Write a submission, which replaces the file that is there if it is as the competition will want it.

    Raises:
        SubmissionError: it is not.
    """

    def write(temporary: Path) -> None:
        write_table(temporary, table, FORMAT)
        check_submission(temporary, task.unit, task.classes, ids)

    write_file(path, write)
    return path


def _write(run: Run, name: str, table: pd.DataFrame) -> Path:
    return write_checked(run.submission / name, table, run.competition, expected_ids(run))


def build(run: Run, source: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows to submit, and the units that get the prior since none of their images was usable.

    Args:
        source: the table of `combine` that holds the predictions: test, bold or holdout.

    Raises:
        SubmissionError: nothing was predicted.
    """
    classes = list(run.competition.classes)
    found = read_strings(run.folder("combine") / f"{source}.csv").set_index("unit_id")
    if not len(found) and (run.tables.test is None or set(run.external.oof) - set(run.external.test)):
        raise SubmissionError(
            f"there are no predictions of the {source} units to submit",
            "external models need --test NAME=FILE beside each --oof NAME=FILE"
            if run.tables.test is not None
            else "a task without a test table submits its held-out set: raise fold.holdout",
        )
    values = found[[f"p_{name}" for name in classes]].astype(float).set_axis(classes, axis=1)
    prior = json.loads((run.folder("combine") / "second_level.json").read_text())["scored_prior"]
    return completed(values, expected_ids(run), prior, run.competition.unit)


def completed(
    values: pd.DataFrame, ids: Sequence[str], prior: Sequence[float], unit: str
) -> tuple[pd.DataFrame, list[str]]:
    """The rows of ``ids`` in their order, rounded; and those without predictions, which get the prior."""
    fallback = [name for name in ids if name not in values.index]
    table = values.reindex(list(ids))
    table.loc[fallback] = np.tile(prior, (len(fallback), 1))
    table.index.name = unit
    return rounded(table).reset_index(), fallback


def rounded(values: pd.DataFrame) -> pd.DataFrame:
    """Probabilities at nine digits whose rows still sum to 1: the largest takes the remainder."""
    numbers = values.to_numpy().round(9)
    top = numbers.argmax(axis=1)
    rows = np.arange(len(numbers))
    numbers[rows, top] += 1 - numbers.sum(axis=1)
    return pd.DataFrame(numbers, index=values.index, columns=values.columns)


def show(run: Run) -> str:
    """Where the submission is, and the bold one beside it."""
    bold = run.submission / "submission_bold.csv"
    lines = [f"submission: {run.submission / 'submission.csv'}"]
    if bold.is_file():
        lines.append(f"a second, bold one: {bold}")
    return "\n".join(lines)
