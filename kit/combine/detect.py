"""``python -m kit detect``: check, fuse, filter and score submissions of boxes.

No stage reads what it writes: the file of ``--out``, and ``WORK/<name>/detect/metrics.json``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd

from kit import boxes as findings
from kit.combine import detection_scores, detections, two_class_filter
from kit.combine.consensus import consensus_boxes
from kit.combine.detection_ensemble import How, fused
from kit.combine.detection_metric import Grader, truths_of
from kit.combine.detections import IMAGE, Rules
from kit.combine.predictions import Source
from kit.combine.two_class_filter import Choice, Filter, Variant
from kit.combine.units import labelled_units
from kit.command import Said
from kit.data_commands import HIGH, LOW, OVERLAP
from kit.errors import DataError, SettingError, SubmissionError
from kit.files import write_json
from kit.state import Run

FUSED, FILTERED = "fused", "filtered"  # what the rows are called of what is made here


def run(run: Run, options: argparse.Namespace) -> Said:
    """Do what the options ask for, in the order of their help.

    Raises:
        SettingError: the competition has no boxes, or options that do not fit together.
        DataError: the probabilities or the table of findings break a rule.
    """
    job = Job(run, options)
    _check_options(job)
    try:
        tables = job.read()
    except SubmissionError as error:
        return f"{error.message}\nto mend it: {error.hint}", 1
    lines = [_sound(path, table) for path, table in zip(options.files, tables.values(), strict=True)]
    made = dict(tables)
    if len(tables) > 1:
        how: How = options.fuse or "wbf"
        threshold = options.iou or OVERLAP
        made[FUSED] = fused(tables, job.rules.nothing, options.votes, how, threshold)
        lines.append(f"fused {len(tables)} files: {len(made[FUSED])} boxes")
    last = list(made.values())[-1]
    if options.filter:
        done = _filter(job, last)
        last = done.written
        made = {name: table[~table[IMAGE].isin(done.missing)] for name, table in made.items()}
        made[FILTERED] = done.scored
        lines += done.said
    if options.score:
        content = detection_scores.scores(run, made, job.truths, job.rules, job.grader, job.truth)
        write_json(run.folder("detect") / "metrics.json", content)
        lines += ["", detection_scores.render(content)]
    if options.out:
        detections.write(options.out, last)
        lines.append(f"written: {options.out}")
    elif len(made) > 1:
        lines.append("nothing is written: name a file with --out FILE")
    return "\n".join(lines), 0


@dataclass(frozen=True)
class Job:
    """What was asked for, and the task's own tables."""

    run: Run
    options: argparse.Namespace

    @property
    def grader(self) -> Grader:
        """Whose rule scores."""
        return "mle-bench" if self.options.mle_bench else "voc"

    @property
    def truth(self) -> str:
        """Which truth it scores; see `detection_scores.TRUTHS`."""
        return "first reader" if self.options.mle_bench else self.options.truth or "consensus"

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """The findings of the training images, checked."""
        return findings.found(self.run.competition, self.run.data)

    @cached_property
    def rules(self) -> Rules:
        """What a box may be."""
        return detections.rules_of(self.boxes)

    @cached_property
    def truths(self) -> pd.DataFrame:
        """What is to be found on the training images."""
        told = consensus_boxes(self.boxes) if self.truth == "consensus" else self.boxes
        return truths_of(told, self.boxes[IMAGE].tolist(), self.grader)

    def read(self) -> dict[str, pd.DataFrame]:
        """The boxes of every file, by a name of its own."""
        sample = self.options.sample
        expected = detections.sample_ids(sample) if sample else None
        files = self.options.files
        stems = [path.name.split(".")[0] for path in files]
        clear = len({*stems, FUSED, FILTERED}) == len(stems) + 2
        names = stems if clear else [str(path) for path in files]
        return {
            name: detections.read(path, self.rules, expected, self.options.clip)
            for name, path in zip(names, files, strict=True)
        }


def _check_options(job: Job) -> None:
    """Refuse options that do not fit together, and those that would do nothing."""
    options = job.options
    if len(set(options.files)) < len(options.files):
        raise SettingError("a FILE is given twice", "give it once; --votes says what it counts")
    fusing = [f"--{name}" for name in ("votes", "fuse", "iou") if getattr(options, name)]
    if fusing and len(options.files) == 1:
        raise SettingError(f"{fusing[0]} says how to fuse, and there is one FILE", "give several FILEs")
    if options.votes and len(options.votes) != len(options.files):
        message = f"--votes has {len(options.votes)} numbers for {len(options.files)} files"
        raise SettingError(message, "give one number for each FILE, in their order")
    if options.mle_bench and options.truth:
        raise SettingError("--mle-bench takes the first reader's boxes", "leave out --truth")
    _check_filter(options)
    if not options.score and options.variant != "choose":
        for name in ("truth", "mle_bench"):
            if getattr(options, name):
                message = f"--{name.replace('_', '-')} says how to score, and nothing is scored"
                raise SettingError(message, "add --score")


def _check_filter(options: argparse.Namespace) -> None:
    if options.variant and not options.filter:
        raise SettingError("--variant says how to filter, and by nothing", "add --filter FILE")
    bounds = [f"--{name}" for name in ("low", "high") if getattr(options, name) is not None]
    open_choice = options.filter and options.score and options.variant is None
    if bounds and options.variant not in ("threshold", "choose") and not open_choice:
        raise SettingError(f"{bounds[0]} is of the variant threshold", "add --variant threshold or choose")
    if len(set(options.filter)) < len(options.filter):
        raise SettingError("--filter names a FILE twice", "name it once")
    _threshold(options)


def _threshold(options: argparse.Namespace) -> Filter:
    low = LOW if options.low is None else options.low
    return Filter("threshold", low, HIGH if options.high is None else options.high)


def _sound(path: Path, table: pd.DataFrame) -> str:
    many = table[IMAGE].nunique()
    return f"{path}: sound. {many} images, {len(table)} boxes"


@dataclass(frozen=True)
class Filtered:
    """What the filter made of a submission.

    written: all of it. scored: of the images with a probability alone; nested, where the variant was chosen.
    missing: the images without a probability, which stay as they are.
    """

    written: pd.DataFrame
    scored: pd.DataFrame
    missing: list[str]
    said: list[str]


def _filter(job: Job, table: pd.DataFrame) -> Filtered:
    options, nothing = job.options, job.rules.nothing
    abnormal = _abnormal(job, table)
    missing = two_class_filter.uncovered(pd.Index(table[IMAGE].unique()), abnormal)
    covered = table[~table[IMAGE].isin(missing)]
    variant: Variant | Literal["choose"] = options.variant or _default(job, covered)
    if variant == "choose":
        plans = (*two_class_filter.CANDIDATES[:-1], _threshold(options))
        folds = _folds(job, covered)
        choice = two_class_filter.choose(covered, abnormal, job.truths, folds, nothing, plans, job.grader)
        made = two_class_filter.filtered(table, abnormal, choice.plan, nothing)
        scored, said = choice.nested, _chosen(choice)
    else:
        plan = _threshold(options) if variant == "threshold" else Filter(variant)
        made = two_class_filter.filtered(table, abnormal, plan, nothing)
        scored, said = made[~made[IMAGE].isin(missing)], _named(plan)
    lines = [f"filtered with {' and '.join(map(str, options.filter))}: {said}"]
    if missing:
        lines.append(_left_alone(missing, options.score))
    return Filtered(made, scored, missing, lines)


def _default(job: Job, table: pd.DataFrame) -> Variant | Literal["choose"]:
    """The variant where none is asked for: chosen, where the choice can be scored."""
    known = table[IMAGE].isin(job.run.tables.train.index).all()
    return "choose" if job.options.score and known else "multiply"


def _left_alone(missing: list[str], scored: bool) -> str:
    many = f"{len(missing)} images have no probability, first '{missing[0]}': they stay as they are"
    return many + (", and are not scored" if scored else "")


def _named(plan: Filter) -> str:
    return f"threshold at {plan.low:g} and {plan.high:g}" if plan.variant == "threshold" else plan.variant


def _chosen(choice: Choice) -> str:
    picks = [_named(plan) for plan in choice.picks.values()]
    counts = ", ".join(f"{name} in {picks.count(name)}" for name in dict.fromkeys(picks))
    return f"choose took {_named(choice.plan)}; without each of {len(picks)} folds {counts}; scored nested"


def _abnormal(job: Job, table: pd.DataFrame) -> pd.Series[float]:
    """The probability of a finding, by image_id."""
    task, tables = job.run.competition, job.run.tables
    normal = two_class_filter.normal_class(job.boxes, tables.train["label"], task.classes)
    units = [part["unit_id"] for part in (tables.train, tables.test) if part is not None]
    known = pd.concat(units)
    images = pd.Series(table[IMAGE].unique(), dtype=object)
    strangers = images[~images.isin(known.index)]
    known = pd.concat([known, pd.Series(strangers.to_numpy(), strangers.to_numpy(), dtype=object)])
    known = known[~known.index.duplicated()]
    source = Source(known, task.unit, task.image, task.classes)
    return two_class_filter.probabilities(job.options.filter, source, normal)


def _folds(job: Job, table: pd.DataFrame) -> pd.Series[int]:
    """The fold of each image, by image_id."""
    train = job.run.tables.train
    images = table[IMAGE].unique()
    strangers = [name for name in images if name not in train.index]
    if strangers:
        raise DataError(
            f"image '{strangers[0]}' has no truth: a variant is chosen on training images",
            "give --variant append, multiply or threshold, whichever was chosen there",
        )
    outer = labelled_units(job.run, own=False)["outer"]
    folds: pd.Series[int] = train.loc[images, "unit_id"].map(outer)
    return folds
