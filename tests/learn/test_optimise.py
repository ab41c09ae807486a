"""Optimisers, schedules and layers that wait: who learns, how fast, and when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kit.competition import Training
from kit.errors import SettingError
from kit.learn import backbones, models, optimise
from kit.learn.bags import BagModel
from kit.learn.models import Model


def model_of(mode: str = "finetune", **settings: object) -> Model:
    return models.parse(f"test_efficientnet:{mode}", replace(Training(), **settings))  # type: ignore[arg-type]


def network_of(mode: str = "finetune") -> BagModel:
    if mode == "frozen":
        return BagModel(None, 7, 2, "attention", 0.0)
    return BagModel(backbones.build("test_efficientnet"), 256, 2, "attention", 0.0)


def by_name(network: BagModel, groups: optimise.Groups, key: str) -> dict[str, float]:
    """A property of each parameter's group."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(parameter)]: group[key] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("mode", ["frozen", "finetune", "scratch"])
def test_every_parameter_learns_in_one_group(mode: str) -> None:
    network = network_of(mode)
    groups = optimise.groups(network, model_of(mode, layer_decay=0.7))
    assert sorted(by_name(network, groups, "lr")) == sorted(name for name, _ in network.named_parameters())
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_biases_and_norms_are_not_decayed() -> None:
    network = network_of()
    decay = by_name(network, optimise.groups(network, model_of(weight_decay=0.3)), "weight_decay")
    norms = [name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms and all(decay[f"{name}.{kind}"] == 0 for name in norms for kind in ("weight", "bias"))
    assert decay["head.bias"] == 0 and decay["head.weight"] == 0.3
    frozen = network_of("frozen")
    assert set(by_name(frozen, optimise.groups(frozen, model_of("frozen")), "weight_decay").values()) == {0}


def test_earlier_layers_of_a_fine_tuned_encoder_learn_more_slowly() -> None:
    network = network_of()
    rates = by_name(network, optimise.groups(network, model_of(layer_decay=0.5, finetune_lr=1.0)), "lr")
    assert rates["head.weight"] == rates["pool.score.bias"] == 1
    inside = {name: rate for name, rate in rates.items() if name.startswith("encoder.")}
    assert max(inside.values()) == 0.5, "the last block is one step from the head"
    blocks = [
        {rate for name, rate in inside.items() if name.startswith(f"encoder.body.blocks.{n}.")}
        for n in range(5)
    ]
    in_order = [rate for block in blocks for rate in sorted(block)]
    assert len(set(in_order)) > 2 and in_order == sorted(in_order)
    assert rates["encoder.body.conv_stem.weight"] == min(inside.values())
    for mode, decay in (("scratch", 0.5), ("finetune", 1.0)):
        plain = by_name(network, optimise.groups(network, model_of(mode, layer_decay=decay)), "scale")
        assert set(plain.values()) == {1}


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_a_schedule_scales_the_rate_of_every_group(name: str, kind: type) -> None:
    network, model = network_of(), model_of(optimiser=name, layer_decay=0.5, finetune_lr=0.2)
    optimiser = optimise.make(optimise.groups(network, model), model)
    assert type(optimiser) is kind
    before = [group["lr"] for group in optimiser.param_groups]
    optimise.set_rate(optimiser, model, 0.25)
    np.testing.assert_allclose([group["lr"] for group in optimiser.param_groups], np.array(before) / 4)
    assert max(before) == 0.2
    if name == "sgd":
        assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimiser.param_groups)


def test_the_ridge_is_that_of_a_logistic_regression() -> None:
    network, model = network_of("frozen"), model_of("frozen", ridge=0.5)
    nn.init.normal_(network.head.weight)
    nn.init.ones_(network.head.bias)
    weights = [p for p in network.parameters() if p.ndim > 1]
    expected = 0.5 / (2 * 40) * sum(float((p.detach() ** 2).sum()) for p in weights)
    assert float(torch.as_tensor(optimise.ridge(network, model, 40)).detach()) == pytest.approx(
        expected, rel=1e-6
    )
    assert optimise.ridge(network_of(), model_of(), 40) == 0


def test_frozen_layers_wait_and_then_learn() -> None:
    network, model = network_of(), model_of(freeze=2)
    tiles = torch.randn(4, 3, 32, 32)
    assert network.encoder is not None
    for epoch, waits in ((0, True), (1, True), (2, False)):
        optimise.freeze(network, model, epoch)
        before = {name: value.clone() for name, value in network.encoder.state_dict().items()}
        network.head(network.encoder(tiles)).sum().backward()
        assert all((p.grad is None) == waits for p in network.encoder.parameters())
        same = all(torch.equal(value, before[name]) for name, value in network.encoder.state_dict().items())
        assert same == waits, "the statistics of batch norm wait too"
        assert network.training and network.head.weight.requires_grad


def test_kept_norms_never_change_their_statistics_but_learn() -> None:
    network = network_of()
    optimise.freeze(network, model_of(norm="kept"), 5)
    before = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    assert network.encoder is not None
    network.encoder(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert all(p.grad is not None for p in network.encoder.parameters())


def test_fixed_layers_never_change_nor_do_their_statistics() -> None:
    network, model = network_of(), model_of(fixed=2)
    optimise.freeze(network, model, 5)
    depth = backbones.depth_of(network.encoder)
    first = [network.encoder.get_parameter(name) for name, n in depth.items() if n < 2]
    later = [network.encoder.get_parameter(name) for name, n in depth.items() if n >= 2]
    assert not any(p.requires_grad for p in first) and all(p.requires_grad for p in later)
    norms = [layer for layer in network.encoder.modules() if isinstance(layer, _BatchNorm)]
    assert [layer.training for layer in norms] == [layer.weight.requires_grad for layer in norms]
    assert {layer.training for layer in norms} == {False, True}


def test_an_encoder_that_waits_is_in_evaluation_mode_whatever_is_fixed() -> None:
    network = BagModel(backbones.build("vit_tiny_patch16_224"), 192, 2, "mean", 0.0)
    model = models.parse("vit_tiny_patch16_224:finetune", replace(Training(), freeze=1, fixed=1))
    optimise.freeze(network, model, 0)
    assert network.encoder is not None and not any(layer.training for layer in network.encoder.modules())


def test_an_encoder_of_which_no_layer_would_learn_is_refused() -> None:
    with pytest.raises(SettingError, match=r"train\.fixed=99 of \d+ layers"):
        optimise.freeze(network_of(), model_of(fixed=99), 0)


def test_a_scratch_encoder_learns_from_the_first_epoch() -> None:
    network = network_of()
    optimise.freeze(network, model_of("scratch", freeze=3, norm="kept"), 0)
    assert all(layer.training for layer in network.modules())
    assert all(p.requires_grad for p in network.parameters())


def test_cosine_rises_then_falls_to_nothing() -> None:
    rates = [optimise.Schedule(model_of(), 100).rate(step) for step in range(100)]
    assert 0 < rates[0] <= 0.01 and max(rates) == rates[10] == 1
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


def test_one_cycle_is_that_of_torch() -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=101, cycle_momentum=False)
    mine = optimise.Schedule(model_of(schedule="one-cycle"), 100)
    for step in range(101):
        # torch has its peak a step before the share of the steps that it is told.
        assert mine.rate(step) == pytest.approx(torchs.get_last_lr()[0], abs=0.03)
        optimiser.step()
        if step < 100:
            torchs.step()


@pytest.mark.parametrize("seed", range(5))
def test_plateau_falls_when_torchs_does_also_after_a_stop(seed: int) -> None:
    model = model_of(schedule="plateau", patience=2, factor=0.3)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.3, patience=2, eps=0)
    mine = optimise.Schedule(model, 100)
    draw = np.random.default_rng(seed)
    for epoch in range(40):
        loss = float(draw.uniform(0.9, 1.1) + epoch / 100)
        torchs.step(loss)
        mine.observe(epoch, loss)
        stopped, mine = mine, optimise.Schedule(model, 100)
        mine.load_state_dict(stopped.state_dict())
        mine.observe(epoch, 99.0)  # an epoch that is repeated is not counted again
        assert mine.rate(7) == pytest.approx(optimiser.param_groups[0]["lr"])
    assert mine.rate(0) < 0.5, "it has fallen"


def test_a_constant_rate_never_changes() -> None:
    schedule = optimise.Schedule(model_of(schedule="constant"), 10)
    schedule.observe(0, 1.0)
    assert {schedule.rate(step) for step in range(10)} == {1.0}
