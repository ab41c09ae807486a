"""The table of scores as text."""

from __future__ import annotations

from typing import Any

HEADER = ("set", "what", "score", "95 % interval", "AUC", "nested")
ENOUGH = 2  # standard errors


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
    gains = content["gains"]
    found = [_sentence(gain) for gain in gains if gain["second"] == "constant" or gain["first"] == "limit"]
    found += _rivals([gain for gain in gains if gain["second"] != "constant" and gain["first"] != "limit"])
    if content.get("submissions"):
        found.append(_bold(content["submissions"]))
    if content["uncovered"]:
        many = content["uncovered"]
        units = "1 labelled unit is" if many == 1 else f"{many} labelled units are"
        found.append(f"{units} not scored: not covered by all models")
    return found + [f"no row '{row['name']}': {row['reason']}" for row in content["absent"]]


def _rivals(gains: list[dict[str, Any]]) -> list[str]:
    """The default beside what else was tried: which it beats, which beat it, which cannot be told apart."""
    found = []
    for verb, some in (
        ("beats", [gain for gain in gains if gain["gain"] > ENOUGH * gain["se"]]),
        ("is beaten by", [gain for gain in gains if gain["gain"] < -ENOUGH * gain["se"]]),
        ("is not distinguishable from", [gain for gain in gains if abs(gain["gain"]) <= ENOUGH * gain["se"]]),
    ):
        if some:
            found.append(f"the {some[0]['first']} {verb} {'; '.join(map(_named, some))}")
    return found


def _named(gain: dict[str, Any]) -> str:
    """A rival, and by how much its score is higher or lower."""
    side = "higher" if gain["gain"] >= 0 else "lower"
    return f"{gain['second']} ({abs(gain['gain']):.4f} +- {gain['se']:.4f} {side})"


def _bold(pair: dict[str, Any]) -> str:
    """The second submission, what it is expected to gain, and the noise of that."""
    side = "lower" if pair["gain"] > 0 else "higher"
    return (
        f"two submissions: safe is the {pair['default']}; bold is {pair['name']}, which scores"
        f" {abs(pair['gain']):.4f} +- {pair['se']:.4f} {side}, and on {pair['units']} test units beats the"
        f" safe one with {pair['better']:.0%} chance; the better of the two is worth {pair['worth']:.4f}"
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    mark = " *" if row["kind"] == "default" else ""
    interval = "" if row["low"] is None else f"{row['low']:.4f} - {row['high']:.4f}"
    area = "" if row["auc"] is None else f"{row['auc']:.3f}"
    nested = {True: "yes", False: "no", None: ""}[row["nested"]]
    return row["set"], row["name"] + mark, f"{row['score']:.4f}", interval, area, nested


def _sentence(gain: dict[str, Any]) -> str:
    errors = gain["gain"] / gain["se"] if gain["se"] else float("inf")
    if gain["first"] == "limit":
        return f"the {gain['second']} is {gain['gain']:.4f} +- {gain['se']:.4f} above the limit"
    verdict = f"{errors:.1f} standard errors" if errors >= ENOUGH else "not distinguishable"
    return (
        f"the {gain['first']} beats the {gain['second']} by {gain['gain']:.4f} +- {gain['se']:.4f}: {verdict}"
        if gain["gain"] > 0
        else f"the {gain['first']} does not beat the {gain['second']}"
        f" ({gain['gain']:.4f} +- {gain['se']:.4f})"
    )
