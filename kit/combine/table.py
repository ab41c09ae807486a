"""The table of scores as text."""

from __future__ import annotations

from typing import Any

HEADER = ("set", "what", "score", "95 % interval", "AUC", "nested")
KINDS = ("model", "pool", "default", "baseline", "limit")


def render(content: dict[str, Any]) -> str:
    """``metrics.json`` as a table, its comparisons in words, and what is absent with the reason."""
    cells = [HEADER, *(_cells(row) for row in content["rows"])]
    widths = [max(len(row[n]) for row in cells) for n in range(len(HEADER))]
    lines = [f"{content['metric']} on {content['units']} units (lower is better)", ""]
    for n, row in enumerate(cells):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if n == 0 or (n < len(cells) - 1 and cells[n + 1][0] != row[0]):
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
    lines += ["", *(_sentence(gain) for gain in content["gains"])]
    if content["uncovered"]:
        lines.append(f"{content['uncovered']} labelled units are not scored: no model covers them")
    lines += [f"no row '{row['name']}': {row['reason']}" for row in content["absent"]]
    return "\n".join(lines)


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
    verdict = f"{errors:.1f} standard errors" if errors >= 2 else "not distinguishable"
    return (
        f"the {gain['first']} beats the {gain['second']} by {gain['gain']:.4f} +- {gain['se']:.4f}: {verdict}"
        if gain["gain"] > 0
        else f"the {gain['first']} does not beat the {gain['second']}"
        f" ({gain['gain']:.4f} +- {gain['se']:.4f})"
    )
