"""Images in a folder for each class, or in a zip of such folders: one row an image.

What is no image of a class is skipped, and listed with the reason: hidden files, files that are no image
whatever their name says, folders that are no class. Images of equal bytes share a cluster, so that folds
can keep them together; clusters whose images have several labels are listed too. Nothing is kept between
calls: every one looks at the files as they are.
"""

from __future__ import annotations

import io
import logging
import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, get_args

import pandas as pd
from PIL import Image

from kit.errors import DataError

Rule = Literal["sound", "jfif"]
Opener = Callable[[str], BinaryIO]
DEEP = 4  # folders below the data folder in which class folders are looked for
HEADER = 16  # bytes that hold the mark of a JPEG
MARK = b"JFIF"
APPLE = "__MACOSX"  # what an Apple computer adds to a zip
log = logging.getLogger("kit")


@dataclass(frozen=True)
class ClassFolders:
    """What was found.

    root: the folder or zip whose folders are the classes, relative to the data folder.
    images: image_id, file (relative to the data folder), label, cluster; sorted by file.
    skipped: file, reason. conflicts: cluster, image_id, label of equal images with several labels.
    accepted: how many files of the class folders each rule takes for an image, whichever was asked for.
    """

    root: str
    images: pd.DataFrame
    skipped: pd.DataFrame
    conflicts: pd.DataFrame
    accepted: dict[str, int]


def table(data: Path, classes: Sequence[str], rule: Rule = "sound", prefer: str = "") -> pd.DataFrame:
    """The images of class folders as a competition's table of training images; see `read`.

    What was skipped and what contradicts itself is said in one line of the log; ``attrs`` of the table hold
    both as plain rows, and what each rule takes: ``kit duplicates`` writes them.

    Raises:
        DataError: no class folders are there, or several as good, or one of them has no image.
    """
    found = read(data, classes, rule, prefer)
    name = data / found.root
    if len(found.skipped) or len(found.conflicts):
        log.info(
            "%s: %d images; %d entries skipped and %d equal images of several classes: "
            "`kit duplicates` lists them",
            *(name, len(found.images), len(found.skipped), len(found.conflicts)),
        )
    images = found.images
    # Plain tuples: pandas compares the attrs of tables that it joins, and a table has no one truth.
    images.attrs = {
        "source": str(name),
        "skipped": tuple(found.skipped.itertuples(index=False, name=None)),
        "conflicts": tuple(found.conflicts.itertuples(index=False, name=None)),
        "accepted": tuple(found.accepted.items()),
    }
    return images


def read(data: Path, classes: Sequence[str], rule: Rule = "sound", prefer: str = "") -> ClassFolders:
    """Look at the class folders below a data folder, or in a zip there.

    An image's id is the stem of its file; where several files share it, with the folder before it. Where
    class folders are in several places, those with the most files are taken, and the log says so; as many
    in two places, and not the same ones by name and size, are refused.

    Args:
        prefer: the name of a folder; places in it are taken before all others, wherever it is.
        rule: sound: Pillow knows the file and finds its header, and whatever checksums it has, right (that
            pixels can be decoded to the end is seen when they are). jfif: bytes 6 to 10 are "JFIF", which
            refuses good JPEGs of cameras (their mark is "Exif") and any other format.

    Raises:
        DataError: there are no class folders, or several as good, or one of them has no image.
    """
    root, names = _find(data, tuple(classes), prefer)
    wanted, reasons = _sorted_out(names, classes)
    with _opened(data / root) as opener:
        sizes: dict[str, int] = {}
        accepted = dict.fromkeys(get_args(Rule), 0)
        for name in wanted:
            found = _examined(opener, name)
            for one, reason in found.items():
                accepted[one] += not reason
            if found[rule]:
                reasons[name] = found[rule]
            else:
                sizes[name] = names[name]
        same = _equal(opener, sizes)
    prefix = "" if root == "." else f"{root}/"
    images = _rows(sizes, same, prefix)
    if empty := sorted(set(classes) - set(images["label"])):
        raise DataError(
            f"{data / root}: the folder of class {empty[0]} has no image",
            "unpack the data set again, or leave the class out of the declaration",
        )
    skipped = pd.DataFrame(
        [(prefix + name, reason) for name, reason in sorted(reasons.items())], columns=["file", "reason"]
    )
    return ClassFolders(root, images, skipped.astype(object), conflicts(images), accepted)


def conflicts(images: pd.DataFrame) -> pd.DataFrame:
    """The rows of clusters whose images have more than one label: cluster, image_id, label."""
    several = images.groupby("cluster")["label"].transform("nunique") > 1
    found = images.loc[several, ["cluster", "image_id", "label"]]
    return found.sort_values(["cluster", "image_id"]).reset_index(drop=True)


# --- where the class folders are ------------------------------------------------------------------------


def _find(data: Path, classes: tuple[str, ...], prefer: str) -> tuple[str, dict[str, int]]:
    """The folder or zip with the class folders, relative to ``data``, and its files with their sizes."""
    found: dict[str, dict[str, int]] = {}
    damaged: list[str] = []
    for root, names in _candidates(data, damaged):
        found |= {_joined(root, inner): _below(names, inner) for inner in _inners(names, classes)}
    if not found:
        broken = f"; {damaged[0]} is a damaged zip" if damaged else ""
        raise DataError(
            f"{data} has no folders, and no zip with folders, called {', '.join(classes)}{broken}",
            "give --data the data set as it is shipped, with one folder of images a class",
        )
    liked = {root: names for root, names in found.items() if prefer in PurePosixPath(root).parts}
    best = _best(data, liked or found)
    if len(found) > 1:
        others = ", ".join(f"{root} ({len(names)})" for root, names in sorted(found.items()) if root != best)
        log.info("%s: class folders of %s, %d files; not of %s", data, best, len(found[best]), others)
    return best, found[best]


def _best(data: Path, found: dict[str, dict[str, int]]) -> str:
    """The place with the most files; of places with the same ones, the last by name.

    Raises:
        DataError: another one has as many, which are not the same.
    """
    best = max(found, key=lambda root: (len(found[root]), root))
    for root, names in sorted(found.items()):
        if len(names) == len(found[best]) and names != found[best]:
            raise DataError(
                f"{data}: class folders of {len(names)} files are both in {root} and in {best}",
                "give --data the one that is meant",
            )
    return best


def _candidates(data: Path, damaged: list[str]) -> Iterator[tuple[str, dict[str, int]]]:
    """The data folder with all its files by size, and every zip in it with its members.

    A zip that cannot be opened is put on the list of damaged ones, and is a file as any other.
    """
    plain: dict[str, int] = {}
    for folder, inside, files in os.walk(data):
        here = Path(folder).relative_to(data)
        if len(here.parts) > DEEP:
            inside.clear()
        inside.sort()
        for name in sorted(files):
            path = Path(folder) / name
            if name.lower().endswith(".zip"):
                members = _members(path)
                if members is not None:
                    yield (here / name).as_posix(), members
                    continue
                damaged.append((here / name).as_posix())
                log.warning("%s is no zip that can be opened, and is left out", path)
            plain[(here / name).as_posix()] = path.stat().st_size if path.exists() else 0
    yield ".", plain


def _members(path: Path) -> dict[str, int] | None:
    """The files in a zip with their sizes; ``None`` where it cannot be opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {i.filename: i.file_size for i in archive.infolist() if not i.is_dir()}
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return None


def _inners(names: Iterable[str], classes: tuple[str, ...]) -> list[str]:
    """The folders, as prefixes, that have files in folders of all the classes."""
    seen: dict[str, set[str]] = defaultdict(set)
    for name in names:
        parts = PurePosixPath(name).parts
        place = next((n for n, part in enumerate(parts[:-1]) if part in classes), None)
        if place is not None and not _hidden(parts[:place]):
            seen["".join(f"{part}/" for part in parts[:place])].add(parts[place])
    return sorted(prefix for prefix, there in seen.items() if len(there) == len(classes))


def _joined(root: str, inner: str) -> str:
    return "/".join(part for part in (root, inner.rstrip("/")) if part not in ("", ".")) or "."


def _below(names: dict[str, int], inner: str) -> dict[str, int]:
    return {name.removeprefix(inner): size for name, size in names.items() if name.startswith(inner)}


# --- what is an image -----------------------------------------------------------------------------------


def _sorted_out(names: Iterable[str], classes: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The files that may be images of a class, and why the others are none."""
    wanted, reasons = [], {}
    for name in sorted(names):
        parts = PurePosixPath(name).parts
        if _hidden(parts):
            reasons[name] = "a hidden file"
        elif len(parts) == 1:
            reasons[name] = "it lies beside the class folders"
        elif parts[0] not in classes:
            reasons[name] = f"'{parts[0]}' is no class"
        else:
            wanted.append(name)
    return wanted, reasons


def _hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") or part == APPLE for part in parts)


@contextmanager
def _opened(root: Path) -> Iterator[Opener]:
    """How the files below a folder, a zip or a folder in a zip are opened."""
    place = next((p for p in (root, *root.parents) if p.is_file()), None)
    with ExitStack() as stack:
        if place is None:
            yield lambda name: (root / name).open("rb")
            return
        archive = stack.enter_context(zipfile.ZipFile(place))
        inner = "" if place == root else root.relative_to(place).as_posix() + "/"
        yield lambda name: io.BytesIO(archive.read(inner + name))


def _examined(opener: Opener, name: str) -> dict[str, str]:
    """Why a file is no image by each rule; empty if it is one."""
    marked = "no JFIF in its header"
    try:
        with opener(name) as stream:
            marked = "" if stream.read(HEADER)[6:10] == MARK else marked
            stream.seek(0)
            with Image.open(stream) as image:
                image.verify()
    except FileNotFoundError:
        return dict.fromkeys(get_args(Rule), "a link to a file that is not there")
    except zipfile.BadZipFile as error:
        return dict.fromkeys(get_args(Rule), f"damaged in the zip: {error}")
    except Exception as error:  # Pillow's decoders raise almost anything on damaged bytes
        known = "cannot identify" not in str(error)
        reason = f"no image: {str(error) or type(error).__name__}" if known else "no image that Pillow knows"
        return {"sound": reason, "jfif": marked}
    return {"sound": "", "jfif": marked}


# --- what is equal --------------------------------------------------------------------------------------


def _equal(opener: Opener, sizes: dict[str, int]) -> dict[str, str]:
    """The files whose bytes another one has too, with a digest of them; only equal sizes are read."""
    count = Counter(sizes.values())
    digests = {}
    for name in (name for name, size in sizes.items() if count[size] > 1):
        with opener(name) as stream:
            digests[name] = sha256(stream.read()).hexdigest()
    times = Counter(digests.values())
    return {name: digest for name, digest in digests.items() if times[digest] > 1}


def _rows(sizes: Iterable[str], same: dict[str, str], prefix: str) -> pd.DataFrame:
    """One row an image; a cluster is called as its first image."""
    names = sorted(sizes)
    ids = dict(zip(names, _ids(names), strict=True))
    first: dict[str, str] = {}
    for name in sorted(same, key=ids.__getitem__):
        first.setdefault(same[name], ids[name])
    rows = [
        (ids[name], prefix + name, PurePosixPath(name).parts[0], first.get(same.get(name, ""), ids[name]))
        for name in names
    ]
    return pd.DataFrame(rows, columns=["image_id", "file", "label", "cluster"], dtype=object)


def _ids(names: Sequence[str]) -> list[str]:
    """The stem of each file; where that is not unique, with its folder; else with its suffix too."""
    ways = (
        [PurePosixPath(name).stem for name in names],
        [PurePosixPath(name).with_suffix("").as_posix() for name in names],
    )
    counts = [Counter(way) for way in ways]
    return [
        next((way[n] for way, count in zip(ways, counts, strict=True) if count[way[n]] == 1), name)
        for n, name in enumerate(names)
    ]
