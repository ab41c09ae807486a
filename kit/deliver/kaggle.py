"""What Kaggle wants to know of a kernel and of a data set, by the rules of its own client (kaggle 2.2).

Nothing here talks to Kaggle: the files are written for ``kaggle datasets create`` and ``kaggle kernels
push``, and refused here for whatever these would refuse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.errors import SettingError
from kit.files import write_json

KERNEL, DATASET, SCRIPT = "kernel-metadata.json", "dataset-metadata.json", "run.py"
PLACEHOLDER = "YOUR-NAME"
GPU = "NvidiaTeslaT4"  # the default that is left out here was a P100, too old for the torch of the image
SLUG = re.compile("[a-z0-9]+(-[a-z0-9]+)*")
DATASET_NAME = TITLE = (6, 50)  # characters
KERNEL_NAME = (5, 50)
SUBTITLE = (20, 80)
DATASET_BYTES = 200 * 10**9  # of one data set, and of all private ones together
TOP_FILES = 50  # files and folders at the top of a data set
OUTPUT_BYTES = 20 * 10**9  # of what a kernel leaves in its working folder


def slug(text: str, most: int) -> str:
    """A name as Kaggle's addresses have it, cut to so many characters.

    >>> slug("My_Task  v2", 50), slug("strip-ai-demo", 6)
    ('my-task-v2', 'strip')
    """
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:most].rstrip("-")


def dataset_name(name: str, bundle: str, part: str) -> str:
    """The address of a data set: it changes with every bundle, so that a kernel never sees another's files.

    >>> dataset_name("strip-ai", "0123456789ab", "code")
    'strip-ai-0123456789ab-code'
    """
    tail = f"-{bundle}-{part}"
    return slug(name, DATASET_NAME[1] - len(tail)) + tail


def kernel_name(name: str, stage: str) -> str:
    """The address of a kernel: the same for every bundle, each of which is a new version of it.

    >>> kernel_name("strip-ai", "predict")
    'strip-ai-predict'
    """
    return f"{slug(name, KERNEL_NAME[1] - len(stage) - 1)}-{stage}"


def check_owner(owner: str) -> str:
    """The owner's name as addresses have it, or a placeholder where none is given.

    Raises:
        SettingError: it cannot be a name on Kaggle.
    """
    if not owner:
        return PLACEHOLDER
    if not SLUG.fullmatch(owner):
        hint = f"it is what follows kaggle.com/ in the address of your profile, for example {slug(owner, 50)}"
        raise SettingError(f"--owner '{owner}' is no name on Kaggle: small letters, digits and dashes", hint)
    return owner


def write_kernel(
    folder: Path,
    owner: str,
    name: str,
    gpu: bool,
    datasets: Sequence[str],
    competition: str,
    kernels: Sequence[str] = (),
) -> None:
    """Write the ``kernel-metadata.json`` of a script that runs without internet.

    Args:
        name, datasets: of the kernel and its data sets, without their owner.
        kernels: those whose last output is among its inputs, as its own is where it goes on from there.
    """
    content = {
        "id": f"{owner}/{name}",
        "title": name.replace("-", " "),  # which resolves to the name again
        "code_file": SCRIPT,
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": gpu,
        "enable_tpu": False,
        **({"machine_shape": GPU} if gpu else {}),
        "enable_internet": False,  # left out, the client would ask for it
        "dataset_sources": [f"{owner}/{dataset}" for dataset in datasets],
        "competition_sources": [competition] if competition else [],
        "kernel_sources": [f"{owner}/{kernel}" for kernel in kernels],
        "model_sources": [],
        # Libraries stay those that the kernel was first run with.
        "docker_image_pinning_type": "original",
    }
    write_json(folder / KERNEL, content)
    _require(check_kernel(folder))


def write_dataset(folder: Path, owner: str, name: str, subtitle: str) -> None:
    """Write the ``dataset-metadata.json`` of a part."""
    content = {
        "id": f"{owner}/{name}",
        "title": name,
        "subtitle": subtitle,
        "licenses": [{"name": "other"}],
    }
    write_json(folder / DATASET, content)
    _require(check_dataset(folder))


def _require(faults: list[str]) -> None:
    """What was just written keeps the rules: what the user gave has been checked before."""
    assert not faults, faults


def check_kernel(folder: Path) -> list[str]:
    """What Kaggle's client would refuse of a kernel, and internet; empty if it may be pushed."""
    about = _read(folder / KERNEL)
    if about is None:
        return [f"{folder / KERNEL} is not there, or is no JSON"]
    owner, _, name = str(about.get("id", "")).partition("/")
    sources = [*about.get("dataset_sources", []), *about.get("kernel_sources", [])]
    rules = (
        (bool(owner) and bool(SLUG.fullmatch(name)), "id must be OWNER/NAME in small letters and dashes"),
        (_within(name, KERNEL_NAME), f"the name must have {_words(KERNEL_NAME)}"),
        (_within(about.get("title"), KERNEL_NAME), f"title must have {_words(KERNEL_NAME)}"),
        (slug(str(about.get("title", "")), 99) == name, "title must resolve to the name in id"),
        ((folder / str(about.get("code_file") or "-")).is_file(), "code_file is not there"),
        (about.get("language") == "python", "language must be python"),
        (about.get("kernel_type") == "script", "kernel_type must be script"),
        (about.get("enable_internet") is False, "enable_internet must be false"),
        (about.get("is_private") is True, "is_private must be true"),
        (about.get("docker_image_pinning_type", "latest") in ("original", "latest"),
         "docker_image_pinning_type must be original or latest"),
        (all(re.fullmatch("[^/]+/[^/]{5,}", source) for source in sources),
         "a source must be OWNER/NAME"),
    )  # fmt: skip
    return [f"{folder / KERNEL}: {why}" for right, why in rules if not right]


def check_dataset(folder: Path) -> list[str]:
    """What Kaggle's client would refuse of a data set; empty if it may be created."""
    about = _read(folder / DATASET)
    if about is None:
        return [f"{folder / DATASET} is not there, or is no JSON"]
    owner, _, name = str(about.get("id", "")).partition("/")
    subtitle, licenses = about.get("subtitle"), about.get("licenses", [])
    rules = (
        (bool(owner) and bool(SLUG.fullmatch(name)), "id must be OWNER/NAME in small letters and dashes"),
        (_within(name, DATASET_NAME), f"the name must have {_words(DATASET_NAME)}"),
        (_within(about.get("title"), TITLE), f"title must have {_words(TITLE)}"),
        (not subtitle or _within(subtitle, SUBTITLE), f"subtitle must have {_words(SUBTITLE)}"),
        (len(licenses) == 1 and "name" in licenses[0], "licenses must name exactly one"),
    )
    return [f"{folder / DATASET}: {why}" for right, why in rules if not right]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _within(text: object, bounds: tuple[int, int]) -> bool:
    return isinstance(text, str) and bounds[0] <= len(text) <= bounds[1]


def _words(bounds: tuple[int, int]) -> str:
    return f"{bounds[0]} to {bounds[1]} characters"


def too_large(folder: Path) -> list[str]:
    """Warnings of a data set that Kaggle may not take: its size, and how much lies at its top."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    top = len(list(folder.iterdir()))
    found = []
    if size > DATASET_BYTES:
        found.append(f"{folder} has {size / 1e9:.0f} GB, and a data set takes {DATASET_BYTES / 1e9:.0f}")
    if top > TOP_FILES:
        found.append(f"{folder} has {top} files at its top, and a data set takes {TOP_FILES}")
    return found


def commands(bundle: Path, parts: Sequence[str]) -> list[str]:
    """What to type, in this order, to bring a bundle to Kaggle."""
    created = [f"kaggle datasets create -p {bundle / 'inputs' / part} --dir-mode zip" for part in parts]
    return [*created, f"kaggle kernels push -p {bundle / 'kernel'}"]
