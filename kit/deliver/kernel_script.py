"""The one file of the kernel: it finds its data sets, and runs the kit that is in them.

It stands alone (Python 3.10 and its standard library), so that whatever is missing is said in one line,
``FAULT <kind>: <sentence>``. What runs and watches the kit is in the code that was attached.

A submission of the prior is written first. After a fault the exit code is 1; but in the rerun on the hidden
test, where that would lose the day's submission, the priors stand and it is 0.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path, PurePosixPath
from typing import Any

# Set when the bundle is made.
BUNDLE = ""  # which parts are its own; empty: any
STAGE = "predict"
STAGES: tuple[str, ...] = ()  # of the kit, where it is tiled or trained here
PARTS = ("code", "weights")
TABLES = ("train.csv", "test.csv", "sample_submission.csv")  # by which the data are known
SLUG = ""
UNIT = "patient_id"
CLASSES: tuple[str, ...] = ()
PRIOR: tuple[float, ...] = ()
LIMITS = {"hours": 9.0, "memory_gib": 13.0, "disk_gib": 18.0}
KERNEL = ""

ROOT = Path(os.environ.get("KIT_KAGGLE", "/kaggle"))
HOUR = float(os.environ.get("KIT_HOUR_SECONDS", "3600"))  # seconds; tests have shorter ones
DEPTH = 5  # levels of folders that are looked through
CROWD = 1000  # entries of a folder from which on it holds images, and is not walked
UNPACKED_BYTES, UNPACKED_FILES = 2**29, 20_000  # at most, of code
CODE, ABOUT, FOLDS = "kit-code.whl", "bundle.json", "folds.csv"
SESSION = "kit-session.json"  # beside what a session left for the next one


class Fault(Exception):
    """Why it cannot go on: one of the kinds, and a sentence."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


def main() -> int:
    """Do what the bundle is for; returns the exit code."""
    began, working = time.monotonic(), ROOT / "working"
    temporary = Path(tempfile.mkdtemp(prefix="kit-"))
    try:
        prepare_and_run(working, temporary, began)
        return 0
    except Exception as error:
        kind, sentence = told(error)
        if sentence:  # else the kit itself has said it
            say(f"FAULT {kind}: {sentence}")
    finally:
        # Many GB take their time, and whoever was stopped at the end of the hours has none.
        if began + LIMITS["hours"] * HOUR - time.monotonic() > HOUR / 6:
            shutil.rmtree(temporary, ignore_errors=True)
    rerun = bool(os.environ.get("KAGGLE_IS_COMPETITION_RERUN"))
    return 0 if rerun and (working / "submission.csv").is_file() else 1


def prepare_and_run(working: Path, temporary: Path, began: float) -> None:
    """Write a first submission, get everything ready, and hand over to the kit."""
    working.mkdir(parents=True, exist_ok=True)
    inputs = ROOT / "input"
    data = find_data(inputs)
    if STAGE == "predict":
        ids = wanted_ids(data)
        write_priors(working / "submission.csv", ids)
        say(f"submission.csv: {len(ids)} units, each with the prior, until there is something better")
    parts = find_parts(inputs)
    listed = {part: listed_files(part, folder) for part, folder in parts.items()}
    for part, folder in parts.items():
        check_part(part, folder, listed[part])
    check_identity(listed)
    about = read_json(parts["code"] / ABOUT)
    if about["declared"]["demo"] and not os.environ.get("KIT_REHEARSAL"):
        raise Fault("integrity", "this bundle is of the demo, and no submission: bundle a run with --data")
    say(f"bundle {BUNDLE}: {', '.join(parts)} found, and as they were bundled")
    code = unpack_code(parts["code"], temporary / "code")
    started = time.monotonic()
    install(about, parts.get("wheels"), temporary / "site")
    seconds = {"start": started - began, "install": time.monotonic() - started}
    sys.path.insert(0, str(code))
    launch = import_module("kit.deliver.launch")
    place = launch.Place(inputs, working, temporary, data, code, parts.get("weights"))
    if STAGE == "predict":
        launch.predict(place, LIMITS, began, seconds)
    else:
        launch.session(place, LIMITS, began, about, KERNEL, list(folders(inputs)))


def told(error: Exception) -> tuple[str, str]:
    """The kind and the sentence of whatever went wrong."""
    if hasattr(error, "kind"):  # a Fault, ours or the kit's
        return str(error.kind), str(error)
    if isinstance(error, MemoryError):
        return "memory", "there is not enough memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk", f"no space is left: {error}"
    return "exception", f"{type(error).__name__}: {error}"


def say(text: str) -> None:
    """Print one line at once."""
    print(" ".join(text.split()), flush=True)


# -- finding what was attached


def folders(top: Path) -> Iterator[Path]:
    """A folder and those below it, nearest first; not those inside one of thousands of files."""
    level = [top]
    for _ in range(DEPTH + 1):
        yield from level
        level = [inside for folder in level for inside in below(folder)]


def below(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where it is of images, or was found already."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count == CROWD or entry.name in ("part.json", SESSION):
                    return []
                if entry.is_dir():
                    found.append(Path(entry.path))
    except OSError:
        return []
    return sorted(found)


def find_data(inputs: Path) -> Path:
    """The competition's folder: it has all the tables."""
    found = [place for place in folders(inputs) if all((place / name).is_file() for name in TABLES)]
    if not found or not TABLES:
        raise Fault("no-submission", f"no folder of {inputs} has {', '.join(TABLES)}: attach the competition")
    return next((place for place in found if SLUG and SLUG in place.parts), found[0])


def find_parts(inputs: Path) -> dict[str, Path]:
    """The folder of every part of this bundle, in whatever way they are mounted."""
    found: dict[str, Path] = {}
    others = set()
    for place in folders(inputs):
        said = read_json(place / "part.json")
        if said.get("kit") != 1:
            continue
        if BUNDLE in ("", said.get("bundle")):
            found.setdefault(str(said.get("part")), place)
        else:
            others.add(f"{said.get('bundle')}")
    if lacking := [part for part in PARTS if part not in found]:
        more = f"; there are some of the bundle {', '.join(sorted(others))}" if others else ""
        raise Fault("integrity", f"the data set of {lacking[0]} of the bundle {BUNDLE} is not attached{more}")
    return {part: found[part] for part in PARTS}


def read_json(path: Path) -> dict[str, Any]:
    """The content of a file; nothing where it is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def listed_files(part: str, folder: Path) -> dict[str, str]:
    """The files of a part with their SHA-256."""
    files = read_json(folder / "part.json").get("files")
    if not isinstance(files, dict):
        raise Fault("integrity", f"{part}: part.json lists no files")
    return files


def check_identity(listed: Mapping[str, Mapping[str, str]]) -> None:
    """The lists of all parts together are those that the bundle is named after."""
    text = json.dumps(listed, sort_keys=True, separators=(",", ":"))
    found = hashlib.sha256(text.encode()).hexdigest()[: len(BUNDLE)]
    if found != BUNDLE:
        raise Fault("integrity", f"what {', '.join(listed)} list is the bundle {found}, and not {BUNDLE}")


def check_part(part: str, folder: Path, files: Mapping[str, str]) -> None:
    """Every file of a part is what was bundled; what Kaggle has unpacked cannot be compared."""
    for name, expected in files.items():
        pure = PurePosixPath(name)
        path = folder / pure
        if pure.is_absolute() or ".." in pure.parts or path.is_symlink():
            raise Fault("integrity", f"{part}: {name} is no name of a file inside it")
        if path.is_file():
            if sha256(path) != expected:
                raise Fault("integrity", f"{part}: {name} is not as it was bundled: its SHA-256 differs")
        elif unpacked(path) is None:
            raise Fault("integrity", f"{part}: {name} is not there")


def unpacked(path: Path) -> Path | None:
    """The folder that stands where an archive was, if Kaggle has unpacked it."""
    return next(
        (place for place in (path, path.with_suffix("")) if path.suffix == ".whl" and place.is_dir()), None
    )


def sha256(path: Path) -> str:
    """Of a whole file."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()


# -- the first submission


def wanted_ids(data: Path) -> list[str]:
    """The ids of the sample in its order; of a competition without one, the units of the test, sorted."""
    return asked({name: rows(data / name) for name in TABLES}, UNIT, CLASSES)


def asked(tables: Mapping[str, list[list[str]]], unit: str, classes: Sequence[str]) -> list[str]:
    """The ids that tables ask for, as `rows` reads them."""
    wanted = [unit, *classes]
    for table in tables.values():
        if table and table[0] == wanted:
            return [row[0] for row in table[1:] if row]
    if sample := next((name for name in tables if "sample" in name), ""):
        header = ",".join(tables[sample][0] if tables[sample] else [])
        raise Fault("sample", f"{sample} line 1 is {header}, not {','.join(wanted)}")
    test = tables.get("test.csv")
    if test and unit in test[0]:
        column = test[0].index(unit)
        return sorted({row[column] for row in test[1:] if row})
    raise Fault("sample", f"none of {', '.join(tables)} says which {unit} are asked for")


def rows(path: Path) -> list[list[str]]:
    """A CSV file, every cell as text; a training table is as small as the others."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


def write_priors(path: Path, ids: Sequence[str]) -> None:
    """The prior for every unit, with nine digits, in a file that is whole or absent."""
    values = [round(value, 9) for value in PRIOR]
    top = values.index(max(values))
    values[top] += 1 - sum(values)
    cells = [f"{value:.9f}" for value in values]
    temporary = path.with_name(".tmp-" + path.name)
    with temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([UNIT, *CLASSES])
        writer.writerows([name, *cells] for name in ids)
    os.replace(temporary, path)


# -- packages and code


def install(about: Mapping[str, Any], folder: Path | None, site: Path) -> None:
    """Bring the bundled wheels of what this image lacks into a folder of their own."""
    site.mkdir(parents=True)
    wheels = {plain(wheel["name"]): wheel for wheel in about["wheels"]}
    requires = {plain(name): spec for name, spec in about["requires"].items()}
    needed = {}
    for name in {**requires, **wheels}:
        has = installed(name)
        spec = requires.get(name) or f">={wheels[name]['version']}"
        if has is not None and satisfies(has, spec):
            continue
        if folder is None or name not in wheels:
            state = "is not installed" if has is None else f"is installed as {has}"
            raise Fault("wheel", f"{name} {state}, {spec} is needed, and no wheel of it is bundled")
        needed[name] = folder / wheels[name]["file"]
    for name, path in needed.items():
        say(f"installing {path.name}")
        put(name, path, site)


def put(name: str, path: Path, site: Path) -> None:
    """Install one wheel; one that Kaggle has unpacked is copied."""
    if not path.is_file():
        if (folder := unpacked(path)) is None:
            raise Fault("wheel", f"the wheel {path.name} of {name} is not there")
        shutil.copytree(folder, site, dirs_exist_ok=True)
        return
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", *words, "--target", str(site), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["pip said nothing"]
        raise Fault("wheel", f"{path.name} cannot be installed: {lines[-1]}")


def installed(name: str) -> str | None:
    """The version of a distribution; ``None`` where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def plain(name: str) -> str:
    """A distribution's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def satisfies(version: str, spec: str) -> bool:
    """Whether a version is one of those that ``>=1.2,<2`` means; by its numbers alone.

    >>> satisfies("2.6.0+cu124", ">=2.4"), satisfies("1.10", "<1.9,>=1"), satisfies("1.4.2", "~=1.4.1")
    (True, False, True)
    """
    return all(_clause(version, clause) for clause in spec.replace(" ", "").split(",") if clause)


def _clause(version: str, clause: str) -> bool:
    sign, text = re.match(r"(==|>=|<=|!=|~=|>|<)?(.*)", clause).groups()  # type: ignore[union-attr]
    has, asked = numbers(version), numbers(text)
    if text.endswith(".*"):
        has = has[: len(asked)]
    if sign == "~=" and (has + (0,) * len(asked))[: len(asked) - 1] != asked[:-1]:
        return False
    size = max(len(has), len(asked))
    one, other = (found + (0,) * (size - len(found)) for found in (has, asked))
    return {"<": one < other, ">": one > other, "<=": one <= other, "!=": one != other,
            "==": one == other, None: one == other}.get(sign, one >= other)  # fmt: skip


def numbers(version: str) -> tuple[int, ...]:
    """The release of a version: ``2.6.0rc1+cu124`` is 2, 6, 0."""
    found = re.match(r"\d+(\.\d+)*", version.split("!")[-1].lstrip("v"))
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def unpack_code(part: Path, folder: Path) -> Path:
    """The code in a folder that can be written, with what lies beside it."""
    archive = part / CODE
    if archive.is_file():
        unpack(archive, folder)
    elif (place := unpacked(archive)) is not None:
        say(f"{CODE} was unpacked by Kaggle, so its SHA-256 cannot be compared")
        shutil.copytree(place, folder)
    for name in (ABOUT, FOLDS):
        if (part / name).is_file():
            shutil.copyfile(part / name, folder / name)
    if not (folder / "kit" / "__init__.py").is_file():
        raise Fault("integrity", f"code: there is no package kit in {CODE}")
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip of plain files; one that is damaged, climbs out, links or swells is refused."""
    try:
        with zipfile.ZipFile(archive) as content:
            infos = content.infolist()
            size = sum(info.file_size for info in infos)
            if size > UNPACKED_BYTES or len(infos) > UNPACKED_FILES:
                raise Fault("integrity", f"{archive.name} has {len(infos)} files of {size} bytes, too many")
            for info in infos:
                path, kind = PurePosixPath(info.filename), info.external_attr >> 16
                if path.is_absolute() or ".." in path.parts or "\\" in info.filename or ":" in info.filename:
                    raise Fault("integrity", f"{archive.name}: {info.filename} would lie outside")
                if stat.S_IFMT(kind) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise Fault("integrity", f"{archive.name}: {info.filename} is no plain file")
                content.extract(info, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise Fault("integrity", f"{archive.name} is damaged: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
