"""What a fit says while it learns: a bar, a table of its steps, and TensorBoard or W&B where asked for.

None of this is a result: timings differ between two runs that end in the same bytes.
"""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import TypeVar

import torch

from kit.competition import Training
from kit.errors import SettingError, did_you_mean
from kit.files import write_text
from kit.progress import Bar

STEPS = 50  # steps a row
SAME = ("epoch", "step", "loss", "inner_loss", "rate", "bags")  # the same in every run
CLOCK = ("seconds", "bags_per_s", "tiles_per_s", "idle_share", "rss_mib", "cuda_mib")
NEEDS = {"csv": "", "tensorboard": "tensorboard", "wandb": "wandb"}  # the package behind each log
log = logging.getLogger("kit")
T = TypeVar("T")


def check(training: Training) -> None:
    """The logs exist, and their packages are installed.

    Raises:
        SettingError: one does not, or is not.
    """
    for name in training.logs:
        if name not in NEEDS:
            raise SettingError(f"there is no log '{name}'", did_you_mean(name, NEEDS))
        if NEEDS[name] and importlib.util.find_spec(NEEDS[name]) is None:
            raise SettingError(
                f"train.logs names {name}, and the package {NEEDS[name]} is not installed",
                f"type: pip install {NEEDS[name]}, or leave it out (--set train.logs=csv)",
            )


class Monitor:
    """The bar, table and logs of one fit.

    Args:
        path: the table, ``fold0.log.csv``; ``None`` writes no logs at all.
        title: what the bar calls the fit; empty shows none.
        logs: further ones, of ``train.logs``.
    """

    def __init__(self, path: Path | None = None, title: str = "", logs: Iterable[str] = ()) -> None:
        self.path, self.rows = path, _read(path)
        self.bar: Bar = Bar(desc=title, unit="image", disable=not title, leave=False)
        self.further = [_writer(name, path, title) for name in logs if name != "csv"] if path else []
        self.start = time.perf_counter()
        self.waited = self.tiles = self.bags = 0.0

    def begin(self, place: tuple[int, int], total: int, done: int) -> None:
        """Go on at (epoch, step), after ``done`` of ``total`` bags; rows of what comes again are dropped."""
        self.rows = [row for row in self.rows if (int(row["epoch"]), int(row["step"])) <= place]
        self.bar.total, self.bar.n = total, done
        self.bar.refresh()
        self._restart()

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; the time that they are waited for is counted."""
        source = iter(items)
        while True:
            before = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            self.waited += time.perf_counter() - before
            yield item

    def step(self, bags: int, tiles: int) -> None:
        """A batch went through."""
        self.bags += bags
        self.tiles += tiles
        self.bar.update(bags)

    def row(self, numbers: Mapping[str, float | str]) -> None:
        """Keep one row: the numbers of ``SAME``, and what the clock says since the last one."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        timed = {
            "seconds": seconds,
            "bags_per_s": self.bags / seconds,
            "tiles_per_s": self.tiles / seconds,
            "idle_share": self.waited / seconds,
            "rss_mib": _peak_mib(),
            "cuda_mib": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0,
        }
        self.bar.set_postfix_str(f"epoch {numbers['epoch']} loss {float(numbers['loss']):.4f}", refresh=False)
        whole = {**numbers, **{name: f"{value:.4g}" for name, value in timed.items()}}
        self.rows.append({name: str(value) for name, value in whole.items()})
        for writer in self.further:
            writer.write(len(self.rows), {k: float(v) for k, v in whole.items() if v != ""})
        self._restart()

    def flush(self) -> None:
        """Write the table; at least whenever the fit itself is kept."""
        if self.path is None:
            return
        text = StringIO()
        writer = csv.DictWriter(text, [*SAME, *CLOCK], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())

    def close(self) -> None:
        """Write what is left and take the bar away."""
        self.flush()
        self.bar.close()
        for writer in self.further:
            writer.close()

    def _restart(self) -> None:
        self.start, self.waited, self.tiles, self.bags = time.perf_counter(), 0.0, 0.0, 0.0


def _read(path: Path | None) -> list[dict[str, str]]:
    """The rows of a fit that was stopped; none if they are absent or of another kit."""
    if path is None or not path.is_file():
        return []
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return rows if all(set(row) == {*SAME, *CLOCK} for row in rows) else []


def _peak_mib() -> float:
    """The most memory that this process has held; macOS counts bytes, Linux KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _writer(name: str, path: Path, title: str) -> TensorBoard | WandB:
    return (TensorBoard if name == "tensorboard" else WandB)(path, title)


class TensorBoard:
    """Scalars in a folder beside the table: ``tensorboard --logdir WORK/NAME/train``."""

    def __init__(self, path: Path, title: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.to = SummaryWriter(str(path.parent / "tensorboard" / path.name.split(".")[0]))

    def write(self, n: int, numbers: Mapping[str, float]) -> None:
        """One row."""
        for name, value in numbers.items():
            self.to.add_scalar(name, value, n)

    def close(self) -> None:
        """Write what is left."""
        self.to.close()


class WandB:
    """An offline run beside the table, for ``wandb sync``: nothing leaves this machine by itself."""

    def __init__(self, path: Path, title: str) -> None:
        os.environ["WANDB_MODE"] = "offline"
        wandb = importlib.import_module("wandb")
        self.to = wandb.init(project="kit", name=title, dir=str(path.parent), reinit="finish_previous")

    def write(self, n: int, numbers: Mapping[str, float]) -> None:
        """One row."""
        self.to.log(dict(numbers), step=n)

    def close(self) -> None:
        """Write what is left."""
        self.to.finish()
