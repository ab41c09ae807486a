"""A kernel run as Kaggle runs it: no network, read-only inputs, few packages, and an end at every limit.

Namespaces of Linux do it, which need no rights (`unshare(1)`, `mount_namespaces(7)`): the kernel gets a ``/``
that holds ``/kaggle``, the system and its Python, and nothing else of this machine. Where they are not
permitted, it runs without them, and `Ended.open` says what is not kept from it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kit.deliver import jail
from kit.errors import StorageError
from kit.files import write_json
from kit.parallel import cores

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/sys")
NAMESPACES = ("unshare", "--map-root-user", "--net", "--mount", "--fork", "--kill-child")
CORES = 4  # of Kaggle's machines, with a GPU or without
TICK = 0.1  # seconds between two looks at the memory
SAID = 20_000  # characters kept of what a kernel says
MIB = 2**20
GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """What a kernel may use before it is ended: wall time, memory of all its processes, and output."""

    seconds: float
    memory_gib: float = 13.0
    disk_gib: float = 20.0


@dataclass(frozen=True)
class Kernel:
    """What is run, and what it is shown.

    inputs: folders by their place below ``/kaggle/input``.
    python: the folder of an environment as `packages.build` makes it.
    scratch: a folder of its own for ``working``, ``tmp`` and the log; what is in it is deleted.
    visible: files and folders elsewhere that it must be able to read.
    gpu: whether it may use that of this machine.
    """

    script: Path
    inputs: Mapping[str, Path]
    python: Path
    scratch: Path
    visible: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False

    @property
    def working(self) -> Path:
        """What Kaggle keeps of it: ``/kaggle/working``."""
        return self.scratch / "working"


@dataclass(frozen=True)
class Ended:
    """How a kernel ended.

    code: its exit code; 128 + n where signal n ended it.
    broke: the limit at which it was ended: time, memory or disk; empty: none.
    said: the last that it printed.
    disk_mib: what it has written, temporary files among it; output_mib: what is left in ``working``.
    open: what was not kept from it, in words; empty: nothing.
    """

    code: int
    broke: str
    said: str
    seconds: float
    peak_mib: int
    disk_mib: int
    output_mib: int
    open: str


def run(kernel: Kernel, limits: Limits) -> Ended:
    """Run a kernel to its end, or to the first limit that it breaks.

    Raises:
        StorageError: its folders cannot be made.
    """
    ways = namespaces()
    for name in ("root", "working", "tmp"):
        shutil.rmtree(kernel.scratch / name, ignore_errors=True)
        (kernel.scratch / name).mkdir(parents=True)
    _plan(kernel, ways)
    log = kernel.scratch / "log.txt"
    command = [*ways, interpreter(), "-I", "-S", jail.__file__, str(kernel.scratch.resolve() / "plan.json")]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=kernel.scratch, env=_environment(kernel, ways), stdin=subprocess.DEVNULL,
            stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        watch = Watch(process.pid, kernel.scratch, limits)
        try:
            watch.until_end(process)
        finally:
            end(process)
    said = log.read_bytes()[-SAID:].decode(errors="replace")
    if process.returncode == jail.FAILED and said.startswith("cannot mount"):
        raise StorageError(f"the rehearsal's folders cannot be mounted: {said.strip()}", "see unshare(1)")
    watch.look_at_disk()
    return Ended(
        128 - process.returncode if process.returncode < 0 else process.returncode,
        watch.broke,
        said,
        watch.seconds,
        round(watch.peak / MIB),
        round(watch.disk / MIB),
        round(size_of(kernel.working) / MIB),
        "" if ways else f"the network is NOT cut, and inputs can be written: {_why_not()}",
    )


@cache
def namespaces() -> tuple[str, ...]:
    """The words before a command that gives it namespaces of its own; none where that is not permitted.

    In some containers `/proc` cannot be mounted anew: there, processes stay in the namespace of all.
    """
    with_processes = (*NAMESPACES, "--pid")
    for words, trial in (
        (with_processes, ("mount", "-t", "proc", "proc", "/proc")),
        (NAMESPACES, ("mount", "-t", "tmpfs", "tmpfs", "/tmp")),
    ):
        with contextlib.suppress(OSError):  # there is no unshare
            if subprocess.run([*words, *trial], capture_output=True, check=False).returncode == 0:
                return words
    return ()


def _why_not() -> str:
    """What the system says to namespaces."""
    try:
        done = subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False, text=True)
    except OSError:
        return "there is no unshare command"
    return " ".join(done.stderr.split()) or "unshare is not permitted"


def kernel_cores() -> int:
    """How many processors a kernel gets: Kaggle's, or those that there are here."""
    return min(CORES, cores())


def interpreter() -> str:
    """The Python that this environment was made from."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _plan(kernel: Kernel, ways: tuple[str, ...]) -> None:
    """Write what `jail` does: see there."""
    python = str(kernel.python.resolve() / "bin" / "python")
    content: dict[str, Any] = {"root": None, "command": [python, str(_unmounted(kernel))]} if not ways else {
        "root": str((kernel.scratch / "root").resolve()),
        "links": {path: os.readlink(path) for path in SYSTEM if os.path.islink(path)},
        "binds": _binds(kernel),
        "proc": "--pid" in ways,
        "command": [python, f"/kaggle/src/{kernel.script.name}"],
    }  # fmt: skip
    content["cores"] = CORES
    content["folder"] = "/kaggle/working" if ways else str(kernel.working.resolve())
    write_json(kernel.scratch / "plan.json", content)


def _unmounted(kernel: Kernel) -> Path:
    """Make a ``/kaggle`` of symbolic links in a folder; returns the script in it."""
    root = kernel.scratch.resolve() / "root"
    shown = {f"input/{place}": source for place, source in kernel.inputs.items()}
    for place, source in {**shown, "working": kernel.working, "src": kernel.script.parent}.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).symlink_to(source.resolve())
    return root / "src" / kernel.script.name


def _binds(kernel: Kernel) -> list[tuple[str, str, bool]]:
    """What is mounted: source, path, and whether it can be written."""
    found = [("/dev", "/dev", True)]
    found += [(str(kernel.scratch.resolve() / "tmp"), "/tmp", True)]
    found += [(str(kernel.working.resolve()), "/kaggle/working", True)]
    found += [(str(kernel.script.parent.resolve()), "/kaggle/src", False)]
    for place, source in kernel.inputs.items():
        found.append((str(source.resolve()), f"/kaggle/input/{place}", False))
    system = [path for path in SYSTEM if os.path.isdir(path) and not os.path.islink(path)]
    for path in (Path(sys.base_prefix), kernel.python, *kernel.visible):
        own = str(path.resolve())
        if not any(own.startswith(f"{folder}/") for folder in system):  # else it is seen already
            found.append((own, own, False))
    found += [(path, path, False) for path in system]
    # What lies below a mount must be mounted after it.
    return sorted(dict.fromkeys(found), key=lambda bind: (bind[1].count("/"), bind[1]))


def _environment(kernel: Kernel, ways: tuple[str, ...]) -> dict[str, str]:
    """Nothing of this shell's; what a rerun on Kaggle has."""
    temporary = "/tmp" if ways else str((kernel.scratch / "tmp").resolve())
    (kernel.scratch / "tmp" / "home").mkdir(exist_ok=True)
    found = {
        "PATH": f"{kernel.python.resolve() / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": f"{temporary}/home",
        "TMPDIR": temporary,
        "LANG": "C.UTF-8",
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "KAGGLE_IS_COMPETITION_RERUN": "1",
        "KIT_REHEARSAL": "1",
        "PYTHONUNBUFFERED": "1",  # what it said is there, whenever it is killed
    }
    if not kernel.gpu:
        found["CUDA_VISIBLE_DEVICES"] = ""
    if not ways:  # /kaggle is not where it should be
        found["KIT_KAGGLE"] = str((kernel.scratch / "root").resolve())
    return found | dict(kernel.environment)


class Watch:
    """Looks at a tree of processes until it ends or breaks a limit."""

    def __init__(self, root: int, scratch: Path, limits: Limits) -> None:
        self.root, self.scratch, self.limits = root, scratch, limits
        self.began = time.perf_counter()
        self.seconds = 0.0
        self.peak = self.disk = 0  # bytes
        self.broke = ""
        self._next_disk = 0.0

    def until_end(self, process: subprocess.Popen[bytes]) -> None:
        """Return when the process has ended, or `broke` says which limit it has broken."""
        while not self.broke:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TICK)
            self.seconds = time.perf_counter() - self.began
            if process.returncode is not None:
                return
            self.look()

    def look(self) -> None:
        """Measure once, and compare with the limits."""
        self.peak = max(self.peak, memory_of(tree(self.root), self.peak))
        if self.seconds >= self._next_disk:
            began = time.perf_counter()
            output = self.look_at_disk()
            # Many files take long to count: a twentieth of the time at most.
            self._next_disk = self.seconds + max(1.0, 20 * (time.perf_counter() - began))
            if output > self.limits.disk_gib * GIB:
                self.broke = "disk"
        if self.peak > self.limits.memory_gib * GIB:
            self.broke = "memory"
        elif self.seconds > self.limits.seconds:
            self.broke = "time"

    def look_at_disk(self) -> int:
        """Bytes in ``working``; with temporary files, their most is noted."""
        output = size_of(self.scratch / "working")
        self.disk = max(self.disk, output + size_of(self.scratch / "tmp"))
        return output


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (parent := _parent(name)) is not None:
            children.setdefault(parent, []).append(int(name))
    found = [root]
    for pid in found:  # it grows meanwhile
        found += children.get(pid, [])
    return found


def _parent(pid: str) -> int | None:
    """Field 4 of ``/proc/<pid>/stat`` (proc(5)); None where the process has gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def memory_of(pids: list[int], known: int = 0) -> int:
    """Bytes that processes hold together; pages that they share count once.

    Args:
        known: the most so far. Shares are only looked up where there may be more, as that takes time.
    """
    told = [_told(f"/proc/{pid}/status", ("VmRSS", "VmHWM")) for pid in pids]
    most = max((high for _, high in told), default=0)  # of one process, between two looks as well
    together = sum(now for now, _ in told)
    if together > max(known, most):
        # One after the other is asked: what a fork shares meanwhile would count twice, but not twice over.
        together = min(_shares(pids), _shares(pids))
    return max(most, together)


def _shares(pids: list[int]) -> int:
    """Bytes that processes hold, each page divided by the processes that it belongs to."""
    total = 0
    for pid in pids:
        (share,) = _told(f"/proc/{pid}/smaps_rollup", ("Pss",))
        total += share or _told(f"/proc/{pid}/status", ("VmRSS",))[0]  # of somebody else, shares are not told
    return total


def _told(path: str, names: tuple[str, ...]) -> list[int]:
    """Bytes that lines ``Name:  n kB`` of a file in ``/proc`` tell; 0 where one does not."""
    found = dict.fromkeys(names, 0)
    with contextlib.suppress(OSError, ValueError):  # it has ended
        for line in Path(path).read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
    return list(found.values())


def size_of(folder: Path) -> int:
    """Bytes that the files below a folder take up on the disk."""
    total, folders = 0, [str(folder)]
    for path in folders:  # it grows meanwhile
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that descend from it; in a namespace they go with its first one."""
    while process.poll() is None:
        for pid in reversed(tree(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)


def links_out(folder: Path) -> tuple[Path, ...]:
    """The files elsewhere that symbolic links below a folder lead to."""
    found = [path.resolve() for path in folder.rglob("*") if path.is_symlink()]
    return tuple(dict.fromkeys(found))
