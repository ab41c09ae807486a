"""Writing the submission and everything needed to check it: the `submit` stage."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.deliver.check import check_submission
from kit.errors import SubmissionError
from kit.files import digest, file_digest, read_strings, write_file, write_json, write_table
from kit.settings import GROUPS, part
from kit.state import STAGES, Run, environment

VERSION = 2
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
    files += _copy_evidence(run)
    write_json(run.submission / "manifest.json", manifest(run, files, fallback))
    return [*files, run.submission / "manifest.json"]


def _write(run: Run, name: str, table: pd.DataFrame) -> Path:
    path, task = run.submission / name, run.competition

    def write(temporary: Path) -> None:
        write_table(temporary, table, FORMAT)
        check_submission(temporary, task.unit, task.classes, expected_ids(run))

    write_file(path, write)
    return path


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
    ids = expected_ids(run)
    fallback = [name for name in ids if name not in values.index]
    prior = json.loads((run.folder("combine") / "second_level.json").read_text())["scored_prior"]
    values = values.reindex(ids)
    values.loc[fallback] = np.tile(prior, (len(fallback), 1))
    values.index.name = run.competition.unit
    return rounded(values).reset_index(), fallback


def rounded(values: pd.DataFrame) -> pd.DataFrame:
    """Probabilities at nine digits whose rows still sum to 1: the largest takes the remainder."""
    numbers = values.to_numpy().round(9)
    top = numbers.argmax(axis=1)
    rows = np.arange(len(numbers))
    numbers[rows, top] += 1 - numbers.sum(axis=1)
    return pd.DataFrame(numbers, index=values.index, columns=values.columns)


def _copy_evidence(run: Run) -> list[Path]:
    """What someone needs to recompute the submission and its scores."""
    combine, predict = run.folder("combine"), run.folder("predict")
    models = predict if "predict" in run.after(STAGES["combine"]) else combine
    found = {
        "metrics.json": combine / "metrics.json",
        "second_level.json": combine / "second_level.json",
        "folds.csv": run.folds,
        # What is submitted, out of fold: the models' own rows do not tell it.
        "oof_combined.csv": combine / "oof.csv",
        **{name: models / name for name in ("oof.csv", "holdout.csv", "test.csv")},
    }
    copies = []
    for name, source in found.items():
        if source.is_file():
            write_file(run.submission / name, lambda target, s=source: shutil.copyfile(s, target))  # type: ignore[misc]
            copies.append(run.submission / name)
    return copies


def manifest(run: Run, files: list[Path], fallback: list[str]) -> dict[str, Any]:
    """How the submission was made: settings, keys, versions, and the digest of every file."""
    return {
        "competition": run.competition.name,
        "kaggle": run.competition.kaggle,
        "demo": run.demo,
        "run": run.submission.name,
        "seed": run.seed,
        "threads": run.threads,
        "batch": run.competition.training.infer_batch,
        "settings": {group: part(run.competition, group) for group in GROUPS if group != "demo"},
        "keys": {name: run.key(name) for name in run.chain("submit")},
        "environment": environment(),
        "fallback": fallback,
        "files": {path.name: file_digest(path) for path in files},
    }


def show(run: Run) -> str:
    """Where the submission is, and the bold one beside it."""
    bold = run.submission / "submission_bold.csv"
    lines = [f"submission: {run.submission / 'submission.csv'}"]
    if bold.is_file():
        lines.append(f"a second, bold one: {bold}")
    return "\n".join(lines)
