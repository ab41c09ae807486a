"""The table of scores as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADER = ("set", "what", "score", "95 % interval", "AUC", "nested")
ENOUGH = 2  # standard errors
EQUAL = 5e-5  # below it a difference is nothing in the four digits that are printed


def render(content: dict[str, Any]) -> str:
    """``metrics.json`` as a table, its comparisons in words, and what is absent with the reason."""
    cells = [HEADER, *(_cells(row) for row in content["rows"])]
    widths = [max(len(row[n]) for row in cells) for n in range(len(HEADER))]
    lines = [f"{content['metric']} on {content['units']} units (lower is better)", ""]
    for n, row in enumerate(cells):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if n == 0 or (n < len(cells) - 1 and cells[n + 1][0] != row[0]):
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
    lines += ["", *sentences(content)]
    return "\n".join(lines)


def sentences(content: dict[str, Any]) -> list[str]:
    """What the scores amount to, in words."""
    gains, found = content["gains"], []
    if content.get("chosen"):
        found.append(f"choose took {content['chosen']}")
    found += [_limit(gain) for gain in gains if gain["first"] == "limit"]
    against = [gain for gain in gains if gain["second"] == "constant"]
    found += [standing(gain["first"], "the constant", gain) for gain in against]
    found += _rivals([gain for gain in gains if gain["second"] != "constant" and gain["first"] != "limit"])
    if content.get("simplest"):
        found.append(f"the simplest within one standard error of the best is {content['simplest']}")
        losing = {gain["first"] for gain in against if verb(gain) == "LOSES TO"}
        if losing - {content["simplest"]}:
            found.append(f"submit that instead: --set combine.method='{content['simplest']}'")
    if content.get("submissions"):
        found.append(_bold(content["submissions"]))
    if content["uncovered"]:
        many = content["uncovered"]
        units = "1 labelled unit is" if many == 1 else f"{many} labelled units are"
        found.append(f"{units} not scored: not covered by all models")
    return found + [f"no row '{row['name']}': {row['reason']}" for row in content["absent"]]


# --- paired differences in words --------------------------------------------------------------------


def differs(gain: Mapping[str, Any]) -> bool:
    """Whether a difference shows in four digits."""
    return bool(abs(gain["gain"]) >= EQUAL)


def told_apart(gain: Mapping[str, Any]) -> bool:
    """Whether a paired difference is more than its noise, and more than nothing."""
    return differs(gain) and bool(abs(gain["gain"]) > ENOUGH * gain["se"])


def plus_minus(gain: Mapping[str, Any]) -> str:
    """The size of a difference and its standard error."""
    return f"{abs(gain['gain']):.4f} +- {gain['se']:.4f}"


def verb(gain: Mapping[str, Any]) -> str:
    """How the first of two stands to the second."""
    if not differs(gain):
        return "scores the same as"
    if not told_apart(gain):
        return "is not distinguishable from"
    return "beats" if gain["gain"] > 0 else "LOSES TO"


def standing(first: str, second: str, gain: Mapping[str, Any]) -> str:
    """How a method stands to something else, and by how much it scores lower.

    Args:
        second: with its article, where it has one.
    """
    start = f"{the(first)} {verb(gain)} {second}"
    if not differs(gain):
        return f"{start} (+- {gain['se']:.4f})"
    if not told_apart(gain):
        return f"{start} ({gain['gain']:+.4f} +- {gain['se']:.4f})"
    # Without noise to speak of there is nothing to count a difference in.
    errors = f": {abs(gain['gain']) / gain['se']:.1f} standard errors" if gain["se"] >= EQUAL else ""
    return f"{start} by {plus_minus(gain)}{errors}"


def the(name: str) -> str:
    """A method's name with its article; ``choose`` is the name of an act and has none."""
    return name if name.split(" ")[0] == "choose" else f"the {name}"


def _rivals(gains: list[dict[str, Any]]) -> list[str]:
    """The default beside what else was tried, those of one verdict together."""
    found = []
    for word in ("beats", "LOSES TO", "is not distinguishable from", "scores the same as"):
        some = [gain for gain in gains if verb(gain) == word]
        if some:
            found.append(f"{the(some[0]['first'])} {word} {'; '.join(map(_named, some))}")
    return found


def _named(gain: dict[str, Any]) -> str:
    """A rival, and by how much its score is higher or lower."""
    if not differs(gain):
        return str(gain["second"])
    side = "higher" if gain["gain"] >= 0 else "lower"
    return f"{gain['second']} ({plus_minus(gain)} {side})"


def _bold(pair: dict[str, Any]) -> str:
    """The second submission, what it is expected to gain, and the noise of that."""
    side = "lower" if pair["gain"] > 0 else "higher"
    where = (
        f"a test set of {pair['units']} units, as many as are scored,"
        if pair.get("stand_in")
        else f"{pair['units']} test units"
    )
    return (
        f"two submissions: safe is {the(pair['default'])}; bold is {pair['name']}, which scores"
        f" {plus_minus(pair)} {side}, and on {where} beats the safe one with {pair['better']:.0%} chance"
        f" (noise there {pair['noise']:.4f}); the better of the two is worth {pair['worth']:.4f}"
    )


def _limit(gain: dict[str, Any]) -> str:
    """How far the best possible score is."""
    if not differs(gain):
        return f"{the(gain['second'])} is at the limit (+- {gain['se']:.4f})"
    side = "above" if gain["gain"] > 0 else "below"
    return f"{the(gain['second'])} is {plus_minus(gain)} {side} the limit"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    mark = " *" if row["kind"] == "default" else ""
    interval = "" if row["low"] is None else f"{row['low']:.4f} - {row['high']:.4f}"
    area = "" if row["auc"] is None else f"{row['auc']:.3f}"
    nested = {True: "yes", False: "no", None: ""}[row["nested"]]
    return row["set"], row["name"] + mark, f"{row['score']:.4f}", interval, area, nested
