"""Level 1: every number of a submission, computed again from its out-of-fold rows and the labels."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from kit import folds
from kit.combine import second_level
from kit.combine.baselines import PICTURES, SHORTCUTS
from kit.deliver.case import Case, quietly
from kit.deliver.evidence import TABLES
from kit.deliver.findings import Finding, Unchecked, judged
from kit.deliver.manifest import CLAIM, default_row
from kit.errors import DataError, KitError
from kit.files import numbers, read_strings
from kit.state import Run, flatten

RELATIVE = 1e-9  # what other library versions or processors may change of a number
SILENT = ("empty", "unreadable", "missing", "refused")  # what an image without tiles may be
WITHOUT = ("metadata only", "limit", *SHORTCUTS)  # rows that need files which may not be there
Numbers = dict[str, Any]


def rescore(case: Case) -> list[Finding]:
    """Repeat the second level in the work folder of ``case.run`` and compare.

    Raises:
        Unchecked: something that it reads is not there.
    """
    run = case.run
    found = [check_labels(case, run)]
    if case.data is not None:
        found += [check_dealt(case, run), check_key(case, run)]
    if case.own:
        found.append(check_coverage(case, run))
    with quietly():
        try:
            second_level.run(run)
        except DataError as error:
            return [*found, Finding("FAILED", "scores", f"they cannot be computed: {error.message}")]
        except KitError as error:
            raise Unchecked(error.message, error.hint) from error
    try:
        told = read_metrics(case.folder / "metrics.json")
    except DataError as error:
        return [*found, Finding("FAILED", "scores", error.message)]
    return [*found, *check_metrics(case, run, told), *check_tables(case, run), check_claim(case, told)]


# --- what the scores rest on --------------------------------------------------------------------------


def check_labels(case: Case, run: Run) -> Finding:
    """The fold table's labels, units, sites and groups are those of the competition."""
    what = "labels"
    if case.data is None:
        return Finding("not checked", what, "they are those of folds.csv; give the competition's with --data")
    if run.fold_table is None:
        return Finding("ok", what, "the competition's own")
    train, table = run.tables.train, folds.read_folds(run.fold_table)
    table = table[table["role"] != "extra"]
    faults = [f"image '{name}' is not in the train table" for name in table.index.difference(train.index)]
    faults += [f"image '{name}' is missing in folds.csv" for name in train.index.difference(table.index)]
    both = table.index.intersection(train.index)
    for column in ("label", "unit_id", "site"):
        mine, theirs = table.loc[both, column], train.loc[both, column]
        faults += [
            f"image '{name}' has the {column} '{mine[name]}' in folds.csv and '{theirs[name]}' in the data"
            for name in both[mine != theirs]
        ]
    parts = table.loc[both].groupby(train.loc[both, "group_id"])[["group_id", "role", "fold"]].nunique()
    faults += [f"group '{name}' of the data is torn apart" for name in parts.index[(parts > 1).any(axis=1)]]
    joined = train.loc[both, "group_id"].nunique() - table.loc[both, "group_id"].nunique()
    note = f"; {joined} groups joined to others as near-duplicates" if joined else ""
    well = f"{len(both)} images with label, unit, site and group as in the competition's table{note}"
    return judged(what, faults, well)


def check_dealt(case: Case, run: Run) -> Finding:
    """The folds and the held-out set are those that the seed deals: none was chosen afterwards."""
    what, plain = "folds", replace(run, fold_table=None, folds_given=False)
    if run.fold_table is None:
        return Finding("ok", what, f"dealt again from seed {run.seed}: no table was used")
    again = replace(plain, fold_table=case.place / "dealt.csv")
    with quietly(), contextlib.suppress(DataError):  # where folds were given, none may be dealt
        folds.run(again)
    if again.folds.is_file() and again.folds.read_bytes() == run.fold_table.read_bytes():
        return Finding("ok", what, f"folds.csv is what seed {run.seed} deals, to the byte")
    key, given = case.manifest["keys"].get("fold"), replace(run, folds_given=True)
    if key != plain.key("fold") and (run.folds_given or key == given.key("fold")):
        reason = "the table was given by the one who made the run: how units were held out is not known"
        return Finding("not checked", what, reason)
    if key != plain.key("fold") and not case.same_code:
        return Finding("not checked", what, f"version {case.version} of the kit may deal them otherwise")
    return Finding("FAILED", what, f"folds.csv is not what seed {run.seed} deals: units have changed places")


def check_key(case: Case, run: Run) -> Finding:
    """The run's name follows from its settings, its tables and the keys of the stages before."""
    what, keys = "key", case.manifest["keys"]
    if run.key("submit") == keys["submit"]:
        return Finding("ok", what, "the run's name follows from its settings, files and tables")
    if not case.same_code:
        return Finding("not checked", what, f"it was made by version {case.version}, with other code")
    return Finding("FAILED", what, "the run's name does not follow from its settings, files and tables")


def check_coverage(case: Case, run: Run) -> Finding:
    """Every labelled image with tiles has its out-of-fold and its held-out rows, of every model."""
    what, images = "rows", training_images(case)
    table = folds.training_folds(run)
    table = table[table["role"] != "extra"]
    faults = [f"image '{name}' is not in images.csv" for name in table.index.difference(images.index)]
    faults += [f"image '{name}' is twice in images.csv" for name in images.index[images.index.duplicated()]]
    odd = (images["status"] == "ok") != images["tiles"].str.fullmatch("[1-9][0-9]*")
    odd |= ~images["status"].isin(["ok", *SILENT])
    for name, row in images[odd].iterrows():
        faults.append(f"image '{name}' is '{row['status']}' with {row['tiles']} tiles in images.csv")
    silent = images[images["status"] != "ok"]
    table = table[table.index.isin(images.index.difference(silent.index))]
    names = sorted(set(table.loc[table["role"] == "fold", "fold"]))
    fold, held = table[table["role"] == "fold"], table[table["role"] == "holdout"]
    wanted = {
        "oof.csv": {(image, name) for image, name in fold["fold"].items()},
        "holdout.csv": {(image, name) for image in held.index for name in names},
    }
    for file, pairs in wanted.items():
        rows = read_strings(case.folder / file)
        for (model, seed), mine in rows.groupby(["model", "seed"]):
            faults += _uncovered(f"{file}: {model}, seed {seed}", mine, pairs)
        strange = rows["unit_id"] != rows["image_id"].map(table["unit_id"])
        faults += [f"{file}: image '{name}' has a strange unit" for name in rows["image_id"][strange]]
    if run.competition.reader in PICTURES and case.part("appearance.csv") is None:
        faults.append("appearance.csv is missing: what colours alone reach must stand beside a score")
    well = f"{len(fold)} images, each by the models without its fold; {len(held)} held-out images, by all"
    return judged(what, faults, f"{well}{_told(silent)}")


def training_images(case: Case) -> pd.DataFrame:
    """What images.csv says of the training images, by image_id."""
    table = read_strings(case.folder / "images.csv")
    return table[table["split"] == "train"].set_index("image_id")


def _told(silent: pd.DataFrame, most: int = 5) -> str:
    """The images that nothing was predicted of, by name."""
    if not len(silent):
        return ""
    listed = ", ".join(f"{name} ({status})" for name, status in silent["status"].head(most).items())
    more = f" and {len(silent) - most} more" if len(silent) > most else ""
    count = "1 image has" if len(silent) == 1 else f"{len(silent)} images have"
    return f"; {count} no tiles: {listed}{more}"


def _uncovered(whose: str, rows: pd.DataFrame, wanted: set[Any]) -> list[str]:
    """Pairs of image and fold that are missing, too many or there twice."""
    pairs = list(zip(rows["image_id"], rows["fold"], strict=True))
    lost, more = sorted(wanted - set(pairs)), sorted(set(pairs) - wanted)
    faults = [f"{whose}: image '{image}' has no row without fold {fold}" for image, fold in lost]
    faults += [f"{whose}: image '{image}' has a row that fold {fold} should not have" for image, fold in more]
    return faults + ([f"{whose}: rows are there twice"] if len(pairs) != len(set(pairs)) else [])


# --- the numbers --------------------------------------------------------------------------------------


def read_metrics(path: Path) -> dict[str, Any]:
    """``metrics.json`` with rows, gains and reasons as they must be.

    Raises:
        DataError: it has something else in their place.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        named(content)
        default_row(content)["score"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path.name} is not as the kit writes it: {error!r}") from error
    return content


def check_metrics(case: Case, run: Run, content: Mapping[str, Any]) -> list[Finding]:
    """Every number of metrics.json."""
    path = run.folder("combine") / "metrics.json"
    again = read_metrics(path)
    lacking = _cannot(case, content, again)
    (told, twice), (found, _) = named(content), named(again)
    out = {name for name in {*told, *found} if any(_about(name, row) for row in lacking)}
    told, found = ({k: v for k, v in one.items() if k not in out} for one in (told, found))
    faults, how = compared(case, told, found)
    faults = [f"{name} is there twice" for name in twice] + faults
    same = lacking or path.read_bytes() == (case.folder / path.name).read_bytes()
    if not faults and not same and not case.others:
        faults.append("the numbers are the same, and the file is not as the kit writes it")
    count = sum(isinstance(value, int | float) for value in told.values())
    return [
        judged("scores", faults, f"{count} numbers of metrics.json, {how}"),
        *(Finding("not checked", f"score of {name}", reason) for name, reason in lacking.items()),
    ]


def compared(case: Case, told: Numbers, found: Numbers) -> tuple[list[str], str]:
    """What does not agree, and how exactly the rest does: to the last bit where it was computed alike."""
    faults = differences(told, found, exact=True)
    if not faults or not case.others:
        return faults, "the same to the last bit"
    return differences(told, found, exact=False), within(case, RELATIVE)


def within(case: Case, tolerance: float) -> str:
    """That a tolerance was needed, and why it was given."""
    return f"the same within {tolerance:g} ({'; '.join(case.others[:2])})"


def _cannot(case: Case, told: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    """The rows that the file has and that cannot be computed from what is there, with the reason."""
    names = {row["name"] for row in told["rows"]} - {row["name"] for row in found["rows"]}
    names &= {name for name in WITHOUT if name != "limit" or case.declared["demo"]}  # only a demo has one
    return {row["name"]: row["reason"] for row in found["absent"] if row["name"] in names}


def _about(name: str, row: str) -> bool:
    return name.startswith((f"{row} (", f"{row} against ")) or f" against {row} (" in name


def named(content: Mapping[str, Any]) -> tuple[Numbers, list[str]]:
    """``metrics.json`` as flat names and values, and the names that occur twice.

    >>> named({"rows": [{"name": "net", "set": "oof", "score": 0.5}], "gains": [], "absent": [], "units": 9})
    ({'net (oof), score': 0.5, 'units': 9}, [])
    """
    pairs = [
        (f"{row['name']} ({row['set']}), {key}", value)
        for row in content["rows"]
        for key, value in row.items()
        if key not in ("name", "set")
    ]
    pairs += [
        (f"{gain['first']} against {gain['second']} ({gain['set']}), {key}", value)
        for gain in content["gains"]
        for key, value in gain.items()
        if key not in ("first", "second", "set")
    ]
    pairs += [(f"{row['name']} (absent), reason", row["reason"]) for row in content["absent"]]
    rest = {k: v for k, v in content.items() if k not in ("rows", "gains", "absent")}
    pairs += list(flatten(rest).items())
    found: Numbers = {}
    twice = []
    for name, value in pairs:
        twice += [name] if name in found else []
        found[name] = value
    return found, twice


def differences(told: Numbers, found: Numbers, exact: bool) -> list[str]:
    """What two sets of named numbers do not agree in, in words: whole rows, then scores, then the rest."""
    faults = [f"{row} is in no computation" for row in _rows(told, found)]
    faults += [f"{row} is not told" for row in _rows(found, told)]
    changed = [name for name in told if name in found and not alike(told[name], found[name], exact)]
    changed.sort(key=lambda name: not name.endswith(", score"))
    return faults + [f"{n}: the file says {_short(told[n])}, it is {_short(found[n])}" for n in changed]


def _rows(names: Numbers, others: Numbers) -> list[str]:
    """What some names are about that others do not have: ``net (oof)`` of ``net (oof), score``."""
    lost = (name for name in names if name not in others)
    return list(dict.fromkeys("".join(name.partition(")")[:2]) for name in lost))


def alike(first: Any, second: Any, exact: bool) -> bool:
    """Whether two values of a JSON file are the same.

    >>> alike([0.1 + 0.2, "a"], [0.3, "a"], exact=False), alike(0.1 + 0.2, 0.3, exact=True)
    (True, False)
    >>> alike(1, True, exact=False)
    False
    """
    if isinstance(first, list) and isinstance(second, list):
        pairs = zip(first, second, strict=False)
        return len(first) == len(second) and all(alike(a, b, exact) for a, b in pairs)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(alike(first[k], second[k], exact) for k in first)
    plain = isinstance(first, int | float) and isinstance(second, int | float)
    if plain and not exact and not (isinstance(first, bool) or isinstance(second, bool)):
        return math.isclose(first, second, rel_tol=RELATIVE, abs_tol=1e-12)
    return bool(first == second) and isinstance(first, bool) == isinstance(second, bool)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def check_tables(case: Case, run: Run) -> list[Finding]:
    """What is submitted, out of fold; of predictions made elsewhere, held out and of the test too."""
    names = {"oof_combined.csv": "oof.csv"} | ({} if case.own else {name: name for name in TABLES})
    lost = [name for name in names if case.part(name) is None]
    there = {name: again for name, again in names.items() if name not in lost}
    return [
        *(Finding("FAILED", name, "it is missing") for name in lost),
        *(
            same_table(case, case.folder / name, run.folder("combine") / again, name, RELATIVE)
            for name, again in there.items()
        ),
    ]


def same_table(case: Case, told: Path, found: Path, what: str, tolerance: float) -> Finding:
    """Whether two tables are the same: in every byte where they were computed alike."""
    if told.read_bytes() == found.read_bytes():
        return Finding("ok", what, "the same bytes")
    faults = table_differences(told, found, tolerance if case.others else 0.0)
    return judged(what, faults, within(case, tolerance))


def table_differences(told: Path, found: Path, tolerance: float) -> list[str]:
    """Where two tables of an id and probabilities differ by more than a tolerance; 0: in any byte."""
    first, second = (read_strings(path) for path in (told, found))
    if list(first.columns) != list(second.columns) or first.iloc[:, 0].tolist() != second.iloc[:, 0].tolist():
        return [f"{told.name} has other units, or in another order"]
    gap = gaps(first.iloc[:, 1:], second.iloc[:, 1:])
    worst = int(gap.to_numpy().argmax())
    if gap.iloc[worst] > tolerance:
        cells = [", ".join(table.iloc[worst, 1:]) for table in (first, second)]
        rows = int((gap > tolerance).sum())
        unit = str(first.iloc[worst, 0])
        where = f"unit '{unit}' has {cells[0]} in {told.name}, and it is {cells[1]}"
        return [where + (f" ({rows} such rows)" if rows > 1 else "")]
    return [] if tolerance else [f"{told.name} has the same numbers, and not the same bytes"]


def gaps(first: pd.DataFrame, second: pd.DataFrame) -> pd.Series[float]:
    """The largest difference in each row of text cells; infinite where one is no number.

    >>> gaps(pd.DataFrame({"a": ["0.5", "nan"]}), pd.DataFrame({"a": ["0.25", "nan"]})).tolist()
    [0.25, inf]
    """
    found: pd.Series[float] = (numbers(first) - numbers(second)).abs().fillna(math.inf).max(axis=1)
    return found


def check_claim(case: Case, content: Mapping[str, Any]) -> Finding:
    """The manifest claims what metrics.json says."""
    row = default_row(content)
    wanted = {name: row.get(name) for name in CLAIM}
    wanted |= {"metric": content["metric"], "units": content["units"]}
    faults = differences(dict(case.manifest["claim"]), wanted, exact=True)
    return judged("claim", faults, "it is the row of the scores that is submitted")
