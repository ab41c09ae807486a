"""Fitting: the same weights each time, after a stop, and with any number of workers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from kit import state
from kit.errors import SettingError, WeightsError
from kit.learn import backbones, train
from kit.learn.bags import BagModel
from kit.learn.dataset import labelled
from kit.learn.predict import predict_images
from kit.learn.train import Fit
from kit.state import Run
from tests.learn.fits import Stopped, fit_of, stopping, weights_of

Make = Callable[..., Run]
MODES = ("frozen", "scratch")


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
