"""``kit explore`` on the annotations of VinBigData and on the real cells: counts, repetitions, shortcuts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kit.__main__ import main

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``explored(name)``: the facts of the page about a competition's real data, made once."""
    made: dict[str, dict[str, Any]] = {}

    def facts(name: str) -> dict[str, Any]:
        if not (SHARED / name).is_dir():
            pytest.skip(f"the data are not in ../shared/data/{name}")
        if name not in made:
            out = tmp_path_factory.mktemp(name)
            words = ["--data", str(SHARED / name), "--out", str(out), "--work", str(out / "work")]
            assert main(["explore", name, *words, "--images", "1", "--map", "0"]) == 0
            html = (out / "explore.html").read_text()
            assert len(html) < 10e6
            (text,) = re.findall(
                r'<script type="application/json" id="facts">(.*?)</script>', html, re.DOTALL
            )
            made[name] = json.loads(text)
        return made[name]

    return facts


def test_radiographs_are_counted_and_their_size_and_readers_tell_the_label(explored: Any) -> None:
    facts = explored("vinbigdata")
    assert facts["labels"]["images"] == {"abnormal": 4394, "normal": 10606}
    assert facts["sizes"]["known"] == facts["table"]["rows"] == 15000
    scores = facts["shortcuts"]["scores"]
    size, readers = scores["exact size"], scores["who read it"]
    assert size["auc"] == pytest.approx(0.806, abs=0.002) and size["score"] == pytest.approx(0.441, abs=0.001)
    assert readers["auc"] == pytest.approx(0.924, abs=0.002)
    assert readers["score"] == pytest.approx(0.268, abs=0.001)
    assert scores["width and height"]["auc"] < 0.6


def test_blood_cells_are_counted_with_their_equal_files(explored: Any) -> None:
    facts = explored("blood-cells")
    assert facts["labels"]["images"] == {
        "basophil": 1218, "eosinophil": 3117, "erythroblast": 1551, "ig": 2895,
        "lymphocyte": 1214, "monocyte": 1420, "neutrophil": 3329, "platelet": 2348,
    }  # fmt: skip
    files = facts["duplicates"]["files"]
    assert (files["groups"], files["images"], files["conflicts"]) == (17, 34, 1)
    assert facts["sizes"]["known"] == 17092 and facts["units"]["groups"] == 17075


def test_smears_are_counted_with_their_equal_files(explored: Any) -> None:
    facts = explored("leukemia")
    assert facts["labels"]["images"] == {"Benign": 504, "Early": 985, "Pre": 963, "Pro": 804}
    files = facts["duplicates"]["files"]
    assert (files["groups"], files["images"], files["conflicts"]) == (40, 80, 0)
