"""One run of the flow: what it works on, what is finished, and how a stage knows that it is.

A stage's key is the hash of its version, its settings, the keys of the stages before it and the
digests of the files it reads. A finished stage is recorded with its key in ``state.json``; the same
key means the same result, so it is skipped.
"""

from __future__ import annotations

import importlib
import json
import platform
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm.std import tqdm

from kit import settings
from kit.competition import Competition, Tables
from kit.errors import StageError
from kit.files import digest, file_digest, locked, sweep, write_json


@dataclass(frozen=True)
class Stage:
    """One step of the flow: ``module`` has ``VERSION``, ``run(run)`` and ``inputs(run)``.

    It may have ``check(run)``: look at what was given, before anything is computed; ``forget(run)``:
    remove what ``run`` would go on from; ``show(run)``: what a finished stage has to say.
    """

    name: str
    help: str
    module: str
    after: tuple[str, ...] = ()  # the stages whose results it reads
    groups: tuple[str, ...] = ()  # the settings that it depends on
    threaded: bool = False  # sums depend on the number of compute threads

    def load(self) -> ModuleType:
        """Import the room that does the work."""
        return importlib.import_module(self.module)


STAGES = {
    stage.name: stage
    for stage in (
        Stage("fold", "keep units apart: held-out set, folds, leave-site-out", "kit.folds", groups=("fold",)),
        Stage(
            "tile", "find tissue in each image and store its best tiles", "kit.read.tiles", groups=("tile",)
        ),
        Stage(
            "tune",
            "search training settings with Optuna on inner splits",
            "kit.learn.tune",
            after=("fold", "tile"),
            groups=("tune", "train"),
            threaded=True,
        ),
        Stage(
            "train",
            "fit every backbone on every fold",
            "kit.learn.train",
            after=("fold", "tile", "tune"),
            groups=("train",),
            threaded=True,
        ),
        Stage(
            "predict",
            "out-of-fold, held-out and test probabilities of every model",
            "kit.learn.predict",
            after=("fold", "tile", "train"),
            groups=("train",),
            threaded=True,
        ),
        Stage(
            "combine",
            "blend, calibrate and score with honest intervals",
            "kit.combine.second_level",
            after=("fold", "predict"),
            groups=("combine",),
        ),
        Stage("submit", "write and check submission.csv", "kit.deliver.submit", after=("combine",)),
        Stage("report", "one HTML page: can I trust this number?", "kit.show.report", after=("submit",)),
    )
}


@dataclass(frozen=True)
class External:
    """Predictions and metadata that were made elsewhere, by name."""

    oof: Mapping[str, Path] = field(default_factory=dict)
    test: Mapping[str, Path] = field(default_factory=dict)
    meta: Path | None = None


@dataclass(frozen=True)
class Run:
    """What a stage works on. Paths are relative to where the command was typed, unless given."""

    competition: Competition
    name: str  # strip-ai, or strip-ai-demo
    data: Path
    work: Path  # WORK/<name>
    demo: bool = False
    seed: int = 0
    threads: int = 1
    workers: int = 1
    weights: Mapping[str, Path] = field(default_factory=dict)
    external: External = field(default_factory=External)
    fold_table: Path | None = None  # instead of folds/<name>.csv
    asked: str = ""  # the competition as it was typed: a name, or the path of a user's own file
    folds_given: bool = False  # the fold table is somebody's: it is checked, never written
    scheduler: str = (
        ""  # where images are tiled: threads, "local" processes or a Dask cluster; changes no result
    )
    coords: Path | None = None  # a folder of HDF5 files that say where the tiles lie

    @cached_property
    def tables(self) -> Tables:
        """The competition's tables, read and checked once."""
        return self.competition.tables(self.data)

    @property
    def folds(self) -> Path:
        """The fold table."""
        return self.fold_table or Path("folds") / f"{self.name}.csv"

    @property
    def submission(self) -> Path:
        """``submissions/<name>/<run>``, where run is 12 hex digits of the stage keys."""
        return Path("submissions") / self.name / self.key("submit")[:12]

    def folder(self, stage: str) -> Path:
        """``WORK/<name>/<stage>``."""
        return self.work / stage

    @cached_property
    def _keys(self) -> dict[str, str]:
        return {}

    @cached_property
    def checked(self) -> set[str]:
        """The stages whose ``check`` has found nothing wrong."""
        return set()

    def after(self, stage: Stage) -> tuple[str, ...]:
        """The stages that this one reads; none of the first level where its OOF files are given."""
        if stage.name == "combine" and self.external.oof:
            return ()
        return stage.after

    def chain(self, name: str) -> list[str]:
        """A stage and all that it rests on, in flow order."""
        found = {name}
        for before in self.after(STAGES[name]):
            found |= set(self.chain(before))
        return [stage for stage in STAGES if stage in found]

    def key(self, name: str) -> str:
        """The key of a stage: equal keys mean equal results."""
        if name not in self._keys:
            self._keys[name] = digest(self.ingredients(name))
        return self._keys[name]

    def forget_keys(self, name: str) -> None:
        """Make the keys of the stages that rest on this one anew: they may depend on what it wrote."""
        behind = {name}
        for stage in STAGES.values():  # in flow order
            if behind & set(stage.after):
                behind.add(stage.name)
                self._keys.pop(stage.name, None)

    def ingredients(self, name: str) -> dict[str, Any]:
        """Everything that a stage's result depends on."""
        stage = STAGES[name]
        module = stage.load()
        content: dict[str, Any] = {
            "stage": name,
            "version": module.VERSION,
            "seed": self.seed,
            "settings": {group: settings.part(self.competition, group) for group in stage.groups},
            "after": {before: self.key(before) for before in self.after(stage)},
            "inputs": module.inputs(self),
        }
        if name not in ("fold", "tile"):
            content["task"] = [list(self.competition.classes), repr(self.competition.metric)]
        if stage.threaded:
            content["threads"] = self.threads
        return content

    def need(self, name: str) -> None:
        """Make sure that the stages before this one are finished with these settings.

        Raises:
            StageError: one is not; says what to type.
        """
        for before in self.chain(name)[:-1]:
            if not finished(self, before):
                record = read_state(self.work).get(before)
                why = "has not been run" if record is None else self._changed(before, record)
                raise StageError(
                    f"{name} needs the result of {before}, which {why}",
                    f"type: python -m kit {before} {self.asked or self.name} (same options)",
                )

    def _changed(self, name: str, record: dict[str, Any]) -> str:
        """Which ingredient of a finished stage is not what it was."""
        # The record has been through JSON, which knows no tuples.
        today = json.loads(json.dumps(self.ingredients(name)))
        before, now = flatten(record["ingredients"]), flatten(today)
        names = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
        if not names and (path := _spoilt(record)):
            return f"left {path}, which {'was changed since' if path.is_file() else 'is not there any more'}"
        changed = [f"{k}: was {before.get(k)}, now {now.get(k)}" for k in names[:3]]
        return f"was run with other inputs or settings ({'; '.join(changed)})"


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys.

    >>> flatten({"a": {"b": 1}})
    {'a.b': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def read_state(work: Path) -> dict[str, dict[str, Any]]:
    """What is finished in a work folder: stage -> key, outputs, seconds, peak memory."""
    path = work / "state.json"
    if not path.is_file():
        return {}
    state: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return state


def _spoilt(record: Mapping[str, Any]) -> Path | None:
    """The first output of a finished stage that is not as it left it; ``None`` if all are."""
    for path, was in record["outputs"].items():
        if not Path(path).is_file() or file_digest(Path(path)) != was:
            return Path(path)
    return None


def finished(run: Run, name: str) -> bool:
    """Whether the stage's recorded key is today's, and its outputs are as it left them."""
    record = read_state(run.work).get(name)
    if record is None or record["key"] != run.key(name):
        return False
    return _spoilt(record) is None


def preflight(run: Run, names: list[str]) -> None:
    """Before hours are spent: let every stage that is still to do check what it was given, once."""
    for name in names:
        check = getattr(STAGES[name].load(), "check", None)
        if check is not None and name not in run.checked and not finished(run, name):
            check(run)
            run.checked.add(name)


def execute(run: Run, name: str, force: bool = False) -> None:
    """Run one stage and record it; what it had finished before a kill is not done again.

    Args:
        force: do all of it again, whatever is finished.
    """
    run.need(name)
    preflight(run, [name])
    sweep(run.work)
    module = STAGES[name].load()
    forget = getattr(module, "forget", None)
    if force and forget is not None:
        forget(run)
    if force or not finished(run, name):  # another process may have finished it just now
        # Until it is finished again, nothing may believe that it is.
        record(run.work, name, None)
    start = time.perf_counter()
    outputs: list[Path] = module.run(run)
    run.forget_keys(name)
    content = {
        "key": run.key(name),
        "ingredients": run.ingredients(name),
        "outputs": {str(path): file_digest(path) for path in outputs},
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    record(run.work, name, content)


def record(work: Path, name: str, content: dict[str, Any] | None) -> None:
    """Note that a stage is finished, or that it is not; other processes may note others meanwhile."""
    with locked(work / "state.lock"):
        state = read_state(work)
        if content is not None:
            state[name] = content
        elif state.pop(name, None) is None:
            return
        write_json(work / "state.json", state)


def show(run: Run, name: str) -> None:
    """Print what a finished stage has to say, where it has something."""
    say = getattr(STAGES[name].load(), "show", None)
    if say is not None:
        print(say(run))


def spent(run: Run, names: Sequence[str]) -> str:
    """What the stages took, when they were run, and the most memory that one held."""
    state = read_state(run.work)
    records = {name: state[name] for name in names}
    each = [f"{name} {tqdm.format_interval(record['seconds'])}" for name, record in records.items()]
    total = tqdm.format_interval(sum(record["seconds"] for record in records.values()))
    most = max(record["peak_mib"] for record in records.values())
    return f"time: {total} ({', '.join(each)}); memory: {most:,} MiB"


def environment() -> dict[str, str]:
    """The machine and the library versions that a result was made with."""
    libraries = (
        "numpy",
        "pandas",
        "scikit-learn",
        "scipy",
        "torch",
        "timm",
        "albumentations",
        "openslide-python",
        "optuna",
        "accelerate",
    )
    installed = {item.name: item.version for item in metadata.distributions()}
    versions = {name: installed.get(name, "not installed") for name in libraries}
    return {"python": platform.python_version(), "machine": platform.machine(), **versions}
