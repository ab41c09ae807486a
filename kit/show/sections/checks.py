"""The report checks itself: what it prints is computed a second time, another way, and compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.combine import classification
from kit.combine.confusion import confusion
from kit.files import file_digest, read_strings
from kit.show import averages, verdict
from kit.show.results import Results
from kit.show.tables import Table
from kit.show.verdict import count

CLOSE = 1e-9  # of numbers that are made in two ways from the same ones
SUM = 1e-6  # how far from 1 a row of probabilities may be


@dataclass(frozen=True)
class Check:
    """One thing that was compared: whether it holds, and the numbers on both sides."""

    what: str
    holds: bool
    numbers: str

    @property
    def word(self) -> str:
        """Whether it holds, in words."""
        return "holds" if self.holds else "does NOT hold"


def section(results: Results) -> dict[str, Any]:
    """All checks as a table, and those that fail."""
    found = list(checks(results))
    rows = [(check.what, check.word, check.numbers) for check in found]
    strong = frozenset(n for n, check in enumerate(found) if not check.holds)
    failed = [check for check in found if not check.holds]
    table = Table(
        "What was computed a second time", ("check", "result", "numbers"), rows, frozenset({1, 2}), strong
    )
    return {"table": table, "count": len(found), "failed": failed}


def sentences(section: dict[str, Any]) -> list[str]:
    """What the verdict says of the checks that fail."""
    return [f"A self-check does NOT hold: {check.what} ({check.numbers})." for check in section["failed"]]


def checks(results: Results) -> Iterator[Check]:
    """Every check of this run."""
    yield same_units(results)
    yield from footers(results)
    yield score_again(results)
    yield counts_again(results)
    yield from rows_sum(results)
    yield apart(results)
    if results.manifest:
        yield digests(results)


def same_units(results: Results) -> Check:
    """Every blended model says something of the same labelled units, and of the same test units."""
    level = results.problem.level
    sets = {"out of fold": level.oof, "held out": level.holdout, "test": level.test}
    differing, said = [], []
    for where, models in sets.items():
        units = {name: set(models[name].logits.index) for name in level.blended if name in models}
        every = set().union(*units.values())
        if not every:
            continue
        said.append(f"{where}: {count(len(units), 'model')}, {count(len(every), 'unit')}")
        lacking = {name: len(every - mine) for name, mine in units.items() if every - mine}
        differing += [f"{where}: {name} lacks {n} of {len(every)}" for name, n in lacking.items()]
    return Check("all blended models cover the same units", not differing, "; ".join(differing or said))


def footers(results: Results) -> Iterator[Check]:
    """Accuracy and averages from the counts are those from the units."""
    run, scored = results.run, results.scored
    counts = confusion(scored.labels, scored.probabilities)
    groups = scored.frame["group_id"].to_numpy(dtype=object)
    printed = classification.summary(scored.labels, scored.probabilities, groups, scored.weights)
    again = averages.of_counts(counts)
    weighed = averages.weighed_accuracy(counts, scored.labels, scored.weights)
    pairs = (
        ("accuracy, as the metric weighs units", weighed, printed["accuracy"]["value"]),
        ("macro F1", again.macro[2], printed["macro_f1"]["value"]),
        ("weighted F1", again.weighted[2], printed["weighted_f1"]["value"]),
    )
    for name, one, other in pairs:
        yield Check(
            f"{name} from the confusion matrix is the printed one", near(one, other), both(one, other)
        )
    rows = classification.report(scored.labels, scored.probabilities, groups, run.competition.classes)
    support = [row.support for row in rows]
    yield Check(
        "the units of the classes in the report are the rows of the matrix",
        support == counts.sum(axis=1).tolist(),
        f"{', '.join(map(str, support))}; {', '.join(map(str, counts.sum(axis=1).tolist()))}",
    )


def score_again(results: Results) -> Check:
    """The score at the top follows from the probabilities in ``oof.csv``, class by class."""
    scored, row = results.scored, verdict.default_row(results.content, "oof")
    values = scored.probabilities / scored.probabilities.sum(axis=1, keepdims=True)
    losses = -np.log(np.clip(values, 1e-15, 1 - 1e-15)[np.arange(len(values)), scored.labels])
    prior = results.run.competition.metric.fixed_prior
    if prior is None:
        again = float(losses.mean())
    else:
        again = sum(share * float(losses[scored.labels == k].mean()) for k, share in enumerate(prior))
    written = float("nan") if row is None else float(row["score"])
    return Check("the score from the units' probabilities is that of metrics.json", near(again, written),
                 both(again, written))  # fmt: skip


def counts_again(results: Results) -> Check:
    """The confusion matrix holds every scored unit once, and as many as metrics.json says."""
    scored = results.scored
    total = int(confusion(scored.labels, scored.probabilities).sum())
    said = results.content["units"]
    numbers = f"{total} in the matrix, {len(scored.labels)} in oof.csv, {said} in metrics.json"
    return Check("the confusion matrix sums to the units", total == len(scored.labels) == said, numbers)


def rows_sum(results: Results) -> Iterator[Check]:
    """Each row of probabilities sums to 1: of the default, and of our own models as predicted."""
    run = results.run
    columns = [f"p_{name}" for name in run.competition.classes]
    for stage in ("combine", "predict") if results.own else ("combine",):
        for name in ("oof", "holdout", "test"):
            table = read_strings(run.folder(stage) / f"{name}.csv")
            if len(table):
                yield _sums(f"{stage}/{name}.csv", table[columns].to_numpy(float))


def _sums(name: str, values: np.ndarray[Any, np.dtype[np.float64]]) -> Check:
    far = float(np.abs(values.sum(axis=1) - 1).max())
    inside = bool((values >= 0).all() and np.isfinite(values).all())
    words = f"{count(len(values), 'row')}, at most {far:.1e} from 1"
    return Check(f"every row of {name} sums to 1", inside and far <= SUM, words)


def apart(results: Results) -> Check:
    """No held-out unit is scored out of fold, nor is one of a group that is."""
    frame, scored = results.problem.level.frame, results.scored.frame
    held = frame[frame["role"] == "holdout"]
    units = set(held.index) & set(scored.index) | set(results.held["unit_id"]) & set(scored.index)
    groups = set(held["group_id"]) & set(scored["group_id"])
    common = f"{count(len(units), 'unit')} and {count(len(groups), 'group')} in both"
    numbers = f"{len(held)} held out, {len(scored)} out of fold; {common}"
    return Check("held-out units and groups are none of those out of fold", not units and not groups, numbers)


def digests(results: Results) -> Check:
    """The files of the submission are those of its manifest."""
    files = results.manifest.get("files", {})
    folder = results.run.submission
    wrong = [name for name, was in files.items() if not _is(folder / name, was)]
    mine = files.get("submission.csv", "")
    numbers = f"{count(len(files), 'file')}, submission.csv {mine[:12]}"
    if wrong:
        numbers = f"{len(wrong)} of {len(files)} differ: {', '.join(wrong[:5])}"
    return Check(
        "the files of the submission have the digests of its manifest", bool(mine) and not wrong, numbers
    )


def _is(path: Any, was: str) -> bool:
    return path.is_file() and file_digest(path) == was


def near(one: float, other: float) -> bool:
    """Equal but for the last digits of a sum."""
    return bool(abs(one - other) <= CLOSE * max(1.0, abs(other)))


def both(one: float, other: float) -> str:
    """Two numbers that should be one."""
    return f"{one:.9f}; {other:.9f}"
