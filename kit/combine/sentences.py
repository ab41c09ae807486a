"""What `evaluate` found, as the console prints it: tables, and sentences that are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from kit.combine import classification, confusion, diversity_text, tolerance
from kit.combine.classification import BINS
from kit.combine.table import plus_minus, render, standing, told_apart

WORST = 5  # errors that are told one by one
MOST = 30  # rows of a table that could be as long as the data
BLAME = {
    "constant": "it may have learned nothing",
    "metadata only": "it may have learned the centers",
    "background only": "it may have learned the scanner or the stain",
    "corner only": "it may have learned the frame of the image",
    "colour only": "it may have learned the stain or the camera",
    "colour and texture": "it may have learned the stain, the camera or the focus",
}


def evaluation(content: dict[str, Any], classes: Sequence[str], looks: int) -> str:
    """All sections, the held-out set last.

    Args:
        content: ``metrics.json``.
        looks: how often the held-out set has been looked at, with this time; 0 if it is not there.
    """
    sections = [
        [_overview(content)],
        _sites(content, classes),
        _classes(content),
        _confusion(content, classes),
        _classification(content["classification"]["oof"], "out of fold"),
        _diversity(content),
        _reliability(content),
        ["AUC against loss", *_plausibility(content)],
        ["Shortcuts", *_shortcuts(content)],
        ["Price of a leak", _leak(content)],
        *([_tolerances(content["tolerances"])] if content.get("tolerances") else []),
        _holdout(content, looks),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections)


def _overview(content: dict[str, Any]) -> str:
    """The table of the OOF set; what other sections tell is left to them."""
    told = {row["name"] for row in content["shortcuts"]} | {"the held-out set"}
    return render(
        content
        | {
            "rows": [row for row in content["rows"] if row["set"] == "oof"],
            "gains": [gain for gain in content["gains"] if gain["second"] not in told],
            "absent": [row for row in content["absent"] if row["name"] not in told],
        }
    )


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text cells in columns, the longest table cut to `MOST` rows."""
    cells = [head, *rows[:MOST]]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    left = len(rows) - MOST
    return ["  " + line for line in lines] + ([f"  ... and {left} more in metrics.json"] if left > 0 else [])


def number(value: float | None, digits: int = 4) -> str:
    """A number for reading; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def span(row: dict[str, Any], digits: int = 4) -> str:
    """An interval; nothing where there is none."""
    return "" if row["low"] is None else f"{row['low']:.{digits}f} - {row['high']:.{digits}f}"


# --- sites and classes ------------------------------------------------------------------------------


def _sites(content: dict[str, Any], classes: Sequence[str]) -> list[str]:
    found = content["sites"]
    if "reason" in found:
        return ["By site", f"no scores by site: {found['reason']}"]
    rows = sorted(found["parts"], key=lambda row: -sum(row["counts"]))
    cells = [
        (row["name"] or "(not known)", str(sum(row["counts"])), *map(str, row["counts"]), *_views(row))
        for row in rows
    ]
    lines = aligned(("site", "units", *classes, *_view_names(rows[0])), cells)
    gain = found["left_out"]
    if gain is None:
        return ["By site", *lines]
    side = "costs" if gain["gain"] >= 0 else "gains"
    verdict = "" if told_apart(gain) else ": not distinguishable"
    return [
        "By site: nested by group, and left out (by a second level that has not seen the site)",
        *lines,
        f"leaving the site out {side} {plus_minus(gain)}{verdict}",
    ]


def _classes(content: dict[str, Any]) -> list[str]:
    rows = content["classes"]
    cells = [(row["name"], str(row["counts"][0]), *_views(row)) for row in rows]
    return ["By class: mean -ln p", *aligned(("class", "units", *_view_names(rows[0])), cells)]


def _confusion(content: dict[str, Any], classes: Sequence[str]) -> list[str]:
    rows = [confusion.cells(row, classes) for row in content["confusion"]]
    return ["True and most probable class, units out of fold", *aligned(confusion.head(classes), rows)]


def _classification(rows: Sequence[dict[str, Any]], where: str) -> list[str]:
    """Accuracy, F1 and calibration error; of the default also every class and its commonest errors."""
    default = next(row for row in rows if row["kind"] == "default")
    summary = [classification.summary_cells(row) for row in rows]
    report = [classification.class_cells(row) for row in default["classes"]]
    return [
        f"Right or wrong by the most probable class, {where}; ECE: of its probability, {BINS} equal bins",
        "accuracy and ECE weighted as the metric does, F1 and the classes by units",
        *aligned(classification.SUMMARY, summary),
        *aligned(classification.CLASS, report),
        *_errors(default["errors"]),
    ]


def _errors(errors: Sequence[dict[str, Any]]) -> list[str]:
    said = [classification.error_sentence(error) for error in errors[:WORST]]
    return [f"commonest errors of the default: {'; '.join(said)}"] if said else []


def _tolerances(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The errors of each class beside what the user tolerates."""
    where = {"holdout": "the held-out set", "oof": "out of fold"}[rows[0]["set"]]
    names = [field.name for field in fields(tolerance.Standing)]
    found = [tolerance.Standing(**{name: row[name] for name in names}) for row in rows]
    lines = aligned(tolerance.HEAD, [tolerance.cells(row) for row in found])
    return [f"Missed units beside the tolerances given, {where}", *lines]


def _diversity(content: dict[str, Any]) -> list[str]:
    found = content["diversity"]
    if "reason" in found:
        return [f"Diversity: {found['reason']}"]
    head, rows, said = diversity_text.lines(found)
    title = "Diversity: how alike the models' errors are (within a class), and what each adds, nested"
    return [title, *aligned(head, rows), *said]


def _views(row: dict[str, Any]) -> tuple[str, ...]:
    both = [row, row["left_out"]] if "left_out" in row else [row]
    return tuple(cell for view in both for cell in (number(view["score"]), span(view)))


def _view_names(row: dict[str, Any]) -> tuple[str, ...]:
    names = ("by group", "95 % interval", "left out", "95 % interval")
    return names if "left_out" in row else names[:2]


# --- calibration ------------------------------------------------------------------------------------


def _reliability(content: dict[str, Any]) -> list[str]:
    found = content["reliability"]
    head = ("class", "units", "predicted", "observed", "95 % interval")
    many = len(found["classes"]) > 1
    rows = [
        (row["class"], str(b["units"]), number(b["predicted"], 3), number(b["observed"], 3), span(b, 3))
        for row in found["classes"]
        for b in row["bins"]
    ]
    if many:
        head = ("class", "bins", "error", "by chance", "")
        rows = [
            (row["class"], str(len(row["bins"])), number(row["error"], 3), number(row["chance"], 3), "")
            for row in found["classes"]
        ]
    verdict = "more than" if found["error"] > 2 * found["chance"] else "about what"
    return [
        "Reliability, units weighed as the metric does",
        *aligned(head, rows),
        f"calibration error (ECE) {number(found['error'], 3)}; perfect probabilities would show"
        f" {number(found['chance'], 3)} on so few units: {verdict} chance explains",
    ]


def _plausibility(content: dict[str, Any]) -> list[str]:
    found = content["plausibility"]
    if "reason" in found:
        return [f"plausibility not checked: {found['reason']}"]
    default, *models = found["rows"]
    lines = [_alarm(default)]
    lines += [_alarm(row) for row in models if row["verdict"] == "too good"]
    rough = [row for row in models if row["verdict"] == "not calibrated"]
    if rough:
        best = min(rough, key=lambda row: row["bound"])
        lines.append(
            f"{len(rough)} of {len(models)} models are not calibrated as they came: recalibration could give"
            f" {number(best['bound'], 3)} ({best['name']}, AUC {number(best['auc'], 3)},"
            f" now {number(best['loss'], 3)})"
        )
    return lines


def _alarm(row: dict[str, Any]) -> str:
    """One loss beside the best that its AUC allows."""
    start = (
        f"{row['name']}: an AUC of {number(row['auc'], 3)} allows a loss of {number(row['bound'], 3)} at best"
        f" (normal scores, perfect calibration), and it is {number(row['loss'], 3)}"
    )
    if row["verdict"] == "too good":
        return (
            f"TOO GOOD TO BE TRUE: check for a leak. {start}, better by {number(-row['gap'], 3)}"
            f" ({number(-row['high'], 3)} to {number(-row['low'], 3)}). Some units are predicted with a"
            " certainty that others do not have: known from elsewhere, or of another kind"
        )
    if row["verdict"] == "not calibrated":
        return f"{start}: not calibrated, recalibration could give {number(row['bound'], 3)}"
    return f"{start}: plausible"


def _shortcuts(content: dict[str, Any]) -> list[str]:
    return [_shortcut(row, content["default"]) for row in content["shortcuts"]]


def _shortcut(row: dict[str, Any], default: str) -> str:
    name = row["name"]
    if "reason" in row:
        return f"no row '{name}': {row['reason']}"
    said = standing(default, f"{name} ({number(row['score'])})", row)
    if told_apart(row):
        return said
    return f"{said}: {BLAME.get(name, 'it may have learned no more')}"


def _leak(content: dict[str, Any]) -> str:
    found = content["leak"]
    if "reason" in found:
        return f"no leak price: {found['reason']}"
    verdict = "" if told_apart(found) else ", not distinguishable from none"
    return (
        f"leak price in log loss: image-level folds score {number(found['image']['score'])} (AUC"
        f" {number(found['image']['auc'], 3)}), the run's own {number(found['group']['score'])} (AUC"
        f" {number(found['group']['auc'], 3)}, scheme {found['scheme']}) on {found['images']} images:"
        f" {found['gain']:.4f} +- {found['se']:.4f} of that score is the leak{verdict}"
    )


# --- the held-out set -------------------------------------------------------------------------------


def _holdout(content: dict[str, Any], looks: int) -> list[str]:
    spread = [_mismatch(row) for row in content["mismatch"]]
    rows = [row for row in content["rows"] if row["set"] == "holdout"]
    if not rows:
        reason = next((r["reason"] for r in content["absent"] if r["name"] == "the held-out set"), "none")
        return [f"The held-out set: {reason}", *spread]
    head = ("what", "score", "95 % interval", "AUC")
    cells = [
        (
            row["name"] + " *" * (row["kind"] == "default"),
            number(row["score"]),
            span(row),
            number(row["auc"], 3),
        )
        for row in rows
    ]
    groups = content["groups"]["holdout"]
    return [
        f"The held-out set: {groups} groups that nothing was fitted on",
        *aligned(head, cells),
        *_classification(content["classification"]["holdout"], "held out"),
        f"this is look {looks} at the held-out set: a sanity check, and less of one with every look",
        *spread,
    ]


def _mismatch(row: dict[str, Any]) -> str:
    """Whether what was calibrated is what is predicted."""
    if "reason" in row:
        return f"no check of the {row['set']} logits: {row['reason']}"
    start = (
        f"the logits of {row['units']} {row['set']} units are {number(row['ratio'], 2)} times as wide as the"
        f" out-of-fold ones ({span(row, 2)})"
    )
    if row["verdict"] == "narrower":
        return (
            f"{start}: a mean of fold models is less noisy than one, so probabilities may be under-confident"
        )
    if row["verdict"] == "wider":
        return f"{start}: the calibration was fitted on narrower ones, so probabilities may be over-confident"
    return f"{start}: no difference beyond noise"
