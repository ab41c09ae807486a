"""Made training tables as what `explore` is given."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from kit.competition import Competition, SecondLevel, Tables
from kit.metrics import LogLoss
from kit.show.explore.command import gathered
from kit.show.explore.content import Charts, Data, Section, Words
from kit.show.tables import Table
from kit.state import Run

TASK = Competition("toy", ("A", "B"), LogLoss(), load=lambda data: Tables(pd.DataFrame()),
                   files="{image_id}.png", second_level=SecondLevel(resamples=60, folds=4))  # fmt: skip


def text_table(columns: dict[str, Sequence[object]]) -> pd.DataFrame:
    """Every cell as text, as tables are read."""
    return pd.DataFrame({name: list(map(str, cells)) for name, cells in columns.items()}, dtype=object)


def options(sizes: Sequence[Path] = (), images: int = 0) -> argparse.Namespace:
    """What the command line gives."""
    return argparse.Namespace(out=None, sizes=list(sizes), images=images, map=0)


def made(
    folder: Path,
    columns: dict[str, Sequence[object]],
    test: dict[str, Sequence[object]] | None = None,
    images: int = 0,
    sizes: Sequence[Path] = (),
    **declared: Any,
) -> Data:
    """A training table of these columns, and a declaration with these fields."""
    tables = Tables(text_table(columns), None if test is None else text_table(test))
    task = replace(TASK, load=lambda data: tables, **declared)
    return gathered(Run(task, task.name, folder, folder / "work"), options(sizes, images))


def cohort(n: int = 40, classes: Sequence[str] = ("A", "B")) -> dict[str, Sequence[object]]:
    """Images 0, 1, ... of the classes in turn."""
    return {
        "image_id": [f"i{k:03d}" for k in range(n)],
        "label": [classes[k % len(classes)] for k in range(n)],
    }


def words(section: Section) -> str:
    """All that a section says in sentences."""
    return " ".join(block.text for block in section.blocks if isinstance(block, Words))


def cells(section: Section, caption: str) -> list[tuple[str, ...]]:
    """The rows of the table whose caption begins so."""
    (table,) = [b for b in section.blocks if isinstance(b, Table) and b.caption.startswith(caption)]
    return list(table.rows)


def captions(section: Section) -> list[str]:
    """Of all charts."""
    return [chart.caption for b in section.blocks if isinstance(b, Charts) for chart in b.charts]
