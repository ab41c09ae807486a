"""Which code and what kind of machine a result comes from, without saying whose."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from kit import __version__

PACKAGE = Path(__file__).parents[1]
SOURCE = (".py", ".toml", ".j2")  # files of the package that decide what it computes
PATIENCE = 10.0  # seconds that git may take
# How far a probability of an image may be off: on the same libraries and kind of machine, and elsewhere.
TOLERANCE = {"same": 2e-6, "other": 1e-4}


def code() -> dict[str, Any]:
    """Version and digest of the package; commit, and whether it was changed since, where git keeps it."""
    kept = _git("ls-files", "--error-unmatch", "__init__.py") is not None
    changed = _git("status", "--porcelain", "--", ".") if kept else None
    return {
        "version": __version__,
        "digest": source_digest(PACKAGE),
        "commit": _git("rev-parse", "HEAD") if kept else None,
        "dirty": None if changed is None else bool(changed),
    }


def source_digest(folder: Path) -> str:
    """SHA-256 over the relative path and the bytes of every source file, in order of the paths."""
    found = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.suffix in SOURCE}
    for name in sorted(files):
        data = files[name].read_bytes()
        found.update(f"{name}\0{len(data)}\0".encode() + data)
    return found.hexdigest()


def _git(*words: str) -> str | None:
    """What git says of the package's folder; ``None`` where it says nothing for sure."""
    # A hook or a parent's git may have set where its repository is, which need not be this one's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=PACKAGE, env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> str:
    """The kind of processor and GPU: on the same kind, the same code gives the same bytes."""
    return f"{_processor()}, {platform.machine()}, {_gpu()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join((names or [platform.processor() or "processor not known"])[0].split())


def _gpu() -> str:
    """The GPU, if anything has been computed with torch in this process: it is not imported for that."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "no GPU"
    return str(torch.cuda.get_device_name())
