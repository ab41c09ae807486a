"""How a run was declared, as text that another machine makes the same run of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit import competition, settings
from kit.competition import Competition, Tables
from kit.errors import DataError
from kit.state import Run

# Where files of the first machine lie, or secrets, which no result depends on.
PRIVATE = ("fold.duplicates", "tune.storage", "train.logs")


def written(run: Run) -> dict[str, Any]:
    """What `restored` needs besides files: names, seed, threads and every setting."""
    return {
        "asked": run.asked if not run.asked.endswith(".py") else Path(run.asked).name,
        "name": run.name,
        "kaggle": run.competition.kaggle,
        "demo": run.demo,
        "seed": run.seed,
        "threads": run.threads,
        "settings": texts(run.competition),
    }


def texts(task: Competition) -> dict[str, str]:
    """Every setting as ``--set`` takes it, but where files lie.

    >>> texts(competition.find("strip-ai"))["tile.sections"]
    'true'
    """
    return {name: _text(value) for name, value in settings.known(task).items() if name not in PRIVATE}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def restored(
    content: Mapping[str, Any],
    data: Path,
    work: Path,
    declaration: Path | None = None,
    weights: Mapping[str, Path] | None = None,
    workers: int = 1,
) -> Run:
    """The run that `written` describes, on this machine's data.

    Args:
        work: the folder of the run itself, ``WORK/<name>``.
        declaration: the file of a user's own competition.

    Raises:
        DataError: it is a user's own competition, and its file is not given.
    """
    if content["asked"].endswith(".py") and declaration is None:
        raise DataError(f"the declaration {content['asked']} is not there", "it was beside the manifest")
    task = competition.find(str(declaration) if declaration else content["asked"])
    task = settings.apply(task, content["settings"].items())
    return Run(
        competition=task,
        name=content["name"],
        data=data,
        work=work,
        demo=content["demo"],
        seed=content["seed"],
        threads=content["threads"],
        workers=workers,
        weights=weights or {},
        asked=str(declaration) if declaration else content["asked"],
    )


def without_training(task: Competition, but: Collection[str] = ()) -> Competition:
    """The competition with these training images alone, of which there may be 395 GB, and without the sample.

    The sample may ask for units of which the test table has no image: they get the prior.
    """

    def load(data: Path) -> Tables:
        raw = task.load(data)
        return Tables(raw.train[raw.train[task.image].isin(but)], raw.test)

    # Images without a label of the task are there to learn from.
    return replace(task, load=load, tiles=replace(task.tiles, extra=False))
