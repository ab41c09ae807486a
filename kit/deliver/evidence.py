"""What lies beside a submission, so that another person can compute it and its scores again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from kit.combine.predictions import plain
from kit.combine.units import joins_own
from kit.files import write_bytes, write_file
from kit.folds import duplicates
from kit.state import External, Run

DECLARATION, DUPLICATES = "declaration.py", "duplicates.csv"
OUTSIDE = "external/"  # where tables made elsewhere are kept
TABLES = ("oof.csv", "holdout.csv", "test.csv")
PLAIN = " +-_.=@()"  # besides letters and digits, what the name of a file may have


def copy(run: Run) -> list[Path]:
    """Copy the evidence of a run into its submission folder; the copies, sorted by name."""
    copies = []
    for name, source in sorted(sources(run).items()):
        if name.startswith(OUTSIDE):  # it may be packed, or one column of a file
            write_bytes(run.submission / name, plain(source, run.competition))
        elif source.is_file():
            write_file(run.submission / name, lambda target, s=source: shutil.copyfile(s, target))  # type: ignore[misc]
        else:
            continue
        copies.append(run.submission / name)
    return copies


def sources(run: Run) -> dict[str, Path]:
    """The files to copy by their place in the submission folder; some may not be there."""
    combine, own = run.folder("combine"), joins_own(run)
    found = {name: combine / name for name in ("metrics.json", "second_level.json")}
    # What is submitted, out of fold: the models' own rows do not tell it.
    found["oof_combined.csv"] = combine / "oof.csv"
    models = run.folder("predict") if own else combine
    found |= {name: models / name for name in TABLES}
    if own or run.folds_given:
        found["folds.csv"] = run.folds
    if own:
        found |= {name: run.folder("tile") / name for name in ("images.csv", "appearance.csv")}
    if near := duplicates(run):  # groups that they join are scored together
        found[DUPLICATES] = near
    if run.asked.endswith(".py"):
        found[DECLARATION] = Path(run.asked)
    return found | _external(run.external)


def _external(given: External) -> dict[str, Path]:
    found = {place("oof", name): path for name, path in given.oof.items()}
    found |= {place("test", name): path for name, path in given.test.items()}
    return found | ({} if given.meta is None else {f"{OUTSIDE}meta.csv": given.meta})


def place(kind: str, name: str) -> str:
    """Where predictions made elsewhere are kept; a name that is no file's is written with per cents.

    >>> place("oof", "their net"), place("test", "../x")
    ('external/oof/their net.csv', 'external/test/..%2Fx.csv')
    """
    return f"{OUTSIDE}{kind}/{quote(name, safe=PLAIN)}.csv"


def external(folder: Path, order: Mapping[str, list[str]]) -> External:
    """The predictions made elsewhere that a submission folder holds.

    Args:
        order: ``external`` of its manifest: the names of each kind in the order in which they were given,
            which the second level keeps.
    """
    paths = {kind: {name: folder / place(kind, name) for name in order[kind]} for kind in ("oof", "test")}
    meta = folder / "external" / "meta.csv"
    return External(paths["oof"], paths["test"], meta if meta.is_file() else None)
