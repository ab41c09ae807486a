"""Averages of weights: what they are the average of, after a stop too, and their batch norm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kit.competition import Training
from kit.learn import averages, backbones, models
from kit.learn.bags import BagModel, Packed
from kit.learn.models import Model


def model_of(mode: str = "scratch", **settings: object) -> Model:
    training = replace(Training(), epochs=8, finetune_epochs=8, **settings)  # type: ignore[arg-type]
    return models.parse(f"test_efficientnet:{mode}", training)


def small() -> BagModel:
    return BagModel(None, 3, 2, "mean", 0.0)


def move(network: BagModel, to: float) -> None:
    with torch.no_grad():
        for value in network.state_dict().values():
            value.fill_(to)


def averaged(model: Model, values: list[float], stop: int = -1) -> averages.Average:
    """The average of a network whose weights take these values, a step each."""
    network = small()
    average = averages.make(model, network)
    assert average is not None
    for step, value in enumerate(values):
        if step == stop:
            state: Any = average.state_dict()
            again = averages.make(model, network)
            assert again is not None
            again.load_state_dict(state)
            average = again
        move(network, value)
        average.update(step, len(values))
    return average


def test_the_last_weights_are_kept_by_default() -> None:
    assert averages.make(model_of(), small()) is None


@pytest.mark.parametrize("stop", [-1, 25, 30, 31])
def test_swa_is_the_equal_average_of_the_last_epochs(stop: int) -> None:
    values = np.random.default_rng(0).normal(size=32)  # eight epochs of four steps
    found = averaged(model_of(average="swa"), values.tolist(), stop).network()
    np.testing.assert_allclose(found.head.weight.numpy(), values[[27, 31]].mean(), rtol=1e-6)


def test_swa_of_a_fit_that_stopped_early_is_its_last_weights() -> None:
    model, network = model_of(average="swa"), small()
    average = averages.make(model, network)
    assert average is not None
    for step in range(12):
        move(network, step)
        average.update(step, 32)
    assert float(average.network().head.bias[0]) == 11


@pytest.mark.parametrize("stop", [-1, 7])
def test_a_moving_average_forgets_the_start_and_then_moves_by_its_decay(stop: int) -> None:
    average = averaged(model_of(average="ema", ema=0.9), [5.0, *[1.0] * 99], stop)
    assert float(average.network().head.weight[0, 0].detach()) == pytest.approx(1, abs=1e-4)
    average.live.head.weight.data.fill_(2.0)
    average.update(100, 101)
    assert float(average.network().head.weight[0, 0]) == pytest.approx(1.1, abs=1e-3)
    assert float(averaged(model_of(average="ema"), [5.0]).network().head.bias[0]) == 5, "not the start"


def test_a_step_that_was_not_made_moves_no_moving_average() -> None:
    network = small()
    average = averages.make(model_of(average="ema", ema=0.9), network)
    assert average is not None
    for value in (0.0, 1.0):
        move(network, value)
        average.update(0, 9, made=value == 0)
    assert float(average.network().head.bias[0]) == 0


def with_norm() -> BagModel:
    return BagModel(backbones.build("test_efficientnet"), 256, 2, "mean", 0.0)


def bags(seed: int, count: int = 4) -> list[Packed]:
    draw = torch.Generator().manual_seed(seed)
    tiles = [torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=draw) for _ in range(count)]
    return [Packed(part, torch.arange(6), torch.ones(6), 6) for part in tiles]


def test_an_average_owns_its_statistics() -> None:
    network = with_norm()
    average = averages.make(model_of(average="ema", ema=0.5), network)
    assert average is not None
    names = [name for name in network.state_dict() if "running" in name]
    for value, least, most in ((1.0, 1.0, 1.0), (2.0, 1.1, 1.9)):
        for name in names:
            network.state_dict()[name].fill_(value)
        average.update(0, 2)
        found = [float(average.network().state_dict()[name].mean()) for name in names]
        assert least <= min(found) <= max(found) <= most
    assert not average.network().training and network.training


def test_statistics_are_the_mean_over_batches_of_those_of_the_averaged_weights() -> None:
    network = with_norm()
    average = averages.make(model_of(average="swa"), network)
    assert average is not None
    average.update(31, 32)
    average.refresh(bags(0))
    found = average.network()
    pixels = [(part.tiles.float() - found.mean) / found.std for part in bags(0)]
    stem = found.encoder.body.conv_stem  # type: ignore[union-attr]
    inside = [stem(part) for part in pixels]  # type: ignore[operator]
    means = torch.stack([part.mean((0, 2, 3)) for part in inside]).mean(0)
    torch.testing.assert_close(found.encoder.body.bn1.running_mean, means)  # type: ignore[union-attr]
    assert not found.training and all(not layer.training for layer in found.modules())
    assert found.encoder.body.bn1.momentum == network.encoder.body.bn1.momentum  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "model", [model_of("finetune", average="swa", norm="kept"), model_of(average="ema")], ids=["kept", "ema"]
)
def test_statistics_that_are_right_already_cost_no_pass(model: Model) -> None:
    average = averages.make(model, with_norm())
    assert average is not None
    average.update(31, 32)
    unread = iter(bags(0))
    average.refresh(unread)
    assert len(list(unread)) == 4


def test_a_network_without_batch_norm_reads_no_batch() -> None:
    unread = iter(bags(0))
    averages.refresh(small(), unread)
    assert len(list(unread)) == 4
