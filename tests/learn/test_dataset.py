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

from kit import seeds
from kit.errors import DataError, SettingError
from kit.files import read_strings, write_table
from kit.learn import dataset, models, preprocess
from kit.learn.dataset import Epochs, TileBags, find_sections, loader, pack, split_batches
from kit.learn.pixels import Pixels
from kit.read import store
from kit.state import Run
from tests.learn.fits import fit_of

Make = Callable[..., Run]


def samples(run: Run, **changes: object) -> TileBags:
    ids = dataset.labelled(run).index.to_numpy(dtype=object)
    stored = {"train": Pixels(run.folder("tile"), "train", 0, "bicubic")}
    turns, splits = np.zeros(len(ids), np.int64), np.full(len(ids), "train", object)
    plain = TileBags(stored, ids, splits, turns, 3, 0.0, 1.0, "light", 0, "fit")
    return replace(plain, **changes)  # type: ignore[arg-type]


def epochs(count: int, batch: int, first: int, last: int, seed: int = 0, purpose: str = "fit") -> Epochs:
    return Epochs(np.zeros(count, np.int64), batch, first, last, seed, purpose)


@pytest.mark.parametrize("preset", ["light", "histology"])
def test_batches_are_the_same_for_any_number_of_workers(preset: str, make_bags: Make) -> None:
    bags = samples(make_bags(), preset=preset, drop=0.3)
    sampler = epochs(len(bags.ids), 8, 0, 2)
    here = list(loader(bags, sampler, 0))
    for workers in (1, 2):
        there = list(loader(bags, sampler, workers))
        assert len(there) == len(here) == 2 * (30 // 8) == 2 * sampler.steps
        for (mine, rows), (theirs, others) in zip(here, there, strict=True):
            assert torch.equal(mine.tiles, theirs.tiles) and torch.equal(mine.bag, theirs.bag)
            assert torch.equal(mine.weight, theirs.weight) and torch.equal(rows, others)
            assert mine.names == theirs.names == tuple(bags.ids[rows])


@pytest.mark.parametrize("workers", [0, 2])
def test_no_epoch_repeats_another_in_loader_workers(workers: int, make_run: Make) -> None:
    bags = samples(make_run())
    seen = []
    for packed, _ in loader(bags, epochs(len(bags.ids), 4, 0, 3), workers):
        seen += [tile.numpy().tobytes() for tile in packed.tiles]
    assert len(seen) == len(set(seen)) == 3 * 30


def test_a_loader_leaves_torchs_own_draws_alone(make_bags: Make) -> None:
    bags = samples(make_bags())
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    next(iter(loader(bags, epochs(30, 8, 0, 1), 0)))
    assert torch.equal(torch.rand(1), expected)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    batches = list(epochs(13, 4, 0, 3))
    orders = [[n for batch in batches for epoch, n in batch if epoch == now] for now in range(3)]
    assert all(sorted(order) == list(range(13)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert list(epochs(13, 4, 0, 3)) == batches
    assert list(epochs(13, 4, 0, 3, 1)) != batches != list(epochs(13, 4, 0, 3, 0, "other"))


@pytest.mark.parametrize("most", [0.0, 1.5])
@pytest.mark.parametrize("place", [(0, 0), (1, 0), (1, 2), (2, 1)])
def test_beginning_with_any_epoch_and_step_is_the_rest_of_the_whole(
    place: tuple[int, int], most: float
) -> None:
    labels = np.array([0] * 4 + [1] * 11)
    whole = Epochs(labels, 3, 0, 3, 0, "fit", most)
    rest = list(Epochs(labels, 3, place[0], 3, 0, "fit", most, place[1]))
    assert rest == list(whole)[place[0] * whole.steps + place[1] :] and rest


@pytest.mark.parametrize(("most", "expected"), [(0, [4, 11, 7]), (1, [4, 4, 4]), (1.5, [4, 6, 6]),
                                                (2, [4, 8, 7]), (99, [4, 11, 7])])  # fmt: skip
def test_undersampling_bounds_every_class_by_the_rarest_and_draws_anew(
    most: float, expected: list[int]
) -> None:
    labels = np.random.default_rng(0).permutation([0] * 4 + [1] * 11 + [-1] * 7)
    seen: list[set[int]] = []
    for epoch in range(30):
        order = dataset.epoch_order(labels, most, 0, "fit", epoch)
        assert len(set(order)) == len(order)
        assert [int((labels[order] == label).sum()) for label in (0, 1, -1)] == expected
        seen.append(set(order.tolist()))
    assert set.union(*seen) == set(range(22)), "every sample has its turn"
    assert (len(set(map(frozenset, seen))) > 1) == (len(seen[0]) < 22)
    assert dataset.quotas(labels, most) == dict(zip((0, 1, -1), expected, strict=True))


@pytest.mark.parametrize(("most", "least", "expected"), [(0, 10, [10, 11, 7]), (0, 25, [25, 25, 7]),
                                                         (1, 6, [6, 6, 4]), (0, 3, [4, 11, 7])])  # fmt: skip
def test_oversampling_shows_rare_samples_again_as_evenly_as_can_be(
    most: float, least: int, expected: list[int]
) -> None:
    labels = np.random.default_rng(0).permutation([0] * 4 + [1] * 11 + [-1] * 7)
    seen = []
    for epoch in range(40):
        order = dataset.epoch_order(labels, most, 0, "fit", epoch, least)
        assert len(set(order)) == len(order), "each time has a number of its own"
        sample = order % 22
        assert [int((labels[sample] == label).sum()) for label in (0, 1, -1)] == expected
        times = np.bincount(sample, minlength=22)[labels == 0]
        assert times.max() - times.min() <= 1
        seen.append(tuple(times.tolist()))
    assert (len(set(seen)) > 1) == bool(expected[0] % 4), "others are shown once more each time"
    assert dataset.quotas(labels, most, least) == dict(zip((0, 1, -1), expected, strict=True))


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 1)])
def test_beginning_anywhere_among_samples_shown_again_is_the_rest_of_the_whole(
    place: tuple[int, int],
) -> None:
    labels = np.array([0] * 4 + [1] * 11)
    whole = Epochs(labels, 3, 0, 3, 0, "fit", oversample=13)
    rest = list(Epochs(labels, 3, place[0], 3, 0, "fit", 0, place[1], 13))
    assert rest == list(whole)[place[0] * whole.steps + place[1] :] and rest
    assert sum(len(batch) for batch in whole) == 3 * 26


def test_a_sample_that_is_shown_again_has_another_augmentation_each_time(make_bags: Make) -> None:
    run = make_bags(count=6)
    bags = samples(run, strength=1.0, bag=6)
    count = len(bags.ids)
    first, again = bags[(2, 3)], [bags[(2, 3 + turn * count)] for turn in (1, 2)]
    assert [number for _, number in again] == [first[1]] * 2 == [3, 3]
    assert len({tiles.tobytes() for tiles, _ in (first, *again)}) == 3
    np.testing.assert_array_equal(bags[(2, 3 + count)][0], again[0][0])
    plain = samples(run, strength=0.0, bag=99)
    one, two = (sorted(tile.tobytes() for tile in plain[(2, n)][0]) for n in (3, 3 + count))
    assert one == two, "they are the same tiles"


def test_without_undersampling_the_order_is_the_plain_one() -> None:
    plain = seeds.rng(3, "fit", "order", 5).permutation(9)
    np.testing.assert_array_equal(dataset.epoch_order(np.arange(9) % 2, 0, 3, "fit", 5), plain)


def test_left_out_tiles_are_a_share_of_the_drawn_ones_and_never_all(make_bags: Make) -> None:
    run = make_bags(count=6)
    whole, fewer = samples(run, strength=0.0, bag=5), samples(run, strength=0.0, bag=5, drop=0.4)
    kept = total = 0
    for epoch in range(12):
        for n in range(30):
            drawn = {tile.tobytes() for tile in whole[(epoch, n)][0]}
            mine = {tile.tobytes() for tile in fewer[(epoch, n)][0]}
            assert mine <= drawn and mine
            kept, total = kept + len(mine) * (len(drawn) > 3), total + len(drawn) * (len(drawn) > 3)
    assert 0.55 < kept / total < 0.68
    counts = np.full(2000, 3)
    draw = np.random.default_rng(0)
    assert dataset.kept_counts(draw, counts, 0.99).min() == 1
    np.testing.assert_array_equal(dataset.kept_counts(draw, counts, 0.0), counts)


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
    fewer = samples(run, ids=bags.ids[5:6], turns=bags.turns[5:6], splits=bags.splits[5:6])
    np.testing.assert_array_equal(fewer[(3, 0)][0], bags[(3, 5)][0])
    assert bags[(4, 5)][0].tobytes() != bags[(3, 5)][0].tobytes()


@pytest.mark.parametrize("size", [0, 8, 40])
def test_tiles_are_resized_as_the_encoder_wants_them(size: int, make_bags: Make) -> None:
    run = make_bags()
    model = models.parse(f"test_efficientnet:scratch:{size}", run.competition.training)
    table = dataset.with_copies(dataset.labelled(run), np.zeros(2, np.int64))
    bags = replace(dataset.tile_bags(run, model, table, "fit"), strength=0.0, bag=99)
    for n in (0, 7):
        stored = store.read(store.path_of(run.folder("tile"), "train", bags.ids[n])).decode()
        assert stored.shape[1:] == (16, 16, 3)
        shown = preprocess.resize(stored, size, "bicubic")
        assert shown.shape[1] == (size or 16)
        assert {tile.tobytes() for tile in bags[(0, n)][0]} == {tile.tobytes() for tile in shown}


def stored_bag(run: Run, image: str) -> tuple[store.Tiles, dict[bytes, int]]:
    """The stored tiles of an image, and the place of each by its pixels."""
    content = store.read(store.path_of(run.folder("tile"), "train", image))
    return content, {tile.tobytes(): n for n, tile in enumerate(content.decode())}


def test_an_epoch_shows_one_section_of_every_clot_and_each_has_its_turn(
    make_bags: Make, cut: Callable[..., None]
) -> None:
    run = make_bags(count=12)
    cut(run, 4, 2)  # sections 0 and 2 are one clot, 1 and 3 the other
    bags = samples(run, strength=0.0, bag=99)
    n = next(n for n, image in enumerate(bags.ids) if len(stored_bag(run, image)[0]) > 8)
    content, place = stored_bag(run, bags.ids[n])
    shown = []
    for epoch in range(60):
        drawn = {place[tile.tobytes()] for tile in bags[(epoch, n)][0]}
        sections = {int(content.section[tile]) for tile in drawn}
        assert drawn == set(np.flatnonzero(np.isin(content.section, list(sections))))
        assert sorted(section % 2 for section in sections) == [0, 1]
        shown.append(sections)
    assert 15 < sum(0 in sections for sections in shown) < 45
    assert len(set(map(frozenset, shown))) == 4, "the clots are drawn independently"
    short = samples(run, strength=0.0, bag=3)[(0, n)][0]
    assert {place[tile.tobytes()] for tile in short} < {place[tile.tobytes()] for tile in bags[(0, n)][0]}


@pytest.mark.parametrize("parts", [None, 1, 5])
def test_where_no_clot_repeats_tiles_are_drawn_from_the_order_alone(
    parts: int | None, make_bags: Make, cut: Callable[..., None]
) -> None:
    run = make_bags(count=6)
    if parts:
        cut(run, parts, parts)
    bags = samples(run, strength=0.0)
    for n, image in enumerate(bags.ids):
        content = stored_bag(run, image)[0]
        order = seeds.rng(0, "fit", "bag", 7, image).permutation(len(content))[:3]
        np.testing.assert_array_equal(bags[(7, n)][0], content.decode(order.tolist()))


def test_sections_are_told_apart_by_bag_and_clot_and_drawn_evenly() -> None:
    draw = np.random.default_rng(0)
    bag = np.repeat(np.arange(40), 12)
    section = draw.integers(-1, 5, len(bag))
    clot = section // 2
    sections = find_sections(bag, clot, section)
    times = np.zeros(len(bag))
    for _ in range(400):
        kept = sections.draw(draw)
        times += kept
        for key in {(b, c) for b, c in zip(bag, clot, strict=True)}:
            mine = (bag == key[0]) & (clot == key[1])
            (chosen,) = set(section[mine & kept])
            assert (kept[mine] == (section[mine] == chosen)).all()
            if key[0] > 2:
                break
    for b in range(3):
        for c in set(clot[bag == b]):
            mine = (bag == b) & (clot == c)
            np.testing.assert_allclose(times[mine] / 400, 1 / len(set(section[mine])), atol=0.1)


@pytest.mark.parametrize(
    ("given", "expected"), [((), [1, 1]), (("0", "0"), [1, 1]), (("1", "3"), [2, 4]), (("0", "2"), [1, 3])]
)
def test_an_image_appears_as_often_as_the_turned_copies_of_its_class_say(
    given: tuple[str, ...], expected: list[int], make_run: Make
) -> None:
    run = make_run(turned=given)
    images = dataset.labelled(run)
    found = dataset.with_copies(images, dataset.turned_copies(run))
    for image, row in images.iterrows():
        assert found.loc[[image], "turn"].tolist() == list(range(expected[row["y"]]))
    assert len(found) == sum(expected[y] for y in images["y"])
    assert found.index.drop_duplicates().equals(images.index)


def test_copies_and_undersampling_stay_inside_the_training_folds(make_run: Make) -> None:
    fit = fit_of(make_run(turned=("1", "3")), "scratch", undersample=1.0)
    assert set(fit.samples.index) == set(fit.images.index) and not (fit.samples["fold"] == "0").any()
    assert fit.samples["turn"].max() == 3 and set(fit.samples["role"]) == {"fold"}


def test_a_copy_is_turned_before_it_is_augmented_and_draws_for_itself(make_bags: Make) -> None:
    run = make_bags(count=6)
    ids = dataset.labelled(run).index.to_numpy(dtype=object)
    plain = samples(run, strength=0.0, bag=99)
    for turn in range(1, 4):
        copies = samples(run, strength=0.0, bag=99, turns=np.full(len(ids), turn))
        for n in range(len(ids)):
            upright = {np.rot90(tile, turn).tobytes() for tile in plain[(2, n)][0]}
            assert {tile.tobytes() for tile in copies[(2, n)][0]} == upright
    jittered = samples(run, turns=np.full(len(ids), 2), bag=99)
    np.testing.assert_array_equal(jittered[(2, 4)][0], jittered[(2, 4)][0])
    assert jittered[(2, 4)][0].tobytes() != samples(run, bag=99)[(2, 4)][0].tobytes()


@pytest.mark.parametrize(
    "given", [("1",), ("1", "2", "3"), ("1", "4"), ("-1", "0"), ("1.0", "2"), ("a", "b")]
)
def test_turned_copies_that_make_no_sense_are_refused_with_what_to_write(
    given: tuple[str, ...], make_run: Make
) -> None:
    with pytest.raises(SettingError, match=f"train.turned is '{','.join(given)}', for 2 classes") as caught:
        dataset.turned_copies(make_run(turned=given))
    assert "each of a, b" in caught.value.hint and "train.turned=1,3" in caught.value.hint


def test_an_image_without_a_label_has_no_copies_and_tiles_of_its_own_split(make_bags: Make) -> None:
    run = make_bags()
    (run.folder("tile") / "test").rename(run.folder("tile") / "extra")

    def rename(table: pd.DataFrame) -> None:
        table.loc[table["split"] == "test", "split"] = "extra"

    change_images(run, rename)
    images = dataset.labelled(run)
    others = pd.DataFrame({"role": "extra", "y": -1}, index=pd.Index(["t1", "t2"], dtype=object))
    table = dataset.with_copies(pd.concat([images, others]), np.array([1, 3]))
    assert table.loc[["t1", "t2"], "turn"].tolist() == [0, 0]
    model = models.parse("test_efficientnet:scratch", run.competition.training)
    bags = replace(dataset.tile_bags(run, model, table, "fit"), strength=0.0, bag=99)
    assert all(stored.path is not None for stored in bags.pixels.values())
    stored = store.read(store.path_of(run.folder("tile"), "extra", "t2")).decode()
    shown, n = bags[(0, len(table) - 1)]
    assert n == len(table) - 1 and {t.tobytes() for t in shown} == {t.tobytes() for t in stored}


def test_packed_bags_keep_their_tiles_together_channels_first() -> None:
    first, second = np.full((2, 4, 4, 3), (1, 2, 3), np.uint8), np.full((1, 4, 4, 3), 9, np.uint8)
    tiles, counts, rows = pack([(first, 7), (second, 2)])
    assert tiles.shape == (3, 3, 4, 4) and tiles[0, :, 0, 0].tolist() == [1, 2, 3]
    assert tiles.is_contiguous(memory_format=torch.channels_last)
    assert counts.tolist() == [2, 1] and rows.tolist() == [7, 2]


def test_a_batch_says_which_tile_is_of_which_bag(make_bags: Make) -> None:
    bags = samples(make_bags())
    for packed, rows in loader(bags, epochs(30, 8, 0, 1), 0):
        counts = [len(bags[(0, n)][0]) for n in rows.tolist()]
        assert packed.bag.tolist() == np.repeat(np.arange(len(counts)), counts).tolist()
        assert packed.bags == len(rows) and packed.weight.tolist() == [1] * len(packed.tiles)


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
