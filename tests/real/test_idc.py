"""Real breast patches of 279 patients, as a user's own competition, from files to a submission."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "idc").is_dir(), reason="the real IDC patches are not beside the project")
def test_three_frozen_backbones_reach_a_patient_grouped_auc_of_0915_on_real_patches(tmp_path: Path) -> None:
    weights = DATA / "weights"
    command = [
        *(sys.executable, str(ROOT / "run_all.py"), str(ROOT / "tests/real/idc.py")),
        *("--data", str(DATA / "idc"), "--weights"),
        f"mobilenetv2_100={weights / 'mobilenet_v2-b0353104.pth'}",
        f"tf_efficientnet_lite0={weights / 'efficientnet-lite0-57934424.pth'}",
        f"squeezenet1_1={weights / 'squeezenet1_1_onnxzoo.safetensors'}",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = (tmp_path / "submissions" / "idc").iterdir()
    rows = json.loads((run / "metrics.json").read_text())["rows"]
    (default,) = [row for row in rows if row["kind"] == "default" and row["set"] == "oof"]
    print(done.stdout)
    assert default["nested"] is True
    assert default["auc"] >= 0.915
    assert default["score"] <= 0.362
    folds = (run / "folds.csv").read_text().splitlines()
    assert len(folds) == 3890 + 1
