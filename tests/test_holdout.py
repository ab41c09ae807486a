"""The held-out set is balanced, spread over sites, matched in images, and takes no group apart."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from kit.competition import FoldPlan
from kit.demo.strip_ai import CENTERS, SLIDES
from kit.holdout import draw_holdout, image_strata, largest_remainder

SEEDS = (0, 1, 7)


def units_of(rows: list[tuple[str, str, str, int]]) -> pd.DataFrame:
    """Units of (group, site, label, images)."""
    table = pd.DataFrame(rows, columns=["group_id", "site", "label", "images"])
    return table.set_index(pd.Index([f"u{n:04d}" for n in range(len(rows))], name="unit_id"))


@pytest.fixture(scope="module")
def patients() -> pd.DataFrame:
    """632 patients with the competition's centers and classes and, in some order, its slides a patient."""
    slides = np.repeat(list(SLIDES), list(SLIDES.values()))
    np.random.default_rng(0).shuffle(slides)
    people = [(str(c), label) for c, both in CENTERS.items()
              for label, n in zip(("CE", "LAA"), both, strict=True) for _ in range(n)]  # fmt: skip
    return units_of([(f"p{n:03d}", *who, int(slides[n])) for n, who in enumerate(people)])


@pytest.fixture(scope="module")
def patches() -> pd.DataFrame:
    """80 patients of two sites whose patches are the units, of both classes."""
    draw = np.random.default_rng(1)
    rows = []
    for n in range(80):
        rate = draw.beta(1, 2)
        labels = (draw.random(int(draw.integers(3, 25))) < rate).astype(int)
        rows += [(f"q{n:02d}", "east" if n % 3 else "west", str(label), 1) for label in labels]
    return units_of(rows)


def held(units: pd.DataFrame, seed: int, **plan: float) -> pd.DataFrame:
    return units[units["group_id"].isin(draw_holdout(units, FoldPlan(**plan), seed))]  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_balanced_and_spread_over_sites_by_largest_remainder(patients: pd.DataFrame, seed: int) -> None:
    out = held(patients, seed)
    assert out["label"].value_counts().to_dict() == {"CE": 20, "LAA": 20}
    for k, label in enumerate(("CE", "LAA")):
        total = sum(both[k] for both in CENTERS.values())
        taken = out[out["label"] == label]["site"].value_counts()
        for center, both in CENTERS.items():
            assert abs(taken.get(str(center), 0) - 20 * both[k] / total) < 1


@pytest.mark.parametrize("seed", range(12))
def test_its_slides_a_patient_are_distributed_as_in_the_rest(patients: pd.DataFrame, seed: int) -> None:
    out = held(patients, seed)
    for label, mine in patients.groupby("label"):
        chosen = out.loc[out["label"] == label, "images"]
        for least in (1, 2, 3):  # patients with so many slides or more
            due = 20 * (mine["images"] >= least).mean()
            assert abs((chosen >= least).sum() - due) <= 1
    assert abs(out["images"].mean() - patients["images"].mean()) < 0.2


def test_a_site_whose_units_all_have_many_images_keeps_its_seats() -> None:
    rows = [(f"a{n}", "east", label, 1) for label in ("x", "y") for n in range(60)]
    rows += [(f"b{n}", "west", label, 9) for label in ("x", "y") for n in range(60)]
    units = units_of(rows).assign(group_id=lambda table: table.index)
    out = held(units, 0)
    assert out.groupby(["site", "label"]).size().tolist() == [9, 9, 9, 9]


def test_it_never_takes_the_last_of_a_site_and_class(patients: pd.DataFrame) -> None:
    # Center 9 keeps one LAA patient; without care a large held-out set would take it.
    lone = patients.drop(patients.index[(patients["site"] == "9") & (patients["label"] == "LAA")][1:])
    for seed in SEEDS:
        out = held(lone, seed, holdout=160, holdout_share=0.9)
        assert len(out) == 2 * 156  # .9 of the 174 LAA patients that are left
        assert len(lone.drop(out.index).groupby(["site", "label"])) == 22


def test_units_without_a_site_are_a_site_of_their_own(patients: pd.DataFrame) -> None:
    unknown = patients.assign(site=patients["site"].replace("11", ""))
    for seed in SEEDS:
        known, lost = held(patients, seed), held(unknown, seed)
        assert (lost["site"] == "").sum() == (known["site"] == "11").sum() > 0


@pytest.mark.parametrize(
    ("sizes", "wanted", "expected"),
    [
        ({"a": 6, "b": 3, "c": 1}, 5, {"a": 3, "b": 2, "c": 0}),  # c would be emptied
        ({"a": 50, "b": 30, "c": 20}, 10, {"a": 5, "b": 3, "c": 2}),  # exact shares
        ({"a": 10, "b": 10, "c": 14}, 5, {"a": 2, "b": 1, "c": 2}),  # 1.47, 1.47, 2.06
        ({"a": 1, "b": 1, "c": 1}, 2, {"a": 1, "b": 1, "c": 0}),  # nobody can give: cells are emptied
        ({"a": 3, "b": 1, "c": 1}, 4, {"a": 2, "b": 1, "c": 1}),  # a gives all but one before b and c give
        ({"a": 9, "b": 1}, 0, {"a": 0, "b": 0}),
    ],
)
def test_seats_go_by_largest_remainder_and_empty_no_cell_while_others_can_give(
    sizes: dict[str, int], wanted: int, expected: dict[str, int]
) -> None:
    assert largest_remainder(pd.Series(sizes), wanted) == expected


def test_strata_of_images_are_due_half_a_seat_at_least() -> None:
    images = np.repeat([1, 2, 3, 4, 5], [86, 9, 2, 2, 1])
    strata = image_strata(images, 20)
    assert [sorted(set(images[strata == n])) for n in range(3)] == [[4, 5], [2, 3], [1]]
    assert (np.bincount(strata) * 20 / 100)[:2].min() >= 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_of_many_units_are_held_out_whole_and_close_to_balanced(
    patches: pd.DataFrame, seed: int
) -> None:
    out = held(patches, seed)
    counts = out["label"].value_counts()
    assert abs(counts["0"] - 20) <= 2 and abs(counts["1"] - 20) <= 2
    assert set(out["site"]) == {"east", "west"}


def test_whole_groups_do_not_empty_a_site_and_class() -> None:
    # Only q0 has class y in the west; it would fit the seats exactly.
    rows = [("q0", "west", "y", 1)] * 2
    rows += [(f"q{n}", "west", "x", 1) for n in range(1, 8) for _ in range(2)]
    rows += [(f"r{n}", "east", label, 1) for n in range(12) for label in "xy"]
    for seed in range(10):
        assert "q0" not in set(held(units_of(rows), seed, holdout=4)["group_id"])


def test_a_pair_that_is_kept_together_leaves_the_draw_of_the_others_exact(patients: pd.DataFrame) -> None:
    pair = patients.assign(group_id=patients["group_id"].replace("p001", "p000"))
    out = held(pair, 0)
    assert out["label"].value_counts().to_dict() == {"CE": 20, "LAA": 20}
    assert out["group_id"].is_unique
    assert len(out.index.intersection(held(patients, 0).index)) >= 35  # and nearly the same


def test_three_groups_of_a_class_are_left_for_the_folds() -> None:
    for rare in (3, 4):
        rows = [(f"a{n:02d}", "", "x", 1) for n in range(20) for _ in range(5)]
        rows += [(f"b{n}", "", "y", 1) for n in range(rare) for _ in range(5)]
        out = held(units_of(rows), 0, holdout_share=0.3)
        assert out.loc[out["label"] == "y", "group_id"].nunique() == rare - 3
        assert (out["label"] == "x").any()


def test_a_giant_is_never_held_out(patients: pd.DataFrame) -> None:
    for name in patients.index[patients["label"] == "LAA"][::20]:
        giant = patients.assign(images=patients["images"].mask(patients.index == name, 60_000))
        out = held(giant, 0, holdout=160, holdout_share=0.5)
        assert name not in out.index and out["label"].value_counts().to_dict() == {"CE": 87, "LAA": 87}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(f"p{n}", "", "xy"[n % 2], 1) for n in range(12)], "the rarest class has only 6 units"),
        ([(f"p{n}", "", label, 1) for n in range(3) for label in "xy" * 20], "too few groups"),
    ],
)
def test_where_there_are_too_few_none_is_held_out_and_a_message_says_so(
    caplog: pytest.LogCaptureFixture, rows: list[tuple[str, str, str, int]], says: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="kit"):
        assert draw_holdout(units_of(rows), FoldPlan(), 0) == set()
    assert "no held-out set" in caplog.text and says in caplog.text


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_rows_changes_nothing_and_another_seed_much(
    patients: pd.DataFrame, patches: pd.DataFrame, seed: int
) -> None:
    for units in (patients, patches):
        first = draw_holdout(units, FoldPlan(), seed)
        assert draw_holdout(units.sample(frac=1, random_state=seed), FoldPlan(), seed) == first
        assert draw_holdout(units, FoldPlan(), seed + 1) != first
