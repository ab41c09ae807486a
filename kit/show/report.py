"""One self-contained HTML page about a run: can this score be trusted? The `report` stage.

Each section of the page has a module in `kit.show.sections`; this one puts them in order.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kit.files import write_text
from kit.show import learning, verdict
from kit.show.page import render, templates
from kit.show.results import Results
from kit.show.sections import (
    calibration,
    checks,
    pictures,
    reproduce,
    scores,
    second_level,
    tuning,
    units,
)
from kit.state import Run

VERSION = 2


def inputs(run: Run) -> dict[str, Any]:
    """The page's template; what it tells of is in the keys of the stages before."""
    return {"template": templates("report.html.j2")}


def run(run: Run) -> list[Path]:
    """The stage: ``report.html`` beside the submission."""
    path = _path(run)
    write_text(path, page(run))
    return [path]


def show(run: Run) -> str:
    """Where the page is."""
    return f"report: {_path(run)}"


def _path(run: Run) -> Path:
    return run.submission / "report.html"


def page(run: Run) -> str:
    """The whole page as text."""
    results = Results(run)
    checked = checks.section(results)
    judged = verdict.judge(run, results.content, len(results.held))
    scored = scores.section(results)
    sentences = [*checks.sentences(checked), *judged.sentences, *scored["beaten"]]
    return render(
        "report.html.j2",
        run=run,
        id=run.submission.name,
        task=run.competition,
        verdict=replace(judged, sentences=sentences),
        scores=scored,
        calibration=calibration.section(results),
        second_level=second_level.section(results),
        parts=units.parts(results),
        mistakes=units.mistakes(results),
        pictures=pictures.section(results),
        data=units.data(results),
        tuning=tuning.section(results),
        learning=learning.section(run) if results.own else None,
        times=reproduce.times(results),
        reproduce=reproduce.section(results),
        checks=checked,
    )
