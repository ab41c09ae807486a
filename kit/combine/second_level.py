"""The second level, fitted on OOF rows and scored nested: the `combine` stage."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kit import metrics
from kit.combine import baselines, calibrate
from kit.combine.pools import UnitLogits, blend
from kit.combine.units import Level, Models, gather, joins_own, labels_of
from kit.files import file_digest, read_strings, write_json, write_table
from kit.metrics import Array
from kit.state import Run

VERSION = 1
DEFAULT = "calibrated blend"
log = logging.getLogger("kit")


def inputs(run: Run) -> dict[str, Any]:
    """Digests of the files that were made elsewhere, and of the tables."""
    from kit.folds import table_digest

    outside = run.external
    return {
        "oof": {name: file_digest(path) for name, path in outside.oof.items()},
        "test": {name: file_digest(path) for name, path in outside.test.items()},
        "meta": file_digest(outside.meta) if outside.meta else None,
        "own": run.key("predict") if outside.oof and joins_own(run) else None,
        "tables": table_digest(run),
    }


@dataclass
class Scores:
    """The rows of ``metrics.json``, all scored on the same units of a set with the same resamples."""

    run: Run
    set: str
    frame: pd.DataFrame
    rows: list[dict[str, Any]]

    def __post_init__(self) -> None:
        plan = self.run.competition.second_level
        groups = self.frame["group_id"].to_numpy(dtype=object)
        self.counts = metrics.bootstrap_counts(groups, plan.resamples, self.run.seed)
        self.labels = labels_of(self.frame)

    def add(self, name: str, kind: str, probabilities: Array, nested: bool | None) -> None:
        """Score probabilities ``(n, K)`` in the order of the frame."""
        metric = self.run.competition.metric
        low, high = metrics.interval(metric, self.labels, probabilities, self.counts)
        row = {"name": name, "kind": kind, "nested": nested, "set": self.set}
        numbers = {
            "score": metric.score(self.labels, probabilities),
            "low": low,
            "high": high,
            "auc": metrics.area_under_curve(self.labels, probabilities),
        }
        self.rows.append(row | {k: v if math.isfinite(v) else None for k, v in numbers.items()})

    def gain(self, first: Array, second: Array, names: tuple[str, str]) -> dict[str, Any]:
        """How much lower the first scores than the second, with its paired standard error."""
        gain, error = metrics.paired_error(
            self.run.competition.metric, self.labels, first, second, self.counts
        )
        return {"first": names[0], "second": names[1], "set": self.set, "gain": gain, "se": error}


def run(run: Run) -> list[Path]:
    """The stage: blend, calibrate, score, and predict the test units."""
    with threadpool_limits(1):  # sums depend on the number of threads; these are small
        return _run(run)


def _run(run: Run) -> list[Path]:
    level = gather(run)
    frame = level.part("fold")
    nested = nested_default(run, level, frame, frame["outer"].to_numpy())
    scores = Scores(run, "oof", frame, [])
    absent = score_oof(run, level, scores, nested)
    final = fit_default(run, level, frame)
    gains = compare(run, scores, nested)
    held = []
    if (reason := _holdout_reason(run, level.part("holdout"))) is None:
        held = score_holdout(run, level, final)
    else:
        absent.append({"name": "the held-out set", "reason": reason})
    return _write(run, level, frame, nested, final, scores.rows + held, gains, absent)


def fit_default(run: Run, level: Level, frame: pd.DataFrame) -> calibrate.Calibration:
    """The default calibration, fitted on the units of ``frame``."""
    task, pooled = run.competition, level.blend.on(frame.index)
    plan = task.second_level
    return calibrate.fit(
        pooled.logits.to_numpy(), pooled.n_eff(plan.icc), labels_of(frame), task.metric, plan.ridge
    )


def nested_default(run: Run, level: Level, frame: pd.DataFrame, outer: NDArray[Any]) -> Array:
    """The default's probabilities ``(n, K)`` of units that its fit has not seen."""

    def fitted(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> Array:
        calibration = fit_default(run, level, frame[train])
        return _apply(run, calibration, level.blend.on(frame.index[test]))

    return nested(outer, len(run.competition.classes), fitted)


def nested(
    outer: NDArray[Any],
    classes: int,
    fitted: Callable[[NDArray[np.bool_], NDArray[np.bool_]], Array],
) -> Array:
    """Predict each outer fold by what was fitted on the others: probabilities ``(n, K)``."""
    found = np.zeros((len(outer), classes))
    for fold in np.unique(outer):
        found[outer == fold] = fitted(outer != fold, outer == fold)
    return found


def _apply(run: Run, calibration: calibrate.Calibration, pooled: UnitLogits) -> Array:
    icc = run.competition.second_level.icc
    return calibration.predict(pooled.logits.to_numpy(), pooled.n_eff(icc))


def score_oof(run: Run, level: Level, scores: Scores, default: Array) -> list[dict[str, str]]:
    """Every row of the OOF set; returns the rows that are absent, with the reason."""
    frame, classes = scores.frame, len(run.competition.classes)
    add_raw(level.oof, scores)
    outer, labels = frame["outer"].to_numpy(), labels_of(frame)

    def shifted(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> Array:
        shift = calibrate.prior_shift(labels[train], classes, run.competition.metric)
        return _apply(run, shift, level.blend.on(frame.index[test]))

    scores.add("mean logit, prior shift", "pool", nested(outer, classes, shifted), True)
    scores.add(DEFAULT, "default", default, True)
    absent = []
    if (reason := _site_reason(frame)) is None:
        by_site = nested_default(run, level, frame, frame["site"].to_numpy())
        scores.add(f"{DEFAULT}, by site", "pool", by_site, True)
    else:
        absent.append({"name": f"{DEFAULT}, by site", "reason": reason})
    scores.add("constant", "baseline", constant(run, frame, len(frame)), None)
    return absent + add_metadata(run, scores) + add_limit(run, scores)


def add_raw(models: Models, scores: Scores) -> None:
    """Each model as it came, and their plain mean."""
    units = scores.frame.index
    for name, model in models.items():
        scores.add(name, "model", model.on(units).plain.to_numpy(), None)
    plain = blend(list(models.values())).on(units).plain
    scores.add("mean of models", "pool", plain.to_numpy(), None)


def constant(run: Run, folds: pd.DataFrame, rows: int) -> Array:
    """The scored prior for every unit, from the labels of the folds: what a sample submission says."""
    prior = calibrate.training_prior(labels_of(folds), len(run.competition.classes))
    return np.tile(run.competition.metric.scored_prior(prior), (rows, 1))


def _site_reason(frame: pd.DataFrame) -> str | None:
    """Why a second level cannot be scored by site, if it cannot."""
    if frame["site"].nunique() < 2:
        return "fewer than two sites are known"
    for site in frame["site"].unique():
        if frame.loc[frame["site"] != site, "label"].nunique() < frame["label"].nunique():
            return f"without site {site} a class has no unit"
    return None


def add_metadata(run: Run, scores: Scores) -> list[dict[str, str]]:
    """The metadata-only baseline, nested; or why it is absent."""
    frame, task = scores.frame, run.competition
    found, reason = unit_metadata(run, frame)
    if found is None:
        return [{"name": "metadata only", "reason": reason}]
    matrix = baselines.features(found.loc[frame.index], frame["site"]).to_numpy()
    labels, classes = scores.labels, len(task.classes)

    def fitted(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> Array:
        return baselines.predict(matrix[train], labels[train], matrix[test], classes, task.metric)

    scores.add("metadata only", "baseline", nested(frame["outer"].to_numpy(), classes, fitted), True)
    return []


def unit_metadata(run: Run, frame: pd.DataFrame) -> tuple[pd.DataFrame | None, str]:
    """What is known of each unit besides its pixels; or ``None`` and the reason."""
    units = run.tables.train["unit_id"]
    images = run.folder("tile") / "images.csv"
    if run.external.meta:
        task = run.competition
        table, by_unit = baselines.external_metadata(run.external.meta, task.image, task.unit)
        table = table.drop(columns=task.label, errors="ignore")  # a table of labels may be given
        table = table if by_unit else baselines.by_unit(table, units)
    elif joins_own(run) and images.is_file():
        table = baselines.by_unit(baselines.tile_metadata(images), units)
    else:
        return None, "no metadata was given (--meta FILE)"
    missing = ~frame.index.isin(table.index)
    if missing.mean() > 0.1:
        return None, f"the metadata lacks {missing.sum()} of {len(frame)} units"
    return table.reindex(table.index.union(frame.index)), ""


def add_limit(run: Run, scores: Scores) -> list[dict[str, str]]:
    """The true posterior, where a made cohort knows it."""
    limit = posterior(run)
    if limit is None:
        return [{"name": "limit", "reason": "the best possible loss is known only for made data"}]
    scores.add("limit", "limit", limit.loc[scores.frame.index].to_numpy(), None)
    return []


def posterior(run: Run) -> pd.DataFrame | None:
    """P(class | what was drawn) of each unit of the demo, under the scored prior."""
    path = run.data / "posterior.csv"
    if not run.demo or not path.is_file():
        return None
    table = read_strings(path).set_index(run.competition.unit)
    return table[list(run.competition.classes)].astype(float)


def compare(run: Run, scores: Scores, default: Array) -> list[dict[str, Any]]:
    """The default against the constant and against the limit, paired."""
    gains = [scores.gain(default, constant(run, scores.frame, len(default)), (DEFAULT, "constant"))]
    limit = posterior(run)
    if limit is not None:
        known = limit.loc[scores.frame.index].to_numpy()
        gains.append(scores.gain(known, default, ("limit", DEFAULT)))
    return gains


def _holdout_reason(run: Run, frame: pd.DataFrame) -> str | None:
    """Why the held-out set cannot be scored, if it cannot."""
    if not len(frame):
        return "no unit was held out, or none of its images was usable"
    missing = set(range(len(run.competition.classes))) - set(frame["label"])
    if missing:
        return f"it has no unit of class {run.competition.classes[min(missing)]}"
    return None


def score_holdout(run: Run, level: Level, final: calibrate.Calibration) -> list[dict[str, Any]]:
    """The held-out set, read last: nothing was fitted on it."""
    frame = level.part("holdout")
    scores = Scores(run, "holdout", frame, [])
    add_raw(level.holdout, scores)
    pooled = blend(list(level.holdout.values())).on(frame.index)
    scores.add(DEFAULT, "default", _apply(run, final, pooled), None)
    scores.add("constant", "baseline", constant(run, level.part("fold"), len(frame)), None)
    add_limit(run, scores)
    return scores.rows


def _write(
    run: Run,
    level: Level,
    frame: pd.DataFrame,
    default: Array,
    final: calibrate.Calibration,
    rows: list[dict[str, Any]],
    gains: list[dict[str, Any]],
    absent: list[dict[str, str]],
) -> list[Path]:
    folder, task = run.folder("combine"), run.competition
    plan = {"pool": "mean logit", "models": sorted(level.oof), "icc": task.second_level.icc}
    write_json(folder / "second_level.json", plan | final.to_json())
    content = {
        "metric": task.metric.name,
        "units": len(frame),
        "rows": rows,
        "gains": gains,
        "absent": absent,
        "groups": {
            name: int(level.part(role)["group_id"].nunique())
            for name, role in (("oof", "fold"), ("holdout", "holdout"))
        },
        # Whether the score is independent of class shares, so that sets can be compared.
        "balanced": isinstance(task.metric, metrics.WeightedLogLoss),
        "uncovered": len(level.frame[level.frame["role"] == "fold"]) - len(frame),
    }
    write_json(folder / "metrics.json", content)
    _write_units(folder / "oof.csv", run, frame.index, default)
    held = level.part("holdout").index
    pooled = blend(list(level.holdout.values())).on(held) if len(held) else None
    _write_units(folder / "holdout.csv", run, held, None if pooled is None else _apply(run, final, pooled))
    _write_test(run, level, final)
    names = ("second_level.json", "metrics.json", "oof.csv", "holdout.csv", "test.csv")
    return [folder / name for name in names]


def _write_test(run: Run, level: Level, final: calibrate.Calibration) -> None:
    """The test units that every model of the blend covers."""
    if set(level.test) == set(level.oof):
        pooled = blend([level.test[name] for name in level.oof])
        _write_units(run.folder("combine") / "test.csv", run, pooled.logits.index, _apply(run, final, pooled))
        return
    lacking = sorted(set(level.oof) - set(level.test))
    if run.tables.test is not None:
        log.info("no test predictions of %s: there will be nothing to submit", ", ".join(lacking))
    _write_units(run.folder("combine") / "test.csv", run, pd.Index([]), None)


def _write_units(path: Path, run: Run, units: pd.Index, values: Array | None) -> None:
    columns = [f"p_{name}" for name in run.competition.classes]
    values = np.zeros((0, len(columns))) if values is None else values
    table = pd.DataFrame(values, columns=columns)
    table.insert(0, "unit_id", units.to_numpy())
    write_table(path, table.sort_values("unit_id"))


def show(run: Run) -> str:
    """The table of scores, as the console prints it."""
    from kit.combine.table import render

    return render(json.loads((run.folder("combine") / "metrics.json").read_text()))
