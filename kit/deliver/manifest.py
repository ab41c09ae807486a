"""How a submission was made, so that another person can check it: ``manifest.json``.

It names files by their base names, and holds no path, user name, environment variable or password.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from kit.combine.units import joins_own
from kit.deliver import declared, origin
from kit.errors import DataError
from kit.files import digest, file_digest, split_archive, write_json
from kit.state import STAGES, Run, environment, read_state

FORMAT = 3
NAME = "manifest.json"
SEAL = "sha256"  # of everything else in it
PRECISION = "fp32"  # of every prediction, whatever that of training
CLAIM = ("set", "name", "score", "low", "high", "nested")
# What two equal runs of one machine need not have in common.
CLOCKS = ("timings", SEAL)
REPEAT = "repeat submit with this version of the kit"


def write(run: Run, files: Iterable[Path], fallback: list[str]) -> Path:
    """Write the manifest of a submission folder, last of all.

    Args:
        files: what it covers, in the folder.
        fallback: units that got the prior.
    """
    content = about(run) | {
        "fallback": fallback,
        "files": {path.relative_to(run.submission).as_posix(): file_digest(path) for path in files},
    }
    path = run.submission / NAME
    write_json(path, content | {SEAL: digest(content)})
    return path


def about(run: Run) -> dict[str, Any]:
    """How a run was made and what it claims; our own models count where they take part."""
    own, state = joins_own(run), read_state(run.work)
    keys = _keys(run, own)
    outside = run.external
    return {
        "format": FORMAT,
        "run": run.submission.name,
        "declared": declared.written(run),
        "code": origin.code(),
        "data": data(run, own),
        "external": {"oof": list(outside.oof), "test": list(outside.test), "meta": outside.meta is not None},
        "weights": weights(run) if own else {"attached": {}, "trained": {}},
        "environment": environment(),
        "machine": {"class": origin.machine()},
        "precision": PRECISION,
        "batch": run.competition.training.infer_batch,
        "tolerance": dict(origin.TOLERANCE),
        "keys": keys,
        "timings": _timings(state, keys),
        "claim": claim(run),
    }


def _keys(run: Run, own: bool) -> dict[str, str]:
    """The keys of the stages that the submission rests on."""
    mine = {*run.chain("submit"), *(run.chain("predict") if own else ())}
    return {name: run.key(name) for name in STAGES if name in mine}


def _timings(state: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of the finished stages."""
    done = {name: state[name] for name, key in keys.items() if state.get(name, {}).get("key") == key}
    return {
        name: {what: record[what] for what in ("seconds", "peak_mib")}
        for name, record in done.items()
        if name != "submit"  # of an earlier time, if at all
    }


def data(run: Run, own: bool) -> dict[str, Any]:
    """The tables at the top of the data folder, and its images where our own models saw them."""
    images: dict[str, Any] = {"count": 0, "bytes": 0, "digest": None}
    if own:
        # Hundreds of gigabytes are not read again: `tile` has fingerprinted every image.
        seen = read_state(run.work)["tile"]["ingredients"]["inputs"]
        images = {"count": seen["images"], "bytes": _bytes(run), "digest": seen["digest"]}
        images |= {"coords": seen["coords"]} if "coords" in seen else {}  # of tiles that were imported
    tables = {
        path.name: {"size": path.stat().st_size, SEAL: file_digest(path)}
        for path in sorted(run.data.glob("*.csv"))
        if path.is_file()
    }
    return {"folder": _name(run.data), "tables": tables, "images": images}


def _name(folder: Path) -> str:
    """The base name of a folder, unless it is the user's."""
    name = folder.resolve().name
    return "" if name in (Path(os.path.expanduser("~")).name, os.environ.get("USER")) else name


def _bytes(run: Run) -> int:
    """What the images take on disk; an archive of many counts once."""
    tables = [run.tables.train, run.tables.test, run.tables.extra if run.competition.tiles.extra else None]
    paths = {split_archive(Path(path))[0] for table in tables if table is not None for path in table["path"]}
    return sum(path.stat().st_size for path in paths if path.is_file())


def weights(run: Run) -> dict[str, dict[str, str]]:
    """Digests of attached files by their names, and of what was trained by model and file."""
    outputs: dict[str, str] = read_state(run.work)["train"]["outputs"]
    folder = run.folder("train").absolute()
    trained = {Path(path).absolute().relative_to(folder).as_posix(): was for path, was in outputs.items()}
    return {
        "attached": {name: file_digest(path) for name, path in sorted(run.weights.items())},
        "trained": {name: was for name, was in trained.items() if name.endswith((".safetensors", ".json"))},
    }


def claim(run: Run) -> dict[str, Any]:
    """What the submission is said to score, out of fold, with its 95 % interval."""
    content = json.loads((run.folder("combine") / "metrics.json").read_text())
    row = default_row(content)
    return {name: row[name] for name in CLAIM} | {"metric": content["metric"], "units": content["units"]}


def default_row(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The out-of-fold row of ``metrics.json`` for what the submission uses.

    Raises:
        ValueError: there is none, or several.
    """
    (row,) = [row for row in metrics["rows"] if row["kind"] == "default" and row["set"] == "oof"]
    return dict(row)


# --- reading ----------------------------------------------------------------------------------------


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a submission folder, as it was written to the last byte.

    Raises:
        DataError: there is none, it is of another format, or it has been changed.
    """
    path = folder / NAME
    try:
        text = path.read_bytes()
    except OSError as error:
        hint = "give a folder submissions/<name>/<run>"
        raise DataError(f"{path} cannot be read: {error.strerror}", hint) from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}", "take the folder as it was written") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        was = content.get("format", 1) if isinstance(content, dict) else "none"
        raise DataError(f"{path} is of format {was}, and this kit reads format {FORMAT}", REPEAT)
    _check_seal(path, text, content)
    _check_names(path, content["files"])
    return content


def _check_seal(path: Path, text: bytes, content: dict[str, Any]) -> None:
    """Nothing in it was changed, not even a space.

    Raises:
        DataError: something was.
    """
    rest = {name: value for name, value in content.items() if name != SEAL}
    again = json.dumps(content, indent=1, sort_keys=True) + "\n"
    if digest(rest) != content.get(SEAL) or again.encode() != text:
        raise DataError(
            f"{path} was changed after it was written: its own {SEAL} does not fit",
            "take the folder as it was written, or repeat submit",
        )


def _check_names(path: Path, files: Mapping[str, str]) -> None:
    """Every file that it covers lies in its folder.

    Raises:
        DataError: one does not.
    """
    for name in files:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or "\\" in name or not place.parts:
            raise DataError(f"{path}: '{name}' lies outside the folder", "do not trust this submission")
