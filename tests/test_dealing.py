"""Groups are dealt whole, as evenly as can be, and the same way whatever the order of rows."""

from __future__ import annotations

import doctest
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from kit import dealing, fold_audit, folds, holdout
from kit.errors import DataError


def drawn(seed: int, groups: int = 120, units: int = 1, k: int = 5) -> pd.DataFrame:
    """A table of groups of 1 to ``units`` units, with uneven sites, classes and numbers of images."""
    draw = np.random.default_rng(seed)
    classes, sites = int(draw.integers(2, 5)), int(draw.integers(1, 12))
    count = draw.integers(1, units + 1, groups)
    group = np.repeat(np.arange(groups), count)
    site = np.repeat(draw.choice(sites, groups, p=draw.dirichlet(np.ones(sites))), count)
    label = draw.choice(classes, len(group), p=draw.dirichlet(np.full(classes, 3.0)))
    label[: k * classes] = np.tile(np.arange(classes), k)  # every class has k groups
    return pd.DataFrame({
        "group_id": [f"g{n:04d}" for n in group], "site": site.astype(str),
        "label": [f"c{n}" for n in label], "images": draw.integers(1, 6, len(group)),
    })  # fmt: skip


def dealt(table: pd.DataFrame, k: int, seed: int = 0, **options: Any) -> pd.Series[int]:
    return table["group_id"].map(dealing.deal(table, k, seed, **options))


@pytest.mark.parametrize("module", [dealing, fold_audit, folds, holdout])
def test_the_examples_of_the_docstrings_run(module: Any) -> None:
    done = doctest.testmod(module)
    assert done.attempted > 0 and done.failed == 0


@pytest.mark.parametrize("units", [1, 6])
def test_every_group_is_in_one_of_k_folds_and_every_fold_has_every_class(units: int) -> None:
    for seed in range(20):
        table = drawn(seed, units=units)
        k = 2 + seed % 4
        fold = dealt(table, k, seed)
        assert fold.groupby(table["group_id"]).nunique().max() == 1
        assert set(fold) == set(range(k))
        assert (pd.crosstab(fold, table["label"]) > 0).all(axis=None)


def test_of_groups_of_one_unit_every_site_and_class_is_spread_as_evenly_as_can_be() -> None:
    for seed in range(40):
        table = drawn(seed, groups=40 + 10 * seed)
        k = 2 + seed % 9
        cells = pd.crosstab([table["site"], table["label"]], dealt(table, k, seed))
        least, most = cells.sum(axis=1) // k, -(-cells.sum(axis=1) // k)
        assert cells.ge(least, axis=0).all(axis=None) and cells.le(most, axis=0).all(axis=None)


def test_class_shares_are_more_even_than_scikit_learn_deals_them() -> None:
    ours, theirs = [], []
    for seed in range(30):
        table = drawn(seed, units=1 + seed % 5)
        ours.append(dealing.share_sd(table["label"], dealt(table, 5, seed)))
        peer = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        fold = pd.Series(0, table.index)
        for n, (_, part) in enumerate(peer.split(table, table["label"], table["group_id"])):
            fold.iloc[part] = n
        theirs.append(dealing.share_sd(table["label"], fold))
    assert np.mean(ours) < 0.75 * np.mean(theirs)
    assert np.mean(np.array(ours) <= np.array(theirs)) > 0.9


def kinds(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, groups that remain and size of some kinds."""
    draw = np.random.default_rng(seed)
    size = draw.integers(1, 9, count)
    return draw.normal(size=(count, 6)) * size[:, None], draw.integers(1, 5, count), size


def spread(places: np.ndarray, extra: np.ndarray) -> float:
    """The objective: squared distances of the folds from their mean."""
    load = extra.T @ places
    return float(((load - load.mean(axis=0)) ** 2).sum())


def test_moves_and_exchanges_better_what_was_placed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [kinds(seed, 60) for seed in range(10)]
    after = [spread(p[0], dealing.search(*p, 5, 0)) for p in problems]
    monkeypatch.setattr(dealing, "STEPS", 0)
    before = [spread(p[0], dealing.search(*p, 5, 0)) for p in problems]
    assert np.mean(after) < 0.8 * np.mean(before)
    assert (np.array(after) <= np.array(before)).all()


def test_the_search_gives_each_kind_as_many_folds_as_groups_remain() -> None:
    places, number, size = kinds(0, 400)  # more than one exchange looks at
    extra = dealing.search(places, number, size, 5, 0)
    assert (extra.sum(axis=1) == number).all()


def test_a_giant_leaves_the_other_folds_as_even_as_they_would_be_without_it() -> None:
    for seed in range(10):
        table = drawn(seed, groups=60, units=5)
        giant = pd.DataFrame({"group_id": "giant", "site": "0", "label": ["c0"] * 900 + ["c1"] * 300})
        fold = dealt(pd.concat([table, giant], ignore_index=True), 5, seed)
        rest = table[fold[table.index] != fold.iloc[-1]]
        sizes = fold[rest.index].value_counts()
        assert len(sizes) == 4 and np.ptp(sizes) < 0.2 * sizes.mean()
        assert dealing.share_sd(rest["label"], fold[rest.index]) < 0.03


def test_a_fold_that_lacks_a_class_is_given_the_group_that_costs_least() -> None:
    has = np.array([[True, True], [True, True], [False, True], [True, False]])
    places = np.array([[5.0], [1.0], [1.0], [1.0]])
    extra = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1]], dtype=bool)
    covered = dealing.cover(extra, places, has, np.array([False, False]))
    assert covered.tolist() == np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]], dtype=bool).tolist()
    # Where every fold has the second class already, no group moves; nor where a move would rob another fold.
    assert (dealing.cover(extra, places, has, np.array([False, True])) == extra).all()
    assert (dealing.cover(extra[1:], places[1:], has[1:], np.array([True, False])) == extra[1:]).all()


@pytest.mark.parametrize("units", [1, 6])
def test_the_order_of_rows_changes_nothing_and_another_seed_much(units: int) -> None:
    for seed in range(5):
        table = drawn(seed, units=units)
        first = dealt(table, 5, seed)
        assert dealt(table.sample(frac=1, random_state=seed), 5, seed).sort_index().equals(first)
        assert (dealt(table, 5, seed + 1) != first).mean() > 0.5


def test_folds_have_as_many_images_as_the_others() -> None:
    for seed in range(10):
        table = drawn(seed, groups=300)
        images = table["images"].groupby(dealt(table, 5, seed)).sum()
        assert np.ptp(images) < 0.05 * images.mean()


def test_without_sites_the_sites_change_nothing() -> None:
    table = drawn(4)
    assert table["site"].nunique() > 3
    other = table.assign(site=table["site"].sample(frac=1, random_state=0).to_numpy())
    assert dealt(table, 5, sites=False).equals(dealt(other, 5, sites=False))
    assert not dealt(table, 5).equals(dealt(other, 5))


def test_a_hundred_thousand_groups_are_dealt_in_seconds() -> None:
    table = drawn(5, groups=100_000, units=3)
    start = time.perf_counter()
    fold = dealt(table, 5)
    assert time.perf_counter() - start < 20  # measured: 0.6
    assert dealing.share_sd(table["label"], fold) < 0.0001


@pytest.mark.parametrize(
    ("labels", "k", "expected", "says"),
    [
        ("a" * 9 + "b" * 5, 5, 5, ""),
        ("a" * 9 + "b" * 3, 5, 3, "only 3 patients of class b: 3 folds, not 5"),
        ("a" * 9 + "b", 5, 0, "class b has 1 patient(s), and folds need two of each class"),
        ("a" * 9, 5, 0, "folds need two of each class"),
    ],
)
def test_fewer_groups_of_a_class_make_fewer_folds_or_none(
    caplog: pytest.LogCaptureFixture, labels: str, k: int, expected: int, says: str
) -> None:
    table = pd.DataFrame({"group_id": [f"g{n}" for n in range(len(labels))], "label": list(labels)})
    if not expected:
        with pytest.raises(DataError) as caught:
            dealing.fold_count(table, k, "patient")
        assert says in caught.value.message and caught.value.hint
        return
    with caplog.at_level(logging.WARNING, logger="kit"):
        assert dealing.fold_count(table, k, "patient") == expected
    assert [record.getMessage() for record in caplog.records] == ([says] if says else [])


# --- what belongs together --------------------------------------------------------------------------

GROUPS = {"a1": "p2", "a2": "p2", "b1": "p1", "c1": "p4", "d1": "p3", "e1": "p5"}


@pytest.fixture
def joined() -> Callable[..., list[str]]:
    """``joined(("a1", "x"), ..., hashes="...")``: the groups, image by image."""

    def components(*links: tuple[str, str], hashes: str = "") -> list[str]:
        train = pd.DataFrame({"group_id": list(GROUPS.values())}, index=list(GROUPS), dtype=object)
        if hashes:
            train["hash"] = [h.strip() for h in hashes]
        table = pd.DataFrame(list(links), columns=["image_id", "cluster"], dtype=object) if links else None
        return dealing.components(train, table).tolist()

    return components


def test_without_links_groups_stay_what_they_are(joined: Callable[..., list[str]]) -> None:
    assert joined() == list(GROUPS.values())


def test_near_duplicates_join_their_groups_under_the_smallest_name(joined: Callable[..., list[str]]) -> None:
    assert joined(("a2", "x"), ("b1", "x")) == ["p1", "p1", "p1", "p4", "p3", "p5"]


def test_links_are_followed_however_indirect_they_are(joined: Callable[..., list[str]]) -> None:
    # p4 - p2 by x, p2 - p3 by another image and y; p1 and p5 stand alone.
    chain = [("c1", "x"), ("a1", "x"), ("a2", "y"), ("d1", "y")]
    assert joined(*chain) == ["p2", "p2", "p1", "p2", "p2", "p5"]


def test_hashes_and_clusters_join_together(joined: Callable[..., list[str]]) -> None:
    # Hashes join p2 and p1, and the clusters p2 and p4: all three are one.
    assert joined(("a1", "x"), ("c1", "x"), hashes="7 7   ") == ["p1", "p1", "p1", "p1", "p3", "p5"]


def test_an_empty_cell_or_an_image_of_another_table_joins_nothing(joined: Callable[..., list[str]]) -> None:
    links = [("a1", ""), ("b1", ""), ("zz", "x"), ("c1", "x"), ("d1", "y")]
    assert joined(*links) == list(GROUPS.values())


# --- how alike folds are ----------------------------------------------------------------------------


def test_measures_of_balance_are_what_they_are_by_hand() -> None:
    label = pd.Series(list("aab" + "abb"))
    fold = pd.Series(list("000111"))
    assert dealing.share_sd(label, fold) == pytest.approx(1 / 6)
    # West has two of a in fold 0 and one in fold 1, and one of b against two: both differ by one.
    assert dealing.imbalance(pd.Series(["w"] * 6), label, fold) == (1, 1)
    assert dealing.imbalance(pd.Series(list("wwwwwe")), pd.Series(list("aabaab")), fold) == (1, 1)
    assert dealing.imbalance(pd.Series(["w"] * 4), pd.Series(["a"] * 4), pd.Series(list("0001"))) == (2, 0)
