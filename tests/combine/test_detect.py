"""The command checks, fuses, filters, scores and writes submissions of boxes, and says what it did."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit import boxes
from kit.boxes import CORNERS
from kit.combine import detect, detections
from kit.combine.detection_metric import truths_of
from kit.combine.two_class_filter import Choice, Filter
from kit.commands import COMMANDS
from kit.competition import Competition, Tables, find
from kit.demo import chest
from kit.errors import DataError, KitError, SettingError
from kit.metrics import LogLoss
from kit.state import Run

COUNT = 60
IMAGES = np.array([f"{n:04d}" for n in range(COUNT)], dtype=object)
ILL = np.arange(COUNT) % 3 == 0
NAN = float("nan")


def findings(data: Path) -> pd.DataFrame:
    """Two readers of each image; a third of the images has one finding of two kinds."""
    rows = []
    for n, image in enumerate(IMAGES):
        for reader in ("R1", "R2"):
            if ILL[n]:
                kind = n % 2
                rows.append((image, ("Mass", "ILD")[kind], kind, reader, 10 + (reader == "R2"), 10, 30, 30))
            else:
                rows.append((image, "No finding", 14, reader, NAN, NAN, NAN, NAN))
    return pd.DataFrame(rows, columns=["image_id", "finding", "class_id", "reader", *CORNERS])


def load(data: Path) -> Tables:
    train = pd.DataFrame({"image_id": IMAGES, "label": np.where(ILL, "ill", "well")}, dtype=object)
    return Tables(train, pd.DataFrame({"image_id": ["t1", "t2"]}, dtype=object))


def task(**others: object) -> Competition:
    return Competition(name="boxes", classes=("ill", "well"), metric=LogLoss(), load=load, **others)  # type: ignore[arg-type]


def seen(seed: int) -> pd.DataFrame:
    """What a detector sees: most findings, and as many that are not there."""
    draw = np.random.default_rng(seed)
    there, false = IMAGES[ILL & (draw.random(COUNT) < 0.8)], IMAGES[draw.random(COUNT) < 0.4]
    names = np.r_[there, false]
    corners = np.tile([10.0, 10, 30, 30], (len(names), 1)) + draw.integers(0, 3, (len(names), 4))
    found = pd.DataFrame(corners, columns=list(CORNERS))
    found.insert(0, "image_id", names)
    found.insert(1, "class_id", np.r_[[int(name) % 2 for name in there], draw.integers(0, 2, len(false))])
    found.insert(2, "score", draw.random(len(found)).round(3))
    empty = pd.DataFrame({"image_id": IMAGES[~np.isin(IMAGES, names)], "class_id": 14, "score": 1.0})
    dot = dict(zip(CORNERS, (0.0, 0.0, 1.0, 1.0), strict=True))
    return pd.concat([found, empty.assign(**dot)], ignore_index=True)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two submissions of training images, one of the test, and probabilities of all of them."""
    for seed, name in enumerate(("one", "two")):
        detections.write(tmp_path / f"{name}.csv", seen(seed))
    (tmp_path / "test.csv").write_text("image_id,PredictionString\nt1,0 0.5 1 1 9 9\nt2,14 1 0 0 1 1\n")
    p = np.where(ILL, 0.9, 0.2)
    oof = pd.DataFrame({"image_id": IMAGES, "p_ill": p, "p_well": 1 - p})
    oof.to_csv(tmp_path / "oof.csv", index=False)
    (tmp_path / "p.csv").write_text("image_id,net\nt1,0.25\nt2,0.75\n")
    return tmp_path


@pytest.fixture
def kit_detect(place: Path) -> Callable[..., tuple[str, int]]:
    """``kit_detect("one.csv", "--score", ...)``: files are those of the place."""

    def command(*words: str, competition: Competition | None = None) -> tuple[str, int]:
        parser = argparse.ArgumentParser()
        COMMANDS["detect"].options(parser)
        options = parser.parse_args([str(place / w) if ".csv" in w else w for w in words])
        made = competition or task(boxes=findings)
        return detect.run(Run(made, "boxes", place, place / "work"), options)  # type: ignore[arg-type]

    return command


def scores(place: Path) -> dict[str, float]:
    content = json.loads((place / "work" / "detect" / "metrics.json").read_text())
    return {row["name"]: row["score"] for row in content["rows"]}


def test_a_file_alone_is_checked(kit_detect: Callable[..., tuple[str, int]], place: Path) -> None:
    text, code = kit_detect("one.csv")
    assert (code, "one.csv: sound. 60 images" in text) == (0, True)
    (place / "one.csv").write_text("image_id,PredictionString\n0000,3 0.5 1 1 9 9\n")
    text, code = kit_detect("one.csv")
    assert code == 1
    assert "line 2: image_id '0000': box 1, '3 0.5 1 1 9 9', is of no class" in text
    assert "to mend it: the classes are 0 to 14" in text


def test_the_sample_says_which_images_there_must_be(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    assert kit_detect("test.csv", "--sample", "test.csv")[1] == 0
    text, code = kit_detect("one.csv", "--sample", "test.csv")
    assert (code, "is not in the sample" in text) == (1, True)


def test_before_and_after_are_scored_with_the_difference_in_words(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    text, code = kit_detect("one.csv", "two.csv", "--filter", "oof.csv", "--score")
    found = scores(place)
    assert code == 0
    assert list(found) == ["one", "two", "fused", "filtered"]
    assert found["filtered"] > found["fused"] > min(found["one"], found["two"])
    assert "filtered beats fused" in text
    assert "PASCAL VOC 2010" in text
    assert "nothing is written" in text
    assert "60 images" in text
    for name in ("Mass", "ILD", "No finding"):
        assert name in text


def test_a_file_that_is_called_filtered_is_not_taken_for_what_is_made_of_it(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    (place / "one.csv").rename(place / "filtered.csv")
    kit_detect("filtered.csv", "--filter", "oof.csv", "--score")
    assert list(scores(place)) == [str(place / "filtered.csv"), "filtered"]


def test_what_is_written_is_what_was_scored_last(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    words = ("--filter", "oof.csv", "--variant", "multiply", "--score", "--out", "out.csv")
    kit_detect("one.csv", "two.csv", *words)
    before = scores(place)["filtered"]
    kit_detect("out.csv", "--score")
    assert scores(place)["out"] == pytest.approx(before, abs=1e-9)


def test_a_test_submission_is_filtered_with_a_column_of_probabilities_that_there_is_nothing(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    kit_detect("test.csv", "--filter", "p.csv:net", "--variant", "append", "--out", "out.csv")
    assert (place / "out.csv").read_text().splitlines()[1:] == [
        "t1,0 0.5 1 1 9 9 14 0.25 0 0 1 1",
        "t2,14 0.75 0 0 1 1",
    ]


def test_a_column_with_the_name_of_the_first_class_is_of_the_first_class(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    written = []
    for name in ("oof.csv", "oof.csv:p_ill", "oof.csv:p_well"):
        kit_detect("one.csv", "--filter", name, "--out", "out.csv")
        written.append((place / "out.csv").read_text())
    assert written[0] == written[1] == written[2]


def test_images_without_a_probability_are_counted_left_alone_and_not_scored(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    oof = pd.read_csv(place / "oof.csv", dtype=str)
    oof[10:].to_csv(place / "oof.csv", index=False)
    text, _ = kit_detect("one.csv", "--filter", "oof.csv", "--score", "--out", "out.csv")
    assert "10 images have no probability, first '0000': they stay as they are, and are not scored" in text
    assert "50 images (higher is better)" in text
    before, after = (dict(pd.read_csv(place / f"{x}.csv", dtype=str).to_numpy()) for x in ("one", "out"))
    alike = [before[name] == after[name] for name in IMAGES]
    assert all(alike[:10]) and not any(alike[10:])
    oof[:10].to_csv(place / "holdout.csv", index=False)
    text, _ = kit_detect("one.csv", "--filter", "oof.csv", "holdout.csv", "--score")
    assert "no probability" not in text and "60 images (higher is better)" in text


def test_a_run_of_the_demo_with_held_out_and_unreadable_images_is_filtered(tmp_path: Path) -> None:
    data, work = tmp_path / "data", tmp_path / "work"
    chest.write_tables(data, 0, 60, 8)
    best = pd.read_csv(data / "posterior.csv").rename(
        columns={"abnormal": "p_abnormal", "normal": "p_normal"}
    )
    run = Run(find("vinbigdata"), "vinbigdata", data, work)
    images = list(run.tables.train.index)
    oof = (
        best[best["image_id"].isin(images[11:])].drop(columns="label").rename(columns={"image_id": "unit_id"})
    )
    oof.to_csv(tmp_path / "oof.csv", index=False)
    parser = argparse.ArgumentParser()
    COMMANDS["detect"].options(parser)
    words = [str(data / "detections_train_1.csv"), "--filter", str(tmp_path / "oof.csv"), "--score"]
    text, code = detect.run(run, parser.parse_args(words))
    assert code == 0 and "11 images have no probability" in text and "49 images" in text
    content = json.loads((work / "detect" / "metrics.json").read_text())
    before, after = (row["score"] for row in content["rows"])
    assert after > before + 0.05 and "scored nested" in text


def test_of_test_images_the_default_variant_multiplies(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    assert "multiply" in kit_detect("test.csv", "--filter", "p.csv:net")[0]
    assert "choose took" not in kit_detect("one.csv", "--filter", "oof.csv")[0]
    assert "choose took" in kit_detect("one.csv", "--filter", "oof.csv", "--score")[0]


def test_a_variant_is_chosen_on_training_images_and_scored_nested(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    text, _ = kit_detect("one.csv", "--filter", "oof.csv", "--variant", "choose", "--score")
    assert "choose took" in text
    assert "scored nested" in text
    assert scores(place)["filtered"] > scores(place)["one"]
    with pytest.raises(DataError, match="'t1' has no truth"):
        kit_detect("test.csv", "--filter", "p.csv:net", "--variant", "choose")


def test_of_a_chosen_variant_the_nested_table_is_scored_and_the_whole_one_written(
    kit_detect: Callable[..., tuple[str, int]], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perfect = truths_of(findings(place), list(IMAGES)).assign(score=1.0)
    plan = Filter("append")
    monkeypatch.setattr(detect.two_class_filter, "choose", lambda *_: Choice(plan, {0: plan}, perfect))
    words = ("--variant", "choose", "--score", "--truth", "readers", "--out", "out.csv")
    kit_detect("one.csv", "--filter", "oof.csv", *words)
    assert scores(place)["filtered"] == 1.0
    assert detections.read(place / "out.csv", detections.rules_of(findings(place)))["score"].min() < 1


def test_the_consensus_has_one_truth_for_what_two_readers_drew(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    text, _ = kit_detect("one.csv", "--score", "--truth", "readers")
    by_reader = scores(place)["one"]
    assert "truth: readers, every box that a reader drew" in text
    text, _ = kit_detect("one.csv", "--score")
    assert scores(place)["one"] > by_reader
    assert "truth: consensus, the readers' boxes of one finding, fused" in text
    assert "hidden truth is another: what five readers agreed upon" in text
    assert json.loads((place / "work" / "detect" / "metrics.json").read_text())["truth"] == "consensus"


def test_a_box_for_each_reader_gains_against_readers_and_nothing_against_their_consensus(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    for name, more in (("one", ""), ("two", " {0} .8 11 10 30 30")):
        ill = [f"{n % 2} .9 10 10 30 30" + more.format(n % 2) for n in range(COUNT)]
        table = pd.DataFrame({"image_id": IMAGES, "PredictionString": np.where(ILL, ill, "14 1 0 0 1 1")})
        table.to_csv(place / f"{name}.csv", index=False)
    kit_detect("one.csv", "two.csv", "--score")
    found = scores(place)
    assert found["two"] == found["one"] == 1.0
    kit_detect("one.csv", "two.csv", "--score", "--truth", "readers")
    found = scores(place)
    assert found["two"] > found["one"] + 0.1


def test_the_other_grader_is_called_not_the_official_metric(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    text, _ = kit_detect("one.csv", "--score", "--mle-bench")
    assert "NOT the official metric" in text
    content = json.loads((place / "work" / "detect" / "metrics.json").read_text())
    assert content["official"] is False and content["truth"] == "first reader"


def test_images_without_a_truth_are_counted_and_a_class_without_one_is_named(
    kit_detect: Callable[..., tuple[str, int]], place: Path
) -> None:
    rows = "\n".join(["image_id,PredictionString", "0003,1 0.5 10 10 30 30", "t1,14 1 0 0 1 1"])
    (place / "some.csv").write_text(rows + "\n")
    text, _ = kit_detect("some.csv", "--score")
    assert "1 images have no truth and are not scored" in text
    assert "no truth, so not in the mean: Mass, No finding" in text
    with pytest.raises(DataError, match="none of 2 images has a truth"):
        kit_detect("test.csv", "--score")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one.csv", "one.csv"], "given twice"),
        (["one.csv", "two.csv", "--votes", "1"], "1 numbers for 2 files"),
        (["one.csv", "--iou", "0.4"], "--iou says how to fuse, and there is one FILE"),
        (["one.csv", "--votes", "2"], "--votes says how to fuse"),
        (["one.csv", "--truth", "readers"], "nothing is scored"),
        (["one.csv", "--filter", "oof.csv", "oof.csv"], "names a FILE twice"),
        (
            ["one.csv", "--filter", "oof.csv", "--variant", "append", "--low", "0.1"],
            "of the variant threshold",
        ),
        (["one.csv", "--mle-bench"], "nothing is scored"),
        (["one.csv", "--variant", "append"], "says how to filter, and by nothing"),
        (["one.csv", "--score", "--mle-bench", "--truth", "consensus"], "first reader's boxes"),
        (["one.csv", "--low", "0.1"], "of the variant threshold"),
        (
            ["one.csv", "--filter", "oof.csv", "--variant", "threshold", "--low", "0.9", "--high", "0.1"],
            "thresholds of the filter",
        ),
        (["one.csv", "--filter", "no.csv"], "is not there"),
        (["one.csv", "--filter", "p.csv:net"], "no probability of 60 of 60 images"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    kit_detect: Callable[..., tuple[str, int]], words: list[str], said: str
) -> None:
    with pytest.raises(KitError, match=said):
        kit_detect(*words)


@pytest.mark.parametrize("text", ["0", "1", "1.5", "nan", "x"])
@pytest.mark.parametrize("name", ["detect", "annotations"])
def test_an_overlap_is_a_share_between_0_and_1(
    name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    COMMANDS[name].options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([*(["a.csv", "b.csv"] * (name == "detect")), "--iou", text])
    assert "--iou" in capsys.readouterr().err


def test_a_competition_without_boxes_is_refused(kit_detect: Callable[..., tuple[str, int]]) -> None:
    with pytest.raises(SettingError, match="has no table of findings"):
        kit_detect("one.csv", competition=task())


def test_the_findings_of_these_tests_keep_the_rules() -> None:
    assert len(boxes.check(findings(Path()))) == 2 * COUNT
