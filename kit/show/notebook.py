"""A finished run in a notebook: ``Run.load("submissions/strip-ai/1a2b3c4d5e6f")``.

It is read from the submission's folder alone: neither the data nor the work folder need be there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from kit.errors import StageError, listed
from kit.files import numbers, read_strings
from kit.show import tables, verdict
from kit.show.page import render


@dataclass(frozen=True)
class Run:
    """What the files of one submission say. In Jupyter it shows itself; `print` gives the same as text.

    folder: ``submissions/<name>/<run>``.
    manifest, metrics: ``manifest.json`` and ``metrics.json`` as they are.

    >>> run = Run.load("submissions/strip-ai")                          # doctest: +SKIP
    >>> run.scores.loc["ridge pool"], run.oof.head(), run.submission    # doctest: +SKIP
    """

    folder: Path
    manifest: dict[str, Any] = field(repr=False)
    metrics: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read a submission.

        Args:
            path: its folder, or the folder of a competition with one submission in it.

        Raises:
            StageError: there is none, or there are several; or a file of it cannot be read.
        """
        folder = _only(Path(path))
        contents = []
        for name in ("manifest.json", "metrics.json"):
            try:
                contents.append(json.loads((folder / name).read_text()))
            except (OSError, ValueError) as error:
                raise StageError(
                    f"{folder / name} cannot be read: {error}", f"type: python -m kit verify {folder}"
                ) from error
        return cls(folder, *contents)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every score with its 95 % interval, indexed by name: kind, set, score, low, high, nested."""
        return pd.DataFrame(self.metrics["rows"]).set_index("name")

    @cached_property
    def submission(self) -> pd.DataFrame:
        """What was submitted, indexed by unit: one column a class."""
        return self._table("submission.csv")

    @cached_property
    def oof(self) -> pd.DataFrame:
        """The nested, calibrated out-of-fold probabilities, indexed by unit."""
        return self._table("oof_combined.csv")

    @property
    def report(self) -> Path:
        """The page about the run: open it in a browser."""
        return self.folder / "report.html"

    def __str__(self) -> str:
        found = self._shown()
        rows = [found["scores"].head[:4], *(row[:4] for row in found["scores"].rows)]
        wide = [max(len(row[n]) for row in rows) for n in range(4)]
        lines = ["  ".join(map(str.ljust, row, wide)).rstrip() for row in rows]
        return "\n".join([f"{found['title']}: {found['headline']}", *lines])

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        return render("notebook.html.j2", **self._shown())

    def _shown(self) -> dict[str, Any]:
        headline, tone = verdict.headline_of(self.metrics)
        declared = self.manifest.get("declared", {})
        return {
            "title": f"{declared.get('name', self.folder.parent.name)}, run {self.folder.name}",
            "headline": headline,
            "tone": tone,
            "demo": bool(declared.get("demo")),
            "metric": self.metrics["metric"],
            "scores": tables.scores(self.metrics, "oof"),
            "sentences": [verdict.constant_sentence(self.metrics), verdict.limit_sentence(self.metrics)],
            "report": str(self.report) if self.report.is_file() else "",
        }

    def _table(self, name: str) -> pd.DataFrame:
        """A table of the folder, indexed by its first column, an id; the rest are numbers."""
        table = read_strings(self.folder / name)
        return numbers(table.set_index(str(table.columns[0])))


def _only(path: Path) -> Path:
    """The submission that a path names."""
    if (path / "manifest.json").is_file():
        return path
    inside = sorted(file.parent for file in path.glob("*/manifest.json"))
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise StageError(
            f"{path} holds {len(inside)} submissions", f"name one: {listed([str(p) for p in inside])}"
        )
    raise StageError(
        f"{path} holds no submission: no manifest.json is in it",
        "give the folder submissions/<name>/<run> that python -m kit submit has written",
    )
