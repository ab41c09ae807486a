"""Stored embeddings: kept in chunks, exact after a kill, and those of the tile whoever is beside it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kit.files import read_strings, write_table
from kit.learn import embed, encode, models, views
from kit.learn.bags import BagModel
from kit.learn.dataset import ids_with_tiles
from kit.learn.models import Model
from kit.read import store
from kit.state import Run

Make = Callable[..., Run]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "CHUNK", 8)
    monkeypatch.setattr(embed, "_CACHE", {})


def frozen(run: Run, count: int = 1, spec: str = "test_efficientnet:frozen") -> Model:
    return models.parse(spec, dataclasses.replace(run.competition.training, views=count))  # type: ignore[arg-type]


def embedded(run: Run, count: int = 1, split: str = "train", turns: tuple[int, ...] = (0,)) -> embed.Embedded:
    return embed.embeddings(run, frozen(run, count), split, turns)


def chunks(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.folder("embed").rglob("*.npz"))}


def changed(run: Run, before: dict[str, int]) -> list[str]:
    return sorted(name for name, time in times(run).items() if before.get(name) != time)


def times(run: Run) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in run.folder("embed").rglob("*.npz")}


def one(run: Run, pattern: str) -> Path:
    (path,) = run.folder("embed").rglob(pattern)
    return path


def test_a_lost_view_of_a_chunk_is_computed_again_to_the_same_bytes_and_the_others_are_left(
    make_run: Make,
) -> None:
    run = make_run()
    first, before = embedded(run, 2), chunks(run)
    assert len(before) == 8 and first.features.shape == (30, 2, 256)
    then = times(run)
    one(run, "train-00002-r180.npz").unlink()
    again = embedded(run, 2)
    assert chunks(run) == before
    np.testing.assert_array_equal(again.features, first.features)
    assert changed(run, then) == ["train-00002-r180.npz"]


@pytest.mark.parametrize("damage", [b"", b"not an archive", "half"])
def test_a_damaged_chunk_is_computed_again(damage: bytes | str, make_run: Make) -> None:
    run = make_run()
    embedded(run)
    before, path = chunks(run), one(run, "train-00001-r0.npz")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if isinstance(damage, str) else damage)
    embedded(run)
    assert chunks(run) == before


def test_embeddings_stay_with_their_images_when_another_one_becomes_readable(make_run: Make) -> None:
    """A decoder that is installed later changes which images have tiles, and not the key of `tile`."""
    run = make_run()
    expected = embedded(run)
    images = read_strings(run.folder("tile") / "images.csv")
    other = make_run(folder="other")
    broken = images.assign(tiles=images["tiles"].mask(images["image_id"] == "p0-0", "0"))
    write_table(other.folder("tile") / "images.csv", broken)
    assert len(embedded(other).ids) == 29
    write_table(other.folder("tile") / "images.csv", images)
    found = embedded(other)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.features, expected.features)


def test_an_embedding_does_not_depend_on_its_company(make_bags: Make) -> None:
    run = make_bags()
    model, known = embed.frozen_encoder(run, frozen(run)), embedded(run)
    for image in known.ids[[0, 7, 29]]:
        (tiles,) = embed.read_all(run, "train", [image])
        alone = encode.forward(model, tiles.decode(), 8)
        mine = known.take(np.array([image], object)).mean_features()
        np.testing.assert_allclose(alone, mine, atol=1e-5)
    assert float(known.features.std(axis=0).max()) > 1e-3, "features that differ from tile to tile"


def test_more_views_add_files_to_those_that_are_there(make_run: Make) -> None:
    run = make_run()
    plain, then = embedded(run), times(run)
    viewed = embedded(run, 8)
    assert len(times(run)) == 8 * len(then) and not set(changed(run, then)) & set(then)
    assert viewed.symmetries == tuple(range(8))
    np.testing.assert_array_equal(viewed.features[:, 0], plain.features[:, 0])
    assert embedded(run, 4).features.shape == (30, 4, 256) and len(times(run)) == 32


def test_the_mean_over_all_views_does_not_know_how_a_tile_lay(make_run: Make) -> None:
    run = make_run()
    known = embedded(run, 4)
    np.testing.assert_allclose(known.mean_features(), known.features.mean(axis=1), atol=1e-6)
    before = known.mean_features()
    for image in ids_with_tiles(run, "train"):
        path = store.path_of(run.folder("tile"), "train", image)
        tiles = store.read(path)
        pixels = [np.rot90(tile) for tile in tiles.decode()]
        store.write(path, store.packed(tiles.header, pixels, tiles.x, tiles.y, tiles.size, tiles.tissue))
    for path in run.folder("embed").rglob("*.npz"):
        path.unlink()
    np.testing.assert_allclose(embedded(run, 4).mean_features(), before, atol=1e-5)
    assert np.abs(embedded(run, 1).mean_features() - known.features[:, 0]).max() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_turned_copy_is_seen_by_its_own_views(count: int, make_run: Make) -> None:
    run = make_run()
    known = embedded(run, count, turns=(0, 1, 2, 3))
    model = embed.frozen_encoder(run, frozen(run))
    (tiles,) = embed.read_all(run, "train", ["p0-0"])
    for turn in range(4):
        lying = torch.from_numpy(np.rot90(tiles.decode(), turn, axes=(1, 2)).copy()).permute(0, 3, 1, 2)
        group = [views.turned(lying, number) for number in views.SUBGROUPS[count]]
        seen = [encode.forward(model, view.permute(0, 2, 3, 1).numpy(), 8)[0] for view in group]
        expected = np.mean(seen, axis=0)
        np.testing.assert_allclose(known.mean_features(turn)[0], expected, atol=1e-5)


def test_only_what_training_turns_is_turned_and_read_once(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(turned=("0", "1"), views=2)
    (model,) = models.of_run(run)
    known = embed.stored(run, model)
    assert known.symmetries == (0, 1, 2, 3) and embed.stored(run, model, "test").symmetries == (0, 2)
    monkeypatch.setattr(embed, "embeddings", None)
    for other in (model.having({"pool": "max"}), dataclasses.replace(model, seed=3)):
        assert embed.stored(run, other).features is known.features


def test_what_is_drawn_later_does_not_depend_on_what_was_embedded_before(make_run: Make) -> None:
    run = make_run(pool="attention")
    found = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            embedded(run)
            found.append(torch.rand(1))
    assert torch.equal(*found)


def test_sections_clots_and_weights_stay_with_their_tiles(
    make_bags: Make, cut: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_bags()
    cut(run, 3, 2)
    made = embedded(run)
    monkeypatch.setattr(embed, "frozen_encoder", None)
    for stored in (made, embedded(run)):
        assert 0.5 in stored.weight
        taken = stored.take(stored.ids[::-3])
        start = 0
        for image, count in zip(taken.ids, taken.counts, strict=True):
            (tiles,) = embed.read_all(run, "train", [image])
            assert len(tiles) == count
            for name in ("section", "clot", "weight"):
                mine = getattr(taken, name)[start : start + count]
                np.testing.assert_array_equal(mine, getattr(tiles, name))
            start += count


def test_a_chunk_without_sections_is_computed_again(make_bags: Make) -> None:
    run = make_bags()
    embedded(run)
    before, path = chunks(run), one(run, "train-00001-r0.npz")
    with np.load(path) as content:
        np.savez(path, **{name: content[name] for name in ("ids", "counts", "features")})
    assert chunks(run) != before
    embedded(run)
    assert chunks(run) == before


def test_bags_are_taken_in_the_order_asked_for(make_bags: Make) -> None:
    stored = embedded(make_bags())
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
    found = embedded(run, split="test")
    assert list(found.ids) == list(ids_with_tiles(run, "test")) and list(chunks(run)) == ["test-00000-r0.npz"]


def test_the_key_knows_what_changes_numbers_and_not_what_does_not(
    make_run: Make, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()

    def key(other: Run, count: int = 2, spec: str = "test_efficientnet:frozen") -> str:
        return embed.key(other, frozen(other, count, spec))

    same = key(run)
    assert key(make_run(workers=2, epochs=99, lr=0.5, pool="max", bag=2, augment=0.1, drop=0.3)) == same
    assert key(run, count=8) == key(run, spec="other = test_efficientnet:frozen; lr=0.3") == same
    longer = tmp_path / "longer.safetensors"
    longer.write_bytes(weights.read_bytes() + b" ")
    others = [
        key(make_run(infer_batch=9)),
        key(run, spec="test_efficientnet:frozen:24"),
        key(run, spec="test_efficientnet:frozen; layers=all"),
        key(dataclasses.replace(run, threads=2)),
        key(dataclasses.replace(run, weights={"test_efficientnet": longer})),
    ]
    assert len({same, *others}) == 6
    monkeypatch.setattr(embed, "VERSION", embed.VERSION + 1)
    assert key(run) not in {same, *others}


def test_tiles_of_another_size_or_all_layers_are_other_embeddings(make_run: Make) -> None:
    run = make_run()
    plain = embedded(run, split="test")
    resized = embed.embeddings(run, frozen(run, 1, "test_efficientnet:frozen:24"), "test")
    assert resized.features.shape == (4, 1, 256) and not np.allclose(resized.features, plain.features)
    every = embed.embeddings(run, frozen(run, 1, "test_efficientnet:frozen; layers=all"), "test")
    assert every.features.shape[2] > 256
    np.testing.assert_allclose(every.features[:, :, -256:], plain.features, atol=1e-5)
    folders = sorted(path.name[:-13] for path in run.folder("embed").iterdir())
    names = ["test_efficientnet-frozen", "test_efficientnet-frozen-24", "test_efficientnet-frozen-all"]
    assert folders == names


def test_what_other_settings_left_is_removed_and_nothing_else(
    make_run: Make, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    caplog.set_level(logging.INFO, logger="kit")
    folder = run.folder("embed")
    stay = ["test_efficientnet-frozen-24-0123456789ab", "test_efficientnet-frozen-0123", "mine"]
    go = "test_efficientnet-frozen-0123456789ab"
    for name in (*stay, go):
        (folder / name).mkdir(parents=True)
        (folder / name / "train-00000-r0.npz").write_bytes(bytes(3 << 20))
    embedded(run)
    assert {path.name for path in folder.iterdir()} >= set(stay) and not (folder / go).exists()
    assert f"{go}, embeddings of other settings: 3 MiB" in caplog.text


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
