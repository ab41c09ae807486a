"""The stage as its tests run it, and what its metrics.json says."""

from __future__ import annotations

import json
from typing import Any

from kit.combine import second_level
from kit.state import Run


def combined(run: Run) -> dict[str, Any]:
    """Run the stage and return metrics.json."""
    second_level.run(run)
    content: dict[str, Any] = json.loads((run.folder("combine") / "metrics.json").read_text())
    return content


def rows_of(content: dict[str, Any], which: str = "oof") -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in content["rows"] if row["set"] == which}


def absent(content: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["reason"] for row in content["absent"]}
