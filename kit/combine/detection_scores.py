"""Submissions of boxes scored side by side: each class, intervals, and paired differences, as text too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kit.combine.detection_metric import RULES, Curves, Grader, curves, resampled
from kit.combine.detections import IMAGE, Rules
from kit.combine.table import plus_minus, verb
from kit.errors import DataError
from kit.metrics import Array
from kit.state import Run

TRUTHS = {  # what is to be found, by its name in metrics.json
    "consensus": "the readers' boxes of one finding, fused into one",
    "readers": "every box that a reader drew, so that a box for each of them scores more than one",
    "first reader": "the box of the first reader alone, of each image and class",
}
HIDDEN = "The competition's hidden truth is another: what five readers agreed upon"


def scores(
    run: Run,
    made: Mapping[str, pd.DataFrame],
    truths: pd.DataFrame,
    rules: Rules,
    grader: Grader,
    truth: str = "consensus",
) -> dict[str, Any]:
    """``metrics.json``: mean average precision of each submission, and of the last one against the others.

    Args:
        made: submissions of the same images, by name, in the order in which they came to be.
        truths: what is to be found on the training images. truth: which of `TRUTHS` that is.

    Raises:
        DataError: none of their images has a truth.
    """
    (first, *_) = made.values()
    asked = first[IMAGE].unique()
    images = sorted(set(asked) & set(truths[IMAGE]))
    if not images:
        raise DataError(
            f"none of {len(asked)} images has a truth, the first is '{asked[0]}'",
            "score predictions of training images: out-of-fold ones",
        )
    every = {name: curves(table, truths, images, grader) for name, table in made.items()}
    group = run.tables.train["group_id"].reindex(images)
    groups = group.where(group.notna(), pd.Series(images, images)).to_numpy(dtype=object)
    drawn = resampled(list(every.values()), groups, run.competition.second_level.resamples, run.seed)
    names = list(every)
    last = names[-1]
    counts = truths[truths[IMAGE].isin(images)].groupby("class_id").size()
    return {
        "metric": "mean average precision",
        "rule": RULES[grader],
        "official": grader == "voc",
        "truth": truth,
        "images": len(images),
        "without_truth": len(asked) - len(images),
        "resamples": drawn.shape[1],
        "rows": [_row(name, every[name], drawn[n]) for n, name in enumerate(names)],
        "classes": _classes(every, counts, rules),
        "left_out": [rules.classes[k] for k in rules.classes if k not in counts.index],
        "gains": [_gain(every, drawn, names, last, name) for name in names[:-1]],
    }


def _row(name: str, curve: Curves, drawn: Array) -> dict[str, Any]:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"name": name, "score": float(curve.mean()[0]), "low": float(low), "high": float(high)}


def _gain(
    every: Mapping[str, Curves], drawn: Array, names: list[str], first: str, second: str
) -> dict[str, Any]:
    """How much higher the first scores, on the same resamples."""
    moved = drawn[names.index(first)] - drawn[names.index(second)]
    low, high = np.nanquantile(moved, [0.025, 0.975])
    return {
        "first": first,
        "second": second,
        "gain": float(every[first].mean()[0] - every[second].mean()[0]),
        "se": float(np.nanstd(moved, ddof=1)),
        "low": float(low),
        "high": float(high),
    }


def _classes(every: Mapping[str, Curves], counts: pd.Series[int], rules: Rules) -> list[dict[str, Any]]:
    found = {name: curve.by_class()[:, 0] for name, curve in every.items()}
    classes = next(iter(every.values())).classes
    return [
        {
            "class": rules.classes[k],
            "truths": int(counts[k]),
            "score": {name: float(values[n]) for name, values in found.items()},
        }
        for n, k in enumerate(classes)
    ]


def render(content: dict[str, Any]) -> str:
    """The rule, the table and the differences, as the console prints them."""
    names = [row["name"] for row in content["rows"]]
    cells = [["class", "truths", *names]]
    for row in content["classes"]:
        cells.append([row["class"], str(row["truths"]), *(f"{row['score'][name]:.4f}" for name in names)])
    cells.append(["mean", "", *(f"{row['score']:.4f}" for row in content["rows"])])
    cells.append(["95 % interval", "", *(f"{row['low']:.4f} - {row['high']:.4f}" for row in content["rows"])])
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    rule = "-" * len(table[0].ljust(sum(widths)))
    told = f"truth: {content['truth']}, {TRUTHS[content['truth']]}. {HIDDEN}."
    lines = [f"{content['rule']}.", told, "", table[0], rule, *table[1:-2], rule, *table[-2:], ""]
    lines.append(f"{content['images']} images (higher is better); {content['resamples']} resamples of images")
    if content["without_truth"]:
        lines.append(f"{content['without_truth']} images have no truth and are not scored")
    if content["left_out"]:
        lines.append(f"no truth, so not in the mean: {', '.join(content['left_out'])}")
    lines += [_sentence(gain) for gain in content["gains"]]
    return "\n".join(lines)


def _sentence(gain: dict[str, Any]) -> str:
    """The last submission beside another."""
    interval = f"{gain['low']:+.4f} to {gain['high']:+.4f}"
    return f"{gain['first']} {verb(gain)} {gain['second']}: {plus_minus(gain)}, {interval}"
