"""Level 0: every file of a submission folder is as its manifest has it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit import competition
from kit.deliver import manifest
from kit.deliver.case import Case, find_data
from kit.deliver.check import check_submission
from kit.deliver.evidence import TABLES
from kit.deliver.findings import Finding, failed, judged
from kit.deliver.manifest import NAME, SEAL
from kit.errors import DataError, KitError
from kit.files import digest, file_digest, read_strings

# What a manifest must have to be verified; forged ones may have anything.
PARTS: dict[str, type] = {
    "run": str, "declared": dict, "code": dict, "data": dict, "external": dict, "weights": dict,
    "environment": dict, "machine": dict, "tolerance": dict, "keys": dict,
    "timings": dict, "claim": dict, "fallback": list, "files": dict,
}  # fmt: skip
# What every submission has, and what one has whose own models take part.
ALWAYS = ("submission.csv", "metrics.json", "second_level.json", "oof_combined.csv", *TABLES)
OWN = ("folds.csv", "images.csv")
NOT_COVERED = (NAME, "report.html")  # the first has a digest of its own; the second is drawn afterwards


def read_manifest(folder: Path) -> tuple[dict[str, Any] | None, Finding]:
    """The manifest of a submission folder, and whether every byte of it is as it was written.

    Raises:
        DataError: the folder has none, or one of another format that is whole.
    """
    path, what = folder / NAME, "manifest"
    if not path.is_file():
        raise DataError(f"{folder} has no {NAME}", "give a folder submissions/<name>/<run>")
    try:
        content = manifest.read(folder)
    except DataError as error:
        if _is_another_format(path):
            raise
        return None, Finding("FAILED", what, error.message)
    if lost := [name for name, kind in PARTS.items() if not isinstance(content.get(name), kind)]:
        return None, Finding("FAILED", what, f"it does not say what it must of {', '.join(lost)}")
    names = [content["run"], content["declared"].get("name"), *content["weights"].get("trained", ())]
    if outside := [name for name in names if ".." in Path(str(name)).parts or Path(str(name)).is_absolute()]:
        return None, Finding("FAILED", what, f"'{outside[0]}' lies outside the folder: do not trust it")
    return content, Finding("ok", what, "every byte as it was written, by its own sha256")


def _is_another_format(path: Path) -> bool:
    """Whether a manifest that is refused is a whole one of another version of the kit."""
    try:
        content = json.loads(path.read_bytes())
        rest = {name: value for name, value in content.items() if name != SEAL}
    except (ValueError, RecursionError, AttributeError):
        return False
    sealed = digest(rest) == content.get(SEAL) and content.get("format") != manifest.FORMAT
    return sealed or {"format", SEAL}.isdisjoint(content)  # the first format had neither


def check_folder(case: Case, given: Path | None) -> tuple[list[Finding], Case]:
    """Every hash, the names, the rules of a submission, and the tables of the data where there are some.

    Args:
        given: the data folder or zip of the one who asks.

    Returns:
        What was found, and the case with the data that the levels above may use.
    """
    found = [check_files(case), check_name(case.folder, case.manifest)]
    if failed(found):  # nothing is read of files that are not those of the manifest
        return found, case
    found.append(check_rules(case.folder, case.manifest))
    data, what = find_data(case, given), "tables"
    if data is None:
        reason = "the data of the competition are not given (--data DIR)"
        return [*found, Finding("not checked", what, reason)], case
    tables = check_tables(data, case.manifest)
    if failed([tables]) and given is None and not case.same_code:
        reason = "the demo of this version of the kit may be another one"
        return [*found, Finding("not checked", what, reason)], case
    return [*found, tables], replace(case, data=data)


def check_files(case: Case) -> Finding:
    """No file is changed, missing or too many, and none is a link."""
    folder, files = case.folder, case.manifest["files"]
    present = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    links = {name for name, path in present.items() if path.is_symlink()}
    there = {name for name, path in present.items() if path.is_file()} - links
    faults = [f"{name} is a link" for name in sorted(links)]
    needed = {*files, *ALWAYS, *(OWN if case.own else ())}
    faults += [f"{name} is missing" for name in sorted(needed - there - links)]
    faults += [f"{name} is not in the manifest" for name in sorted(there - set(files) - set(NOT_COVERED))]
    same = {name for name in there & set(files) if file_digest(present[name]) == files[name]}
    faults += [f"{name} has been changed" for name in sorted((there & set(files)) - same)]
    size = sum(present[name].stat().st_size for name in same)
    drawn = " but report.html, which nothing vouches for" if "report.html" in there else ""
    return judged(
        "files", faults, f"{len(same)} files, {size / 1024:.0f} KiB, each with its sha256; no other{drawn}"
    )


def check_name(folder: Path, content: Mapping[str, Any]) -> Finding:
    """The folder is called as the run, and the run as the key of what was submitted."""
    run, key, name = content["run"], str(content["keys"].get("submit", "")), folder.resolve().name
    faults = []
    if not re.fullmatch("[0-9a-f]{12}", str(run)) or run != key[:12]:
        faults.append(f"the run '{run}' is not the first 12 digits of its key '{key[:12]}'")
    if name != run:
        faults.append(f"the folder is called '{name}', and holds the run '{run}'")
    return judged("name", faults, f"{run}, as its folder and its key")


def check_rules(folder: Path, content: Mapping[str, Any]) -> Finding:
    """Whether what is submitted obeys the rules of a submission, each file by its own ids."""
    faults = []
    try:
        columns, known = shape(folder, str(content["declared"]["asked"]))
        for name in ("submission.csv", "submission_bold.csv"):
            if (folder / name).is_file():
                ids = read_strings(folder / name).iloc[:, 0].tolist()
                check_submission(folder / name, columns[0], columns[1:], ids)
    except KitError as error:
        faults.append(error.message)
        known = True
    well = "columns, ids, numbers from 0 to 1, rows that sum to 1"
    return judged("rules", faults, well if known else f"{well} (columns by its own header)")


def shape(folder: Path, asked: str) -> tuple[list[str], bool]:
    """The columns that a submission must have, and whether the kit's own declaration says so.

    The declaration of a stranger is a program: level 0 does not run it.
    """
    if asked.endswith(".py"):
        return list(read_strings(folder / "submission.csv").columns), False
    task = competition.find(asked)
    return [task.unit, *task.classes], True


def check_tables(data: Path, content: Mapping[str, Any]) -> Finding:
    """The tables of the data folder are those that the run was made with."""
    faults = []
    for name, was in content["data"]["tables"].items():
        path = data / name
        if Path(name).name != name or not path.is_file():
            faults.append(f"{name} is not in {data}")
        elif path.stat().st_size != was["size"] or file_digest(path) != was["sha256"]:
            faults.append(f"{name} is not the file that the run was made with")
    told = content["data"]["tables"]
    more = sorted({path.name for path in data.glob("*.csv")} - set(told))
    if more and not faults:
        return Finding("not checked", "tables", f"the manifest does not know {', '.join(more)} of {data}")
    return judged("tables", faults, f"{len(told)} files, each with its size and sha256")
