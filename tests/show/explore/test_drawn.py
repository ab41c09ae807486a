"""Charts of tables: few marks, nothing hidden, and something for every odd set of numbers."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from kit.show.explore import drawn


def marks(svg: str) -> int:
    return svg.count("<use ")


@pytest.mark.parametrize(
    "values", [[1.0], [5.0] * 9, [0.0, 1.0], [1.0, 1.0, 1.0, 1e9], [-3.0, 0.0, 1e-9], list(range(500))]
)
def test_any_numbers_have_a_histogram_and_a_box_plot(values: list[float]) -> None:
    found = np.array(values)
    svg = drawn.histogram("h", "label", found, "px")
    assert sum(map(int, re.findall(r": (\d+) images</title>", svg))) == len(values)
    assert "quartile" not in drawn.boxplots("b", "label", {"x": found, "none": np.zeros(0)}, "px")


def test_a_histogram_of_a_range_a_million_million_times_as_wide_as_its_middle_has_few_bins() -> None:
    svg = drawn.histogram("h", "label", np.array([*range(100), 1e14]), "px")
    assert len(re.findall(r"images</title>", svg)) == drawn.BINS[1]


def test_a_density_curve_is_drawn_where_there_are_three_values() -> None:
    draw = np.random.default_rng(0)
    plain = drawn.histogram("h", "label", np.array([1.0, 2.0]), "px")
    assert len(drawn.histogram("h", "label", draw.normal(size=300), "px")) > len(plain) + 2000


def test_many_outliers_are_few_marks() -> None:
    values = np.r_[np.zeros(100_000), np.linspace(1, 2, 20_000)]
    assert marks(drawn.boxplots("b", "label", {"x": values}, "px")) < 400


def test_a_cloud_of_many_images_shows_some_of_them_always_the_same() -> None:
    draw = np.random.default_rng(0)
    points = pd.DataFrame(draw.uniform(1, 9, (5000, 2)), columns=["width", "height"])
    points["label"] = draw.choice(["A", "B"], 5000)
    svg = drawn.scatter("s", "label", points, ["A", "B"], 0)
    assert 1900 < marks(svg) < 2100
    assert svg == drawn.scatter("s", "label", points, ["A", "B"], 0)


def test_every_part_of_a_stacked_bar_says_its_number() -> None:
    counts = pd.DataFrame({"A": [3, 0], "B": [1, 2]}, index=pd.Index(["x", "<y>"], name="site"))
    svg = drawn.stacked("s", "label", counts, "images")
    assert "<title>x: 3 of 4 images are A</title>" in svg
    assert "<title>&lt;y&gt;: 2 of 2 images are B</title>" in svg
    assert drawn.stacked("s", "label", counts, "images", shares=True) != svg


def test_classes_of_one_colour_differ_in_marker_and_hatch() -> None:
    looks = {(drawn.colour(k), drawn.MARKERS[k % len(drawn.MARKERS)]) for k in range(56)}
    assert len(looks) == 56
    assert len({(drawn.colour(k), drawn._hatch(k)) for k in range(32)}) == 32


def test_swatches_are_in_the_colours_of_the_slides_not_of_the_page() -> None:
    svg = drawn.swatches("s", "label", {"6": {"#c4d3c0": 0.75, "#ffffff": 0.25}})
    assert "fill: #c4d3c0" in svg and "<title>6: 75\xa0% #c4d3c0</title>" in svg
