"""Is one set of predictions better than another, or only lucky, or only better calibrated?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr
from threadpoolctl import threadpool_limits

from kit import metrics
from kit.combine import audit, choose, side
from kit.combine.aggregate import UnitLogits, covered, plain_mean, side_by_side
from kit.combine.comparison import comparison
from kit.combine.predictions import Source, read_external, read_own
from kit.combine.rivals import units_of_test
from kit.combine.scores import Scores
from kit.combine.second_level import constant
from kit.combine.side import Informed, Rows
from kit.combine.units import labelled_units, labels_of
from kit.errors import DataError, SettingError
from kit.files import numbers, read_strings, write_json
from kit.metrics import Array
from kit.state import Run

FOLDER = "submissions/<name>/<run>"
CONSTANT = 1e-12  # spread below which logits have no ranks


@dataclass(frozen=True)
class Side:
    """One of the two: a model, or the models of a run.

    models: unit logits by name; more than one only of a submission's folder.
    combined: what the folder submits, out of fold; ``None`` where the one model is that.
    """

    name: str
    path: Path
    models: Mapping[str, UnitLogits]
    combined: UnitLogits | None = None

    @property
    def known(self) -> dict[str, UnitLogits]:
        """All that must cover a unit."""
        return {**self.models, **({} if self.combined is None else {"combined": self.combined})}

    def came(self, units: pd.Index) -> Array:
        """Its probabilities as they came ``(n, K)``, of a submission those that were submitted."""
        return plain_mean(self.models if self.combined is None else {"": self.combined}, units)


@dataclass(frozen=True)
class Match:
    """Two sides on the labelled units that both cover."""

    run: Run
    first: Side
    second: Side

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The units, with an outer fold for the nested calibration."""
        frame = labelled_units(self.run, own=False)
        return frame.loc[frame.index.isin(covered(self.models))]

    @property
    def models(self) -> dict[str, UnitLogits]:
        """The models of both sides, and what was made of them."""
        sides = (("A", self.first), ("B", self.second))
        return {f"{letter} {name}": model for letter, one in sides for name, model in one.known.items()}

    def calibrated(self, *sides: Side) -> Array:
        """Nested predictions of the competition's second level on these sides alone ``(n, K)``."""
        task, frame = self.run.competition, self.frame
        plan = task.second_level
        models = {f"{n} {name}": m for n, one in enumerate(sides) for name, m in one.models.items()}
        reference = {name: model.logits.loc[frame.index].mean().tolist() for name, model in models.items()}
        X = side_by_side(models, frame.index, reference, plan.icc)
        method = choose.make(plan.method, task.metric.fixed_prior, len(task.classes), plan.unsafe)
        groups, sites = (frame[name].to_numpy(dtype=object) for name in ("group_id", "site"))
        outer = frame["outer"].to_numpy()
        return side.nested(Informed(method), Rows(X, groups, sites), labels_of(frame), outer)


def compare(run: Run, first: Path, second: Path) -> str:
    """Compare two prediction files or submission folders; what the console prints.

    ``WORK/<name>/compare/metrics.json`` keeps the rows and the differences.

    Raises:
        SettingError: options that belong to other commands.
        DataError: a side cannot be read, or the two share too few labelled units.
    """
    if run.external.oof or run.external.test or run.external.meta:
        message = "compare takes its two files without --oof, --test or --meta"
        raise SettingError(message, f"type: python -m kit compare {run.asked or run.name} A B")
    names = side_names(first, second)
    match = Match(run, read_side(run, names[0], first), read_side(run, names[1], second))
    check(match)
    with threadpool_limits(1):  # sums depend on the number of threads; these are small
        content = compared(match)
    write_json(run.folder("compare") / "metrics.json", content)
    return comparison(content)


def side_names(first: Path, second: Path) -> tuple[str, str]:
    """What the two are called: the shortest ends of their paths that differ."""
    ends = [path.with_suffix("") if path.is_file() else path for path in (first, second)]
    deep = max(len(path.parts) for path in ends)
    for many in range(1, deep + 1):
        names = ["/".join(path.parts[-many:]) for path in ends]
        if names[0] != names[1]:
            return names[0], names[1]
    return f"A: {ends[0].name}", f"B: {ends[1].name}"


def read_side(run: Run, name: str, path: Path) -> Side:
    """Read one side.

    Raises:
        DataError: there is no such file, or it holds several models or no probabilities of this task.
    """
    if path.is_dir():
        return _folder(name, path, run)
    if path.is_file():
        table = read_strings(path)
        models = sorted(set(table["model"])) if "model" in table else []
        if len(models) > 1:
            raise DataError(
                f"{path} holds {len(models)} models: {', '.join(models[:5])}{', ...' * (len(models) > 5)}",
                f"give a file with the rows of one model; or a submission, {FOLDER}, for what became of all",
            )
    return Side(name, path, {"": _read(path, run)})


def _read(path: Path, run: Run) -> UnitLogits:
    """One prediction of each unit or image."""
    task = run.competition
    return read_external(path, Source(run.tables.train["unit_id"], task.unit, task.image, task.classes))


def _folder(name: str, folder: Path, run: Run) -> Side:
    """A submission: its models, and what `combine` made of them; or the folder of `combine` itself."""
    path, combined = folder / "oof.csv", folder / "oof_combined.csv"
    if not path.is_file():
        raise DataError(f"{folder} has no oof.csv", f"give {FOLDER}, or a file of predictions")
    if "model" not in read_strings(path):
        return Side(name, folder, {"": _read(path, run)})
    if not combined.is_file():
        raise DataError(
            f"{folder} has no {combined.name}: its oof.csv holds the models, not what was submitted",
            f"repeat combine and submit, then give {FOLDER}; or give a file with the rows of one model",
        )
    submitted, models = _read(combined, run), _models(path, run)
    blended = _blended(folder, models)
    return Side(name, folder, blended, submitted) if blended else Side(name, folder, {"": submitted})


def _blended(folder: Path, models: Mapping[str, UnitLogits]) -> dict[str, UnitLogits]:
    """The models of the second level that was submitted; empty where some of them are not here.

    Models from elsewhere are not in the folder: without them its own would be another second level.
    """
    path = folder / "second_level.json"
    names = json.loads(path.read_text())["models"] if path.is_file() else list(models)
    return {name: models[name] for name in names} if set(names) <= set(models) else {}


def _models(path: Path, run: Run) -> dict[str, UnitLogits]:
    """Our own models' rows, checked."""
    task, table = run.competition, read_strings(path)
    columns = [f"p_{name}" for name in task.classes]
    lacking = [column for column in ("image_id", "unit_id", *columns) if column not in table]
    if lacking:
        raise DataError(
            f"{path} has no column {', '.join(lacking)}", f"compare runs of one competition: {run.name}"
        )
    values = numbers(table[columns]).to_numpy()
    bad = ~(np.isfinite(values) & (values >= 0)).all(axis=1)
    if bad.any():
        n = int(bad.argmax())
        cells = list(table[columns].iloc[n])
        raise DataError(f"{path} line {n + 2}: {cells} is no probability", "repeat predict and submit")
    return read_own(path, task.classes)


def check(match: Match) -> None:
    """Whether there are enough units to calibrate nested.

    Raises:
        DataError: a class is absent, or lies in one outer fold.
    """
    frame, names = match.frame, match.run.competition.classes
    many = [len(covered(one.known)) for one in (match.first, match.second)]
    shared = (
        f"{match.first.name} covers {many[0]} units, {match.second.name} {many[1]}; {len(frame)} are shared"
    )
    spread = frame.groupby("label")["outer"].nunique().reindex(range(len(names)), fill_value=0)
    if spread.min() < 2:
        name = names[int(spread.to_numpy().argmin())]
        message = f"{shared}, and class {name} has too few of them for a nested calibration"
        raise DataError(message, "give predictions of the same units: out-of-fold files of the train table")


def compared(match: Match) -> dict[str, Any]:
    """``metrics.json``."""
    run, frame, first, second = match.run, match.frame, match.first, match.second
    scores = Scores(run, "oof", frame)
    alike = [f"{one.name}, calibrated" for one in (first, second)]
    both = "both, calibrated"
    scores.add(first.name, "default", first.came(frame.index), None)
    scores.add(second.name, "model", second.came(frame.index), None)
    for name, some in ((alike[0], [first]), (alike[1], [second]), (both, [first, second])):
        scores.add(name, "pool", match.calibrated(*some), True)
    scores.add("constant", "baseline", constant(run, frame, len(frame)), None)
    better = min(alike, key=lambda name: run.competition.metric.score(scores.labels, scores.values[name]))
    units = units_of_test(run, len(frame))
    return {
        "metric": run.competition.metric.name,
        "units": len(frame),
        "test_units": units,
        "sides": [{"name": one.name, "path": str(one.path)} for one in (first, second)],
        "rows": scores.rows,
        "as_they_came": difference(scores, first.name, second.name, units),
        "calibrated_alike": difference(scores, alike[0], alike[1], units),
        "blend": {"over": better} | difference(scores, both, better, units),
        "ranking": ranking(scores, first.name, second.name),
        "rank_correlation": rank_correlation(scores.values[first.name], scores.values[second.name]),
    }


def difference(scores: Scores, first: str, second: str, units: int) -> dict[str, float]:
    """How much lower the first scores, with what is uncertain about it.

    Returns:
        gain and its se, low and high (95 %), better (chance that the first truly is), and test_better:
        the chance that it scores lower on a test set of ``units`` units, whose own noise comes on top.
    """
    metric, labels = scores.run.competition.metric, scores.labels
    values = scores.values[first], scores.values[second]
    found = metrics.compare(metric, labels, *values, scores.bootstrap)
    spread = found.se * np.sqrt(1 + len(labels) / units)
    ahead = float(norm.cdf(found.gain / spread)) if spread > 0 else 0.5
    return {**asdict(found), "test_better": ahead}


def ranking(scores: Scores, first: str, second: str) -> dict[str, float]:
    """The difference of two AUCs: nothing that a calibration of two classes can change."""
    draws = audit.Draws(scores.frame["group_id"].to_numpy(dtype=object), scores.run.seed)
    values = scores.values[first], scores.values[second]
    auc = [metrics.area_under_curve(scores.labels, value) for value in values]
    drawn = [audit.resampled_areas(scores.labels, value, draws) for value in values]
    moved = drawn[0] - drawn[1]
    return {
        "first": auc[0],
        "second": auc[1],
        "gain": auc[0] - auc[1],
        "se": float(np.nanstd(moved, ddof=1)),
    }


def rank_correlation(first: Array, second: Array) -> float | None:
    """Spearman's correlation; of more than two classes, the mean over classes; None without ranks."""
    classes = range(first.shape[1]) if first.shape[1] > 2 else (1,)
    pairs = [(first[:, k], second[:, k]) for k in classes]
    kept = [pair for pair in pairs if min(np.ptp(pair[0]), np.ptp(pair[1])) > CONSTANT]
    return float(np.mean([spearmanr(*pair).statistic for pair in kept])) if kept else None
