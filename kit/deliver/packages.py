"""A Python environment with the packages of Kaggle's image and no others, made of those installed here."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from kit.deliver.sandbox import interpreter

# `pip freeze` leaves it out of its list, and every image has it.
ALWAYS = ("pip",)


@dataclass(frozen=True)
class Packages:
    """What a rehearsed kernel can import.

    folder: the environment; ``bin/python`` starts it.
    sources: where the files that it links to lie.
    other: packages of another version than the image's: name -> (here, there).
    absent: packages that the image has and this machine has not.
    borrowed: bundled packages that were built for another Python, taken from this machine instead.
    needed: packages that the image lacks, but what is installed here does not import without them.
    """

    folder: Path
    sources: tuple[Path, ...]
    linked: tuple[str, ...]
    other: Mapping[str, tuple[str, str]]
    absent: tuple[str, ...]
    borrowed: tuple[str, ...]
    needed: tuple[str, ...]


def build(
    folder: Path, image: Mapping[str, str], wheels: Iterable[Path] = (), requires: Iterable[str] = ()
) -> Packages:
    """Make an environment that links to the packages of this one which the image has.

    Args:
        image: what the image has: name -> version.
        wheels: the bundled ones. One that pip can install here is not linked: the kernel has to.
        requires: what the kernel asks for by itself; never linked for the sake of another package.
    """
    here = installed()
    there = {str(canonicalize_name(name)): version for name, version in image.items()}
    borrowed = {name for name in map(_foreign, wheels) if name in here and name not in there}
    wanted = {name for name in (*there, *ALWAYS) if name in here} | borrowed
    barred = {str(canonicalize_name(name)) for name in requires} - wanted
    needed = _closure(wanted, here, barred) - wanted
    _make(folder)
    linked = wanted | needed
    _link(folder / "lib" / _version() / "site-packages", linked, here)
    other = {
        n: (here[n].version, there[n]) for n in sorted(wanted & set(there)) if here[n].version != there[n]
    }
    return Packages(
        folder=folder,
        sources=tuple(sorted({_root(here[name]) for name in linked})),
        linked=tuple(sorted(linked)),
        other=other,
        absent=tuple(sorted(set(there) - set(here))),
        borrowed=tuple(sorted(borrowed)),
        needed=tuple(sorted(needed)),
    )


@cache
def installed() -> dict[str, metadata.Distribution]:
    """The packages of this environment by their normalised names; the first on the path counts."""
    found: dict[str, metadata.Distribution] = {}
    for item in metadata.distributions():
        if item.metadata["Name"]:
            found.setdefault(canonicalize_name(item.metadata["Name"]), item)
    return found


def _foreign(wheel: Path) -> str:
    """The package of a wheel that pip cannot install here; empty where it can."""
    try:
        name, _, _, tags = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename:
        return ""
    return "" if any(_fits(t.interpreter, t.abi, t.platform) for t in tags) else str(name)


def _fits(python: str, abi: str, where: str) -> bool:
    """Whether a wheel's tag is this interpreter's and this machine's."""
    if where != "any" and not (where.startswith("manylinux") and where.endswith(platform.machine())):
        return False
    if python in ("py3", f"py3{sys.version_info.minor}"):
        return True
    if not (python.startswith("cp3") and python[3:].isdecimal()):
        return False
    minor = int(python[3:])
    return minor == sys.version_info.minor or (abi == "abi3" and minor <= sys.version_info.minor)


def _closure(names: set[str], here: Mapping[str, metadata.Distribution], barred: set[str]) -> set[str]:
    """What packages need of what is installed, and what that needs in turn."""
    found = [(name, "") for name in sorted(names)]
    for name, extra in found:  # it grows meanwhile
        for line in here[name].requires or ():
            found += [
                more
                for more in _asked(line, extra)
                if more[0] in here and not {more[0]} & barred and more not in found
            ]
    return {name for name, _ in found}


def _asked(line: str, extra: str) -> list[tuple[str, str]]:
    """The package that a line of ``Requires-Dist`` asks for on this machine, with each of its extras."""
    try:
        asked = Requirement(line)
    except InvalidRequirement:
        return []
    if asked.marker is not None and not asked.marker.evaluate({"extra": extra}):
        return []
    return [(canonicalize_name(asked.name), more) for more in ("", *sorted(asked.extras))]


def _version() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def _make(folder: Path) -> None:
    """An empty virtual environment, as PEP 405 describes one."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to(interpreter())
    home = os.path.dirname(interpreter())
    (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    (folder / "lib" / _version() / "site-packages").mkdir(parents=True)


def _link(site: Path, wanted: set[str], here: Mapping[str, metadata.Distribution]) -> None:
    """Link to the files of packages: whole folders, unless another package has files in them too."""
    others = {part for name in set(here) - wanted for file in _files(here[name]) for part in _parents(file)}
    done: set[str] = set()
    for name in sorted(wanted):
        root = _root(here[name])
        for file in _files(here[name]):
            place = next((part for part in _parents(file) if part not in others), file)
            if place not in done and (root / place).exists():
                done.add(place)
                (site / place).parent.mkdir(parents=True, exist_ok=True)
                (site / place).symlink_to(root / place)


def _parents(file: str) -> list[str]:
    """The folders of a file from the top.

    >>> _parents("a/b/c.py")
    ['a', 'a/b']
    """
    parts = file.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


@cache
def _files(item: metadata.Distribution) -> list[str]:
    """Of a package, the files that lie beside others, and are no scripts and no other's bytecode."""
    names = [str(path) for path in item.files or ()]
    return [name for name in names if not name.startswith(("..", "/", "__pycache__")) and name[-4:] != ".pth"]


def _root(item: metadata.Distribution) -> Path:
    return Path(str(item.locate_file(""))).resolve()
