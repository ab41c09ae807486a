"""Inner folds keep groups whole and classes spread, and do not depend on the order of rows."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from kit.combine.inner import held_out_losses, inner_count, inner_folds, names_by_content


def drawn(n: int, groups: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels of four classes, the first two thirds of all, and the group of each row."""
    draw = np.random.default_rng(seed)
    return draw.choice(4, n, p=[0.66, 0.2, 0.13, 0.01]), draw.integers(0, groups, n)


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_split_and_every_fold_has_its_share_of_rows(seed: int) -> None:
    labels, groups = drawn(3000, 400, seed)
    folds = inner_folds(labels, groups, 5, seed)
    assert all(len(set(folds[groups == group])) == 1 for group in range(400))
    counts = np.bincount(folds, minlength=5)
    assert counts.max() - counts.min() < 0.05 * 600


@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_rows_that_are_their_own_groups_are_dealt_as_evenly_as_the_folds_divide_them(k: int) -> None:
    labels, _ = drawn(1003, 1)
    folds = inner_folds(labels, np.arange(1003), k, 0)
    for rows in (folds, *(folds[labels == label] for label in range(4))):
        counts = np.bincount(rows, minlength=k)
        assert counts.max() - counts.min() <= 1


def test_mixed_groups_still_spread_the_rarest_class() -> None:
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), 6)
    labels = np.where((groups % 10 == 0) & (draw.random(600) < 0.5), 1, 0)
    holders = len(np.unique(groups[labels == 1]))
    folds = inner_folds(labels, groups, 5, 0)
    for fold in range(5):
        inside = len(np.unique(groups[(labels == 1) & (folds == fold)]))
        assert inside in (holders // 5, -(-holders // 5))


def test_folds_follow_the_names_of_groups_and_not_the_order_of_rows() -> None:
    labels, groups = drawn(500, 80)
    names, weight = np.array([f"p{n}" for n in groups]), np.random.default_rng(1).random(500)
    folds = inner_folds(labels, names, 5, 0, weight)
    order = np.random.default_rng(2).permutation(500)
    assert (inner_folds(labels[order], names[order], 5, 0, weight[order]) == folds[order]).all()
    assert (inner_folds(labels, names, 5, 1) != inner_folds(labels, names, 5, 0)).any()  # ties: the seed


def test_a_weight_counts_as_that_many_rows_of_the_group() -> None:
    labels, groups = drawn(300, 60)
    weight = np.random.default_rng(3).integers(1, 4, 300)
    repeated = np.repeat(np.arange(300), weight)
    folds = inner_folds(labels, groups, 5, 0, weight.astype(float))
    assert (inner_folds(labels[repeated], groups[repeated], 5, 0) == folds[repeated]).all()


def test_fewer_groups_than_folds_leave_folds_empty() -> None:
    folds = inner_folds(np.array([0, 0, 1, 1]), np.array(["a", "a", "b", "b"]), 5, 0)
    assert len(set(folds)) == 2 and folds[0] == folds[1] and folds[2] == folds[3]


def test_as_many_folds_as_the_rarest_class_has_groups() -> None:
    labels, groups = np.repeat([0, 1], [50, 6]), np.r_[np.arange(50), [50, 50, 51, 51, 52, 52]]
    assert inner_count(labels, groups) == 3
    assert inner_count(labels, np.arange(56)) == 5
    assert inner_count(labels, np.repeat([0, 1], [50, 6])) == 2


def test_a_million_rows_take_less_than_two_seconds() -> None:
    labels, groups = drawn(10**6, 300_000)
    start = time.perf_counter()
    folds = inner_folds(labels, groups, 5, 0)
    assert time.perf_counter() - start < 2
    assert np.ptp(np.bincount(folds)) < 100


def test_rows_without_groups_are_named_by_what_they_hold() -> None:
    draw = np.random.default_rng(0)
    values, labels, weight = draw.random((200, 3, 2)), draw.integers(0, 2, 200), np.ones(200)
    names = names_by_content(values, labels, weight)
    order = draw.permutation(200)
    assert sorted(names) == list(range(200))
    assert (names_by_content(values[order], labels[order], weight[order]) == names[order]).all()
    assert (names_by_content(values, 1 - labels, weight) != names).any()


def test_held_out_losses_are_of_rows_that_the_fit_has_not_seen() -> None:
    folds, labels, weight = np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([1.0, 2.0, 3.0])

    def path(seen: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
        rate = labels[seen].mean()  # of the rows seen: 1 without fold 0, 1/2 without fold 1
        rows = (~seen).sum()
        return [np.tile([1 - 0.9 * rate, 0.9 * rate], (rows, 1)), np.full((rows, 2), 0.5)]

    expected = -(1 * np.log(0.1) + 2 * np.log(0.9) + 3 * np.log(0.45))
    assert np.allclose(held_out_losses(folds, labels, weight, path), [expected, 6 * np.log(2)])
    assert held_out_losses(np.zeros(3, dtype=np.int64), labels, weight, path).tolist() == [0.0]
