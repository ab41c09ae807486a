"""``kit explore`` on the competition's own tables: every count that is known, from the page's own data.

The sizes are those of a table that is up to 3 px above the truth, a multiple of four; what is expected is the
truth, as a notebook printed it that had the images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.__main__ import main

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "strip-ai"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the competition's tables are not in ../shared/data/strip-ai"
)
NEAR = 3.0  # px
WIDTH = {"mean": 22988.594164, "min": 4417, "q1": 13215.25, "median": 18700, "q3": 26376.75, "max": 99699}
HEIGHT = {"mean": 37622.196286, "min": 4470, "q1": 25402.5, "median": 34981.5, "q3": 48919.75, "max": 118076}
CENTERS = {
    "1": (44, 10), "2": (26, 3), "3": (22, 27), "4": (88, 26), "5": (29, 9), "6": (24, 14), "7": (70, 29),
    "8": (14, 2), "9": (14, 2), "10": (37, 7), "11": (179, 78),
}  # fmt: skip
NUMBERS = {"0": (457, 175), "1": (66, 23), "2": (15, 6), "3": (6, 2), "4": (3, 1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the command wrote page and tables."""
    out = tmp_path_factory.mktemp("explore")
    files = [str(DATA / "slide_sizes_train.csv"), str(DATA / "slide_sizes_other.csv")]
    words = ["explore", "strip-ai", "--data", str(DATA), "--sizes", *files, "--images", "0"]
    assert main([*words, "--out", str(out), "--work", str(out / "work")]) == 0
    return out


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, Any]:
    """The page's own data."""
    html = (folder / "explore.html").read_text()
    assert len(html) < 10e6
    (text,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', html, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def test_rows_columns_kinds_and_what_is_missing(facts: dict[str, Any]) -> None:
    table = facts["table"]
    assert (table["rows"], table["columns"], table["missing"], table["equal_rows"]) == (754, 5, 0, 0)
    assert {name: one["kind"] for name, one in table["column"].items()} == {
        "image_id": "identifier",
        "center_id": "nominal",
        "patient_id": "identifier",
        "image_num": "discrete number",
        "label": "nominal",
    }
    assert table["images_of_all_tables"] == 754 + 4 + 396


def test_ids_that_look_like_numbers(facts: dict[str, Any]) -> None:
    ids = facts["table"]["ids"]["patient_id"]
    assert (ids["digits"], ids["floats"]) == (37, 11) and ids["zeros"] > 0


def test_labels_of_images_and_patients(facts: dict[str, Any]) -> None:
    labels = facts["labels"]
    assert labels["images"] == {"CE": 547, "LAA": 207} and labels["units"] == {"CE": 457, "LAA": 175}
    assert labels["shares"]["CE"] == pytest.approx(0.7255, abs=5e-5)


def test_patients_and_their_slides(facts: dict[str, Any]) -> None:
    units = facts["units"]
    assert (units["units"], units["groups"], units["sites"], units["most"]) == (632, 632, 11, 5)
    assert units["images_per_unit"] == {"1": 543, "2": 68, "3": 13, "4": 4, "5": 4}
    assert units["two_labels"] == units["two_sites"] == 0


@pytest.mark.parametrize(("column", "expected"), [("center_id", CENTERS), ("image_num", NUMBERS)])
def test_labels_by_center_and_by_image_number(
    column: str, expected: Mapping[str, tuple[int, int]], facts: dict[str, Any]
) -> None:
    found = facts["crosstabs"]["counts"][column]
    assert {value: (row["CE"], row["LAA"]) for value, row in found.items()} == expected


def test_frequent_values_of_every_column(facts: dict[str, Any], folder: Path) -> None:
    found = facts["frequencies"]
    centers = {"11": 257, "4": 114, "7": 99, "1": 54, "3": 49, "10": 44, "5": 38, "6": 38, "2": 29, "8": 16}
    assert dict(found["center_id"]) == centers
    assert found["image_num"] == [["0", 632], ["1", 89], ["2", 21], ["3", 8], ["4", 4]]
    assert found["label"] == [["CE", 547], ["LAA", 207]]
    assert [n for _, n in found["patient_id"]] == [5, 5, 5, 5, 4, 4, 4, 4, 3, 3]
    assert {name for name, n in found["patient_id"] if n > 3} == {
        "91b9d3", "56d177", "09644e", "3d10be", "a4c877", "f40c69", "4f6fb1", "5987c0",
    }  # fmt: skip
    assert [n for _, n in found["image_id"]] == [1] * 10
    whole = pd.read_csv(folder / "frequencies-values.csv", dtype={"value": str})
    patients = whole[whole["column"] == "patient_id"]
    assert len(patients) == 632 and "006388" in set(patients["value"])


def test_the_image_number_in_numbers(facts: dict[str, Any]) -> None:
    found = facts["numbers"]["image_num"]
    assert found["mean"] == pytest.approx(0.226790, abs=5e-7) and found["sd"] == pytest.approx(
        0.599046, abs=5e-7
    )
    assert round(100 * found["outlier_share"], 2) == 16.18 and found["outliers"] == 122
    assert [found[name] for name in ("count", "min", "q1", "median", "q3", "max", "iqr")] == [
        754,
        0,
        0,
        0,
        0,
        4,
        0,
    ]


@pytest.mark.parametrize(
    ("name", "expected", "sd", "iqr"),
    [("width", WIDTH, 15653.642619, 13161.5), ("height", HEIGHT, 18058.750676, 23517.25)],
)
def test_sizes_are_those_of_the_images_but_for_three_pixels(
    name: str, expected: Mapping[str, float], sd: float, iqr: float, facts: dict[str, Any]
) -> None:
    found = facts["sizes"][name]
    assert found["count"] == facts["sizes"]["known"] == 754 and facts["sizes"]["approximate"]
    for key, value in expected.items():
        assert value <= found[key] <= value + NEAR, key
    assert found["sd"] == pytest.approx(sd, abs=NEAR / 2) and found["iqr"] == pytest.approx(iqr, abs=NEAR)


def test_the_largest_image_and_the_pixels_of_all(facts: dict[str, Any]) -> None:
    largest = facts["sizes"]["largest"]
    assert largest["image_id"] == "6baf51_0"
    assert 0 <= largest["width"] - 48282 <= NEAR and 0 <= largest["height"] - 101406 <= NEAR
    assert facts["sizes"]["gigapixels"] == pytest.approx(682.7, abs=0.2)


def test_the_four_test_rows_are_copies_of_training_rows(facts: dict[str, Any]) -> None:
    found = facts["duplicates"]
    assert found["test"] == {"images": 4, "rows": 4, "units": 4, "siblings": 0}
    assert found["other"] == {"images": 0, "rows": 0, "units": 0, "siblings": 0} and found["rows"] == 0


def test_size_and_center_say_little_of_the_label_and_size_something_of_the_center(
    facts: dict[str, Any],
) -> None:
    shortcuts, sites = facts["shortcuts"], facts["sites"]
    assert shortcuts["constant"] == pytest.approx(0.6931, abs=5e-5) and shortcuts["units"] == 632
    size = shortcuts["scores"]["width and height"]
    assert 0.675 < size["score"] < 0.69 and 0.55 < size["auc"] < 0.65
    assert shortcuts["scores"]["center_id"]["low"] < 0.6931 < shortcuts["scores"]["center_id"]["high"]
    assert sites["majority"] == pytest.approx(257 / 754) and sites["sites"] == 11
    assert 0.34 < sites["accuracy"]["width and height"]["low"] < 0.53


def test_what_the_notebook_says_wrongly_is_corrected(facts: dict[str, Any]) -> None:
    rows = {(said, fact): (data, verdict) for said, fact, data, verdict in facts["claims"]["rows"]}
    wrong = {fact: data for (_, fact), (data, verdict) in rows.items() if verdict == "false"}
    assert facts["claims"]["unknown"] == 0
    assert {
        fact: wrong[fact] for fact in ("table.rows", "units.units", "units.most", "duplicates.test.images")
    } == {
        "table.rows": "754",
        "units.units": "632",
        "units.most": "5",
        "duplicates.test.images": "4",
    }
    assert wrong["crosstabs.counts.center_id.11.LAA"] == "78" and wrong["table.kinds.discrete number"] == "1"
    assert "shortcuts.scores.width and height.auc" in wrong
    true = {fact for (_, fact), (_, verdict) in rows.items() if verdict == "true"}
    assert {"labels.shares.CE", "numbers.image_num.outlier_share", "duplicates.rows"} <= true
