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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kit.errors import StageError
from kit.files import file_digest, write_json
from kit.learn import models
from kit.learn.models import Model
from kit.state import Run

log = logging.getLogger("kit")
Job = tuple[Model, str]  # a model, and the fold that it does not see
Seconds = Callable[[Model], float]
TIMED = 3  # steps that are timed, after one that warms up


@dataclass(frozen=True)
class Row:
    """One model: how many of its seeds are fitted, and how many were asked for.

    seconds: of one fit, projected; fits: of one seed.
    """

    model: str
    kept: int
    asked: int
    seconds: float
    fits: int

    @property
    def hours(self) -> float:
        """Of all that is kept."""
        return self.kept * self.fits * self.seconds / 3600


def affordable(run: Run, jobs: Sequence[Job], seconds: Seconds) -> list[Job]:
    """The jobs that fit into ``train.hours``: all of them where that is 0, and nothing is measured then.

    First the first seed of each model, in the order of ``train.backbones``, then further seeds: each is kept
    if its time fits beside what is kept already. One model is kept in any case, the quickest if none fits.

    Args:
        jobs: of `kit.learn.models.of_run`, in its order.
        seconds: of one fit of a model, projected; asked once a model, whatever its seeds.
    """
    budget = run.competition.training.hours
    if not budget:
        return list(jobs)
    pinned = _pinned(run)
    if pinned is None:
        rows = planned(jobs, seconds, budget)
        content = {"key": run.key("train"), "hours": budget, "rows": [asdict(row) for row in rows]}
        write_json(path(run), content)
    else:
        rows = pinned
    for line in describe(rows, budget):
        log.info("%s", line)
    if lost := left_out(rows):
        log.warning("LEFT OUT: %s", lost)
    return [job for job in jobs if _is_kept(rows, job[0])]


def planned(jobs: Sequence[Job], seconds: Seconds, hours: float) -> list[Row]:
    """What is kept of each model, in the order of the models."""
    fits: dict[str, int] = {}
    for model, _ in jobs:
        if model.seed == 0:
            fits[model.name] = fits.get(model.name, 0) + 1
    each = list(dict.fromkeys((model.name, model.seed) for model, _ in jobs))
    cost = {model.name: float(seconds(model)) for model in _firsts(jobs)}
    kept, spent = dict.fromkeys(cost, 0), 0.0
    for name, _ in each:
        price = cost[name] * fits[name]
        if spent + price <= hours * 3600:
            kept[name], spent = kept[name] + 1, spent + price
    if not any(kept.values()):
        kept[min(cost, key=lambda name: cost[name] * fits[name])] = 1
    asked = {name: sum(other == name for other, _ in each) for name in cost}
    return [Row(name, kept[name], asked[name], cost[name], fits[name]) for name in cost]


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
    """The digest of the plan: what is predicted and blended depends on it. ``None`` without a bound."""
    if not run.competition.training.hours or not path(run).is_file():
        return None
    return file_digest(path(run))


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
        (row.model, f"{row.kept} of {row.asked}", spoken(row.seconds), spoken(row.hours * 3600))
        for row in rows
    ]
    widths = [max(len(line[n]) for line in (head, *cells)) for n in range(len(head))]
    total = spoken(3600 * sum(row.hours for row in rows))
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
    need = math.ceil(sum(row.asked * row.fits * row.seconds for row in rows) / 360) / 10
    return f"{', '.join(parts)}: no time; to have all, --set train.hours={need:g} (0: no bound)"


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
