"""Files appear whole or not at all; ids stay text; digests see every change."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit import files, processes
from kit.errors import DataError, StorageError
from kit.processes import Process


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        files.write_file(tmp_path / "a.txt", half)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    seen: list[bool] = []

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append((tmp_path / "deep" / "a.csv").exists())
        assert temporary.parent == tmp_path / "deep" and temporary.suffix == ".csv"

    files.write_file(tmp_path / "deep" / "a.csv", write)
    assert seen == [False]
    assert (tmp_path / "deep" / "a.csv").read_text() == "new"


def test_a_sweep_leaves_what_living_processes_write_and_what_it_cannot_know(tmp_path: Path) -> None:
    mine = processes.mine()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owners = {
        "mine": mine,
        "dead": Process(mine.host, dead.pid, 5),
        "reused": Process(mine.host, mine.pid, mine.start + 1),
        "far": Process("00000000", 1, 1),
        "old": Process("00000000", 1, 1),
    }
    for name, owner in owners.items():
        (tmp_path / f".tmp-{owner}-abcdef01-{name}").write_text("half")
    (tmp_path / ".tmp-0123456789ab-former").write_text("half")
    (tmp_path / "whole").write_text("all")
    (old,) = tmp_path.glob("*-old")
    os.utime(old, (1, 1))
    files.sweep(tmp_path)
    assert sorted(path.name.split("-")[-1] for path in tmp_path.iterdir()) == ["far", "mine", "whole"]


def test_a_lock_is_held_by_one_and_freed_by_the_death_of_its_holder(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from kit import files\n"
        "with files.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "deep" / "a.lock"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with path.open("ab") as stream, pytest.raises(BlockingIOError):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder.kill()
    holder.communicate()
    with pytest.raises(KeyError), files.locked(path):  # what goes wrong inside frees it too
        raise KeyError
    with files.locked(path), files.locked(tmp_path / "b.lock"):
        pass


@pytest.mark.parametrize("broken", ["replace", "write"])
def test_a_full_disk_says_so_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    with monkeypatch.context() as patch:
        if broken == "replace":
            patch.setattr(os, "replace", full)
        else:
            patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StorageError, match="no space is left on the disk") as caught:
            files.write_text(tmp_path / "a.txt", "x")
    assert str(tmp_path / "a.txt") in caught.value.message and "--work" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_named_with_the_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "work" / "a.txt"
    with pytest.raises(StorageError, match="cannot be written") as caught:
        files.write_text(target, "x")
    assert caught.value.message.startswith(str(target)) and caught.value.hint


@pytest.mark.parametrize(
    ("code", "about_storage"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, True), (errno.EACCES, True),
     (errno.ENOTDIR, True), (errno.ENOENT, False), (errno.EIO, False)],
)  # fmt: skip
def test_only_errors_of_storage_become_the_users(code: int, about_storage: bool) -> None:
    assert isinstance(files.storage_error(OSError(code, "why")), StorageError) == about_storage


def test_an_error_that_is_not_about_storage_stays_what_it_was(tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "gone")

    with pytest.raises(FileNotFoundError):
        files.write_file(tmp_path / "a", fail)


def test_ids_that_look_like_numbers_or_nothing_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,v\n006388,1\n2e3749,2\nNA,3\nnan,\n1e5,0.10\n")
    table = files.read_strings(path)
    assert table["id"].tolist() == ["006388", "2e3749", "NA", "nan", "1e5"]
    assert table["v"].tolist() == ["1", "2", "3", "", "0.10"]


def test_a_byte_order_mark_and_foreign_line_ends_are_read_through(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffid,v\r\n007,ä\r\n".encode())
    assert files.read_strings(path).to_dict("records") == [{"id": "007", "v": "ä"}]


@pytest.mark.parametrize("rows", ["006388,1,2\n", "006388,1\n2e3749,1,2\n"])
def test_a_row_of_more_cells_than_the_header_is_refused_and_shifts_nothing(rows: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,v\n" + rows)
    with pytest.raises(DataError, match=r"a\.csv is not a readable CSV"):
        files.read_strings(path)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2,3\n1\n1,2,3,4\n", b"\xff\xfe\x00a\n", b'a\n"open'])
def test_what_is_no_table_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.csv is not a readable CSV"):
        files.read_strings(path)


def test_a_table_is_written_exactly_and_with_plain_line_ends(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["007"], "p": [0.1 + 0.2]})
    files.write_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_bytes() == b"id,p\n007,0.30000000000000004\n"
    files.write_table(tmp_path / "t.csv", table, "%.9f")
    assert (tmp_path / "t.csv").read_bytes() == b"id,p\n007,0.300000000\n"


def test_json_is_sorted_and_takes_no_nan(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    assert (tmp_path / "a.json").read_text() == '{\n "a": [\n  2\n ],\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})


def test_a_file_of_arrays_holds_these_and_no_pickle(tmp_path: Path) -> None:
    files.write_arrays(tmp_path / "a.npz", {"a": np.arange(3), "b": np.array(["x"])})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert {name: found[name].tolist() for name in found.files} == {"a": [0, 1, 2], "b": ["x"]}
    with pytest.raises(TypeError, match=r"b\.npz: ids could only be pickled"):
        files.write_arrays(tmp_path / "b.npz", {"ids": np.array(["x", None], dtype=object)})
    assert not (tmp_path / "b.npz").exists()


def test_a_cell_that_is_no_number_becomes_nan() -> None:
    found = files.numbers(pd.DataFrame({"a": ["1.5", "x", ""]}, dtype=object))["a"]
    assert found.iloc[0] == 1.5 and found.isna().tolist() == [False, True, True]


def test_a_cell_is_the_number_that_python_reads_there_to_the_last_digit() -> None:
    texts = ["0.09999999999999998", "+7e50", "5", "+5e 2", "1_000", "inf", "5e-324"]
    found = files.numbers(pd.DataFrame({"a": texts}, dtype=object))["a"].tolist()
    assert found[:3] == [0.09999999999999998, 7e50, 5.0] and np.isnan(found[3:5]).all()
    assert found[5:] == [np.inf, 5e-324]


def test_a_digest_ignores_the_order_of_keys_and_sees_every_value() -> None:
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1})
    contents = [{"a": 1}, {"a": "1"}, {"a": 1.5}, {"a": None}, {"b": 1}, [1], {"a": [1, 2]}, {"a": [2, 1]}]
    assert len({files.digest(content) for content in contents}) == len(contents)


def test_a_fingerprint_sees_the_size_and_both_ends(tmp_path: Path) -> None:
    path, base = tmp_path / "slide.tif", bytearray(300_000)
    changes: list[Callable[[bytearray], object]] = [
        lambda b: None,
        lambda b: b.__setitem__(5, 1),
        lambda b: b.__setitem__(-5, 1),
        lambda b: b.append(0),
    ]
    prints = set()
    for change in changes:
        content = bytearray(base)
        change(content)
        path.write_bytes(content)
        prints.add(files.fingerprint(path))
    assert len(prints) == 4
    assert files.fingerprint(tmp_path / "none.tif") == "missing"


@pytest.mark.parametrize(
    ("name", "other"), [("a.mrxs", "a/Data0001.dat"), ("a.MRXS", "a/deep/index.dat"), ("a.dcm", "b.dcm")]
)
def test_a_fingerprint_sees_the_other_files_of_a_slide(name: str, other: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"the same")
    prints = [files.fingerprint(tmp_path / name)]
    (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
    for content in (b"1", b"1234"):
        (tmp_path / other).write_bytes(content)
        prints.append(files.fingerprint(tmp_path / name))
    (tmp_path / other).rename((tmp_path / other).with_stem("c"))
    prints.append(files.fingerprint(tmp_path / name))
    assert len(set(prints)) == 4
    (tmp_path / "a.txt").write_bytes(b"of something else")
    assert files.fingerprint(tmp_path / name) == prints[-1]


def test_a_file_that_is_an_image_by_itself_is_known_without_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"the same")
    alone = files.fingerprint(tmp_path / "a.dcm", series=False)
    (tmp_path / "b.dcm").write_bytes(b"another patient")
    assert files.fingerprint(tmp_path / "a.dcm", series=False) == alone
    assert files.fingerprint(tmp_path / "a.dcm") != alone


def test_an_image_inside_a_zip_is_known_by_the_archive_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"content")
    first, second = (files.fingerprint(tmp_path / "photos.zip" / name) for name in ("a.png", "b/c.png"))
    assert first != second and first.endswith("-a.png") and second.endswith("-b/c.png")
    assert files.split_archive(Path("photos.zip/b/c.png")) == (Path("photos.zip"), "b/c.png")
    assert files.split_archive(Path("photos/c.png")) == (Path("photos/c.png"), "")


def test_a_folder_named_like_a_zip_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data.zip").mkdir()
    (tmp_path / "data.zip" / "a.png").write_bytes(b"x")
    assert files.split_archive(tmp_path / "data.zip" / "a.png") == (tmp_path / "data.zip" / "a.png", "")


def test_the_digest_of_a_file_is_of_all_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 200_000)
    first = files.file_digest(path)
    path.write_bytes(b"x" * 100_000 + b"y" + b"x" * 99_999)
    assert files.file_digest(path) != first and len(first) == 64


def test_a_column_is_split_from_a_file_that_is_there_and_from_no_other(tmp_path: Path) -> None:
    path, odd = tmp_path / "oof.csv.gz", tmp_path / "a:b.csv"
    path.touch(), odd.touch()
    assert files.with_column(path) == (path, "")
    assert files.with_column(Path(f"{path}:net")) == (path, "net")
    assert files.with_column(odd) == (odd, "")
    assert files.with_column(Path(f"{odd}:net")) == (odd, "net")
    assert files.with_column(tmp_path / "none.csv:net") == (tmp_path / "none.csv:net", "")


def test_a_packed_table_is_read_like_a_plain_one_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(b"id,x\n006388,\n" * 50))
    assert files.read_strings(packed).iloc[0].tolist() == ["006388", ""]
    whole = packed.read_bytes()
    for damaged in (whole[:-12], b"id,x\n", whole[:20] + b"\0" * 9 + whole[29:]):
        packed.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be unpacked"):
            files.read_strings(packed)
