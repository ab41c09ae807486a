"""What ``kit bundle`` says of the bundle that it made: what lies where, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.deliver import kaggle
from kit.files import read_strings
from kit.state import Run

GIB = kaggle.OUTPUT_BYTES / 2**30


@dataclass(frozen=True)
class Handover:
    """A bundle as it lies in its folder, and what was asked for.

    parts: those that there are. lacking: what Kaggle's image lacks, name to version. about: what
    ``bundle.json`` says. moved: the folder was chosen by the user. pushable: for a competition on Kaggle.
    """

    folder: Path
    identity: str
    parts: tuple[str, ...]
    lacking: Mapping[str, str]
    about: Mapping[str, Any]
    owner: str
    kernel: str
    gpu: bool
    moved: bool
    pushable: bool


def told(run: Run, made: Handover) -> str:
    """The whole text."""
    about = made.about
    of_run = f", of the run {about['run']}" if about["run"] else ""
    lines = [f"bundle {made.identity} to {about['stage']} on Kaggle{of_run}: {made.folder}", *_contents(made)]
    lines += _lacking(made)
    lines += [warning for part in made.parts for warning in kaggle.too_large(made.folder / "inputs" / part)]
    lines += _rehearsal(run, made) if about["stage"] == "predict" else _sessions(run, made)
    if made.pushable:
        return "\n".join([*lines, *_push(made)])
    why = "it is of the demo" if run.demo else "the declaration names no competition there (kaggle=...)"
    verb = "can be rehearsed" if about["stage"] == "predict" else "can be looked at"
    return "\n".join([*lines, f"this bundle {verb}, and not pushed to Kaggle: {why}"])


def _contents(made: Handover) -> list[str]:
    """A line a part: how large it is, and what is in it."""
    about, limits = made.about, made.about["limits"]
    weights = [f"{len(about['models'])} models x {len(about['folds'])} folds"] if about["models"] else []
    weights += [f"pretrained {', '.join(about['attached'])}"] if about["attached"] else []
    what = {
        "code": "the kit as it is here, and the settings of the run",
        "weights": "; ".join(weights),
        "wheels": ", ".join(f"{wheel['name']} {wheel['version']}" for wheel in about["wheels"]),
    }
    lines = [
        f"  inputs/{part:<8} {_size(made.folder / 'inputs' / part):>8}  {what[part]}" for part in made.parts
    ]
    session = f"{'a' if made.gpu else 'no'} GPU, {limits['hours']:g} hours, {limits['memory_gib']:g} GiB"
    return [*lines, f"  kernel          {_size(made.folder / 'kernel'):>8}  a script; no internet, {session}"]


def _size(folder: Path) -> str:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{total / 1e6:.1f} MB"


def _lacking(made: Handover) -> list[str]:
    if not made.lacking:
        return ["Kaggle's image has all that the kernel needs"]
    names = ", ".join(f"{name} {version}" for name, version in sorted(made.lacking.items()))
    if made.about["wheels"]:
        return [f"Kaggle's image lacks {names}: inputs/wheels has what it takes"]
    return [
        f"MISSING: Kaggle's image lacks {names}, and no wheels are bundled (--wheels none)",
        "  to have them, the same command with --wheels download, or --wheels DIR",
    ]


def _rehearsal(run: Run, made: Handover) -> list[str]:
    where = f" --bundle {made.folder}" if made.moved else ""
    return ["rehearse it first:", f"  python -m kit rehearse {run.asked or run.name}{where} (same options)"]


def _sessions(run: Run, made: Handover) -> list[str]:
    """How the work goes on in the next session, and whether its results fit into what a kernel may leave."""
    stages, hours = " ".join(made.about["stages"]), made.about["limits"]["hours"]
    lines = [
        f"the kernel runs {stages}; it stops by itself before {hours:g} hours are over, and says so:"
        " push it again, and the next version goes on from what this one left"
    ]
    size = projected(run)
    if size is None:
        left = f"a kernel may leave {GIB:.1f} GiB; the images are not here, so the tiles are not projected"
    elif size > GIB:
        left = f"TOO MUCH: the tiles take about {size:.1f} GiB, and {GIB:.1f} may stay: lower tile.count"
    else:
        left = f"the tiles take about {size:.2f} GiB of the {GIB:.1f} that a kernel may leave"
    return [*lines, left]


def projected(run: Run) -> float | None:
    """GiB that all tiles will take, from the headers of the images; ``None`` where none are here."""
    from kit.read import plan

    plan.plan(run)
    table = read_strings(run.folder("plan") / "slides.csv")
    sizes = table.loc[table["status"] == "", "disk_mib"].astype(float)
    return float(sizes.sum()) / 1024 if len(sizes) else None


def _push(made: Handover) -> list[str]:
    typed = kaggle.commands(made.folder, made.parts)
    again = typed[0].replace("create", "version", 1)
    lines = ["then push it, the data sets first:", *(f"  {line}" for line in typed)]
    if made.owner == kaggle.PLACEHOLDER:
        loud = f"NO OWNER: the metadata say {made.owner}, which Kaggle does not know"
        lines = [f"{loud}; repeat this with --owner and your name there", *lines]
    lines.append(f'  (an upload that broke off is repeated by: {again} -m "again")')
    if made.about["stage"] == "predict":
        page = f"https://www.kaggle.com/code/{made.owner}/{made.kernel}"
        return [*lines, f"when it has run, submit it on its page: {page}"]
    also = ", nor is one to tile, if there is none" if made.about["stage"] == "train" else ""
    said = "at the first push, it is right that the kernel is no valid source of itself yet"
    return [*lines, f"  ({said}{also})"]
