"""A kernel in the sandbox has no network, writes no input, imports no stranger and ends at every limit."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from kit.deliver import packages, sandbox
from kit.deliver.packages import Packages
from kit.deliver.sandbox import Ended, Kernel, Limits

MINUTE = Limits(60)
needs_namespaces = pytest.mark.skipif(
    not sandbox.namespaces(), reason="this machine permits no namespaces (unshare)"
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """A Python without packages."""
    return packages.build(tmp_path_factory.mktemp("bare") / "python", {})


@pytest.fixture
def kernel(tmp_path: Path, python: Packages) -> Kernel:
    """A kernel without packages, and the data of a competition with one table."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "test.csv").write_text("image_id\n")
    script = tmp_path / "kernel" / "run.py"
    script.parent.mkdir()
    return Kernel(script, {"the-task": data}, python.folder, tmp_path / "scratch", python.sources)


@pytest.fixture
def run(kernel: Kernel) -> Callable[..., Ended]:
    """``run(code, limits)`` runs that code as the kernel."""

    def started(code: str, limits: Limits = MINUTE) -> Ended:
        kernel.script.write_text(code)
        return sandbox.run(kernel, limits)

    return started


@needs_namespaces
def test_what_reaches_a_server_outside_reaches_nothing_inside(run: Callable[..., Ended]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = (
            "import socket\n"
            f"for where in (('127.0.0.1', {port}), ('198.51.100.1', 80)):\n"
            "    try:\n        socket.create_connection(where, 2)\n        print('CONNECTED', where)\n"
            "    except OSError as error:\n        print('cut:', error)\n"
            "try:\n    socket.getaddrinfo('example.org', 80)\n    print('RESOLVED')\n"
            "except OSError as error:\n    print('cut:', error)\n"
        )
        with socket.create_connection(("127.0.0.1", port), 2):
            pass  # outside it is reached
        ended = run(code)
    assert ended.code == 0 and ended.open == ""
    assert ended.said.count("cut:") == 3, ended.said
    assert "CONNECTED" not in ended.said and "RESOLVED" not in ended.said


def test_it_has_as_many_cores_as_kaggle_and_a_gpu_only_if_asked_for(
    run: Callable[..., Ended], kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "CORES", 1)
    code = "import os\nprint(len(os.sched_getaffinity(0)), os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))"
    assert run(code).said == "1 \n" and sandbox.kernel_cores() == 1
    assert sandbox.run(replace(kernel, gpu=True), MINUTE).said == "1 all\n"


@needs_namespaces
def test_inputs_can_be_read_and_not_written_while_working_can(
    run: Callable[..., Ended], kernel: Kernel
) -> None:
    ended = run(
        "from pathlib import Path\n"
        "data = Path('/kaggle/input/the-task')\n"
        "print(data.joinpath('test.csv').read_text())\n"
        "places = [data / 'test.csv', data / 'new', *map(Path, ('/kaggle/src/run.py', '/etc/new', '/new'))]\n"
        "for path in places:\n"
        "    try:\n        path.open('a').write('x')\n        print('WRITTEN', path)\n"
        "    except OSError as error:\n        print('refused:', error.strerror)\n"
        "Path('out.txt').write_text('x')\n"
        "Path('/tmp/out.txt').write_text('x')\n"
    )
    assert ended.code == 0, ended.said
    assert "image_id" in ended.said and ended.said.count("refused: Read-only file system") == 5, ended.said
    assert (kernel.working / "out.txt").read_text() == "x"
    assert (kernel.inputs["the-task"] / "test.csv").read_text() == "image_id\n"


@needs_namespaces
def test_nothing_else_of_this_machine_can_be_seen(run: Callable[..., Ended], tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    ended = run(
        f"import os\nprint(*map(os.path.exists, ({str(secret)!r}, {os.getcwd()!r})), sorted(os.environ))"
    )
    assert ended.said.startswith("False False")
    assert "PYTHONPATH" not in ended.said and "KIT_REHEARSAL" in ended.said
    assert "KIT_KAGGLE" not in ended.said


def test_memory_of_all_processes_together_over_the_limit_is_killed(run: Callable[..., Ended]) -> None:
    ended = run(
        "import os, time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        kept = bytearray(os.urandom(1)) * (150 * 2**20)\n"
        "        time.sleep(30)\n"
        "time.sleep(30)\n",
        Limits(30, memory_gib=0.35),
    )
    assert ended.broke == "memory" and ended.code == 137
    assert 350 < ended.peak_mib < 600
    assert ended.seconds < 20


def test_memory_that_processes_share_counts_once(run: Callable[..., Ended]) -> None:
    ended = run(
        "import os, time\n"
        "kept = bytearray(b'x') * (200 * 2**20)\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(1)\n"
        "        os._exit(0)\n"
        "time.sleep(1.2)\n",
        Limits(30, memory_gib=0.5),
    )
    assert ended.broke == "" and ended.code == 0
    assert 200 <= ended.peak_mib < 300


def test_a_kernel_that_takes_too_long_is_killed_with_all_that_it_started(
    run: Callable[..., Ended], tmp_path: Path
) -> None:
    began = time.perf_counter()
    ended = run(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork():\n        os._exit(0)\n"
        "    for n in range(100):\n"
        "        open('alive.txt', 'w').write(str(n))\n"
        "        time.sleep(.1)\n"
        "time.sleep(30)\n",
        Limits(1.0),
    )
    assert ended.broke == "time" and ended.seconds >= 1
    assert time.perf_counter() - began < 10
    alive = tmp_path / "scratch" / "working" / "alive.txt"
    before = alive.read_text()
    time.sleep(0.4)
    assert alive.read_text() == before


def test_output_over_the_limit_is_killed(run: Callable[..., Ended]) -> None:
    ended = run(
        "import time\nopen('a', 'wb').write(b'x' * 2**25)\ntime.sleep(20)\n", Limits(30, disk_gib=0.01)
    )
    assert ended.broke == "disk" and ended.output_mib >= 10, "it may be killed in the middle of a write"


def test_how_it_ended_is_told(run: Callable[..., Ended]) -> None:
    ended = run("import time\ntime.sleep(0.4)\nprint('well')")
    assert (ended.code, ended.broke, ended.said) == (0, "", "well\n") and ended.peak_mib > 3
    ended = run("raise ValueError('of its own')")
    assert ended.code == 1 and "ValueError: of its own" in ended.said
    assert run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)").code == 137
    assert run("import sys\nsys.exit(7)").code == 7


def test_without_namespaces_it_is_run_and_said_not_to_be_cut_off(
    run: Callable[..., Ended], kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "namespaces", lambda: ())
    ended = run(
        "import os\nroot = os.environ['KIT_KAGGLE']\n"
        "print(open(root + '/input/the-task/test.csv').read())\n"
        "print(os.getcwd() == os.path.realpath(root + '/working'))"
    )
    assert ended.code == 0 and "image_id" in ended.said and "True" in ended.said
    assert "the network is NOT cut" in ended.open


def test_a_package_that_the_image_lacks_cannot_be_imported(
    run: Callable[..., Ended], kernel: Kernel, tmp_path: Path
) -> None:
    import tqdm

    code = "for name in ('tqdm', 'pytest'):\n    __import__(name)\n    print(name)\n"
    assert "No module named 'tqdm'" in run(code).said
    made = packages.build(tmp_path / "python", {"TQDM": "1.0", "no-such-package": "2.0"})
    sandboxed = replace(kernel, python=made.folder, visible=made.sources)
    kernel.script.write_text(code)
    ended = sandbox.run(sandboxed, MINUTE)
    assert ended.said.startswith("tqdm\n") and "No module named 'pytest'" in ended.said
    assert made.other == {"tqdm": (tqdm.__version__, "1.0")} and made.absent == ("no-such-package",)


def test_only_bundled_wheels_of_another_python_are_taken_from_this_machine(tmp_path: Path) -> None:
    wheels = [
        Path("tqdm-1.0-py3-none-any.whl"),
        Path("safetensors-1.0-cp39-abi3-manylinux_2_17_x86_64.whl"),
        Path("h5py-3.0-cp399-cp399-manylinux_2_17_x86_64.whl"),
        Path("absent_one-3.0-cp399-cp399-manylinux_2_17_x86_64.whl"),
    ]
    made = packages.build(tmp_path / "python", {}, wheels, ["numpy", "h5py"])
    assert made.borrowed == ("h5py",)
    assert "h5py" in made.linked and "tqdm" not in made.linked
    # What h5py needs itself is asked for by the kernel, and so must come from the image or the bundle.
    assert "numpy" not in made.linked


def test_what_a_package_of_this_version_needs_is_linked_and_said(tmp_path: Path) -> None:
    made = packages.build(tmp_path / "python", {"h5py": "3.0"})
    assert "numpy" in made.needed and "numpy" in made.linked and "pandas" not in made.linked


def test_of_a_folder_that_two_packages_share_only_the_wanted_files_are_linked(tmp_path: Path) -> None:
    site = tmp_path / "lib" / packages._version() / "site-packages"
    site.mkdir(parents=True)
    here = {}
    for name in ("one", "two"):
        files = [f"shared/{name}.py", f"own_{name}/__init__.py", f"{name}-1.dist-info/METADATA"]
        about = tmp_path / f"{name}-1.dist-info"
        for file in files:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(f"Name: {name}\n")
        (about / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        here[name] = metadata.Distribution.at(about)
    packages._link(site, {"one"}, here)
    assert {path.name for path in site.iterdir()} == {"shared", "own_one", "one-1.dist-info"}
    assert [path.name for path in (site / "shared").iterdir()] == ["one.py"]
    assert not (site / "shared").is_symlink() and (site / "own_one").is_symlink()


def test_a_scratch_folder_may_be_relative(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kernel.script.write_text("open('out.txt', 'w').write('x')")
    ended = sandbox.run(replace(kernel, scratch=Path("near")), MINUTE)
    assert ended.code == 0 and (tmp_path / "near" / "working" / "out.txt").is_file()


def test_the_files_that_symbolic_links_lead_to_are_found(tmp_path: Path) -> None:
    (tmp_path / "far").write_text("x")
    (tmp_path / "data" / "test").mkdir(parents=True)
    (tmp_path / "data" / "test" / "near").write_text("x")
    (tmp_path / "data" / "test" / "link").symlink_to(tmp_path / "far")
    assert sandbox.links_out(tmp_path / "data") == (tmp_path / "far",)
