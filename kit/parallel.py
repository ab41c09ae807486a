"""Many independent tasks over the threads of this machine, or a Dask cluster, with a progress bar."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast

import joblib

from kit import cluster
from kit.progress import Bar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Task(Generic[Item, Result]):
    """A function that stops being called once it has failed, and that can be waited for."""

    def __init__(self, function: Callable[[Item], Result]) -> None:
        self.function = function
        self.failure: Exception | None = None
        self.stopped = False
        self.idle = threading.Condition()
        self.running = 0

    def __call__(self, item: Item) -> Result | None:
        with self.idle:
            if self.stopped:
                return None
            self.running += 1
        try:
            return self.function(item)
        except Exception as error:
            self.failure, self.stopped = self.failure or error, True
            return None
        finally:
            with self.idle:
                self.running -= 1
                self.idle.notify_all()

    def stop(self) -> None:
        """Start nothing more, and wait for what runs."""
        with self.idle:
            self.stopped = True
            self.idle.wait_for(lambda: self.running == 0)


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    what: str,
    scheduler: str = "",
    lost: Callable[[Item], Result] | None = None,
    shared: Sequence[Path] = (),
) -> list[Result]:
    """``[function(item) for item in items]``, in the order of ``items`` whoever computes them, and where.

    Threads, not processes: every decoder and codec used here releases the GIL. After an error or Ctrl-C
    the tasks that run are waited for: a thread inside native code must not outlive the interpreter.

    Args:
        scheduler: empty, or a Dask cluster instead of threads: see :func:`kit.cluster.run_all`, which
            uses ``lost`` and ``shared``.
    """
    if scheduler:
        return cluster.run_all(function, items, workers, what, scheduler, lost, shared)
    task: _Task[Item, Result] = _Task(function)
    pool = joblib.Parallel(n_jobs=max(1, workers), prefer="threads", return_as="generator")
    try:
        results = pool(joblib.delayed(task)(item) for item in items)
        found = list(Bar(results, total=len(items), desc=what, unit="image", disable=len(items) < 2))
    finally:
        task.stop()
    if task.failure is not None:
        raise task.failure
    return cast(list[Result], found)  # nothing was skipped: no task failed
