"""What a fit says: the same rows after a stop, apart from what the clock says."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.competition import Training
from kit.errors import SettingError
from kit.learn import checkpoint, loop, monitor, train
from kit.state import Run
from tests.learn.fits import Stopped, fit_of, stopping

Make = Callable[..., Run]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def told(path: Path) -> list[dict[str, str]]:
    """What does not depend on a clock."""
    return [{name: row[name] for name in monitor.SAME} for row in rows_of(path)]


@pytest.mark.parametrize("mode", ["frozen", "scratch"])
def test_a_row_is_written_at_the_end_of_every_epoch(mode: str, make_run: Make, tmp_path: Path) -> None:
    path = tmp_path / "fold0.log.csv"
    fit = fit_of(make_run(), mode, stop="inner")
    train._fitted(fit, None, path)
    rows = rows_of(path)
    assert [int(row["epoch"]) for row in rows] == list(range(fit.model.epochs))
    assert all(float(row["loss"]) > 0 and float(row["inner_loss"]) > 0 for row in rows)
    assert all(float(row["bags_per_s"]) > 0 and 0 <= float(row["idle_share"]) <= 1 for row in rows)
    assert all(float(row["rss_mib"]) > 50 for row in rows)
    assert len({row["rate"] for row in rows}) > 1
    assert all(int(row["bags"]) == len(fit.aside()[0].images) for row in rows)


def test_a_fit_that_was_stopped_tells_the_same_story(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fit_of(make_run(), "scratch")
    monkeypatch.setattr(loop, "STEPS", 2)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    train._fitted(fit, None, tmp_path / "straight.log.csv")
    for after in (3, 2, -1):
        with monkeypatch.context() as patch:
            stopping(patch, after)
            try:
                train._fitted(fit, tmp_path / "fit.ckpt", tmp_path / "stopped.log.csv")
            except Stopped:
                assert after > 0
    assert told(tmp_path / "stopped.log.csv") == told(tmp_path / "straight.log.csv")
    assert len(told(tmp_path / "straight.log.csv")) == 6


def test_a_log_of_another_kind_is_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "fold0.log.csv"
    path.write_text("epoch,loss\n0,0.5\n")
    assert monitor.Monitor(path).rows == []


def test_logs_are_those_that_are_known_and_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor.check(Training(logs=("csv",)))
    with pytest.raises(SettingError, match="there is no log 'tensorbord'") as caught:
        monitor.check(Training(logs=("tensorbord",)))
    assert "tensorboard" in caught.value.hint
    monkeypatch.setattr(monitor.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="package wandb is not installed") as caught:
        monitor.check(Training(logs=("csv", "wandb")))
    assert "pip install wandb" in caught.value.hint


def test_other_logs_get_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[dict[str, float]] = []

    class Writer:
        def __init__(self, path: Path, title: str) -> None:
            assert path.parent == tmp_path

        def write(self, n: int, numbers: Any) -> None:
            written.append({"n": n, **numbers})

        def close(self) -> None:
            written.append({})

    monkeypatch.setattr(monitor, "TensorBoard", Writer)
    watch = monitor.Monitor(tmp_path / "a.log.csv", "", ("csv", "tensorboard"))
    watch.row({"epoch": 0, "step": 5, "loss": 0.5, "inner_loss": "", "rate": 0.1, "bags": 20})
    watch.close()
    assert written[0]["n"] == 1 and written[0]["loss"] == 0.5 and "inner_loss" not in written[0]
    assert written[1] == {}


def test_the_time_that_is_waited_for_data_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: now[0])
    watch = monitor.Monitor()

    def slowly() -> Any:
        for n in range(4):
            now[0] += 3.0
            yield n

    for _ in watch.waiting(slowly()):
        now[0] += 1.0
        watch.step(2, 6)
    watch.row({"epoch": 0, "step": 4, "loss": 0.5, "inner_loss": "", "rate": 0.1, "bags": 8})
    assert watch.rows[0]["idle_share"] == "0.75"
    assert watch.rows[0]["bags_per_s"] == "0.5" and watch.rows[0]["tiles_per_s"] == "1.5"
