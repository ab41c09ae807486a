"""Bringing probabilities together: clipped logits, units from images, models from each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.combine.aggregate import (
    UnitLogits,
    covered,
    effective_number,
    plain_mean,
    side_by_side,
    unit_logits,
)

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
    assert effective_number(pd.Series([images], ["u"]), icc).tolist() == [pytest.approx(expected)]


def test_models_stand_side_by_side_on_the_units_that_all_cover() -> None:
    models = {
        "first": units_of({"w": [0.5], "u": [0.9], "v": [0.2]}),
        "second": units_of({"v": [0.6], "x": [0.1], "u": [0.5]}),
    }
    units = covered(models)
    assert list(units) == ["u", "v"]
    X = side_by_side(models, units, {name: [0.0, 0.0] for name in models}, 0.44)
    np.testing.assert_allclose(X[:, :, 1], [[0.9, 0.5], [0.2, 0.6]])
    np.testing.assert_allclose(X.sum(axis=2), 1)
    np.testing.assert_allclose(plain_mean(models, units)[:, 1], [0.7, 0.4])


def test_several_images_move_a_unit_further_from_the_average_one() -> None:
    model = units_of({"i": [0.9], "j": [0.9], "k": [0.9]}, {"i": "u", "j": "u", "k": "v"})
    average = [0.5, -0.5]
    X = side_by_side({"m": model}, pd.Index(["u", "v"]), {"m": average}, 0.44)
    logits = np.log(X[:, 0, 1] / X[:, 0, 0])
    assert logits[1] == pytest.approx(np.log(9))
    assert logits[0] == pytest.approx(-1 + 2 / 1.44 * (np.log(9) + 1))


def test_a_unit_has_as_many_images_as_the_model_that_read_most() -> None:
    both = units_of({"i": [0.9], "j": [0.9]}, {"i": "u", "j": "u"})
    models = {"one": units_of({"i": [0.9]}, {"i": "u"}), "both": both}
    X = side_by_side(models, pd.Index(["u"]), {name: [0.0, 0.0] for name in models}, 0.0)
    np.testing.assert_allclose(np.log(X[0, :, 1] / X[0, :, 0]), 2 * np.log(9))


def test_units_are_taken_in_the_order_asked_for() -> None:
    model = units_of({"u": [0.9], "v": [0.2], "w": [0.5]})
    found = model.on(pd.Index(["w", "u"]))
    assert list(found.logits.index) == ["w", "u"] == list(found.plain.index) == list(found.images.index)
