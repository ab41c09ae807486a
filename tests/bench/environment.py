"""The environment of the peers: a venv of its own, made once from ``requirements.txt``."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from kit.errors import KitError

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = ROOT / "work" / "bench-peers"
STAMP = "requirements.sha256"

log = logging.getLogger(__name__)


class PeerError(KitError):
    """A peer that cannot be installed or does not run: never a blank in the table."""


def peers_python(folder: Path = FOLDER, requirements: Path = REQUIREMENTS) -> Path:
    """The interpreter that has the peers; its environment is made at the first call (a minute, 1-6 GB).

    The folder remembers the digest of the requirements and the version of Python: another one, or a
    making that was interrupted, makes it anew.

    Args:
        folder: where the environment is kept.
        requirements: exact pins, as pip reads them.

    Raises:
        PeerError: a package cannot be installed, or the folder holds something else.
    """
    folder = folder.absolute()  # not resolved: a venv's python is a link to the one outside
    python, stamp = folder / "bin" / "python", folder / STAMP
    wanted = _digest(requirements)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise PeerError(f"{folder} is not an environment", "name an empty folder for the peers")
    log.info("making the peers' environment in %s, once", folder)
    venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(folder)
    _install(python, requirements)
    stamp.write_text(wanted)  # last: without it the environment does not count
    return python


def run_peers(problems: Path, predictions: Path, folder: Path = FOLDER) -> None:
    """Let every peer predict ``problems`` (an .npz, see ``peers.py``) into ``predictions``; shows progress.

    Raises:
        PeerError: the peers ended with an error, which they have printed.
    """
    files = [str(problems.absolute()), str(predictions.absolute())]
    words = [str(peers_python(folder)), "-m", "tests.bench.peers", *files]
    ended = subprocess.run(words, cwd=ROOT, env=_outside(), check=False)
    if ended.returncode:
        raise PeerError(f"the peers ended with code {ended.returncode}", "their own words are above")


def ask(script: Path, question: object, folder: Path, requirements: Path) -> Any:
    """Let a script in the environment of ``folder`` answer a question, both JSON, in a process of its own.

    Raises:
        PeerError: the script ended with an error, whose last lines the message holds.
    """
    words = [str(peers_python(folder, requirements)), str(script)]
    ended = subprocess.run(
        words, input=json.dumps(question), env=_outside(), capture_output=True, text=True, check=False
    )
    if ended.returncode:
        said = "\n".join(ended.stderr.splitlines()[-3:]) or "it did not say why"
        raise PeerError(f"{script.name} ended with code {ended.returncode}: {said}", "mend or pin the peer")
    return json.loads(ended.stdout)


def _digest(requirements: Path) -> str:
    """What an environment was made from."""
    version = f"python {sys.version_info.major}.{sys.version_info.minor}\n".encode()
    return hashlib.sha256(version + requirements.read_bytes()).hexdigest()


def _install(python: Path, requirements: Path) -> None:
    words = [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
    ended = subprocess.run(words, env=_outside(), capture_output=True, text=True, check=False)
    if ended.returncode:
        raise PeerError(
            f"the peers need {_missing(ended.stderr)}",
            f"mend the network or the package index, or the pin in {requirements}, and run again",
        )


def _missing(said: str) -> str:
    """The package that pip could not install, from its errors."""
    found = re.search(r"(?:No matching distribution found for|satisfies the requirement) (\S+)", said)
    if found:
        return f"{found[1]}, which pip cannot find"
    errors = [line for line in said.splitlines() if line.startswith("ERROR")] or said.splitlines()[-1:]
    return f"packages that pip cannot install: {' '.join(errors) or 'it did not say why'}"


def _outside() -> dict[str, str]:
    """The variables without those that would lend the peers this environment's packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
