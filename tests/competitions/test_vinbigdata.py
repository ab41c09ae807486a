"""The declaration of VinBigData, on tables as shipped and as people keep them."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import pytest

from kit.boxes import has_box
from kit.competition import find
from kit.errors import DataError

TASK = find("vinbigdata")
HEAD = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
NORMAL = "".join(f"5e1,No finding,14,R{n},,,,\n" for n in (1, 2, 3))
ABNORMAL = "007,Cardiomegaly,3,R8,691.0,1375.0,1653.0,1831.0\n007,ILD,5,R9,1,2,3,4\n"


def write(folder: Path, text: str = HEAD + NORMAL + ABNORMAL) -> Path:
    (folder / "train.csv").write_text(text)
    return folder


def test_an_image_is_one_row_and_normal_where_every_reader_found_nothing(tmp_path: Path) -> None:
    tables = TASK.tables(write(tmp_path))
    assert tables.train["label"].to_dict() == {"007": "abnormal", "5e1": "normal"}
    assert tables.train.loc["007", "path"] == str(tmp_path / "train" / "007.dicom")
    assert tables.test is None and tables.sample is None


def test_one_reader_with_a_finding_makes_an_image_abnormal_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixed = "both,No finding,14,R1,,,,\nboth,No finding,14,R2,,,,\nboth,ILD,5,R3,1,2,3,4\n"
    with caplog.at_level(logging.WARNING, logger="kit"):
        tables = TASK.tables(write(tmp_path, HEAD + NORMAL + mixed))
    assert tables.train.loc["both", "label"] == "abnormal"
    assert "1 images are normal to some readers only" in caplog.text


def test_the_test_images_are_those_of_the_sample_submission(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "sample_submission.csv").write_text(
        "image_id,PredictionString\n000,14 1 0 0 1 1\n1e5,14 1 0 0 1 1\n"
    )
    test = TASK.tables(tmp_path).test
    assert test is not None and test.index.tolist() == ["000", "1e5"]


@pytest.mark.parametrize("name", ["train.csv.gz", "vinbigdata-train.csv.gz"])
def test_a_table_that_is_kept_packed_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress((HEAD + NORMAL + ABNORMAL).encode()))
    assert len(TASK.tables(tmp_path).train) == 2
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])
    with pytest.raises(DataError, match="cannot be unpacked"):
        TASK.tables(tmp_path)


def test_findings_have_the_sizes_of_whichever_file_is_there(tmp_path: Path) -> None:
    assert TASK.boxes is not None
    found = TASK.boxes(write(tmp_path))
    assert has_box(found).tolist() == [False] * 3 + [True] * 2 and "width" not in found
    (tmp_path / "train_meta.csv").write_text("image_id,dim0,dim1\n007,2580,2332\n")
    found = TASK.boxes(tmp_path)
    assert found["height"].tolist()[3:] == [2580, 2580] and found["width"].tolist()[3:] == [2332, 2332]
    (tmp_path / "train_meta.csv").unlink()
    (tmp_path / "sizes.csv").write_text("image_id,split,height,width\n007,train,2580,2332\n")
    assert TASK.boxes(tmp_path)["width"].tolist()[3:] == [2332, 2332]


def test_a_rule_that_is_broken_is_named_as_the_file_names_it(tmp_path: Path) -> None:
    assert TASK.boxes is not None
    with pytest.raises(DataError, match=r"train.csv: .*\n.*line 2: .*'ILD' and 'No finding'"):
        TASK.boxes(write(tmp_path, HEAD + "a,ILD,5,R1,1,2,3,4\na,No finding,14,R1,,,,\n"))


def test_a_misspelt_word_for_nothing_is_refused_by_what_every_stage_reads(tmp_path: Path) -> None:
    text = HEAD + NORMAL.replace("No finding,14,R2", "No Finding,14,R2") + ABNORMAL
    with pytest.raises(DataError, match=r"train.csv: .*\n.*line 3: .*'No Finding' has no box"):
        TASK.tables(write(tmp_path, text))


def test_sizes_in_the_table_itself_are_taken(tmp_path: Path) -> None:
    assert TASK.boxes is not None
    rows = [line + ",2332,2580" for line in (NORMAL + ABNORMAL).splitlines()]
    write(tmp_path, "\n".join([HEAD.strip() + ",width,height", *rows]))
    (tmp_path / "sizes.csv").write_text("image_id,split,height,width\n007,train,1,1\n")
    found = TASK.boxes(tmp_path)
    assert set(found["width"]) == {2332} and set(found["height"]) == {2580}
