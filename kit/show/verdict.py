"""What a run's numbers amount to, in sentences that are computed and never typed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit.state import Run

ENOUGH = 2.0  # standard errors
FEW = 20  # groups, below which a bootstrap interval is too narrow
SPACE = "\u00a0"  # that a line does not break at
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """The top of the page."""

    headline: str
    tone: str  # good | unsure | bad: how the headline is coloured
    score: str
    interval: str
    sentences: list[str]


def judge(run: Run, content: Mapping[str, Any], held_out: int) -> Verdict:
    """Put ``metrics.json`` in words.

    Args:
        held_out: units of the held-out set.
    """
    default = default_row(content, "oof")
    if default is None:
        return Verdict("Nothing was scored", "bad", "", "", [])
    headline, tone = headline_of(content)
    sentences = [
        oof_sentence(content, default, run.competition.unit),
        constant_sentence(content),
        limit_sentence(content),
        held_out_sentence(content, default, held_out),
        *bold_sentences(content),
        *outside_sentences(run, content),
    ]
    return Verdict(headline, tone, number(default["score"]), span(default), sentences)


def default_row(content: Mapping[str, Any], part: str) -> Row | None:
    """The row of what the submission uses, in the set ``oof`` or ``holdout``."""
    rows = (r for r in content["rows"] if r["kind"] == "default" and r["set"] == part)
    return next(rows, None)


def named_row(content: Mapping[str, Any], name: str, part: str = "oof") -> Row | None:
    """The row of that name in a set."""
    return next((r for r in content["rows"] if r["name"] == name and r["set"] == part), None)


def _gain(content: Mapping[str, Any], side: str, name: str) -> Row | None:
    return next((g for g in content["gains"] if g[side] == name and g["set"] == "oof"), None)


def errors_of(gain: Row) -> float:
    """A gain in standard errors, with its sign; 0 where there is no gain at all."""
    if not gain["gain"]:
        return 0.0
    return gain["gain"] / gain["se"] if gain["se"] else math.copysign(math.inf, gain["gain"])


def headline_of(content: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict in a few words, and its tone."""
    gain = _gain(content, "second", "constant")
    if gain is None:
        return "Not compared with a constant", "unsure"
    errors = errors_of(gain)
    if abs(errors) < ENOUGH:
        return "Not distinguishable from a constant", "unsure"
    return ("Better than a constant", "good") if errors > 0 else ("Worse than a constant", "bad")


def oof_sentence(content: Mapping[str, Any], row: Row, unit: str) -> str:
    """The score, what it is a score of, and on what."""
    how = (
        " Every unit was calibrated by a fit that had not seen it."
        if row["nested"]
        else " The calibration was fitted on the units that it is scored on."
    )
    score = f"{number(row['score'])}{brackets(row)}"
    return (
        f"The {row['name']}, which the submission uses, scores {score} in {content['metric']}"
        f" (lower is better) on {count(content['units'], 'unit')} ({unit}), out of fold.{how}"
    )


def constant_sentence(content: Mapping[str, Any]) -> str:
    """Whether the default is better than the same probabilities for everyone."""
    gain = _gain(content, "second", "constant")
    if gain is None:
        return "It was not compared with a constant."
    size = plus_minus(gain)
    errors = abs(errors_of(gain))
    many = f"{errors:.1f} standard errors" if math.isfinite(errors) else "with no spread at all"
    if errors < ENOUGH:
        side = "lower" if gain["gain"] >= 0 else "higher"
        return (
            f"It is not distinguishable from a constant, the same probabilities for every"
            f" unit: it scores {size} {side}, {many}."
        )
    verb = "beats" if gain["gain"] > 0 else "is worse than"
    return f"It {verb} a constant, the same probabilities for every unit, by {size}: {many}."


def limit_sentence(content: Mapping[str, Any]) -> str:
    """How far the default is from the best possible score, where that is known."""
    gain, limit = _gain(content, "first", "limit"), named_row(content, "limit")
    if gain is None or limit is None:
        reason = next((r["reason"] for r in content["absent"] if r["name"] == "limit"), "")
        return f"How far it is from the best possible score is not known{reason and f': {reason}'}."
    text = (
        f"The best possible score on these units is {number(limit['score'])};"
        f" it is {plus_minus(gain)} above that"
    )
    won = _gain(content, "second", "constant")
    if won is not None and won["gain"] > 0 and won["gain"] + gain["gain"] > 0:
        share = won["gain"] / (won["gain"] + gain["gain"])
        return f"{text}, having gone {percent(share)} of the way from the constant."
    return f"{text}."


def held_out_sentence(content: Mapping[str, Any], default: Row, units: int) -> str:
    """The held-out score, and whether it contradicts the OOF score."""
    row = default_row(content, "holdout")
    if row is None:
        return "There is no held-out score to check this against."
    text = (
        f"On {count(units, 'held-out unit')}, which nothing was fitted on, it scores"
        f" {number(row['score'])}{brackets(row)}"
    )
    if row["low"] is None:
        return f"{text}: a sanity check, not a verdict."
    groups = content.get("groups", {}).get("holdout", units)
    few = f" With only {groups} groups the interval itself is too narrow." if groups < FEW else ""
    if not content.get("balanced", True):
        return f"{text}. It has other class shares than the folds: read it against its own constant.{few}"
    inside = row["low"] <= default["score"] <= row["high"]
    agrees = "contains" if inside else "does not contain"
    return f"{text}. That interval {agrees} the out-of-fold score: a sanity check, not a verdict.{few}"


def outside_sentences(run: Run, content: Mapping[str, Any]) -> list[str]:
    """What the scores leave out, and what has to be believed."""
    found = []
    if content.get("uncovered"):
        left = content["uncovered"]
        found.append(
            f"{count(left, 'labelled unit')} outside the held-out set"
            f" {'is' if left == 1 else 'are'} not scored: not every model covers"
            f" {'it' if left == 1 else 'them'}."
        )
    if run.external.oof:
        names = sorted(run.external.oof)
        named = names[0] if len(names) == 1 else count(len(names), "model")
        found.append(
            f"The predictions of {named} were made elsewhere; that they are out of fold is"
            " their makers' word."
        )
    return found


def bold_sentences(content: Mapping[str, Any]) -> list[str]:
    """The second submission, where one is proposed."""
    pair = content.get("submissions")
    if not pair:
        return []
    side = "lower" if pair["gain"] > 0 else "higher"
    where = (
        f"a test set of {count(pair['units'], 'unit')}, as many as are scored"
        if pair.get("stand_in")
        else count(pair["units"], "test unit")
    )
    return [
        f"A second, bold submission is proposed beside it: {pair['name']}, which scores"
        f" {plus_minus(pair)} {side} out of fold and has a {percent(pair['better'])} chance to beat"
        f" it on {where}, where the noise of that difference is {number(pair['noise'])}."
    ]


def metadata_sentence(content: Mapping[str, Any]) -> str:
    """What could be had without looking at the images."""
    row, default = named_row(content, "metadata only"), default_row(content, "oof")
    if row is None or default is None:
        return ""
    gap = row["score"] - default["score"]
    side = "below" if gap >= 0 else "above"
    return (
        f"Metadata alone scores {number(row['score'])}: the {default['name']} is"
        f" {number(abs(gap))} {side} what can be had without looking at the images."
    )


def number(value: float | None, digits: int = 4) -> str:
    """A number for reading; nothing where there is none.

    >>> number(0.64466), number(None), number(-0.5, 1)
    ('0.6447', '', '−0.5')
    """
    return "" if value is None else f"{value:.{digits}f}".replace("-", "−")


def span(row: Row) -> str:
    """``low to high``, or nothing."""
    return "" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"


def brackets(row: Row) -> str:
    """The interval as a parenthesis."""
    return f" (95{SPACE}% interval {span(row)})" if span(row) else ""


def plus_minus(gain: Row) -> str:
    """The size of a gain and its standard error."""
    return f"{number(abs(gain['gain']))}{SPACE}±{SPACE}{number(gain['se'])}"


def percent(share: float, digits: int = 0) -> str:
    """A share for reading.

    >>> percent(0.5)
    '50\xa0%'
    """
    return f"{number(100 * share, digits)}{SPACE}%"


def count(n: int, what: str) -> str:
    """A number and its noun.

    >>> count(1, "unit"), count(1200, "unit")
    ('1 unit', '1,200 units')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"
