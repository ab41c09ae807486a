"""The data of a run: a folder, a zip of it, or the demo that is made once."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kit import data as opening
from kit.competition import Competition, Demo, find
from kit.errors import DataError
from kit.files import read_strings


def packed(folder: Path, archive: Path, top: str = "") -> Path:
    """A zip of a folder, under a top folder if one is named."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for path in sorted(folder.rglob("*")):
            content.write(path, Path(top) / path.relative_to(folder))
    return archive


@pytest.mark.parametrize("top", ["", "mayo-clinic-strip-ai"])
def test_a_zip_gives_the_same_folds_as_the_folder_and_keeps_ids(
    kit: Callable[..., Any], data: Path, tmp_path: Path, top: str
) -> None:
    archive = packed(data, tmp_path / "strip-ai.zip", top)
    assert kit("fold", "strip-ai", "--data", archive).code == 0
    zipped = (tmp_path / "folds" / "strip-ai.csv").read_bytes()
    assert kit("fold", "strip-ai", "--data", data, "--out", tmp_path / "plain.csv").code == 0
    assert zipped == (tmp_path / "plain.csv").read_bytes()
    assert {"006388", "2e3749"} <= set(read_strings(tmp_path / "plain.csv")["unit_id"])


def test_a_zip_is_unpacked_once_and_again_when_it_is_another(data: Path, tmp_path: Path) -> None:
    archive = packed(data, tmp_path / "a.zip")
    first = opening.open_data(archive, tmp_path / "work")
    (first / "train.csv").write_text("kept")
    assert opening.open_data(archive, tmp_path / "work") == first
    assert (first / "train.csv").read_text() == "kept"
    (data / "new.csv").write_text("x")
    other = opening.open_data(packed(data, archive), tmp_path / "work")
    assert other != first and (other / "new.csv").exists()


def test_what_a_packer_adds_is_not_taken_for_the_data(data: Path, tmp_path: Path) -> None:
    archive = packed(data, tmp_path / "a.zip", "top")
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr("__MACOSX/top/._train.csv", "x")
        content.writestr(".DS_Store", "x")
    assert opening.open_data(archive, tmp_path / "work").name == "top"


def test_a_kill_while_unpacking_leaves_nothing_that_looks_whole(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed(data, tmp_path / "a.zip")

    def stopped(self: zipfile.ZipFile, path: Path) -> None:
        self.extract("train.csv", path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", stopped)
        with pytest.raises(KeyboardInterrupt):
            opening.open_data(archive, tmp_path / "work")
    folder = opening.open_data(archive, tmp_path / "work")
    assert (folder / "test.csv").exists()


def flipped(archive: Path) -> None:
    """Damage the compressed bytes of the first member."""
    content = bytearray(archive.read_bytes())
    start = content.find(b"sample_submission.csv") + 21
    for n in range(start, start + 20):
        content[n] ^= 0xFF
    archive.write_bytes(content)


def miscounted(archive: Path) -> None:
    """Keep the compressed bytes readable and their checksum wrong."""
    content = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        crc = opened.getinfo("train.csv").CRC.to_bytes(4, "little")
    archive.write_bytes(content.replace(crc, b"\0\0\0\0"))


def halved(archive: Path) -> None:
    """Cut the archive off."""
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "says"),
    [(flipped, "cannot be unpacked"), (miscounted, "cannot be unpacked"), (halved, "neither a folder nor a")],
)
def test_a_damaged_zip_is_refused_and_leaves_no_folder(
    refused: Callable[..., str], data: Path, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    archive = packed(data, tmp_path / "a.zip")
    damage(archive)
    refused("fold", "strip-ai", "--data", archive, says=[str(archive), says])
    assert not list((tmp_path / "work").rglob("unzipped-*"))
    refused("fold", "strip-ai", "--data", archive, says=[str(archive), says])  # the second time too


def test_an_empty_zip_has_no_tables(refused: Callable[..., str], tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "a.zip", "w").close()
    refused("fold", "strip-ai", "--data", tmp_path / "a.zip", says=["train.csv is not there"])


def test_a_folder_is_used_where_it_is(data: Path, tmp_path: Path) -> None:
    assert opening.open_data(data, tmp_path / "work") == data
    assert not (tmp_path / "work").exists()


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the data folder \S+none is not there") as caught:
        opening.open_data(tmp_path / "none", tmp_path)
    assert "--data" in caught.value.hint


class Maker(ModuleType):
    """A demo module that writes one file and remembers how it was called."""

    VERSION = 1

    def __init__(self) -> None:
        super().__init__("toy_demo")
        self.calls: list[tuple[Any, ...]] = []
        self.killed = False

    def make(self, folder: Path, *options: Any, **named: int) -> None:
        self.calls.append((*options, *named.items()))
        with (folder / "slides.txt").open("a") as stream:
            stream.write("slide\n")
        if self.killed:
            raise KeyboardInterrupt


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Maker:
    module = Maker()
    monkeypatch.setitem(sys.modules, "toy_demo", module)
    return module


@pytest.fixture
def task() -> Competition:
    return replace(find("strip-ai"), demo=Demo("toy_demo", patients=30))


def lines(folder: Path) -> int:
    return len((folder / "slides.txt").read_text().splitlines())


def test_the_demo_is_made_once_whatever_the_workers_and_with_its_own_seed(
    maker: Maker, task: Competition, tmp_path: Path
) -> None:
    folder = opening.demo_data(task, tmp_path, workers=1)
    assert opening.demo_data(task, tmp_path, workers=5) == folder == tmp_path / "data"
    assert maker.calls == [(opening.DEMO_SEED, 30, 24, 1, 200.0)]


def test_another_size_or_version_of_the_demo_is_made_anew(
    maker: Maker, task: Competition, tmp_path: Path
) -> None:
    opening.demo_data(task, tmp_path, 1)
    opening.demo_data(replace(task, demo=replace(task.demo, patients=40)), tmp_path, 1)
    assert lines(tmp_path / "data") == 1 and len(maker.calls) == 2
    maker.VERSION = 2  # type: ignore[misc]
    opening.demo_data(replace(task, demo=replace(task.demo, patients=40)), tmp_path, 1)
    assert lines(tmp_path / "data") == 1 and len(maker.calls) == 3


def test_how_the_demo_is_tiled_does_not_make_it_anew(maker: Maker, task: Competition, tmp_path: Path) -> None:
    opening.demo_data(task, tmp_path, 1)
    opening.demo_data(replace(task, demo=replace(task.demo, settings=(("tile.size", "64"),))), tmp_path, 1)
    assert len(maker.calls) == 1


def test_patients_without_a_label_are_made_only_when_asked_for_and_beside_the_others(
    maker: Maker, task: Competition, tmp_path: Path
) -> None:
    plain = replace(task, demo=replace(task.demo, other=20))
    more = replace(plain, tiles=replace(task.tiles, extra=True))
    for asked in (task, plain, more, more, plain, plain, more):
        opening.demo_data(asked, tmp_path, 1)
    given, asked_for = (opening.DEMO_SEED, 30, 24, 1, 200.0), ("other", 20)
    assert maker.calls == [given, (*given, asked_for), given, (*given, asked_for)]
    assert lines(tmp_path / "data") == 4, "nothing was deleted"
    without = replace(task, tiles=more.tiles)
    opening.demo_data(without, tmp_path, 1)
    assert maker.calls[-1] == given, "a demo that has none is not asked for them"
    opening.demo_data(replace(more, demo=replace(more.demo, patients=40)), tmp_path, 1)
    assert lines(tmp_path / "data") == 1


def test_a_demo_that_was_stopped_goes_on_and_one_of_another_size_begins_anew(
    maker: Maker, task: Competition, tmp_path: Path
) -> None:
    maker.killed = True
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            opening.demo_data(task, tmp_path, 1)
    assert lines(tmp_path / "data") == 2  # the first slide was kept
    maker.killed = False
    opening.demo_data(replace(task, demo=replace(task.demo, patients=40)), tmp_path, 1)
    assert lines(tmp_path / "data") == 1


def test_a_competition_without_demo_asks_for_its_data(task: Competition, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="strip-ai has no embedded demo") as caught:
        opening.demo_data(replace(task, demo=Demo()), tmp_path, 1)
    assert "--data" in caught.value.hint
