"""What `compare` found, as the console prints it."""

from __future__ import annotations

from typing import Any

from kit.combine.sentences import aligned, number
from kit.combine.table import differs, plus_minus, render, told_apart


def comparison(content: dict[str, Any]) -> str:
    """The scores, the differences, and the verdict.

    Args:
        content: ``metrics.json``.
    """
    names = [one["name"] for one in content["sides"]]
    sides = zip("AB", content["sides"], strict=True)
    files = [f"{letter} = {one['name']}: {one['path']}" for letter, one in sides]
    # Neither side is the default: a mark on one of the two would read as a verdict.
    rows = [row | {"kind": "model"} for row in content["rows"]]
    table = render(content | {"rows": rows, "gains": [], "absent": [], "uncovered": 0}).rstrip()
    lines = [_ranking(content["ranking"]), _agreement(content["rank_correlation"]), _blend(content["blend"])]
    parts = (files, [table], _differences(content), lines, verdict(content, *names))
    return "\n\n".join("\n".join(part) for part in parts)


def verdict(content: dict[str, Any], first: str, second: str) -> list[str]:
    """Which beats which, as they came and with calibration set aside."""
    came, alike = content["as_they_came"], content["calibrated_alike"]
    lines = [
        f"as they came: {_winner(came, first, second)}",
        f"calibrated alike: {_winner(alike, first, second)}",
    ]
    if told_apart(came) and not told_apart(alike):
        ahead = first if came["gain"] > 0 else second
        lines.append(f"as far as these units tell, {ahead} is better calibrated and knows no more")
    if told_apart(alike) and not (told_apart(came) and came["gain"] * alike["gain"] > 0):
        ahead = first if alike["gain"] > 0 else second
        lines.append(f"{ahead} knows more, and its calibration hides it")
    return lines


def _winner(gain: dict[str, Any], first: str, second: str) -> str:
    if not told_apart(gain):
        return f"{first} and {second} are not distinguishable"
    return f"{first} beats {second}" if gain["gain"] > 0 else f"{second} beats {first}"


def _differences(content: dict[str, Any]) -> list[str]:
    """Both paired differences, with the chances that A is the better one."""
    head = ("how much lower A scores", "", "+-", "95 % interval", "A is better", "on a test set")
    rows = [
        (
            name,
            f"{gain['gain']:+.4f}",
            number(gain["se"]),
            f"{gain['low']:+.4f} to {gain['high']:+.4f}",
            f"{gain['better']:.0%}",
            f"{gain['test_better']:.0%} of {content['test_units']} units",
        )
        for name, gain in (
            ("as they came", content["as_they_came"]),
            ("calibrated alike, nested", content["calibrated_alike"]),
        )
    ]
    return aligned(head, rows)


def _ranking(found: dict[str, Any]) -> str:
    apart = "" if told_apart(found) else ": not distinguishable"
    return (
        f"ranking: AUC {number(found['first'], 3)} of A, {number(found['second'], 3)} of B,"
        f" difference {found['gain']:+.3f} +- {found['se']:.3f}{apart}"
    )


def _agreement(correlation: float | None) -> str:
    if correlation is None:
        return "rank correlation: none, one of the two says the same of every unit"
    return f"rank correlation of the two: {number(correlation, 2)}"


def _blend(gain: dict[str, Any]) -> str:
    if not differs(gain):
        return f"blending both changes nothing over {gain['over']} (+- {gain['se']:.4f})"
    apart = "" if told_apart(gain) else ": not distinguishable"
    verb = "gains" if gain["gain"] >= 0 else "loses"
    return f"blending both {verb} {plus_minus(gain)} over {gain['over']}{apart}"
