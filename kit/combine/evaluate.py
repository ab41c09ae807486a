"""Can this score be trusted? The second level of a run, scored as `combine` would and then doubted.

``python -m kit evaluate`` is no stage: it fits nothing that is kept, and may be repeated at any time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from kit.combine import audit, classification, confusion, parts, reliability, second_level, tolerance
from kit.combine.aggregate import UnitLogits
from kit.combine.audit import Draws, Mismatch, Pooled
from kit.combine.diversity import diversity
from kit.combine.leak_price import leak_section
from kit.combine.looks import count_look
from kit.combine.scores import Scores
from kit.combine.second_level import Problem
from kit.combine.sentences import evaluation
from kit.combine.units import gather, labels_of
from kit.files import write_json
from kit.state import Run


def evaluate(run: Run, tolerances: Path | None = None) -> str:
    """Judge a run; ``WORK/<name>/evaluate/metrics.json`` and what the console prints of it.

    The file is what `combine` writes, with sites, classes, confusion, classification, diversity, reliability,
    plausibility, shortcuts, mismatch and leak beside it. Nothing else changes but the count of looks at the
    held-out set.

    Args:
        tolerances: a table ``label,tolerance`` of the missed share of each class that a laboratory bears.

    Raises:
        DataError: there is nothing to judge, the count of looks cannot be read, or the table is not sound.
    """
    borne = tolerance.read(tolerances, run.competition.classes) if tolerances else {}
    with threadpool_limits(1):  # sums depend on the number of threads; these are small
        problem = Problem(run, gather(run))
        content, held = judged(problem)
        content["tolerances"] = standings(content, borne)
    write_json(run.folder("evaluate") / "metrics.json", content)
    looks = count_look(run, held.frame.index) if held.rows else 0
    return evaluation(content, run.competition.classes, looks)


def judged(problem: Problem) -> tuple[dict[str, Any], Scores]:
    """``metrics.json``, and the scores of the held-out set."""
    scores, held, _ = second_level.judge(problem)
    content = second_level.content(problem, scores, held, None)
    del content["submissions"]  # which two to submit is the business of combine
    content |= {
        "default": problem.default,
        "sites": sites(problem, scores),
        "classes": classes(problem, scores),
        "confusion": confusion.of_rows(scores),
        "classification": {part.set: classification.of_scores(part) for part in (scores, held) if part.rows},
        "diversity": diversity(problem, scores),
        "reliability": reliability_section(problem, scores),
        "plausibility": plausibility(problem, scores),
        "shortcuts": shortcuts(problem, scores),
        "leak": leak_section(problem.run, problem.level),
        "mismatch": mismatches(problem),
    }
    plain: dict[str, Any] = _without_nan(content)
    return plain, held


def _without_nan(value: Any) -> Any:
    """The same, with ``None`` for numbers that are not finite: JSON has none."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- sites and classes ------------------------------------------------------------------------------


def sites(problem: Problem, scores: Scores) -> dict[str, Any]:
    """Every site alone: with units of it in the fit, and by a second level that has not seen it."""
    run, frame = problem.run, problem.frame
    if frame["site"].nunique() < 2:
        return {"reason": "fewer than two sites are known"}
    seen, unseen = _views(problem, scores)
    metric = run.competition.metric
    found = [asdict(part) for part in parts.by_name(metric, frame, "site", scores.values[seen], run.seed)]
    if unseen is None:
        return {"parts": found, "left_out": None}
    without = parts.by_name(metric, frame, "site", scores.values[unseen], run.seed)
    rows = [row | {"left_out": asdict(part)} for row, part in zip(found, without, strict=True)]
    return {"parts": rows, "left_out": scores.difference(seen, unseen)}


def classes(problem: Problem, scores: Scores) -> list[dict[str, Any]]:
    """The mean ``-ln p`` of every class, in both views."""
    names, seed = problem.run.competition.classes, problem.run.seed
    seen, unseen = _views(problem, scores)
    found = [asdict(part) for part in parts.by_class(problem.frame, scores.values[seen], names, seed)]
    if unseen is None:
        return found
    without = parts.by_class(problem.frame, scores.values[unseen], names, seed)
    return [row | {"left_out": asdict(part)} for row, part in zip(found, without, strict=True)]


def _views(problem: Problem, scores: Scores) -> tuple[str, str | None]:
    """The names of the default's rows: nested by group and, where there is one, leave-site-out."""
    by_site = f"{problem.default}, by site"
    return problem.default, by_site if by_site in scores.values else None


def standings(content: Mapping[str, Any], borne: Mapping[str, float]) -> list[dict[str, Any]]:
    """The default's missed units beside what is tolerated: of the held-out set if there is one."""
    found = content["classification"]
    name = "holdout" if "holdout" in found else "oof"
    default = next(row for row in found[name] if row["kind"] == "default")
    rows = tolerance.standings(np.array(default["counts"]), default["classes"], borne)
    return [asdict(row) | {"set": name} for row in rows]


# --- calibration ------------------------------------------------------------------------------------


def reliability_section(problem: Problem, scores: Scores) -> dict[str, Any]:
    """Bins of every class that is shown, and the calibration error beside the one of chance."""
    task, values = problem.run.competition, scores.values[problem.default]
    weights = task.metric.row_weights(scores.labels)
    found = []
    for k in reliability.shown_classes(scores.labels, len(task.classes)):
        bins = reliability.reliability(values[:, k], scores.labels == k, weights)
        error, chance = reliability.calibration_error(bins), reliability.chance_error(bins)
        row = {"class": task.classes[k], "error": error, "chance": chance}
        found.append(row | {"bins": [asdict(one) for one in bins]})
    error, chance = (float(np.mean([row[name] for row in found])) for name in ("error", "chance"))
    return {"error": error, "chance": chance, "classes": found}


def plausibility(problem: Problem, scores: Scores) -> dict[str, Any]:
    """The loss of the default and of each model beside what their AUC allows."""
    task = problem.run.competition
    if len(task.classes) != 2:
        return {"reason": "a loss is set against an AUC for two classes only"}
    draws = Draws(scores.frame["group_id"].to_numpy(dtype=object), problem.run.seed)
    kinds = {row["name"]: row["kind"] for row in scores.rows}
    rows = []
    for name in (problem.default, *(name for name, kind in kinds.items() if kind == "model")):
        logits = audit.evidence(problem.rows.X) if name == problem.default else None
        found = audit.plausibility(name, task.metric, scores.labels, scores.values[name], draws, logits)
        rows.append(asdict(found) | {"kind": kinds[name], "verdict": found.verdict})
    return {"rows": rows}


def shortcuts(problem: Problem, scores: Scores) -> list[dict[str, Any]]:
    """What the default gains over each baseline, or why there is none."""
    baselines = [row for row in scores.rows if row["kind"] == "baseline"]
    found = [
        {"name": row["name"], "score": row["score"]} | scores.difference(problem.default, row["name"])
        for row in baselines
    ]
    known = {"limit", "the held-out set", f"{problem.default}, by site"}
    return found + [row for row in scores.absent if row["name"] not in known]


# --- one fold model against the mean of several -----------------------------------------------------


def mismatches(problem: Problem) -> list[dict[str, Any]]:
    """Whether held-out and test logits are as spread as the out-of-fold ones of the fit."""
    level = problem.level
    reference = _pooled(problem, level.oof, problem.frame, labels_of(problem.frame))
    held = level.part("holdout")
    found = [_mismatch(problem, "holdout", reference, level.holdout, held, "no unit was held out")]
    if level.submitted:
        frame = level.test_frame(problem.run)
        # A test unit that is also a labelled one was seen by most of its fold models.
        frame = frame[~frame.index.isin(level.frame.index)]
        reason = "there is no test unit that is not labelled too"
        return [*found, _mismatch(problem, "test", reference, level.test, frame, reason)]
    return [*found, {"set": "test", "reason": "not all models have test predictions"}]


def _mismatch(
    problem: Problem,
    name: str,
    reference: Pooled,
    models: Mapping[str, UnitLogits],
    frame: pd.DataFrame,
    empty: str,
) -> dict[str, Any]:
    if len(frame) < audit.LEAST:
        few = f"{len(frame)} units are too few to say"
        return {"set": name, "reason": few if len(frame) else empty}
    labels = labels_of(frame) if "label" in frame else None
    found: Mismatch = audit.mismatch(name, reference, _pooled(problem, models, frame, labels))
    return asdict(found) | {"verdict": found.verdict}


def _pooled(
    problem: Problem, models: Mapping[str, UnitLogits], frame: pd.DataFrame, labels: audit.Labels | None
) -> Pooled:
    """Its images' mean logits as they are: an effective number of images widens both sets alike."""
    X = problem.known(models, frame).X
    draws = Draws(frame["group_id"].to_numpy(dtype=object), problem.run.seed)
    return Pooled(audit.evidence(X), draws, labels)
