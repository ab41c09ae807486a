"""Stored embeddings: kept in chunks, exact after a kill, and those of the tile whoever is beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kit.files import read_strings, write_table
from kit.learn import augment, backbones, embed
from kit.learn.bags import BagModel
from kit.learn.dataset import ids_with_tiles, read_tiles
from kit.state import Run

Make = Callable[..., Run]
FROZEN = backbones.parse("test_efficientnet:frozen")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "CHUNK", 8)


def chunks(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.folder("embed").rglob("*.npz"))}


def one(run: Run, pattern: str) -> Path:
    (path,) = run.folder("embed").rglob(pattern)
    return path


def test_a_lost_chunk_is_computed_again_to_the_same_bytes_and_the_others_are_left(make_run: Make) -> None:
    run = make_run()
    first = embed.embeddings(run, FROZEN, "train", 2)
    before = chunks(run)
    assert len(before) == 4 and first.features.shape == (30, 2, 256)
    times = {path.name: path.stat().st_mtime_ns for path in run.folder("embed").rglob("*.npz")}
    one(run, "train-00002.npz").unlink()
    again = embed.embeddings(run, FROZEN, "train", 2)
    assert chunks(run) == before
    np.testing.assert_array_equal(again.features, first.features)
    changed = [p.name for p in run.folder("embed").rglob("*.npz") if p.stat().st_mtime_ns != times[p.name]]
    assert changed == ["train-00002.npz"]


@pytest.mark.parametrize("damage", [b"", b"not an archive", "half"])
def test_a_damaged_chunk_is_computed_again(damage: bytes | str, make_run: Make) -> None:
    run = make_run()
    embed.embeddings(run, FROZEN, "train", 1)
    before, path = chunks(run), one(run, "train-00001.npz")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if isinstance(damage, str) else damage)
    embed.embeddings(run, FROZEN, "train", 1)
    assert chunks(run) == before


def test_embeddings_stay_with_their_images_when_another_one_becomes_readable(make_run: Make) -> None:
    """A decoder that is installed later changes which images have tiles, and not the key of `tile`."""
    run = make_run()
    expected = embed.embeddings(run, FROZEN, "train", 1)
    images = read_strings(run.folder("tile") / "images.csv")
    other = make_run(folder="other")
    broken = images.assign(tiles=images["tiles"].mask(images["image_id"] == "p0-0", "0"))
    write_table(other.folder("tile") / "images.csv", broken)
    assert len(embed.embeddings(other, FROZEN, "train", 1).ids) == 29
    write_table(other.folder("tile") / "images.csv", images)
    found = embed.embeddings(other, FROZEN, "train", 1)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.features, expected.features)


def test_an_embedding_does_not_depend_on_its_company(make_bags: Make) -> None:
    run = make_bags()
    model = embed.frozen_encoder(run, FROZEN)
    stored = embed.embeddings(run, FROZEN, "train", 1)
    for image in stored.ids[[0, 7, 29]]:
        alone = embed.forward(model, read_tiles(run, "train", image, 0)[0], 8)
        mine = stored.take(np.array([image], object)).features[:, 0]
        np.testing.assert_allclose(alone, mine, atol=1e-5)
    assert float(stored.features.std(axis=0).max()) > 1e-3, "features that differ from tile to tile"


def test_a_short_last_pass_is_padded_and_the_padding_left_out(make_run: Make) -> None:
    run = make_run()
    sizes = []

    class Counted(BagModel):
        def embed(self, tiles: torch.Tensor) -> torch.Tensor:
            sizes.append(len(tiles))
            return super().embed(tiles)

    model = embed.frozen_encoder(run, FROZEN)
    model.__class__ = Counted
    tiles = np.concatenate([read_tiles(run, "train", f"p0-{n}", 0)[0] for n in range(3)])
    whole = embed.forward(model, tiles, 2)
    assert sizes == [2, 2] and whole.shape == (3, 256) and whole.dtype == np.float32
    np.testing.assert_allclose(embed.forward(model, tiles[2:], 2), whole[2:], atol=1e-5)


def test_the_first_view_is_the_tile_as_it_is_and_the_others_are_augmented(make_run: Make) -> None:
    run = make_run()
    plain, viewed = (embed.embeddings(run, FROZEN, "train", views) for views in (1, 3))
    np.testing.assert_allclose(viewed.features[:, 0], plain.features[:, 0], atol=1e-5)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        apart = np.abs(viewed.features[:, first] - viewed.features[:, second]).max(axis=1)
        assert (apart > 1e-4).mean() > 0.9
    tiles, _ = read_tiles(run, "train", "p0-0", 0)
    view = augment.apply(augment.make(1.0), tiles, run.seed, "view", 2, "p0-0")
    expected = embed.forward(embed.frozen_encoder(run, FROZEN), view, 8)
    np.testing.assert_allclose(viewed.features[:1, 2], expected, atol=1e-5)


def test_turned_views_follow_the_augmented_ones(make_run: Make) -> None:
    run = make_run()
    plain, turned = embed.embeddings(run, FROZEN, "train", 2), embed.embeddings(run, FROZEN, "train", 2, 3)
    assert turned.features.shape == (30, 5, 256)
    np.testing.assert_allclose(turned.features[:, :2], plain.features, atol=1e-5)
    model = embed.frozen_encoder(run, FROZEN)
    for n in (0, 17):
        tiles, _ = read_tiles(run, "train", turned.ids[n], 0)
        for turn in (1, 2, 3):
            expected = embed.forward(model, np.rot90(tiles, turn, axes=(1, 2)), 8)[0]
            np.testing.assert_allclose(turned.features[n, 1 + turn], expected, atol=1e-5)
        apart = np.abs(turned.features[n, 1:] - turned.features[n, 0]).max(axis=1)
        assert (apart > 1e-4).all()


def test_sections_clots_and_weights_stay_with_their_tiles(
    make_bags: Make, cut: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_bags()
    cut(run, 3, 2)
    made = embed.embeddings(run, FROZEN, "train", 1)
    monkeypatch.setattr(embed, "frozen_encoder", None)
    for stored in (made, embed.embeddings(run, FROZEN, "train", 1)):
        assert 0.5 in stored.weight
        taken = stored.take(stored.ids[::-3])
        start = 0
        for image, count in zip(taken.ids, taken.counts, strict=True):
            _, tiles = read_tiles(run, "train", image, 0)
            assert len(tiles) == count
            for name in ("section", "clot", "weight"):
                mine = getattr(taken, name)[start : start + count]
                np.testing.assert_array_equal(mine, getattr(tiles, name))
            start += count


def test_a_chunk_without_sections_is_computed_again(make_bags: Make) -> None:
    run = make_bags()
    embed.embeddings(run, FROZEN, "train", 1)
    before, path = chunks(run), one(run, "train-00001.npz")
    with np.load(path) as content:
        np.savez(path, **{name: content[name] for name in ("ids", "counts", "features")})
    assert chunks(run) != before
    embed.embeddings(run, FROZEN, "train", 1)
    assert chunks(run) == before


def test_bags_are_taken_in_the_order_asked_for(make_bags: Make) -> None:
    stored = embed.embeddings(make_bags(), FROZEN, "train", 1)
    assert len(set(stored.counts)) > 2 and stored.counts.sum() == len(stored.features)
    wanted = stored.ids[[4, 0, 29]]
    taken = stored.take(wanted)
    start = np.concatenate([[0], np.cumsum(stored.counts)])
    np.testing.assert_array_equal(taken.counts, stored.counts[[4, 0, 29]])
    expected = np.concatenate([stored.features[start[n] : start[n + 1]] for n in (4, 0, 29)])
    np.testing.assert_array_equal(taken.features, expected)
    assert len(stored.take(stored.ids[:0]).features) == 0
    with pytest.raises(KeyError, match="gone"):
        stored.take(np.array(["gone"], object))


def test_the_splits_have_chunks_of_their_own(make_run: Make) -> None:
    run = make_run()
    found = embed.embeddings(run, FROZEN, "test", 1)
    assert list(found.ids) == list(ids_with_tiles(run, "test")) and list(chunks(run)) == ["test-00000.npz"]


def test_the_key_knows_what_changes_numbers_and_not_what_does_not(
    make_run: Make, weights: Path, tmp_path: Path
) -> None:
    run = make_run()

    def key(other: Run, views: int = 2, spec: str = "test_efficientnet:frozen") -> str:
        return embed.key(other, backbones.parse(spec), views)

    same = key(run)
    assert key(make_run(workers=2, epochs=99, lr=0.5)) == same
    longer = tmp_path / "longer.safetensors"
    longer.write_bytes(weights.read_bytes() + b" ")
    others = [
        key(run, views=3),
        embed.key(run, FROZEN, 2, 1),
        key(make_run(infer_batch=9)),
        key(make_run(seed=1)),
        key(dataclasses.replace(run, threads=2)),
        key(dataclasses.replace(run, weights={"test_efficientnet": longer})),
    ]
    assert len({same, *others}) == 7 and embed.key(run, FROZEN, 2, 0) == same
    resized = backbones.parse("test_efficientnet:frozen:24")
    assert embed.embeddings(run, resized, "test", 1).features.shape == (4, 1, 256)
    assert not np.allclose(
        embed.embeddings(run, FROZEN, "test", 1).features, embed.embeddings(run, resized, "test", 1).features
    )


def test_standardised_embeddings_have_a_squared_norm_of_about_one() -> None:
    draw = np.random.default_rng(0)
    features = (draw.normal(size=(500, 40)) * draw.uniform(0.1, 50, 40) + 7).astype(np.float32)
    model = BagModel(None, 40, 2, "mean", 0.0)
    embed.standardise(model, features)
    found = model.embed(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose((found**2).sum(axis=1).mean(), 1, rtol=1e-3)


def test_a_constant_feature_is_not_blown_up() -> None:
    features = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    features[:, 2] = 3
    model = BagModel(None, 4, 2, "mean", 0.0)
    embed.standardise(model, features)
    odd = np.float32([[0, 0, 3.001, 0]])
    assert abs(float(model.embed(torch.from_numpy(odd))[0, 2])) < 1
    embed.standardise(model, np.ones((5, 4), np.float32))
    assert torch.isfinite(model.embed(torch.ones(1, 4))).all()
