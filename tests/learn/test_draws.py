"""What an epoch shows of every bag: distinct tiles, one section a clot, turned copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kit.errors import SettingError
from kit.learn import embed, sources, train
from kit.learn.dataset import labelled
from kit.learn.fit import Fit
from kit.learn.predict import predict_images
from kit.state import Run
from tests.learn.fits import Stopped, fit_of, stopping, weights_of

Make = Callable[..., Run]
MODES = ("frozen", "scratch")


def drawn(fit: Fit) -> Iterator[tuple[int, int, Any]]:
    """Epoch, sample and standardised tiles of every bag that the frozen mode draws."""
    _, source = sources.embedded(fit, None)
    batches = source.batches(0, 0)
    for epoch in range(fit.model.epochs):
        for size in source.sizes:
            packed, rows = next(batches)
            assert (packed.weight == 1).all(), "one section stands for a clot"
            assert len(rows) == packed.bags == size
            for n, row in enumerate(rows.tolist()):
                yield epoch, row, packed.tiles[packed.bag == n].numpy()


def known(fit: Fit) -> tuple[embed.Embedded, np.ndarray]:
    """The embeddings of a fit's images, and their standardised mean features."""
    stored = embed.stored(fit.run, fit.model).take(fit.images.index.to_numpy(dtype=object))
    mean = stored.mean_features()
    network = embed.new_head(fit.run, fit.model, mean)
    return stored, (mean - network.center.numpy()) / network.spread.numpy()


def test_every_epoch_of_embeddings_draws_distinct_tiles_of_every_bag(make_bags: Make) -> None:
    fit = fit_of(make_bags(count=6), bag=3, pool="max")
    stored, rows = known(fit)
    place = {tile.tobytes(): n for n, tile in enumerate(rows)}
    start = np.cumsum(stored.counts) - stored.counts
    seen: dict[int, list[int]] = {}
    shown = set()
    for epoch, row, tiles in drawn(fit):
        seen.setdefault(epoch, []).append(row)
        mine = {place[tile.tobytes()] for tile in tiles}
        assert len(mine) == len(tiles) == min(3, stored.counts[row])
        assert mine <= set(range(start[row], start[row] + stored.counts[row]))
        shown |= mine
    assert list(seen) == list(range(8))
    assert all(sorted(r) == list(range(len(fit.images))) for r in seen.values())
    assert len(shown) > 0.8 * len(rows), "all tiles have their turn"


def test_a_mean_of_tiles_is_what_the_pool_would_say(make_bags: Make) -> None:
    run = make_bags(count=6)
    for (_, one, mean), (_, other, tiles) in zip(
        drawn(fit_of(run, bag=3)), drawn(fit_of(run, bag=3, pool="attention")), strict=True
    ):
        assert one == other
        np.testing.assert_allclose(mean[0], tiles.mean(axis=0), atol=1e-6)


def test_a_share_of_the_drawn_tiles_is_left_out_again(make_bags: Make) -> None:
    run = make_bags(count=6)
    counts = [[len(t) for _, _, t in drawn(fit_of(run, bag=6, pool="max", bag_drop=p))] for p in (0.0, 0.5)]
    assert 0.4 < sum(counts[1]) / sum(counts[0]) < 0.75 and min(counts[1]) == 1


def test_a_tile_shows_one_view_as_often_as_the_strength_says(make_bags: Make) -> None:
    run = make_bags(count=6, views=4, epochs=40)
    _, mean = known(fit_of(run))
    means = {row.tobytes() for row in mean}
    found = [
        tile.tobytes() in means
        for _, _, tiles in drawn(fit_of(run, augment=0.25, pool="max"))
        for tile in tiles
    ]
    assert np.mean(found) == pytest.approx(0.75, abs=0.03)
    assert all(
        tile.tobytes() in means for _, _, t in drawn(fit_of(run, augment=0.0, pool="max")) for tile in t
    )


def test_undersampling_shows_others_of_the_frequent_class_each_time(make_run: Make) -> None:
    fit = fit_of(make_run(turned=("3", "0")), undersample=1.0)
    epochs: dict[int, list[int]] = {}
    for epoch, row, _ in drawn(fit):
        epochs.setdefault(epoch, []).append(row)
    y = fit.samples["y"].to_numpy()
    rare = int((y == 1).sum())
    assert all(np.bincount(y[rows]).tolist() == [rare, rare] for rows in epochs.values())
    assert len({tuple(sorted(rows)) for rows in epochs.values()}) > 1


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("bag", [1, 3])
def test_oversampling_shows_rare_bags_of_embeddings_again_in_other_draws(
    pool: str, bag: int, make_bags: Make
) -> None:
    run = make_bags(count=6, views=4, epochs=6)
    fit = fit_of(run, oversample=40, pool=pool, bag=bag, augment=1.0, drop=0.0)
    y = fit.samples["y"].to_numpy()
    shown: dict[tuple[int, int], list[bytes]] = {}
    epochs: dict[int, list[int]] = {}
    for epoch, row, tiles in drawn(fit):
        shown.setdefault((epoch, row), []).append(tiles.tobytes())
        epochs.setdefault(epoch, []).append(row)
    assert all(np.bincount(y[rows]).tolist() == [40, 40] for rows in epochs.values())
    twice = [found for found in shown.values() if len(found) > 1]
    assert np.mean([len(set(found)) > 1 for found in twice]) > 0.7, "not the same draw again"
    plain = {
        (e, row): tiles.tobytes() for e, row, tiles in drawn(fit_of(run, pool=pool, bag=bag, augment=1.0))
    }
    assert all(plain[key] in found for key, found in shown.items()), "the first time is as without"


def test_of_bags_that_are_shown_again_no_more_is_placed_than_is_shown(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fit_of(make_run(), oversample=400, augment=1.0)
    plain, placed = sources.Drawn._placed, list[int]()

    def noted(
        self: sources.Drawn, epoch: int, ids: sources.Integers
    ) -> tuple[torch.Tensor, sources.Integers]:
        place, counts = plain(self, epoch, ids)
        placed.append(len(place))
        assert len(counts) == len(ids)
        return place, counts

    monkeypatch.setattr(sources.Drawn, "_placed", noted)
    _, source = sources.embedded(fit, None)
    shown = sum(len(packed.tiles) for packed in source.bags(0))
    assert sum(source.sizes) == 800 and placed == [shown]


def test_a_class_that_is_shown_more_is_expected_as_often(make_run: Make) -> None:
    fit = fit_of(make_run(), oversample=50)
    _, source = sources.embedded(fit, None)
    assert torch.bincount(source.shown(0.0, 50)).tolist() == [50, 50]
    assert sum(source.sizes) == 100


def test_an_epoch_of_embeddings_shows_one_section_of_every_clot(
    make_bags: Make, cut: Callable[..., None]
) -> None:
    run = make_bags(count=9, views=1, epochs=20)
    cut(run, 4, 2)  # sections 0 and 2 are one clot, 1 and 3 the other
    fit = fit_of(run, bag=3, pool="max")
    stored, mean = known(fit)
    place = {tile.tobytes(): n for n, tile in enumerate(mean)}
    owner = np.repeat(np.arange(len(stored.counts)), stored.counts)
    shown: dict[tuple[int, int], set[int]] = {}
    for _, row, tiles in drawn(fit):
        found = np.array([place[tile.tobytes()] for tile in tiles])
        assert (owner[found] == row).all() and len(set(found)) == len(found)
        sections = set(stored.section[found].tolist())
        assert len({section % 2 for section in sections}) == len(sections), "two sections of one clot"
        mine = stored.section[owner == row]
        sizes = [sorted(np.unique(mine[mine % 2 == clot], return_counts=True)[1]) for clot in (0, 1)]
        least, most = (sum(part[end] for part in sizes if part) for end in (0, -1))
        assert min(3, least) <= len(found) <= min(3, most)
        for section in sections:
            shown.setdefault((row, section % 2), set()).add(section)
    present = {(row, s % 2): set() for row, s in zip(owner, stored.section, strict=True)}
    for row, section in zip(owner, stored.section, strict=True):
        present[(row, section % 2)].add(section)
    assert shown == present, "every section has its turn"


@pytest.mark.parametrize("count", [1, 2])
def test_copies_of_an_image_are_its_turned_views(count: int, make_run: Make) -> None:
    run = make_run(turned=("1", "3"), views=count, epochs=2)
    fit = fit_of(run, augment=0.0)
    stored, mean = known(fit)
    network = embed.new_head(run, fit.model, stored.mean_features())
    turned = {
        turn: (stored.mean_features(turn) - network.center.numpy()) / network.spread.numpy()
        for turn in range(4)
    }
    assert np.array_equal(turned[0], mean)
    shown = [(epoch, tiles[0].tobytes()) for epoch, _, tiles in drawn(fit)]
    for epoch in (0, 1):
        expected = [
            turned[t][n].tobytes() for n, y in enumerate(fit.images["y"]) for t in range(1 + (1, 3)[y])
        ]
        assert sorted(tiles for now, tiles in shown if now == epoch) == sorted(expected)


def test_a_batch_in_the_middle_is_the_same_from_wherever_one_begins(make_bags: Make) -> None:
    fit = fit_of(make_bags(count=6, views=2), bag=3)
    _, source = sources.embedded(fit, None)
    whole = list(source.batches(0, 0))
    rest = list(source.batches(2, 3))
    assert len(rest) == len(whole) - 2 * len(source.sizes) - 3
    for (packed, rows), (other, same) in zip(rest, whole[-len(rest) :], strict=True):
        assert torch.equal(packed.tiles, other.tiles) and torch.equal(rows, same)


def test_every_epoch_of_tiles_shows_the_turned_copies(make_run: Make) -> None:
    run = make_run(turned=("1", "3"), finetune_epochs=2)
    fit = fit_of(run, "scratch", augment=0.0)
    expected = [
        np.rot90(tiles.decode()[0], turn).tobytes()
        for tiles, y in zip(embed.read_all(run, "train", fit.images.index), fit.images["y"], strict=True)
        for turn in range(1 + (1, 3)[y])
    ]
    shown: dict[int, list[bytes]] = {0: [], 1: []}
    source = sources.tiles(fit, None)
    for n, (packed, rows) in enumerate(source.batches(0, 0)):
        assert len(rows) == len(packed.tiles)
        shown[n // len(source.sizes)] += [tile.permute(1, 2, 0).numpy().tobytes() for tile in packed.tiles]
    assert sorted(shown[0]) == sorted(shown[1]) == sorted(expected)


@pytest.mark.parametrize("mode", MODES)
def test_turned_copies_change_the_class_shares_and_the_steps_of_training_alone(
    mode: str, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(turned=("1", "3"), finetune_epochs=2, epochs=2)
    fit = fit_of(run, mode, lr=0.0)
    counts = np.bincount(fit.images["y"]) * (2, 4)
    model = train.train(fit)
    shares = torch.softmax(model.head.bias.detach(), dim=0).numpy()
    np.testing.assert_allclose(shares, (counts + 0.5) / (counts + 0.5).sum(), rtol=1e-5)
    source = sources.embedded(fit, None)[1] if mode == "frozen" else sources.tiles(fit, None)
    assert sum(source.sizes) == counts.sum()
    assert len(source.sizes) == counts.sum() // max(4, -(-counts.sum() // 16) if mode == "frozen" else 0)
    ids = labelled(run).index.to_numpy(dtype=object)
    torch.nn.init.normal_(model.head.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    plain = make_run(folder="plain")
    found = [predict_images(r, fit.model, model, "train", ids) for r in (run, plain)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert len(found[0]) == len(ids)


def test_a_fit_with_copies_that_was_stopped_goes_on_to_the_same_bytes(
    make_bags: Make, cut: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_bags(turned=("0", "2"), drop=0.5)
    cut(run, 3, 2)
    fit, checkpoint = fit_of(run, "scratch"), tmp_path / "fit.ckpt"
    straight = weights_of(train.train(fit))
    with monkeypatch.context() as patch:
        stopping(patch, 2 * (len(fit.samples) // 4) + 1)
        with pytest.raises(Stopped):
            train.train(fit, checkpoint)
    with monkeypatch.context() as patch:
        began = stopping(patch, -1)
        resumed = train.train(fit, checkpoint)
    assert began == [(2, 0)] and weights_of(resumed) == straight


def test_turned_copies_are_checked_before_hours_are_spent(make_run: Make) -> None:
    with pytest.raises(SettingError, match=r"train\.turned is '1', for 2 classes"):
        train.check(make_run(turned=("1",)))
