"""How the run was made: time and memory, the command that repeats it, and its manifest."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit import competition, settings
from kit.competition import Competition, Demo, FoldPlan, SecondLevel, TileGrid, Training, Tuning
from kit.show import score_plots, tables
from kit.show.results import Results
from kit.show.tables import MOST, Table
from kit.state import Run, environment, flatten


def times(results: Results) -> dict[str, Any] | None:
    """What the stages that this run rests on took, as a table and bars; ``None`` where nothing is known."""
    names, state = results.stages, results.state
    if not names:
        return None
    took = [(name, state[name]["seconds"], tables.duration(state[name]["seconds"])) for name in names]
    held = [(name, state[name]["peak_mib"], f"{state[name]['peak_mib']:,} MiB") for name in names]
    total = tables.duration(sum(seconds for _, seconds, _ in took))
    most = max(mib for _, mib, _ in held)
    return {
        "table": tables.stages(state, names),
        "charts": [
            _bars("times", "Time", f"Time of {len(names)} stages, {total} in all", "seconds", took),
            _bars(
                "memory",
                "Peak memory",
                f"Peak memory of {len(names)} stages, at most {most:,} MiB",
                "MiB",
                held,
            ),
        ],
    }


def _bars(
    name: str, title: str, label: str, across: str, found: list[tuple[str, float, str]]
) -> dict[str, str]:
    return {"title": title, "svg": score_plots.bars(name, label, across, found)}


def section(results: Results) -> dict[str, Any]:
    """What to type, and what it was made with."""
    run, state, manifest = results.run, results.state, results.manifest
    keys = {name: state[name]["key"] for name in results.stages}
    made = manifest.get("environment") or environment()
    return {
        "command": command(run),
        "seed": run.seed,
        "threads": run.threads,
        "versions": tables.pairs("Versions", ("what", "version"), made),
        "stage_keys": tables.pairs("Stage keys", ("stage", "key"), keys) if keys else None,
        "settings": settings_table(run),
        "manifest": manifest_section(run, manifest) if manifest else None,
    }


def settings_table(run: Run) -> Table:
    """Every setting of the run; those that were changed stand out."""
    known, changed = settings.known(run.competition), changed_settings(run)
    rows = [
        (key, _safe(key, _text(value)), "changed" if key in changed else "")
        for key, value in sorted(known.items())
        if run.demo or not key.startswith("demo.")
    ]
    strong = frozenset(n for n, row in enumerate(rows) if row[2])
    return Table("Settings", ("setting", "value", "beside the declaration"), rows, frozenset({1, 2}), strong)


def manifest_section(run: Run, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The files of the submission, and what else its manifest says."""
    files = manifest.get("files", {})
    rows = [(name, _size(run.submission / name), was) for name, was in sorted(files.items())]
    beside = {key: value for key, value in manifest.items() if key not in ("files", "environment", "timings")}
    facts = [(key, _brief(value)) for key, value in sorted(flatten(beside).items())]
    left = max(0, len(facts) - MOST)
    return {
        "files": Table("Files of the submission", ("file", "bytes", "sha256"), rows, frozenset({2})),
        "facts": Table(
            "What else the manifest says", ("key", "value"), facts[:MOST], frozenset({1}), left_out=left
        ),
    }


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,}" if path.is_file() else "not there"


def _brief(value: object, most: int = 300) -> str:
    """A value of the manifest for reading: a list of thousands is cut."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]} …"


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
        key: _safe(key, _text(value))
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


def _safe(key: str, text: str) -> str:
    """A setting without the folders of this machine, and without the password of a database."""
    if key == "fold.duplicates" and text:
        return Path(text).name
    if key != "tune.storage" or not text:
        return text
    from kit.learn.storage import masked

    return re.sub(r"^(sqlite[^:]*:///).*/", r"\1", masked(text))


def _text(value: object) -> str:
    """A setting as ``--set`` reads it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
