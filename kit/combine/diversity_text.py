"""What `diversity` found, as the console prints it."""

from __future__ import annotations

from typing import Any

from kit.combine.table import plus_minus, told_apart

HEAD = ("model", "alone", "place", "errors: mean r", "most like", "r", "without it the blend")


def lines(found: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]], list[str]]:
    """Head, rows (what is worth most first) and sentences of the section."""
    rows = sorted(found["rows"], key=lambda row: row["place"])
    return HEAD, [_cells(row) for row in rows], [_said(found), _order(found)]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    correlations = (_number(row["mean"]), row["closest"], _number(row["most"]))
    return (row["name"], f"{row['alone']:.4f}", str(row["place"]), *correlations, effect(row["without"]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def effect(gain: dict[str, Any] | None) -> str:
    """What leaving a model out does to the score."""
    if gain is None:
        return "-"
    side = "loses" if gain["gain"] >= 0 else "gains"
    return f"{side} {plus_minus(gain)}" + ("" if told_apart(gain) else ", noise")


def _said(found: dict[str, Any]) -> str:
    """Which models can be told to help or to harm."""
    if found["skipped"]:
        return f"no model was left out of the blend: {found['skipped']}; the order below needs no fit"
    told = [row for row in found["rows"] if told_apart(row["without"])]
    helps = [row["name"] for row in told if row["without"]["gain"] > 0]
    harms = [row["name"] for row in told if row["without"]["gain"] < 0]
    parts = [f"the blend is worse without {' or '.join(helps)}"] if helps else []
    parts += [f"the blend is better without {' or '.join(harms)}"] if harms else []
    if rest := len(found["rows"]) - len(told):
        which = f"any one of {rest} models" if rest > 1 else "the other model" if told else "the model"
        parts.append(f"leaving out {which} changes no more than noise (several at once may)")
    return "; ".join(parts)


def _order(found: dict[str, Any]) -> str:
    return "place: the model that adds most to those before it (d' of the mean logit), and so on" + (
        f": {', '.join(found['order'])}" if found["skipped"] else ""
    )
