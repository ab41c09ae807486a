"""Many independent tasks over the threads or processes of this machine, or a Dask cluster, with a bar."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from kit import cluster
from kit.errors import StageError
from kit.progress import Bar

Item = TypeVar("Item")
Result = TypeVar("Result")
MANY = 400  # tasks that processes are started for, which takes them two seconds or three


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
    python: bool = False,
) -> list[Result]:
    """``[function(item) for item in items]``, in the order of ``items`` whoever computes them, and where.

    Threads where the time goes into decoders and codecs, which all release the GIL. After an error or Ctrl-C
    the tasks that run are waited for: a thread inside native code must not outlive the interpreter.

    Args:
        scheduler: empty, or a Dask cluster instead of threads: see :func:`kit.cluster.run_all`, which
            uses ``lost`` and ``shared``.
        python: a task is mostly Python's own work, a few milliseconds of it: `MANY` go to processes, where
            threads would wait for each other more than they work.

    Raises:
        StageError: a process was killed.
    """
    if scheduler:
        return cluster.run_all(function, items, workers, what, scheduler, lost, shared)
    if python and workers > 1 and len(items) >= MANY:
        return _apart(function, items, workers, what)
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


def _apart(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, what: str
) -> list[Result]:
    """The same by processes, which end with it."""
    pool = joblib.Parallel(n_jobs=workers, backend="loky", return_as="generator", batch_size=16)
    try:
        results = pool(joblib.delayed(function)(item) for item in items)
        return list(Bar(results, total=len(items), desc=what, unit="image"))
    except TerminatedWorkerError as error:
        raise StageError(
            f"{what}: a process was killed, for want of memory or by what it read",
            "repeat it with --workers 1; or with --scheduler local, which finds the image",
        ) from error
    finally:
        get_reusable_executor().shutdown(kill_workers=True)
