"""Do probabilities mean what they say, before calibration and after it, and do they tell classes apart?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from kit.combine import classification, reliability
from kit.combine.aggregate import plain_mean
from kit.combine.confusion import confusion
from kit.combine.diversity import moments
from kit.combine.units import labels_of
from kit.metrics import Array
from kit.show import averages, diagnosis, score_plots, tables, verdict
from kit.show.diagnosis import Scored
from kit.show.results import Results
from kit.show.sections.scores import MEAN
from kit.state import Run

Bins = dict[int, list[reliability.Bin]]


def section(results: Results) -> dict[str, Any]:
    """Reliability, ROC, precision and recall, and confusion of the default."""
    run, scored = results.run, results.scored
    classes = run.competition.classes
    shown = reliability.shown_classes(scored.labels, len(classes))
    called, raw = before(results)
    after, earlier = bins_of(scored, scored.probabilities, shown), bins_of(scored, raw, shown)
    return {
        "prior": prior_sentence(run, scored),
        "called": called,
        "error": mean_error(after),
        "earlier": mean_error(earlier),
        "chance": float(np.mean([reliability.chance_error(bins) for bins in after.values()])),
        "reliability": [_reliability_chart(k, classes[k], after[k], earlier[k], called) for k in shown],
        "bins": [tables.bins(classes[k], after[k]) for k in shown],
        "earlier_bins": [tables.bins(classes[k], earlier[k], f", {called}, as it came") for k in shown],
        # Of several classes first all of one kind, then all of the other.
        "curves": list(zip(*(pair for k in shown if (pair := _curves(k, classes[k], scored))), strict=True)),
        "right": right(run, scored),
        "confusion": tables.confusion(confusion(scored.labels, scored.probabilities), classes),
        "shown": [classes[k] for k in shown],
        "units": len(scored.labels),
        "groups": int(scored.frame["group_id"].nunique()),
        "sizes": sorted({b.units for bins in after.values() for b in bins}),
        "models": models(results),
    }


def before(results: Results) -> tuple[str, Array]:
    """What the units' probabilities were before anything was fitted: the plain mean of the blended models.

    Returns:
        what it is called, and probabilities ``(n, K)`` in the order of the scored units.
    """
    level, units = results.problem.level, results.scored.frame.index
    names = level.blended
    called = names[0] if len(names) == 1 else MEAN
    return called, plain_mean({name: level.oof[name] for name in names}, units)


def bins_of(scored: Scored, probabilities: Array, shown: list[int]) -> Bins:
    """The reliability of some classes, by number."""
    return {
        k: reliability.reliability(probabilities[:, k], scored.labels == k, scored.weights) for k in shown
    }


def mean_error(found: Bins) -> float:
    """The expected calibration error, mean over classes."""
    return float(np.mean([reliability.calibration_error(bins) for bins in found.values()]))


def right(run: Run, scored: Scored) -> dict[str, Any]:
    """Accuracy and F1 of the default, every class on its own and their averages, and the commonest errors."""
    classes, groups = run.competition.classes, scored.frame["group_id"].to_numpy(dtype=object)
    given = scored.labels, scored.probabilities, groups
    counts = confusion(scored.labels, scored.probabilities)
    return {
        "summary": classification.summary(*given, scored.weights),
        "bins": classification.BINS,
        "table": tables.classes(classification.report(*given, classes)),
        "averages": averages.table(counts, scored.labels, scored.weights),
        "errors": [asdict(error) for error in classification.commonest(counts, classes, most=5)],
    }


def models(results: Results) -> dict[str, Any]:
    """The models as they came: how alike their errors are, and what each finds most probable."""
    problem, task = results.problem, results.run.competition
    level, labels, names = problem.level, labels_of(problem.frame), problem.level.blended
    weights = task.metric.row_weights(labels)
    units = problem.frame.index
    alike = moments(problem.rows.X, labels, weights).correlation if len(names) > 1 else None
    return {
        "alike": None if alike is None else tables.correlations(names, alike),
        "confusions": [
            tables.confusion(confusion(labels, model.on(units).plain.to_numpy()), task.classes, name)
            for name, model in level.oof.items()
        ],
    }


def prior_sentence(run: Run, scored: Scored) -> str:
    """Which class shares the probabilities are meant for, and so how units are weighed."""
    classes = run.competition.classes
    data = np.bincount(scored.labels, minlength=len(classes)) / len(scored.labels)
    acts = np.bincount(scored.labels, weights=scored.weights, minlength=len(classes))
    if np.abs(data - acts).max() < 1e-9:
        return "The metric counts every unit the same, and so do the observed shares."
    shares = zip(classes, map(verdict.percent, acts), strict=True)
    listed = ", ".join(f"{name} {share}" for name, share in shares)
    return (
        f"The probabilities are meant for the class shares that the metric acts as if it saw"
        f" ({listed}), so units count towards the observed shares by their weight in the"
        f" metric, and not once each."
    )


def _reliability_chart(
    k: int, name: str, bins: list[reliability.Bin], earlier: list[reliability.Bin], called: str
) -> str:
    error, was = reliability.calibration_error(bins), reliability.calibration_error(earlier)
    sizes = sorted({b.units for b in bins})
    label = (
        f"Reliability of P({name}) in {len(bins)} bins of {' or '.join(map(str, sizes))} units: expected"
        f" calibration error {error:.3f}; of {called}, as it came, {was:.3f}"
    )
    title = f"P({name}): error {error:.3f}, was {was:.3f}"
    return score_plots.reliability(f"reliability-{k}", label, title, bins, earlier, called)


def _curves(k: int, name: str, scored: Scored) -> list[str]:
    """The ROC curve of a class and, beside it, its precision-recall curve; nothing where it has no other."""
    hit, predicted = scored.labels == k, scored.probabilities[:, k]
    roc, found = diagnosis.roc(hit, predicted), diagnosis.precision_recall(hit, predicted)
    if roc is None or found is None:
        return []
    units = f"{int(hit.sum())} of {len(hit)} units"
    label = f"ROC curve of {name} against the rest, {units}: area {roc.area:.3f}"
    other = (
        f"Precision-recall curve of {name} against the rest, {units}: average precision {found.area:.3f};"
        f" guessing has a precision of {found.prevalence:.3f}"
    )
    return [
        score_plots.curve(f"roc-{k}", label, f"{name}: AUC {roc.area:.3f}", roc),
        score_plots.precision_recall(f"pr-{k}", other, f"{name}: average precision {found.area:.3f}", found),
    ]
