"""Where the score comes from: folds and sites, the worst units, and the images behind them."""

from __future__ import annotations

from typing import Any

from kit.files import read_strings
from kit.show import diagnosis, tables
from kit.show.results import Results, without_folders
from kit.show.tables import Table


def parts(results: Results) -> list[Table]:
    """The default by fold and by site."""
    run, scored = results.run, results.scored
    classes, site = run.competition.classes, run.competition.site
    found = [tables.parts("By fold", "fold", diagnosis.by_part(run, scored, "outer"), classes)]
    if scored.frame["site"].nunique() > 1:
        sites = diagnosis.by_part(run, scored, "site")
        found.append(tables.parts("By site", site or "site", sites, classes))
    return found


def mistakes(results: Results) -> dict[str, Any]:
    """The worst units, and how much of the score they are."""
    scored, task = results.scored, results.run.competition
    worst = diagnosis.worst(scored)
    total = float(scored.weights @ scored.losses)
    return {
        "share": float(scored.weights[worst] @ scored.losses[worst]) / total if total else 0.0,
        "table": tables.mistakes(scored, task.classes, task.unit, task.site),
    }


def data(results: Results) -> dict[str, Any]:
    """What was read and what could not be; nothing of images where others made the predictions."""
    path = results.run.folder("tile") / "images.csv"
    section: dict[str, Any] = {
        "own": results.own,
        "statuses": None,
        "fallback": results.manifest.get("fallback"),
    }
    if results.own and path.is_file():
        images = read_strings(path)
        images["reason"] = images["reason"].map(lambda text: without_folders(results.run, text))
        section |= {"statuses": tables.statuses(images), "failed": tables.failed(images)}
    return section
