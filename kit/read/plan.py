"""``kit tile --plan``: time, memory and disk are told before they are spent.

Every header is opened, and a few megapixels of a few slides are decoded to measure the speed.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pandas as pd

from kit import parallel
from kit.errors import ImageError, SettingError
from kit.files import write_table
from kit.read import budget
from kit.read.grid import ALIGN
from kit.read.reader import Reader, opener
from kit.read.tiler import Source, corners, told
from kit.read.tiles import sources
from kit.state import Run

SLIDES, HOURS, GIB = 280, 9, 13  # a hidden test set, and what a kernel has for it
BASE = 300.0  # MiB that the program takes without any slide
PROBES = 3  # slides of a kind on which the speed of this machine is measured
PROBE = 4.0  # megapixels that are decoded of each
SIDE, MOST = 512, 64  # level-0 px of a square of them, and squares, at most
WORST = 10  # slides that are listed


@dataclass(frozen=True)
class Line:
    """What the header of one slide says, and what it will cost."""

    split: str
    image_id: str
    width: int = 0
    height: int = 0
    read_by: str = ""
    kind: str = ""
    seconds: float = 0.0  # of one core
    memory_mib: float = 0.0
    disk_mib: float = 0.0
    tiles: int = 0
    note: str = ""
    status: str = ""  # missing, unreadable or refused
    problem: str = ""


def plan(run: Run) -> str:
    """Project the tile stage on this machine; write ``WORK/<name>/plan/slides.csv`` and return the summary.

    Decisions (which slides are cut down) come from ``budget.SPEED``; only the projected times come from
    the speed of this machine, measured on a few slides of each kind.
    """
    listed = sources(run)
    first = parallel.run_all(partial(_line, run, {}), listed, run.workers, "headers")
    speeds = _measured(run, listed, first)
    lines = [
        _line(run, speeds, source) if line.kind in speeds else line
        for source, line in zip(listed, first, strict=True)
    ]
    table = pd.DataFrame([asdict(line) for line in lines]).sort_values(["split", "image_id"])
    path = run.folder("plan") / "slides.csv"
    write_table(path, table)
    return "\n".join([*_summary(table, speeds, run.workers), f"every slide: {path}"])


def _line(run: Run, speeds: dict[str, float], source: Source) -> Line:
    grid = run.competition.tiles
    try:
        with opener(run.competition.reader)(source.path, grid) as image:
            given = _given(run, source, image)
            kept, note = budget.within(image, grid, given) if image.tileable else (grid, "")
            cost = budget.cost(image, kept, speeds.get(image.kind), given)
            return Line(
                source.split,
                source.image_id,
                *image.size,
                image.how,
                image.kind,
                round(cost.seconds, 2),
                round(cost.memory, 1),
                round(cost.disk, 2),
                cost.tiles,
                note,
            )
    except (ImageError, SettingError) as error:
        status, problem = told(error, source.path)
        return Line(source.split, source.image_id, status=status, problem=problem)


def _given(run: Run, source: Source, image: Reader) -> budget.Given | None:
    if run.coords is None or not image.tileable:
        return None
    found = corners(run.coords, source, image, run.competition.tiles.size)
    return budget.Given(len(found), found.size)


def _measured(run: Run, listed: list[Source], lines: list[Line]) -> dict[str, float]:
    """Megapixels a second that one core decodes here, by kind, on a few middling slides of each."""
    found: dict[str, float] = {}
    for kind in sorted({line.kind for line in lines} - {"", "photo", "radiograph"}):
        mine = [n for n, line in enumerate(lines) if line.kind == kind]
        mine.sort(key=lambda n: (lines[n].width * lines[n].height, lines[n].image_id))
        chosen = mine[len(mine) // 2 :][:PROBES]
        speeds = [_speed(run, listed[n]) for n in chosen]
        usable = [speed for speed in speeds if speed]
        if usable:
            found[kind] = statistics.median(usable)
    return found


def _speed(run: Run, source: Source) -> float:
    """Decode a few megapixels from the middle of a slide, where tissue is likely; 0 if it cannot be read."""
    grid = run.competition.tiles
    try:
        with opener(run.competition.reader)(source.path, grid) as image:
            side = max(ALIGN, min(SIDE, min(image.size) // ALIGN * ALIGN))
            count = min(MOST, round(PROBE * 1e6 / side**2))
            start = time.perf_counter()
            for step in np.linspace(0.3, 0.7, count):
                x, y = (max(0, int(length * step) - side // 2) // ALIGN * ALIGN for length in image.size)
                image.region(x, y, side, side)
            return count * side**2 / 1e6 / (time.perf_counter() - start)
    except ImageError:
        return 0.0


def _summary(table: pd.DataFrame, speeds: dict[str, float], workers: int) -> list[str]:
    good = table[table["status"] == ""]
    bad = table[table["status"] != ""]
    refused = int((bad["status"] == "refused").sum())
    unlabelled = int((table["split"] == "extra").sum())
    cores = max(1, workers)
    pixels = good["width"].astype(float) * good["height"]
    hours = good["seconds"].sum() / cores / 3600
    lines = [
        f"{len(table)} images, {pixels.sum() / 1e9:.1f} gigapixels; {len(bad) - refused}"
        f" cannot be opened, {refused} are refused",
        *([f"  {unlabelled} of them without a label of the task (tile.extra)"] if unlabelled else []),
        *(f"  read by {how}: {n}" for how, n in good["read_by"].value_counts().items()),
        *(f"  {kind}: {speed:.0f} Mpx/s a core here" for kind, speed in speeds.items()),
        f"tile: {_duration(hours * 3600)} on {cores} workers, {_memory(good, cores):.1f} GiB of memory,"
        f" {good['disk_mib'].sum() / 1024:.2f} GiB of disk, about {good['tiles'].sum()} tiles",
        _verdict(good[good["split"] != "extra"], cores),  # a kernel does not see the others
    ]
    cut = good[good["note"] != ""]
    if len(cut):
        lines += [f"{len(cut)} slides are above their budget (tile.slide_seconds, tile.slide_mib):"]
        lines += [f"  {row.image_id}: {row.note}" for row in cut.head(WORST).itertuples()]
        lines += [f"  and {len(cut) - WORST} more: see the table"] if len(cut) > WORST else []
    worst = good.sort_values(["seconds", "image_id"], ascending=[False, True]).head(WORST)
    lines += ["the slowest:"]
    lines += [
        f"  {row.image_id}: {row.width} x {row.height}, {row.seconds:.1f} s of one core,"
        f" {row.memory_mib:.0f} MiB ({row.read_by})"
        for row in worst.itertuples()
    ]
    lines += [f"  {row.image_id} is {row.status}: {row.problem}" for row in bad.head(WORST).itertuples()]
    lines += [f"  and {len(bad) - WORST} more: see the table"] if len(bad) > WORST else []
    return lines


def _verdict(good: pd.DataFrame, cores: int) -> str:
    """Whether a hidden test set of such slides fits into a kernel: an average lot and the worst."""
    if good.empty:
        return "no slide can be tiled, so nothing can be said about a kernel"
    mean = float(good["seconds"].mean()) * SLIDES / cores
    worst = float(good["seconds"].max()) * SLIDES / cores
    memory = _memory(good, cores)
    fits = mean < HOURS * 3600 and memory < GIB
    return (
        f"{SLIDES} such slides {'fit' if fits else 'DO NOT FIT'} in {HOURS} hours and {GIB} GiB: tiling takes"
        f" {_duration(mean)} ({_duration(worst)} if all were like the slowest) and {memory:.1f} GiB"
        f" on {cores} workers; predicting comes on top"
    )


def _memory(good: pd.DataFrame, cores: int) -> float:
    """GiB when the largest slides are read at once."""
    return float(good["memory_mib"].nlargest(cores).sum() + BASE) / 1024


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
