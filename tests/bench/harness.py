"""What every benchmark shares: a measurement in a fresh process, the rows, and how they are reported."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd
from tqdm.auto import tqdm

from kit.files import write_json

T = TypeVar("T")
P = TypeVar("P")

LONG = 10.0  # seconds after which a measurement is not repeated


@dataclass(frozen=True)
class Row:
    """One number of one system on one case, and what it cost; ``system`` is kit, limit or a peer's name."""

    case: str
    system: str
    wall_s: float
    cpu_s: float
    peak_mib: float
    value: float
    unit: str


def measure(function: Callable[[], T]) -> tuple[T, float, float, float]:
    """Call a function once in a process of its own.

    Args:
        function: importable by the other process, such as a ``functools.partial`` of a module's function.

    Returns:
        Its result, wall and CPU seconds of the call alone, and the peak memory of the process in MiB.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_timed, function).result()


def fastest(run: Callable[[], tuple[T, float, float, float]], repeats: int) -> tuple[T, float, float, float]:
    """The measurement with the least wall time of up to ``repeats``; no further one after ten seconds."""
    found = [run()]
    while len(found) < repeats and sum(wall for _, wall, _, _ in found) < LONG:
        found.append(run())
    return min(found, key=lambda measured: measured[1])


def _timed(function: Callable[[], T]) -> tuple[T, float, float, float]:
    wall, cpu = time.perf_counter(), _cpu()
    result = function()
    return result, time.perf_counter() - wall, _cpu() - cpu, peak()


def _cpu() -> float:
    """CPU seconds of this process, its threads and its finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak() -> float:
    """The peak memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent held when it forked
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024**2 if sys.platform == "darwin" else 1024)


def machine() -> str:
    """The processor, how many cores this process may use, the memory and the Python version."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.is_file() else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = names[0] if names else platform.machine()
    return f"{processor}, {cores} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def of_cases(
    cases: Mapping[str, Callable[[P], Iterator[Row]]], plan: P, names: Sequence[str]
) -> Iterator[Row]:
    """The rows of the named cases; each case's table is printed when it is done."""
    for name in names:
        rows = list(tqdm(cases[name](plan), desc=name, unit="row", leave=False))
        if rows:
            tqdm.write(f"\n{table(rows)}")
        yield from rows


def options_of(prog: str, doc: str | None, cases: Iterable[str], quick: str) -> argparse.Namespace:
    """What a benchmark of several cases was asked for: ``quick``, ``case`` and ``json``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--case", nargs="+", choices=cases, default=list(cases), help="only these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    return parser.parse_args()


def write(rows: Sequence[Row], path: Path | None) -> None:
    """Write the rows with the machine to ``path``, if one is given."""
    if path is not None:
        write_json(path, {"machine": machine(), "rows": [asdict(row) for row in rows]})


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    digits = {"wall_s": "{:.2f}", "cpu_s": "{:.2f}", "peak_mib": "{:.0f}", "value": "{:.5g}"}
    formatters = {name: form.format for name, form in digits.items()}
    return pd.DataFrame([asdict(row) for row in rows]).to_string(index=False, formatters=formatters)


def report(rows: Sequence[Row], path: Path | None) -> None:
    """Print the rows as one table, and write them with the machine to ``path``, if one is given."""
    print(machine())
    print(table(rows))
    write(rows, path)
