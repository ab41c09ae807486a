"""Archives and folders that are handed over: the same bytes every time, and nothing taken on trust.

What comes back from elsewhere may be damaged or made to harm: a path that climbs out of its folder, a
symbolic link, a pickle that runs code when it is read, a file that grows a thousandfold.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from kit.errors import DataError
from kit.files import DAMAGE, digest, file_digest, write_file

PARTS = ("code", "weights", "wheels")
PART = "part.json"
UNLISTED = (PART, "dataset-metadata.json")  # what Kaggle's client reads itself, and never uploads
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
MOST_FILES, MOST_BYTES = 20_000, 2**30  # in an archive of code
MOST_GROWTH = 200  # unpacked bytes for one that is packed
HEADER = 100_000_000  # bytes of a safetensors header, at most: the format's own limit


def pack(files: Mapping[str, Path | bytes], out: Path) -> None:
    """Write a zip whose bytes depend on nothing but names and contents.

    Args:
        files: what is packed, by its path in the archive.
    """

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in sorted(files.items()):
                info = zipfile.ZipInfo(name, DATE)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                data = content if isinstance(content, bytes) else content.read_bytes()
                archive.writestr(info, data, compresslevel=6)

    write_file(out, write)


def inspect(path: Path, most: int = MOST_BYTES) -> list[str]:
    """What is wrong with an archive, a sentence each; empty if it may be unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = _odd_members(path, archive.infolist(), most)
            if _told(path) != len(archive.infolist()):
                found.append(f"{path} is damaged: it does not hold as many files as it says")
            if not found and (bad := archive.testzip()) is not None:
                found.append(f"{path} is damaged: '{bad}' is not as it was packed")
    except (*DAMAGE, zlib.error, RuntimeError) as error:
        return [f"{path} is no readable archive ({error})"]
    return found


def _told(path: Path) -> int:
    """How many files the last record of a zip says that it holds: `zipfile` does not look there."""
    with path.open("rb") as stream:
        stream.seek(-22, os.SEEK_END)
        record = stream.read()
    return int.from_bytes(record[10:12], "little") if record[:4] == b"PK\5\6" else -1


def _odd_members(path: Path, members: list[zipfile.ZipInfo], most: int) -> list[str]:
    """Faults that the directory of an archive shows, before a byte is unpacked."""
    found, seen = [], set[str]()
    for member in members:
        if why := _odd_name(member.orig_filename) or _odd_kind(member):
            found.append(f"{path} holds '{member.orig_filename}', {why}")
        # Some file systems cannot tell A from a.
        folded = member.filename.rstrip("/").casefold()
        if folded in seen:
            found.append(f"{path} holds '{member.filename}' twice")
        seen.add(folded)
    size, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if size > most or size > MOST_GROWTH * max(packed, 1024) or len(members) > MOST_FILES:
        found.append(f"{path} would grow from {packed} to {size} bytes in {len(members)} files")
    return found


def _odd_name(name: str) -> str:
    """Why a path in an archive cannot be trusted; empty if it stays in its folder."""
    path = PurePosixPath(name)
    if "\\" in name or "\0" in name or re.match("[A-Za-z]:", name):
        return "whose name means another place on another system"
    if path.is_absolute() or name.startswith("/"):
        return "an absolute path"
    if ".." in path.parts:
        return "a path that climbs out of its folder"
    return "" if name.strip("/.") else "which is no name"


def _odd_kind(member: zipfile.ZipInfo) -> str:
    """Why a member is no plain file or folder; empty if it is one."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "which is neither a file nor a folder"
    return "which is encrypted" if member.flag_bits & 1 else ""


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path with ``/``, sorted.

    Raises:
        DataError: something there is a link, or neither a file nor a folder.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise DataError(f"{path} is a symbolic link", "put the file itself there")
        if path.is_file():
            found[name] = file_digest(path)
        elif not path.is_dir():
            raise DataError(f"{path} is neither a file nor a folder", "remove it")
    return found


def swap(made: Path, out: Path) -> None:
    """Put a folder that is whole where an older one was; a kill leaves one of them, or none."""
    old = out.with_name(f".old-{out.name}")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(made, out)
    shutil.rmtree(old, ignore_errors=True)


# -- the parts of a bundle


def identity(parts: Mapping[str, Mapping[str, str]]) -> str:
    """The ID of a bundle: 12 hex digits of the digests of all files of all parts."""
    return digest({name: dict(files) for name, files in parts.items()})[:12]


def listed(folder: Path) -> dict[str, str]:
    """The files of a part that its ``part.json`` vouches for."""
    return {name: value for name, value in digests(folder).items() if name not in UNLISTED}


def check_parts(inputs: Path, bundle: str = "") -> list[str]:
    """What is wrong with the parts of a bundle, a sentence each; empty if they are as they were made.

    Args:
        inputs: the folder that holds them, each under its name.
        bundle: the ID that they must have; any one if empty.
    """
    faults, parts, identities = [], {}, set[str]()
    present = [name for name in PARTS if (inputs / name).exists()]
    for name in present:
        if (inputs / name).is_symlink():
            faults.append(f"{inputs / name} is a symbolic link")
            continue
        about = _about(inputs / name / PART)
        if about is None or about["part"] != name:
            faults.append(f"{inputs / name / PART} is not there, or is not the list of the part {name}")
            continue
        identities.add(str(about["bundle"]))
        parts[name] = about["files"]
        faults += _differences(inputs / name, about["files"])
    if "code" not in present:
        faults.append(f"the part code is not in {inputs}")
    return faults or _strangers(inputs, identities | {identity(parts)}, bundle)


def _strangers(inputs: Path, identities: set[str], bundle: str) -> list[str]:
    """Parts of another bundle among those of this one."""
    if len(identities) > 1:
        return [f"{inputs} holds parts of several bundles: {', '.join(sorted(identities))}"]
    if bundle and identities != {bundle}:
        return [f"{inputs} is of the bundle {min(identities)}, and this is {bundle}"]
    return []


def _about(path: Path) -> dict[str, Any] | None:
    """What a ``part.json`` says; ``None`` if it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    right = isinstance(content, dict) and isinstance(content.get("files"), dict)
    return content if right and content.keys() >= {"kit", "part", "bundle"} else None


def _differences(folder: Path, said: Mapping[str, str]) -> list[str]:
    """Files of a part that are missing, too many, or not what its list says."""
    try:
        found = listed(folder)
    except DataError as error:
        return [error.message]
    faults = [f"{folder / name} is missing" for name in said if name not in found]
    faults += [f"{folder / name} is not in {PART}" for name in found if name not in said]
    changed = [name for name in said if name in found and found[name] != said[name]]
    return faults + [f"{folder / name} is not what it was when the bundle was made" for name in changed]


# -- weights


def check_weights(folder: Path) -> list[str]:
    """What among weights is no plain numbers or text, a sentence each: found by content, not by name."""
    try:
        names = digests(folder)
    except DataError as error:
        return [error.message]
    return [fault for name in names if (fault := _odd_weights(folder / name))]


def _odd_weights(path: Path) -> str:
    """Why a file cannot be among the weights; empty if it can."""
    wrong = {".safetensors": _odd_safetensors, ".json": _odd_json, ".npz": _odd_arrays}.get(path.suffix)
    why = "none of .safetensors, .json and .npz" if wrong is None else wrong(path)
    if why and _is_pickle(path):
        why = "a pickle, which can run anything when it is read"
    return f"{path} is {why}" if why else ""


def _is_pickle(path: Path) -> bool:
    """Whether a file is what ``torch.save`` or ``pickle`` writes."""
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith(".pkl") for name in archive.namelist())
        except DAMAGE:
            return False
    with path.open("rb") as stream:
        start = stream.read(2)
    return len(start) == 2 and start[0] == 0x80 and start[1] <= 5


def _odd_safetensors(path: Path) -> str:
    """Read the header: names, shapes and places, which must cover the file exactly."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(HEADER, size - 8):
            return "no safetensors"
        try:
            header = json.loads(stream.read(length))
            ends = sorted(v["data_offsets"] for k, v in header.items() if k != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError):
            return "no safetensors"
    place = 0
    for first, last in ends:
        if first != place or last < first:
            return "no whole safetensors: its tensors do not lie end to end"
        place = last
    return "" if place == size - 8 - length else "no whole safetensors: it is cut short, or holds more"


def _odd_json(path: Path) -> str:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return "no JSON"
    return ""


def _odd_arrays(path: Path) -> str:
    try:
        with np.load(path, allow_pickle=False) as content:
            if not all(isinstance(content[name], np.ndarray) for name in content.files):
                return "an .npz with something else than arrays"
    except ValueError as error:
        return "a pickle in an .npz" if "pickle" in str(error) else "no readable .npz"
    except (*DAMAGE, zlib.error, AttributeError):
        return "no readable .npz"
    return ""
