"""What two submissions were made with that is not the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kit.combine.sentences import aligned
from kit.deliver import manifest
from kit.errors import DataError
from kit.state import STAGES, flatten

SLOWER = 1.5  # times from which on a duration or a peak of memory is worth a line
BRIEF = 5.0  # seconds below which a duration is not
MOST = 8  # rows of a group
SHORT = 12  # digits of a digest that are shown
TEXT = 60  # characters of a value

Lines = list[tuple[str, str, str]]  # what, in the first, in the second


def differences(first: Path, second: Path) -> str:
    """What the manifests of two submission folders differ in; empty where one is no submission folder."""
    if not all((folder / manifest.NAME).is_file() for folder in (first, second)):
        return ""
    try:
        a, b = manifest.read(first), manifest.read(second)
    except DataError as error:
        return f"how they were made cannot be compared: {error.message} ({error.hint})"
    groups = [(name, found) for name, found in _groups(a, b) if found]
    if not groups and a["keys"] == b["keys"]:
        return "A and B were made alike: settings, seeds, data, weights, code, libraries and machine"
    lines = ["how they were made: what is not the same in A and B", *_stages(a["keys"], b["keys"])]
    if not groups:
        return "\n".join([*lines, "", "what has changed is in neither manifest"])
    rows = [(name if n == 0 else "", *row) for name, found in groups for n, row in enumerate(_cut(found))]
    return "\n".join([*lines, "", *aligned(("", "what", "A", "B"), rows)])


def _groups(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Lines]]:
    """The differences by what they are of, those that explain most first."""
    said, told = a["declared"], b["declared"]
    task = [name for name in ("asked", "name", "kaggle", "demo") if name in said or name in told]
    files = [_only(content["files"], ("declaration.py", "folds.csv", "duplicates.csv")) for content in (a, b)]
    passes = {name: (a[name], b[name]) for name in ("precision", "batch")}
    return [
        ("task", _unlike(_only(said, task), _only(told, task))),
        ("seeds", _unlike(_only(said, ["seed", "threads"]), _only(told, ["seed", "threads"]))),
        ("settings", _unlike(said["settings"], told["settings"])),
        ("data", _data(a["data"], b["data"])),
        ("beside", _unlike(*files)),
        ("elsewhere", _unlike(_outside(a), _outside(b))),
        ("weights", _unlike(a["weights"]["attached"], b["weights"]["attached"]) + _trained(a, b)),
        ("code", _unlike(a["code"], b["code"])),
        ("libraries", _unlike(a["environment"], b["environment"])),
        ("machine", _unlike(a["machine"], b["machine"])),
        ("passes", [(name, _text(was), _text(now)) for name, (was, now) in passes.items() if was != now]),
        ("no image", _fallback(a["fallback"], b["fallback"])),
        ("time", _timings(a["timings"], b["timings"])),
    ]


def _stages(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    """The first stage whose key differs: those that rest on it must differ too."""
    if alone := [name for name in STAGES if (name in a) != (name in b)]:
        which = "A" if alone[0] in a else "B"
        return [f"only {which} rests on models of its own: {', '.join(alone)}"]
    unlike = [name for name in STAGES if name in a and a[name] != b[name]]
    if not unlike:
        return ["every stage has the same key: nothing of this should have changed a result"]
    # What one stage was given is not in the key of another that does not rest on it.
    behind, fresh = set[str](), []
    for name in unlike:
        if not behind & set(STAGES[name].after):
            fresh.append(name)
        behind.add(name)
    rest = [name for name in unlike if name not in fresh]
    tail = f"; {', '.join(rest)} rest{'s' * (len(rest) == 1)} on {fresh[0]}" if rest else ""
    return [f"the first stage that differs is {', and beside it '.join(fresh)}{tail}"]


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> Lines:
    """Entries that are not the same, by name; an absent one is a dash."""
    one, other = flatten(a), flatten(b)
    names = [name for name in sorted({*one, *other}) if one.get(name, ...) != other.get(name, ...)]
    return [(name, _text(one.get(name, "-")), _text(other.get(name, "-"))) for name in names]


def _only(content: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: content[name] for name in names if name in content}


def _outside(content: Mapping[str, Any]) -> dict[str, Any]:
    """Predictions made elsewhere, by their digests."""
    return {name: was for name, was in content["files"].items() if name.startswith("external/")}


def _data(a: Mapping[str, Any], b: Mapping[str, Any]) -> Lines:
    """Tables and images; of a table its size says more than its digest."""
    lines = []
    for name in sorted({*a["tables"], *b["tables"]}):
        one, other = a["tables"].get(name), b["tables"].get(name)
        if one != other:
            lines.append((name, _table(one), _table(other)))
    if a["images"] != b["images"]:
        lines.append(("images", _images(a["images"]), _images(b["images"])))
    return lines


def _table(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None else f"{found['size']} bytes, {found['sha256'][:SHORT]}"


def _images(found: Mapping[str, Any]) -> str:
    if found["digest"] is None:
        return "none were read"
    return f"{found['count']}, {found['bytes']} bytes, {found['digest'][:SHORT]}"


def _trained(a: Mapping[str, Any], b: Mapping[str, Any]) -> Lines:
    """How many fits ended in other weights, and the models that only one of the two has."""
    one, other = (_weights(content) for content in (a, b))
    models = [{name.split("/")[0] for name in some} for some in (one, other)]
    lines: Lines = [
        (f"model {name}", *("yes" if name in mine else "-" for mine in models))  # type: ignore[misc]
        for name in sorted(models[0] ^ models[1])
    ]
    both = sorted(set(one) & set(other))
    unlike = [name for name in both if one[name] != other[name]]
    if unlike:
        name = f"{len(unlike)} of {len(both)} fits, first {unlike[0]}"
        lines.append((name, one[unlike[0]][:SHORT], other[unlike[0]][:SHORT]))
    return lines


def _weights(content: Mapping[str, Any]) -> dict[str, str]:
    trained: Mapping[str, str] = content["weights"]["trained"]
    return {name: was for name, was in trained.items() if name.endswith(".safetensors")}


def _fallback(a: list[str], b: list[str]) -> Lines:
    if a == b:
        return []
    return [("units that get the prior", _text(", ".join(a) or "none"), _text(", ".join(b) or "none"))]


def _timings(a: Mapping[str, Any], b: Mapping[str, Any]) -> Lines:
    """What took much longer, or much more memory."""
    lines = []
    for name in STAGES:
        if name not in a or name not in b:
            continue
        for what, unit, least in (("seconds", "s", BRIEF), ("peak_mib", "MiB", 1.0)):
            one, other = a[name][what], b[name][what]
            if max(one, other) >= least and max(one, other) > SLOWER * min(one, other):
                lines.append((name, f"{one:g} {unit}", f"{other:g} {unit}"))
    return lines


def _text(value: Any) -> str:
    """A value in a cell: digests by their first digits."""
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:SHORT]
    return text if len(text) <= TEXT else f"{text[:TEXT]}..."


def _cut(found: Lines) -> Lines:
    left = len(found) - MOST
    return found[:MOST] + ([(f"... and {left} more", "", "")] if left > 0 else [])
