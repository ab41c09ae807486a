"""Fitting: the same weights each time, after a stop, and with any number of workers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from sklearn.metrics import roc_auc_score

from kit import seeds, state
from kit.errors import SettingError, WeightsError
from kit.learn import backbones, train
from kit.learn.bags import BagModel
from kit.learn.dataset import labelled, read_tiles, split_batches
from kit.learn.predict import predict_images
from kit.learn.train import Fit
from kit.state import Run

Make = Callable[..., Run]
MODES = ("frozen", "scratch")


def fit_of(run: Run, mode: str = "frozen", purpose: str = "fit", **settings: object) -> Fit:
    """A fit on every fold but the first."""
    backbone = backbones.parse(f"test_efficientnet:{mode}")
    images = labelled(run)
    images = images[(images["role"] == "fold") & (images["fold"] != "0")]
    hyper = train.defaults(run.competition.training, backbone.mode)
    return Fit(run, backbone, dataclasses.replace(hyper, **settings), images, purpose)  # type: ignore[arg-type]


def weights_of(model: BagModel) -> bytes:
    return save({k: v.contiguous() for k, v in model.state_dict().items()})


def judged(fit: Fit, model: BagModel) -> float:
    """AUC on the fold that was left out."""
    images = labelled(fit.run)
    mine = images[(images["role"] == "fold") & (images["fold"] == "0")]
    found = predict_images(fit.run, fit.backbone, model, "train", mine.index.to_numpy(dtype=object))
    return float(roc_auc_score(mine["y"], found[:, 1]))


@pytest.mark.parametrize("mode", [*MODES, "finetune"])
def test_a_fit_gives_the_same_bytes_each_time_and_disturbs_no_global_draw(mode: str, make_run: Make) -> None:
    fit = fit_of(make_run(), mode)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = weights_of(train.train(fit))
    assert torch.equal(torch.rand(3), expected)
    torch.rand(7)
    assert weights_of(train.train(fit)) == first


@pytest.mark.parametrize("mode", MODES)
def test_another_purpose_or_seed_gives_another_model(mode: str, make_run: Make) -> None:
    run = make_run()
    fits = [fit_of(run, mode), fit_of(run, mode, "other"), fit_of(make_run(folder="s", seed=1), mode)]
    assert len({weights_of(train.train(fit)) for fit in fits}) == 3


def test_the_number_of_loader_workers_changes_no_byte(make_run: Make) -> None:
    found = {weights_of(train.train(fit_of(make_run(workers=n), "scratch"))) for n in (0, 2)}
    assert len(found) == 1


class Stopped(Exception):
    """A kill, as a test can make one."""


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """Let the loader die after some batches; returns the epoch that each loader begins with."""
    whole, began = train.loader, []

    def broken(bags: Any, sampler: Any, workers: int) -> Iterator[Any]:
        began.append(sampler.first)
        for n, batch in enumerate(whole(bags, sampler, workers)):
            if n == after:
                raise Stopped
            yield batch

    monkeypatch.setattr(train, "loader", broken)
    return began


@pytest.mark.parametrize("mode", ["scratch", "finetune"])
@pytest.mark.parametrize("stop", ["in the second epoch", "in the third epoch"])
def test_a_fit_that_was_stopped_goes_on_to_the_same_bytes(
    mode: str, stop: str, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fit_of(make_run(finetune_epochs=4, drop=0.5), mode)
    straight = weights_of(train.train(fit))
    steps, checkpoint = len(fit.images) // 4, tmp_path / "fit.ckpt"
    done = 1 if stop == "in the second epoch" else 2
    with monkeypatch.context() as patch:
        began = stopping(patch, done * steps + 2)
        with pytest.raises(Stopped):
            train.train(fit, checkpoint)
        assert began == [0] and checkpoint.is_file()
    with monkeypatch.context() as patch:
        began = stopping(patch, -1)
        resumed = train.train(fit, checkpoint)
    assert began == [done], "it did not begin again"
    assert weights_of(resumed) == straight


def test_a_fit_that_was_stopped_twice_goes_on_to_the_same_bytes(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, checkpoint = fit_of(make_run(), "scratch"), tmp_path / "fit.ckpt"
    straight = weights_of(train.train(fit))
    steps = len(fit.images) // 4
    for _ in range(2):
        with monkeypatch.context() as patch:
            stopping(patch, steps + 1)
            with pytest.raises(Stopped):
                train.train(fit, checkpoint)
    assert weights_of(train.train(fit, checkpoint)) == straight


@pytest.mark.parametrize("change", ["hyper", "purpose", "run"])
def test_the_checkpoint_of_another_fit_is_not_taken(
    change: str, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, checkpoint = fit_of(make_run(), "scratch"), tmp_path / "fit.ckpt"
    with monkeypatch.context() as patch:
        stopping(patch, 2 * (len(first.images) // 4) + 1)
        with pytest.raises(Stopped):
            train.train(first, checkpoint)
    other = {
        "hyper": fit_of(first.run, "scratch", lr=0.1),
        "purpose": fit_of(first.run, "scratch", "other"),
        "run": fit_of(make_run(folder="seeded", seed=3), "scratch"),
    }[change]
    assert weights_of(train.train(other, checkpoint)) == weights_of(train.train(other))


def test_a_ridge_shrinks_the_head_and_not_the_bias(make_run: Make) -> None:
    run = make_run(epochs=60)
    models = [train.train(fit_of(run, weight_decay=ridge)) for ridge in (0.0, 1.0, 100.0)]
    norms = [float(model.head.weight.detach().norm()) for model in models]
    assert norms[0] > 1.05 * norms[1] > 5 * norms[2] > 0
    started = 2 * np.log(0.5)  # the log of each class's share
    assert float(models[2].head.bias.detach().sum()) == pytest.approx(started, abs=0.01)


@pytest.mark.parametrize("mode", MODES)
def test_a_separable_toy_is_learned(mode: str, make_run: Make) -> None:
    fit = fit_of(make_run(epochs=20, finetune_epochs=6), mode)
    assert judged(fit, train.train(fit)) > 0.9


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_bags_in_which_few_tiles_say_the_class_are_learned(pool: str, make_bags: Make) -> None:
    fit = fit_of(make_bags(count=4, epochs=60), pool=pool, bag=4)
    assert judged(fit, train.train(fit)) > 0.9


def test_labels_decide_what_is_learned(make_run: Make) -> None:
    """The negative control: with the classes swapped, the same images score below chance."""
    fit = fit_of(make_run(epochs=20))
    swapped = dataclasses.replace(fit, images=fit.images.assign(y=1 - fit.images["y"]))
    assert judged(fit, train.train(swapped)) < 0.1


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


def test_a_mode_has_the_settings_that_are_meant_for_it(make_run: Make) -> None:
    training = make_run(
        ridge=0.7, weight_decay=0.01, lr=0.1, finetune_lr=0.2, scratch_lr=0.3
    ).competition.training
    found = {mode: train.defaults(training, mode) for mode in backbones.MODES}
    assert {mode: hyper.lr for mode, hyper in found.items()} == {
        "frozen": 0.1,
        "finetune": 0.2,
        "scratch": 0.3,
    }
    decays = {mode: hyper.weight_decay for mode, hyper in found.items()}
    assert decays == {"frozen": 0.7, "finetune": 0.01, "scratch": 0.01}


def test_weights_come_with_what_it_takes_to_use_them(finished_run: Run) -> None:
    run = finished_run
    folds = sorted(set(labelled(run)["fold"]) - {""})
    assert len(folds) == 3
    for spec, mode, width in (("frozen", "frozen", 2), ("scratch:24", "scratch", 40)):
        backbone = backbones.parse(f"test_efficientnet:{spec}")
        for fold in folds:
            path = train.weights_path(run, backbone, fold)
            record = json.loads(path.with_suffix(".json").read_text())
            expected = {"timm": "test_efficientnet", "mode": mode, "fold": fold, "seed": 0,
                        "classes": ["a", "b"], "tile": 32, "features": 256, "interpolation": "bicubic",
                        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
                        "input_size": [3, 160, 160]}  # fmt: skip
            assert {name: record[name] for name in expected} == expected
            assert record["settings"] == dataclasses.asdict(train.defaults(run.competition.training, mode)), (
                "nothing was tuned"
            )
            assert load_file(path)["head.weight"].shape == (2, 256)
            assert len(load_file(path)) >= width
            assert not path.with_suffix(".ckpt").exists()


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The purposes of the fits that are made from now on."""
    made: list[str] = []
    whole = train.train

    def counted(fit: Fit, checkpoint: Path | None = None) -> BagModel:
        made.append(fit.purpose)
        return whole(fit, checkpoint)

    monkeypatch.setattr(train, "train", counted)
    return made


def trained(run: Run) -> dict[str, bytes]:
    for stage in ("tune", "train"):
        if not state.finished(run, stage):
            state.execute(run, stage)
    return {path.name: path.read_bytes() for path in sorted(run.folder("train").rglob("fold*"))}


def test_a_rerun_fits_only_what_is_not_finished(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("test_efficientnet:scratch", finetune_epochs=1)
    files, made = trained(run), recorded(monkeypatch)
    state.execute(run, "train")
    assert made == []
    backbone = backbones.parse("test_efficientnet:scratch")
    train.weights_path(run, backbone, "1").unlink()
    state.execute(run, "train")
    assert made == ["test_efficientnet-scratch fold 1"] and trained(run) == files
    train.weights_path(run, backbone, "2").with_suffix(".json").unlink()
    state.execute(run, "train")
    assert made[1:] == ["test_efficientnet-scratch fold 2"] and trained(run) == files


def test_weights_that_were_damaged_are_fitted_again(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    files, made = trained(run), recorded(monkeypatch)
    path = train.weights_path(run, backbones.parse("test_efficientnet:frozen"), "0")
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"\0\0\0\1")
    assert not state.finished(run, "train")
    assert trained(run) == files and made == ["test_efficientnet-frozen fold 0"]


def test_other_settings_fit_everything_again(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    files = trained(make_run())
    made = recorded(monkeypatch)
    other = trained(make_run(epochs=9))
    assert len(made) == 3 and all(other[name] != files[name] for name in files)


def test_missing_weights_are_said_before_anything_is_computed(make_run: Make) -> None:
    run = dataclasses.replace(make_run(), weights={})
    with pytest.raises(WeightsError, match="no weights for 'test_efficientnet'"):
        run.key("train")


def test_backbones_are_checked_before_hours_are_spent(make_run: Make, tmp_path: Path) -> None:
    train.check(make_run("test_efficientnet:frozen", "test_resnet:scratch"))
    with pytest.raises(WeightsError, match="no weights for 'test_resnet'"):
        train.check(make_run("test_efficientnet:scratch", "test_resnet:finetune"))
    (tmp_path / "wrong.pth").write_text("no weights")
    wrong = dataclasses.replace(make_run(), weights={"test_efficientnet": tmp_path / "wrong.pth"})
    with pytest.raises(WeightsError, match=r"wrong\.pth"):
        train.check(wrong)


@pytest.mark.parametrize(
    ("specs", "message", "hint"),
    [
        (("test_efficientnet", "test_efficientnet:frozen"), "train.backbones is", "each backbone once"),
        (("test_resnet:scratch",), "--weights names 'test_efficientnet'", "Known: test_resnet"),
        (
            ("test_efficientnet", "vit_tiny_patch16_224:scratch"),
            "vit_tiny_patch16_224 does not take tiles of 32",
            "vit_tiny_patch16_224:scratch:224",
        ),
    ],
)
def test_backbones_that_cannot_be_trained_are_refused_with_what_to_write(
    specs: tuple[str, ...], message: str, hint: str, make_run: Make
) -> None:
    with pytest.raises(SettingError) as caught:
        train.check(make_run(*specs))
    assert message in caught.value.message and hint in caught.value.hint
