"""The viewer on a slide of 5 Gpx without a pyramid: how long a tile takes, and how much memory.

``python -m tests.bench.viewer [--quick] [--case NAME ...] [--json FILE]``

The command itself is started on made slides (``work/bench-slides``, see ``slide_files.py``), and a recorded
path of zooms and pans is walked over HTTP as a browser walks it: four requests at a time, no tile twice.

- overview: from the first look at a slide until it can be walked through; value: the same when it is opened
  again.
- tile: the response of one tile in milliseconds, median and 95th percentile, mostly of tissue.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from json import loads
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from kit.show.view.pyramid import SIDE, Pyramid
from tests.bench.environment import ROOT
from tests.bench.harness import Row, machine, of_cases, options_of, write
from tests.bench.slide_files import Made, Spec, made

SCREEN = 1400, 900  # pixels of the view
PARALLEL = 4  # requests that the page makes at a time
STOPS = 6  # places of tissue that are looked at
PANS = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (-0.5, 0.5), (-1.0, -0.5))  # of a screen, at each zoom
FULL = Spec(48256, 101376, 0.12, big=True)  # that of the benchmark of slides
QUICK = Spec(9770, 20510, 0.12, big=True)
TASK = '''"""One slide, to be walked through."""
from pathlib import Path
import pandas as pd
from kit.competition import Competition, Tables
from kit.metrics import LogLoss

def load(data: Path) -> Tables:
    names = sorted(path.stem for path in (data / "train").iterdir())
    return Tables(pd.DataFrame({"image_id": names, "label": "a"}, dtype=object))

TASK = Competition(name="bench-view", classes=("a",), metric=LogLoss(), load=load, reader="slide")
'''

Place = tuple[int, int, int]  # level, column and row of a tile


@dataclass(frozen=True)
class Server:
    """The command, running."""

    process: subprocess.Popen[str]
    url: str

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of an address below the token."""
        parts = urlsplit(self.url)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        connection.request("GET", parts.path + path)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        finally:
            connection.close()

    @property
    def peak(self) -> float:
        """The most memory that it has had, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024

    @property
    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(folder: Path, slide: Path) -> Iterator[Server]:
    """``kit view`` on one slide; it is ended by Ctrl-C, and must say goodbye.

    Raises:
        RuntimeError: it does not start, or does not end as it should.
    """
    (folder / "data" / "train").mkdir(parents=True, exist_ok=True)
    (folder / "task.py").write_text(TASK)
    link = folder / "data" / "train" / "slide.tif"
    link.unlink(missing_ok=True)
    link.symlink_to(slide)
    words = [sys.executable, "-m", "kit", "view", "task.py", "--data", "data", "--work", "work"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # of a shell's background
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        if found is None:
            raise RuntimeError("kit view has not started")
        yield Server(process, found[0])
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
    if code != 0:
        raise RuntimeError(f"kit view ended with {code}")


def opened(server: Server, key: str) -> float:
    """Seconds until a slide can be walked through."""
    start = time.perf_counter()
    while True:
        code, body = server.get(f"image/{key}/status.json")
        state = loads(body)
        if code != 200 or state["state"] == "failed":
            raise RuntimeError(f"the slide cannot be opened: {body.decode()}")
        if state["state"] == "ready":
            return time.perf_counter() - start
        time.sleep(0.02)


def walk(slide: Made) -> list[list[Place]]:
    """The tiles that each view of the path needs: in and out again at some places of tissue, with pans."""
    spec = slide.spec
    pyramid = Pyramid(spec.width, spec.height)
    x, y, share = slide.truth.squares(2048)
    order = np.argsort(-share, kind="stable")
    chosen = order[:: max(1, int((share > 0.5).sum()) // STOPS)][:STOPS]
    levels = range(pyramid.bottom, pyramid.top + 1)
    views = []
    for n in chosen.tolist():
        for level in [*levels, *reversed(levels)]:
            for across, down in PANS:
                factor = 1 << (pyramid.top - level)
                middle = (
                    (x[n] + 1024) / factor + across * SCREEN[0],
                    (y[n] + 1024) / factor + down * SCREEN[1],
                )
                views.append(_seen(pyramid, level, middle))
    return views


def _seen(pyramid: Pyramid, level: int, middle: tuple[float, float]) -> list[Place]:
    columns, rows = (
        range(int((at - side / 2) // SIDE), int((at + side / 2) // SIDE) + 1)
        for at, side in zip(middle, SCREEN, strict=True)
    )
    places = [(level, column, row) for row in rows for column in columns]
    return [place for place in places if pyramid.square(*place) is not None]


def walked(server: Server, key: str, views: Sequence[Sequence[Place]]) -> list[float]:
    """Seconds of each response; no tile is asked for twice.

    Raises:
        RuntimeError: one was not served.
    """

    def timed(place: Place) -> float:
        start = time.perf_counter()
        code, body = server.get(f"image/{key}/tile/{place[0]}/{place[1]}_{place[2]}.jpg")
        if code != 200 or body[:2] != b"\xff\xd8":
            raise RuntimeError(f"tile {place}: {code}")
        return time.perf_counter() - start

    seen: set[Place] = set()
    found: list[float] = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        for view in views:
            new = [place for place in view if place not in seen]
            seen.update(new)
            found += pool.map(timed, new)
    return found


def rows_of(spec: Spec) -> Iterator[Row]:
    """One slide from its first look to the end of the path."""
    slide = made(spec)
    with tempfile.TemporaryDirectory() as name:
        with served(Path(name), slide.path) as server:
            key = loads(server.get("list.json")[1])["columns"]["key"][0]
            first, cpu = opened(server, key), server.cpu
            peak = server.peak
        with served(Path(name), slide.path) as server:
            again = opened(server, key)
            yield Row(f"overview, {spec.name}", "kit", first, cpu, peak, again, "s when opened again")
            before, start = server.cpu, time.perf_counter()
            times = np.array(walked(server, key, walk(slide))) * 1000
            cost = time.perf_counter() - start, server.cpu - before, server.peak
    for what, value in (
        ("ms, median", np.median(times)),
        ("ms, 95th percentile", np.quantile(times, 0.95)),
        ("ms, longest", times.max()),
        ("tiles", len(times)),
    ):
        yield Row(f"tile, {spec.name}", "kit", *cost, float(value), what)


CASES: dict[str, Any] = {
    "deflate": rows_of,
    "jpeg": lambda spec: rows_of(replace(spec, compression="JPEG", share=0.26)),
}


def main() -> None:
    """Measure, print and write."""
    options = options_of("tests.bench.viewer", __doc__, CASES, "slides of 200 megapixels")
    print(machine())
    rows = list(of_cases(CASES, QUICK if options.quick else FULL, options.case))
    write(rows, options.json)


if __name__ == "__main__":
    main()
