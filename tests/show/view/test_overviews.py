"""What is kept of slides on the disk: taken for what it is alone, and bounded."""

from __future__ import annotations

import argparse
import io
import json
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.competition import TileGrid
from kit.read.slide import open_image
from kit.show.view import overviews
from kit.show_commands import SHOW_COMMANDS
from kit.state import Run

SIZE = (1333, 2100)
RIGHT = (132, 84, 3)


def array(text: str) -> bytes:
    """A file of NumPy with these words where its fields are."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(132 * 84 * 3)


def saved(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, pixels)
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(RIGHT, np.uint8))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        array(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30}, 84, 3), }}"),
        array("{'descr': '|u1', 'fortran_order': False, 'shape': (-132, 84, 3), }"),
        saved(np.zeros((84, 132, 3), np.uint8)),
        array("{'descr': "),
        array("(" * 3000),
        zipped(),
        b"PK\x03\x04 and no archive",
        b"",
    ],
    ids=["endless", "negative", "turned", "cut", "deep", "archive", "damaged archive", "empty"],
)
def test_a_file_of_whatever_content_is_no_overview_and_no_trouble(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "o.npy").write_bytes(content)
    assert overviews.find(tmp_path / "o.npy", SIZE) is None


def test_a_folder_a_pipe_and_a_link_to_nothing_are_no_overviews(tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    os.mkfifo(tmp_path / "pipe.npy")  # to open it would wait for ever
    (tmp_path / "link.npy").symlink_to(tmp_path / "nothing")
    for name in ("folder", "pipe", "link"):
        assert overviews.find(tmp_path / f"{name}.npy", SIZE) is None


def test_one_that_is_made_in_place_of_a_link_leaves_what_the_link_leads_to(
    slides: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("mine")
    (tmp_path / "o.npy").symlink_to(other)
    with open_image(slides / "data" / "one.tif", TileGrid()) as slide:
        made = overviews.make(tmp_path / "o.npy", slide)
    assert other.read_text() == "mine" and not (tmp_path / "o.npy").is_symlink()
    np.testing.assert_array_equal(made, overviews.find(tmp_path / "o.npy", SIZE))


def kept(folder: Path, name: str, day: int) -> Path:
    """An overview of 1,000 bytes that was opened on a day."""
    path = folder / "train" / f"{name}.view" / "0.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(1000))
    os.utime(path, (day * 86400, day * 86400))
    return path


def test_those_that_were_opened_longest_ago_go_first_and_the_last_one_stays(tmp_path: Path) -> None:
    first, second, third = (kept(tmp_path, name, day) for name, day in (("a", 3), ("b", 1), ("c", 2)))
    other = tmp_path / "train" / "d.view" / "notes.txt"
    other.parent.mkdir()
    other.write_bytes(bytes(9000))
    overviews.trim(tmp_path, 3000)
    assert first.exists() and second.exists() and third.exists()
    overviews.trim(tmp_path, 2999)
    assert first.exists() and third.exists() and not second.parent.exists()
    overviews.trim(tmp_path, 0)
    assert first.exists() and not third.exists() and other.exists()


def test_the_bound_is_held_whenever_an_overview_is_made(
    serve: Any, slides_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    trimmed: list[Path] = []
    monkeypatch.setattr(overviews, "trim", trimmed.append)
    site = serve(slides_run)
    path = f"image/{site.key('one')}/status.json"
    end = time.monotonic() + 20
    while json.loads(site.get(path).body)["state"] == "making":
        assert time.monotonic() < end
        time.sleep(0.02)
    assert trimmed == [slides_run.folder("view")]


def test_one_that_is_opened_again_counts_as_new(slides: Path, tmp_path: Path) -> None:
    path = tmp_path / "o.npy"
    with open_image(slides / "data" / "one.tif", TileGrid()) as slide:
        overviews.make(path, slide)
    os.utime(path, (1, 1))
    assert overviews.find(path, SIZE) is not None
    assert path.stat().st_mtime > 1e9


def test_help_says_how_much_is_kept() -> None:
    (command,) = (one for one in SHOW_COMMANDS if one.name == "view")
    parser = argparse.ArgumentParser()
    assert command.options is not None
    command.options(parser)
    assert f"up to {overviews.DISK >> 30} GiB" in " ".join(parser.format_help().split())
