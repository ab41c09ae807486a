"""A finished stage is skipped as long as its key and its outputs are what they were, and only then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from kit import settings, state
from kit.competition import Competition, Tables, Tuning, find
from kit.errors import StageError
from kit.metrics import LogLoss
from kit.state import External, Run, Stage, execute, finished, read_state

ROOT = Path(__file__).parents[1]
WRITER = (
    "import sys, time; from pathlib import Path; from kit import files\n"
    "files.write_file(Path(sys.argv[1]), lambda path: (path.write_text('half'), time.sleep(60)))\n"
)
TASK = Competition("toy", ("A", "B"), LogLoss(), lambda data: Tables(pd.DataFrame()))


class Toy(ModuleType):
    """A stage that writes one file, and remembers how often it did."""

    VERSION = 1

    def __init__(self, name: str) -> None:
        super().__init__(f"toy_{name}")
        self.stage, self.times, self.read = name, 0, "x"

    def inputs(self, run: Run) -> dict[str, Any]:
        return {"read": self.read}

    def run(self, run: Run) -> list[Path]:
        self.times += 1
        path = run.folder(self.stage) / "out.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.stage)
        return [path]


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> dict[str, Toy]:
    """Two stages, the second after the first: it searches settings, on threads."""
    stages = (
        Stage("first", "", "toy_first", groups=("fold",)),
        Stage("second", "", "toy_second", after=("first",), groups=("tune",), threaded=True),
    )
    found = {stage.name: Toy(stage.name) for stage in stages}
    for toy in found.values():
        monkeypatch.setitem(sys.modules, toy.__name__, toy)
    monkeypatch.setattr(state, "STAGES", {stage.name: stage for stage in stages})
    return found


@pytest.fixture
def make(tmp_path: Path, toys: dict[str, Toy]) -> Callable[..., Run]:
    """``make(seed=1, set="fold.k=3")``: a run over the toys, its keys not yet taken."""

    def made(set: str = "", **fields: Any) -> Run:
        task = settings.apply(TASK, [settings.split(set)] if set else [])
        return Run(task, "toy", tmp_path / "data", tmp_path / "work", **fields)

    return made


def both(run: Run) -> None:
    execute(run, "first")
    execute(run, "second")


def test_a_stage_is_finished_once_it_has_run(make: Callable[..., Run]) -> None:
    run = make()
    assert not finished(run, "first")
    execute(run, "first")
    assert finished(run, "first") and finished(make(), "first")


@pytest.mark.parametrize("done", ["edited", "missing"])
def test_an_output_that_was_edited_or_is_missing_unfinishes_its_stage(
    make: Callable[..., Run], done: str
) -> None:
    execute(make(), "first")
    output = make().folder("first") / "out.txt"
    output.write_text("firsT") if done == "edited" else output.unlink()
    assert not finished(make(), "first")
    execute(make(), "first")
    assert finished(make(), "first") and output.read_text() == "first"


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ({"seed": 1}, ["first", "second"]),
        ({"set": "fold.k=3"}, ["first", "second"]),
        ({"set": "tune.trials=9"}, ["second"]),
        ({"threads": 2}, ["second"]),
        ({"set": "tune.storage=sqlite:///x"}, []),
        ({"set": "train.lr=0.5"}, []),
        ({"workers": 7}, []),
        ({"data": "elsewhere"}, []),
    ],
)
def test_only_what_decides_a_result_changes_its_key(
    make: Callable[..., Run], change: dict[str, Any], redone: list[str]
) -> None:
    both(make())
    moved = replace(make(), data=Path(change["data"])) if "data" in change else make(**change)
    assert [name for name in ("first", "second") if not finished(moved, name)] == redone


def test_a_new_version_or_other_files_unfinish_a_stage_and_those_after_it(
    make: Callable[..., Run], toys: dict[str, Toy]
) -> None:
    both(make())
    toys["first"].VERSION = 2  # type: ignore[misc]
    assert not finished(make(), "first") and not finished(make(), "second")
    toys["first"].VERSION = 1  # type: ignore[misc]
    toys["second"].read = "y"
    assert finished(make(), "first") and not finished(make(), "second")


def test_a_stage_that_needs_another_says_what_to_type(make: Callable[..., Run]) -> None:
    with pytest.raises(StageError, match="second needs the result of first, which has not been run") as e:
        execute(make(), "second")
    assert e.value.hint.startswith("type: python -m kit first toy")


def test_a_stage_whose_input_was_made_otherwise_says_what_changed(
    make: Callable[..., Run], toys: dict[str, Toy]
) -> None:
    execute(make(), "first")
    with pytest.raises(StageError, match=r"first.*\(settings\.fold\.k: was 5, now 3\)"):
        execute(make(set="fold.k=3"), "second")
    with pytest.raises(StageError, match=r"seed: was 0, now 4"):
        execute(make(seed=4), "second")
    assert toys["second"].times == 0


def test_a_stage_names_the_file_of_the_one_before_that_is_gone_or_changed(make: Callable[..., Run]) -> None:
    execute(make(), "first")
    path = make().folder("first") / "out.txt"
    path.write_text("by hand")
    with pytest.raises(StageError, match=rf"first, which left {path}, which was changed since"):
        execute(make(), "second")
    path.unlink()
    with pytest.raises(StageError, match=rf"first, which left {path}, which is not there any more"):
        execute(make(), "second")


def test_a_stage_that_fails_is_not_finished_whatever_it_was_before(
    make: Callable[..., Run], toys: dict[str, Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    both(make())

    def fail(run: Run) -> list[Path]:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(toys["first"], "run", fail)
        with pytest.raises(RuntimeError):
            execute(make(), "first", force=True)
    assert not finished(make(), "first")
    assert set(read_state(make().work)) == {"second"}


def test_what_a_kill_left_half_written_is_swept_away_but_not_what_is_being_written(
    make: Callable[..., Run], tmp_path: Path
) -> None:
    folder = make().folder("first") / "deep"
    folder.mkdir(parents=True)
    (folder / ".tmp-123-out.txt").write_text("ha")
    (folder / "kept.txt").write_text("whole")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder / "mine.txt")], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        while len(list(folder.glob(".tmp-*mine.txt"))) < 1:
            assert writer.poll() is None
            time.sleep(0.05)
        execute(make(), "first")
        names = sorted(path.name for path in folder.iterdir())
        assert len(names) == 2 and names[0].endswith("-mine.txt") and names[1] == "kept.txt"
    finally:
        writer.kill()
        writer.wait()
    execute(make(), "first")
    assert [path.name for path in folder.iterdir()] == ["kept.txt"]


def test_a_stage_that_is_forced_forgets_first_what_it_would_go_on_from(
    make: Callable[..., Run], toys: dict[str, Toy]
) -> None:
    told: list[str] = []
    toys["first"].forget = lambda run: told.append("forgotten")  # type: ignore[attr-defined]
    execute(make(), "first")
    assert told == []
    execute(make(), "first", force=True)
    assert told == ["forgotten"] and toys["first"].times == 2


def test_a_stage_checks_what_it_was_given_once_and_before_anything_is_lost(
    make: Callable[..., Run], toys: dict[str, Toy]
) -> None:
    told: list[str] = []
    toys["first"].check = lambda run: told.append("checked")  # type: ignore[attr-defined]
    run = make()
    state.preflight(run, ["first"])
    execute(run, "first")
    assert told == ["checked"]

    def refuse(run: Run) -> None:
        raise StageError("no")

    toys["first"].check = refuse  # type: ignore[attr-defined]
    toys["first"].VERSION = 2  # type: ignore[misc]
    with pytest.raises(StageError):
        execute(make(), "first")
    assert toys["first"].times == 1 and "first" in read_state(make().work)


@pytest.mark.slow
def test_no_record_is_lost_where_many_processes_write_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from kit.state import record\n"
        "for n in range(40): record(Path(sys.argv[1]), f'{sys.argv[2]}-{n}', {'key': n})\n"
    )
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(n)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for n in range(4)
    ]
    assert [process.wait() for process in crowd] == [0] * 4
    assert len(read_state(tmp_path)) == 4 * 40


def test_the_state_records_key_inputs_outputs_and_cost(make: Callable[..., Run]) -> None:
    run = make()
    both(run)
    record = json.loads((run.work / "state.json").read_text())["second"]
    assert record["key"] == run.key("second") and len(record["key"]) == 64
    assert record["ingredients"]["after"] == {"first": run.key("first")}
    assert (record["ingredients"]["threads"], record["ingredients"]["seed"]) == (1, 0)
    assert list(record["outputs"]) == [str(run.folder("second") / "out.txt")]
    assert record["seconds"] >= 0 and record["peak_mib"] > 10


def test_nested_contents_flatten_to_dotted_keys() -> None:
    assert state.flatten({"a": {"b": {"c": 1}, "d": 2}, "e": [3]}) == {"a.b.c": 1, "a.d": 2, "e": [3]}


def test_the_real_stages_are_in_flow_order_and_each_reads_only_earlier_ones() -> None:
    order = list(state.STAGES)
    assert order == ["fold", "tile", "tune", "train", "predict", "combine", "submit", "report"]
    for n, stage in enumerate(state.STAGES.values()):
        assert set(stage.after) <= set(order[:n])
        assert set(stage.groups) <= set(settings.GROUPS)


def test_predictions_made_elsewhere_need_no_first_level(tmp_path: Path) -> None:
    run = Run(TASK, "toy", tmp_path, tmp_path)
    assert run.chain("submit") == list(state.STAGES)[:7]
    external = replace(run, external=External({"net": tmp_path / "oof.csv"}))
    assert external.chain("submit") == ["combine", "submit"]


def test_the_submission_folder_is_named_by_twelve_digits_of_the_key(data: Path, oof: list[str]) -> None:
    external = External({"net": Path(oof[1].partition("=")[2])})
    run = Run(find("strip-ai"), "strip-ai", data, data / "work", external=external)
    assert run.submission == Path("submissions") / "strip-ai" / run.key("submit")[:12]
    assert replace(run, seed=1).submission != run.submission
    assert replace(run, workers=9, data=data / ".." / "data").submission == run.submission


def test_where_the_study_is_kept_is_in_no_key_of_the_tune_stage() -> None:
    stored = replace(TASK, tuning=Tuning(storage="postgresql://user:secret@host"))
    assert "secret" not in json.dumps(settings.part(stored, "tune"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the stages that really ran, in order."""
    from kit import folds
    from kit.combine import second_level

    ran: list[str] = []
    for name, module in (("fold", folds), ("combine", second_level)):
        work = module.run

        def counting(run: Run, name: str = name, work: Any = work) -> list[Path]:
            ran.append(name)
            found: list[Path] = work(run)
            return found

        monkeypatch.setattr(module, "run", counting)
    return ran


def test_the_command_skips_a_finished_stage_and_force_repeats_it(
    kit: Callable[..., Any], data: Path, counted: list[str]
) -> None:
    command = ("fold", "strip-ai", "--data", data)
    kit(*command)
    assert "finished before" in kit(*command).err and counted == ["fold"]
    assert "finished before" not in kit(*command, "--force").err and counted == ["fold"] * 2
    kit(*command, "--workers", 9)
    assert counted == ["fold"] * 2
    kit(*command, "--seed", 1)
    assert counted == ["fold"] * 3


def test_the_command_repeats_a_stage_whose_tables_output_or_settings_changed(
    kit: Callable[..., Any], data: Path, tmp_path: Path, counted: list[str]
) -> None:
    command = ("fold", "strip-ai", "--data", data)
    kit(*command)
    first = (tmp_path / "folds" / "strip-ai.csv").read_bytes()
    (tmp_path / "folds" / "strip-ai.csv").write_text("edited")
    kit(*command)
    assert (tmp_path / "folds" / "strip-ai.csv").read_bytes() == first
    kit(*command, "--set", "fold.k=3")
    with (data / "train.csv").open("a") as stream:
        stream.write("ffffff_0,1,ffffff,0,CE\n")
    kit(*command, "--set", "fold.k=3")
    assert counted == ["fold"] * 4
    assert "ffffff_0" in (tmp_path / "folds" / "strip-ai.csv").read_text()


def test_an_edited_file_of_predictions_repeats_combine(
    kit: Callable[..., Any], data: Path, tmp_path: Path, oof: list[str], counted: list[str]
) -> None:
    command = ("combine", "strip-ai", "--data", data, *oof)
    kit(*command)
    kit(*command)
    text = (tmp_path / "oof.csv").read_text().splitlines(keepends=True)
    (tmp_path / "oof.csv").write_text("".join([text[0], text[1].split(",")[0], ",0.5\n", *text[2:]]))
    kit(*command)
    assert counted == ["combine"] * 2


def test_a_stage_refuses_the_folds_of_other_settings(
    kit: Callable[..., Any], refused: Callable[..., str], data: Path
) -> None:
    refused("tune", "strip-ai", "--data", data, says=["tune needs the result of fold", "has not been run",
                                                      "python -m kit fold strip-ai"])  # fmt: skip
    kit("fold", "strip-ai", "--data", data)
    refused("tune", "strip-ai", "--data", data, "--set", "fold.k=3",
            says=["settings.fold.k: was 5, now 3"])  # fmt: skip


def test_what_the_stages_took_is_added_up_and_the_most_memory_is_told(tmp_path: Path) -> None:
    run = Run(TASK, "toy", tmp_path, tmp_path / "work")
    run.work.mkdir()
    for name, seconds, mib in (("fold", 1.0, 90), ("tile", 3600.0, 2048), ("train", 5.0, 9999)):
        state.record(run.work, name, {"seconds": seconds, "peak_mib": mib})
    assert state.spent(run, ["fold", "tile"]) == (
        "time: 1:00:01 (fold 00:01, tile 1:00:00); memory: 2,048 MiB"
    )
