"""Archives are the same bytes every time, and bad ones are refused in one sentence."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kit.deliver import archive
from kit.files import write_json


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path | bytes]:
    (tmp_path / "a.py").write_text("print('a')\n" * 50)
    return {"kit/b.py": b"b = 2\n", "kit/a.py": tmp_path / "a.py"}


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("placeholder")
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    return info


def zipped(path: Path, *entries: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for info, content in entries:
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, content)
    return path


def unpack(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as content:
        content.extractall(folder)


def test_packing_gives_the_same_bytes_whatever_the_order_dates_and_rights(
    tmp_path: Path, sources: dict[str, Path | bytes]
) -> None:
    archive.pack(sources, tmp_path / "one.whl")
    os.utime(tmp_path / "a.py", (1e9, 1e9))
    (tmp_path / "a.py").chmod(0o700)
    archive.pack(dict(reversed(sources.items())), tmp_path / "two.whl")
    assert (tmp_path / "one.whl").read_bytes() == (tmp_path / "two.whl").read_bytes()


def test_what_was_packed_is_unpacked(tmp_path: Path, sources: dict[str, Path | bytes]) -> None:
    archive.pack(sources, tmp_path / "code.whl")
    unpack(tmp_path / "code.whl", tmp_path / "out")
    assert sorted(archive.digests(tmp_path / "out")) == ["kit/a.py", "kit/b.py"]
    assert (tmp_path / "out/kit/b.py").read_bytes() == b"b = 2\n"


@pytest.mark.parametrize(
    ("name", "mode", "says"),
    [
        ("../out.py", stat.S_IFREG, "climbs out"),
        ("kit/../../out.py", stat.S_IFREG, "climbs out"),
        ("/etc/out.py", stat.S_IFREG, "an absolute path"),
        ("..\\out.py", stat.S_IFREG, "another place"),
        ("C:/out.py", stat.S_IFREG, "another place"),
        ("kit/link", stat.S_IFLNK | 0o777, "a symbolic link"),
        ("kit/pipe", stat.S_IFIFO, "neither a file nor a folder"),
    ],
)
def test_a_member_that_leaves_its_folder_is_refused(tmp_path: Path, name: str, mode: int, says: str) -> None:
    path = zipped(tmp_path / "bad.whl", (entry("kit/fine.py"), b""), (entry(name, mode), b"/etc/passwd"))
    (fault,) = archive.inspect(path)
    assert says in fault and "\n" not in fault


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a.py", "a.py"), ("a.py", "A.py"), ("a", "a/")])
def test_a_name_that_comes_twice_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    path = zipped(tmp_path / "bad.whl", *((entry(name), b"x") for name in names))
    assert "twice" in archive.inspect(path)[0]


def test_an_archive_that_grows_absurdly_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.whl", (entry("zeros"), bytes(30_000_000)))
    assert "would grow from" in archive.inspect(path)[0]
    assert archive.inspect(zipped(tmp_path / "a.whl", (entry("a"), os.urandom(9000))), most=8000) != []


def test_every_flipped_byte_of_an_archive_is_noticed_or_harmless(
    tmp_path: Path, sources: dict[str, Path | bytes]
) -> None:
    archive.pack(sources, tmp_path / "code.whl")
    good = (tmp_path / "code.whl").read_bytes()
    unpack(tmp_path / "code.whl", tmp_path / "good")
    right = archive.digests(tmp_path / "good")
    bad = tmp_path / "bad.whl"
    for place in range(0, len(good), 3):
        bad.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        if not archive.inspect(bad):
            unpack(bad, tmp_path / f"{place}")
            contents = sorted(archive.digests(tmp_path / f"{place}").values())
            assert contents == sorted(right.values()), place
    bad.write_bytes(good[: len(good) // 2])
    assert "no readable archive" in archive.inspect(bad)[0]


# -- parts


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Two parts, as a bundle has them."""
    folder = tmp_path / "inputs"
    for part, name in (("code", "kit-code.whl"), ("weights", "models/a/fold0.json")):
        (folder / part / name).parent.mkdir(parents=True)
        (folder / part / name).write_text("{}")
    listed = {part: archive.listed(folder / part) for part in ("code", "weights")}
    for part, files in listed.items():
        about = {"kit": 1, "part": part, "bundle": archive.identity(listed), "files": files}
        write_json(folder / part / "part.json", about)
    write_json(folder / "code" / "dataset-metadata.json", {"id": "me/this"})
    return folder


def test_whole_parts_have_no_fault(inputs: Path) -> None:
    assert archive.check_parts(inputs) == []
    made = json.loads((inputs / "code/part.json").read_text())["bundle"]
    assert archive.check_parts(inputs, made) == []


def changed(folder: Path) -> None:
    (folder / "weights/models/a/fold0.json").write_text("[]")


def added(folder: Path) -> None:
    (folder / "weights/more.json").write_text("{}")


def removed(folder: Path) -> None:
    (folder / "weights/models/a/fold0.json").unlink()


def linked(folder: Path) -> None:
    (folder / "weights/models/a/fold0.json").rename(folder / "elsewhere")
    (folder / "weights/models/a/fold0.json").symlink_to(folder / "elsewhere")


def unlisted(folder: Path) -> None:
    (folder / "weights/part.json").unlink()


def emptied(folder: Path) -> None:
    (folder / "weights/part.json").write_text('{"kit": 1, "part": "weights"}')


def without_code(folder: Path) -> None:
    (folder / "code").rename(folder / "kode")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (changed, "is not what it was"),
        (added, "is not in part.json"),
        (removed, "is missing"),
        (linked, "is a symbolic link"),
        (unlisted, "is not the list of the part weights"),
        (emptied, "is not the list of the part weights"),
        (without_code, "the part code is not"),
    ],
)
def test_a_part_that_is_not_as_it_was_made_is_named(
    inputs: Path, harm: Callable[[Path], None], says: str
) -> None:
    harm(inputs)
    faults = archive.check_parts(inputs)
    assert len(faults) == 1 and says in faults[0], faults


def test_parts_of_two_bundles_do_not_go_together(inputs: Path) -> None:
    path = inputs / "weights/part.json"
    write_json(path, json.loads(path.read_text()) | {"bundle": "0" * 12})
    assert "several bundles" in archive.check_parts(inputs)[0]


def test_a_bundle_that_was_made_anew_is_not_the_one_that_was_asked_for(inputs: Path) -> None:
    assert "and this is 000000000000" in archive.check_parts(inputs, "0" * 12)[0]


def test_a_listed_change_still_changes_the_identity(inputs: Path) -> None:
    changed(inputs)
    path = inputs / "weights/part.json"
    files = archive.listed(inputs / "weights")
    write_json(path, json.loads(path.read_text()) | {"files": files})
    assert "several bundles" in archive.check_parts(inputs)[0]


# -- weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    (folder / "models").mkdir(parents=True)
    # Its header has 0x80 bytes and more, so that its first byte may look like a pickle's.
    tensors = {f"layer{n}.weight": torch.ones(2, 3) for n in range(7)}
    save_file(tensors, folder / "models/fold0.safetensors")
    (folder / "models/fold0.json").write_text("{}")
    np.savez(folder / "golden.npz", sums=np.zeros(3))
    return folder


def test_plain_weights_have_no_fault(weights: Path) -> None:
    assert archive.check_weights(weights) == []


def test_safetensors_whose_first_byte_is_that_of_a_pickle_are_no_pickle(weights: Path) -> None:
    path = weights / "models/fold0.safetensors"
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = path.read_bytes()[8 : 8 + length].ljust(0x480)
    path.write_bytes((0x480).to_bytes(8, "little") + header + path.read_bytes()[8 + length :])
    assert path.read_bytes()[:1] == b"\x80" and archive.check_weights(weights) == []


def saved_by_torch() -> bytes:
    stream = io.BytesIO()
    torch.save({"a": torch.ones(2)}, stream)
    return stream.getvalue()


def saved_by_old_torch() -> bytes:
    stream = io.BytesIO()
    torch.save({"a": torch.ones(2)}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def objects() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.array([{"a": 1}], dtype=object))
    return stream.getvalue()


@pytest.mark.parametrize("name", ["fold0.safetensors", "fold0.pth", "fold0.json", "fold0.npz", "fold0"])
@pytest.mark.parametrize("content", [saved_by_torch, saved_by_old_torch, lambda: pickle.dumps([1, 2])])
def test_a_pickle_is_found_by_its_content_whatever_its_name(
    weights: Path, name: str, content: Callable[[], bytes]
) -> None:
    (weights / "models" / name).write_bytes(content())
    (fault,) = archive.check_weights(weights)
    assert name in fault and "pickle" in fault


def test_arrays_of_python_objects_are_a_pickle_too(weights: Path) -> None:
    (weights / "golden.npz").write_bytes(objects())
    assert "a pickle in an .npz" in archive.check_weights(weights)[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"words"),
        ("a.json", b"{"),
        ("a.npz", b"PK nothing"),
        ("a.safetensors", b""),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{}and more"),
        ("a.safetensors", (10**9).to_bytes(8, "little") + b"{}"),
    ],
)
def test_what_is_no_plain_numbers_is_refused(weights: Path, name: str, content: bytes) -> None:
    (weights / name).write_bytes(content)
    assert len(archive.check_weights(weights)) == 1


def test_safetensors_that_are_cut_short_are_refused(weights: Path) -> None:
    path = weights / "models/fold0.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "cut short" in archive.check_weights(weights)[0]
