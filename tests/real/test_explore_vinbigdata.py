"""``kit explore`` on the official annotations: every known number, from the page's own data."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kit.__main__ import main
from kit.competition import find
from kit.show.explore import annotated, examples, findings, geometry, glossary, preparation, tsne
from kit.show.explore.claims import checked
from kit.show.explore.command import gathered
from kit.show.explore.content import Data, Section
from kit.state import Run

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "vinbigdata"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the competition's annotations are not in ../shared/data/vinbigdata"
)
MAP = 700  # boxes
BOXED = {
    "Aortic enlargement": 7162, "Cardiomegaly": 5427, "Pleural thickening": 4842, "Pulmonary fibrosis": 4655,
    "Nodule/Mass": 2580, "Lung Opacity": 2483, "Pleural effusion": 2476, "Other lesion": 2203,
    "Infiltration": 1247, "ILD": 1000, "Calcification": 960, "Consolidation": 556, "Atelectasis": 279,
    "Pneumothorax": 226,
}  # fmt: skip
# As the notebook prints them: x_min, y_min, x_max, y_max, x_mid, y_mid, box_w, box_h, area.
PRINTED = (
    ("Lung Opacity", "R10", .203804, .441938, .306726, .505309, .255265, .473623, .102921, .063371, .006522),
    ("Pleural effusion", "R10",
     .121264, .259124, .449389, .803251, .285326, .531188, .328125, .544127, .178542),
    ("Lung Opacity", "R9", .198709, .429993, .343071, .530856, .270890, .480425, .144361, .100863, .014561),
    ("Pleural effusion", "R8",
     .130435, .270073, .452785, .788321, .291610, .529197, .322351, .518248, .167058),
    ("Pleural effusion", "R9",
     .095448, .245189, .421875, .756802, .258662, .500995, .326427, .511612, .167004),
    ("Consolidation", "R9", .198709, .429993, .343071, .530856, .270890, .480425, .144361, .100863, .014561),
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """What the command gathers of them."""
    run = Run(find("vinbigdata"), "vinbigdata", DATA, tmp_path_factory.mktemp("work"), workers=2)
    return gathered(run, argparse.Namespace(sizes=[], images=2, map=MAP))


@pytest.fixture(scope="module")
def section(data: Data) -> Section:
    """Who drew what."""
    found = findings.section(data)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def facts(section: Section) -> Mapping[str, Any]:
    return section.facts


@pytest.fixture(scope="module")
def drawn(data: Data) -> tuple[Section, float]:
    """The map of some boxes, and the seconds of a core that it took."""
    start = time.process_time()
    found = tsne.section(data)
    assert found is not None
    return found, time.process_time() - start


def test_the_page_counts_labels_and_says_that_size_and_readers_tell_them(tmp_path: Path) -> None:
    words = ["--data", str(DATA), "--out", str(tmp_path), "--work", str(tmp_path / "work"), "--map", "0"]
    assert main(["explore", "vinbigdata", *words, "--images", "1"]) == 0
    html = (tmp_path / "explore.html").read_text()
    assert len(html) < 10e6
    (text,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', html, re.DOTALL)
    facts: dict[str, Any] = json.loads(text)
    assert facts["labels"]["images"] == {"abnormal": 4394, "normal": 10606}
    assert facts["sizes"]["known"] == facts["table"]["rows"] == 15000
    scores = facts["shortcuts"]["scores"]
    size, readers = scores["exact size"], scores["who read it"]
    assert size["auc"] == pytest.approx(0.806, abs=0.002) and size["score"] == pytest.approx(0.441, abs=0.001)
    assert readers["auc"] == pytest.approx(0.924, abs=0.002)
    assert readers["score"] == pytest.approx(0.268, abs=0.001)
    assert scores["width and height"]["auc"] < 0.6


def test_rows_images_readers_and_classes(facts: Mapping[str, Any]) -> None:
    counted = ("rows", "images", "readers", "boxes", "classes", "findings")
    assert [facts[name] for name in counted] == [67914, 15000, 17, 36096, 15, 14]
    assert facts["fewest_readers_an_image"] == facts["most_readers_an_image"] == 3
    assert facts["class_names"] == sorted([*BOXED, "No finding"])
    assert facts["rows_by_class"] == {"No finding": 31818, **BOXED}
    assert list(facts["rows_by_class"]) == ["No finding", *BOXED]  # descending
    assert facts["boxes_by_class"] == {"No finding": 0, **BOXED}


def test_three_readers_did_most_six_never_drew_and_one_drew_three_boxes(facts: Mapping[str, Any]) -> None:
    assert list(facts["rows_by_reader"].items())[:3] == [("R9", 15708), ("R10", 13292), ("R8", 12198)]
    assert list(facts["rows_by_reader"].values()) == sorted(facts["rows_by_reader"].values(), reverse=True)
    assert facts["busiest"] == ["R9", "R10", "R8"] and facts["other_readers"] == 14
    assert round(facts["busiest_rows"], 3) == 0.607 and round(facts["busiest_boxes"], 3) == 0.955
    assert facts["never_drew"] == ["R1", "R3", "R4", "R5", "R6", "R7"] and facts["never_drew_count"] == 6
    assert facts["boxes_by_reader"]["R2"] == 3


def test_classes_by_readers_are_fifteen_by_seventeen_and_sum_to_all_rows(section: Section) -> None:
    table = section.files["classes-by-reader"].set_index("class")
    assert table.shape == (15, 17) and table.to_numpy().sum() == 67914
    assert table.sum(axis=1).to_dict() == section.facts["rows_by_class"]
    assert table.loc["No finding", "R1"] == table["R1"].sum() == 1995


def test_an_image_is_nothing_to_none_or_to_all_three(facts: Mapping[str, Any]) -> None:
    assert facts["images_by_nothing"] == {"0": 4394, "3": 10606} and facts["mixed"] == 0
    assert facts["nothing_share"] == pytest.approx(0.7071, abs=5e-5)


def test_labels_by_votes_and_kappa(facts: Mapping[str, Any]) -> None:
    assert facts["labels_by_votes"] == {"1": 15365, "2": 8825, "3": 5266}
    assert round(facts["kappa_least"], 2) == 0.36 and round(facts["kappa_most"], 2) == 0.79
    assert facts["kappa"]["No finding"] == 1


def test_the_first_rows_are_those_of_the_notebook(data: Data) -> None:
    head = annotated.joined(data).head(5)
    images = ["50a418190bc3fb1ef1633bf9678929b3"] * 3 + ["21a10246a5ec7af151081d0cd6d65dc9"] * 2
    assert head["image_id"].tolist() == images
    assert head["reader"].tolist() == ["R11", "R15", "R16", "R7", "R13"]
    assert (
        head["height"].tolist() == [2580] * 3 + [3159] * 2
        and head["width"].tolist() == [2332] * 3 + [2954] * 2
    )
    assert head["area"].isna().all()


def test_the_boxes_of_an_image_are_those_that_the_notebook_prints(data: Data) -> None:
    mine = annotated.of_image(annotated.joined(data), "7c1add6833d5f0102b0d3619a1682a64")
    assert mine.index.tolist() == list(range(72, 78))
    for (_, row), (finding, reader, *numbers) in zip(mine.iterrows(), PRINTED, strict=True):
        assert (row["finding"], row["reader"], row["width"], row["height"]) == (finding, reader, 2944, 3014)
        assert [row[part] for part in annotated.PARTS] == pytest.approx(numbers, abs=6e-7)


def test_the_image_with_the_most_boxes_has_57_of_them(data: Data) -> None:
    section = annotated.section(data)
    assert section is not None
    most = section.facts["most"]
    assert isinstance(most, dict) and (most["boxes"], most["readers"]) == (57, 3)


def test_every_box_is_within_its_image_and_every_class_has_a_place(data: Data) -> None:
    section = geometry.section(data)
    assert section is not None
    assert section.facts["boxes"] == section.facts["known"] == 36096 and section.facts["images"] == 4394
    table = section.files["by-class"].set_index("class")
    assert table["boxes"].to_dict() == BOXED
    shares = table.drop(columns="boxes")
    assert ((shares > 0) & (shares < 1)).all(axis=None)
    # The heart is a little left of the middle, which is to the right of the film, and wider than high.
    assert 0.5 < table.loc["Cardiomegaly", "x_mid_q50"] < 0.65
    assert table.loc["Cardiomegaly", "box_w_q50"] > 2 * table.loc["Cardiomegaly", "box_h_q50"]
    assert (
        table["area_q50"]
        .nsmallest(3)
        .index.isin(["Nodule/Mass", "Calcification", "Pleural thickening"])
        .any()
    )


def test_neighbours_on_the_map_are_alike_four_times_as_often_as_by_chance(
    drawn: tuple[Section, float],
) -> None:
    facts: Any = drawn[0].facts
    assert facts["boxes"] == MAP and facts["of"] == 36096
    assert 0.11 < facts["by_chance"] < 0.14 and 0.45 < facts["map"] < 0.6 and 0.45 < facts["doubled"] < 0.6
    assert facts["by_class"]["Cardiomegaly"] > 0.9 > 0.3 > facts["by_class"]["Lung Opacity"]


def test_the_maps_leave_time_for_the_rest_of_the_page(drawn: tuple[Section, float]) -> None:
    assert drawn[1] < 35


def test_what_the_notebook_says_is_held_against_the_annotations(
    data: Data, facts: Mapping[str, Any], drawn: tuple[Section, float]
) -> None:
    claims = data.run.competition.claims
    (section,) = checked(claims, {"findings": facts, "map": drawn[0].facts})
    table = section.files["all"].set_index("fact")
    assert table.index[table["verdict"] != "true"].tolist() == [
        "findings.busiest_rows",
        "findings.other_readers",
        "findings.never_drew_count",
        "map.map_times_chance",
    ]
    assert table.loc["findings.busiest_rows", "data"] == "0.6066"


def test_without_images_every_section_of_pictures_is_one_sentence(data: Data) -> None:
    for build in (examples.first, examples.by_class, preparation.section):
        section = build(data)
        assert section is not None and len(section.blocks) == 1 and "--data" in section.blocks[0].text  # type: ignore[union-attr]
    assert examples.largest(data) is None


def test_the_glossary_explains_every_class(data: Data, facts: Mapping[str, Any]) -> None:
    assert {word for word, _ in data.run.competition.glossary} == set(facts["class_names"])
    assert glossary.section(data) is not None


def test_real_radiographs_are_shown_upright_in_grey_and_light(tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to((DATA / "dicom").resolve())
    for file in DATA.glob("*.csv.gz"):
        (tmp_path / file.name).symlink_to(file.resolve())
    run = Run(find("vinbigdata"), "vinbigdata", tmp_path, tmp_path / "work")
    data = gathered(run, argparse.Namespace(sizes=[], images=2, map=0))
    section = examples.by_class(data)
    assert section is not None and section.facts["shown"] >= 1  # type: ignore[operator]
    gallery: Any = section.blocks[1]
    assert all(len(one.source) < 34_000 for one in gallery.pictures)
    way = preparation.section(data)
    assert way is not None
    captions = [one.caption for one in way.blocks[1].pictures]  # type: ignore[union-attr]
    assert captions[1:5] == ["1. padding: changes nothing here", "2. modality: changes nothing here",
                             "3. voi: changes nothing here", "4. invert"]  # fmt: skip
