"""Level 2: the same bytes of a submission, from a new fit and from the numbers that were shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pandas as pd

from kit.combine import apply, baselines
from kit.combine.units import gather
from kit.deliver import submit
from kit.deliver.case import Case, quietly
from kit.deliver.check import check_submission
from kit.deliver.findings import Finding, judged
from kit.deliver.rescore import compared, same_table
from kit.errors import KitError
from kit.files import write_json, write_table
from kit.state import Run, flatten

ROUNDING = 2e-9  # what the last of nine digits may differ by where sums are rounded otherwise
FILES = {"submission.csv": "default", "submission_bold.csv": "bold"}


def recombine(case: Case) -> list[Finding]:
    """Make every submission again: of the new fit that level 1 has left, and of second_level.json."""
    run = case.run
    fitted = run.folder("combine") / "second_level.json"
    if not fitted.is_file():
        return [Finding("not checked", "submission", "the second level could not be fitted")]
    shipped, again = (json.loads(path.read_text()) for path in (case.folder / fitted.name, fitted))
    faults, how = compared(case, flatten(shipped), flatten(again))
    found = [judged("fit", faults, f"the numbers of second_level.json, {how}")]
    with quietly():
        try:
            applied = apply_shipped(case, run, shipped)
            found += check_submissions(case, run, "of the new fit")
            found += check_submissions(case, applied, "of second_level.json")
        except (KitError, KeyError, ValueError, TypeError) as error:
            said = error.message if isinstance(error, KitError) else repr(error)
            return [*found, Finding("FAILED", "submission", f"it cannot be made: {said}")]
    return [*found, check_fallback(case, run), check_ids(case, run)]


def source(run: Run) -> str:
    """The table of `combine` that is submitted: held-out units where there is no test table."""
    return "holdout" if run.tables.test is None else "test"


def apply_shipped(case: Case, run: Run, shipped: dict[str, Any]) -> Run:
    """The run in another work folder, whose `combine` was made of ``second_level.json`` without a fit."""
    other = replace(run, work=case.place / "applied")
    vars(other)["tables"] = run.tables
    level, task = gather(run), run.competition
    table = run.tables.test if run.tables.test is not None else run.tables.train
    units = table.drop_duplicates("unit_id").set_index("unit_id")[["group_id", "site"]]
    models = level.test if run.tables.test is not None else level.holdout
    none = pd.DataFrame(columns=["image_id", "unit_id", "model", *(f"p_{name}" for name in task.classes)])
    metadata = _metadata(run, shipped)
    folder = other.folder("combine")
    write_json(folder / "second_level.json", shipped)
    for name, which in ((source(run), "default"), ("bold", "bold")):
        if shipped[which] is None:
            write_table(folder / f"{name}.csv", none[["unit_id"]])
        else:
            values = apply.posterior(task, shipped, none, units, metadata, which, models)  # type: ignore[arg-type]
            write_table(folder / f"{name}.csv", values)
    return other


def _metadata(run: Run, shipped: dict[str, Any]) -> pd.DataFrame | None:
    """What is known of every unit besides its models, where the second level was given it."""
    if shipped["metadata"] is None:
        return None
    tables = [table["unit_id"] for table in (run.tables.train, run.tables.test) if table is not None]
    units = pd.concat(tables)
    units = units[~units.index.duplicated()]  # a public test may be made of training images
    if run.external.meta is not None:
        return baselines.given_by_unit(run.competition, run.external.meta, units)
    images = baselines.tile_metadata(run.folder("tile") / "images.csv", ("train", "test"))
    return baselines.by_unit(images, units)


def check_submissions(case: Case, run: Run, how: str) -> list[Finding]:
    """Each submission against the one that `combine` of ``run`` gives, rounded and ordered as submitted."""
    found = []
    for name, which in FILES.items():
        path, what = case.folder / name, f"{name}, {how}"
        table = source(run) if which == "default" else "bold"
        wanted = bool(len(pd.read_csv(run.folder("combine") / f"{table}.csv"))) or which == "default"
        if wanted != path.is_file():
            faults = [f"{name} is {'missing' if wanted else 'there, and no bold one was proposed'}"]
            found.append(judged(what, faults))
        elif wanted:
            made = case.place / "again" / run.work.name / name
            write_table(made, submit.build(run, table)[0], submit.FORMAT)
            found.append(same_table(case, path, made, what, ROUNDING))
    return found


def check_fallback(case: Case, run: Run) -> Finding:
    """The units that get the prior are those that the manifest names."""
    told, found = case.manifest["fallback"], submit.build(run, source(run))[1]
    faults = [] if told == found else [f"the manifest names {told}, and it is {found}"]
    return judged("units without an image", faults, f"{len(found)} of them, with the prior")


def check_ids(case: Case, run: Run) -> Finding:
    """The submission has the units of the competition's sample, in its order."""
    what, task = "ids", run.competition
    if case.data is None:
        return Finding("not checked", what, "they are those of the submission itself; give --data")
    try:
        check_submission(case.folder / "submission.csv", task.unit, task.classes, submit.expected_ids(run))
    except KitError as error:
        return Finding("FAILED", what, error.message)
    return Finding("ok", what, "those of the sample, in its order")
