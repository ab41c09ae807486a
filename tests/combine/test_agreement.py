"""Agreement of readers: against the formulas, and against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.boxes import check
from kit.combine.agreement import agreement, fleiss_kappa, labels_by, overlaps


def said(*counts: tuple[int, int]) -> float:
    """Kappa of images given as (readers who say yes, readers)."""
    pairs = np.array(counts, float)
    return float(fleiss_kappa(pairs[:, 0], pairs[:, 1], np.ones(len(pairs))))


def table(named: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Three readers of each image, of whom ``named[i]`` draw a box; the others find nothing."""
    draw, rows = np.random.default_rng(seed), []
    for image, many in enumerate(named):
        for reader in range(3):
            yes = reader < many
            x = float(draw.integers(0, 5))
            box = [x, 0.0, x + 20, 10.0] if yes else [np.nan] * 4
            rows.append(
                (f"i{image:03d}", "Mass" if yes else "No finding", 0 if yes else 14, f"R{reader}", *box)
            )
    columns = ["image_id", "finding", "class_id", "reader", "x_min", "y_min", "x_max", "y_max"]
    return check(pd.DataFrame(rows, columns=columns))


def test_kappa_is_that_of_fleiss() -> None:
    # Worked by hand: 4 images, 3 readers; observed 2 / 3, p = .5, chance .5.
    assert said((3, 3), (0, 3), (1, 3), (2, 3)) == pytest.approx((2 / 3 - 1 / 2) / (1 / 2))


def test_kappa_is_that_of_two_columns_of_ratings() -> None:
    draw = np.random.default_rng(1)
    named = draw.integers(0, 6, 50).astype(float)
    ratings = np.c_[named, 5 - named]
    share = ratings.sum(axis=0) / ratings.sum()
    alike = ((ratings**2).sum(axis=1) - 5) / 20
    expected = (alike.mean() - (share**2).sum()) / (1 - (share**2).sum())
    assert said(*((int(n), 5) for n in named)) == pytest.approx(expected)


def test_kappa_is_one_for_complete_agreement_and_about_zero_for_chance() -> None:
    assert said((3, 3), (0, 3), (0, 3)) == 1.0
    draw = np.random.default_rng(0)
    assert abs(said(*((int(draw.binomial(3, 0.3)), 3) for _ in range(20_000)))) < 0.02
    assert np.isnan(said((0, 3), (0, 3)))


def test_the_interval_is_that_of_drawing_images() -> None:
    named = np.random.default_rng(2).choice([0, 1, 2, 3], 200, p=[0.6, 0.1, 0.1, 0.2])
    row = agreement(table(named), 2000, seed=0).loc["Mass"]
    draw = np.random.default_rng(3)
    drawn = [said(*((int(n), 3) for n in draw.choice(named, 200))) for _ in range(1000)]
    np.testing.assert_allclose(
        [row["kappa_low"], row["kappa_high"]], np.quantile(drawn, [0.025, 0.975]), atol=0.02
    )
    assert row["kappa_low"] < row["kappa"] < row["kappa_high"]
    assert [row["any"], row["two"], row["three"]] == [(named >= n).sum() for n in (1, 2, 3)]


def test_overlap_is_of_each_box_with_the_nearest_one_of_each_other_reader() -> None:
    rows = [
        ("a", "Mass", 0, "R1", 0, 0, 10, 10),
        ("a", "Mass", 0, "R1", 50, 50, 60, 60),
        ("a", "Mass", 0, "R2", 0, 0, 10, 20),
        ("b", "Mass", 0, "R1", 0, 0, 10, 10),
    ]
    columns = ["image_id", "finding", "class_id", "reader", "x_min", "y_min", "x_max", "y_max"]
    found = overlaps(check(pd.DataFrame(rows, columns=columns)))
    assert found["image_id"].tolist() == ["a"] and found["pairs"].tolist() == [3]
    assert found["total"].tolist() == [0.5 + 0.0 + 0.5]


def test_nothing_is_no_label_and_has_no_overlap() -> None:
    whole = table(np.array([3, 2, 1, 0, 0]))
    assert labels_by(whole) == {1: 3, 2: 2, 3: 1}
    found = agreement(whole, 50, seed=0)
    assert np.isnan(found.loc["No finding", "iou"]) and found.loc["No finding", "pairs"] == 0


def test_agreement_does_not_depend_on_the_order_of_the_rows() -> None:
    whole = table(np.random.default_rng(0).integers(0, 4, 60))
    turned = whole.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(agreement(whole, 100, 0), agreement(turned, 100, 0))


def test_an_image_of_one_reader_says_nothing_of_agreement() -> None:
    whole = table(np.array([3, 0, 1, 2, 0, 0]))
    alone = whole.iloc[[0]].assign(image_id="z")
    more = check(pd.concat([whole, alone], ignore_index=True))
    assert agreement(more, 50, 0).loc["Mass", "kappa"] == agreement(whole, 50, 0).loc["Mass", "kappa"]


def test_where_nobody_drew_or_no_image_has_two_readers_there_is_no_agreement_to_tell() -> None:
    blind = agreement(table(np.zeros(4, int)), 50, 0)
    assert blind.index.tolist() == ["No finding"] and np.isnan(blind.loc["No finding", "kappa"])
    whole = table(np.array([3, 0, 1]))
    alone = agreement(whole[whole["reader"] == "R0"], 50, 0)
    assert alone["kappa"].isna().all() and alone["iou"].isna().all()
    assert labels_by(table(np.zeros(2, int))) == {}
