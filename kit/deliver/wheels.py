"""The wheels that Kaggle's image lacks, resolved completely for its Python: CPython 3.12 on Linux, x86-64.

pip resolves. What the image has is shown to pip as empty wheels of the image's own versions, so that
nothing of it is downloaded, whatever is chosen agrees with it, and what is left is what the image lacks.
As pip judges conditions such as ``python_version < "3.12"`` by the Python that runs it, what it found is
checked once more for the image's. The address of an index is written nowhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from kit.errors import DataError, KitError, SettingError

PYTHON = (3, 12)
# The oldest manylinux that is tried is that of glibc 2.5; the image's own glibc is newer than 2.28.
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)), "manylinux2014_x86_64")
WHERE = "CPython 3.12 on Linux x86-64"
# What conditions of requirements are judged by, instead of the Python that runs this.
ENVIRONMENT = {
    "implementation_name": "cpython",
    "implementation_version": "3.12.0",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": "3.12.0",
    "python_version": "3.12",
    "sys_platform": "linux",
    "extra": "",
}
IMAGE = Path(__file__).with_name("kaggle_image.txt")
OLDEST = Path(__file__).with_name("oldest.txt")
STUB = "image"  # local part of the versions of the empty wheels, which no index has
# What pip says where it cannot reach an index, and where versions do not go together.
OFFLINE = re.compile(
    "Retrying|connection broken|Max retries|Failed to (connect|establish|resolve)|Could not fetch"
)
CONFLICT = re.compile("ResolutionImpossible|conflicting dependencies")
ABSENT = re.compile(
    r"(?:No matching distribution found for|satisfies the requirement) ([A-Za-z0-9][A-Za-z0-9._-]*)"
)


@dataclass(frozen=True)
class Wheel:
    """A wheel of the bundle; ``file`` is its name in the folder."""

    name: str
    version: str
    file: str


class _Unresolved(Exception):
    """pip found no wheels that go together; it is kept what of its words may be repeated."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self.absent = sorted({canonicalize_name(name) for name in ABSENT.findall(said)})
        self.conflict = CONFLICT.search(said) is not None
        self.offline = OFFLINE.search(said) is not None


def image(path: Path | None = None) -> dict[str, str]:
    """What an image has installed, from what ``pip freeze`` says there: normalised name to version.

    Args:
        path: None for the kit's own list of Kaggle's image.

    Raises:
        DataError: the file cannot be read, or has no line ``name==version``.
    """
    return _releases(path or IMAGE)


def _releases(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}", "name a file that pip freeze wrote") from error
    found = dict(item for line in lines if (item := _release(line)))
    if not found:
        hint = "in a notebook on Kaggle: !pip freeze > image.txt; then --image image.txt"
        raise DataError(f"{path} has no line name==version", hint)
    return found


def _release(line: str) -> tuple[str, str] | None:
    """A line of ``pip freeze``; None of a comment and of what was installed from no release."""
    line = line.partition(" #")[0].strip()
    name, _, address = line.partition(" @ ")
    try:
        if address:
            file = unquote(urlsplit(address).path).rpartition("/")[2]
            return canonicalize_name(name), str(parse_wheel_filename(file)[1])
        name, _, version = line.partition("==")
        return canonicalize_name(name.partition("[")[0].strip(), validate=True), str(Version(version))
    except ValueError:  # whatever is wrong with a name, a version or an address
        return None


# Oldest supported release of each library that the kernel imports; `.ci/full` tests exactly these.
LEAST: Mapping[str, str] = MappingProxyType(_releases(OLDEST))


def lacking(requirements: Path | None, image: Mapping[str, str]) -> dict[str, str]:
    """What the kernel imports and the image lacks, or has older than the kit supports: name to version.

    A network is code of timm: of that the image must have no older release than the one taken here.

    Args:
        requirements: the kit's pins, ``name==version``, whose versions are taken; where there is no such
            file, as in an installed kit, those that are installed here.
        image: as :func:`image` returns it.
    """
    pins = _releases(requirements) if requirements is not None and requirements.is_file() else {}
    taken = {name: pins.get(name) or _installed(name) for name in sorted(LEAST)}
    least = {**LEAST, "timm": taken["timm"]}
    return {
        name: version
        for name, version in taken.items()
        if Version(image.get(name, "0")) < Version(least[name])
    }


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return LEAST[name]


def collect(
    lacking: Mapping[str, str], image: Mapping[str, str], source: Literal["download"] | Path, out: Path
) -> list[Wheel]:
    """Put the wheels of what is lacking, and of what those need and the image lacks too, into ``out``.

    Args:
        lacking: name to version. Where that does not go with what the image has, an older one that the
            kit supports is taken; of what is not the kit's own, none.
        source: ``"download"`` for the index that pip is configured with, or a folder of wheels.

    Returns: what lies in ``out`` now, sorted by name.

    Raises:
        SettingError: the folder is not there.
        DataError: there is no wheel for the image's Python, or none that goes with what the image has.
        KitError: pip is not there, or cannot reach its index.
    """
    if isinstance(source, Path) and not source.is_dir():
        raise SettingError(f"--wheels {source} is no folder", "name a folder of wheels, or download, or none")
    has = {name: version for name, version in image.items() if name not in lacking}
    exact = [f"{name}=={version}" for name, version in sorted(lacking.items())]
    ranges = [f"{name}>={LEAST.get(name, version)},<={version}" for name, version in sorted(lacking.items())]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        try:
            wheels = _closure(exact, has, source, Path(place) / "exact")
        except _Unresolved:
            try:
                wheels = _closure(ranges, has, source, Path(place) / "ranges")
            except _Unresolved as failure:
                raise _explained(failure, exact, source) from None
        for path in wheels:
            shutil.copyfile(path, out / path.name)
    return sorted((Wheel(*_identity(path), path.name) for path in wheels), key=lambda wheel: wheel.name)


def _explained(failure: _Unresolved, wanted: list[str], source: str | Path) -> KitError:
    """What is wrong and what to type next, without pip's own words, which name its index."""
    names = ", ".join(failure.absent) or ", ".join(wanted)
    if failure.offline:
        hint = f"where there is a network: {fetch(wanted)}; then --wheels wheels. Or without: --wheels none"
        return KitError(f"pip cannot reach its index; Kaggle's image lacks {', '.join(wanted)}", hint)
    where = f"in {source}" if isinstance(source, Path) else "in pip's index"
    if failure.conflict:
        hint = "give the image's own list with --image FILE: !pip freeze > image.txt in a notebook there"
        return DataError(f"no wheels {where} of {names} go together with what the image has", hint)
    return DataError(f"there is no wheel {where} of {names} for {WHERE}", f"try {fetch(wanted)}")


def fetch(wanted: Iterable[str]) -> str:
    """The command that fetches wheels for the image's Python on another machine.

    >>> fetch(["tifffile==2026.3.3"])[-37:]
    '--no-deps -d wheels tifffile==2026.3.3'
    """
    target = "--only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64"
    return f"pip download {target} --platform manylinux2014_x86_64 --no-deps -d wheels {' '.join(wanted)}"


def _closure(roots: list[str], has: Mapping[str, str], source: str | Path, place: Path) -> list[Path]:
    """Wheels of ``roots`` and of all that they need in the image's Python, without what the image has.

    Raises:
        _Unresolved: there are none that go together.
    """
    wanted, kept = list(roots), list[Path]()
    while wanted:
        folder = place / str(len(wanted))
        _download(wanted, has, source, folder)
        wheels = {_identity(path)[0]: path for path in sorted(folder.glob("*.whl"))}
        kept, absent = _needed(roots, {**dict.fromkeys(has), **wheels})
        wanted = [*wanted, *absent] if absent else []
    return kept


def _needed(roots: list[str], there: Mapping[str, Path | None]) -> tuple[list[Path], list[str]]:
    """The wheels that are reached from ``roots`` by the conditions of the image's Python, and what is absent.

    Args:
        there: name to wheel, or to None where the image has it with all that it needs.
    """
    waiting, seen = list(roots), set[str]()
    kept, absent = dict[Path, None](), list[str]()
    while waiting:
        text = waiting.pop()
        if text in seen:
            continue
        seen.add(text)
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        path = there.get(name)
        if path is not None:
            kept[path] = None
            waiting += _requirements(path, requirement.extras)
        elif name not in there:
            absent.append(text)
    return list(kept), sorted(absent)


def _requirements(path: Path, extras: Iterable[str]) -> Iterator[str]:
    """What a wheel needs in the image's Python, as requirements without conditions."""
    for text in _about(path).get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        marker, requirement.marker = requirement.marker, None
        if marker is None or any(marker.evaluate({**ENVIRONMENT, "extra": e}) for e in ["", *extras]):
            yield str(requirement)


def _download(wanted: list[str], has: Mapping[str, str], source: str | Path, folder: Path) -> None:
    """Let pip put the wheels of ``wanted``, and of what they need but the image has, into ``folder``.

    Raises:
        _Unresolved: it could not.
    """
    stubs, limits = folder / "image", folder / "limits.txt"
    stubs.mkdir(parents=True)
    for name, version in has.items():
        _write_stub(stubs, name, _stub(version))
    limits.write_text("".join(f"{name}=={_stub(version)}\n" for name, version in has.items()))
    options = ["--no-input", "--disable-pip-version-check", "--retries=2", f"--dest={folder}"]
    options += ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp"]
    options += [f"--platform={platform}" for platform in PLATFORMS]
    options += [f"--find-links={stubs}", f"--constraint={limits}"]
    environment = dict(os.environ)
    if isinstance(source, Path):
        options += ["--no-index", f"--find-links={source.resolve()}"]
        # Nor may a setting of pip's add another place to look in.
        environment = {key: value for key, value in environment.items() if not key.startswith("PIP_")}
        environment["PIP_CONFIG_FILE"] = os.devnull
    command = [sys.executable, "-m", "pip", "download", *options, *wanted]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "No module named pip" in done.stderr:
        raise KitError("pip is not installed here", "python -m ensurepip; or without wheels: --wheels none")
    if done.returncode:
        raise _Unresolved(done.stdout + done.stderr)
    for path in folder.glob(f"*+{STUB}-*.whl"):
        path.unlink()
    for path in sorted(folder.glob("*.whl")):
        check(path)


def _stub(version: str) -> str:
    """The version of an empty wheel, for which ``==`` and ``>=`` hold as for the image's own."""
    return f"{Version(version).public}+{STUB}"


def _write_stub(folder: Path, name: str, version: str) -> None:
    stem = f"{name.replace('-', '_')}-{version}"
    about = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        for file, text in about.items():
            archive.writestr(f"{stem}.dist-info/{file}", text)


@cache
def _tags() -> frozenset[Tag]:
    """What the image's Python installs."""
    return frozenset(
        [*cpython_tags(PYTHON, ["cp312"], PLATFORMS), *compatible_tags(PYTHON, "cp312", PLATFORMS)]
    )


def check(path: Path) -> None:
    """Whether a file is a wheel that the image's Python installs, and is inside what its name says.

    Raises:
        DataError: it is not.
    """
    name, version = _identity(path)
    if not parse_wheel_filename(path.name)[3] & _tags():
        raise DataError(f"{path.name} is no wheel for {WHERE}", f"try {fetch([f'{name}=={version}'])}")
    about = _about(path)
    inside = canonicalize_name(about["Name"] or ""), about["Version"] or "0"
    if (inside[0], Version(inside[1])) != (name, Version(version)):
        raise DataError(f"{path.name} says inside that it is {' '.join(inside)}", "download it again")


def _identity(path: Path) -> tuple[str, str]:
    """Normalised name and version, as the name of a wheel's file says them.

    Raises:
        DataError: it is not the name of a wheel.
    """
    try:
        name, version, *_ = parse_wheel_filename(path.name)
    except ValueError as error:
        raise DataError(
            f"{path.name} is not named as a wheel is", "delete it, or download it again"
        ) from error
    return name, str(version)


def _about(path: Path) -> Message:
    """The metadata in a wheel.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            return HeaderParser().parsestr(archive.read(inside[0]).decode())
    except (OSError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} is damaged: it has no metadata", "download it again") from error
