"""The command: it prints where the page is, serves it, and ends well with Ctrl-C."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import stat
import subprocess
import sys
import urllib.request
import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from kit.files import TEMPORARY
from kit.show.view import command
from kit.show.view.server import Server
from kit.state import Run

ROOT = Path(__file__).parents[3]
TASK = """
from pathlib import Path
import pandas as pd
from kit.competition import Competition, Tables
from kit.metrics import LogLoss

def load(data: Path) -> Tables:
    return Tables(pd.DataFrame({"image_id": ["one", "t"], "label": ["a", "b"]}, dtype=object))

TASK = Competition(
    name="mine", classes=("a", "b"), metric=LogLoss(), load=load, files="{image_id}.tif", reader="slide"
)
"""


def options(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"port": 0, "open": False, "split": ["train", "test"], **given})


def started(slides: Path, folder: Path, declaration: str) -> subprocess.Popen[str]:
    """The command of a competition in a folder."""
    (folder / "task.py").write_text(declaration)
    words = [sys.executable, "-m", "kit", "view", "task.py", "--data", str(slides / "data")]
    return subprocess.Popen(
        words, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # of a background
    )  # fmt: skip


def test_ctrl_c_ends_the_command_with_goodbye_and_zero(slides: Path, tmp_path: Path) -> None:
    process = started(slides, tmp_path, TASK)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"2 images of mine: (http://127\.0\.0\.1:\d+/[\w-]{43}/)$", said)
        assert found, said
        with urllib.request.urlopen(found[1] + "list.json", timeout=20) as answer:
            assert b'"one"' in answer.read()
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.strip().endswith("view: goodbye")
    assert "Traceback" not in err
    token = urlsplit(found[1]).path.strip("/")
    assert token not in err  # what is logged may be shared


SLOW = """
import time
from kit.show.view import overviews
overviews.make = lambda path, reader: time.sleep(60)
"""


def test_ctrl_c_again_ends_it_at_once_and_well(slides: Path, tmp_path: Path) -> None:
    process = started(slides, tmp_path, TASK + SLOW)
    try:
        assert process.stdout is not None and process.stderr is not None
        url = re.findall(r"http\S+", process.stdout.readline())[0]
        with urllib.request.urlopen(url + "list.json", timeout=20) as answer:
            key = json.load(answer)["columns"]["key"][0]
        with urllib.request.urlopen(f"{url}image/{key}/status.json", timeout=20) as answer:
            assert json.load(answer)["state"] == "making"
        process.send_signal(signal.SIGINT)
        said = ""
        while "at once" not in said:
            said = process.stderr.readline()
            assert said, "it has ended, or not said how to end it"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=15)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err and "terminate" not in err


def interrupt(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """Let the server end as soon as it serves."""
    seen: list[Server] = []

    def serve(server: Server, poll_interval: float) -> None:
        seen.append(server)
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", serve)
    return seen


def test_the_address_reaches_the_browser_by_a_file_for_its_owner_alone(
    slides_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[Path, int, str]] = []

    def note(url: str) -> bool:
        path = Path(unquote(urlsplit(url).path))
        opened.append((path, stat.S_IMODE(path.stat().st_mode), path.read_text()))
        return True

    monkeypatch.setattr(webbrowser, "open", note)
    seen = interrupt(monkeypatch)
    assert command.run(slides_run, options(open=True)) == ("view: goodbye", 0)
    ((path, mode, text),) = opened
    assert mode == 0o600 and seen[0].url in text
    assert not path.exists()


def test_no_browser_is_opened_unless_asked_for(slides_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("not asked for"))
    interrupt(monkeypatch)
    assert command.run(slides_run, options())[1] == 0


def test_what_a_killed_viewer_left_half_written_is_swept(
    slides_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = slides_run.folder("view") / "train" / f"{TEMPORARY}somebody-x.npy"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    interrupt(monkeypatch)
    command.run(slides_run, options())
    assert not left.exists()
