"""The units that a second level is fitted and scored on, and what the models say about them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit import dealing, folds
from kit.combine.aggregate import UnitLogits, covered, side_by_side, unit_logits
from kit.combine.predictions import Source, read_external, read_own
from kit.errors import DataError, SettingError, StageError, did_you_mean
from kit.metrics import Array
from kit.state import Run, finished, read_state

log = logging.getLogger("kit")
Models = Mapping[str, UnitLogits]


@dataclass(frozen=True)
class Level:
    """Everything the second level works on.

    frame: labelled units, indexed by unit_id; group_id, site, label (class number), role and outer
        (the outer fold of the nested score; -1 outside the folds).
    oof, holdout, test: the logits of every model, by name.
    chosen: the models that are blended; empty: all.
    """

    frame: pd.DataFrame
    oof: Models
    holdout: Models
    test: Models
    chosen: tuple[str, ...] = ()

    @property
    def blended(self) -> list[str]:
        """The models of the blend, in the order of the OOF models."""
        return [name for name in self.oof if not self.chosen or name in self.chosen]

    @property
    def submitted(self) -> bool:
        """Whether every model of the blend has test predictions."""
        return set(self.blended) <= set(self.test)

    @cached_property
    def reference(self) -> dict[str, list[float]]:
        """The mean logit of each model over the units of the folds: what it says of an average unit."""
        units = self.part("fold").index
        return {name: self.oof[name].logits.loc[units].mean().tolist() for name in self.blended}

    def stack(self, models: Models, units: pd.Index, icc: float) -> Array:
        """Probabilities ``(units, models, K)`` of the blended models, in the order of the OOF models."""
        return side_by_side({name: models[name] for name in self.blended}, units, self.reference, icc)

    def test_frame(self, run: Run) -> pd.DataFrame:
        """Group and site of the test units that every model of the blend covers, by unit_id."""
        table = run.tables.test
        if table is None:
            return self.frame.iloc[:0]
        units = table.drop_duplicates("unit_id").set_index("unit_id")[["group_id", "site"]]
        return units.loc[covered({name: self.test[name] for name in self.blended})]

    def part(self, role: str) -> pd.DataFrame:
        """The units of a role that every model covers."""
        models = self.oof if role == "fold" else self.holdout
        if not models:
            return self.frame.iloc[:0]
        return self.frame.loc[self.frame.index.isin(covered(models)) & (self.frame["role"] == role)]


def joins_own(run: Run) -> bool:
    """Whether our own models take part: beside external ones only if they are finished as asked for."""
    if not run.external.oof:
        return True
    return "predict" in read_state(run.work) and finished(run, "fold") and finished(run, "predict")


def gather(run: Run) -> Level:
    """Read our own predictions and the external ones, and lay out the outer folds.

    Raises:
        DataError: there is no model, or no unit that all of them cover.
        SettingError: ``combine.models`` names one that is not there.
    """
    own = joins_own(run)
    if not own and "predict" in read_state(run.work):
        log.info("our own models do not take part: they were not made with these settings")
    tabled = own or run.folds_given
    frame = _units(run, tabled)
    oof, holdout, test = _own(run) if own else ({}, {}, {})
    train = run.tables.train
    task = run.competition
    source = Source(train["unit_id"], task.unit, task.image, task.classes)
    for name, path in run.external.oof.items():
        model = read_external(path, source)
        if name in oof:
            raise DataError(f"--oof {name} has the name of one of our models", "rename it: NAME=FILE")
        oof[name] = _with_role(model, frame, "fold")
        if tabled:
            holdout[name] = _with_role(model, frame, "holdout")
    test |= _external_test(run)
    level = Level(frame, oof, holdout, test, _chosen(run, oof))
    known = level.part("fold").index
    if not len(known):
        raise DataError("no unit is covered by all models", "check that the files are of the same data")
    _say_coverage(level)
    return level if tabled else replace(level, frame=_dealt(run, frame, known))


def _chosen(run: Run, oof: Models) -> tuple[str, ...]:
    """The models that ``combine.models`` asks for."""
    wanted = run.competition.second_level.models
    if unknown := [name for name in wanted if name not in oof]:
        message = f"combine.models names '{unknown[0]}', and no model is called so"
        raise SettingError(message, did_you_mean(unknown[0], oof))
    return wanted


def _say_coverage(level: Level) -> None:
    """All rows are scored on the same units, so a model that covers fewer costs the others some."""
    common = len(level.part("fold"))
    for name, model in level.oof.items():
        if len(model.logits) > common:
            log.info(
                "%s covers %d units; %d are covered by all models and scored", name, len(model.logits), common
            )


def _own(run: Run) -> tuple[dict[str, UnitLogits], ...]:
    folder = run.folder("predict")
    classes = run.competition.classes
    oof, holdout, test = (read_own(folder / f"{name}.csv", classes) for name in ("oof", "holdout", "test"))
    # Where no test image could be read, every model has test predictions, of no unit.
    empty = unit_logits(np.zeros((0, len(classes))), pd.Series([], dtype=object), classes)
    return oof, holdout, test or dict.fromkeys(oof, empty)


def labelled_units(run: Run, own: bool) -> pd.DataFrame:
    """Labelled units with their role and outer fold: of the fold table, or dealt here."""
    frame = _units(run, own)
    return frame if own else _dealt(run, frame, frame.index)


def _units(run: Run, tabled: bool) -> pd.DataFrame:
    """Labelled units with their role and, of a fold table, their outer fold; -1 where there is none."""
    classes = {name: n for n, name in enumerate(run.competition.classes)}
    if tabled and run.folds_given:
        folds.check_given(run.folds, run.tables.train)
    table = folds.training_folds(run) if tabled else folds.grouped(run).assign(role="fold", fold="")
    units = table[table["role"] != "extra"].drop_duplicates("unit_id").set_index("unit_id")
    outer = pd.to_numeric(units["fold"], errors="coerce").fillna(-1).astype(int)
    labels = units["label"].map(classes)
    return units[["group_id", "site", "role"]].assign(label=labels, outer=outer).sort_index()


def _dealt(run: Run, frame: pd.DataFrame, known: pd.Index) -> pd.DataFrame:
    """The frame with these units dealt into outer folds.

    Raises:
        DataError: a class has fewer than two groups among them.
    """
    names = dict(enumerate(run.competition.classes))
    units = frame.loc[known].assign(label=frame.loc[known, "label"].map(names)).reset_index()
    what = folds.noun(run.competition.group or run.competition.unit)
    counts = units.groupby("label")["group_id"].nunique().reindex(list(names.values()), fill_value=0)
    if (rarest := counts.min()) < 2:
        raise DataError(
            f"class {counts.idxmin()} has {rarest} {what}(s) that all models cover, and two are needed",
            "give predictions of more units, or leave out the model that covers the fewest",
        )
    k = dealing.fold_count(units, run.competition.second_level.folds, what)
    dealt = dealing.deal(units, k, run.seed)
    outer = frame["group_id"].map(dealt).where(frame.index.isin(known), -1)
    return frame.assign(outer=outer.fillna(-1).astype(int))


def _with_role(model: UnitLogits, frame: pd.DataFrame, role: str) -> UnitLogits:
    mine = frame.index[frame["role"] == role].intersection(model.logits.index)
    return model.on(mine.sort_values())


def _external_test(run: Run) -> dict[str, UnitLogits]:
    found = {}
    table = run.tables.test
    for name, path in run.external.test.items():
        if name not in run.external.oof:
            raise StageError(
                f"--test {name} has no --oof {name}",
                f"--oof NAME={name}.csv --test NAME={path.name}: give both under one name",
            )
        if table is None:
            raise DataError("--test was given, and the competition has no test table")
        task = run.competition
        found[name] = read_external(path, Source(table["unit_id"], task.unit, task.image, task.classes))
    return found


def labels_of(frame: pd.DataFrame) -> NDArray[np.int64]:
    """The class number of each row."""
    return frame["label"].to_numpy(dtype=np.int64)
