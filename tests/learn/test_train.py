"""Fitting: the same weights each time, after a stop, and with any number of workers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from kit import state
from kit.competition import SecondLevel
from kit.errors import KitError, SettingError, WeightsError
from kit.learn import embed, pixels, train, tune
from kit.learn.bags import BagModel
from kit.learn.dataset import labelled
from kit.learn.fit import Fit
from kit.learn.loop import Diverged
from kit.learn.predict import predict_images
from kit.state import External, Run
from tests.learn.fits import Stopped, fit_of, model_of, stopping, weights_of

Make = Callable[..., Run]
MODES = ("frozen", "scratch")


def judged(fit: Fit, model: BagModel) -> float:
    """AUC on the fold that was left out."""
    images = labelled(fit.run)
    mine = images[(images["role"] == "fold") & (images["fold"] == "0")]
    found = predict_images(fit.run, fit.model, model, "train", mine.index.to_numpy(dtype=object))
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
    found = {weights_of(train.train(fit_of(make_run(workers=n), "scratch"))) for n in (0, 1, 2)}
    assert len(found) == 1


@pytest.mark.parametrize("change", ["setting", "purpose", "run"])
def test_the_checkpoint_of_another_fit_is_not_taken(
    change: str, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, checkpoint = fit_of(make_run(), "scratch"), tmp_path / "fit.ckpt"
    with monkeypatch.context() as patch:
        stopping(patch, 2 * (len(first.images) // 4) + 1)
        with pytest.raises(Stopped):
            train.train(first, checkpoint)
    other = {
        "setting": fit_of(first.run, "scratch", lr=0.1),
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


def test_weights_come_with_what_it_takes_to_use_them(finished_run: Run) -> None:
    run = finished_run
    folds = sorted(set(labelled(run)["fold"]) - {""})
    assert len(folds) == 3
    for spec, mode, width, epochs in (("frozen", "frozen", 2, 8), ("scratch:24", "scratch", 40, 3)):
        model = model_of(run, f"test_efficientnet:{spec}")
        for fold in folds:
            path = train.weights_path(run, model, fold)
            record = json.loads(path.with_suffix(".json").read_text())
            expected = {"timm": "test_efficientnet", "mode": mode, "fold": fold, "seed": 0,
                        "classes": ["a", "b"], "tile": 32, "features": 256, "interpolation": "bicubic",
                        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "pool": "mean",
                        "input_size": [3, 160, 160], "loss": "cross-entropy", "layers": "last",
                        "epochs_done": epochs, "retries": 0, "parts": 1, "processes": 1}  # fmt: skip
            assert {name: record[name] for name in expected} == expected
            # JSON has no tuples.
            settings = json.loads(json.dumps(dataclasses.asdict(model.training)))
            assert record["settings"] == settings, "nothing was tuned"
            assert load_file(path)["head.weight"].shape == (2, 256)
            assert len(load_file(path)) >= width
            assert not path.with_suffix(".ckpt").exists()
            assert path.with_suffix(".log.csv").is_file()


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The purposes of the fits that are made from now on."""
    made: list[str] = []
    whole = train._fitted

    def counted(fit: Fit, *arguments: Any) -> train.Fitted:
        made.append(fit.purpose)
        return whole(fit, *arguments)

    monkeypatch.setattr(train, "_fitted", counted)
    return made


def trained(run: Run) -> dict[str, bytes]:
    for stage in ("tune", "train"):
        if not state.finished(run, stage):
            state.execute(run, stage)
    return {
        path.name: path.read_bytes()
        for path in sorted(run.folder("train").rglob("fold*"))
        if not path.name.endswith(".csv")
    }


def test_a_rerun_fits_only_what_is_not_finished(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("test_efficientnet:scratch", finetune_epochs=1)
    files, made = trained(run), recorded(monkeypatch)
    state.execute(run, "train")
    assert made == []
    model = model_of(run, "test_efficientnet:scratch")
    train.weights_path(run, model, "1").unlink()
    state.execute(run, "train")
    assert made == ["test_efficientnet-scratch fold 1"] and trained(run) == files
    train.weights_path(run, model, "2").with_suffix(".json").unlink()
    state.execute(run, "train")
    assert made[1:] == ["test_efficientnet-scratch fold 2"] and trained(run) == files


def test_a_forced_stage_fits_everything_again(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("test_efficientnet:frozen")
    files, made = trained(run), recorded(monkeypatch)
    state.execute(run, "train", force=True)
    assert len(made) == 3 and trained(run) == files


def test_a_fit_that_fails_does_not_take_the_others_with_it(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("test_efficientnet:frozen")
    whole = train._attempt

    def broken(fit: Fit, *arguments: Any) -> train.Fitted:
        if fit.purpose.endswith("fold 1"):
            raise Diverged("the loss of fold 1 is not finite", "; lr=1")
        return whole(fit, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_attempt", broken)
        with pytest.raises(KitError, match=r"1 of 3 fits failed:\nthe loss of fold 1"):
            trained(run)
    made = recorded(monkeypatch)
    trained(run)
    assert made == ["test_efficientnet-frozen fold 1"]


def test_a_fit_that_was_begun_again_says_so_in_its_record(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("test_efficientnet:frozen")
    whole = train._attempt

    def broken(fit: Fit, judged: Any, keeper: Any, logged: Any, retries: int, after: Any) -> train.Fitted:
        if retries == 0:
            raise Diverged("the loss is not finite", "; lr=1")
        return whole(fit, judged, keeper, logged, retries, after)

    monkeypatch.setattr(train, "_attempt", broken)
    trained(run)
    record = json.loads(train.weights_path(run, model_of(run), "0").with_suffix(".json").read_text())
    assert record["retries"] == 1


def test_weights_that_were_damaged_are_fitted_again(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    files, made = trained(run), recorded(monkeypatch)
    path = train.weights_path(run, model_of(run), "0")
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"\0\0\0\1")
    assert not state.finished(run, "train")
    assert trained(run) == files and made == ["test_efficientnet-frozen fold 0"]


def test_other_settings_fit_everything_again(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    files = trained(make_run())
    made = recorded(monkeypatch)
    other = trained(make_run(epochs=9))
    assert len(made) == 3 and all(other[name] != files[name] for name in files)


def test_a_finished_fit_is_kept_whatever_becomes_of_other_models_seeds_hours_and_logs(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(make_run())
    made, spec = recorded(monkeypatch), "test_efficientnet:frozen"
    trained(make_run(spec, hours=50.0, logs=()))
    assert made == []
    trained(make_run(spec, "test_efficientnet:scratch", seeds=2, finetune_epochs=1))
    assert len(made) == 9 and "test_efficientnet-frozen fold 0" not in made


def test_another_budget_makes_train_run_again_and_not_tune(make_run: Make) -> None:
    run, other = make_run(), make_run(hours=50.0)
    trained(run)
    assert state.finished(other, "tune") and not state.finished(other, "train")


def test_other_tuned_settings_are_fitted_anew_although_tuning_has_the_same_key(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    trained(run)
    made = recorded(monkeypatch)
    whole = tune.choose

    def other(model: Any, *found: Any) -> dict[str, Any]:
        chosen = whole(model, *found)
        return chosen | {"settings": chosen["settings"] | {"lr": 0.02}}

    monkeypatch.setattr(tune, "choose", other)
    state.execute(run, "tune", force=True)
    for again in (run, make_run()):  # the same process, and another one
        assert state.finished(again, "tune") and not state.finished(again, "train")
    trained(run)
    assert len(made) == 3 and state.finished(make_run(), "train")


def test_other_preprocessing_beside_the_weights_is_another_key_and_another_fit(
    make_run: Make, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine" / weights.name
    path.parent.mkdir()
    path.write_bytes(weights.read_bytes())

    def attached() -> Run:
        return dataclasses.replace(
            make_run("test_efficientnet:finetune", finetune_epochs=1), weights={"test_efficientnet": path}
        )

    trained(attached())
    made = recorded(monkeypatch)
    path.with_suffix(".json").write_text(json.dumps({"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}))
    assert not any(state.finished(attached(), stage) for stage in ("tune", "train"))
    trained(attached())
    assert len(made) == 3


def test_new_code_for_embeddings_or_pixels_is_another_key_of_tuning_and_training(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {make_run().key(stage) for stage in ("tune", "train")}
    for module in (embed, pixels):
        with monkeypatch.context() as patch:
            patch.setattr(module, "VERSION", 99)
            keys |= {make_run().key(stage) for stage in ("tune", "train")}
    assert len(keys) == 6


@pytest.mark.parametrize("name", ["constant", "limit", "logistic", "greedy"])
def test_a_model_that_is_called_as_another_row_is_refused_before_hours_are_spent(
    name: str, make_run: Make
) -> None:
    run = make_run(f"{name} = test_efficientnet:frozen")
    method = dataclasses.replace(run.competition, second_level=SecondLevel(method="greedy"))
    with pytest.raises(SettingError, match=f"a model is called '{name}'"):
        train.check(dataclasses.replace(run, competition=method))


def test_a_model_to_blend_that_is_not_there_is_refused_before_hours_are_spent(make_run: Make) -> None:
    run = make_run("net = test_efficientnet:frozen")
    task = dataclasses.replace(run.competition, second_level=SecondLevel(models=("net", "nett")))
    with pytest.raises(SettingError, match=r"combine\.models names 'nett'") as caught:
        train.check(dataclasses.replace(run, competition=task))
    assert "did you mean net?" in caught.value.hint
    external = External(oof={"nett": Path("oof.csv")})
    train.check(dataclasses.replace(run, competition=task, external=external))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"logs": ("csv", "tensorbord")}, "there is no log 'tensorbord'"),
        ({"logs": ("csv", "wandb")}, "the package wandb is not installed"),
        ({"mixup": 0.2, "pool": "vote"}, "mixes the vectors of bags"),
        ({"views": 3}, "train.views=3"),
        ({"extra": "negative"}, "needs the tiles of images without a label"),
    ],
)
def test_settings_that_cannot_be_together_are_refused_first(
    settings: dict[str, Any], message: str, make_run: Make
) -> None:
    with pytest.raises(SettingError, match=message):
        train.check(make_run(**settings))


def test_settings_that_do_nothing_in_a_mode_are_said_once(
    make_run: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "kit"):
        specs = [f"{name} = test_efficientnet:scratch" for name in "ab"]
        train.check(make_run("test_efficientnet:frozen", *specs, layer_decay=0.5, channels_last=False))
    said = [record.message for record in caplog.records if "no difference" in record.message]
    assert said == [
        "train.layer_decay, train.channels_last make no difference to frozen: test_efficientnet-frozen",
        "train.layer_decay makes no difference to scratch: a, b",
    ]


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
        (("test_efficientnet", "test_efficientnet:frozen"), "two models of train.backbones", "NAME = "),
        (("test_resnet:scratch",), "--weights names 'test_efficientnet'", "Known: test_resnet"),
        (
            ("test_efficientnet", "vit_tiny_patch16_224:scratch"),
            "vit_tiny_patch16_224 takes tiles of 224 pixels, not 32",
            "vit_tiny_patch16_224:MODE:224",
        ),
    ],
)
def test_backbones_that_cannot_be_trained_are_refused_with_what_to_write(
    specs: tuple[str, ...], message: str, hint: str, make_run: Make
) -> None:
    with pytest.raises(SettingError) as caught:
        train.check(make_run(*specs))
    assert message in caught.value.message and hint in caught.value.hint
