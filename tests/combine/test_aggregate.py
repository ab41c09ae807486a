"""Bringing probabilities together: clipped logits, units from images, models from each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.combine.pools import CLIP, UnitLogits, blend, to_logits, unit_logits

AB = ("a", "b")


def units_of(values: dict[str, list[float]], units: dict[str, str] | None = None) -> UnitLogits:
    """Unit logits from P(b) of images; several values of an image are its folds."""
    rows = [(image, 1 - p, p) for image, mine in values.items() for p in mine]
    names = pd.Series({image: (units or {}).get(image, image) for image in values})
    index = [image for image, *_ in rows]
    return unit_logits(np.array([[q, p] for _, q, p in rows]), names.loc[index], AB)


def apart(found: UnitLogits) -> dict[str, float]:
    """The logit of b against a, by unit."""
    return (found.logits["b"] - found.logits["a"]).to_dict()


def test_a_logit_is_the_log_of_the_odds_whatever_the_rows_sum() -> None:
    draw = np.random.default_rng(0).uniform(0.05, 1, (50, 3))
    found = to_logits(draw)
    np.testing.assert_allclose(found[:, 0] - found[:, 2], np.log(draw[:, 0] / draw[:, 2]))
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(to_logits(draw * 7), found, atol=1e-12)


@pytest.mark.parametrize("p", [0.0, 1e-300, 1e-15, 1e-4])
def test_an_overconfident_probability_is_clipped_to_six(p: float) -> None:
    found = to_logits(np.array([[1 - p, p]]))[0]
    assert found[0] - found[1] == pytest.approx(CLIP) and CLIP == 6.0


def test_a_clip_leaves_what_is_inside_it_and_the_order_of_three_classes() -> None:
    np.testing.assert_allclose(np.ptp(to_logits(np.array([[0.99, 0.01]]))), np.log(99))
    found = to_logits(np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0]]))
    np.testing.assert_allclose(found[0], [4, -2, -2])
    assert found[1, 0] - found[1, 2] == pytest.approx(6) and found[1, 1] - found[1, 2] > 3


def test_a_unit_is_the_mean_logit_of_its_images() -> None:
    found = units_of({"i1": [0.9], "i2": [0.6], "j": [0.2]}, {"i1": "u", "i2": "u", "j": "v"})
    expected = (np.log(9) + np.log(1.5)) / 2
    assert apart(found) == pytest.approx({"u": expected, "v": np.log(0.25)})
    assert found.plain["b"].to_dict() == pytest.approx({"u": 0.75, "v": 0.2})
    assert found.images.to_dict() == {"u": 2, "v": 1}


def test_folds_of_an_image_are_averaged_before_the_images_of_a_unit() -> None:
    """An image that four folds predicted counts no more than one that a single model did."""
    found = units_of({"i1": [0.9, 0.9, 0.8, 0.7], "i2": [0.3]}, {"i1": "u", "i2": "u"})
    first = np.mean([np.log(9), np.log(9), np.log(4), np.log(7 / 3)])
    assert apart(found) == pytest.approx({"u": (first + np.log(3 / 7)) / 2})
    assert found.plain.loc["u", "b"] == pytest.approx((0.825 + 0.3) / 2)
    assert found.images["u"] == 2


def test_the_plain_mean_is_of_normalised_rows_and_is_not_clipped() -> None:
    found = unit_logits(np.array([[3.0, 1.0], [1.0, 0.0]]), pd.Series(["u", "v"], ["i", "j"]), AB)
    assert found.plain.loc["u", "b"] == pytest.approx(0.25) and found.plain.loc["v", "b"] < 1e-14


@pytest.mark.parametrize(
    ("images", "icc", "expected"),
    [(1, 0.44, 1), (2, 0.44, 2 / 1.44), (3, 0.0, 3), (5, 1.0, 1), (4, 0.5, 1.6)],
)
def test_correlated_images_say_less_by_kishs_design_effect(images: int, icc: float, expected: float) -> None:
    table = pd.DataFrame([[0.0, 0.0]], ["u"], AB)
    assert UnitLogits(table, table, pd.Series([images], ["u"])).n_eff(icc).tolist() == [
        pytest.approx(expected)
    ]


def test_a_blend_is_the_mean_logit_on_the_units_that_all_models_cover() -> None:
    first = units_of({"w": [0.5], "u": [0.9], "v": [0.2]})
    second = units_of({"v": [0.6], "x": [0.1], "u": [0.5]})
    found = blend([first, second])
    assert list(found.logits.index) == ["u", "v"] == list(found.plain.index) == list(found.images.index)
    expected = {"u": np.log(9) / 2, "v": (np.log(0.25) + np.log(1.5)) / 2}
    assert apart(found) == pytest.approx(expected)
    assert found.plain["b"].to_dict() == pytest.approx({"u": 0.7, "v": 0.4})
    turned = blend([second, first])
    pd.testing.assert_frame_equal(turned.logits, found.logits)


def test_a_blend_of_one_is_the_model_itself() -> None:
    model = units_of({"u": [0.9], "v": [0.2]})
    pd.testing.assert_frame_equal(blend([model]).logits, model.logits)


def test_a_unit_has_as_many_images_as_the_model_that_read_most() -> None:
    both = units_of({"i": [0.9], "j": [0.8]}, {"i": "u", "j": "u"})
    one = units_of({"i": [0.9]}, {"i": "u"})
    assert blend([one, both]).images.to_dict() == {"u": 2}


def test_units_are_taken_in_the_order_asked_for() -> None:
    model = units_of({"u": [0.9], "v": [0.2], "w": [0.5]})
    found = model.on(pd.Index(["w", "u"]))
    assert list(found.logits.index) == ["w", "u"] == list(found.plain.index) == list(found.images.index)
