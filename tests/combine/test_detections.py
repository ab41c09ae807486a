"""A sound submission of boxes is read as it is; an unsound one is refused by its first bad row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit import boxes
from kit.combine import detections
from kit.combine.detections import Rules, read, rules_of, strings
from kit.errors import DataError, SubmissionError

RULES = Rules(
    {0: "Nodule", 1: "ILD", 14: "No finding"},
    14,
    pd.DataFrame({"width": [1000.0], "height": [800.0]}, index=["a"]),
)
SOUND = {"a": "0 0.5 10 20 30.5 40 1 1e-05 0 0 1000 800", "006388": "14 1 0 0 1 1"}


def submission(path: Path, rows: dict[str, str], header: str = "image_id,PredictionString") -> Path:
    path.write_text("\n".join([header, *(f"{name},{text}" for name, text in rows.items())]) + "\n")
    return path


def test_a_sound_file_becomes_one_row_a_box_with_ids_as_text(tmp_path: Path) -> None:
    found = read(submission(tmp_path / "s.csv", SOUND), RULES, ["006388", "a"])
    assert found["image_id"].tolist() == ["a", "a", "006388"]
    assert found["class_id"].tolist() == [0, 1, 14]
    assert found["score"].tolist() == [0.5, 1e-5, 1.0]
    assert found[list(boxes.CORNERS)].to_numpy().tolist() == [
        [10, 20, 30.5, 40],
        [0, 0, 1000, 800],
        [0, 0, 1, 1],
    ]


def test_what_is_written_is_read_again_as_it_was(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    corners = draw.integers(0, 500, (50, 2)) + 0.125
    found = pd.DataFrame(
        np.hstack([corners, corners + draw.integers(1, 500, (50, 2))]), columns=boxes.CORNERS
    )
    found.insert(0, "image_id", np.repeat(["b", "c", "007"], [20, 20, 10]))
    found.insert(1, "class_id", draw.integers(0, 2, 50))
    found.insert(2, "score", draw.random(50).round(9) * 1e-3)
    detections.write(tmp_path / "s.csv", found)
    again = read(tmp_path / "s.csv", RULES)
    pd.testing.assert_frame_equal(again, found, check_dtype=False, atol=1e-12, rtol=0)
    assert "e" not in strings(found)["PredictionString"].str.cat()  # no exponents


def test_spaces_at_the_ends_and_doubled_are_harmless(tmp_path: Path) -> None:
    assert len(read(submission(tmp_path / "s.csv", {"a": " 14 1  0 0 1 1 "}), RULES)) == 1


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("", "its string is empty", "write 14 1 0 0 1 1"),
        ("   ", "its string is empty", "write 14 1 0 0 1 1"),
        ("0 .5 1 2 3", "5 values are no whole number of boxes", "for every box"),
        ("14 1 0 0 1 1 0 .5", "the last one has 2 of six, '0 .5'", "for every box"),
        ("0 nan 1 2 3 4", "value 2, 'nan', is no number", "leave the box out"),
        ("0 .5 1 2 inf 4", "value 5, 'inf', is no number", "leave the box out"),
        ("0 ٠.٥ 1 2 3 4", "value 2, '٠.٥', is no number", "plain ASCII"),
        ("0 0.5 1 2 3 4e", "value 6, '4e', is no number", "write numbers such as"),
        ("0 1_0 1 2 3 4", "value 2, '1_0', is no number", "write numbers such as"),
        ("0;.5;1;2;3;4", "value 1, '0;.5;1;2;3;4', is no number", "part values by spaces"),
        ("ILD 0.5 1 2 3 4", "value 1, 'ILD', is no number", "write the number of the class"),
        ("1.0 .5 1 2 3 4", "box 1 has the class '1.0'", "whole number"),
        ("-1 .5 1 2 3 4", "box 1 has the class '-1'", "whole number"),
        ("14 1 0 0 1 1 2 .5 1 2 3 4", "box 2, '2 .5 1 2 3 4', is of no class", "the classes are 0 to 14"),
        ("99999999999999999999 .5 1 2 3 4", "is of no class", "the classes are"),
        ("0 1.2 1 2 3 4", "has no confidence from 0 to 1", "divide percents"),
        ("0 -0.1 1 2 3 4", "has no confidence from 0 to 1", "divide percents"),
        ("14 1 0 0 100 100", "says 'No finding' with a box", "14 CONFIDENCE 0 0 1 1"),
        ("0 .5 30 2 3 4", "is upside down or has no area", "x_min y_min x_max y_max"),
        ("0 .5 3 2 3 4", "is upside down or has no area", "x_min y_min x_max y_max"),
        ("0 .5 -2 2 3 4", "begins left of or above the image", "clip it"),
        ("0 .5 1 2 1002 4", "reaches beyond the image", "original image, not of a resized one"),
        ("0 .5 1 2 3 802", "reaches beyond the image", "original image"),
        ("0 .5 1 2 3 1e999", "reaches beyond the image", "original image"),
    ],
)
def test_the_first_bad_box_is_named_with_its_line_and_the_fix(
    tmp_path: Path, text: str, said: str, hint: str
) -> None:
    path = submission(tmp_path / "s.csv", {"b": "14 1 0 0 1 1", "a": text, "c": "0 9 9 9 9 9"})
    with pytest.raises(SubmissionError) as caught:
        read(path, RULES)
    assert caught.value.message.startswith(f"{path} line 3: image_id 'a': ")
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_where_the_size_is_not_known_a_box_may_reach_anywhere_but_not_to_infinity(tmp_path: Path) -> None:
    assert len(read(submission(tmp_path / "s.csv", {"b": "0 .5 1 2 90000 4"}), RULES)) == 1
    with pytest.raises(SubmissionError, match="no finite box"):
        read(submission(tmp_path / "s.csv", {"b": "0 .5 1 2 1e999 4"}), RULES)


def test_clipping_cuts_boxes_at_the_edges_and_leaves_nothing_alone(tmp_path: Path) -> None:
    path = submission(tmp_path / "s.csv", {"a": "0 .5 -5 2 1200 900 14 .5 0 0 1 1"})
    found = read(path, RULES, clip=True)
    assert found[list(boxes.CORNERS)].to_numpy().tolist() == [[0, 2, 1000, 800], [0, 0, 1, 1]]
    beside = submission(tmp_path / "t.csv", {"a": "0 .5 1100 2 1200 900"})
    with pytest.raises(SubmissionError, match="wholly outside of its image"):
        read(beside, RULES, clip=True)


@pytest.mark.parametrize(
    ("rows", "expected", "said", "hint"),
    [
        ({"a": "14 1 0 0 1 1"}, ["a", "b"], "1 ids of the sample are missing, first 'b'", "give each a row"),
        ({"a": "14 1 0 0 1 1", "z": ""}, ["a"], "line 3: image_id 'z' is not in the sample", "take the ids"),
        ({"A": "14 1 0 0 1 1"}, ["a"], "image_id 'A' is not in the sample", "write 'a'"),
        ({"a.dicom": "14 1 0 0 1 1"}, ["a"], "is not in the sample", "without the ending"),
        ({" ": "14 1 0 0 1 1"}, None, "line 2: the image_id is empty", "its id"),
    ],
)
def test_ids_are_those_of_the_sample_once_each(
    tmp_path: Path, rows: dict[str, str], expected: list[str] | None, said: str, hint: str
) -> None:
    with pytest.raises(SubmissionError) as caught:
        read(submission(tmp_path / "s.csv", rows), RULES, expected)
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_a_repeated_id_is_named_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("image_id,PredictionString\na,14 1 0 0 1 1\nb,14 1 0 0 1 1\na,14 1 0 0 1 1\n")
    with pytest.raises(SubmissionError, match="line 4: image_id 'a' is already in line 2"):
        read(path, RULES)


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("ID,TARGET", "they must be image_id, PredictionString"),
        ("Image_ID,predictionstring", "upper and lower case"),
        (",image_id,PredictionString", "index=False"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, header: str, hint: str) -> None:
    cells = "0,a,14 1 0 0 1 1" if header.startswith(",") else "a,14 1 0 0 1 1"
    path = tmp_path / "s.csv"
    path.write_text(f"{header}\n{cells}\n")
    with pytest.raises(SubmissionError) as caught:
        read(path, RULES)
    assert hint in caught.value.hint


def test_a_file_that_is_no_table_or_has_no_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SubmissionError, match="not a readable CSV"):
        read(path, RULES)
    path.write_text("image_id,PredictionString\n")
    with pytest.raises(SubmissionError, match="has no row"):
        read(path, RULES)


def test_a_sample_gives_its_ids_and_a_table_of_other_columns_is_none(tmp_path: Path) -> None:
    assert detections.sample_ids(submission(tmp_path / "s.csv", SOUND)) == ["a", "006388"]
    other = tmp_path / "t.csv"
    other.write_text("patient_id,CE,LAA\nb,0.5,0.5\n")
    with pytest.raises(DataError, match="no sample of detections"):
        detections.sample_ids(other)


def test_the_rules_of_a_task_are_those_of_its_findings() -> None:
    nan = float("nan")
    table = pd.DataFrame(
        [
            ("a", "ILD", 5, "R1", 1.0, 2.0, 3.0, 4.0, 1000, 800),
            ("b", "No finding", 7, "R1", nan, nan, nan, nan, nan, nan),
        ],
        columns=["image_id", "finding", "class_id", "reader", *boxes.CORNERS, "width", "height"],
    )
    rules = rules_of(table)
    assert (rules.classes, rules.nothing, rules.empty) == ({5: "ILD", 7: "No finding"}, 7, "7 1 0 0 1 1")
    assert rules.sizes.loc["a"].tolist() == [1000, 800]
    assert "b" not in rules.sizes.index
    with pytest.raises(DataError, match="no image without a finding"):
        rules_of(table.iloc[:1])
