"""The real stage in several processes: they share its trials, and end with the same settings."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from optuna.trial import TrialState

from kit.files import read_strings
from kit.learn.storage import open_storage
from kit.state import Run
from tests.learn import crowd
from tests.learn.conftest import labelled_images

ROOT = Path(__file__).parents[2]
TRIALS = 5
TASK = """
from pathlib import Path
import pandas as pd
from kit.competition import Competition, FoldPlan, Tables, TileGrid, Training, Tuning
from kit.metrics import LogLoss

def load(data):
    return Tables(pd.read_csv(Path(__file__).parent / "labels.csv", dtype=str))

TOY = Competition(
    name="toy", classes=("a", "b"), metric=LogLoss(), load=load, group="patient",
    files="train/{image_id}.png", reader="photo", folds=FoldPlan(k=3, holdout=3),
    tiles=TileGrid(size=32, count=1), tuning=Tuning(trials=5, confirm=1),
    training=Training(backbones=("test_efficientnet:frozen",), epochs=4, batch=4, infer_batch=8, views=1),
)
"""


class Flow:
    """The stages typed in one folder."""

    def __init__(self, folder: Path, data: Path, weights: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "my_task.py").write_text(TASK)
        labelled_images().to_csv(folder / "labels.csv", index=False)
        self.folder = folder
        self.options = ["my_task.py", "--data", str(data), "--weights", f"test_efficientnet={weights}",
                        "--threads", "1", "--workers", "0"]  # fmt: skip
        for stage in ("fold", "tile"):
            assert self.start(stage).wait() == 0, self.log()

    def start(self, stage: str, *more: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "kit", stage, *self.options, *more],
                cwd=self.folder, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]

    def journal(self) -> int:
        """The bytes that its search has written."""
        path = self.folder / "work" / "toy" / "tune" / "study.journal"
        return path.stat().st_size if path.is_file() else 0

    def results(self) -> list[bytes]:
        folder = self.folder / "work" / "toy" / "tune"
        return [(folder / name).read_bytes() for name in ("best.json", "trials.csv", "confirm.csv")]

    def check_whole(self) -> None:
        """Every trial is there once, nothing runs any more, and the best is what the trials say."""
        folder = self.folder / "work" / "toy"
        run: Run = crowd.run_in(folder)
        storage = open_storage(run)
        for study in storage.get_all_studies():
            trials = storage.get_all_trials(study._study_id)
            done = [trial for trial in trials if trial.state.is_finished() and trial.state != TrialState.FAIL]
            assert set(Counter(trial.user_attrs["slot"] for trial in done).values()) == {1}
            assert TrialState.RUNNING not in {trial.state for trial in trials}
        table = read_strings(folder / "tune" / "trials.csv")
        assert list(table["trial"]) == [str(n) for n in range(TRIALS)] * 3
        table["loss"] = pd.to_numeric(table["loss"])
        for fold, chosen in json.loads((folder / "tune" / "best.json").read_text())[
            "test_efficientnet-frozen"
        ].items():
            mine = table[(table["fold"] == fold) & (table["state"] == "complete")]
            assert chosen["inner_loss"] in (mine["loss"].min(), mine["loss"].iloc[0])
            assert chosen["inner_loss_untuned"] == mine["loss"].iloc[0]


@pytest.fixture
def flow(photographs: Path, weights: Path, tmp_path: Path) -> Flow:
    return Flow(tmp_path / "flow", photographs, weights)


@pytest.mark.slow
def test_four_processes_on_one_journal_end_with_the_same_settings(flow: Flow) -> None:
    crew = [flow.start("tune") for _ in range(4)]
    first = [crew[0].wait(), flow.results()]
    assert [process.wait() for process in crew] == [0] * 4, flow.log()
    assert first == [0, flow.results()]
    flow.check_whole()
    assert flow.start("train").wait() == 0, "the record of the stage is there: " + flow.log()


@pytest.mark.slow
def test_a_stage_killed_at_random_writes_the_same_bytes_in_the_end(
    flow: Flow, photographs: Path, weights: Path, tmp_path: Path
) -> None:
    other = Flow(tmp_path / "undisturbed", photographs, weights)
    assert other.start("tune").wait() == 0, other.log()
    draw, whole = random.Random(0), other.journal()
    for n in (1, 2, 3):
        process, enough = flow.start("tune"), draw.uniform(n - 1, n) / 4 * whole
        while process.poll() is None and flow.journal() < enough:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it was killed in mid-search: " + flow.log()
    assert flow.start("tune").wait() == 0, flow.log()
    flow.check_whole()
    assert flow.results() == other.results()


@pytest.mark.slow
def test_the_option_names_a_database_and_no_file_of_the_work_folder_does(flow: Flow, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'secret.db'}"
    assert flow.start("tune", "--storage", url).wait() == 0, flow.log()
    work = flow.folder / "work" / "toy"
    assert (tmp_path / "secret.db").is_file() and not (work / "tune" / "study.journal").exists()
    told = [path for path in work.rglob("*") if path.is_file() and b"secret.db" in path.read_bytes()]
    assert told == []
    flow.start("tune").wait()
    assert "finished before" in flow.log()
