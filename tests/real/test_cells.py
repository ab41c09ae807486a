"""Real blood cells: their folders, their copies, and how well the default tells eight kinds apart."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit import folds, state
from kit.commands import COMMANDS
from kit.competition import find
from kit.files import read_strings
from kit.read import duplicates
from kit.state import Run

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data"
CELLS = DATA / "blood-cells"
pytestmark = pytest.mark.skipif(not CELLS.is_dir(), reason="the real blood cells are not beside the project")


def test_the_folders_hold_17092_cells_17_groups_of_copies_and_one_conflict() -> None:
    train = find("blood-cells").load(CELLS).train
    assert len(train) == 17092
    sizes = train.groupby("cluster").size()
    assert (sizes > 1).sum() == 17
    index = read_strings(CELLS / "index.csv")
    blobs = index.set_index(index["file"].str.removesuffix(".jpg"))["git_blob"]
    mine = train.set_index("image_id")["cluster"].groupby(blobs).nunique()
    assert (mine == 1).all()  # what is equal as shipped is equal here
    assert {row[1] for row in train.attrs["conflicts"]} == {"EO_225902", "BNE_191112"}


def test_the_held_out_cells_are_313_of_each_kind_and_none_has_a_copy(tmp_path: Path) -> None:
    run = Run(find("blood-cells"), "blood-cells", CELLS, tmp_path)
    state.execute(run, "fold")
    table = folds.training_folds(run)
    held = table[table["role"] == "holdout"]
    assert set(held["label"].value_counts()) == {313}
    assert not table["group_id"].duplicated(keep=False)[held.index].any()


def test_the_near_pairs_of_leukemia_are_neighbours_in_number(tmp_path: Path) -> None:
    run = Run(find("leukemia"), "leukemia", DATA / "leukemia", tmp_path)
    parser = argparse.ArgumentParser()
    COMMANDS["duplicates"].options(parser)
    duplicates.run(run, parser.parse_args(["--near"]))
    pairs = read_strings(run.folder("duplicates") / "pairs.csv")
    equal, near = (pairs[pairs["kind"] == kind] for kind in ("bytes", "near"))
    assert len(equal) == 40
    assert equal["first"].str.contains("Pro").all()
    numbers = [near[name].str.extract(r"(\d+)$")[0].astype(int) for name in ("first", "second")]
    assert len(near) >= 30
    assert ((numbers[0] - numbers[1]).abs() <= 4).all()


@pytest.mark.slow
def test_the_default_tells_985_of_1000_held_out_cells_and_its_probabilities_mean_it(tmp_path: Path) -> None:
    weights = DATA / "weights" / "mobilenet_v2-b0353104.pth"
    options = ["blood-cells", "--data", str(CELLS), "--weights", f"mobilenetv2_100={weights}"]
    settings = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "capture_output": True}
    for command in ([str(ROOT / "run_all.py")], ["-m", "kit", "evaluate"]):
        done = subprocess.run([sys.executable, *command, *options], text=True, **settings)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    found = json.loads((tmp_path / "work/blood-cells/evaluate/metrics.json").read_text())
    default = found["classification"]["holdout"][-1]
    assert sum(map(sum, default["counts"])) == 2504
    assert default["accuracy"]["value"] >= 0.985
    assert default["ece"] <= 0.01
