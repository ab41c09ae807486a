"""Which process is at work on something, and whether it is still there.

A process is known by its machine, its number and when it began: numbers are used again, and
containers of one machine number their processes each for themselves.
"""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process anywhere.

    host: the machine since it was started, and the name space of its process numbers.
    start: when the process began, in clock ticks of the machine; 0 where that is not told.
    """

    host: str
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.host}-{self.pid}-{self.start}"

    @classmethod
    def parse(cls, text: str) -> Process | None:
        """The inverse of ``str``; ``None`` if the text is none of ours.

        >>> Process.parse("0a1b2c3d-42-7"), Process.parse("somebody")
        (Process(host='0a1b2c3d', pid=42, start=7), None)
        """
        host, _, rest = text.partition("-")
        pid, _, start = rest.partition("-")
        if len(host) != 8 or not (pid.isdecimal() and start.isdecimal()):
            return None
        return cls(host, int(pid), int(start))

    @property
    def is_here(self) -> bool:
        """Whether this machine can tell if it is alive."""
        return self.host == _host()

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be gone; of another machine's, that is never known."""
        return self.is_here and not (_exists(self.pid) and _start(self.pid) == self.start)


def mine() -> Process:
    """This process."""
    return _process(os.getpid())  # a fork has a number of its own


@cache
def _process(pid: int) -> Process:
    return Process(_host(), pid, _start(pid))


@cache
def _host() -> str:
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text())
        except OSError:  # not Linux
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _start(pid: int) -> int:
    """Field 22 of ``/proc/<pid>/stat`` (proc(5)); the second may hold anything, in brackets."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
