"""The whole flow on a small demo, and golden results: behaviour changes only together with a VERSION.

After a change that is meant: raise the stage's VERSION, then
`KIT_GOLDEN=write python -m pytest tests/test_flow.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.__main__ import guarded, run_flow
from kit.demo import strip_ai as demo
from kit.files import digest, file_digest
from kit.read.store import read
from kit.state import STAGES

GOLDEN = Path(__file__).parent / "golden.json"
SMALL = [
    *("demo.patients=24", "demo.test_patients=6", "demo.largest=0", "fold.k=3", "tile.count=4"),
    *("tune.trials=1", "tune.inner=1", "train.epochs=3", "train.finetune_epochs=1"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the flow has run once."""
    folder = tmp_path_factory.mktemp("flow")
    before = Path.cwd()
    os.chdir(folder)
    try:
        # One thread, so that sums are alike on machines with more cores.
        assert (
            guarded(lambda: run_flow(["strip-ai", "--threads", "1", "--workers", "2", "--set", *SMALL])) == 0
        )
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def submission(place: Path) -> Path:
    (run,) = (place / "submissions" / "strip-ai-demo").iterdir()
    return run


def golden(name: str, version: int, value: Any) -> None:
    """Compare with what this version gave when it was recorded."""
    known = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    now = {"version": version, "value": value}
    if os.environ.get("KIT_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps({**known, name: now}, indent=1, sort_keys=True) + "\n")
        return
    changed = known[name]["value"] != value
    assert not changed or known[name]["version"] != version, f"{name} changed, and its VERSION did not"
    assert known[name] == now, f"record the new {name}: KIT_GOLDEN=write"


def test_the_flow_ends_with_a_submission_its_evidence_and_a_report(place: Path, submission: Path) -> None:
    names = {path.name for path in submission.iterdir()}
    evidence = {"metrics.json", "second_level.json", "folds.csv", "oof.csv", "holdout.csv", "test.csv"}
    evidence |= {"oof_combined.csv", "images.csv"}
    assert names == {"submission.csv", "manifest.json", "report.html", *evidence}
    sample = pd.read_csv(place / "work/strip-ai-demo/data/sample_submission.csv", dtype=str)
    written = pd.read_csv(submission / "submission.csv", dtype=str)
    assert list(written.columns) == ["patient_id", "CE", "LAA"]
    assert list(written["patient_id"]) == list(sample["patient_id"])
    manifest = json.loads((submission / "manifest.json").read_text())
    for name, was in manifest["files"].items():
        assert file_digest(submission / name) == was


def test_a_blank_and_a_truncated_slide_are_reported_and_survived(place: Path, submission: Path) -> None:
    images = pd.read_csv(place / "work/strip-ai-demo/tile/images.csv", dtype=str, keep_default_na=False)
    failed = images[images["status"] != "ok"]
    assert sorted(failed["status"]) == ["empty", "empty", "unreadable"]
    assert (failed["reason"] != "").all()
    fallback = json.loads((submission / "manifest.json").read_text())["fallback"]
    (blank,) = failed.loc[failed["split"] == "test", "image_id"]
    assert fallback == [blank.rsplit("_", 1)[0]]
    written = pd.read_csv(submission / "submission.csv", dtype=str).set_index("patient_id")
    assert written.loc[fallback[0]].tolist() == ["0.500000000", "0.500000000"]


def test_every_score_has_its_baseline_and_the_limit_beside_it(submission: Path) -> None:
    content = json.loads((submission / "metrics.json").read_text())
    kinds = [row["kind"] for row in content["rows"] if row["set"] == "oof"]
    assert kinds.count("default") == 1
    assert {"model", "pool", "baseline", "limit"} <= set(kinds)
    names = [row["name"] for row in content["rows"] if row["kind"] == "baseline"]
    assert {"constant", "metadata only"} <= set(names)
    fitted = [row for row in content["rows"] if row["name"].startswith(("calibrated", "metadata"))]
    assert all(row["nested"] for row in fitted if row["set"] == "oof")


def test_a_second_call_does_nothing_again(
    place: Path, submission: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in submission.iterdir()}
    monkeypatch.chdir(place)
    with caplog.at_level("INFO", "kit"):
        run_flow(["strip-ai", "--threads", "1", "--workers", "1", "--set", *SMALL])
    assert sum("finished before" in line for line in caplog.messages) == len(STAGES)
    assert {path: path.stat().st_mtime_ns for path in submission.iterdir()} == before


def test_the_demo_and_the_stages_that_only_count_give_the_recorded_bytes(place: Path) -> None:
    work = place / "work/strip-ai-demo"
    tables = [(work / "data" / name).read_bytes() for name in ("train.csv", "test.csv", "posterior.csv")]
    slides = [file_digest(path) for path in sorted((work / "data/test").iterdir())]
    golden("demo", demo.VERSION, digest([hashlib.sha256(b"".join(tables)).hexdigest(), slides]))
    golden("fold", STAGES["fold"].load().VERSION, file_digest(place / "folds/strip-ai-demo.csv"))
    stores = sorted((work / "tile").glob("*/*.npz"))
    pixels = [hashlib.sha256(read(path).decode().tobytes()).hexdigest() for path in stores if len(read(path))]
    images = file_digest(work / "tile/images.csv")
    golden("tile", STAGES["tile"].load().VERSION, digest([images, pixels]))


def test_training_gives_the_recorded_probabilities(place: Path) -> None:
    table = pd.read_csv(place / "work/strip-ai-demo/predict/test.csv", dtype={"image_id": str})
    # Two digits: processors differ in the last ones, and a change of behaviour in the first.
    mean = table.groupby(["model", "image_id"])["p_LAA"].mean()
    values = {f"{model} {image}": float(p) for (model, image), p in mean.items()}
    version = sum(STAGES[name].load().VERSION for name in ("tune", "train", "predict"))
    known = json.loads(GOLDEN.read_text()).get("learn") if GOLDEN.is_file() else None
    if os.environ.get("KIT_GOLDEN") == "write" or known is None:
        golden("learn", version, {name: round(p, 4) for name, p in values.items()})
        return
    assert set(known["value"]) == set(values)
    same = np.allclose(list(known["value"].values()), [values[name] for name in known["value"]], atol=0.01)
    assert same or known["version"] != version, "learning changed, and no VERSION of it did"
    golden("learn", version, known["value"])
    assert same, "record the new probabilities: KIT_GOLDEN=write"


def test_the_second_level_gives_the_recorded_scores(
    kit: Callable[..., Any], data: Path, oof: list[str]
) -> None:
    ended = kit("combine", "strip-ai", "--data", str(data), *oof)
    assert ended.code == 0, ended.err
    content = json.loads(Path("work/strip-ai/combine/metrics.json").read_text())
    scores = {row["name"]: [round(row[k], 4) for k in ("score", "low", "high")] for row in content["rows"]}
    golden("combine", STAGES["combine"].load().VERSION, scores)
    kit("submit", "strip-ai", "--data", str(data), *oof)
    (run,) = Path("submissions/strip-ai").iterdir()
    golden("submit", STAGES["submit"].load().VERSION, (run / "submission.csv").read_text().splitlines())
