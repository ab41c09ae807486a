"""The second level, fitted on OOF rows and scored nested: the `combine` stage."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kit import folds, settings
from kit.combine import baselines, choose, rivals, side
from kit.combine.aggregate import UnitLogits, plain_mean
from kit.combine.inner import inner_count, inner_folds
from kit.combine.method import class_shares
from kit.combine.predictions import plain
from kit.combine.scores import Scores
from kit.combine.side import Informed, Rows
from kit.combine.units import Level, gather, joins_own, labels_of
from kit.errors import DataError
from kit.files import read_strings, write_json, write_table
from kit.metrics import Array
from kit.progress import Bar
from kit.state import Run

VERSION = 3
SLOW = 25_000  # units x models x classes from which on fitting all methods takes more than two seconds
log = logging.getLogger("kit")


def inputs(run: Run) -> dict[str, Any]:
    """Digests of the files that were made elsewhere, and of the tables."""
    outside, kept = run.external, folds.inputs(run)
    return {
        "oof": {name: _file_key(run, path) for name, path in outside.oof.items()},
        "folds": kept["folds"] if run.folds_given else None,
        "test": {name: _file_key(run, path) for name, path in outside.test.items()},
        "meta": _file_key(run, outside.meta) if outside.meta else None,
        "own": run.key("predict") if outside.oof and joins_own(run) else None,
        "tables": kept["tables"],
        "duplicates": kept["duplicates"],
    }


def _file_key(run: Run, path: Path) -> str:
    """The digest of a table made elsewhere; of one column, or of a packed file, that of what it says."""
    return hashlib.sha256(plain(path, run.competition)).hexdigest()


@dataclass(frozen=True)
class Problem:
    """What every method is given: the units of the folds, and what the models say of them."""

    run: Run
    level: Level

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The labelled units that are fitted and scored on."""
        return self.level.part("fold")

    @cached_property
    def rows(self) -> Rows:
        """Their out-of-fold probabilities, and what is known beside."""
        return self.known(self.level.oof, self.frame)

    @cached_property
    def label_folds(self) -> NDArray[np.int64]:
        """Outer folds ``(n,)`` that know of labels alone, for whatever reads the site.

        Folds that balance site x class make a site's class share in the other folds foretell that in
        this one: on them, metadata beat a constant although they know nothing.
        """
        groups = np.unique(self.rows.groups.astype(str), return_inverse=True)[1]
        labels = labels_of(self.frame)
        most = inner_count(labels, groups, self.run.competition.second_level.folds)
        return inner_folds(labels, groups, most, seed=2)

    @property
    def outer(self) -> NDArray[np.int64]:
        """The outer fold of each unit ``(n,)``."""
        plan = self.run.competition.second_level
        informed = plan.site_prior or plan.fusion
        return self.label_folds if informed else self.frame["outer"].to_numpy()

    @cached_property
    def sites(self) -> NDArray[np.object_]:
        """What is left out at a time ``(n,)``: the site, or the sites that share a group."""
        block = folds.site_blocks(self.frame)
        return self.frame["site"].map(lambda site: block.get(site, site)).to_numpy(dtype=object)

    @cached_property
    def metadata(self) -> baselines.Fused | None:
        """Features of every unit, where metadata are to be fused."""
        if not self.run.competition.second_level.fusion:
            return None
        return baselines.everywhere(self.run, self.level.frame, joins_own(self.run))

    @property
    def default(self) -> str:
        """The name of what the submission uses."""
        plan = self.run.competition.second_level
        return plan.method + " + site prior" * plan.site_prior + " + metadata" * plan.fusion

    @property
    def simplest_first(self) -> list[str]:
        """Every candidate, the chosen method, and that with what is known beside."""
        task = self.run.competition
        found = choose.candidates(len(task.classes), len(self.level.blended))
        return list(dict.fromkeys([*found, task.second_level.method, self.default]))

    @property
    def rivals(self) -> list[str]:
        """What is scored beside the default."""
        return [name for name in self.simplest_first if name != self.default]

    def known(self, models: Mapping[str, UnitLogits], frame: pd.DataFrame) -> Rows:
        """What is known of the units of a frame (group_id, site) that all models cover."""
        X = self.level.stack(models, frame.index, self.run.competition.second_level.icc)
        groups, sites = (frame[name].to_numpy(dtype=object) for name in ("group_id", "site"))
        fused = self.metadata
        table = None if fused is None else fused.table.loc[frame.index].to_numpy(np.float64)
        return Rows(X, groups, sites, table)

    def method(self, name: str) -> Informed:
        """The method of that name, for this competition's metric."""
        task = self.run.competition
        plan = task.second_level
        informed = name == self.default
        plain = plan.method if informed else name
        shares = class_shares(labels_of(self.frame), len(task.classes))
        made = choose.make(plain, task.metric.fixed_prior, len(task.classes), plan.unsafe, shares)
        return Informed(made, informed and plan.site_prior, informed and plan.fusion)

    def nested(self, name: str, outer: NDArray[Any]) -> Array:
        """Probabilities ``(units, K)`` of units that the fit has not seen."""
        return side.nested(self.method(name), self.rows, labels_of(self.frame), outer)

    def fit(self, name: str) -> Informed:
        """The method of that name, fitted on all units of the folds."""
        return self.method(name).fit(self.rows, labels_of(self.frame))


def run(run: Run) -> list[Path]:
    """The stage: blend, calibrate, score, and predict the test units."""
    with threadpool_limits(1):  # sums depend on the number of threads; these are small
        return _run(run)


def _run(run: Run) -> list[Path]:
    problem = Problem(run, gather(run))
    scores, held, final = judge(problem)
    submitted = run.tables.test is not None and problem.level.submitted
    return _write(problem, scores, held, final, rivals.propose(problem, scores) if submitted else None)


def judge(problem: Problem) -> tuple[Scores, Scores, Informed]:
    """The scores of the OOF set and of the held-out set, and the default fitted on all units of the folds."""
    run = problem.run
    check_names(problem)
    scores = Scores(run, "oof", problem.frame)
    score_oof(problem, scores)
    final = problem.fit(problem.default)
    held = Scores(run, "holdout", problem.level.part("holdout"))
    if (reason := _holdout_reason(problem, held.frame)) is None:
        score_holdout(problem, held, final)
    else:
        scores.lack("the held-out set", reason)
    return scores, held, final


def check_names(problem: Problem) -> None:
    """No model has the name of another row.

    Raises:
        DataError: one has.
    """
    rows = {*problem.simplest_first, "mean of models", *settings.ROWS}
    if both := sorted(rows & set(problem.level.oof)):
        raise DataError(f"a model is called '{both[0]}', as another row of the table is", "rename it")


def score_oof(problem: Problem, scores: Scores) -> None:
    """Every row of the OOF set, and the default against each rival."""
    default, names = problem.default, [*problem.rivals, problem.default]
    add_raw(problem.level, problem.level.oof, scores)
    quick = problem.rows.X.size < SLOW and default in choose.candidates(len(problem.run.competition.classes))
    for name in Bar(names, desc="second level", unit="method", disable=quick):
        kind = "default" if name == default else "pool"
        scores.add(name, kind, problem.nested(name, problem.outer), True)
    if (reason := _site_reason(problem.frame.assign(site=problem.sites))) is None:
        by_site = problem.nested(default, problem.sites)
        scores.add(f"{default}, by site", "pool", by_site, True)
    else:
        scores.lack(f"{default}, by site", reason)
    add_baselines(problem, scores)
    add_limit(problem.run, scores)
    for name in ("constant", *problem.rivals):
        scores.gain(default, name)
    if "limit" in scores.values:
        scores.gain("limit", default)


def add_raw(level: Level, models: Mapping[str, UnitLogits], scores: Scores) -> None:
    """Each model as it came, and the plain mean of those that are blended."""
    units = scores.frame.index
    for name, model in models.items():
        scores.add(name, "model", model.on(units).plain.to_numpy(), None)
    blended = {name: models[name] for name in level.blended}
    scores.add("mean of models", "pool", plain_mean(blended, units), None)


def constant(run: Run, fitted: pd.DataFrame, rows: int) -> Array:
    """The scored prior for every unit, from the labels of the folds: what a sample submission says."""
    prior = class_shares(labels_of(fitted), len(run.competition.classes))
    return np.tile(run.competition.metric.scored_prior(prior), (rows, 1))


def _site_reason(frame: pd.DataFrame) -> str | None:
    """Why a second level cannot be scored by site, if it cannot."""
    if frame["site"].nunique() < 2:
        return "fewer than two sites are known"
    for site in frame["site"].unique():
        if frame.loc[frame["site"] != site, "label"].nunique() < frame["label"].nunique():
            return f"without site {site} a class has no unit"
    return None


def add_baselines(problem: Problem, scores: Scores) -> None:
    """What any score must beat, each nested: a constant, metadata, background and corners."""
    run, frame = problem.run, scores.frame
    scores.add("constant", "baseline", constant(run, frame, len(frame)), None)
    for name, matrix in baselines.matrices(run, frame, joins_own(run)).items():
        if isinstance(matrix, str):
            scores.lack(name, matrix)
            continue
        metric, ridge = run.competition.metric, baselines.ridge_of(name)
        values = baselines.nested(matrix, scores.labels, problem.label_folds, metric, ridge)
        scores.add(name, "baseline", values, True)


def add_limit(run: Run, scores: Scores) -> None:
    """The true posterior, where a made cohort knows it."""
    limit = posterior(run)
    if limit is None:
        scores.lack("limit", "the best possible loss is known only for made data")
    else:
        scores.add("limit", "limit", limit.loc[scores.frame.index].to_numpy(), None)


def posterior(run: Run) -> pd.DataFrame | None:
    """P(class | what was drawn) of each unit of the demo, under the scored prior."""
    path = run.data / "posterior.csv"
    if not run.demo or not path.is_file():
        return None
    table = read_strings(path).set_index(run.competition.unit)
    return table[list(run.competition.classes)].astype(float)


def _holdout_reason(problem: Problem, frame: pd.DataFrame) -> str | None:
    """Why the held-out set cannot be scored, if it cannot."""
    if not (problem.level.frame["role"] == "holdout").any():
        return "no unit is held out (predictions made elsewhere: give --folds FILE with a table that does)"
    if not len(frame):
        return "none of its units is covered by all models"
    classes = problem.run.competition.classes
    missing = set(range(len(classes))) - set(frame["label"])
    return f"it has no unit of class {classes[min(missing)]}" if missing else None


def score_holdout(problem: Problem, scores: Scores, final: Informed) -> None:
    """The held-out set, read last: nothing was fitted on it."""
    run = problem.run
    add_raw(problem.level, problem.level.holdout, scores)
    values = final.predict_proba(problem.known(problem.level.holdout, scores.frame))
    scores.add(problem.default, "default", values, None)
    scores.add("constant", "baseline", constant(run, problem.frame, len(scores.frame)), None)
    add_limit(run, scores)


def _write(
    problem: Problem, scores: Scores, held: Scores, final: Informed, pair: rivals.Pair | None
) -> list[Path]:
    folder = problem.run.folder("combine")
    bold = None if pair is None else problem.fit(pair.name)
    write_json(folder / "second_level.json", _numbers(problem, final, bold))
    chosen = getattr(final.fitted_, "chosen_", None)
    write_json(folder / "metrics.json", content(problem, scores, held, pair) | {"chosen": chosen})
    _write_units(folder / "oof.csv", problem, problem.frame.index, scores.values[problem.default])
    units = held.frame.index
    values = final.predict_proba(problem.known(problem.level.holdout, held.frame)) if len(units) else None
    _write_units(folder / "holdout.csv", problem, units, values)
    _write_test(problem, {"test": final, "bold": bold})
    names = ("second_level.json", "metrics.json", "oof.csv", "holdout.csv", "test.csv", "bold.csv")
    return [folder / name for name in names]


def _numbers(problem: Problem, final: Informed, bold: Informed | None) -> dict[str, Any]:
    """Everything that a prediction needs besides the models' own: see `kit.combine.apply`."""
    task, level = problem.run.competition, problem.level
    prior = class_shares(labels_of(problem.frame), len(task.classes))
    return {
        "models": level.blended,
        "reference": level.reference,
        "icc": task.second_level.icc,
        "scored_prior": task.metric.scored_prior(prior).tolist(),
        "metadata": None if problem.metadata is None else problem.metadata.to_json(),
        "default": final.to_json(),
        "bold": None if bold is None else bold.to_json(),
    }


def content(problem: Problem, scores: Scores, held: Scores, pair: rivals.Pair | None) -> dict[str, Any]:
    """``metrics.json``."""
    frame, task = problem.level.frame, problem.run.competition
    return {
        "metric": task.metric.name,
        "units": len(problem.frame),
        "rows": scores.rows + held.rows,
        "gains": scores.gains,
        "absent": scores.absent,
        "submissions": None if pair is None else pair.to_json(),
        "simplest": rivals.simplest_within_error(scores, problem.simplest_first),
        "groups": {
            "oof": int(problem.frame["group_id"].nunique()),
            "holdout": int(held.frame["group_id"].nunique()),
        },
        # Whether the score is independent of class shares, so that sets can be compared.
        "balanced": task.metric.fixed_prior is not None,
        "uncovered": int((frame["role"] == "fold").sum()) - len(problem.frame),
    }


def _write_test(problem: Problem, fitted: Mapping[str, Informed | None]) -> None:
    """The test units that every model of the blend covers."""
    run, level = problem.run, problem.level
    lacking = sorted(set(level.blended) - set(level.test))
    if lacking and run.tables.test is not None:
        log.info("no test predictions of %s: there will be nothing to submit", ", ".join(lacking))
    frame = pd.DataFrame() if lacking else level.test_frame(run)
    rows = problem.known(level.test, frame) if len(frame) else None
    for name, method in fitted.items():
        path = run.folder("combine") / f"{name}.csv"
        if method is None or rows is None:
            _write_units(path, problem, pd.Index([]), None)
        else:
            _write_units(path, problem, frame.index, method.predict_proba(rows))


def _write_units(path: Path, problem: Problem, units: pd.Index, values: Array | None) -> None:
    columns = [f"p_{name}" for name in problem.run.competition.classes]
    values = np.zeros((0, len(columns))) if values is None else values
    table = pd.DataFrame(values, columns=columns)
    table.insert(0, "unit_id", units.to_numpy())
    write_table(path, table.sort_values("unit_id"))


def show(run: Run) -> str:
    """The table of scores, as the console prints it."""
    from kit.combine.table import render

    return render(json.loads((run.folder("combine") / "metrics.json").read_text()))
