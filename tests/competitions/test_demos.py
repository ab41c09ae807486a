"""Every competition of the kit runs anywhere, from made images to a submission, without data of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.competition import names

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(names()) - {"strip-ai"}))  # that one is the main job
def test_the_demo_ends_with_a_submission_between_the_limit_and_a_constant(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "run_all.py", name],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (submission,) = (tmp_path / "submissions" / f"{name}-demo").glob("*/submission.csv")
    rows = json.loads(submission.with_name("metrics.json").read_text())["rows"]
    score = {row["kind"]: row["score"] for row in rows if row["set"] == "oof" and row["kind"] != "pool"}
    constant = next(row["score"] for row in rows if row["name"] == "constant" and row["set"] == "oof")
    assert score["limit"] <= score["default"] < constant
