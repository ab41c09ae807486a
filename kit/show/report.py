"""One self-contained HTML page about a run: can this score be trusted? The `report` stage."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from kit import competition, settings
from kit.combine import classification, reliability
from kit.combine.confusion import confusion
from kit.combine.diversity import moments
from kit.combine.second_level import Problem
from kit.combine.units import gather, joins_own, labels_of
from kit.competition import Competition, Demo, FoldPlan, SecondLevel, TileGrid, Training, Tuning
from kit.files import file_digest, read_strings, write_text
from kit.show import diagnosis, learning, plots, tables, verdict
from kit.show.diagnosis import Scored
from kit.show.tables import Table
from kit.state import STAGES, Run, environment, read_state

VERSION = 1
TEMPLATE = Path(__file__).with_name("report.html.j2")
Section = dict[str, Any]


def inputs(run: Run) -> dict[str, Any]:
    """The page's template; what it tells of is in the keys of the stages before."""
    return {"template": file_digest(TEMPLATE)}


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
    content = _json(run.folder("combine") / "metrics.json")
    scored = diagnosis.scored_units(run)
    state, manifest = read_state(run.work), _json(run.submission / "manifest.json")
    held = read_strings(run.folder("combine") / "holdout.csv")
    loader = jinja2.FileSystemLoader(TEMPLATE.parent)
    # Every id and name comes from someone's table: all text is escaped.
    made = jinja2.Environment(
        autoescape=True, loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return made.get_template(TEMPLATE.name).render(
        run=run,
        id=run.submission.name,
        task=run.competition,
        verdict=verdict.judge(run, content, len(held)),
        scores=score_section(content),
        calibration=calibration_section(run, scored),
        models=models_section(run),
        parts=parts_section(run, scored),
        mistakes=mistakes_section(run, scored),
        data=data_section(run, manifest),
        tuning=tuning_section(run),
        learning=learning.section(run) if joins_own(run) else None,
        times=times_section(run, state),
        reproduce=reproduce_section(run, state, manifest),
    )


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is absent."""
    return json.loads(path.read_text()) if path.is_file() else {}


def score_section(content: Mapping[str, Any]) -> Section:
    """The table and the chart of each set."""
    sets = [part for part in tables.SETS if any(row["set"] == part for row in content["rows"])]
    return {
        "tables": [tables.scores(content, part) for part in sets],
        "charts": [_interval_chart(content, part) for part in sets],
        "metadata": verdict.metadata_sentence(content),
        "absent": content["absent"],
    }


def _interval_chart(content: Mapping[str, Any], part: str) -> Section:
    rows = [row for row in content["rows"] if row["set"] == part]
    at = {row["name"]: row["score"] for row in rows if row["kind"] in ("baseline", "limit")}
    dots = [
        plots.Dot(row["name"], row["score"], row["low"], row["high"], row["kind"] == "default")
        for row in rows
        if row["name"] not in ("constant", "limit")
    ]
    best = min(dots, key=lambda dot: dot.score)
    label = (
        f"{tables.SETS[part]}: scores of {len(dots)} predictors with 95 % intervals; the lowest"
        f" is {best.name} with {best.score:.4f}; a constant scores {at['constant']:.4f}"
    )
    svg = plots.intervals(f"scores-{part}", label, dots, at["constant"], at.get("limit"))
    return {"title": tables.SETS[part], "svg": svg}


def calibration_section(run: Run, scored: Scored) -> Section:
    """Reliability, ROC and confusion of the default."""
    classes = run.competition.classes
    shown = reliability.shown_classes(scored.labels, len(classes))
    found = {
        k: reliability.reliability(scored.probabilities[:, k], scored.labels == k, scored.weights)
        for k in shown
    }
    return {
        "prior": prior_sentence(run, scored),
        "error": float(np.mean([reliability.calibration_error(bins) for bins in found.values()])),
        "chance": float(np.mean([reliability.chance_error(bins) for bins in found.values()])),
        "reliability": [_reliability_chart(k, classes[k], bins) for k, bins in found.items()],
        "bins": [tables.bins(classes[k], bins) for k, bins in found.items()],
        "roc": [svg for k in shown if (svg := _roc_chart(k, classes[k], scored))],
        "right": right_section(run, scored),
        "confusion": tables.confusion(confusion(scored.labels, scored.probabilities), classes),
        "shown": [classes[k] for k in shown],
        "sizes": sorted({b.units for bins in found.values() for b in bins}),
    }


def right_section(run: Run, scored: Scored) -> Section:
    """Accuracy and F1 of the default, every class on its own, and the commonest errors."""
    classes, groups = run.competition.classes, scored.frame["group_id"].to_numpy(dtype=object)
    given = scored.labels, scored.probabilities, groups
    counts = confusion(scored.labels, scored.probabilities)
    return {
        "summary": classification.summary(*given, scored.weights),
        "bins": classification.BINS,
        "table": tables.classes(classification.report(*given, classes)),
        "errors": [asdict(error) for error in classification.commonest(counts, classes, most=5)],
    }


def models_section(run: Run) -> Section:
    """The models as they came: how alike their errors are, and what each finds most probable."""
    problem = Problem(run, gather(run))
    level, labels, names = problem.level, labels_of(problem.frame), problem.level.blended
    weights = run.competition.metric.row_weights(labels)
    units, classes = problem.frame.index, run.competition.classes
    alike = moments(problem.rows.X, labels, weights).correlation if len(names) > 1 else None
    return {
        "alike": None if alike is None else tables.correlations(names, alike),
        "confusions": [
            tables.confusion(confusion(labels, model.on(units).plain.to_numpy()), classes, name)
            for name, model in level.oof.items()
        ],
    }


def prior_sentence(run: Run, scored: Scored) -> str:
    """Which class shares the probabilities are meant for, and so how units are weighed."""
    classes = run.competition.classes
    data = np.bincount(scored.labels, minlength=len(classes)) / len(scored.labels)
    acts = np.bincount(scored.labels, weights=scored.weights, minlength=len(classes))
    if np.abs(data - acts).max() < 1e-9:
        return "The metric counts every unit the same, and so do the observed shares."
    shares = zip(classes, map(verdict.percent, acts), strict=True)
    listed = ", ".join(f"{name} {share}" for name, share in shares)
    return (
        f"The probabilities are meant for the class shares that the metric acts as if it saw"
        f" ({listed}), so units count towards the observed shares by their weight in the"
        f" metric, and not once each."
    )


def _reliability_chart(k: int, name: str, bins: list[reliability.Bin]) -> str:
    error = reliability.calibration_error(bins)
    sizes = sorted({b.units for b in bins})
    label = (
        f"Reliability of P({name}) in {len(bins)} bins of {' or '.join(map(str, sizes))}"
        f" units: expected calibration error {error:.3f}"
    )
    return plots.reliability(f"reliability-{k}", label, f"P({name}): error {error:.3f}", bins)


def _roc_chart(k: int, name: str, scored: Scored) -> str:
    found = diagnosis.roc(scored.labels == k, scored.probabilities[:, k])
    if found is None:
        return ""
    label = f"ROC curve of {name} against the rest: area {found.area:.3f}"
    return plots.curve(f"roc-{k}", label, f"{name}: AUC {found.area:.3f}", found)


def parts_section(run: Run, scored: Scored) -> list[Table]:
    """The default by fold and by site."""
    classes, site = run.competition.classes, run.competition.site
    folds = diagnosis.by_part(run, scored, "outer")
    found = [tables.parts("By fold", "fold", folds, classes)]
    if scored.frame["site"].nunique() > 1:
        sites = diagnosis.by_part(run, scored, "site")
        found.append(tables.parts("By site", site or "site", sites, classes))
    return found


def mistakes_section(run: Run, scored: Scored) -> Section:
    """The worst units, and how much of the score they are."""
    worst = diagnosis.worst(scored)
    total = float(scored.weights @ scored.losses)
    task = run.competition
    return {
        "share": float(scored.weights[worst] @ scored.losses[worst]) / total if total else 0.0,
        "table": tables.mistakes(scored, task.classes, task.unit, task.site),
    }


def data_section(run: Run, manifest: Mapping[str, Any]) -> Section:
    """What was read and what could not be; nothing of images where others made the predictions."""
    path = run.folder("tile") / "images.csv"
    own = joins_own(run)
    section: Section = {"own": own, "statuses": None, "fallback": manifest.get("fallback")}
    if own and path.is_file():
        images = read_strings(path)
        section |= {"statuses": tables.statuses(images), "failed": tables.failed(images)}
    return section


def tuning_section(run: Run) -> Section | None:
    """The settings that tuning chose, unless our own models take no part."""
    best = _json(run.folder("tune") / "best.json")
    if not best or not joins_own(run):
        return None
    fits = [found for by_fold in best.values() for found in by_fold.values()]
    changed = sum(bool(found.get("trial")) for found in fits)
    return {"fits": len(fits), "changed": changed, "table": tables.tuning(best)}


def times_section(run: Run, state: Mapping[str, Any]) -> Table | None:
    """What the stages that this run rests on took."""
    names = _recorded(run, state)
    return tables.stages(state, names) if names else None


def _recorded(run: Run, state: Mapping[str, Any]) -> list[str]:
    """The stages of this run that the work folder knows of, in flow order."""
    mine = STAGES if joins_own(run) else run.chain("submit")
    return [name for name in mine if name in state]


def reproduce_section(run: Run, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> Section:
    """What to type, and what it was made with."""
    keys = {name: state[name]["key"] for name in _recorded(run, state)}
    made = manifest.get("environment") or environment()
    return {
        "command": command(run),
        "seed": run.seed,
        "threads": run.threads,
        "versions": tables.pairs("Versions", ("what", "version"), made),
        "stage_keys": tables.pairs("Stage keys", ("stage", "key"), keys) if keys else None,
    }


def command(run: Run) -> str:
    """The command line that repeats the run; files are named without the folders they were in."""
    task, known = run.competition, run.competition.name in competition.names()
    words = [task.name if known else Path(run.asked or "my_task.py").name]
    words += [] if run.demo else ["--data", "DIR"]
    words += ["--folds", run.fold_table.name] if run.fold_table else []
    words += ["--import", "DIR"] if run.coords else []
    words += _files("--weights", run.weights) + _files("--oof", run.external.oof)
    words += _files("--test", run.external.test)
    words += ["--meta", run.external.meta.name] if run.external.meta else []
    words += ["--seed", str(run.seed), "--threads", str(run.threads)]
    changed = changed_settings(run)
    words += ["--set", *(f"{key}={value}" for key, value in changed.items())] if changed else []
    return f"python run_all.py {shlex.join(words)}"


def _files(option: str, files: Mapping[str, Path]) -> list[str]:
    named = [f"{name}={path.name}" for name, path in sorted(files.items())]
    return [option, *named] if named else []


def changed_settings(run: Run) -> dict[str, str]:
    """The settings that differ from the declaration (a user's own: from the kit)."""
    now, was = settings.known(run.competition), settings.known(_declared(run))
    return {
        key: _text(value)
        for key, value in now.items()
        if value != was[key] and (run.demo or not key.startswith("demo."))
    }


def _declared(run: Run) -> Competition:
    task = run.competition
    if task.name in competition.names():
        found = competition.find(task.name)
        return settings.apply(found, found.demo.settings) if run.demo else found
    return replace(
        task,
        folds=FoldPlan(),
        tiles=TileGrid(),
        tuning=Tuning(),
        training=Training(),
        second_level=SecondLevel(),
        demo=Demo(),
    )


def _text(value: object) -> str:
    """A setting as ``--set`` reads it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
