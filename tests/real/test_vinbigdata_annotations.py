"""The official annotations of VinBigData: every number that is known of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import pytest

from kit.combine import annotations
from kit.commands import COMMANDS
from kit.competition import find
from kit.state import Run

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "vinbigdata"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the competition's annotations are not in ../shared/data/vinbigdata"
)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command says of them, and where its tables are."""
    work = tmp_path_factory.mktemp("work")
    parser = argparse.ArgumentParser()
    COMMANDS["annotations"].options(parser)
    run = Run(find("vinbigdata"), "vinbigdata", DATA, work)
    text, code = annotations.run(run, parser.parse_args([]))
    assert code == 0
    return text, run.folder("annotations")


def test_rows_images_readers_and_classes_are_as_published(said: tuple[str, Path]) -> None:
    text, _ = said
    assert "67,914 rows of 17 readers on 15,000 images, 3 readers an image" in text
    assert "36,096 boxes of 14 findings; 31,818 rows of 'No finding'" in text
    assert "4,394 abnormal (29.3%), 10,606 normal (70.7%)" in text
    assert "readers who say 'No finding': 0 on 4,394 images, 3 on 10,606 images" in text
    assert "no image is nothing to some readers and something to others" in text


def test_three_readers_did_most_and_six_never_drew(said: tuple[str, Path]) -> None:
    text, folder = said
    assert "R9, R10 and R8 made 60.7% of the rows and 95.5% of the boxes" in text
    assert "6 of the other 14 readers never drew a box: R1, R3, R4, R5, R6 and R7" in text
    assert json.loads((folder / "annotations.json").read_text())["readers"]["R2"]["boxes"] == 3


def test_labels_and_agreement_are_as_counted_before(said: tuple[str, Path]) -> None:
    text, folder = said
    assert "15,365 by 1 or more, 8,825 by 2 or more, 5,266 by 3 or more" in text
    assert "Fleiss' kappa of the findings: 0.36 to 0.79" in text
    table = pd.read_csv(folder / "agreement.csv", index_col="finding")
    assert table["any"].drop("No finding").sum() == 15365
    assert (
        table["kappa"].drop("No finding").idxmax() == "Cardiomegaly" and table.loc["No finding", "kappa"] == 1
    )


def test_shortcuts_tell_as_much_as_is_known_of_them(said: tuple[str, Path]) -> None:
    rows = {row["name"]: row for row in json.loads((said[1] / "annotations.json").read_text())["shortcuts"]}
    size, readers = rows["exact size"], rows["who read it"]
    assert size["auc"] == pytest.approx(0.806, abs=0.002) and size["score"] == pytest.approx(0.441, abs=0.001)
    assert readers["auc"] == pytest.approx(0.924, abs=0.002)
    assert readers["score"] == pytest.approx(0.268, abs=0.001)
    assert size["low"] < 0.441 < size["high"] and size["auc_low"] < 0.806 < size["auc_high"]
    assert rows["width and height"]["auc"] < 0.6  # two numbers hide what a category shows


def test_classification_is_that_of_the_notebook(said: tuple[str, Path]) -> None:
    lines = (said[1] / "classification.csv").read_text().splitlines()
    assert lines[:4] == [
        "target,img_path",
        "1,../input/vinbigdata/train/000434271f63a053c4128a0ba6352c7f.png",
        "1,../input/vinbigdata/train/00053190460d56c53cc3e57321387478.png",
        "0,../input/vinbigdata/train/0005e8e3701dfb1dd93d53e2ff537b6e.png",
    ]
    assert len(lines) == 15001 and sum(line.startswith("1,") for line in lines) == 10606


def test_boxes_are_those_that_the_notebook_prints(said: tuple[str, Path]) -> None:
    table = pd.read_csv(said[1] / "boxes.csv")
    assert len(table) == 67914
    one = table[(table["image_id"] == "7c1add6833d5f0102b0d3619a1682a64") & (table["reader"] == "R10")]
    row = one.set_index("finding").loc["Lung Opacity"]
    expected = [0.203804, 0.441938, 0.306726, 0.505309, 0.255265, 0.473623, 0.102921, 0.063371, 0.006522]
    assert row.iloc[-9:].tolist() == pytest.approx(expected, abs=5e-7)
    assert (row["width"], row["height"]) == (2944, 3014)


def test_every_image_has_a_consensus_and_metadata(said: tuple[str, Path]) -> None:
    together, meta = (pd.read_csv(said[1] / f"{name}.csv") for name in ("consensus", "meta"))
    assert together["image_id"].nunique() == len(meta) == 15000
    assert (together["finding"] == "No finding").sum() == 10606
    assert 16000 < together["x_min"].notna().sum() < 36096
    readers = meta[[f"R{n}" for n in range(1, 18)]]
    assert (readers.sum(axis=1) == 3).all() and meta["size"].nunique() == 40
