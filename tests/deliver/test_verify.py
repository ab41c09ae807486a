"""A true submission passes, one flipped byte is found, and so is a forgery whose hashes were made again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit import seeds, state
from kit.__main__ import main, run_flow
from kit.combine import second_level
from kit.deliver import case, origin, submit
from kit.deliver.findings import WIDTH
from kit.deliver.verify import Options, verify
from kit.errors import DataError
from kit.files import digest, file_digest, read_strings, write_json, write_table

ROOT = Path(__file__).parents[2]
SIDE = 32
COLOURS = {"a": (200, 130, 130), "b": (130, 130, 200)}
TASK = f"""
from kit.competition import Competition, FoldPlan, SecondLevel, Tables, TileGrid, Training, Tuning
from kit.metrics import LogLoss
from kit.tables import read_table

COLUMNS = ("image_id", "patient", "site")

def load(data):
    return Tables(
        read_table(data / "train.csv", (*COLUMNS, "label")),
        read_table(data / "test.csv", COLUMNS),
        sample=read_table(data / "sample.csv", ("image_id", "a", "b")),
    )

TOY = Competition(
    name="toy", classes=("a", "b"), metric=LogLoss(), load=load, group="patient", site="site",
    files="{{split}}/{{image_id}}.png", reader="photo", folds=FoldPlan(k=3, holdout=2),
    tiles=TileGrid(size={SIDE}, count=1), tuning=Tuning(trials=0), second_level=SecondLevel(resamples=20),
    training=Training(
        backbones=("test_efficientnet:scratch:{SIDE}",), finetune_epochs=2, batch=8, infer_batch=8, views=1
    ),
)
"""


@dataclass(frozen=True)
class Place:
    """Where a toy of photographs went through every stage, from its own declaration."""

    data: Path
    work: Path
    submission: Path


def photographs(data: Path) -> None:
    """36 labelled images of 24 patients at three sites, and 6 test images; one of them is cut off."""
    rows = [
        (f"p{n:02d}-{m}", f"p{n:02d}", f"s{n // 2 % 3}", "ab"[n % 2])
        for n in range(24)
        for m in range(2 - n % 2)
    ]
    train = pd.DataFrame(rows, columns=["image_id", "patient", "site", "label"])
    rows = [(f"00{n}", f"q{n}", f"s{n % 3}", "ab"[n % 2]) for n in range(6)]
    test = pd.DataFrame(rows, columns=train.columns)
    for split, table in (("train", train), ("test", test)):
        (data / split).mkdir(parents=True)
        for row in table.itertuples():
            noise = seeds.rng(0, "picture", row.image_id).normal(0, 30, (SIDE, SIDE, 3))
            pixels = np.clip(np.array(COLOURS[row.label]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(data / split / f"{row.image_id}.png")
    cut = data / "test" / "005.png"
    cut.write_bytes(cut.read_bytes()[:200])
    write_table(data / "train.csv", train)
    write_table(data / "test.csv", test.drop(columns="label"))
    write_table(data / "sample.csv", pd.DataFrame({"image_id": test["image_id"][::-1], "a": 0.5, "b": 0.5}))


@pytest.fixture(scope="module", autouse=True)
def one_code() -> Iterator[None]:
    """The package counts as the same all along, whoever edits it while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(origin, "source_digest", lambda folder: "0" * 64)
        yield


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, one_code: None) -> Place:
    """The stages of the toy up to `submit`, typed once."""
    folder = tmp_path_factory.mktemp("toy")
    photographs(folder / "data")
    (folder / "my_task.py").write_text(TASK)
    words = [str(folder / "my_task.py"), "--data", str(folder / "data"), "--threads", "1", "--workers", "1"]
    before = Path.cwd()
    os.chdir(folder)
    try:
        for stage in [name for name in state.STAGES if name != "report"]:
            assert main([stage, *words]) == 0, stage
    finally:
        os.chdir(before)
    (submission,) = (folder / "submissions" / "toy").iterdir()
    return Place(folder / "data", folder / "work", submission)


@pytest.fixture
def clone(toy: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The submission folder alone, in a place where nothing else is."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(toy.submission, Path("submissions") / "toy" / toy.submission.name)


def sealed(folder: Path, **changes: Any) -> None:
    """Make every hash of a folder again, as somebody would who has forged one of its files."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text()) | changes
    content["files"] = {
        name: file_digest(folder / name) for name in content["files"] if (folder / name).is_file()
    }
    del content["sha256"]
    write_json(path, content | {"sha256": digest(content)})


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def failures(text: str) -> str:
    """The lines of a verdict that name a fault, on one line."""
    found, inside = [], False
    for line in text.splitlines():
        inside = line.startswith("  FAILED") or (inside and line.startswith(" " * 15))
        found += [line.strip()] if inside else []
    return " ".join(found)


# --- what is true passes ------------------------------------------------------------------------------


def test_a_submission_with_its_data_alone_passes_every_check_of_levels_0_to_2(
    toy: Place, clone: Path
) -> None:
    text, code = verify(clone, Options(level=2, data=toy.data))
    assert code == 0, text
    assert "The claim holds up to level 2." in text and "a constant scores" in text
    assert "FAILED" not in text and "not checked" not in text
    *lines, command = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert command.endswith(f"verify {clone} --level 3 --data {toy.data} --bundle DIR")
    (clone / "report.html").write_text("drawn afterwards")
    assert verify(clone, Options(level=0))[1] == 0


def test_without_the_data_it_is_said_that_the_labels_are_the_submissions_own(clone: Path) -> None:
    text, code = verify(clone, Options(level=2))
    assert code == 0, text
    assert "not checked  labels" in text and "not checked  tables" in text
    assert "submission.csv, of the new fit: the same bytes" in text


def test_predictions_made_elsewhere_are_verified_too(
    kit: Callable[..., Any], data: Path, oof: list[str], tmp_path: Path
) -> None:
    for stage in ("combine", "submit"):
        assert kit(stage, "strip-ai", "--data", data, *oof).code == 0
    (folder,) = (tmp_path / "submissions" / "strip-ai").iterdir()
    shutil.rmtree(tmp_path / "work")
    ended = kit("verify", folder, "--data", data)
    assert ended.code == 0 and "The claim holds up to level 2." in ended.out, ended.out
    assert "FAILED" not in ended.out and "not checked" not in ended.out
    ended = kit("verify", folder)
    assert (
        ended.code == 2 and "level 1 (re-score) cannot be checked" in ended.out and "--data DIR" in ended.out
    )
    ended = kit("verify", folder, "--data", data, "--level", "3")
    assert ended.code == 2 and "The claim holds up to level 2; level 3" in ended.out
    made = folder / "external" / "oof" / "net.csv"
    table = read_strings(made)
    table.loc[table.index[:4], "predictions"] = "0.01"  # the first are LAA, CE, CE, LAA
    write_table(made, table)
    sealed(folder)
    ended = kit("verify", folder, "--data", data)
    assert (
        ended.code == 1 and "the first at level 1" in ended.out and "net (oof), score" in failures(ended.out)
    )


def test_groups_that_near_duplicates_join_are_joined_again(
    kit: Callable[..., Any], data: Path, oof: list[str], tmp_path: Path
) -> None:
    near = tmp_path / "near.csv"
    near.write_text("image_id,cluster\na00000_0,1\na00003_0,1\n")
    for stage in ("combine", "submit"):
        assert kit(stage, "strip-ai", "--data", data, "--duplicates", near, *oof).code == 0
    (folder,) = (tmp_path / "submissions" / "strip-ai").iterdir()
    near.unlink()
    ended = kit("verify", folder, "--data", data)
    assert ended.code == 0 and "key: the run's name follows" in ended.out, ended.out


def test_on_another_kind_of_machine_numbers_may_differ_in_their_last_digits(
    toy: Place, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((clone / "metrics.json").read_text())
    content["rows"][0]["score"] *= 1 + 1e-12
    write_json(clone / "metrics.json", content)
    sealed(clone)
    options = Options(level=1, data=toy.data)
    assert "(oof), score" in failures(verify(clone, options)[0])
    monkeypatch.setattr(origin, "machine", lambda: "another processor, x86_64, no GPU")
    text, code = verify(clone, options)
    assert code == 0 and "the same within 1e-09" in text and "another processor" in text


def test_levels_0_to_2_need_no_torch(toy: Place, clone: Path) -> None:
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'torchvision', 'timm', 'openslide', 'tifffile', 'cv2'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from kit.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["verify", str(clone), "--level", "2", "--data", str(toy.data)]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The claim holds up to level 2." in done.stdout


# --- one flipped byte ---------------------------------------------------------------------------------


def offsets(name: str, content: bytes, draw: np.random.Generator) -> list[int]:
    """Bytes to flip: some anywhere, and of each kind that a reader of the file might not look at."""
    kinds = (b" ", b"\n", b"0123456789", b'"', b",")
    places = [[n for n, byte in enumerate(content) if byte in kind] for kind in kinds]
    chosen = [int(draw.choice(place)) for place in places if place]
    return [0, len(content) - 1, *map(int, draw.integers(len(content), size=3)), *chosen]


def test_one_flipped_byte_anywhere_is_found(clone: Path) -> None:
    draw, count = np.random.default_rng(0), 0
    names = [path for path in sorted(clone.rglob("*")) if path.is_file()]
    assert {path.name for path in names} >= {"manifest.json", "declaration.py", "images.csv", "test.csv"}
    for path in names:
        content = path.read_bytes()
        for place in offsets(path.name, content, draw):
            spoilt = bytearray(content)
            spoilt[place] ^= 1 << int(draw.integers(8))
            path.write_bytes(spoilt)
            text, code = verify(clone, Options(level=0))
            assert code == 1 and failures(text).startswith("FAILED"), (path.name, place, text)
            count += 1
        path.write_bytes(content)
    assert count >= 60


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "oof.csv").unlink(), "oof.csv is missing"),
        (lambda folder: (folder / "notes.txt").write_text("x"), "notes.txt is not in the manifest"),
        (lambda folder: (folder / "a").mkdir() or (folder / "a" / "report.html").write_text(""), "a/report"),
        (lambda folder: sealed(folder, run="0123456789ab"), "is not the first 12 digits of its key"),
        (lambda folder: sealed(folder, files={}), "is not in the manifest"),
        (lambda folder: sealed(folder, declared=None), "does not say what it must of declared"),
        (lambda folder: (folder / "manifest.json").write_text("[" * 100_000), "manifest.json is no JSON"),
    ],
)
def test_a_folder_that_is_not_as_its_manifest_says_is_named(
    clone: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(clone)
    text, code = verify(clone, Options(level=2))
    assert code == 1 and says in failures(text)
    assert "level 1," not in text and "nothing above level 0 was tried" in " ".join(text.split())


def test_a_link_and_a_renamed_folder_are_named(clone: Path, tmp_path: Path) -> None:
    shutil.move(clone / "oof.csv", tmp_path / "elsewhere.csv")
    (clone / "oof.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert "oof.csv is a link" in failures(verify(clone, Options(level=0))[0])
    other = clone.rename(clone.with_name("mine"))
    assert "the folder is called 'mine'" in failures(verify(other, Options(level=0))[0])


def test_the_program_of_a_stranger_is_not_run_where_it_is_not_that_of_the_manifest(
    toy: Place, clone: Path, tmp_path: Path
) -> None:
    (clone / "declaration.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    assert verify(clone, Options(level=2, data=toy.data))[1] == 1
    assert verify(clone, Options(level=0))[1] == 1
    sealed(clone)
    assert verify(clone, Options(level=0, data=None))[1] == 0
    assert not (tmp_path / "run").exists()


def test_what_is_no_submission_of_this_version_is_refused(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no manifest\.json"):
        verify(tmp_path, Options())
    sealed(clone, format=3)
    with pytest.raises(DataError, match="format 3"):
        verify(clone, Options())
    write_json(clone / "manifest.json", {"run": "x", "settings": {}})
    with pytest.raises(DataError, match="format 1"):
        verify(clone, Options())


# --- forgeries whose hashes were made again -----------------------------------------------------------


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)


def edit_table(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    write_table(path, change(read_strings(path)))


def default(content: Any) -> Any:
    (row,) = [row for row in content["rows"] if row["kind"] == "default" and row["set"] == "oof"]
    return row


def better_score(folder: Path) -> None:
    edit_json(folder / "metrics.json", lambda content: default(content).update(score=0.1))


def better_claim(folder: Path) -> None:
    sealed(folder, claim=manifest(folder)["claim"] | {"score": 0.1})


def worse_constant(folder: Path) -> None:
    def change(content: Any) -> None:
        (row,) = [row for row in content["rows"] if row["name"] == "constant" and row["set"] == "oof"]
        row["score"] += 0.01

    edit_json(folder / "metrics.json", change)


def hidden_baseline(folder: Path) -> None:
    def change(content: Any) -> None:
        content["rows"] = [row for row in content["rows"] if row["name"] != "metadata only"]

    edit_json(folder / "metrics.json", change)


def second_default(folder: Path) -> None:
    edit_json(
        folder / "metrics.json", lambda content: content["rows"].append({**default(content), "score": 0.1})
    )


def flipped_label(folder: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        first = table.index[table["role"] == "fold"][0]
        table.loc[first, "label"] = {"a": "b", "b": "a"}[table.loc[first, "label"]]
        return table

    edit_table(folder / "folds.csv", change)


def other_group(folder: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[0, "group_id"] = "new"
        return table

    edit_table(folder / "folds.csv", change)


def other_fold(folder: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        first = table["group_id"] == table.loc[table["role"] == "fold", "group_id"].iloc[0]
        table.loc[first, "fold"] = [str((int(n) + 1) % 3) for n in table.loc[first, "fold"]]
        return table

    edit_table(folder / "folds.csv", change)


def dropped_unit(folder: Path) -> None:
    edit_table(folder / "oof.csv", lambda table: table[table["image_id"] != table["image_id"].iloc[0]])


def nicer_oof(folder: Path) -> None:
    edit_table(folder / "oof.csv", nicer)


def nicer(table: pd.DataFrame) -> pd.DataFrame:
    table.loc[0, ["p_a", "p_b"]] = ["0.75", "0.25"]
    return table


def nicer_combined(folder: Path) -> None:
    edit_table(folder / "oof_combined.csv", nicer)


def other_submission(folder: Path) -> None:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[2, ["a", "b"]] = ["0.250000000", "0.750000000"]
        return table

    edit_table(folder / "submission.csv", change)


def reordered(folder: Path) -> None:
    edit_table(folder / "submission.csv", lambda table: table[::-1])


def nicer_test(folder: Path) -> None:
    edit_table(folder / "test.csv", nicer)


def other_fit(folder: Path) -> None:
    edit_json(folder / "second_level.json", lambda content: content.update(icc=content["icc"] / 2))


def other_seed(folder: Path) -> None:
    sealed(folder, declared=manifest(folder)["declared"] | {"seed": 7})


def other_setting(folder: Path) -> None:
    declared = manifest(folder)["declared"]
    sealed(folder, declared=declared | {"settings": declared["settings"] | {"combine.resamples": "30"}})


def nonsense(folder: Path) -> None:
    write_json(folder / "metrics.json", {"rows": [1], "gains": 2})


@pytest.mark.parametrize(
    ("forge", "level", "says"),
    [
        (better_score, 1, ["(oof), score: the file says 0.1, it is"]),
        (better_claim, 1, ["claim: score: the file says 0.1, it is"]),
        (worse_constant, 1, ["constant (oof), score"]),
        (hidden_baseline, 1, ["metadata only (oof) is not told"]),
        (second_default, 1, ["metrics.json is not as the kit writes it"]),
        (flipped_label, 1, ["labels: image", "in folds.csv and", "folds.csv is not what seed 0 deals"]),
        (other_group, 1, ["is torn apart"]),
        (other_fold, 1, ["folds.csv is not what seed 0 deals", "has no row without fold"]),
        (dropped_unit, 1, ["rows: oof.csv: ", "image 'p0", "has no row without fold", "scores:"]),
        (nicer_oof, 1, ["scores: test_efficientnet-scratch-32 (oof), score"]),
        (nicer_combined, 1, ["oof_combined.csv: unit 'p0", "has 0.75, 0.25"]),
        (other_submission, 2, ["submission.csv, of the new fit: unit '003' has 0.250000000, 0.750000000"]),
        (reordered, 2, ["submission.csv has other units, or in another order", "ids: "]),
        (nicer_test, 2, ["submission.csv, of the new fit: unit '000' has", "of second_level.json"]),
        (other_fit, 2, ["fit: icc: the file says 0.22, it is 0.44"]),
        (other_seed, 1, ["key: the run's name does not follow", "scores:"]),
        (other_setting, 1, ["key: the run's name does not follow", "scores:"]),
        (nonsense, 1, ["metrics.json is not as the kit writes it"]),
    ],
)
def test_a_forgery_with_new_hashes_is_found_and_named(
    toy: Place, clone: Path, forge: Callable[[Path], None], level: int, says: list[str]
) -> None:
    forge(clone)
    sealed(clone)
    text, code = verify(clone, Options(level=2, data=toy.data))
    assert "FAILED" not in text.split("level 1, ")[0]  # every hash is right
    assert code == 1 and f"the first at level {level} " in text, text
    assert [words for words in says if words not in failures(text)] == [], text


def remade(folder: Path, data: Path, work: Path) -> None:
    """Compute scores and submission of forged evidence again, as the kit itself would."""
    mine = case.Case(folder.resolve(), manifest(folder), work, data)
    second_level.run(mine.run)
    made = mine.run.folder("combine")
    for name in ("metrics.json", "second_level.json"):
        shutil.copyfile(made / name, folder / name)
    shutil.copyfile(made / "oof.csv", folder / "oof_combined.csv")
    for name, source in (("submission.csv", "test"), ("submission_bold.csv", "bold")):
        (folder / name).unlink(missing_ok=True)
        if len(read_strings(made / f"{source}.csv")):
            write_table(folder / name, submit.build(mine.run, source)[0], submit.FORMAT)
    content = json.loads((folder / "metrics.json").read_text())
    row = {name: value for name, value in default(content).items() if name not in ("kind", "auc")}
    sealed(folder, claim=row | {"metric": content["metric"], "units": content["units"]})


def test_a_bad_unit_that_was_dropped_is_found_though_every_number_was_made_again(
    toy: Place, clone: Path, tmp_path: Path
) -> None:
    dropped_unit(clone)
    remade(clone, toy.data, tmp_path / "forger")
    text, code = verify(clone, Options(level=2, data=toy.data))
    assert code == 1 and "ok           scores" in text
    assert "has no row without fold" in failures(text) and "1 more not covered" in " ".join(text.split())


# --- levels 3 and 4 -----------------------------------------------------------------------------------


def test_level_3_finds_the_test_probabilities_again(toy: Place, clone: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "bundle" / "inputs"
    shutil.copytree(toy.work / "toy" / "train", inputs / "weights" / "models")
    write_json(inputs / "code" / "bundle.json", {"attached": {}})
    options = Options(level=3, data=toy.data, bundle=tmp_path / "bundle")
    text, code = verify(clone, options)
    assert code == 0 and "The claim holds up to level 3." in text, text
    assert "6 test images, 5 tiles" in text and "not checked" not in text
    (weights,) = (inputs / "weights" / "models").glob("*/fold1.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    text, code = verify(clone, options)
    assert code == 1 and "fold1.safetensors is another file" in failures(text)


def test_level_3_finds_a_test_probability_that_was_forged_with_all_that_follows(
    toy: Place, clone: Path, tmp_path: Path
) -> None:
    nicer_test(clone)
    remade(clone, toy.data, tmp_path / "forger")
    assert verify(clone, Options(level=2, data=toy.data))[1] == 0  # nothing says what a model would say
    text, code = verify(clone, Options(level=3, data=toy.data, work=toy.work))
    assert code == 1 and "test probabilities: 1 of 15 rows differ" in failures(text)
    assert "image '000' by test_efficientnet" in failures(text)


def test_level_3_says_what_it_lacks(toy: Place, clone: Path) -> None:
    text, code = verify(clone, Options(level=3, data=toy.data))
    assert code == 2 and "The claim holds up to level 2; level 3 (re-infer) cannot be checked" in text
    assert "--bundle DIR" in text
    text, code = verify(clone, Options(level=3, work=toy.work))
    assert code == 2 and "--data DIR" in text


@pytest.mark.slow
def test_other_images_are_named(toy: Place, clone: Path, tmp_path: Path) -> None:
    data = shutil.copytree(toy.data, tmp_path / "data")
    shutil.copyfile(data / "test" / "001.png", data / "test" / "000.png")
    text, code = verify(clone, Options(level=3, data=data, work=toy.work))
    assert code == 1 and "images: they are not those of the manifest" in failures(text)
    assert "test probabilities: 3 of 15 rows differ" in failures(text)


@pytest.mark.slow
def test_level_4_trains_the_same_weights_again(
    toy: Place, clone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(toy.work, tmp_path / "work")
    with caplog.at_level("INFO", "kit"):
        text, code = verify(clone, Options(level=4, data=toy.data, work=tmp_path / "work"))
    assert code == 0 and "The claim holds up to level 4." in text, text
    assert "3 files, trained again to the same bytes" in text
    assert any("seconds there; it starts now" in line for line in caplog.messages)


@pytest.mark.slow
def test_a_demo_is_verified_by_somebody_who_has_nothing_but_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, stranger = tmp_path / "maker", tmp_path / "stranger"
    maker.mkdir()
    monkeypatch.chdir(maker)
    small = ["demo.patients=24", "demo.test_patients=6", "demo.largest=0", "fold.k=3", "tile.count=4"]
    small += ["tune.trials=1", "tune.inner=1", "train.epochs=3", "train.finetune_epochs=1"]
    run_flow(["strip-ai", "--threads", "1", "--workers", "2", "--set", *small])
    (made,) = (maker / "submissions" / "strip-ai-demo").iterdir()
    folder = shutil.copytree(made, stranger / made.name)
    monkeypatch.chdir(stranger)
    text, code = verify(folder, Options(level=4, work=maker / "work"))
    assert code == 0 and "The claim holds up to level 4." in text, text
    assert "not checked" not in text and "FAILED" not in text
