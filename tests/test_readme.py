"""What the README shows of a user's own competition works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kit import seeds
from tests.conftest import as_csv

ROOT = Path(__file__).parents[1]


def write_data(folder: Path) -> None:
    """Grey photographs of forty patients; those of a malignant lesion are darker."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for n in range(60):
        label = ("benign", "malignant")[n % 2]
        grey = seeds.rng(0, "readme", n).normal((150, 90)[n % 2], 20, (48, 64))
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{n:04d}.png")
        rows.append((f"{n:04d}", f"p{n % 40}", label))
    as_csv(folder / "labels.csv", pd.DataFrame(rows, columns=["image_id", "patient", "label"]))


def test_a_users_own_competition_runs_as_the_readme_writes_it(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    (program,) = re.findall(r"```python\n(# my_task\.py\n.*?)```", text, re.DOTALL)
    (command,) = re.findall(r"^python run_all\.py my_task\.py --data DIR$", text, re.MULTILINE)
    (tmp_path / "my_task.py").write_text(program)
    write_data(tmp_path / "data")
    words = command.replace("DIR", "data").split()[2:]
    done = subprocess.run(
        [sys.executable, ROOT / "run_all.py", *words, "--set", "tune.trials=0", "train.views=1"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (submission,) = (tmp_path / "submissions" / "my-task").glob("*/submission.csv")
    table = pd.read_csv(submission, dtype={"image_id": str})
    assert list(table) == ["image_id", "benign", "malignant"] and len(table) >= 4
    assert "@@" not in text
    assert "colour and texture" in done.stdout, "what a photograph's colours alone can tell is beside it"
