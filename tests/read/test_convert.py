"""Images as small PNG and JPEG files."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit.commands import COMMANDS
from kit.competition import TileGrid
from kit.errors import SettingError
from kit.read import convert
from kit.read.convert import Wanted
from kit.state import Run
from tests.read import dicoms

MakeRun = Callable[..., Run]
ROOT = Path(__file__).parents[2]
STEPS = TileGrid(steps=("modality", "voi", "invert"))
COLOURS = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def pictures(folder: Path, count: int = 3) -> dict[str, str]:
    """Photographs: colour, all but the first."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{n:03d}" for n in range(count)]
    for n, name in enumerate(names):
        pixels = np.roll(COLOURS, 7 * n, axis=1)
        Image.fromarray(pixels[..., 0] if n == 0 else pixels).save(folder / f"{name}.png")
    return {name: f"train/{name}.png" for name in names}


def radiographs(folder: Path) -> dict[str, str]:
    for n, (height, width) in enumerate([(60, 40), (50, 90)]):
        path = folder / f"train/r{n}.dicom"
        dicoms.write(path, dicoms.gradient(12, height, width), photometric="MONOCHROME1")
    return {"r0": "train/r0.dicom", "r1": "train/r1.dicom"}


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def resized(pixels: Any, side: int, keep_ratio: bool) -> Any:
    """``resize`` of the notebook that most data sets of small radiographs were made with."""
    picture = Image.fromarray(pixels)
    if keep_ratio:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    else:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(picture)


@pytest.mark.parametrize("keep_ratio", [False, True])
def test_radiographs_become_what_the_notebook_makes_of_them(
    keep_ratio: bool, tmp_path: Path, make_run: MakeRun
) -> None:
    run = make_run(radiographs(tmp_path / "data"), reader="radiograph", tiles=STEPS)
    said, code = convert.convert(run, Wanted(tmp_path / "to", (8, 32), keep_ratio=keep_ratio))
    assert code == 0 and "2 made now" in said
    for name in ("r0", "r1"):
        grey = dicoms.notebook(tmp_path / f"data/train/{name}.dicom")
        for side in (8, 32):
            with Image.open(tmp_path / f"to/{side}/train/{name}.png") as picture:
                assert picture.mode == "L"
                np.testing.assert_array_equal(np.asarray(picture), resized(grey, side, keep_ratio))
    table = pd.read_csv(tmp_path / "to/sizes.csv")
    assert table.to_numpy().tolist() == [["r0", "train", 60, 40], ["r1", "train", 50, 90]]
    assert table.columns.tolist() == ["image_id", "split", "height", "width"]


def test_photographs_and_slides_are_converted_too(
    tmp_path: Path, make_run: MakeRun, write_slide: Any
) -> None:
    run = make_run(pictures(tmp_path / "data/train"), {"t": "train/001.png"}, reader="photo")
    convert.convert(run, Wanted(tmp_path / "to", (30,)))
    with Image.open(tmp_path / "to/30/train/000.png") as grey:
        assert grey.mode == "L"
    for place in ("train/001", "test/t"):
        with Image.open(tmp_path / f"to/30/{place}.png") as colours:
            expected = resized(np.roll(COLOURS, 7, axis=1), 30, False)
            np.testing.assert_array_equal(np.asarray(colours), expected)
    write_slide(tmp_path / "data/s.tif", np.tile(COLOURS, (10, 10, 1)))
    convert.convert(make_run({"a/b": "s.tif"}, reader="slide"), Wanted(tmp_path / "slides", (64, 128)))
    for side in (64, 128):
        with Image.open(tmp_path / f"slides/{side}/train/a%2Fb.png") as picture:
            assert picture.size == (side, side) and picture.mode == "RGB"
    assert pd.read_csv(tmp_path / "slides/sizes.csv")[["height", "width"]].to_numpy().tolist() == [
        [900, 1200]
    ]


def test_the_size_that_is_noted_is_that_of_the_file_whatever_the_steps_make_of_it(
    tmp_path: Path, make_run: MakeRun
) -> None:
    images = pictures(tmp_path / "data/train")
    run = make_run(images, reader="photo", tiles=TileGrid(steps=("resize-224", "grey")))
    convert.convert(run, Wanted(tmp_path / "to", (300,), keep_ratio=True))
    with Image.open(tmp_path / "to/300/train/001.png") as picture:
        assert picture.size == (224, 224) and picture.mode == "L"
    assert set(pd.read_csv(tmp_path / "to/sizes.csv")["width"]) == {120}


def test_keeping_the_ratio_enlarges_nothing_and_a_square_does(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(pictures(tmp_path / "data/train"), reader="photo")
    for keep_ratio, size in ((True, (120, 90)), (False, (200, 200))):
        convert.convert(run, Wanted(tmp_path / f"{keep_ratio}", (200,), keep_ratio=keep_ratio))
        with Image.open(tmp_path / f"{keep_ratio}/200/train/001.png") as picture:
            assert picture.size == size


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path, make_run: MakeRun) -> None:
    images = pictures(tmp_path / "data/train", 12)
    for workers in (1, 4):
        run = make_run(images, reader="photo", workers=workers)
        convert.convert(run, Wanted(tmp_path / f"{workers}", (20, 40), "jpg"))
    assert content(tmp_path / "1") == content(tmp_path / "4")
    assert len(content(tmp_path / "1")) == 12 * 2 + 3


def test_what_is_finished_is_not_made_again_and_what_is_missing_is(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(pictures(tmp_path / "data/train", 6), reader="photo")
    to, wanted = tmp_path / "to", Wanted(tmp_path / "to", (20, 40))
    convert.convert(run, wanted)
    whole, made = content(to), times(to)
    (to / "20/train/002.png").unlink()
    (to / "40/train/003.png").write_bytes(whole["40/train/003.png"][:60])
    (to / "sizes.csv").unlink()
    left = to / "40/train/.tmp-0-0-0-abc-004.png"
    left.write_bytes(b"of a process that is dead")
    said, _ = convert.convert(run, wanted)
    assert "2 made now, 4 before" in said and content(to) == whole
    again = {path.stem for path, when in times(to).items() if when != made[path]}
    assert again == {"002", "003"}


@pytest.mark.parametrize(
    "change", [{"format": "jpg"}, {"keep_ratio": True}, {"steps": ("invert",)}, {"image": True}]
)
def test_other_settings_or_another_image_start_anew(
    change: dict[str, Any], tmp_path: Path, make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="kit")
    images = radiographs(tmp_path / "data")
    convert.convert(make_run(images, reader="radiograph", tiles=STEPS), Wanted(tmp_path / "to", (20,)))
    if change.pop("image", False):
        dicoms.write(tmp_path / "data/train/r1.dicom", dicoms.gradient(10, 50, 90))
    tiles = TileGrid(steps=change.pop("steps", STEPS.steps))
    run = make_run(images, reader="radiograph", tiles=tiles)
    said, _ = convert.convert(run, Wanted(tmp_path / "to", (20,), **change))
    count = 1 if not change and tiles == STEPS else 2
    assert f"{count} made now, {2 - count} before" in said
    assert ("starts anew" in caplog.text) == (count == 2)
    noted = json.loads((tmp_path / "to/convert.json").read_text())
    assert noted["steps"] == list(tiles.steps) and noted["keep_ratio"] == change.get("keep_ratio", False)
    fresh = tmp_path / "fresh"
    convert.convert(run, Wanted(fresh, (20,), **change))
    assert {
        name: data for name, data in content(tmp_path / "to").items() if name in content(fresh)
    } == content(fresh)


def test_a_further_size_leaves_the_others_as_they_are(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(pictures(tmp_path / "data/train"), reader="photo")
    convert.convert(run, Wanted(tmp_path / "to", (20,)))
    before = content(tmp_path / "to")
    said, _ = convert.convert(run, Wanted(tmp_path / "to", (20, 50)))
    assert "3 made now" in said and before.items() <= content(tmp_path / "to").items()


def test_a_bad_image_is_reported_and_survived(tmp_path: Path, make_run: MakeRun) -> None:
    images = pictures(tmp_path / "data/train", 4)
    run = make_run(images | {"gone": "train/gone.png"}, reader="photo")
    wanted = Wanted(tmp_path / "to", (20,))
    convert.convert(run, wanted)
    path = tmp_path / "data/train/001.png"
    path.write_bytes(path.read_bytes()[:500])
    said, code = convert.convert(run, wanted)
    assert code == 0 and "2 could not be read" in said and "train '001': " in said
    table = pd.read_csv(tmp_path / "to/failures.csv", dtype=str)
    assert table[["image_id", "split"]].to_numpy().tolist() == [["001", "train"], ["gone", "train"]]
    assert "cannot be read" in table["reason"][0] and "not there" in table["reason"][1]
    assert not (tmp_path / "to/20/train/001.png").exists()  # nor is the picture of what it was before
    assert pd.read_csv(tmp_path / "to/sizes.csv", dtype=str)["image_id"].tolist() == ["000", "002", "003"]


def test_the_exit_code_is_1_where_no_image_can_be_read(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run({"a": "a.png", "b": "b.png"}, reader="photo")
    said, code = convert.convert(run, Wanted(tmp_path / "to"))
    assert code == 1 and "0 images" in said and "2 could not be read" in said


def test_images_inside_an_archive_are_converted(tmp_path: Path, make_run: MakeRun) -> None:
    images = pictures(tmp_path / "data/train", 3)
    with zipfile.ZipFile(tmp_path / "data/all.zip", "w") as archive:
        for name in images.values():
            archive.write(tmp_path / "data" / name, name)
    inside = {name: f"all.zip/{path}" for name, path in images.items()}
    convert.convert(make_run(inside, reader="photo"), Wanted(tmp_path / "zip", (20,)))
    convert.convert(make_run(images, reader="photo"), Wanted(tmp_path / "plain", (20,)))
    for name in images:
        found = [
            np.asarray(Image.open(tmp_path / f"{kind}/20/train/{name}.png")) for kind in ("zip", "plain")
        ]
        np.testing.assert_array_equal(*found)


def test_a_split_without_a_table_is_refused_and_no_test_table_is_no_fault(
    tmp_path: Path, make_run: MakeRun
) -> None:
    run = make_run(pictures(tmp_path / "data/train"), reader="photo")
    assert convert.convert(run, Wanted(tmp_path / "to", (20,)), ("train", "test"))[1] == 0
    for splits in (("test",), ("train", "extra")):
        with pytest.raises(SettingError, match=f"no table of {splits[-1]} images"):
            convert.convert(run, Wanted(tmp_path / "to", (20,)), splits)


def test_an_unknown_step_ends_it_before_any_image(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(radiographs(tmp_path / "data"), reader="radiograph", tiles=TileGrid(steps=("sharpest",)))
    with pytest.raises(SettingError, match="no step 'sharpest'"):
        convert.convert(run, Wanted(tmp_path / "to", (20,)))
    assert not (tmp_path / "to").exists()


def test_its_options_are_understood(tmp_path: Path, make_run: MakeRun) -> None:
    parser = argparse.ArgumentParser()
    COMMANDS["convert"].options(parser)
    words = ["--to", str(tmp_path / "to"), "--size", "30", "20", "30", "--format", "jpg", "--keep-ratio"]
    given = parser.parse_args([*words, "--splits", "train"])
    run = make_run(pictures(tmp_path / "data/train"), {"t": "train/001.png"}, reader="photo")
    said, code = convert.run(run, given)
    assert code == 0 and "at 20, 30 px (jpg)" in said
    found = {path for path in content(tmp_path / "to") if path.endswith(".jpg")}
    assert found == {f"{side}/train/{n:03d}.jpg" for side in (20, 30) for n in range(3)}
    for wrong in ("0", "9000", "x"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--to", "x", "--size", wrong])


PROGRAM = """
import sys
from pathlib import Path
import pandas as pd
from kit.competition import Competition, Tables
from kit.metrics import WeightedLogLoss
from kit.read.convert import Wanted, convert
from kit.state import Run
folder, to, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
files = sorted(path.name for path in (folder / "train").glob("*.png"))
table = pd.DataFrame({"image_id": [name[:-4] for name in files], "file": files, "label": "a"}, dtype=object)
task = Competition("made", ("a", "b"), WeightedLogLoss(weights=(0.5, 0.5)), lambda data: Tables(table),
                   files="train/{file}", reader="photo")
print(convert(Run(task, "made", folder, to / "work", workers=workers), Wanted(to, (100, 200)))[0])
"""


@pytest.mark.slow
def test_after_a_kill_the_same_command_ends_with_the_same_bytes(tmp_path: Path) -> None:
    pictures(tmp_path / "data/train", 150)

    def command(to: str, workers: int) -> list[str]:
        return [sys.executable, "-c", PROGRAM, str(tmp_path / "data"), str(tmp_path / to), str(workers)]

    subprocess.run(command("whole", 1), check=True, capture_output=True, cwd=ROOT)
    killed = 0
    for _ in range(3):
        process = subprocess.Popen(command("to", 2), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
        begun, end = len(list((tmp_path / "to").rglob("*.png"))), time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            if len(list((tmp_path / "to").rglob("*.png"))) >= begun + 40:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed > 0
    ended = subprocess.run(command("to", 2), check=True, capture_output=True, text=True, cwd=ROOT)
    assert " made now, " in ended.stdout and "150 made now" not in ended.stdout
    assert content(tmp_path / "to") == content(tmp_path / "whole")


def test_what_is_known_of_a_split_that_is_not_asked_for_stays(tmp_path: Path, make_run: MakeRun) -> None:
    images = pictures(tmp_path / "data/train")
    (tmp_path / "data/bad.png").write_bytes(b"no picture")
    run = make_run(images, {"t": "train/001.png", "u": "bad.png"}, reader="photo")
    wanted = Wanted(tmp_path / "to", (30,))
    convert.convert(run, wanted)
    before = content(tmp_path / "to")
    convert.convert(run, wanted, ["train"])
    assert content(tmp_path / "to") == before
    (tmp_path / "data/bad.png").unlink()
    Image.fromarray(COLOURS).save(tmp_path / "data/bad.png")
    convert.convert(run, wanted, ["test"])
    assert len(pd.read_csv(tmp_path / "to/sizes.csv")) == 5
    assert len(pd.read_csv(tmp_path / "to/failures.csv")) == 0
