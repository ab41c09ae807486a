"""Stored tiles as samples and batches: the same for any number of workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kit.errors import DataError
from kit.files import read_strings, write_table
from kit.learn import dataset
from kit.learn.dataset import Epochs, TileBags, loader, pack, resize, split_batches
from kit.read import store
from kit.state import Run

Make = Callable[..., Run]


def samples(run: Run, **changes: object) -> TileBags:
    ids = dataset.labelled(run).index.to_numpy(dtype=object)
    return replace(TileBags(run.folder("tile"), ids, 0, 3, 1.0, 0, "fit"), **changes)  # type: ignore[arg-type]


def test_batches_are_the_same_for_any_number_of_workers(make_bags: Make) -> None:
    bags = samples(make_bags())
    sampler = Epochs(len(bags.ids), 8, 0, 2, 0, "fit")
    here = list(loader(bags, sampler, 0))
    for workers in (1, 2):
        there = list(loader(bags, sampler, workers))
        assert len(there) == len(here) == 2 * (30 // 8)
        for (mine, rows), (theirs, others) in zip(here, there, strict=True):
            assert torch.equal(mine.tiles, theirs.tiles) and torch.equal(mine.bag, theirs.bag)
            assert torch.equal(mine.weight, theirs.weight) and torch.equal(rows, others)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_epoch_repeats_another_in_loader_workers(workers: int, make_run: Make) -> None:
    bags = samples(make_run())
    seen = []
    for packed, _ in loader(bags, Epochs(len(bags.ids), 4, 0, 3, 0, "fit"), workers):
        seen += [tile.numpy().tobytes() for tile in packed.tiles]
    assert len(seen) == len(set(seen)) == 3 * 30


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    batches = list(Epochs(13, 4, 0, 3, 0, "fit"))
    orders = [[n for batch in batches for epoch, n in batch if epoch == now] for now in range(3)]
    assert all(sorted(order) == list(range(13)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert list(Epochs(13, 4, 0, 3, 0, "fit")) == batches
    assert list(Epochs(13, 4, 0, 3, 1, "fit")) != batches != list(Epochs(13, 4, 0, 3, 0, "other"))


def test_beginning_with_a_later_epoch_is_the_rest_of_the_whole() -> None:
    whole, rest = list(Epochs(13, 4, 0, 3, 0, "fit")), list(Epochs(13, 4, 2, 3, 0, "fit"))
    assert rest == whole[-len(rest) :] and len(rest) == 3


@pytest.mark.parametrize("batch", range(2, 9))
def test_no_batch_has_a_single_image_where_that_can_be_avoided(batch: int) -> None:
    for images in range(2, 40):
        order = np.random.default_rng(0).permutation(images)
        parts = split_batches(order, batch)
        np.testing.assert_array_equal(np.concatenate(parts), order)
        sizes = [len(part) for part in parts]
        assert min(sizes) >= 2 and max(sizes) - min(sizes) <= 1 and max(sizes) < 2 * batch


def test_one_image_is_one_batch() -> None:
    assert [len(part) for part in split_batches(np.arange(1), 4)] == [1]


def test_a_bag_gives_distinct_tiles_and_no_more_than_asked(make_bags: Make) -> None:
    run = make_bags(count=6)
    bags = samples(run, strength=0.0)
    longest = 0
    for n, image in enumerate(bags.ids):
        stored = store.read(store.path_of(run.folder("tile"), "train", image)).decode()
        found, number = bags[(0, n)]
        assert number == n and len(found) == min(3, len(stored))
        whole = {tile.tobytes() for tile in stored}
        assert {tile.tobytes() for tile in found} <= whole and len({t.tobytes() for t in found}) == len(found)
        longest = max(longest, len(stored))
    assert longest > 3, "a bag that does not fit whole"


def test_every_tile_of_a_bag_has_its_turn(make_bags: Make) -> None:
    run = make_bags(count=6)
    bags = samples(run, strength=0.0, bag=1)
    counts = dict(zip(bags.ids, (len(samples(run, bag=99)[(0, n)][0]) for n in range(30)), strict=True))
    n = int(np.argmax([counts[image] for image in bags.ids]))
    seen = {bags[(epoch, n)][0].tobytes() for epoch in range(60)}
    assert len(seen) == counts[bags.ids[n]] > 1


def test_a_sample_depends_on_its_key_alone(make_bags: Make) -> None:
    run = make_bags()
    bags = samples(run)
    np.testing.assert_array_equal(bags[(3, 5)][0], bags[(3, 5)][0])
    fewer = samples(run, ids=bags.ids[5:6])
    np.testing.assert_array_equal(fewer[(3, 0)][0], bags[(3, 5)][0])
    assert bags[(4, 5)][0].tobytes() != bags[(3, 5)][0].tobytes()


def test_tiles_are_resized_to_what_the_encoder_sees(make_bags: Make) -> None:
    run = make_bags()
    assert samples(run, size=8)[(0, 0)][0].shape[1:] == (8, 8, 3)
    stored = dataset.read_tiles(run, "train", "p0-0", 0)
    assert stored.shape[1:] == (16, 16, 3)
    blocks = stored.astype(float).reshape(len(stored), 8, 2, 8, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(dataset.read_tiles(run, "train", "p0-0", 8), blocks, atol=1, err_msg="by area")
    assert resize(stored, 0) is stored and resize(stored, 16) is stored
    grown = resize(stored, 40)
    assert grown.shape[1:] == (40, 40, 3) and abs(float(grown.mean()) - float(stored.mean())) < 2


def test_packed_bags_keep_their_tiles_together_channels_first() -> None:
    first, second = np.full((2, 4, 4, 3), (1, 2, 3), np.uint8), np.full((1, 4, 4, 3), 9, np.uint8)
    packed, rows = pack([(first, 7), (second, 2)])
    assert packed.tiles.shape == (3, 3, 4, 4) and packed.tiles[0, :, 0, 0].tolist() == [1, 2, 3]
    assert packed.bag.tolist() == [0, 0, 1] and packed.bags == 2 and rows.tolist() == [7, 2]
    assert packed.weight.tolist() == [1, 1, 1]


def change_images(run: Run, change: Callable[[pd.DataFrame], None]) -> None:
    path = run.folder("tile") / "images.csv"
    table = read_strings(path)
    change(table)
    write_table(path, table)


def test_an_image_without_tiles_is_no_sample(make_run: Make) -> None:
    run = make_run()
    assert len(dataset.labelled(run)) == len(dataset.ids_with_tiles(run, "train")) == 30

    def fail(table: pd.DataFrame) -> None:
        table.loc[table["image_id"] == "p3-1", ["tiles", "status"]] = ["0", "unreadable"]

    change_images(run, fail)
    assert "p3-1" not in dataset.labelled(run).index and len(dataset.labelled(run)) == 29
    assert "p3-1" not in dataset.ids_with_tiles(run, "train")
    assert list(dataset.ids_with_tiles(run, "test")) == ["t0", "t1", "t2", "t3"]


def test_labels_are_numbered_as_the_competition_lists_its_classes(make_run: Make) -> None:
    table = dataset.labelled(make_run())
    assert (table["y"] == table["label"].map({"a": 0, "b": 1})).all()
    assert list(table.index) == sorted(table.index)
    assert set(table["role"]) == {"fold", "holdout"}


def test_a_class_without_any_tile_is_said_with_the_place_of_the_reasons(make_run: Make) -> None:
    run = make_run()
    table = read_strings(run.folds).set_index("image_id")

    def fail(images: pd.DataFrame) -> None:
        images.loc[images["image_id"].map(table["label"]) == "b", "tiles"] = "0"

    change_images(run, fail)
    with pytest.raises(DataError, match="no image of class b has tiles") as caught:
        dataset.labelled(run)
    assert str(Path("tile") / "images.csv") in caught.value.hint


def test_folds_by_site_need_the_site_of_every_image(make_run: Make) -> None:
    run = make_run()
    plan = dataclasses.replace(run.competition.folds, scheme="site")
    run = dataclasses.replace(run, competition=dataclasses.replace(run.competition, folds=plan))
    table = read_strings(run.folds)
    inside = table["role"] == "fold"
    sites = table["group_id"].where(inside, "")
    own = run.work / "folds.csv"
    run = dataclasses.replace(run, fold_table=own)
    write_table(own, table.assign(fold_site=sites.str[1:]))
    assert set(dataset.labelled(run).query("role == 'fold'")["fold"]) == set(sites[inside].str[1:])
    write_table(
        own,
        table.assign(
            fold_site=sites.str[1:].mask(table["image_id"] == table["image_id"][inside].iloc[3], "")
        ),
    )
    with pytest.raises(DataError, match=r"1 images have no .*p0-3"):
        dataset.labelled(run)
