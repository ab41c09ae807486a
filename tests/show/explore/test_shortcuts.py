"""What gives the label or the site away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.files import write_text
from kit.metrics import WeightedLogLoss
from kit.show.explore import shortcuts, sites
from tests.show.explore.tables_made import cells, cohort, made, words


def scores(section: Any) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = section.facts["scores"]
    return found


def test_a_column_that_tells_the_label_beats_the_constant_and_noise_does_not(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    table = cohort(120) | {
        "dose": [k % 2 * 3 + round(draw.normal(), 3) for k in range(120)],
        "noise": np.round(draw.normal(size=120), 3).tolist(),
        "ward": ["w" if k % 2 else "v" for k in range(120)],
    }
    section = shortcuts.section(made(tmp_path, table))
    found = scores(section)
    assert section.facts["constant"] == pytest.approx(np.log(2))
    assert found["dose"]["gain_low"] > 0 > found["noise"]["gain_low"]
    assert found["dose"]["gain"] == pytest.approx(np.log(2) - found["dose"]["score"])
    assert found["dose"]["auc_low"] > 0.9 and found["ward"]["auc"] == 1
    assert found["ward"]["auc_low"] is None  # a perfect order has no spread to be told by
    assert "3 of 4 beat a constant" in words(section) and "everything together" in found


def test_the_number_of_images_of_a_unit_is_a_shortcut(tmp_path: Path) -> None:
    table = {"image_id": [f"i{k}" for k in range(90)], "p": [f"p{k % 60}" for k in range(90)],
             "label": ["A" if k % 60 < 30 else "B" for k in range(90)]}  # fmt: skip
    section = shortcuts.section(made(tmp_path, table, unit="p"))
    assert scores(section)["images of the unit"]["auc"] == 1 and section.facts["units"] == 60


def test_a_site_that_is_called_by_a_number_is_no_number(tmp_path: Path) -> None:
    table = cohort(90) | {
        "s": [k % 3 for k in range(90)],
        "label": ["B" if k % 3 == 1 else "A" for k in range(90)],
    }
    assert scores(shortcuts.section(made(tmp_path, table, site="s")))["s"]["auc"] == 1


def test_an_exact_size_is_a_category_where_sizes_repeat(tmp_path: Path) -> None:
    # The sizes of a class lie between those of the other, so that width and height as numbers say nothing.
    widths = [10 + 10 * (k % 4) for k in range(80)]
    table = cohort(80) | {"width": widths, "height": [50] * 80}
    table["label"] = ["A" if width in (10, 40) else "B" for width in widths]
    found = scores(shortcuts.section(made(tmp_path, table)))
    assert found["exact size"]["auc"] == 1 and found["width and height"]["auc"] < 0.7


@pytest.mark.parametrize("classes", [("A",), ("A", "B", "C")])
def test_where_a_class_has_too_few_groups_the_page_says_so(classes: tuple[str, ...], tmp_path: Path) -> None:
    section = shortcuts.section(made(tmp_path, cohort(4, classes), classes=(*classes, "Z")))
    assert "cannot be scored: class" in words(section) and "and 2 are needed" in str(section.facts["reason"])


def test_what_is_not_scored_is_not_scored_together_with_others_either(tmp_path: Path) -> None:
    table = cohort(100) | {"width": [9] * 100, "height": [9] * 100}
    table["note"] = [f"{k // 2}th" for k in range(100)]
    section = shortcuts.section(made(tmp_path, table))
    assert scores(section) == {} and "could tell their labels" in words(section)
    assert {"width and height", "note"} <= set(section.facts["absent"])  # type: ignore[arg-type]


def test_an_auc_of_several_units_a_group_has_an_interval_too(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    table = cohort(80) | {"x": np.round(draw.normal(size=80), 3).tolist(), "g": [k // 2 for k in range(80)]}
    row = scores(shortcuts.section(made(tmp_path, table, group="g")))["x"]
    assert row["auc_low"] < row["auc"] < row["auc_high"]


def test_what_the_auc_means_is_said_where_it_is_not_plain(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    table = cohort(60, "ABC") | {"x": np.round(draw.normal(size=60), 3).tolist()}
    section = shortcuts.section(made(tmp_path, table, classes=("A", "B", "C")))
    assert "mean over the classes of one against the rest" in words(section)
    assert ("An AUC below 0.5" in words(section)) == (scores(section)["x"]["auc"] < 0.5)


def test_the_best_that_is_named_is_one_that_beats_the_constant() -> None:
    lucky = {"score": 0.6, "auc": 0.6, "gain_low": -0.1}
    sure = {"score": 0.65, "auc": 0.7, "gain_low": 0.01}
    told = shortcuts._told({"lucky": lucky, "sure": sure}, 0.6931, "log loss")
    assert "1 of 2 beat a constant (0.6931): the best is sure with 0.6500" in told


def test_where_nothing_is_known_of_an_image_nothing_is_scored(tmp_path: Path) -> None:
    section = shortcuts.section(made(tmp_path, cohort()))
    assert scores(section) == {} and not section.files
    absent: Any = section.facts["absent"]
    assert set(absent) == {"width and height", "bytes of the file", "colours and tissue"}
    assert "type: python -m kit tile toy" in words(section)


def test_the_prior_of_the_metric_is_that_of_the_constant(tmp_path: Path) -> None:
    table = {"image_id": [f"i{k}" for k in range(40)], "label": ["B" if k % 4 else "A" for k in range(40)]}
    section = shortcuts.section(made(tmp_path, table, metric=WeightedLogLoss((0.5, 0.5))))
    assert section.facts["constant"] == pytest.approx(np.log(2))


# --- sites ----------------------------------------------------------------------------------------------


def sited(n: int = 90) -> dict[str, Any]:
    return cohort(n) | {"s": [k % 3 for k in range(n)]}


def tiled(folder: Path, colours: list[str]) -> None:
    """What stage `tile` writes, of white and of coloured glass."""
    head = "image_id,split,width,height,tissue,background,background_spread,status"
    rows = [f"i{k:03d},train,100,100,0.5,{colour},1,ok" for k, colour in enumerate(colours)]
    write_text(folder / "work" / "tile" / "images.csv", "\n".join([head, *rows]) + "\n")


def test_a_site_that_has_its_own_background_is_told(tmp_path: Path) -> None:
    glass = ["#ffffff", "#c4d3c0", "#ead8fe"]
    tiled(tmp_path, [glass[k % 3] for k in range(90)])
    section = sites.section(made(tmp_path, sited(), site="s"))
    assert section is not None
    found: Any = section.facts
    assert (
        found["majority"] == pytest.approx(1 / 3) and found["accuracy"]["background colour"]["accuracy"] == 1
    )
    assert found["backgrounds"] == {"0": {"#ffffff": 1}, "1": {"#c4d3c0": 1}, "2": {"#ead8fe": 1}}
    assert "is told by background colour alone in 100.0" in words(section)
    assert cells(section, "Background by site")[1] == ("1", "30", "1", "#c4d3c0 100\xa0%")


def test_backgrounds_that_are_nearly_equal_are_one(tmp_path: Path) -> None:
    tiled(tmp_path, ["#ffffff" if k % 2 else "#fafaff" for k in range(89)])
    section = sites.section(made(tmp_path, sited(), site="s"))
    assert section is not None
    rows = cells(section, "Background by site")
    assert [row[2] for row in rows] == ["1", "1", "1"] and rows[2][1] == "29"


def test_a_size_that_says_nothing_of_the_site_does_not_tell_it(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    table = sited() | {name: draw.integers(100, 900, 90).tolist() for name in ("width", "height")}
    section = sites.section(made(tmp_path, table, site="s"))
    assert section is not None and "told no better than by always" in words(section)
    assert "the colour of the background by site, type: python -m kit tile toy" in words(section)


def test_a_site_with_one_group_is_left_out_of_the_test(tmp_path: Path) -> None:
    table = sited(61) | {"width": list(range(1, 62)), "height": [9] * 61}
    table["s"] = [k % 2 for k in range(60)] + [7]
    section = sites.section(made(tmp_path, table, site="s"))
    assert section is not None and section.facts["images"] == 60 and "Left out: 1 image" in words(section)


def test_without_sites_there_is_no_section_and_without_numbers_it_says_what_to_type(tmp_path: Path) -> None:
    assert sites.section(made(tmp_path, cohort())) is None
    section = sites.section(made(tmp_path, sited(), site="s"))
    assert section is not None and "python -m kit tile toy" in words(section)
