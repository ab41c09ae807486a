"""A rehearsal fails for what Kaggle would fail it for, under the name that Kaggle has for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.__main__ import stage_parser
from kit.deliver import failures, hidden, projection, rehearse, sandbox
from kit.deliver.projection import Work
from kit.deliver.rehearse import Options
from kit.errors import SettingError
from kit.files import write_json, write_text
from kit.state import Run

RUN = "0123456789ab"
# A kernel that finds its parts as the real one does, and says what it was told to.
HEAD = """
import csv, glob, json, os, sys, time
root = os.environ.get("KIT_KAGGLE", "/kaggle")
(answers,) = glob.glob(root + "/input/**/answers.json", recursive=True)
answers = json.load(open(answers))
(data,) = [os.path.dirname(p) for p in glob.glob(root + "/input/**/sample_submission.csv", recursive=True)]
ids = [row["patient_id"] for row in csv.DictReader(open(data + "/sample_submission.csv"))]
report = {"images": 9, "fallback": answers["fallback"], "megapixels": 18.0, "tiles": 36,
          "seconds": {"start": 1, "install": 1, "probe": 1, "tile": 9, "predict": 9, "combine": 0}}
def row(name):
    p = answers["p"].get(name, 0.4)
    return f"{name},{p:.9f},{1 - p:.9f}"
def write(rows, header="patient_id,CE,LAA"):
    open("submission.csv", "w").write("\\n".join([header, *rows]) + "\\n")
"""
TAIL = """
write(map(row, ids))
json.dump(report, open("kit_report.json", "w"))
"""

Try = Callable[..., tuple[str, int]]


@pytest.fixture
def tried(settled: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Try:
    """``tried(code, ...)`` rehearses a bundle whose kernel is that code."""
    run = settled()
    monkeypatch.setattr(Run, "need", lambda self, name: None)
    monkeypatch.setattr(Run, "submission", Path("submissions/strip-ai") / RUN)
    units = hidden.make(run, tmp_path / "known", 6).units
    own = units[units["p_CE"].notna()]
    answers = {"p": own["p_CE"].to_dict(), "fallback": list(units.index[units["prior"]])}

    def typed(code: str, layouts: tuple[str, ...] = ("plain",), images: int = 6, **options: Any) -> Any:
        folder = make_bundle(tmp_path / "bundle", code, answers)
        return rehearse.rehearse(run, Options(folder, images, layouts, **options))

    return typed


def make_bundle(folder: Path, code: str, answers: dict[str, Any]) -> Path:
    """As much of a bundle as a rehearsal reads."""
    about = {"run": RUN, "stage": "predict", "slug": "the-slug", "requires": {}}
    write_text(folder / "kernel" / "run.py", code)
    for part in ("code", "weights"):
        content = {"kit": 1, "part": part, "bundle": "ba9876543210", "files": {}}
        write_json(folder / "inputs" / part / "part.json", content)
    write_json(folder / "inputs" / "code" / "bundle.json", about)
    write_json(folder / "inputs" / "weights" / "answers.json", answers)
    return folder


def failure(text: str) -> str:
    """The line that says why the plain layout fails."""
    (line,) = re.findall(r"^plain: .*(?:\n  .*)*", text, re.MULTILINE)
    return " ".join(line.split())


def test_a_kernel_that_predicts_what_the_run_did_passes_in_every_layout(tried: Try) -> None:
    text, code = tried(HEAD + TAIL, ("plain", "competitions", "datasets"))
    assert code == 0, text
    assert re.findall(r"^(\w+) +passes", text, re.MULTILINE) == ["plain", "competitions", "datasets"]
    assert max(map(len, text.splitlines())) <= 100
    assert "6 held-out, 1 broken, 1 no tissue, 1 new site" in text
    assert "cores, without a GPU; Kaggle has 4 cores" in text
    assert "largest difference is" in text and "nothing is known against it" in text
    assert "3 units got the prior; 3 have no usable image" in text
    assert re.search(
        r"weighted log loss of \d held-out units: (\S+); by the run itself \1; a constant 0\.6931", text
    )


def test_what_a_reader_saves_of_a_broken_image_is_no_failure(tried: Try) -> None:
    saved = "broken = next(name for name in ids if name.endswith('b'))\nanswers['p'][broken] = 0.9\n"
    text, code = tried(HEAD + saved + "report['fallback'].remove(broken)\n" + TAIL)
    assert code == 0 and "2 units got the prior; 3 have no usable image" in text, text
    text, code = tried(HEAD + saved + TAIL)  # it says that it got the prior, and it did not
    assert code == 1 and "differs by 0.4" in text, text


@pytest.mark.parametrize(
    ("layout", "places"),
    [
        ("plain", {"mayo-clinic-strip-ai", "strip-ai-ba9876543210-code", "strip-ai-ba9876543210-weights"}),
        (
            "competitions",
            {
                "competitions/mayo-clinic-strip-ai",
                "datasets/your-name/strip-ai-ba9876543210-code",
                "datasets/your-name/strip-ai-ba9876543210-weights",
            },
        ),
        (
            "datasets",
            {
                "mayo-clinic-strip-ai",
                "datasets/your-name/strip-ai-ba9876543210-code",
                "datasets/your-name/strip-ai-ba9876543210-weights",
            },
        ),
    ],
)
def test_each_layout_mounts_the_parts_where_kaggle_does(
    tried: Try, tmp_path: Path, layout: str, places: set[str]
) -> None:
    code = (
        "import os\nfor folder, _, files in os.walk('/kaggle/input'):\n"
        "    if 'part.json' in files or 'test.csv' in files:\n"
        "        print('at', os.path.relpath(folder, '/kaggle/input'))\n"
    )
    tried(code, (layout,))
    log = next(tmp_path.glob(f"work/*/rehearse/{layout}/log.txt")).read_text()
    assert set(re.findall(r"^at (.*)$", log, re.MULTILINE)) == places


@pytest.mark.parametrize(
    ("code", "options", "kind", "words"),
    [
        ("time.sleep(30)", {"slower": 400.0}, failures.TIMEOUT, "ended after"),
        (
            "kept = bytearray(b'x') * 2**29; time.sleep(30)",
            {"memory": 0.3},
            failures.COMPUTE,
            "GiB of memory",
        ),
        ("raise RuntimeError('a bug')", {}, failures.THREW, "RuntimeError: a bug"),
        (
            "print('FAULT integrity: a part is not whole')",
            {},
            failures.THREW,
            "integrity: a part is not whole",
        ),
        ("print('FAULT memory: too many workers')", {}, failures.COMPUTE, "memory: too many workers"),
        ("sys.exit(0)", {}, failures.NO_CSV, "has left no submission.csv"),
        ("write(map(row, ids[1:])); sys.exit()", {}, failures.SCORING, "missing"),
        ("write(map(row, sorted(ids))); sys.exit()", {}, failures.SCORING, "order"),
        ("write([r.lstrip('0') for r in map(row, ids)]); sys.exit()", {}, failures.SCORING, "number"),
        ("write([f'{i},nan,nan' for i in ids]); sys.exit()", {}, failures.SCORING, "nan"),
        ("write(map(row, ids), 'id,CE,LAA'); sys.exit()", {}, failures.SCORING, "patient_id"),
        ("answers['p'] = dict.fromkeys(ids, .5)", {}, failures.OTHER, "from the run's own prediction"),
        ("report['fallback'] = ids", {}, failures.OTHER, "though its images can be used"),
        ("report['seconds']['tile'] = 36000", {}, failures.TIMEOUT, "h projected for 280 images"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_each_way_of_kaggle_to_fail_is_recognised(
    tried: Try, code: str, options: dict[str, Any], kind: str, words: str
) -> None:
    text, left = tried(f"{HEAD}\n{code}\n{TAIL}", images=30 if "lstrip" in code else 6, **options)
    assert left == 1 and re.search(r"^plain +fails", text, re.MULTILINE)
    said = failure(text)
    assert said.startswith(f"plain: {kind}: ") and words in said, text
    assert "it would fail on Kaggle" in text


def test_where_the_network_cannot_be_cut_it_fails_and_says_so(
    tried: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "namespaces", lambda: ())
    text, code = tried(HEAD + TAIL)
    assert code == 1 and "the network is NOT cut" in failure(text)


@pytest.mark.parametrize(
    ("machine", "gpu", "allowed"),
    [("Xeon, x86_64, no GPU", False, 2e-6), ("Xeon, x86_64, Tesla T4", False, 1e-4),
     ("Xeon, x86_64, Tesla T4", True, 2e-6)],
)  # fmt: skip
def test_what_a_gpu_has_predicted_may_differ_a_little_without_one(
    machine: str, gpu: bool, allowed: float
) -> None:
    stage = rehearse.Stage(*[None] * 8)  # type: ignore[arg-type]
    assert (
        replace(stage, about={"machines": ["Xeon, x86_64, no GPU", machine], "gpu": gpu}).allowed == allowed
    )


@pytest.mark.parametrize(
    "words",
    [("--images", "0"), ("--slower", "0"), ("--hours", "nan"), ("--expected", "-1"), ("--memory", "x")],
)
def test_a_rehearsal_of_nothing_is_refused(words: tuple[str, str], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        stage_parser().parse_args(["rehearse", "strip-ai", *words])
    assert f"argument {words[0]}: " in capsys.readouterr().err


def test_a_bundle_of_another_run_or_stage_is_refused(tried: Try, tmp_path: Path) -> None:
    tried(HEAD + TAIL)
    path = tmp_path / "bundle" / "inputs" / "code" / "bundle.json"
    about = json.loads(path.read_text())
    for change, words in (
        ({"run": "another"}, "of the submission another"),
        ({"stage": "tile"}, "stage tile"),
    ):
        write_json(path, about | change)
        with pytest.raises(SettingError, match=words):
            rehearse.find_bundle(Run(*[None] * 4), Options(tmp_path / "bundle"))  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="has no inputs"):
        rehearse.find_bundle(Run(*[None] * 4), Options(tmp_path / "nothing"))  # type: ignore[arg-type]


def test_a_projection_goes_up_with_what_each_step_goes_up_with() -> None:
    seconds = {"start": 5, "install": 10, "probe": 5, "tile": 40, "predict": 60, "combine": 2}
    report = {"images": 10, "megapixels": 100, "tiles": 160, "seconds": seconds}
    found = projection.project(report, 130, Work(100, 3000, 1600), 1.0)
    assert found.once == pytest.approx(28)  # what nothing else explains
    assert found.by_area == pytest.approx(40 * 30)
    assert found.by_image == pytest.approx(60 * 10 + 2 * 10)
    twice = projection.project(report, 130, Work(100, 3000, 1600), 2.0)
    assert twice.hours == pytest.approx(2 * found.hours)
    bare = projection.project({"images": 10}, 130, Work(100, 3000, 1600), 1.0)
    assert bare.hours == pytest.approx(1300 / 3600)


def test_the_time_limit_is_the_share_of_the_area_and_the_start() -> None:
    found = projection.limit(9, Work(20, 50, 0), Work(280, 500, 0), 2.0)
    assert found == pytest.approx((3240 + projection.START_UP) / 2)
    assert projection.limit(9, Work(600, 900, 0), Work(280, 500, 0), 1.0) == 32400 + projection.START_UP
