"""Level 4: the whole flow again, from the images, with the manifest's seed, threads and settings."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit import metrics, state
from kit.combine.units import labelled_units
from kit.deliver import manifest
from kit.deliver.case import LIBRARIES, Case, find_images, quietly
from kit.deliver.evidence import TABLES
from kit.deliver.findings import Finding, Unchecked, judged
from kit.deliver.reinfer import READING, WHAT, attached_weights, check_probabilities, check_tiles
from kit.errors import KitError
from kit.files import numbers, read_strings
from kit.read.tiles import IMAGES
from kit.state import Run

if TYPE_CHECKING:
    from kit.deliver.verify import Options

LEARNING = (*READING, "accelerate", "optuna")
RESAMPLES = 500
MOST = 3.0  # paired standard errors between two trainings of the same models
log = logging.getLogger("kit")


def check(case: Case, options: Options) -> list[Finding]:
    """Train every model anew: the same weights and predictions, or as good ones where these may differ.

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
        return judge(case, run)


def again(case: Case, options: Options) -> Run:
    """The run as it was declared, to be executed in a folder of its own."""
    data, attached = find_images(case, options.data), attached_weights(case, options)
    plain = case.restore(Path("work") / case.declared["name"], data, attached)
    plain = replace(plain, weights={name: path.resolve() for name, path in plain.weights.items()})
    dealt = replace(plain, fold_table=None, folds_given=False)
    if dealt.key("fold") == case.manifest["keys"].get("fold"):
        return dealt
    return replace(plain, folds_given=True)  # it was given, or dealt by other rules: it is taken as it is


def judge(case: Case, run: Run) -> list[Finding]:
    """The submission against the finished new training ``run``."""
    trained = check_trained(case, run)
    found = [check_tiles(case, read_strings(run.folder("tile") / IMAGES)), trained]
    if trained.state == "not checked":  # other weights say other things, and are as good
        found.append(check_losses(case, run))
    else:
        tables = [(file, run.folder("predict") / file) for file in TABLES]
        found += [
            check_probabilities(case, WHAT[file], read_strings(case.folder / file), read_strings(path))
            for file, path in tables
            if len(read_strings(path)) or len(read_strings(case.folder / file))
        ]
    return [*found, check_score(case, run)]


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
    told, made = (
        {name: was for name, was in one["trained"].items() if name.endswith(".safetensors")}
        for one in (case.manifest["weights"], manifest.weights(run))
    )
    faults = [f"{name} was not trained" for name in sorted({*told} - {*made})]
    faults += [f"{name} is not in the manifest" for name in sorted({*made} - {*told})]
    faults += [f"{name} has other bytes" for name in sorted({*told} & {*made}) if told[name] != made[name]]
    if faults and others:
        reason = f"{len(faults)} of {len(told)} differ, as they may: {'; '.join(others[:3])}"
        return Finding("not checked", what, reason)
    return judged(what, faults, f"{len(told)} files, trained again to the same bytes")


def check_losses(case: Case, run: Run) -> Finding:
    """What was submitted out of fold is no better, and no worse, than by the new training.

    The interval of a score is that of the units drawn; on the same units far smaller differences show.
    """
    tables = [
        read_strings(path).set_index("unit_id")
        for path in (case.folder / "oof_combined.csv", run.folder("combine") / "oof.csv")
    ]
    units = labelled_units(run, own=True)
    both = units.index[units.index.isin(tables[0].index) & units.index.isin(tables[1].index)]
    labels = units.loc[both, "label"].to_numpy(dtype=np.int64)
    columns = [f"p_{name}" for name in run.competition.classes]
    told, made = (numbers(table.loc[both, columns]).to_numpy(dtype=np.float64) for table in tables)
    drawn = metrics.Bootstrap(units.loc[both, "group_id"].to_numpy(dtype=object), RESAMPLES, run.seed)
    found = metrics.compare(run.competition.metric, labels, told, made, drawn)
    said = (
        f"{abs(found.gain):.4f} {'lower' if found.gain > 0 else 'higher'} than by the new training, with a"
        f" paired standard error of {found.se:.4f}, on {len(both)} units"
    )
    sound = abs(found.gain) <= MOST * found.se or found.gain == 0
    return judged("out-of-fold losses", [] if sound else [f"{said}: more than {MOST:g} of these"], said)


def check_score(case: Case, run: Run) -> Finding:
    """The new score lies in the interval of the claim."""
    row = manifest.default_row(json.loads((run.folder("combine") / "metrics.json").read_text()))
    claim = case.manifest["claim"]
    said = f"{row['score']:.4f}, claimed are {claim['score']:.4f} ({claim['low']:.4f} to {claim['high']:.4f})"
    inside = claim["low"] <= row["score"] <= claim["high"]
    return judged("score of the new training", [] if inside else [said], said)
