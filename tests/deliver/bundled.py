"""The toy's bundle, made once for the tests that run it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kit.deliver.bundle import Options, bundle
from kit.deliver.kernel_script import unpack_code
from kit.state import Run
from tests.deliver import toy


@dataclass(frozen=True)
class Bundled:
    """folder: where the toy was run; bundle: what was made of it; code: its code, unpacked."""

    folder: Path
    bundle: Path
    code: Path

    @property
    def weights(self) -> Path:
        return self.bundle / "inputs" / "weights"

    @property
    def submission(self) -> Path:
        """What the run itself submitted."""
        (found,) = (self.folder / "submissions").glob("*/*/submission.csv")
        return found

    def run(self) -> Run:
        """The run; the working folder must be its own."""
        return toy.run_of(self.folder)

    def data(self, place: Path) -> Path:
        """A copy of the data without a training image, as if these were not to be touched."""
        folder = shutil.copytree(self.folder / "data", place)
        shutil.rmtree(folder / "train")
        return folder


@cache
def made(base: Path) -> Bundled:
    """The bundle in a folder of all tests."""
    folder = base / "bundled"
    folder.mkdir()
    toy.finished(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        run = toy.run_of(folder)
        bundle(run, Options(out=folder / "out", wheels="none"))
    finally:
        os.chdir(before)
    code = unpack_code(folder / "out" / "inputs" / "code", folder / "code")
    return Bundled(folder, folder / "out", code)
