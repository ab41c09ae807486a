"""Many independent tasks over the processes of a Dask cluster, here or on many machines.

On other machines every worker needs this kit (importable), the same libraries, and the same file
system under the same paths; all three are checked before anything runs, since a worker that sees
other files would give other results. A worker that dies has its tasks repeated elsewhere.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from kit.errors import SettingError, StageError
from kit.progress import Bar

Item = TypeVar("Item")
Result = TypeVar("Result")
LOCAL = "local"
REACH = 10  # seconds that a scheduler has to answer
ARRIVE = 30  # seconds that its first worker has to come
TRIALS = 2  # rounds that an item under suspicion gets alone
PATIENCE = 60  # seconds without any worker before the wait is given up
LIBRARIES = ("imagecodecs", "numpy", "opencv-python-headless", "openslide-bin", "openslide-python", "pillow",
             "scipy", "tifffile")  # fmt: skip
START = "start one: dask scheduler; and on every machine: dask worker {}"


@dataclass(frozen=True)
class _There(Generic[Item, Result]):
    """A function that works in the folder where the command was typed, so that relative paths hold."""

    function: Callable[[Item], Result]
    folder: str

    def __call__(self, item: Item) -> Result:
        if os.getcwd() != self.folder:
            os.chdir(self.folder)
        return self.function(item)


@dataclass(frozen=True)
class _Done(Generic[Result]):
    """A result, which may be None."""

    value: Result


def check_address(scheduler: str) -> None:
    """Refuse what is neither empty, ``local``, nor the address of a scheduler.

    Raises:
        SettingError: it is none of them; says what one looks like.
    """
    if scheduler in ("", LOCAL):
        return
    with suppress(ValueError):  # what urlsplit says of a port that is no number
        parts = urlsplit(scheduler)
        if parts.scheme in ("tcp", "tls") and parts.hostname and parts.port:
            return
    raise SettingError(
        f"--scheduler cannot be '{scheduler}'",
        "it takes local (processes on this machine) or the address that dask scheduler prints,"
        " such as tcp://host:8786",
    )


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    what: str,
    scheduler: str,
    lost: Callable[[Item], Result] | None = None,
    shared: Sequence[Path] = (),
) -> list[Result]:
    """``[function(item) for item in items]`` in that order, computed by the workers of a cluster.

    An item that kills every worker that takes it has the result ``lost(item)``; one is declared
    lost only after it has done so with nothing else running, since Dask suspects its neighbours too.

    Args:
        scheduler: ``local``, which starts ``workers`` processes of one thread, or an address.
        shared: paths that every worker must see as this machine does.

    Raises:
        SettingError: the address is none.
        StageError: nothing answers there, a worker is not fit, all are gone, or (without ``lost``)
            an item kills workers.
    """
    check_address(scheduler)
    if not items:
        return []
    with _connected(scheduler, max(1, min(workers, len(items)))) as client:
        if scheduler != LOCAL:
            _check_workers(client, scheduler, shared)
        task = _There(function, os.getcwd())
        found: dict[int, Result] = {}
        suspects: list[int] = []
        with Bar(total=len(items), desc=what, unit="image", disable=len(items) < 2) as bar:
            for n, outcome in _ended(client, task, dict(enumerate(items))):
                if outcome is None:
                    suspects.append(n)
                else:
                    found[n] = outcome.value
                    bar.update()
            for n in sorted(suspects):
                outcome = _alone(client, task, items[n])
                found[n] = outcome.value if outcome else _lost(items[n], what, lost)
                bar.update()
    return [found[n] for n in range(len(items))]


def _alone(client: Any, function: Callable[[Item], Result], item: Item) -> _Done[Result] | None:
    """The result of an item that runs while nothing else does; None if it kills workers even so."""
    for _ in range(TRIALS):
        with suppress(TimeoutError):  # the dead come back: a worker in the making is easily lost
            client.wait_for_workers(1, timeout=ARRIVE)
        ((_, outcome),) = _ended(client, function, {0: item})
        if outcome is not None:
            return outcome
    return None


def _lost(item: Item, what: str, lost: Callable[[Item], Result] | None) -> Result:
    if lost is None:
        raise StageError(
            f"{what}: {item} killed every worker that it was given to",
            "give the workers more memory, or leave it out",
        )
    return lost(item)


def _ended(
    client: Any, function: Callable[[Item], Result], items: Mapping[int, Item]
) -> Iterator[tuple[int, _Done[Result] | None]]:
    """The results of items as they end, with their numbers; None where workers died of one.

    Each is let go of at once: Dask would compute it again if the worker that holds it died later.
    What has not ended is cancelled on leaving.

    Raises:
        StageError: the scheduler, or the last of its workers, is gone.
    """
    ready: SimpleQueue[int] = SimpleQueue()
    futures = dict(zip(items, client.map(function, list(items.values()), pure=False), strict=True))
    for n, future in futures.items():
        future.add_done_callback(partial(_put, ready, n))
    seen = time.monotonic()
    try:
        while futures:
            try:
                n = ready.get(timeout=2)
            except Empty:
                seen = _seen(client, seen)
                continue
            _settle(client, futures[n])
            future = futures.pop(n)
            outcome = _outcome(client, future)
            future.release()
            seen = time.monotonic()
            yield n, outcome
    finally:
        if futures:
            with suppress(Exception):  # a scheduler that is gone has nothing to cancel
                client.cancel(list(futures.values()), force=True)


def _settle(client: Any, future: Any) -> None:
    """Wait for a result that was there, and is made again because the worker that held it died."""
    seen = time.monotonic()
    while future.status not in ("finished", "error", "cancelled"):
        # Not by a callback: Dask calls it at once for a future that is lost, over and over.
        time.sleep(0.2)
        seen = _seen(client, seen)


def _outcome(client: Any, future: Any) -> _Done[Any] | None:
    """What an item came to; None if Dask gave it up because workers died of it."""
    if future.status == "cancelled":
        raise _gone(client)
    try:
        return _Done(future.result())
    except importlib.import_module("distributed").KilledWorker:
        return None


def _put(ready: SimpleQueue[int], n: int, future: Any) -> None:
    ready.put(n)


def _seen(client: Any, seen: float) -> float:
    """The moment at which a worker was seen last; raises when that was long ago."""
    try:
        if client.nthreads():
            return time.monotonic()
    except Exception as error:  # whatever a broken connection raises
        raise _gone(client) from error
    if time.monotonic() - seen > PATIENCE:
        raise _gone(client)
    return seen


def _gone(client: Any) -> StageError:
    address = client.scheduler.address if client.scheduler else "the address"
    return StageError(
        "the Dask scheduler, or the last of its workers, is gone",
        f"{START.format(address)}; then repeat the command: it goes on where this one was",
    )


@contextmanager
def _connected(scheduler: str, workers: int) -> Iterator[Any]:
    """A client of the scheduler; a cluster that was started for it ends with it."""
    if scheduler != LOCAL:
        _reach(scheduler)
    dask, distributed = (importlib.import_module(name) for name in ("dask", "distributed"))
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:  # what it says of workers that come and go, this module says in its own words
        logger.setLevel(logging.CRITICAL)
    try:
        if scheduler == LOCAL:
            with (
                # A cluster gives up a process that dies twice in 15 seconds; ours is to come back.
                dask.config.set({"distributed.deploy.lost-worker-timeout": "365 days"}),
                distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    memory_limit=0,  # what the stage takes is bounded by the stage, whoever runs it
                    scheduler_kwargs={"allowed_failures": 1},
                ) as cluster,
                distributed.Client(cluster, set_as_default=False) as client,
            ):
                yield client
        else:
            with _client(distributed, scheduler) as client:
                yield client
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reach(scheduler: str) -> None:
    """Knock before Dask does, which goes on for long and ends in many words.

    A scheduler that a script has just started gets a few seconds to come up.
    """
    parts = urlsplit(scheduler)
    until = time.monotonic() + REACH
    while True:
        try:
            socket.create_connection((str(parts.hostname), parts.port or 0), timeout=REACH).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                why = f"no Dask scheduler answers at {scheduler}: {error.strerror or error}"
                raise StageError(why, START.format(scheduler)) from error
            time.sleep(0.3)


def _client(distributed: Any, scheduler: str) -> Any:
    try:
        return distributed.Client(scheduler, timeout=REACH, set_as_default=False)
    except Exception as error:  # another server's answer can break any part of the protocol
        why = f"what answers at {scheduler} is no Dask scheduler, or another version of it: {error}"
        raise StageError(why, START.format(scheduler)) from error


def _check_workers(client: Any, scheduler: str, shared: Sequence[Path]) -> None:
    """Make sure that there are workers, and that each would give the results that this machine gives.

    Raises:
        StageError: there is none, or one has other code, libraries or files.
    """
    start = f"type on every machine, in the same environment: dask worker {scheduler}"
    try:
        client.wait_for_workers(1, timeout=ARRIVE)
    except TimeoutError as error:
        raise StageError(f"the scheduler at {scheduler} has no worker", start) from error
    paths = [str(Path(path).absolute()) for path in shared]
    try:
        theirs = client.run(surroundings, os.getcwd(), paths)
    except Exception as error:  # of any kind: it is about what the worker lacks
        raise StageError(f"the workers of {scheduler} cannot run kit: {error}",
                         "install it there with: pip install -e PATH/TO/KIT") from error  # fmt: skip
    ours = surroundings(os.getcwd(), paths)
    for worker, his in sorted(theirs.items()):
        for name, value in ours.items():
            if his[name] != value:
                raise StageError(
                    f"the worker {worker} would give other results: {name} is {his[name]} there,"
                    f" and {value} here",
                    "give all machines one environment and one file system under the same paths, and"
                    f" start the worker again; {start}",
                )


def surroundings(folder: str, shared: Sequence[str]) -> dict[str, str]:
    """What results depend on besides their inputs: code, libraries, and what is seen at ``shared``."""
    found = {"kit": _code(), "python": platform.python_version()}
    found |= {name: _version(name) for name in LIBRARIES}
    found[f"the folder {folder}"] = "there" if os.path.isdir(folder) else "absent"
    return found | {path: _seen_at(Path(path)) for path in shared}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _code() -> str:
    """A digest of the kit's own source."""
    root = Path(__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + b"\n" + path.read_bytes())
    return total.hexdigest()[:12]


def _seen_at(path: Path) -> str:
    """What is at a path, in words that differ between machines that share nothing."""
    try:
        if path.is_dir():
            names = sorted(name for name in os.listdir(path) if not name.startswith("."))
            digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
            return f"a folder of {len(names)} names ({digest})"
        return f"a file of {path.stat().st_size} bytes"
    except OSError as error:
        return str(error.strerror)
