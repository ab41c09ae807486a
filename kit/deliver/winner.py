"""``kit bundle --winner``: what Kaggle asks of winners, so that others can run it and understand it."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from kit.deliver import archive, bundle, code_part, entry, kaggle
from kit.errors import SettingError
from kit.files import write_json, write_text
from kit.state import Run

STEPS = {"prepare_data.py": "prepare", "train.py": "train", "predict.py": "predict"}
SCRIPT = '''"""{help}

Where things lie is said in SETTINGS.json; every other setting is that of the run that won, in bundle.json.
"""

from kit.deliver.entry import main

if __name__ == "__main__":
    raise SystemExit(main("{step}"))
'''
MARK = "**To be written:**"


def package(run: Run, options: bundle.Options) -> str:
    """Write the package; returns what lies where, and what is left to be written by hand.

    Raises:
        StageError, SettingError: see `kit.deliver.bundle.bundle`; or the folder holds other files.
    """
    bundle.require_ready(run, "predict")
    out = options.out or run.work / "bundle" / "winner"
    if out.exists() and not (out / "entry_points.md").is_file() and any(out.iterdir()):
        raise SettingError(f"--out {out} holds other files", "give a folder that is empty or not there")
    temporary = out.with_name(f".tmp-{out.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write(run, options, temporary)
        archive.swap(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _told(run, out)


def _write(run: Run, options: bundle.Options, folder: Path) -> None:
    for name, source in code_part.files(run).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    limits = {"hours": options.hours, "memory_gib": options.memory, "disk_gib": kaggle.OUTPUT_BYTES / 2**30}
    about = code_part.about(run, "predict", limits) | {"wheels": [], "requires": {}}
    write_json(
        folder / code_part.ABOUT, about | bundle.write_weights(run, "predict", folder / _default("MODEL_DIR"))
    )
    if code_part.needs_folds(run):
        shutil.copyfile(run.folds, folder / code_part.FOLDS)
    write_json(folder / entry.SETTINGS, {name: _default(name) for name in entry.PLACES})
    for name, step in STEPS.items():
        write_text(folder / name, SCRIPT.format(help=entry.HELP[step], step=step))
    write_text(folder / "requirements.txt", requirements(folder))
    write_text(folder / "entry_points.md", entry_points())
    write_text(folder / "model_summary.md", summary(run))
    write_text(folder / "directory_structure.txt", "")  # so that it lists itself
    write_text(folder / "directory_structure.txt", structure(folder))


def _default(name: str) -> str:
    return entry.PLACES[name][0]


# -- what has to be installed


def requirements(folder: Path) -> str:
    """The packages that the code in a folder imports, at the versions that are installed here."""
    from kit.deliver import wheels

    owners = metadata.packages_distributions()
    imported = {name for path in folder.rglob("*.py") for name in code_part.imported(path)}
    # What is loaded by another package, and imported nowhere by name, is in the kernel's own list.
    names = {owner for name in imported for owner in owners.get(name, ())} | set(wheels.LEAST)
    pins = sorted(set(_pins(names)), key=str.lower)
    version = f"# made with Python {platform.python_version()}; python -m pip install -r requirements.txt"
    return "\n".join([version, *pins]) + "\n"


def _pins(names: Iterable[str]) -> Iterator[str]:
    """``name==version`` of what is installed; without the mark of a build that no index has."""
    for name in names:
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        yield f"{found.metadata['Name']}=={found.version.partition('+')[0]}"


# -- what people read


def entry_points() -> str:
    """How the package is run."""
    places = [f"- `{name}`: {what}" for name, (_, what) in entry.PLACES.items()]
    steps = [f"{n}. `python {name}`: {entry.HELP[step]}" for n, (name, step) in enumerate(STEPS.items(), 1)]
    lines = [
        "# Entry points",
        "",
        "In this folder, after `python -m pip install -r requirements.txt`:",
        "",
        *steps,
        "",
        "`predict.py` alone is enough to predict with the models that won; `train.py` replaces them.",
        "Each takes `--dry-run`, `--settings FILE` and `--workers N`. Folders are named in `SETTINGS.json`:",
        "",
        *places,
    ]
    return "\n".join(lines) + "\n"


def structure(folder: Path) -> str:
    """Every folder and file below a folder, indented by its depth; folders end with a slash."""
    lines = ["./"]
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        lines.append("  " * len(inside) + path.name + ("/" if path.is_dir() else ""))
    return "\n".join(lines) + "\n"


def summary(run: Run) -> str:
    """A skeleton of the model summary: numbers from manifest and metrics, with places for prose."""
    manifest = _json(run.submission / "manifest.json")
    metrics = _json(run.submission / "metrics.json")
    claim = manifest["claim"]
    score = f"{claim['score']:.4f} ({claim['low']:.4f} to {claim['high']:.4f}, 95 %)"
    scored = "nested" if claim["nested"] else "not nested"
    sections = {
        "Who we are": [f"{MARK} name, place and background of everybody in the team; time spent."],
        "Summary": [
            f"{MARK} two or three sentences.",
            "",
            f"- submission: `{run.name}/{manifest['run']}`, version {manifest['code']['version']} of the kit",
            f"- {claim['metric']} out of fold: **{score}**, {claim['units']} units, {scored}, method"
            f" {claim['name']}",
        ],
        "Data": _data(run, manifest),
        "Models": [*_models(run), "", f"{MARK} why these."],
        "Scores": [*_scores(metrics), "", f"{MARK} what helped and what did not."],
        "A simpler solution": [f"{MARK} which single model comes close; see the table above."],
        "Time": _time(manifest),
        "Environment": [f"- {name} {version}" for name, version in manifest["environment"].items()],
        "References": [f"{MARK} papers, code and data of others."],
    }
    body = [line for name, lines in sections.items() for line in (f"## {name}", "", *lines, "")]
    return "\n".join([f"# Model summary: {run.competition.name}", "", *body]).rstrip() + "\n"


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _data(run: Run, manifest: Mapping[str, Any]) -> list[str]:
    grid, folds = run.competition.tiles, run.competition.folds
    return [
        f"- {manifest['data']['images']['count']} images; tables: {', '.join(manifest['data']['tables'])}",
        f"- tiles: {grid.count or 'all'} an image, {grid.size} pixels a side, recipe {grid.recipe}",
        f"- folds: {folds.k}, scheme {folds.scheme}, seed {run.seed}; apart from them a held-out set",
        "",
        f"{MARK} what was noticed in the data.",
    ]


def _models(run: Run) -> list[str]:
    from kit.deliver import weights_part

    training = run.competition.training
    rows = [f"| {m['name']} | {m['seed']} | `{m['text']}` |" for m in weights_part.described(run)]
    settings = {
        name: getattr(training, name) for name in ("epochs", "finetune_epochs", "batch", "pool", "loss")
    }
    said = ", ".join(f"{name} {value}" for name, value in settings.items())
    return ["| model | seed | declared |", "|---|---|---|", *rows, "", f"Shared settings: {said}."]


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    """All rows of the metrics, the best of each set first."""
    rows = sorted(metrics["rows"], key=lambda row: (row["set"] != "oof", row["score"]))
    lines = [
        f"| {row['name']} | {row['kind']} | {row['set']} | {row['score']:.4f} |"
        f" {_number(row['low'])} to {_number(row['high'])} |"
        for row in rows
        if row["score"] is not None
    ]
    head = ["| row | kind | set | score | 95 % |", "|---|---|---|---|---|"]
    return [*head, *lines]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _time(manifest: Mapping[str, Any]) -> list[str]:
    from kit.learn.plan import spoken

    rows = [
        f"| {name} | {spoken(timing['seconds'])} | {timing['peak_mib'] / 1024:.1f} GiB |"
        for name, timing in manifest["timings"].items()
    ]
    machine = manifest["machine"]["class"]
    return [f"On {machine}:", "", "| stage | time | peak memory |", "|---|---|---|", *rows]


def _told(run: Run, out: Path) -> str:
    left = (out / "model_summary.md").read_text().count(MARK)
    lines = [
        f"winner's package of the run {run.submission.name}: {out}",
        *(f"  {name:<17} {entry.HELP[step]}" for name, step in STEPS.items()),
        "  SETTINGS.json     where the data, models and submission lie",
        "  entry_points.md, directory_structure.txt, requirements.txt",
        f"  model_summary.md  numbers are filled in; {left} places are left to be written by you",
        "try it:",
        f"  cd {out} && python predict.py --dry-run",
    ]
    return "\n".join(lines)
