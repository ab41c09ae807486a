"""A submission folder under examination: its evidence, laid out as the run that made it had it."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from kit import settings
from kit.competition import Tables
from kit.data import demo_data, demo_tables, open_data
from kit.deliver import origin
from kit.deliver.declared import restored
from kit.deliver.evidence import DECLARATION, DUPLICATES, TABLES, external
from kit.deliver.findings import Unchecked
from kit.errors import DataError, SettingError
from kit.files import file_digest, read_strings, write_json
from kit.folds import read_folds
from kit.parallel import cores
from kit.state import STAGES, Run, environment

# What a second level is computed with; besides, the kind of machine.
LIBRARIES = ("python", "numpy", "pandas", "scikit-learn", "scipy")
READ_FIRST = f"read {DECLARATION}, then add --trust; or give your own copy of it: --task FILE"
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Case:
    """A submission that is checked; its files were found to be as the manifest has them.

    place: where whatever is computed is written.
    data: the competition's data folder; ``None``: nothing but the submission folder is known.
    trust: whether a declaration that came with it may be run.
    task: a copy of that declaration by the one who asks.
    """

    folder: Path
    manifest: Mapping[str, Any]
    place: Path
    data: Path | None = None
    trust: bool = False
    task: Path | None = None

    @property
    def declared(self) -> Mapping[str, Any]:
        """How the run was declared."""
        found: Mapping[str, Any] = self.manifest["declared"]
        return found

    @property
    def version(self) -> str:
        """The version of the kit that made the submission."""
        return str(self.manifest["code"]["version"])

    @cached_property
    def same_code(self) -> bool:
        """Whether the package that checks is, byte by byte, the one that made the submission."""
        return bool(origin.code()["digest"] == self.manifest["code"]["digest"])

    @cached_property
    def others(self) -> list[str]:
        """What a second level is computed with and is not here as it was there, in words."""
        return self.other_code + self.unlike(LIBRARIES, gpu=False)

    @property
    def other_code(self) -> list[str]:
        """That the package that checks is another one, if it is, in words."""
        return [] if self.same_code else ["other code of the kit"]

    def unlike(self, libraries: Sequence[str], gpu: bool) -> list[str]:
        """Which of these libraries, and whether the kind of machine, are not here as they were there."""
        here, there = environment(), self.manifest["environment"]
        found = [
            f"{name} {there.get(name)}, here {here.get(name)}"
            for name in libraries
            if here.get(name) != there.get(name)
        ]
        kinds = [str(name) for name in (self.manifest["machine"].get("class"), origin.machine())]
        if not gpu:
            kinds = [name.rpartition(",")[0] for name in kinds]
        return found if kinds[0] == kinds[1] else [*found, f"{kinds[0]}; here {kinds[1]}"]

    @property
    def own(self) -> bool:
        """Whether models of the run's own take part."""
        return "predict" in self.manifest["keys"]

    @cached_property
    def declaration(self) -> Path | None:
        """The program that declares a user's own competition; ``None`` where that is one of the kit's.

        It can change whatever this process does, so that it is run for nobody who has not asked for it.

        Raises:
            Unchecked: nobody has, or the copy is another program.
        """
        sent = self.part(DECLARATION)
        if sent is None:
            return None
        if self.task is not None:
            if not self.task.is_file() or file_digest(self.task) != file_digest(sent):
                raise Unchecked(f"{self.task} is not the {DECLARATION} that came with it", READ_FIRST)
            return self.task.resolve()
        if not self.trust:
            raise Unchecked(f"it needs the program of its sender, {DECLARATION}, to be run", READ_FIRST)
        # A copy in a folder of its own: nothing else of the sender's can be imported by it, and Python
        # leaves nothing beside it.
        copy = self.place / "declaration" / DECLARATION
        shutil.rmtree(copy.parent, ignore_errors=True)
        _copy(sent, copy)
        return copy

    def part(self, name: str) -> Path | None:
        """A file of the submission folder, where it is there."""
        path = self.folder / name
        return path if path.is_file() else None

    def restore(self, work: Path, data: Path, weights: Mapping[str, Path] | None = None) -> Run:
        """The run that the manifest declares, on this machine.

        Raises:
            Unchecked: this version of the kit does not know one of its settings, or its declaration is lost
                or may not be run.
        """
        program = self.declaration
        try:
            run = restored(self.declared, data, work, program, weights, cores())
        except (SettingError, DataError) as error:
            hint = f"use the version {self.version} of the kit"
            if program is not None:
                hint += ", or give your own copy of it beside the modules that it imports: --task FILE"
            raise Unchecked(error.message, hint) from error
        if near := self.part(DUPLICATES):
            task = settings.apply(run.competition, [("fold.duplicates", str(near))])
            run = replace(run, competition=task)
        folds = self.part("folds.csv")
        return replace(
            run,
            external=external(self.folder, self.manifest["external"]),
            fold_table=folds,
            folds_given=folds is not None and not self.own,
        )

    @cached_property
    def run(self) -> Run:
        """The run with what its second level reads in ``place/computed``, and nothing that it writes.

        Raises:
            Unchecked: something that it reads cannot be had.
        """
        work = self.place / "computed"
        shutil.rmtree(work, ignore_errors=True)
        run = self.restore(work, self.data or self.place / "no-data")
        if self.data is None:
            vars(run)["tables"] = _tables(self, run)
        # The stages below the second level are not repeated: their keys are those that the manifest tells.
        keys = {name: key for name, key in self.manifest["keys"].items() if name in STAGES["combine"].after}
        vars(run)["_keys"] = keys
        if self.own:
            for name in TABLES:
                _copy(self.folder / name, work / "predict" / name)
            for table in filter(None, map(self.part, ("images.csv", "appearance.csv"))):
                _copy(table, work / "tile" / table.name)
            write_json(work / "state.json", {name: {"key": key, "outputs": {}} for name, key in keys.items()})
        return run


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def find_images(case: Case, given: Path | None) -> Path:
    """The data folder with its images: the one given, or the demo's, drawn anew.

    Raises:
        Unchecked: none is given, and the run was no demo; or its tiles were not its own.
    """
    if case.manifest["data"]["images"].get("coords"):
        raise Unchecked("its tiles were given (--import), and where they lie was not sent")
    if given is not None:
        return open_data(given, case.place).resolve()
    if not case.declared["demo"]:
        raise Unchecked("the images of the competition are not given", "give its data: --data DIR")
    with quietly():
        return demo_data(case.restore(case.place, case.place).competition, case.place, cores()).resolve()


def find_data(case: Case, given: Path | None) -> Path | None:
    """The tables that the submission is checked by: those given, or those of the demo.

    Returns:
        ``None`` where none are given and the run was no demo, or one that this version does not make.
    """
    if given is not None:
        return open_data(given, case.place)
    if not case.declared["demo"] or case.part(DECLARATION):  # level 0 runs no program of a sender's
        return None
    try:
        return demo_tables(case.restore(case.place, case.place).competition, case.place / "tables")
    except (DataError, Unchecked):
        return None


def _tables(case: Case, run: Run) -> Tables:
    """What the submission folder itself tells of the competition's tables.

    Raises:
        Unchecked: it does not tell enough.
    """
    plan, hint = run.competition.second_level, "give the competition's data: --data DIR"
    if run.external.oof or run.fold_table is None:
        raise Unchecked("predictions made elsewhere are matched by the competition's tables", hint)
    if plan.site_prior or plan.fusion:
        raise Unchecked("sites and metadata of the test units are in the competition's tables", hint)
    table = read_folds(run.fold_table)
    train = table.loc[table["role"] != "extra", ["unit_id", "group_id", "site", "label"]].assign(path="")
    unit = run.competition.unit
    sample = read_strings(case.folder / "submission.csv").set_index(unit).rename_axis("unit_id")
    rows = read_strings(case.folder / "test.csv").drop_duplicates("image_id")
    held = set(table.loc[table["role"] == "holdout", "unit_id"])
    if not len(rows) and set(sample.index) == held:
        return Tables(train)
    return Tables(train, _test_table(rows, list(sample.index)), sample=sample)


def _test_table(rows: pd.DataFrame, units: list[str]) -> pd.DataFrame:
    """Test images by image_id; a unit without any prediction gets a row that no model says a word of."""
    silent = [name for name in units if name not in set(rows["unit_id"])]
    names = {"image_id": [*rows["image_id"], *(f"no image of {name}" for name in silent)]}
    table = pd.DataFrame(names | {"unit_id": [*rows["unit_id"], *silent]}, dtype=object)
    table = table.assign(group_id=table["unit_id"], site="", path="")
    return table.set_index("image_id").sort_index()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Let stages that are repeated say only what goes wrong."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
