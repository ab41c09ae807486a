"""``kit explore`` on the real cells and smears: what is known of their folders, from the page's own data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.__main__ import main
from kit.competition import find
from kit.files import read_strings, write_table

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not (DATA / "blood-cells").is_dir(), reason="the real cells are not in ../shared/data"
)
CELLS = {
    "basophil": 1218, "eosinophil": 3117, "erythroblast": 1551, "ig": 2895, "lymphocyte": 1214,
    "monocyte": 1420, "neutrophil": 3329, "platelet": 2348,
}  # fmt: skip
SMEARS = {"Benign": 504, "Early": 985, "Pre": 963, "Pro": 804}
Facts = dict[str, Any]


def explored(name: str, folder: Path) -> Facts:
    """The facts of the page, with the sizes of the images as shipped: those at hand are smaller copies."""
    index = read_strings(DATA / name / "index.csv")
    ids = index["file"].str.removesuffix(".jpg")
    table = pd.DataFrame({"image_id": ids, "width": index["width"], "height": index["height"]})
    write_table(folder / "sizes.csv", table)
    words = ["--data", str(DATA / name), "--sizes", str(folder / "sizes.csv"), "--images", "3"]
    assert main(["explore", name, *words, "--out", str(folder), "--work", str(folder / "work")]) == 0
    html = (folder / "explore.html").read_text()
    assert len(html) < 10e6
    (text,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', html, re.DOTALL)
    facts: Facts = json.loads(text)
    return facts


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return explored("blood-cells", tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return explored("leukemia", tmp_path_factory.mktemp("smears"))


def not_so(facts: Facts) -> dict[str, tuple[str, str]]:
    """What the data say of the claims that are not true, and the verdict, by fact."""
    rows = facts["claims"]["rows"]
    return {fact: (data, verdict) for _, fact, data, verdict in rows if verdict != "true"}


def test_the_cells_are_17092_of_eight_kinds_with_17_groups_of_copies_and_one_conflict(cells: Facts) -> None:
    assert cells["folders"]["images"] == cells["sizes"]["known"] == 17092
    assert cells["labels"]["images"] == CELLS and cells["units"]["groups"] == 17075
    files = cells["duplicates"]["files"]
    assert (files["groups"], files["images"]) == (17, 34)
    assert files["conflicts"] == 1 and files["conflicting"] == ["BNE_191112", "EO_225902"]


def test_the_smears_are_3256_with_40_pairs_of_copies_all_of_them_pro(smears: Facts) -> None:
    assert smears["folders"]["images"] == 3256 and smears["labels"]["images"] == SMEARS
    files = smears["duplicates"]["files"]
    assert (files["groups"], files["images"]) == (40, 80)
    assert files["by_label"] == {"Pro": 40} and files["conflicts"] == 0


def test_the_published_counts_of_cells_hold_and_none_of_them_is_broken(cells: Facts) -> None:
    # 16,639 of them are 360 x 363, 250 are 366 px wide; the file that was left out is no image.
    assert not_so(cells) == {"folders.broken": ("0", "false"), "sizes.width.max": ("366", "false")}


def test_what_is_said_of_the_smears_holds_but_for_their_number_and_nobody_can_count_people(
    smears: Facts,
) -> None:
    assert not_so(smears) == {
        "folders.images": ("3,256", "false"),
        "folders.people": ("", "not computed here"),
    }


def test_nothing_that_is_known_of_smears_besides_the_picture_can_be_scored(smears: Facts) -> None:
    assert smears["shortcuts"]["scores"] == {}
    assert smears["shortcuts"]["absent"]["width and height"] == "the same for all units"


@pytest.mark.parametrize(("name", "fixture"), [("blood-cells", "cells"), ("leukemia", "smears")])
def test_every_kind_has_an_example_and_a_tile_is_shown_as_training_draws_it(
    name: str, fixture: str, request: pytest.FixtureRequest
) -> None:
    facts: Facts = request.getfixturevalue(fixture)
    task = find(name)
    assert list(facts["examples"]["images"]) == sorted(task.classes)
    assert facts["examples"]["shown"] == len(task.classes) and facts["first"]["shown"] == 3
    found = facts["preparation"]
    assert found["draws"] == 11
    assert (found["preset"], found["strength"]) == (task.training.preset, task.training.augment)
