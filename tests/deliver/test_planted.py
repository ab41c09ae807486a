"""The demo's bundle passes its rehearsal; with any of eight faults in it, it fails, and one line says why."""

from __future__ import annotations

import json
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kit import __main__ as command
from kit.deliver import archive, bundle, packages, rehearse, wheels
from kit.deliver.rehearse import Options
from kit.files import file_digest, write_json
from kit.state import STAGES, Run, execute

SMALL = [
    "demo.patients=24",
    "demo.test_patients=6",
    "demo.largest=0",
    "fold.k=3",
    "tile.count=4",
    "tune.trials=1",
    "tune.inner=1",
    "train.epochs=3",
    "train.finetune_epochs=2",
]
BF16 = "\nimport torch\ntorch.autocast('cpu', dtype=torch.bfloat16).__enter__()\n"
FUTURE = "from __future__ import annotations\n"
GREEDY = "\nKEPT = bytearray(b'x') * 2**30\n"
WRITTEN = 'write_checked(out / "submission.csv", table, run.competition, ids)'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The demo, small, with all its stages done; what the image lacks is what this machine lacks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("demo"))
        here = {name: item.version for name, item in packages.installed().items()}
        patch.setattr(wheels, "image", lambda path=None: here)
        words = ["strip-ai", "--threads", "1", "--workers", "2", "--set", *SMALL]
        run = command.make_run(command.flow_parser().parse_args(words))
        for name in STAGES:
            execute(run, name)
        bundle.bundle(run, bundle.Options(wheels="none"))
        yield run


@pytest.fixture(scope="module")
def passed(finished: Run) -> tuple[rehearse.Stage, rehearse.Attempt]:
    """A rehearsal of the bundle as it is."""
    stage = rehearse.prepare(finished, Options(images=4))
    return stage, rehearse.attempt(stage, "plain")


@pytest.fixture
def spoilt(finished: Run, tmp_path: Path) -> Path:
    """A copy of the bundle to put a fault into."""
    return shutil.copytree(bundle.folder_of(finished, bundle.Options()), tmp_path / "bundle")


def seal(part: Path, *changed: Path) -> None:
    """List files as they are now, in a bundle that is named so: a fault that no digest tells."""
    paths = [path for name in archive.PARTS if (path := part.with_name(name) / "part.json").is_file()]
    said = {path: json.loads(path.read_text()) for path in paths}
    mine = said[part / "part.json"]
    mine["files"] |= {path.relative_to(part).as_posix(): file_digest(path) for path in changed}
    before, now = mine["bundle"], archive.identity({one["part"]: one["files"] for one in said.values()})
    for path, content in said.items():
        write_json(path, content | {"bundle": now})
    script = part.parents[1] / "kernel" / "run.py"
    assert script.read_text().count(before) == 1
    script.write_text(script.read_text().replace(before, now))


def rewrite(folder: Path, name: str, change: Callable[[str], str]) -> None:
    """Change a file of the bundled code."""
    path = folder / "inputs" / "code" / "kit-code.whl"
    with zipfile.ZipFile(path) as content:
        files: dict[str, Path | bytes] = {member: content.read(member) for member in content.namelist()}
    before = bytes(files[name]).decode()
    assert change(before) != before
    files[name] = change(before).encode()
    archive.pack(files, path)
    seal(path.parent, path)


def failing(run: Run, options: Options) -> str:
    """The one line that says why the rehearsal fails."""
    text, code = rehearse.rehearse(run, replace(options, images=4, layouts=("plain",)))
    assert code == 1, text
    (line,) = re.findall(r"^plain: .*(?:\n  .*)*", text, re.MULTILINE)
    return " ".join(line.split())


def test_twenty_hidden_slides_pass_in_all_three_layouts_as_the_run_predicted_them(finished: Run) -> None:
    began = time.perf_counter()
    text, code = rehearse.rehearse(finished, Options(images=20))
    print(text)
    assert code == 0, text
    assert time.perf_counter() - began < 300
    assert re.findall(r"^(\w+) +passes", text, re.MULTILINE) == ["plain", "competitions", "datasets"]
    (largest,) = re.findall(r"largest difference is (\S+)", " ".join(text.split()))
    assert float(largest) <= 2e-6
    assert all(float(peak) < 13 for peak in re.findall(r"^\w+ +passes +\S+ +\S+ +(\S+)", text, re.MULTILINE))


def test_a_tampered_weight_is_caught(finished: Run, spoilt: Path) -> None:
    path = next((spoilt / "inputs" / "weights" / "models").rglob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    said = failing(finished, Options(spoilt))
    assert "integrity: " in said and path.name in said, said


def test_a_changed_mean_or_deviation_is_caught(finished: Run, spoilt: Path) -> None:
    part = spoilt / "inputs" / "weights"
    paths = list((part / "models").rglob("*.json"))
    for path in paths:
        text = re.sub(r'("(mean|std)": \[\s*)[0-9.]+', r"\g<1>0.45", path.read_text())
        assert text != path.read_text()
        path.write_text(text)
    seal(part, *paths)
    said = failing(finished, Options(spoilt))
    assert "preprocessing: " in said and ("mean" in said or "std" in said or "pixels" in said), said


def test_a_pass_in_bf16_is_caught(finished: Run, spoilt: Path) -> None:
    rewrite(spoilt, "kit/__init__.py", lambda text: text + BF16)
    said = failing(finished, Options(spoilt))
    assert "precision: " in said and "bf" in said.lower(), said


def test_a_missing_wheel_is_caught(finished: Run, spoilt: Path) -> None:
    path = spoilt / "inputs" / "code" / "bundle.json"
    about = json.loads(path.read_text())
    del about["image"]["openslide-python"]
    write_json(path, about)
    seal(path.parent, path)
    said = failing(finished, Options(spoilt))
    assert ("wheel: " in said or "library: " in said) and "openslide" in said, said


def test_a_reordered_sample_is_caught(finished: Run, spoilt: Path) -> None:
    wrong = "write_table(out / 'submission.csv', table.sort_values(run.competition.unit))"
    rewrite(spoilt, "kit/deliver/kernel.py", lambda text: text.replace(WRITTEN, wrong))
    said = failing(finished, Options(spoilt))
    assert "Submission Scoring Error: " in said and "order" in said, said


def test_an_id_that_was_read_as_a_number_is_caught(finished: Run, spoilt: Path) -> None:
    numbers = "table.assign(patient_id=[name.lstrip('0') for name in table['patient_id']])"
    wrong = f"write_table(out / 'submission.csv', {numbers})"
    rewrite(spoilt, "kit/deliver/kernel.py", lambda text: text.replace(WRITTEN, wrong))
    text, code = rehearse.rehearse(finished, Options(spoilt, images=30, layouts=("plain",)))
    assert code == 1 and "Submission Scoring Error" in text and "number" in text, text


def test_an_hour_too_slow_is_caught(finished: Run, passed: tuple[rehearse.Stage, rehearse.Attempt]) -> None:
    _, first = passed
    assert first.failure is None
    slower = 10 / first.hours  # ten hours projected, and nine allowed
    said = failing(finished, Options(slower=slower))
    assert "Notebook Timeout: " in said, said


def test_a_gibibyte_too_much_is_caught(
    finished: Run, spoilt: Path, passed: tuple[rehearse.Stage, rehearse.Attempt]
) -> None:
    _, first = passed
    limit = first.ended.peak_mib / 1024 + 0.5
    rewrite(spoilt, "kit/deliver/kernel.py", lambda text: text.replace(FUTURE, FUTURE + GREEDY))
    said = failing(finished, Options(spoilt, memory=limit))
    assert "Notebook Exceeded Allowed Compute: " in said and "of memory" in said, said
