"""What a check has found, and how it is told."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH = 100  # columns of a verdict
State = Literal["ok", "FAILED", "not checked"]


@dataclass(frozen=True)
class Finding:
    """One line of a verdict: what was looked at, and what was found."""

    state: State
    what: str
    text: str = ""

    def line(self) -> str:
        """The finding as the console shows it, wrapped below itself.

        >>> print(Finding("ok", "the folder's name", "it is the run's").line())
          ok           the folder's name: it is the run's
        """
        words = f"{self.what}: {self.text}" if self.text else self.what
        return textwrap.fill(
            words,
            WIDTH,
            initial_indent=f"  {self.state:<13}",
            subsequent_indent=" " * 15,
            break_on_hyphens=False,
        )


class Unchecked(Exception):
    """A level cannot be tried: ``reason`` says why, ``hint`` what to type."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def judged(what: str, faults: Sequence[str], well: str = "", most: int = 4) -> Finding:
    """``ok`` where there is no fault, otherwise ``FAILED`` with the first of them."""
    if not faults:
        return Finding("ok", what, well)
    more = [f"and {len(faults) - most} more"] if len(faults) > most else []
    return Finding("FAILED", what, "; ".join([*faults[:most], *more]))


def failed(findings: Sequence[Finding]) -> bool:
    """Whether one of them is a fault."""
    return any(finding.state == "FAILED" for finding in findings)
