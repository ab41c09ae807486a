"""One fit: exact however it is cut, stopped or retried, and never silent about what went wrong."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kit.errors import DataError, SettingError
from kit.learn import averages, checkpoint, embed, loop, memory, sources, train
from kit.learn.bags import BagModel, Packed
from kit.learn.fit import Fit
from kit.learn.masks import BagDropout
from kit.learn.monitor import Monitor
from kit.metrics import WeightedLogLoss
from kit.state import Run
from tests.learn.fits import Stopped, fit_of, stopping, weights_of

Make = Callable[..., Run]
STEPS = 4  # of an epoch of the toy
WAYS = {
    "plain": {},
    "ema": {"average": "ema", "ema": 0.8},
    "swa": {"average": "swa"},
    "plateau": {"schedule": "plateau", "patience": 1, "lr": 0.05},
    "parts": {"accumulate": 2, "mixup": 0.4},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "inner": {"stop": "inner"},
    "again": {"oversample": 14, "preset": "turns", "augment": 1.0},
    "waiting": {"freeze": 1, "layer_decay": 0.8},
}


def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock say that every step is to be kept."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)


@pytest.mark.parametrize("way", WAYS)
def test_a_fit_that_was_stopped_in_mid_epoch_goes_on_to_the_same_bytes(
    way: str, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode = "finetune" if way == "waiting" else "scratch"
    fit = fit_of(make_run(finetune_epochs=6, drop=0.5), mode, **WAYS[way])
    at_every_step(monkeypatch)
    straight, place = weights_of(train.train(fit)), tmp_path / "fit.ckpt"
    for after in (2, 2, STEPS + 1):  # in an epoch, at an end, across one
        with monkeypatch.context() as patch:
            stopping(patch, after)
            with pytest.raises(Stopped):
                train.train(fit, place)
    with monkeypatch.context() as patch:
        began = stopping(patch, -1)
        assert weights_of(train.train(fit, place)) == straight
    assert began[0] > (1, 0), "it did not begin again"


@pytest.mark.parametrize(("mode", "settings"), [("finetune", {"norm": "kept"}), ("frozen", {})])
@pytest.mark.parametrize("more", [{}, {"mixup": 0.4, "batch": 5}, {"average": "ema"}])
def test_a_batch_in_parts_is_the_batch(
    mode: str, settings: dict[str, Any], more: dict[str, Any], make_bags: Make
) -> None:
    run = make_bags(count=4, side=32)
    found = [
        train.train(fit_of(run, mode, **settings, **more, drop=0.3, optimiser="sgd", accumulate=parts))
        for parts in (1, 3, 99)
    ]
    for other in found[1:]:
        assert difference(found[0], other) < 1e-6


def difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def test_dropout_keeps_the_mean_and_draws_other_masks_for_other_seeds() -> None:
    drop = BagDropout(0.25)
    one, other = drop.draw(1, 400, 50), drop.draw(2, 400, 50)
    assert one is not None and other is not None
    assert float(one.mean()) == pytest.approx(1, abs=0.02) and not torch.equal(one, other)
    assert float((one == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert BagDropout(0.0).draw(1, 3, 3) is None


def test_an_epoch_is_measured_on_groups_that_nothing_is_learned_from(make_run: Make) -> None:
    fit = fit_of(make_run())
    rest, inner = fit.aside()
    assert not set(rest.images["group_id"]) & set(inner["group_id"])
    assert sorted([*rest.images.index, *inner.index]) == sorted(fit.images.index)
    assert rest.images["y"].nunique() == inner["y"].nunique() == 2
    assert fit.aside()[1].index.tolist() == inner.index.tolist()


@pytest.mark.parametrize("mode", ["frozen", "scratch"])
def test_early_stopping_keeps_the_best_epoch(
    mode: str, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.6, 0.4, 0.5, 0.45, 0.7, 0.1, 0.1, 0.1])
    monkeypatch.setattr(loop.Loop, "_judge", lambda self: next(losses))
    fit = fit_of(make_run(finetune_epochs=8), mode, stop="inner", patience=1, drop=0.0, schedule="constant")
    seen: list[bytes] = []

    def watch(epoch: int, network: BagModel) -> bool:
        seen.append(weights_of(network))
        return False

    found = weights_of(train.train(fit, after_epoch=watch))
    assert len(seen) == 5, "three epochs after the best one"
    assert found == seen[1] and len(set(seen)) == 5


def test_a_fit_ends_when_its_watcher_says_so(make_run: Make) -> None:
    seen: list[int] = []
    train.train(fit_of(make_run()), after_epoch=lambda epoch, network: seen.append(epoch) or epoch == 2)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("mode", ["frozen", "scratch"])
def test_a_loss_that_is_not_finite_is_tried_again_with_a_tenth_of_the_rate(
    mode: str, make_run: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit = fit_of(make_run(), mode, lr=0.01)
    expected = weights_of(train.train(dataclasses.replace(fit, model=fit.model.having({"lr": 0.001}))))
    exploding(monkeypatch, above=0.005)
    with caplog.at_level(logging.WARNING, "kit"):
        assert weights_of(train.train(fit)) == expected
    assert "epoch 2, step 3" in caplog.text and "a tenth" in caplog.text and "lr=0.001" in caplog.text


def test_a_loss_that_is_never_finite_is_refused(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    exploding(monkeypatch, above=0.0)
    with pytest.raises(SettingError, match="loss of fit is not finite: epoch 2, step 3, learning rate") as e:
        train.train(fit_of(make_run(), "scratch"))
    assert "; lr=" in e.value.hint


def exploding(monkeypatch: pytest.MonkeyPatch, above: float) -> None:
    """Let the loss be infinite in the third step of the second epoch, if the rate is above something."""
    whole = loop.Loop._gradients

    def broken(self: loop.Loop, packed: Packed, rows: torch.Tensor) -> torch.Tensor:
        found = whole(self, packed, rows)
        late = (self.progress.epoch, self.progress.step) == (1, 2) and self.model.get("lr") > above
        return found * float("inf") if late else found

    monkeypatch.setattr(loop.Loop, "_gradients", broken)


def test_a_network_that_gives_nan_is_refused_by_its_loss(make_run: Make) -> None:
    fit = fit_of(make_run(), "scratch", optimiser="sgd", lr=1e30)
    with pytest.raises(SettingError, match="is not finite"):
        train.train(fit)


def test_fp16_gives_up_after_many_steps_without_a_finite_gradient(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SKIPS", 3)
    with pytest.raises(SettingError, match="is not finite") as caught:
        train.train(fit_of(make_run(), "scratch", precision="fp16", optimiser="sgd", lr=1e30))
    assert "bf16" in caught.value.hint


def test_fp16_refuses_a_network_that_never_gives_a_number(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards(monkeypatch, lambda n: True)
    with pytest.raises(SettingError, match="loss of fit is not finite: epoch 1") as caught:
        train.train(fit_of(make_run(), "scratch", precision="fp16"))
    assert "bf16" in caught.value.hint


def test_fp16_refuses_a_fit_of_which_most_steps_were_left_out(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards(monkeypatch, lambda n: n % STEPS > 0)
    with pytest.raises(SettingError, match=r"most gradients of fit \(\d+ steps\) are not finite"):
        train.train(fit_of(make_run(), "scratch", precision="fp16"))


@pytest.mark.parametrize("average", ["none", "ema"])
def test_a_step_that_fp16_left_out_leaves_nothing_behind(
    average: str, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, kept = 6, []
    forwards(monkeypatch, lambda n: n == at)
    whole = loop.Loop._step

    def watched(self: loop.Loop, packed: Packed, rows: torch.Tensor) -> None:
        before = weights_of(self._candidate()), weights_of(self.network)
        whole(self, packed, rows)
        now = self.progress
        if now.epoch * self.steps + now.step == at:
            kept.append(((weights_of(self._candidate()), weights_of(self.network)) == before, now.left_out))

    monkeypatch.setattr(loop.Loop, "_step", watched)
    found = train.train(fit_of(make_run(), "scratch", precision="fp16", average=average))
    assert kept[0][0] and kept[0][1] > 0
    assert all(torch.isfinite(value).all() for value in found.state_dict().values())


def forwards(monkeypatch: pytest.MonkeyPatch, broken: Callable[[int], bool]) -> None:
    """Let passes of training overflow before the first layer, by the number of the step."""
    whole, count = BagModel.embed, [-1]

    def embed(self: BagModel, tiles: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return whole(self, tiles)
        count[0] += 1
        if not broken(count[0]):
            return whole(self, tiles)
        return whole(self, tiles * float("inf"))

    monkeypatch.setattr(BagModel, "embed", embed)


@pytest.mark.parametrize("average", ["none", "swa"])
def test_weights_that_the_last_step_broke_are_refused(average: str, make_run: Make) -> None:
    fit = fit_of(
        make_run(finetune_epochs=1), "scratch", batch=99, optimiser="sgd", lr=1e38, schedule="constant",
        average=average,
    )  # fmt: skip
    with pytest.raises(SettingError, match="the weights of fit are not finite: epoch 1, step 1, learning"):
        train.train(fit)


@pytest.mark.parametrize("kind", ["balanced", "metric", "cross-entropy"])
def test_classes_are_weighed_and_expected_as_often_as_an_epoch_shows_them(kind: str, make_run: Make) -> None:
    fit = fit_of(make_run(turned=("2", "0")), undersample=1.0, loss=kind)
    task = dataclasses.replace(fit.run.competition, metric=WeightedLogLoss((1, 1)))
    fit = dataclasses.replace(fit, run=dataclasses.replace(fit.run, competition=task))
    network, source = sources.embedded(fit, None)
    made = loop.Loop(fit, network, source, checkpoint.Keeper(None), Monitor())
    assert made.loss.weights == pytest.approx((1, 1)), "an epoch shows as many of each"
    np.testing.assert_allclose(torch.softmax(network.head.bias.detach(), 0).numpy(), 0.5, rtol=1e-6)


def test_an_average_of_swa_is_judged_with_statistics_of_its_own(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[bytes, bytes]] = []
    whole = loop.Loop._judge

    def judge(self: loop.Loop) -> float | None:
        found = weights_of(self._candidate())
        assert self.average is not None
        averages.refresh(self._candidate(), self.source.bags(self.progress.epoch))
        judged.append((found, weights_of(self._candidate())))
        whole(self)
        return 1.0 / len(judged)

    monkeypatch.setattr(loop.Loop, "_judge", judge)
    network = train.train(fit_of(make_run(finetune_epochs=8), "scratch", average="swa", stop="inner"))
    assert judged[-1][0] == judged[-1][1] == weights_of(network)


def test_batch_norm_that_sees_parts_for_lack_of_memory_is_said(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    short_of_memory(monkeypatch, most=3, error=RuntimeError("not enough memory"))
    with caplog.at_level(logging.WARNING, "kit"):
        assert train._fitted(fit_of(make_run(), "scratch"), None, None).parts == 2
    assert "the result is that of --set train.accumulate=2" in caplog.text


def test_a_single_bag_that_memory_leaves_to_batch_norm_is_refused_with_a_hint_on_memory(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, most=1, error=RuntimeError("not enough memory"))
    with pytest.raises(SettingError, match="statistics of a part of 1 bag") as caught:
        train.train(fit_of(make_run(), "finetune"))
    assert "train.bag" in caught.value.hint and "accumulate" not in caught.value.hint


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't")]
)
def test_a_batch_that_does_not_fit_goes_through_in_twice_as_many_parts(
    error: RuntimeError, make_run: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit = fit_of(make_run(), "finetune", norm="kept", drop=0.0)
    expected = train.train(fit)
    short_of_memory(monkeypatch, most=1, error=error)
    with caplog.at_level(logging.WARNING, "kit"):
        found = train._fitted(fit, None, None)
    assert found.parts >= 4 and difference(found.network, expected) < 1e-6
    assert "2 parts" in caplog.text and "4 parts" in caplog.text


def test_statistics_of_a_pass_that_did_not_fit_are_taken_back(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(finetune_epochs=1)
    expected = weights_of(train.train(fit_of(run, "scratch", accumulate=2)))
    short_of_memory(monkeypatch, most=3, error=RuntimeError("not enough memory"))
    assert weights_of(train.train(fit_of(run, "scratch"))) == expected


def test_a_bag_that_does_not_fit_alone_is_refused(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(monkeypatch, most=0, error=RuntimeError("not enough memory"))
    with pytest.raises(SettingError, match="memory is too small for 1 bag of 3 tiles of 32 pixels") as caught:
        train.train(fit_of(make_run(), "finetune", norm="kept"))
    assert "train.bag=1" in caught.value.hint


def test_a_part_that_is_too_small_for_batch_norm_is_refused(make_run: Make) -> None:
    with pytest.raises(SettingError, match="batch norm has no statistics of a part of 1 bag") as caught:
        train.train(fit_of(make_run(), "finetune", accumulate=99))
    assert "train.norm=kept" in caught.value.hint


def test_another_error_is_not_taken_for_a_lack_of_memory(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, most=0, error=RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        train.train(fit_of(make_run(), "scratch"))


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int, error: RuntimeError) -> None:
    """Let a pass of more than ``most`` bags fail after it went through the encoder."""
    whole = BagModel.classify

    def broken(self: BagModel, features: torch.Tensor, packed: Packed, mix: Any = None) -> torch.Tensor:
        if self.training and packed.bags > most:
            raise error
        return whole(self, features, packed, mix)

    monkeypatch.setattr(BagModel, "classify", broken)


def test_a_class_without_an_image_is_refused_before_anything_is_learned(make_run: Make) -> None:
    fit = fit_of(make_run())
    poor = dataclasses.replace(fit, images=fit.images[fit.images["y"] == 0], purpose="net fold 3")
    with pytest.raises(DataError, match="net fold 3: no image of class b is left"):
        train.train(poor)


def test_a_bag_without_tiles_is_refused(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fit_of(make_run())
    whole = embed.stored(fit.run, fit.model)
    none = dataclasses.replace(whole, weight=np.zeros_like(whole.weight))
    monkeypatch.setattr(embed, "stored", lambda *a: none)
    with pytest.raises(DataError, match="no tile that counts"):
        train.train(dataclasses.replace(fit, model=fit.model.having({"stop": "inner"})))


def test_torch_compile_falls_back_where_it_cannot(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(finetune_epochs=1)
    plain = weights_of(train.train(fit_of(run, "scratch")))

    def cannot(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(nn.Module, "compile", cannot)
    with caplog.at_level(logging.WARNING, "kit"):
        assert weights_of(train.train(fit_of(run, "scratch", compile=True))) == plain
    assert "no compiler" in caplog.text


def test_another_clock_changes_no_byte(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fit_of(make_run(), "scratch")
    straight = weights_of(train.train(fit))
    at_every_step(monkeypatch)
    assert weights_of(train.train(fit, tmp_path / "fit.ckpt")) == straight


def test_spans_cover_every_bag_once_and_keep_neighbours() -> None:
    for bags in range(1, 20):
        for parts in range(1, 8):
            for unit in (1, 2):
                found = memory.spans(bags, parts, unit)
                flat = [n for first, end in found for n in range(first, end)]
                assert flat == list(range(bags)) and len(found) <= parts
                assert all(first % unit == 0 for first, _ in found)


def test_the_samples_of_a_fit_are_those_of_its_images(make_run: Make) -> None:
    fit: Fit = fit_of(make_run(turned=("1", "0")))
    assert len(fit.samples) == len(fit.images) + int((fit.images["y"] == 0).sum())
