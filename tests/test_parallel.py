"""Tasks over threads, processes and a Dask cluster: the same results, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kit import cluster, parallel
from kit.errors import DataError, KitError, SettingError, StageError
from kit.parallel import run_all

ROOT = Path(__file__).parents[1]
# Workers import what they run; this file's functions go to them as source.
TASKS = """
    import os, sys, time
    from pathlib import Path

    def square(n):
        return n * n

    def process(n):
        return n, os.getpid()

    def deadly(n):
        if n == 2:
            os._exit(9)
        time.sleep(0.05)
        return n * n

    def frail(n):
        mark = Path(f"died-{n}")
        if n == 2 and not mark.exists():
            mark.touch()
            os._exit(9)
        return n * n

    def slow(n):
        Path(f"began-{n}").touch()
        time.sleep(60)

    def here(n):
        return str(Path("mark").resolve())

    def wrong(n):
        from kit.errors import DataError
        if n == 1:
            raise DataError(f"item {n} is wrong", "mend it")
        return n
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The module of the functions above, in a folder that workers look into too."""
    (tmp_path / "toy_tasks.py").write_text(textwrap.dedent(TASKS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    import importlib

    yield importlib.import_module("toy_tasks")
    sys.modules.pop("toy_tasks", None)


def gone(group: int) -> bool:
    """Whether a group of processes has ended, or does so soon."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def dask(tasks: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A scheduler and one worker, started from another folder as on another machine."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "dask"]
    words = (["scheduler", "--host", address, "--no-dashboard"],
             ["worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard"])  # fmt: skip
    running = [
        subprocess.Popen([*command, *word], cwd=elsewhere, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
        for word in words
    ]  # fmt: skip
    for name in ("REACH", "ARRIVE"):  # on a busy machine a start takes long
        monkeypatch.setattr(cluster, name, 90)
    yield address
    for process in reversed(running):
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    def late(n: int) -> int:
        time.sleep(0.02 * (3 - n))
        return n * n

    assert run_all(late, range(4), workers, "squares") == [0, 1, 4, 9]
    assert run_all(late, [], workers, "nothing") == []


def test_the_first_failure_stops_the_rest() -> None:
    done = []

    def failing(n: int) -> None:
        done.append(n)
        raise DataError("wrong", "mend it")

    with pytest.raises(DataError, match="wrong"):
        run_all(failing, range(50), 1, "failures")
    assert len(done) < 50


def processes(command: str) -> int:
    """How many processes of a pool there are."""
    return sum(command in " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))


@pytest.fixture
def many(tasks: object, monkeypatch: pytest.MonkeyPatch) -> object:
    """Six tasks are many."""
    monkeypatch.setattr(parallel, "MANY", 6)
    return tasks


def test_many_tasks_of_python_s_own_go_to_processes_and_come_back_in_order(many: object) -> None:
    found = run_all(many.process, range(40), 2, "processes", python=True)  # type: ignore[attr-defined]
    assert [n for n, _ in found] == list(range(40))
    assert os.getpid() not in {number for _, number in found}
    few = run_all(many.process, range(5), 2, "processes", python=True)  # type: ignore[attr-defined]
    alone = run_all(many.process, range(9), 1, "processes", python=True)  # type: ignore[attr-defined]
    assert {number for _, number in few + alone} == {os.getpid()}, "where they do not pay"


def test_an_error_in_a_process_is_the_error_and_ends_them_all(many: object) -> None:
    before = processes("popen_loky")
    with pytest.raises(DataError, match="item 1 is wrong") as caught:
        run_all(many.wrong, range(60), 2, "failures", python=True)  # type: ignore[attr-defined]
    assert caught.value.hint == "mend it"
    assert processes("popen_loky") <= before


def test_a_process_that_is_killed_is_said_with_what_to_type(many: object) -> None:
    with pytest.raises(StageError, match="naps: a process was killed") as caught:
        run_all(many.deadly, range(6), 2, "naps", python=True)  # type: ignore[attr-defined]
    assert "--workers 1" in caught.value.hint and "--scheduler local" in caught.value.hint


def test_dask_is_not_imported_unless_it_is_asked_for() -> None:
    program = "import sys; from kit.parallel import run_all; run_all(str, [1, 2], 1, 'x');"
    program += "sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_a_local_cluster_survives_a_deadly_item_and_gives_the_results_of_threads(
    tasks: object, capfd: pytest.CaptureFixture[str]
) -> None:
    found = run_all(tasks.deadly, range(6), 2, "squares", "local", lost=lambda n: f"lost {n}")  # type: ignore[attr-defined]
    assert found == [0, 1, "lost 2", 9, 16, 25], "its neighbours are not taken for deadly"
    out, err = capfd.readouterr()
    assert out == "" and "distributed" not in err and "Traceback" not in err, err


@pytest.mark.slow
def test_an_item_whose_worker_died_once_is_repeated(tasks: object) -> None:
    assert run_all(tasks.frail, range(4), 2, "squares", "local") == [0, 1, 4, 9]  # type: ignore[attr-defined]
    assert Path("died-2").exists()


def test_an_error_in_a_worker_is_the_error_here_with_its_hint(tasks: object) -> None:
    with pytest.raises(DataError, match="item 1 is wrong") as caught:
        run_all(tasks.wrong, range(4), 1, "squares", "local")  # type: ignore[attr-defined]
    assert caught.value.hint == "mend it"


@pytest.mark.slow
def test_a_running_cluster_is_used_in_the_folder_of_the_command(dask: str, tasks: object) -> None:
    here = str(Path("mark").resolve())
    assert run_all(tasks.here, range(3), 1, "paths", dask) == [here] * 3  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="item 1 is wrong"):
        run_all(tasks.wrong, range(4), 1, "squares", dask)  # type: ignore[attr-defined]
    assert run_all(tasks.square, range(4), 1, "squares", dask) == [0, 1, 4, 9], "it is still there"  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_worker_that_would_give_other_results_is_refused(
    dask: str, tasks: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = [tmp_path / "data"]
    shared[0].mkdir()
    assert run_all(tasks.square, [2, 3], 1, "squares", dask, shared=shared) == [4, 9]  # type: ignore[attr-defined]
    for name, function in ((str(shared[0]), "_seen_at"), ("kit", "_code"), ("numpy", "_version")):
        # On the workers, which import the module, nothing changes.
        with monkeypatch.context() as patch:
            patch.setattr(cluster, function, lambda *_: "something else")
            patch.setattr(cluster, "LIBRARIES", ("numpy",))
            with pytest.raises(StageError, match=f"would give other results: {name} is") as caught:
                run_all(tasks.square, [2, 3], 1, "squares", dask, shared=shared)  # type: ignore[attr-defined]
        assert f"dask worker {dask}" in caught.value.hint


@pytest.mark.parametrize(
    "address", ["locl", "host", "http://host:8786", "tcp://host", "tcp://host:x", "host:1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingError, match="--scheduler cannot be") as caught:
        run_all(str, [1, 2], 1, "words", address)
    assert "tcp://host:8786" in caught.value.hint


def test_an_address_where_nothing_answers_is_said_soon_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cluster.REACH <= 10
    monkeypatch.setattr(cluster, "REACH", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(StageError, match="no Dask scheduler answers") as caught:
            run_all(str, [1, 2], 1, "words", address)
    assert time.monotonic() - start < 5
    assert "dask scheduler" in caught.value.hint and f"dask worker {address}" in caught.value.hint


def test_a_scheduler_without_workers_is_said_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(cluster, "ARRIVE", 1)
    with LocalCluster(n_workers=0, dashboard_address=None) as empty:
        address = empty.scheduler_address
        with pytest.raises(StageError, match="has no worker") as caught:
            run_all(str, [1, 2], 1, "words", address)
    assert f"dask worker {address}" in caught.value.hint


@pytest.mark.slow
def test_a_cluster_whose_workers_all_go_is_not_waited_for_for_ever(
    tasks: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as small:
        real = cluster._check_workers

        def leave(*words: object) -> None:
            real(*words)  # type: ignore[arg-type]
            small.scale(0)

        monkeypatch.setattr(cluster, "_check_workers", leave)
        with pytest.raises(StageError, match="the last of its workers, is gone") as caught:
            run_all(tasks.slow, [1, 2], 1, "naps", small.scheduler_address)  # type: ignore[attr-defined]
    assert "goes on where this one was" in caught.value.hint


@pytest.mark.slow
def test_control_c_ends_the_processes_of_a_local_cluster(tasks: object, tmp_path: Path) -> None:
    program = (
        "import toy_tasks\nfrom kit.__main__ import guarded\nfrom kit.parallel import run_all\n"
        "if __name__ == '__main__':\n"
        "    raise SystemExit(guarded(lambda: run_all(toy_tasks.slow, range(9), 2, 'naps', 'local')))\n"
    )
    (tmp_path / "main.py").write_text(program)
    process = subprocess.Popen(
        [sys.executable, "main.py"], stderr=subprocess.PIPE, text=True, start_new_session=True,
        # What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    until = time.monotonic() + 60
    while not list(tmp_path.glob("began-*")) and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    err = process.communicate(timeout=90)[1]
    assert process.returncode == 130 and "goes on where this one was" in err
    assert "Traceback" not in err, err
    assert gone(process.pid)


def test_errors_survive_the_way_from_a_worker() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(SettingError("wrong", "type this")))
    assert isinstance(error, KitError) and (error.message, error.hint) == ("wrong", "type this")
