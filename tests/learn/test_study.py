"""A search has as many finished trials as it was to have, whoever worked on it, and whoever died at it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from tqdm.auto import tqdm

from kit import processes
from kit.learn import study
from kit.learn.storage import open_storage
from kit.learn.study import Search, finished
from kit.processes import Process
from tests.learn import crowd

ROOT = Path(__file__).parents[2]
SLOTS = 8


def start(folder: Path, url: str = "", seconds: float = 0.05) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.learn.crowd", str(folder), url, str(SLOTS), str(seconds)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def work(storage: BaseStorage, searches: list[Search]) -> None:
    with tqdm(disable=True) as bar:
        study.work(storage, searches, bar)


def alone(folder: Path) -> str:
    """What one process that nobody disturbs finds."""
    run = crowd.run_in(folder)
    work(open_storage(run), crowd.searches(run, SLOTS))
    return crowd.summary(run, SLOTS)


def check_whole(folder: Path, url: str = "") -> None:
    """Every slot is filled once, by what its settings score, and nothing is left running."""
    run = crowd.run_in(folder, url)
    storage = open_storage(run)
    for search in crowd.searches(run, SLOTS):
        trials = finished(storage, search)
        assert [study.slot_of(trial) for trial in trials] == list(range(SLOTS))
        for trial in trials:
            assert trial.user_attrs["losses"] == crowd.loss_of(trial.user_attrs["settings"])
        every = storage.get_all_trials(storage.get_study_id_from_name(search.name))
        assert Counter(trial.state for trial in every)[TrialState.COMPLETE] == SLOTS
        assert {trial.state for trial in every} <= {TrialState.COMPLETE, TrialState.FAIL}


def ends(folder: Path) -> set[str]:
    """What the processes saw that got to the end."""
    return {path.read_text() for path in folder.glob("ended-*.txt")}


def scored(folder: Path) -> Counter[str]:
    """How often each trial was scored to its end."""
    return Counter((folder / "scored.txt").read_text().splitlines())


@pytest.mark.slow
def test_four_processes_on_one_journal_share_the_trials_and_agree(tmp_path: Path) -> None:
    crew = [start(tmp_path) for _ in range(4)]
    assert [process.wait() for process in crew] == [0] * 4
    check_whole(tmp_path)
    assert len(ends(tmp_path)) == 1
    assert set(scored(tmp_path).values()) == {1} and len(scored(tmp_path)) == 2 * SLOTS


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_processes_killed_at_random_lose_and_double_no_trial(seed: int, tmp_path: Path) -> None:
    check_killed(seed, tmp_path, "")


def check_killed(seed: int, folder: Path, url: str) -> None:
    draw = random.Random(seed)
    crew = [start(folder, url, 0.3) for _ in range(3)]
    time.sleep(1.5)
    for _ in range(6):
        time.sleep(draw.uniform(0.1, 1.0))
        n = draw.randrange(3)
        crew[n].send_signal(signal.SIGKILL)
        crew[n].wait()
        crew[n] = start(folder, url, 0.3)
    assert [process.wait() for process in crew] == [0] * 3
    check_whole(folder, url)
    assert len(ends(folder)) == 1
    # A kill between the note and the study is the only way to note a trial twice.
    assert sum(scored(folder).values()) <= 2 * SLOTS + 6


@pytest.mark.slow
def test_one_process_killed_at_random_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    undisturbed = alone(tmp_path / "alone")
    draw, folder = random.Random(0), tmp_path / "killed"
    folder.mkdir()
    for _ in range(4):
        process = start(folder, "", 0.2)
        try:
            process.wait(2.5 + draw.uniform(0, 1.5))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert start(folder, "", 0.0).wait() == 0
    check_whole(folder)
    assert crowd.summary(crowd.run_in(folder), SLOTS) == undisturbed


def test_a_trial_that_fails_gives_its_slot_back_with_its_settings(tmp_path: Path) -> None:
    run = crowd.run_in(tmp_path)
    storage, (first, _) = open_storage(run), crowd.searches(run, SLOTS)
    asked: list[dict[str, Any]] = []

    def broken(slot: int, settings: dict[str, Any], trials: study.Trials) -> study.Score:
        asked.append(settings)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return study.Score(crowd.loss_of(settings))

    with pytest.raises(KeyboardInterrupt):
        work(storage, [replace(first, score=broken)])
    assert len(finished(storage, first)) == 3
    others = replace(first, propose=lambda slot, trials: first.propose(slot + 100, trials))
    work(open_storage(run), [replace(others, score=broken)])
    assert asked[4] == asked[3] and len(asked) == SLOTS + 1
    work(open_storage(run), [replace(first, score=broken)])
    assert len(asked) == SLOTS + 1, "a finished search asks for nothing"


def leave(storage: BaseStorage, search: Search, owner: Process) -> int:
    """A trial that some process has claimed and not finished."""
    with pytest.raises(RuntimeError):
        work(storage, [replace(search, score=lambda *_: stop())])
    number = storage.get_study_id_from_name(search.name)
    (trial,) = storage.get_all_trials(number)
    left = optuna.trial.create_trial(
        state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions,
        user_attrs={**trial.user_attrs, "owner": str(owner)},
    )  # fmt: skip
    return storage.create_new_trial(number, left)


def stop() -> study.Score:
    raise RuntimeError


def test_the_trial_of_a_dead_process_is_done_again_at_once(tmp_path: Path) -> None:
    run = crowd.run_in(tmp_path)
    storage, (first, _) = open_storage(run), crowd.searches(run, 2)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    left = leave(storage, first, Process(processes.mine().host, child.pid, 1))
    work(storage, [first])
    assert storage.get_trial(left).state == TrialState.FAIL
    assert len(finished(storage, first)) == 2


@pytest.mark.parametrize("far", [False, True])
def test_the_trial_of_a_living_process_is_never_taken(
    far: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for; one of another machine is taken only after its signs of life have ended."""
    run = crowd.run_in(tmp_path)
    storage, (first, _) = open_storage(run), crowd.searches(run, 2)
    mine = processes.mine()
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        owner = (
            Process("00000000", 1, 1) if far else Process(mine.host, parent.pid, processes._start(parent.pid))
        )
        left = leave(storage, first, owner)
        now, beats = [0.0], [0]

        def sleep(seconds: float) -> None:
            now[0] += 20
            if now[0] < 300:  # the other is at work, and silent for 40 seconds at most
                beats[0] += int(now[0] % 40 == 0)
                storage.set_trial_user_attr(left, "beat", beats[0])
            elif not far:
                storage.set_trial_user_attr(left, "losses", crowd.loss_of(first.propose(0, []).settings | {}))
                storage.set_trial_state_values(left, TrialState.COMPLETE, [0.4])

        monkeypatch.setattr(study.time, "sleep", sleep)
        monkeypatch.setattr(study.time, "monotonic", lambda: now[0])
        work(storage, [first])
    finally:
        parent.kill()
        parent.wait()
    assert storage.get_trial(left).state == (TrialState.FAIL if far else TrialState.COMPLETE)
    assert now[0] >= 300 and len(finished(storage, first)) == 2


def test_a_trial_that_was_taken_over_is_not_counted_twice(tmp_path: Path) -> None:
    """A machine that slept for an hour comes back with its losses, which another one has by now."""
    run = crowd.run_in(tmp_path)
    storage, (first, _) = open_storage(run), crowd.searches(run, 1)
    other = open_storage(run)

    def slept(slot: int, settings: dict[str, Any], trials: study.Trials) -> study.Score:
        (mine,) = other.get_all_trials(other.get_study_id_from_name(first.name))
        other.set_trial_state_values(mine._trial_id, TrialState.FAIL)
        work(other, [first])
        return study.Score([[9.0]])

    work(storage, [replace(first, score=slept)])
    (trial,) = finished(open_storage(run), first)
    assert trial.user_attrs["losses"] == crowd.loss_of(trial.user_attrs["settings"])


def test_of_two_claims_of_one_slot_the_first_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes saw the slot free; the numbers of their trials decide."""
    run = crowd.run_in(tmp_path)
    storage, (first, _) = open_storage(run), crowd.searches(run, 1)
    other, asked = open_storage(run), []

    def propose(slot: int, trials: study.Trials) -> study.Proposal:
        if not asked:
            asked.append("other")
            work(other, [first])
        return first.propose(slot, trials)

    def never(*_: Any) -> study.Score:
        raise AssertionError("the slot is taken")

    work(storage, [replace(first, propose=propose, score=never)])
    every = storage.get_all_trials(storage.get_study_id_from_name(first.name))
    assert [trial.state for trial in every] == [TrialState.COMPLETE, TrialState.FAIL]


def test_a_process_goes_first_where_nobody_else_is(tmp_path: Path) -> None:
    run = crowd.run_in(tmp_path)
    storage, both = open_storage(run), crowd.searches(run, 2)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        leave(storage, both[0], Process(processes.mine().host, child.pid, processes._start(child.pid)))
        asked: list[str] = []

        def note(search: Search) -> Search:
            def score(slot: int, settings: dict[str, Any], trials: study.Trials) -> study.Score:
                asked.append(f"{search.name} {slot}")
                if len(asked) == 3:
                    child.kill()
                    child.wait()
                return study.Score(crowd.loss_of(settings))

            return replace(search, score=score)

        work(storage, [note(search) for search in both])
    finally:
        child.kill()
        child.wait()
    assert asked == ["net/1 0", "net/1 1", "net/0 1", "net/0 0"]


def test_a_forgotten_search_begins_anew_but_not_under_the_feet_of_another_process(tmp_path: Path) -> None:
    run = crowd.run_in(tmp_path)
    storage, both = open_storage(run), crowd.searches(run, 2)
    work(storage, both)
    assert study.forget(storage, [both[0].name, "unknown"]) == []
    assert [len(finished(storage, search)) for search in both] == [0, 2]
    far = Process("00000000", 7, 1)
    leave(storage, both[0], far)
    assert study.forget(storage, [search.name for search in both]) == [far]
    assert len(finished(storage, both[1])) == 2


# --- a database -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that lives as long as the tests."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    programs = shutil.which("initdb") or (str(found[-1]) if found else "")
    if not programs:
        pytest.skip("no PostgreSQL server is installed (Debian: apt install postgresql)")
    folder = Path(programs).resolve().parent
    place = tmp_path_factory.mktemp("postgres")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place}
    if os.getuid() == 0:  # the server refuses to run as root
        quiet |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
        for parent in (place, *place.parents[:3]):
            parent.chmod(parent.stat().st_mode | 0o011)
        shutil.chown(place, "nobody")
    data, socket = place / "data", Path("/tmp") / f"pg{os.getpid()}"
    socket.mkdir(mode=0o777)
    socket.chmod(0o777)  # a short path: sockets allow 107 bytes
    try:
        made = [str(folder / "initdb"), "-D", str(data), "-U", "kit", "-A", "trust"]
        subprocess.run(made, check=True, **quiet)
        options = ["-D", str(data), "-k", str(socket), "-c", "listen_addresses=", "-c", "fsync=off"]
        server = subprocess.Popen([str(folder / "postgres"), *options], **quiet)
        try:
            yield _ready(f"postgresql+psycopg://kit@/postgres?host={socket}")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
    finally:
        shutil.rmtree(socket, ignore_errors=True)


def _ready(url: str) -> str:
    """Wait until a server answers."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    for _ in range(100):
        try:
            engine.connect().close()
        except sqlalchemy.exc.OperationalError:
            time.sleep(0.1)
        else:
            break
    engine.dispose()
    return url


@pytest.fixture
def database(postgres: str) -> str:
    """A database of the test's own on that server."""
    import psycopg

    socket = postgres.partition("host=")[2]
    name = f"study{time.monotonic_ns()}"
    with psycopg.connect(f"host={socket} user=kit dbname=postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return postgres.replace("/postgres?", f"/{name}?")


@pytest.mark.slow
def test_two_processes_on_a_server_share_the_trials_and_agree(tmp_path: Path, database: str) -> None:
    crew = [start(tmp_path, database) for _ in range(2)]
    assert [process.wait() for process in crew] == [0] * 2
    check_whole(tmp_path, database)
    assert len(ends(tmp_path)) == 1 and set(scored(tmp_path).values()) == {1}


@pytest.mark.slow
def test_processes_killed_at_random_lose_and_double_no_trial_of_a_server(
    tmp_path: Path, database: str
) -> None:
    check_killed(2, tmp_path, database)


@pytest.mark.slow
def test_a_server_and_a_journal_hold_the_same_search(tmp_path: Path, database: str) -> None:
    run = crowd.run_in(tmp_path, database)
    work(open_storage(run), crowd.searches(run, SLOTS))
    assert crowd.summary(run, SLOTS) == alone(tmp_path / "alone")
