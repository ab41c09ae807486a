"""What an epoch shows of every bag: distinct tiles, one section a clot, turned copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kit import seeds
from kit.errors import SettingError
from kit.learn import train
from kit.learn.dataset import labelled, read_tiles, split_batches
from kit.learn.predict import predict_images
from kit.learn.train import Fit
from kit.state import Run
from tests.learn.fits import Stopped, fit_of, stopping, weights_of

Make = Callable[..., Run]
MODES = ("frozen", "scratch")


def test_views_are_drawn_as_often_as_the_strength_says() -> None:
    draw = np.random.default_rng(0)
    counts = np.bincount(train._draw_views(draw, 30000, 3, 0.5), minlength=3) / 30000
    np.testing.assert_allclose(counts, [0.5, 0.25, 0.25], atol=0.02)
    assert not train._draw_views(draw, 1000, 3, 0.0).any()
    assert not train._draw_views(draw, 1000, 1, 1.0).any()


def test_every_epoch_of_embeddings_draws_distinct_tiles_of_every_bag(make_bags: Make) -> None:
    run = make_bags(count=6, views=1)
    fit = fit_of(run, bag=3)
    stored = train.stored_embeddings(run, fit.backbone, 1).take(fit.images.index.to_numpy(dtype=object))
    seen: dict[int, list[int]] = {}
    drawn = set()
    for epoch, packed, rows in train._embedding_batches(fit, stored, 4):
        seen.setdefault(epoch, []).extend(rows.tolist())
        counts = torch.bincount(packed.bag, minlength=packed.bags)
        assert counts.tolist() == [min(3, stored.counts[row]) for row in rows]
        for n, row in enumerate(rows):
            mine = {tile.numpy().tobytes() for tile in packed.tiles[packed.bag == n]}
            start = stored.counts[:row].sum()
            own = stored.features[start : start + stored.counts[row], 0]
            assert len(mine) == counts[n] and mine <= {tile.tobytes() for tile in own}
            drawn |= mine
    assert list(seen) == list(range(8)) and all(
        sorted(r) == list(range(len(fit.images))) for r in seen.values()
    )
    assert len(drawn) > 0.8 * len(stored.features), "all tiles have their turn"


def drawn(fit: Fit, views: int = 1) -> Iterator[tuple[int, int, Any]]:
    """Epoch, sample and tiles of every bag that the frozen mode draws."""
    stored = train.stored_embeddings(fit.run, fit.backbone, views)
    mine = stored.take(fit.images.index.to_numpy(dtype=object))
    for epoch, packed, rows in train._embedding_batches(fit, mine, 4):
        assert (packed.weight == 1).all(), "one section stands for a clot"
        for n, row in enumerate(rows.tolist()):
            yield epoch, row, packed.tiles[packed.bag == n].numpy()


def test_an_epoch_of_embeddings_shows_one_section_of_every_clot(
    make_bags: Make, cut: Callable[..., None]
) -> None:
    run = make_bags(count=9, views=1, epochs=20)
    cut(run, 4, 2)  # sections 0 and 2 are one clot, 1 and 3 the other
    fit = fit_of(run, bag=3)
    stored = train.stored_embeddings(run, fit.backbone, 1).take(fit.images.index.to_numpy(dtype=object))
    place = {tile.tobytes(): n for n, tile in enumerate(stored.features[:, 0])}
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


def reference(fit: Fit, stored: Any, batch: int) -> Iterator[tuple[list[int], bytes]]:
    """The draws of the frozen mode as they are where no clot repeats and no image is turned."""
    start = np.concatenate([[0], np.cumsum(stored.counts)])[:-1]
    owner = np.repeat(np.arange(len(start)), stored.counts)
    for epoch in range(fit.epochs):
        draw = seeds.rng(fit.run.seed, fit.purpose, "epoch", epoch)
        shuffled = np.lexsort((draw.random(len(owner)), owner))
        view = train._draw_views(draw, len(owner), stored.features.shape[1], fit.hyper.augment)
        for rows in split_batches(draw.permutation(len(start)), batch):
            tiles = np.concatenate(
                [shuffled[start[r] : start[r] + min(stored.counts[r], fit.hyper.bag)] for r in rows]
            )
            yield rows.tolist(), stored.features[tiles, view[tiles]].tobytes()


@pytest.mark.parametrize("parts", [None, 1, 3])
def test_embeddings_of_bags_in_which_no_clot_repeats_are_drawn_as_ever(
    parts: int | None, make_bags: Make, cut: Callable[..., None]
) -> None:
    run = make_bags(count=6)
    if parts:
        cut(run, parts, parts)
    fit = fit_of(run, bag=3)
    stored = train.stored_embeddings(run, fit.backbone, 2).take(fit.images.index.to_numpy(dtype=object))
    found = [(r.tolist(), p.tiles.numpy().tobytes()) for _, p, r in train._embedding_batches(fit, stored, 4)]
    assert found == list(reference(fit, stored, 4))


def test_copies_of_an_image_are_its_turned_views(make_run: Make) -> None:
    run = make_run(turned=("1", "3"), views=1, epochs=2)
    fit = fit_of(run)
    mine = fit.images
    stored = train.stored_embeddings(run, fit.backbone, 1)
    assert stored.features.shape[1] == 1 + 3
    views = stored.take(mine.index.to_numpy(dtype=object)).features
    shown = [(epoch, tiles[0].tobytes()) for epoch, _, tiles in drawn(fit)]
    for epoch in (0, 1):
        expected = [
            views[n, turn].tobytes() for n, y in enumerate(mine["y"]) for turn in range(1 + (1, 3)[y])
        ]
        assert sorted(tiles for now, tiles in shown if now == epoch) == sorted(expected)


def test_every_epoch_of_tiles_shows_the_turned_copies(make_run: Make) -> None:
    run = make_run(turned=("1", "3"), finetune_epochs=2)
    fit = fit_of(run, "scratch", augment=0.0)
    expected = [
        np.rot90(read_tiles(run, "train", image, 0)[0][0], turn).tobytes()
        for image, y in fit.images["y"].items()
        for turn in range(1 + (1, 3)[y])
    ]
    shown: dict[int, list[bytes]] = {0: [], 1: []}
    for epoch, packed, rows in train._tile_batches(fit)(0):
        assert len(rows) == len(packed.tiles)
        shown[epoch] += [tile.permute(1, 2, 0).numpy().tobytes() for tile in packed.tiles]
    assert sorted(shown[0]) == sorted(shown[1]) == sorted(expected)


@pytest.mark.parametrize("mode", MODES)
def test_turned_copies_change_the_class_shares_and_the_steps_of_training_alone(
    mode: str, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(turned=("1", "3"), finetune_epochs=2, epochs=2)
    fit = fit_of(run, mode, lr=0.0)
    counts = np.bincount(fit.images["y"]) * (2, 4)
    steps = []
    whole = train._loop
    monkeypatch.setattr(train, "_loop", lambda *a: steps.append(a[3]) or whole(*a))
    model = train.train(fit)
    shares = torch.softmax(model.head.bias.detach(), dim=0).numpy()
    np.testing.assert_allclose(shares, (counts + 0.5) / (counts + 0.5).sum(), rtol=1e-5)
    assert steps == [counts.sum() // max(4, -(-counts.sum() // 16) if mode == "frozen" else 0)]
    ids = labelled(run).index.to_numpy(dtype=object)
    torch.nn.init.normal_(model.head.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    plain = make_run(folder="plain")
    found = [predict_images(r, fit.backbone, model, "train", ids) for r in (run, plain)]
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
    assert began == [2] and weights_of(resumed) == straight


def test_turned_copies_are_checked_before_hours_are_spent(make_run: Make) -> None:
    with pytest.raises(SettingError, match=r"train\.turned is '1', for 2 classes"):
        train.check(make_run(turned=("1",)))
