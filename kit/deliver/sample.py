"""Which training images are read again at level 3: a few of every fold, and all that have no tiles.

Somebody who forges the rows of a few images may be lucky; of many, hardly. The draw follows from the seal of
the manifest, which is not known before every forged row is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit import folds, seeds
from kit.deliver.case import Case
from kit.deliver.findings import Finding
from kit.deliver.manifest import SEAL
from kit.deliver.rescore import training_images
from kit.files import split_archive
from kit.state import Run

SIZE = 12  # images with tiles, as far as every fold has one


@dataclass(frozen=True)
class Sample:
    """Training images by their ids.

    folds: those that are predicted, by the fold whose models have not seen them. held: of the held-out set.
    silent: those that are said to have no tiles. away: how many of these, and of the others, are not here.
    """

    folds: Mapping[str, list[str]]
    held: list[str]
    silent: list[str]
    away: tuple[int, int] = (0, 0)

    @property
    def images(self) -> list[str]:
        """Those that are predicted."""
        return sorted({name for ids in self.folds.values() for name in ids} | {*self.held})

    @property
    def read(self) -> list[str]:
        """Those that are tiled."""
        return sorted({*self.images, *self.silent})

    def lacking(self) -> list[Finding]:
        """What could not be looked at, since the images are not here."""
        silent, others = self.away
        found = []
        if others and not self.images:
            reason = "no training image is here to predict: out-of-fold rows are taken as they are"
            found.append(Finding("not checked", "out-of-fold probabilities", reason))
        if silent:
            reason = f"{silent} of those that are said to have no tiles are not here"
            found.append(Finding("not checked", "images without tiles", reason))
        return found


def draw(case: Case, run: Run, every: bool) -> Sample:
    """A sample of the training images whose files are here, spread over the folds and the held-out set.

    Args:
        every: all of them.
    """
    status = training_images(case)["status"]
    here = _here(run.tables.train["path"])
    table = folds.training_folds(run)
    table = table[table["role"].isin(["fold", "holdout"])]
    silent = sorted(status.index[status != "ok"])
    # One that was missing must still be missing.
    told = [name for name in silent if name in here or status[name] == "missing"]
    usable = table[~table.index.isin(silent)]
    parts: dict[tuple[str, str], list[str]] = {}
    for name, role, fold in zip(usable.index, usable["role"], usable["fold"], strict=True):
        parts.setdefault((role, fold), []).extend([name] if name in here else [])
    most = max(1, -(-SIZE // max(1, len(parts))))
    chosen = parts if every else {name: _some(case, name, ids, most) for name, ids in parts.items()}
    return Sample(
        {fold: ids for (role, fold), ids in chosen.items() if role == "fold"},
        sorted(name for (role, _), ids in chosen.items() if role == "holdout" for name in ids),
        told,
        (len(silent) - len(told), len(usable) - sum(map(len, parts.values()))),
    )


def _some(case: Case, part: tuple[str, str], ids: Sequence[str], most: int) -> list[str]:
    """As many of these as are wanted, drawn by what nobody can choose."""
    generator = seeds.rng(0, "verify", case.manifest[SEAL], *part)
    ids = sorted(ids)
    return sorted(ids[n] for n in generator.permutation(len(ids))[:most])


def _here(paths: pd.Series[str]) -> set[str]:
    """The images whose files are here."""
    files = {str(name): split_archive(Path(path))[0] for name, path in paths.items()}
    there = {file: file.exists() for file in set(files.values())}  # some slides are folders
    return {name for name, file in files.items() if there[file]}
