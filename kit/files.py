"""Files that appear whole or not at all, and the digests that say whether one has changed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import os
import time
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit import processes
from kit.errors import DataError, KitError, StorageError
from kit.processes import Process

# What NumPy and zipfile raise on an ``.npz`` file that is absent, damaged or not what it should be.
DAMAGE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile)
SAMPLE = 65536  # bytes hashed at each end of a large image
TEMPORARY = ".tmp-"
FORGOTTEN = 86400.0  # seconds after which a temporary file of another machine is taken for a dead one's


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place in one step.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    # It says whose it is, for `sweep`; the suffix stays last because writers look at it.
    owner = f"{processes.mine()}-{uuid.uuid4().hex[:8]}"
    temporary = path.with_name(f"{TEMPORARY}{owner}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(error, path) or error from error
    finally:
        with contextlib.suppress(OSError):  # where no file can be there, there is none to remove
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete what processes that are dead left of files that they were writing."""
    for left in folder.rglob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):  # its owner, or another sweep, was faster
            if left.is_file() and _is_abandoned(left):
                left.unlink()


def _is_abandoned(temporary: Path) -> bool:
    parts = temporary.name.removeprefix(TEMPORARY).split("-", 3)
    owner = Process.parse("-".join(parts[:3]))
    if owner is None or owner.is_here:
        return owner is None or owner.is_dead
    return time.time() - temporary.stat().st_mtime > FORGOTTEN


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that other processes wait for; ``path`` is a file for nothing else.

    The system frees the lock of a process that dies.

    Raises:
        StorageError: the folder cannot be written, or its file system has no locks.
    """
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(path.open("ab"))
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            raise storage_error(error, path) or error from error
        # Closing would not do: a fork of this process may hold the file open too.
        stack.callback(fcntl.flock, stream, fcntl.LOCK_UN)
        yield


def storage_error(error: OSError, path: Path | None = None) -> KitError | None:
    """The user's version of an operating system error, or None where it is not about storage."""
    where = path or error.filename or "the work folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space, or use another disk with --work DIR; then repeat the command"
        return StorageError(f"no space is left on the disk while writing {where}", hint)
    if error.errno in (errno.ENOLCK, errno.ENOTSUP):
        hint = "put the work folder on a local disk, or on a file system with locks: --work DIR"
        return StorageError(f"{where} cannot be locked: {error.strerror}", hint)
    barred = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
    if error.errno in barred or (error.errno == errno.ENOENT and path and not path.parent.is_dir()):
        hint = "choose a folder that you can write to: --work DIR, and run from such a folder"
        return StorageError(f"{where} cannot be written: {error.strerror}", hint)
    return None


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes in one step."""
    write_file(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends in one step."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: object) -> None:
    """Write readable JSON with sorted keys in one step."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is not there."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def write_table(path: Path, table: pd.DataFrame, float_format: str | None = None) -> None:
    """Write a table as CSV without its index: LF line ends, floats by ``repr`` unless a format is given."""
    text = table.to_csv(index=False, lineterminator="\n", float_format=float_format)
    write_text(path, text)


def read_strings(path: Path) -> pd.DataFrame:
    """Read a CSV with every cell as text, so that ``006388`` and ``2e3749`` stay what they are.

    A name that ends in ``.gz`` is unpacked while it is read.

    Raises:
        DataError: the file cannot be read, or is no CSV.
    """
    try:
        with warnings.catch_warnings():
            # A row of more cells than the header has would make its first cells an index, or lose its last.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig", index_col=False
            )
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}", "download it again") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}", "check the path and its rights"
        ) from error
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' own, and bytes that are no text
        raise DataError(f"{path} is not a readable CSV: {error}", "make or download it again") from error
    return table.astype(object)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` file, uncompressed and without pickles, in one step.

    Raises:
        TypeError: an array holds objects.
    """
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise TypeError(f"{path.name}: {', '.join(objects)} could only be pickled")
    # NumPy before 2.1 takes allow_pickle for the name of another array.
    write_file(path, lambda temporary: np.savez(temporary, **arrays))  # type: ignore[arg-type]


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]] | None:
    """Arrays of an ``.npz`` file, whose checksums are tested; ``None`` if it is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in names}
    except DAMAGE:
        return None


def numbers(cells: pd.DataFrame) -> pd.DataFrame:
    """Text cells as floats; NaN where one is no number."""
    return pd.DataFrame({name: _numbers(cells[name]) for name in cells})


def _numbers(cells: pd.Series[str]) -> pd.Series[float]:
    """A column of them; pandas alone takes ``+5e 2`` for a number, and may be off by the last digit."""
    found: pd.Series[float] = pd.to_numeric(cells, errors="coerce")
    if found.dtype.kind != "f" or cells.dtype.kind == "f":
        return found
    known = found.notna()
    found[known] = np.array([_float(text) for text in cells[known]])
    return found


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def digest(content: object) -> str:
    """SHA-256 of anything that JSON can hold, independent of key order."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a whole file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(path: Path, series: bool = True) -> str:
    """Size and hash of both ends of an image: reads 128 KiB of a 3 GB slide; ``missing`` if absent.

    A path inside a zip archive is fingerprinted by the archive's size and ends. Of a slide that lies in
    several files (``.mrxs`` with a folder of its name, a folder of ``.dcm``), the names and sizes of the
    others count too, unless ``series`` says that each file is an image by itself.
    """
    archive, member = split_archive(path)
    if not archive.is_file():
        return "missing"
    size = archive.stat().st_size
    with archive.open("rb") as stream:
        ends = stream.read(SAMPLE)
        stream.seek(max(0, size - SAMPLE))
        ends += stream.read(SAMPLE)
    others = _companions(path) if series and not member else ""
    return f"{size}-{hashlib.sha256(ends).hexdigest()[:16]}{others}{'-' + member if member else ''}"


def _companions(path: Path) -> str:
    """A digest of the names and sizes of the files that belong to a slide; empty if it is one file."""
    kind = path.suffix.lower()
    if kind == ".mrxs":
        folder, found = path.with_suffix(""), list(path.with_suffix("").rglob("*"))
    elif kind == ".dcm":
        folder = path.parent
        found = [other for other in folder.iterdir() if other.suffix.lower() == kind and other != path]
    else:
        return ""
    sizes = [
        (other.relative_to(folder).as_posix(), other.stat().st_size) for other in found if other.is_file()
    ]
    return f"-{digest(sorted(sizes))[:16]}" if sizes else ""


def with_column(path: Path) -> tuple[Path, str]:
    """Split ``FILE:COLUMN`` into the file and the column that is meant; the column is empty for a plain file.

    >>> with_column(Path("no_such_table.csv"))[1]
    ''
    """
    if path.is_file():
        return path, ""
    file, _, column = str(path).rpartition(":")
    return (Path(file), column) if Path(file).is_file() else (path, "")


def split_archive(path: Path) -> tuple[Path, str]:
    """Split ``photos.zip/a/b.png`` into the archive and its member; the member is empty for a plain file.

    >>> split_archive(Path("photos.zip/a/b.png"))[1]
    'a/b.png'
    """
    for parent in path.parents:
        if parent.suffix.lower() == ".zip" and not parent.is_dir():
            return parent, path.relative_to(parent).as_posix()
    return path, ""
