"""What can go wrong that is not a bug. The command line prints message and hint, without a traceback.

KitError
├── SettingError      a name, key or value on the command line that does not exist
├── DataError         a table that breaks a rule: which file, line and value
├── ImageError        one image that cannot be read (reported and survived)
├── WeightsError      attached weights that are absent or do not fit
├── StageError        a stage that needs another one first
├── StorageError      a disk that is full or read-only
└── SubmissionError   a submission that the competition would refuse
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KitError(Exception):
    """The user can mend this: ``message`` says what is wrong, ``hint`` what to type next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SettingError(KitError):
    """An unknown name or key, or a value that does not parse."""


class DataError(KitError):
    """A table or folder that breaks a rule of the competition."""


class ImageError(KitError):
    """One image that cannot be read."""


class WeightsError(KitError):
    """Weights that are absent, or made for another architecture."""


class StageError(KitError):
    """A stage whose input has not been made, or was made with other settings."""


class StorageError(KitError):
    """A folder that cannot be written."""


class SubmissionError(KitError):
    """A submission that breaks a rule of the competition."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that lists what exists, the closest match first; case does not count.

    >>> did_you_mean("tran", ["train", "tile"])
    'did you mean train? Known: tile, train'
    """
    names = sorted(known)
    folded = {name.casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    listed = f"Known: {', '.join(names)}"
    return f"did you mean {folded[close[0]]}? {listed}" if close else listed


def listed(items: list[str], most: int = 5) -> str:
    """Join findings one a line, and count those left out."""
    lines = [f"  {item}" for item in items[:most]]
    if len(items) > most:
        lines.append(f"  ... and {len(items) - most} more")
    return "\n".join(lines)
