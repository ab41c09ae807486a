"""What a run left behind, read once for all sections of its report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from kit.combine.second_level import Problem
from kit.combine.units import gather, joins_own
from kit.files import read_json, read_strings
from kit.show import diagnosis
from kit.show.diagnosis import Scored
from kit.state import STAGES, Run, read_state


@dataclass(frozen=True)
class Results:
    """The files of a finished run, beside what follows from them."""

    run: Run

    @cached_property
    def content(self) -> dict[str, Any]:
        """``metrics.json`` of `combine`."""
        return read_json(self.run.folder("combine") / "metrics.json")

    @cached_property
    def second_level(self) -> dict[str, Any]:
        """``second_level.json`` of `combine`."""
        return read_json(self.run.folder("combine") / "second_level.json")

    @cached_property
    def problem(self) -> Problem:
        """The units and what the models say of them."""
        return Problem(self.run, gather(self.run))

    @cached_property
    def scored(self) -> Scored:
        """The OOF units, as the default predicts them."""
        return diagnosis.scored_units(self.run, self.problem.level.frame)

    @cached_property
    def held(self) -> pd.DataFrame:
        """The held-out units' probabilities, as text."""
        return read_strings(self.run.folder("combine") / "holdout.csv")

    @cached_property
    def state(self) -> dict[str, dict[str, Any]]:
        """The work folder's ``state.json``."""
        return read_state(self.run.work)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """``manifest.json`` of the submission; empty where there is none."""
        return read_json(self.run.submission / "manifest.json")

    @cached_property
    def own(self) -> bool:
        """Whether our own models take part."""
        return joins_own(self.run)

    @property
    def stages(self) -> list[str]:
        """The stages of this run that the work folder knows of, in flow order."""
        mine = STAGES if self.own else self.run.chain("submit")
        return [name for name in mine if name in self.state]


def without_folders(run: Run, text: str) -> str:
    """A message without the folders of the machine that the run was made on: others read the page."""
    mine = [run.work, run.data, *(path.parent for path in run.weights.values()), Path.cwd(), Path.home()]
    names = {f"{folder.absolute()}/" for folder in mine} - {"//"}
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "")
    return text
