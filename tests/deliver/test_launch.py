"""What runs the kit on Kaggle names every end of it, and stops in time to go on in the next session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit import competition, settings
from kit.__main__ import make_run, stage_parser
from kit.deliver import declared, launch
from kit.state import Run
from tests.deliver.fake_bundle import PRIORS, Fake


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Fake]:
    return lambda **options: Fake(tmp_path / "kaggle", **options)


# -- how the kit ends


@pytest.mark.parametrize(
    ("does", "kind", "word"),
    [
        ("raise KeyError('x')", "exception", "KeyError"),
        ("raise MemoryError", "memory", "13 GiB"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "memory", "13 GiB"),
        ("sys.exit(3)", "exception", "exit code 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "exception", "signal 11"),
        ("raise OSError(28, 'No space left on device')", "disk", "no space"),
    ],
)
def test_every_end_of_the_kit_has_a_kind(does: str, kind: str, word: str, fake: Any) -> None:
    ran = fake().build().run(FAKE=does)
    (line,) = ran.faults
    assert ran.code == 1 and line.startswith(f"FAULT {kind}: ") and word in line and ran.submission == PRIORS


def test_what_the_kit_has_said_is_not_said_again(fake: Any) -> None:
    ran = fake().build().run(FAKE="print('FAULT precision: it is bf16'); sys.exit(1)")
    ran.failed("precision", "bf16")


def test_a_kernel_that_a_slide_kills_is_begun_again(fake: Any) -> None:
    does = (
        "mark = o.work / 'trying' / 'x'; tries = mark.parent.exists(); mark.parent.mkdir(parents=True,"
        " exist_ok=True)\nif not tries: mark.write_text('1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = fake().build().run(FAKE=does)
    assert ran.code == 0 and ran.submission == "predicted" and "once more" in ran.said, ran.said


def test_it_ends_before_the_hours_are_over(fake: Any) -> None:
    made = fake(constants={"LIMITS": {"hours": 2.0, "memory_gib": 13.0, "disk_gib": 18.0}}).build()
    ran = made.run(FAKE="try: time.sleep(60)\nexcept KeyboardInterrupt: sys.exit(130)", KIT_HOUR_SECONDS="1")
    ran.failed("time", "2 hours")
    assert ran.seconds < 20


def test_it_ends_ten_minutes_before_the_hours_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watches: list[launch.Watch] = []

    def run(words: object, place: object, folder: object, watch: launch.Watch) -> launch.Ended:
        watches.append(watch)
        return launch.Ended(1, "time", [], [])

    monkeypatch.setattr(launch, "run", run)
    limits = {"hours": 9.0, "memory_gib": 13.0, "disk_gib": 18.0}
    with pytest.raises(launch.Fault, match="nearly over"):
        launch.predict(launch.Place(*[tmp_path] * 6), limits, 1000.0, {})
    (watch,) = watches
    assert watch.end == 1000 + 9 * 3600 - 600 and watch.grace <= 60


# -- sessions of tiling and training

MAIN = """
import json, os, pathlib, sys, time
stage, *words = sys.argv[1:]
assert pathlib.Path("work").resolve().parent == pathlib.Path(os.environ["KIT_KAGGLE"], "working").resolve()
done = pathlib.Path("work") / (stage + ".txt")
done.parent.mkdir(exist_ok=True)
print(stage, "finds", done.read_text() if done.exists() else "nothing", words)
steps = int(done.read_text()) if done.exists() else 0
try:
    while steps < 4:
        time.sleep(float(os.environ.get("STEP", "0")))
        steps += 1
        done.write_text(str(steps))
    exec(os.environ.get("FAKE", ""))
except KeyboardInterrupt:
    sys.exit(130)
"""
ABOUT = {
    "declared": {
        "name": "toy",
        "demo": False,
        "asked": "toy",
        "seed": 3,
        "threads": 2,
        "settings": {"tile.size": "64"},
    },
    "stages": ["tile", "train"],
    "task": None,
    "attached": {"net": "models/a.safetensors"},
}


@pytest.fixture
def sessions(fake: Any) -> Callable[..., Fake]:
    def make(**limits: float) -> Fake:
        limits = {"hours": 9.0, "memory_gib": 13.0, "disk_gib": 18.0} | limits
        made: Fake = fake(about=ABOUT, constants={"STAGE": "train", "LIMITS": limits, "KERNEL": "toy-train"})
        return made.build({"kit/__main__.py": MAIN})

    return make


def push_again(made: Fake) -> None:
    """The output of this version becomes an input of the next."""
    target = made.root / "input" / "toy-train"
    shutil.rmtree(target, ignore_errors=True)
    shutil.move(made.root / "working", target)


def test_stages_are_run_with_the_declared_options(sessions: Any) -> None:
    made = sessions()
    ran = made.run()
    assert ran.code == 0 and "finished: tile, train" in ran.said, ran.said
    for words in ("--set=tile.size=64", "--seed=3", "--threads=2", "--work=work", "a.safetensors"):
        assert words in ran.said
    assert "it begins" in ran.said and not (ran.working / "submission.csv").exists()


def test_a_session_stops_in_time_and_the_next_goes_on(sessions: Any) -> None:
    made = sessions(hours=1.5)
    ran = made.run(KIT_HOUR_SECONDS="3", STEP="1")  # 4.5 s, of which the last one is left
    assert ran.code == 0 and ran.faults == [], ran.said
    assert "stopped in tile" in ran.said and "go on: push the next version" in ran.said
    push_again(made)
    again = made.run()
    assert again.code == 0 and "going on from session 1" in again.said, again.said
    steps = (made.root / "input" / "toy-train" / "work" / "tile.txt").read_text()
    assert f"tile finds {steps}" in again.said and int(steps) > 0 and "finished: tile, train" in again.said
    note = json.loads((again.working / "kit-session.json").read_text())
    assert (note["number"], note["finished"]) == (2, ["tile", "train"])


def test_the_latest_of_several_outputs_is_gone_on_from(tmp_path: Path) -> None:
    for number, name in ((2, "toy"), (10, "toy"), (99, "other")):
        left_by(tmp_path / f"{name}-{number}", name=name, number=number)
    found = launch.resume(sorted(tmp_path.iterdir()), tmp_path / "working", "toy", "toy-train")
    assert found == {"number": 11, "finished": []}
    assert (tmp_path / "working" / "work" / "which").read_text() == "10"


def left_by(folder: Path, **said: Any) -> None:
    """The output of a session that has noted this."""
    (folder / "work").mkdir(parents=True)
    (folder / "work" / "which").write_text(str(said.get("number")))
    note = {"kit": 1, "name": "toy", "kernel": "toy-train", "number": 1, "finished": []}
    (folder / "kit-session.json").write_text(json.dumps(note | said))


def test_what_the_kernel_has_left_itself_goes_before_what_has_tiled(tmp_path: Path) -> None:
    left_by(tmp_path / "a", kernel="toy-tile", number=7, finished=["tile"])
    found = launch.resume([tmp_path / "a"], tmp_path / "first", "toy", "toy-train")
    assert found == {"number": 8, "finished": ["tile"]}
    left_by(tmp_path / "b", kernel="toy-train", number=2, finished=["tile", "train"])
    found = launch.resume([tmp_path / "a", tmp_path / "b"], tmp_path / "next", "toy", "toy-train")
    assert found == {"number": 3, "finished": ["tile", "train"]}


@pytest.mark.parametrize(
    "said",
    [{"number": "x"}, {"number": True}, {"kit": 2}, {"name": "other"}, {"finished": None},
     {"finished": "tile"}, {"finished": [1]}],
    ids=str,
)  # fmt: skip
def test_a_note_of_a_stranger_is_left_alone(tmp_path: Path, said: dict[str, Any]) -> None:
    left_by(tmp_path / "a", **said)
    left_by(tmp_path / "b")
    for name, text in (("c", "[1]"), ("d", "{"), ("e", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kit-session.json").write_text(text)
    found = launch.resume(sorted(tmp_path.iterdir()), tmp_path / "working", "toy", "toy-train")
    assert found == {"number": 2, "finished": []}


def test_a_stage_that_fails_after_another_loses_nothing_of_it(sessions: Any) -> None:
    made = sessions()
    ran = made.run(FAKE="if stage == 'train': sys.exit('error: a bug\\nhint: mend it')")
    assert ran.code == 0 and ran.faults == ["FAULT exception: exit code 1: error: a bug"], ran.said
    assert "finished" not in ran.said and "push the next version" in ran.said
    push_again(made)
    again = made.run()
    assert again.code == 0 and "going on from session 1" in again.said and again.faults == [], again.said


def test_tiles_are_kept_whatever_ends_their_session(sessions: Any) -> None:
    does = "t = pathlib.Path('work/toy/tile/train/a.npz'); t.parent.mkdir(parents=True); t.touch(); 1 / 0"
    ran = sessions().run(FAKE=does)
    assert ran.code == 0 and "ZeroDivisionError" in ran.faults[0], ran.said


def test_too_large_an_output_ends_a_session(sessions: Any) -> None:
    made = sessions(disk_gib=0.001)
    does = "pathlib.Path('work/big').write_bytes(bytes(2**20)); time.sleep(60)"
    ran = made.run(FAKE=does, KIT_HOUR_SECONDS="60")
    assert ran.code == 1 and ran.faults[0].startswith("FAULT disk: ") and ran.seconds < 30, ran.said


def test_a_stage_that_fails_is_named(sessions: Any) -> None:
    ran = sessions().run(FAKE="sys.exit('error: there is no tile\\nhint: type kit tile')")
    assert ran.code == 1 and ran.faults == ["FAULT exception: exit code 1: error: there is no tile"]


def test_the_options_of_a_session_make_the_run_that_was_declared(tmp_path: Path) -> None:
    pairs = [("train.backbones", "slow = resnet18:finetune:64; lr=1e-5..1e-3,resnet18"), ("tile.mpp", "0.25"),
             ("train.turned", "1,3"), ("combine.models", "")]  # fmt: skip
    task = settings.apply(competition.find("strip-ai"), pairs)
    run = Run(task, "strip-ai", tmp_path, tmp_path, seed=7, threads=2, asked="strip-ai")
    (tmp_path / "folds.csv").touch()
    (tmp_path / "resnet18.safetensors").touch()
    about = {"declared": declared.written(run), "task": None, "folds_file": "folds.csv",
             "attached": {"resnet18": "resnet18.safetensors"}}  # fmt: skip
    place = launch.Place(tmp_path, tmp_path, tmp_path, tmp_path, tmp_path, tmp_path)
    made = make_run(stage_parser().parse_args(["train", *launch.options(place, about)]))
    assert declared.written(made) == about["declared"] and made.competition == task
    assert made.weights == {"resnet18": tmp_path / "resnet18.safetensors"}
    assert made.folds == tmp_path / "folds.csv" and made.folds_given and made.work == Path("work/strip-ai")
