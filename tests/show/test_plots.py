"""Charts that belong in a page: its colours, its fonts, ids of their own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from kit.combine.reliability import reliability
from kit.show.diagnosis import Curve, roc
from kit.show.score_plots import Dot, curve, intervals, score_range
from kit.show.score_plots import reliability as reliability_chart


def dots_chart(name: str = "a", first: str = "resnet") -> str:
    dots = [Dot(first, 0.71, 0.65, 0.78), Dot("calibrated blend", 0.62, 0.58, 0.66, strong=True)]
    return intervals(name, "scores of two predictors", dots, 0.6931, 0.5)


def some_curve() -> Curve:
    found = roc(np.array([False, True, False, True]), np.array([0.1, 0.9, 0.6, 0.5]))
    assert found is not None
    return found


def all_charts() -> list[str]:
    hit = np.arange(40) % 3 == 0
    bins = reliability(np.linspace(0.1, 0.9, 40), hit, np.full(40, 1 / 40))
    return [dots_chart(), curve("b", "a curve", "AUC", some_curve()),
            reliability_chart("c", "bins", "P(x)", bins)]  # fmt: skip


@pytest.mark.parametrize("svg", all_charts(), ids=["intervals", "curve", "reliability"])
def test_every_colour_is_a_variable_of_the_page_so_that_dark_mode_works(svg: str) -> None:
    assert "var(--accent)" in svg
    assert not re.findall(r"#[0-9a-fA-F]{6}\b|\brgb\(", svg)


@pytest.mark.parametrize("svg", all_charts(), ids=["intervals", "curve", "reliability"])
def test_a_chart_is_well_formed_scales_and_says_what_it_shows(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert root.get("viewBox", "").startswith("0 0 ")
    assert root.get("width") is None


@pytest.mark.parametrize("svg", all_charts(), ids=["intervals", "curve", "reliability"])
def test_a_chart_names_no_network_address(svg: str) -> None:
    assert "http" not in svg
    assert "<style" not in svg  # it would apply to the whole page


def test_the_words_for_a_chart_are_escaped() -> None:
    words = 'best is <b> & "net"'
    svg = intervals("a", words, [Dot("net", 0.6)], 0.7, None)
    assert ElementTree.fromstring(svg).get("aria-label") == words


def test_the_same_chart_has_the_same_bytes() -> None:
    assert dots_chart() == dots_chart()


def test_two_charts_of_a_page_share_no_id_and_find_their_own_parts() -> None:
    first, second = dots_chart("a"), dots_chart("b")
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', first))
    assert used
    assert used <= ids[0]


def test_names_stay_text_whatever_they_contain() -> None:
    name = "m<b> $x$ & y_1 -- > 血"
    root = ElementTree.fromstring(dots_chart(first=name))
    assert name in [text.text for text in root.iter("text")]


def test_the_chosen_row_alone_is_bold() -> None:
    root = ElementTree.fromstring(dots_chart())
    bold = {text.text for text in root.iter("text") if "bold" in (text.get("style") or "")
            or "700" in (text.get("style") or "")}  # fmt: skip
    assert bold == {"calibrated blend", "0.6200"}


def test_the_constant_and_the_limit_are_labelled_with_their_scores() -> None:
    texts = [text.text for text in ElementTree.fromstring(dots_chart()).iter("text")]
    assert "constant 0.6931" in texts
    assert "limit 0.5000" in texts


def test_one_terrible_model_does_not_flatten_the_others() -> None:
    good = Dot("good", 0.6, 0.55, 0.65)
    low, high = score_range([good, Dot("terrible", 9.0, 8.0, 10.0)], 0.7, None)
    assert low < 0.55
    assert high < 1.5


def test_a_constant_alone_still_has_an_axis() -> None:
    low, high = score_range([Dot("m", 0.7)], 0.7, None)
    assert low < 0.7 < high
