"""A bundle whose kernel is a few lines, mounted as Kaggle does, for tests of what runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kit
from kit.deliver import archive, kernel_script
from kit.deliver.code_part import rendered

SOURCE = Path(kernel_script.__file__).read_text()
SAMPLE = "patient,a,b\n006388,0.5,0.5\n2e3749,0.5,0.5\nx,0.5,0.5\n"
PRIORS = (
    "patient,a,b\n006388,0.333333333,0.666666667\n2e3749,0.333333333,0.666666667\nx,0.333333333,0.666666667\n"
)
# A kernel that only says where everything is, and does what a test asks it to.
KERNEL = """
import argparse, json, os, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
for name in ("code", "weights", "data", "out", "work"):
    parser.add_argument("--" + name, type=pathlib.Path)
o = parser.parse_args()
assert (o.code / "bundle.json").is_file() and (o.weights / "second_level.json").is_file()
print("priors are there:", (o.out / "submission.csv").is_file())
exec(os.environ.get("FAKE", ""))
(o.out / "submission.csv").write_text("predicted")
(o.out / "kit_report.json").write_text(json.dumps({"seconds": {"start": 1.0, "tile": 2.0}}))
"""


def pack(path: Path, files: dict[str, str | bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def wheel(folder: Path, name: str, version: str) -> dict[str, str]:
    """A wheel of a package without content."""
    file, info = f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    pack(folder / file, {
        f"{name}.py": f"VERSION = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
    })  # fmt: skip
    return {"name": name, "version": version, "file": file}


@dataclass
class Fake:
    """A bundle whose kernel is a few lines, mounted as Kaggle does."""

    root: Path
    about: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)  # where a part, or the data, are mounted
    identity: str = ""

    def path(self, part: str) -> Path:
        names = {"data": "toy-cup"}
        return self.root / "input" / self.places.get(part, names.get(part, f"toy-{part}"))

    def build(self, files: dict[str, str | bytes] | None = None) -> Fake:
        """Write everything; ``files``: more of the code."""
        data, code, weights = (self.path(name) for name in ("data", "code", "weights"))
        for folder in (data, code, weights):
            folder.mkdir(parents=True)
        (data / "sample_submission.csv").write_text(SAMPLE)
        (data / "train.csv").write_text("image_id,patient,label\n")
        (data / "test.csv").write_text("image_id,patient\n")
        own = Path(kit.__file__).parent
        names = ("__init__.py", "deliver/__init__.py", "deliver/launch.py")
        pack(code / "kit-code.whl", {f"kit/{name}": (own / name).read_text() for name in names}
             | {"kit/deliver/kernel.py": KERNEL} | (files or {}))  # fmt: skip
        about = {"declared": {"name": "toy", "demo": False}, "wheels": [], "requires": {}, "stages": []}
        (code / "bundle.json").write_text(json.dumps(about | self.about))
        (weights / "second_level.json").write_text("{}")
        (weights / "models").mkdir()
        (weights / "models" / "a.safetensors").write_bytes(b"weights")
        return self.seal()

    def seal(self) -> Fake:
        """List the files of each part as they are now, under the name that the bundle then has."""
        listed = {part: archive.listed(self.path(part)) for part in self.parts}
        self.identity = archive.identity(listed)
        for part, files in listed.items():
            content = {"kit": 1, "part": part, "bundle": self.identity, "files": files}
            (self.path(part) / "part.json").write_text(json.dumps(content))
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(part for part in archive.PARTS if self.path(part).is_dir())

    def run(self, **environment: str) -> Ran:
        values = {"BUNDLE": self.identity, "PARTS": self.parts, "UNIT": "patient", "CLASSES": ("a", "b"),
                  "SLUG": "toy-cup", "PRIOR": (1 / 3, 2 / 3)}  # fmt: skip
        path = self.root / "src" / "run.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(rendered(SOURCE, values | self.constants))
        (self.root / "tmp").mkdir(exist_ok=True)
        more = {"KIT_KAGGLE": str(self.root), "TMPDIR": str(self.root / "tmp")} | environment
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAGGLE", "KIT_", "PYTHONPATH"))}
        began = time.monotonic()
        done = subprocess.run([sys.executable, str(path)], env=kept | more, capture_output=True, text=True)
        left, late = list((self.root / "tmp").iterdir()), "FAULT time: " in done.stdout
        assert bool(left) == late, "nothing temporary is left, but where there is no time to remove it"
        shutil.rmtree(self.root / "tmp")
        return Ran(
            done.returncode, done.stdout + done.stderr, self.root / "working", time.monotonic() - began
        )


@dataclass(frozen=True)
class Ran:
    code: int
    said: str
    working: Path
    seconds: float

    @property
    def faults(self) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith("FAULT")]

    @property
    def submission(self) -> str:
        return (self.working / "submission.csv").read_text()

    def failed(self, kind: str, *words: str) -> None:
        """It said one line of this kind with these words, and left the priors."""
        (line,) = self.faults
        assert line.startswith(f"FAULT {kind}: "), line
        assert [word for word in words if word not in line] == [], line
        assert self.code == 1 and self.submission == PRIORS and "Traceback" not in self.said
