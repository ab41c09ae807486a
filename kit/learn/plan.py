"""How long training will take, and what is left out where that is too long: ``train.hours``.

Times are projected before they are spent. What they decide is written down once, so that a run that is
resumed, and `predict`, use the same models although clocks differ.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kit.errors import SettingError, StageError
from kit.files import digest, write_json
from kit.learn import models
from kit.learn.models import Model
from kit.state import Run

log = logging.getLogger("kit")
Job = tuple[Model, str]  # a model, and the fold that it does not see
TIMED = 3  # steps that are timed, after one that warms up


@dataclass(frozen=True)
class Cost:
    """What the fits of a model take, in projected seconds.

    fit: of one fit.
    shared: of what is made once, by name: the first model that needs it pays.
    """

    fit: float
    shared: Mapping[str, float] = field(default_factory=dict)

    def besides(self, made: Iterable[str]) -> float:
        """Of what is not made yet."""
        return sum(seconds for name, seconds in self.shared.items() if name not in made)


Costs = Callable[[Model], Cost]


@dataclass(frozen=True)
class Row:
    """One model: how many of its seeds are fitted, and how many were asked for.

    seconds: of one fit, projected; fits: of one seed; once: seconds before the first fit.
    """

    model: str
    kept: int
    asked: int
    seconds: float
    fits: int
    once: float = 0.0

    def hours(self, seeds: int) -> float:
        """Of so many seeds."""
        return (seeds * self.fits * self.seconds + self.once) / 3600 if seeds else 0.0


def affordable(run: Run, jobs: Sequence[Job], costs: Costs) -> list[Job]:
    """The jobs that fit into ``train.hours``: all of them where that is 0, and nothing is measured then.

    First the first seed of each model, in the order of ``train.backbones``, then further seeds: each is kept
    if its time fits beside what is kept already. One model is kept in any case, the quickest if none fits.

    Args:
        jobs: of `kit.learn.models.of_run`, in its order.
        costs: of a model, projected; asked once a model, whatever its seeds.

    Raises:
        SettingError: there is no time for a model that ``combine.models`` names.
    """
    budget = run.competition.training.hours
    if not budget:
        return list(jobs)
    pinned = _pinned(run)
    if pinned is None:
        rows = planned(jobs, costs, budget)
        content = {"key": run.key("train"), "hours": budget, "rows": [asdict(row) for row in rows]}
    else:
        rows = pinned
    for line in describe(rows, budget):
        log.info("%s", line)
    _require_blended(run, rows)
    if pinned is None:
        write_json(path(run), content)
    if lost := left_out(rows):
        log.warning("LEFT OUT: %s", lost)
    return [job for job in jobs if _is_kept(rows, job[0])]


def _require_blended(run: Run, rows: Sequence[Row]) -> None:
    """No model that the second level is to blend is left out."""
    wanted = run.competition.second_level.models
    if lost := [row.model for row in rows if not row.kept and row.model in wanted]:
        raise SettingError(
            f"combine.models names '{lost[0]}', for which train.hours={run.competition.training.hours:g}"
            " leaves no time",
            f"--set train.hours={_needed(rows):g} has time for all (0: no bound); or take it out of"
            " combine.models, or write it first in train.backbones",
        )


def planned(jobs: Sequence[Job], costs: Costs, hours: float) -> list[Row]:
    """What is kept of each model, in the order of the models."""
    fits: dict[str, int] = {}
    for model, _ in jobs:
        if model.seed == 0:
            fits[model.name] = fits.get(model.name, 0) + 1
    each = list(dict.fromkeys((model.name, model.seed) for model, _ in jobs))
    cost = {model.name: costs(model) for model in _firsts(jobs)}
    kept, once, spent = dict.fromkeys(cost, 0), dict.fromkeys(cost, 0.0), 0.0
    made: set[str] = set()

    def price(name: str) -> float:
        return cost[name].fit * fits[name] + cost[name].besides(made)

    def pay(name: str, seeds: int) -> None:
        kept[name] += seeds
        once[name] += cost[name].besides(made)
        made.update(cost[name].shared)

    for name, _ in each:
        if spent + price(name) <= hours * 3600:
            spent += price(name)
            pay(name, 1)
    if not any(kept.values()):
        pay(min(cost, key=price), 1)
    for name in cost:  # what it would take to have those that are left out
        if not kept[name]:
            pay(name, 0)
    asked = {name: sum(other == name for other, _ in each) for name in cost}
    return [Row(name, kept[name], asked[name], cost[name].fit, fits[name], once[name]) for name in cost]


def _firsts(jobs: Sequence[Job]) -> list[Model]:
    """One model a name, in their order."""
    return list({model.name: model for model, _ in reversed(jobs) if model.seed == 0}.values())[::-1]


def kept(run: Run) -> list[Model]:
    """The models that were fitted: all of the run, or those that its plan kept.

    Raises:
        StageError: there is a bound on the hours, and training has made no plan for it.
    """
    found = models.of_run(run)
    if not run.competition.training.hours:
        return found
    rows = _pinned(run)
    if rows is None:
        message = f"{path(run)} does not say which models fit into train.hours"
        raise StageError(message, f"type: python -m kit train {run.asked or run.name} --force (same options)")
    return [model for model in found if _is_kept(rows, model)]


def inputs(run: Run) -> str | None:
    """The digest of which models are kept: what is predicted and blended. ``None`` without a bound.

    The seconds that decided it are not in it: they are others on every machine and day.
    """
    rows = _pinned(run) if run.competition.training.hours else None
    if rows is None:
        return None
    return digest([(row.model, seed) for row in rows for seed in range(row.kept)])


def path(run: Run) -> Path:
    """Where the plan is written, beside the weights."""
    return run.folder("train") / "plan.json"


def _pinned(run: Run) -> list[Row] | None:
    """What was decided for this very training; ``None`` if nothing was."""
    try:
        content: dict[str, Any] = json.loads(path(run).read_text())
    except (OSError, ValueError):
        return None
    if content.get("key") != run.key("train"):
        return None
    return [Row(**row) for row in content["rows"]]


def _is_kept(rows: Sequence[Row], model: Model) -> bool:
    return any(row.model == model.name and model.seed < row.kept for row in rows)


def describe(rows: Sequence[Row], hours: float = 0.0) -> list[str]:
    """The projection as a table."""
    head = ("model", "seeds", "one fit", "all")
    cells = [
        (row.model, f"{row.kept} of {row.asked}", spoken(row.seconds), spoken(row.hours(row.kept) * 3600))
        for row in rows
    ]
    widths = [max(len(line[n]) for line in (head, *cells)) for n in range(len(head))]
    total = spoken(3600 * sum(row.hours(row.kept) for row in rows))
    bound = f" of train.hours={hours:g}" if hours else ""
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *cells)
    ]
    return [f"projected time of training: {total}{bound}", *("  " + line for line in lines)]


def left_out(rows: Sequence[Row]) -> str:
    """What is not fitted, and what to type to have it; empty if all is."""
    short = [row for row in rows if row.kept < row.asked]
    if not short:
        return ""
    parts = [f"{row.model} (seeds {row.kept + 1} to {row.asked})" if row.kept else row.model for row in short]
    hint = f"to have all, --set train.hours={_needed(rows):g} (0: no bound)"
    return f"{', '.join(parts)}: no time; {hint}"


def _needed(rows: Sequence[Row]) -> float:
    """Hours for all that was asked for, rounded up."""
    return math.ceil(10 * sum(row.hours(row.asked) for row in rows)) / 10


def spoken(seconds: float) -> str:
    """A time for reading.

    >>> spoken(4.2), spoken(500), spoken(9000)
    ('4 s', '8 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def per_step(steps: Iterable[object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a step, from an iterator of which each item is one: the median of a few, after the first.

    The first step also starts workers and fills caches. An iterator that ends early is timed as far as it
    goes.
    """
    marks = [clock()]
    for _ in steps:
        marks.append(clock())
        if len(marks) == TIMED + 2:
            break
    took = [after - before for before, after in itertools.pairwise(marks)]
    later = sorted(took[1:] or took)
    return later[len(later) // 2] if later else 0.0
