"""``python -m kit detect``: check, fuse, filter and score submissions of boxes.

No stage reads what it writes: the file of ``--out``, and ``WORK/<name>/detect/metrics.json``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from kit import boxes as findings
from kit.combine import detection_scores, detections, two_class_filter
from kit.combine.consensus import consensus_boxes
from kit.combine.detection_ensemble import fused
from kit.combine.detection_metric import Grader, truths_of
from kit.combine.detections import IMAGE, Rules
from kit.combine.predictions import Source
from kit.combine.two_class_filter import Choice, Filter
from kit.combine.units import labelled_units
from kit.command import Said
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
        made[FUSED] = fused(tables, job.rules.nothing, options.votes, options.fuse, options.iou)
        lines.append(f"fused {len(tables)} files: {len(made[FUSED])} boxes")
    last = list(made.values())[-1]
    if options.filter:
        last, scored, said = _filter(job, last)
        made[FILTERED] = scored
        lines.append(said)
    if options.score:
        content = detection_scores.scores(run, made, job.truths, job.rules, job.grader)
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

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """The findings of the training images, checked."""
        task = self.run.competition
        if task.boxes is None:
            message = f"{task.name} has no table of findings, and its submissions are no boxes"
            raise SettingError(message, "name a competition whose declaration says boxes=...")
        return findings.check(task.boxes(self.run.data))

    @cached_property
    def rules(self) -> Rules:
        """What a box may be."""
        return detections.rules_of(self.boxes)

    @cached_property
    def truths(self) -> pd.DataFrame:
        """What is to be found on the training images."""
        fused = self.options.truth == "consensus"
        told = consensus_boxes(self.boxes) if fused else self.boxes
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
    options = job.options
    if len(set(options.files)) < len(options.files):
        raise SettingError("a FILE is given twice", "give it once; --votes says what it counts")
    if options.votes and len(options.votes) != len(options.files):
        message = f"--votes has {len(options.votes)} numbers for {len(options.files)} files"
        raise SettingError(message, "give one number for each FILE, in their order")
    if options.mle_bench and options.truth != "readers":
        raise SettingError("--mle-bench takes the first reader's boxes", "leave out --truth")
    if not 0 < options.iou < 1:
        raise SettingError(f"--iou {options.iou:g} is no overlap", "give a number between 0 and 1")
    if options.variant and not options.filter:
        raise SettingError("--variant says how to filter, and by nothing", "add --filter FILE")
    if options.mle_bench and not options.score and options.variant != "choose":
        raise SettingError("--mle-bench says how to score, and nothing is scored", "add --score")
    Filter("threshold", options.low, options.high)


def _sound(path: Path, table: pd.DataFrame) -> str:
    many = table[IMAGE].nunique()
    return f"{path}: sound. {many} images, {len(table)} boxes"


def _filter(job: Job, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """What is written, what is scored (nested, where the variant was chosen), and what is said of it."""
    options, nothing = job.options, job.rules.nothing
    abnormal = _abnormal(job, table)
    if options.variant != "choose":
        plan = Filter(options.variant or "multiply", options.low, options.high)
        made = two_class_filter.filtered(table, abnormal, plan, nothing)
        return made, made, f"filtered with {options.filter}: {_named(plan)}"
    plans = (*two_class_filter.CANDIDATES[:-1], Filter("threshold", options.low, options.high))
    folds = _folds(job, table)
    choice = two_class_filter.choose(table, abnormal, job.truths, folds, nothing, plans, job.grader)
    made = two_class_filter.filtered(table, abnormal, choice.plan, nothing)
    return made, choice.nested, f"filtered with {options.filter}: {_chosen(choice)}"


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
