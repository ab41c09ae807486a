"""The inside of a rehearsal: mounts what a kernel would see, and nothing else, then runs it.

Started by `kit.deliver.sandbox` in namespaces of its own, by the plain interpreter: standard library only.
``python jail.py PLAN``, where PLAN is a JSON file:

root: an empty folder that becomes ``/``; null: nothing is mounted, the command is run as it is.
links: symbolic links of the new ``/``: path -> target.
binds: ``[source, path in the new /, whether it can be written]``.
proc: whether there is a process namespace, which needs a ``/proc`` of its own.
command, folder: what is run, and where.
cores: how many processors it may use, at most.

The exit code is the command's, 128 + n where signal n ended it, and 125 where mounting failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from typing import Any

FAILED = 125
READ_ONLY, REMOUNT, BIND, RECURSIVE = 1, 32, 4096, 16384  # flags of mount(2)
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000  # Linux 5.12; the number is every machine's
SET_CHILD_SUBREAPER = 36  # of prctl(2)
LIBC = ctypes.CDLL(None, use_errno=True)


class Attributes(ctypes.Structure):
    """``struct mount_attr`` of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    """mount(2).

    Raises:
        OSError: the kernel refuses it.
    """
    done = LIBC.mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), None)
    _check(done, target)


def _check(done: int, target: str) -> None:
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def read_only(target: str, deep: bool = True) -> None:
    """Nothing below a mount can be written from now on.

    An older kernel cannot do that to what is mounted below it: there, only the mount itself is.
    """
    flags = AT_RECURSIVE if deep else 0
    asked = Attributes(set=READ_ONLY)
    size = ctypes.c_size_t(ctypes.sizeof(asked))
    done = LIBC.syscall(MOUNT_SETATTR, AT_FDCWD, target.encode(), flags, ctypes.byref(asked), size)
    if done != 0:
        mount("none", target, flags=REMOUNT | BIND | READ_ONLY)


def build(plan: dict[str, Any]) -> None:
    """Mount everything, and make it the root of this process."""
    root: str = plan["root"]
    mount("tmpfs", root, "tmpfs")
    for path, target in plan["links"].items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for source, path, writable in plan["binds"]:
        _bind(source, root + path)
        if not writable:
            read_only(root + path)
    os.makedirs(root + "/proc", exist_ok=True)
    if plan["proc"]:
        mount("proc", root + "/proc", "proc")
    else:
        mount("/proc", root + "/proc", flags=BIND | RECURSIVE)
    if os.path.isdir(root + "/dev/shm"):
        mount("tmpfs", root + "/dev/shm", "tmpfs")
    read_only(root, deep=False)
    os.chroot(root)


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with contextlib.suppress(FileExistsError), open(target, "x"):
            pass
    mount(source, target, flags=BIND | RECURSIVE)


def run(command: list[str], folder: str) -> int:
    """Run it as a child and wait; orphans of its own come to this process."""
    LIBC.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.execv(command[0], command)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def main() -> int:
    """Mount, then run."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        plan = json.load(stream)
    if plan["root"] is not None:
        try:
            build(plan)
        except OSError as error:
            print(f"cannot mount {error.filename}: {error.strerror}", file=sys.stderr)
            return FAILED
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: plan["cores"]])
    return run(plan["command"], plan["folder"])


if __name__ == "__main__":
    sys.exit(main())
