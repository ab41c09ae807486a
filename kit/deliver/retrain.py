"""Level 4: the whole flow again, from the images, with the manifest's seed, threads and settings."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit import state
from kit.deliver.case import LIBRARIES, Case, find_images, quietly
from kit.deliver.findings import Finding, Unchecked, judged
from kit.deliver.reinfer import READING, attached_weights
from kit.errors import KitError
from kit.files import file_digest
from kit.state import Run

if TYPE_CHECKING:
    from kit.deliver.verify import Options

LEARNING = (*READING, "accelerate", "optuna")
log = logging.getLogger("kit")


def check(case: Case, options: Options) -> list[Finding]:
    """Train every model anew; its weights must be the same, or its score in the claim's interval.

    A given work folder goes on where a call that was stopped had got.

    Raises:
        Unchecked: images or weights are not there, or the predictions were made elsewhere.
    """
    if not case.own:
        raise Unchecked("the predictions were made elsewhere: nothing can be trained again")
    run = again(case, options)
    wanted = run.chain("combine")
    seconds = sum(case.manifest["timings"].get(name, {}).get("seconds", 0.0) for name in wanted)
    log.info("level 4: %s took %s there; it starts now", ", ".join(wanted), spoken(seconds))
    place = case.place / "retrained"
    place.mkdir(parents=True, exist_ok=True)
    # A run's keys hold the path of its fold table as it was typed, which is this one below its own folder.
    with contextlib.chdir(place):
        try:
            for name in wanted:
                if not state.finished(run, name):
                    log.info("== %s", name)
                    with quietly():
                        state.execute(run, name)
        except KitError as error:
            return [Finding("FAILED", "training", f"it ends with: {error.message}")]
        return [check_trained(case, run), check_score(case, run)]


def again(case: Case, options: Options) -> Run:
    """The run as it was declared, to be executed in a folder of its own."""
    data, attached = find_images(case, options.data), attached_weights(case, options)
    plain = case.restore(Path("work") / case.declared["name"], data, attached)
    plain = replace(plain, weights={name: path.resolve() for name, path in plain.weights.items()})
    dealt = replace(plain, fold_table=None, folds_given=False)
    if dealt.key("fold") == case.manifest["keys"].get("fold"):
        return dealt
    return replace(plain, folds_given=True)  # it was given, or dealt by other rules: it is taken as it is


def spoken(seconds: float) -> str:
    """A time in words.

    >>> spoken(75), spoken(7300)
    ('75 seconds', '2.0 hours')
    """
    for least, unit, name in ((7200, 3600, "hours"), (120, 60, "minutes")):
        if seconds >= least:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"


def check_trained(case: Case, run: Run) -> Finding:
    """The weights are the same to the last bit, where machine, libraries and code are."""
    what, others = "weights", case.other_code + case.unlike((*LIBRARIES, *LEARNING), gpu=True)
    told: Mapping[str, str] = case.manifest["weights"]["trained"]
    told = {name: was for name, was in told.items() if name.endswith(".safetensors")}
    paths = {name: run.folder("train") / name for name in told}
    faults = [f"{name} was not trained" for name, path in paths.items() if not path.is_file()]
    faults += [
        f"{name} has other bytes"
        for name, path in paths.items()
        if path.is_file() and file_digest(path) != told[name]
    ]
    if faults and others:
        reason = f"{len(faults)} of {len(told)} differ, as they may: {'; '.join(others[:3])}"
        return Finding("not checked", what, reason)
    return judged(what, faults, f"{len(told)} files, trained again to the same bytes")


def check_score(case: Case, run: Run) -> Finding:
    """The new score lies in the interval of the claim."""
    rows = json.loads((run.folder("combine") / "metrics.json").read_text())["rows"]
    (row,) = [row for row in rows if row["kind"] == "default" and row["set"] == "oof"]
    claim = case.manifest["claim"]
    said = f"{row['score']:.4f}, claimed are {claim['score']:.4f} ({claim['low']:.4f} to {claim['high']:.4f})"
    inside = claim["low"] <= row["score"] <= claim["high"]
    return judged("score of the new training", [] if inside else [said], said)
