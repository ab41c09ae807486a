"""How often the held-out set was looked at: a set that is looked at often is fitted on, slowly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from kit.errors import DataError
from kit.files import write_json
from kit.state import Run


def count_look(run: Run, units: Iterable[str]) -> int:
    """Count one more look at these held-out units in ``WORK/<name>/looks.json``; how many there were.

    Another held-out set starts from one.

    Raises:
        DataError: the file is not as it was written.
    """
    path = run.work / "looks.json"
    digest = hashlib.sha256("\n".join(sorted(units)).encode()).hexdigest()
    looks = 0
    if path.is_file():
        try:
            before = json.loads(path.read_text())
            looks = int(before["looks"]) * (before["holdout"] == digest)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} does not say how often the held-out set was looked at", "restore it, or remove it"
            ) from error
    write_json(path, {"holdout": digest, "looks": looks + 1})
    return looks + 1
