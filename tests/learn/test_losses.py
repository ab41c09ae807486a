"""Losses: equal to the metric that they name, linear in what is mixed, and known before the first step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kit.competition import Training
from kit.learn import losses
from kit.learn.masks import partners
from kit.metrics import LogLoss, Metric, WeightedLogLoss

KINDS = ("cross-entropy", "balanced", "metric", "binary")
METRIC = WeightedLogLoss((0.2, 0.5, 0.3))
Y = torch.tensor([0, 1, 1, 2, 2, 2, 2, 0, 1, 2, 2])


def made(kind: str = "cross-entropy", metric: Metric = METRIC, **settings: object) -> losses.Loss:
    training = replace(Training(), loss=kind, **settings)  # type: ignore[arg-type]
    return losses.make(training, np.bincount(Y.numpy(), minlength=3), metric)


def logits(rows: int = len(Y), outputs: int = 3, seed: int = 0) -> torch.Tensor:
    draw = np.random.default_rng(seed)
    return torch.from_numpy(draw.normal(0, 2, (rows, outputs))).float()


@pytest.mark.parametrize("metric", [METRIC, WeightedLogLoss((1, 1, 1)), LogLoss()])
def test_the_mean_over_a_training_set_is_the_metric_on_it(metric: Metric) -> None:
    loss, z = made("metric", metric), logits()
    expected = metric.score(Y.numpy(), losses.probabilities(z.numpy(), "metric", 3))
    assert float(loss(z, loss.targets(Y))) == pytest.approx(expected, rel=1e-6)
    parts = [loss(z[a:b], loss.targets(Y[a:b])) * (b - a) / len(Y) for a, b in ((0, 3), (3, 4), (4, 11))]
    assert float(sum(parts)) == pytest.approx(expected, rel=1e-6), "in batches of any size"


def test_balanced_weighs_by_inverse_shares_with_mean_one() -> None:
    weights = np.array(made("balanced").weights)
    counts = np.bincount(Y.numpy())
    np.testing.assert_allclose(weights * counts, (weights * counts)[0])
    assert weights[Y.numpy()].mean() == pytest.approx(1)
    assert made("cross-entropy").weights == made("binary").weights == (1, 1, 1)


def test_plain_losses_are_those_of_torch() -> None:
    z, hard = logits(), nn.functional.one_hot(Y, 3).float()
    for smoothing in (0.0, 0.2):
        loss = made(smoothing=smoothing)
        expected = nn.functional.cross_entropy(z, Y, label_smoothing=smoothing)
        torch.testing.assert_close(loss(z, loss.targets(Y)), expected)
    loss = made("binary")
    expected = nn.functional.binary_cross_entropy_with_logits(z, hard) * 3
    torch.testing.assert_close(loss(z, loss.targets(Y)), expected)


def test_a_smoothed_sigmoid_is_less_sure_of_yes_and_of_no() -> None:
    np.testing.assert_allclose(made("binary", smoothing=0.2).targets(Y[:1]), [[0.9, 0.1, 0.1]], atol=1e-6)


@pytest.mark.parametrize(("kind", "expected"), [("balanced", [1 / 3] * 3), ("binary", [0, 0, 0])])
def test_an_image_without_a_label_pulls_to_no_class(kind: str, expected: list[float]) -> None:
    loss = made(kind, smoothing=0.1, extra="negative")
    target = loss.targets(torch.tensor([-1, 0]))
    np.testing.assert_allclose(target[0], expected, rtol=1e-6)
    assert target[1].argmax() == 0 and loss.outputs == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_extra_class_is_learned_and_dropped_when_predicting(kind: str) -> None:
    loss = made(kind, extra="class")
    assert loss.outputs == 4
    target = loss.targets(torch.tensor([-1, 1]))
    assert target[0].tolist() == [0, 0, 0, 1] and int(target[1].argmax()) == 1
    z = logits(outputs=4).numpy()
    found = losses.probabilities(z, kind, 3)
    np.testing.assert_allclose(found.sum(1), 1)
    moved = z + np.array([0, 0, 0, 5.0])
    np.testing.assert_array_equal(losses.probabilities(moved, kind, 3), found)


def test_sigmoids_are_divided_by_their_sum_however_small() -> None:
    z = np.array([[0.3, -2.0, 1.0], [-800.0, -801.0, -802.0]])
    found = losses.probabilities(z, "binary", 3)
    sigmoid = 1 / (1 + np.exp(-z[0]))
    np.testing.assert_allclose(found[0], sigmoid / sigmoid.sum())
    np.testing.assert_allclose(found[1], np.exp([0, -1, -2]) / np.exp([0, -1, -2]).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extra", ["none", "negative", "class"])
def test_an_untrained_head_cannot_be_bettered_by_another_constant(kind: str, extra: str) -> None:
    loss = made(kind, smoothing=0.05, extra=extra)
    y = torch.cat([Y.repeat(200), torch.full((0 if extra == "none" else 300,), -1)])
    head = nn.Linear(5, loss.outputs)
    losses.start_at_prior(head, loss, y)
    bias = head.bias.detach().clone().requires_grad_()
    loss(bias.expand(len(y), -1), loss.targets(y)).backward()
    assert bias.grad is not None and float(bias.grad.abs().max()) < 1e-3


def test_an_untrained_model_says_the_shares_that_its_loss_implies() -> None:
    y = Y.repeat(1000)
    plain = losses.probabilities(made().prior(y)[None].numpy(), "cross-entropy", 3)
    np.testing.assert_allclose(plain[0], np.bincount(Y.numpy()) / len(Y), atol=1e-3)
    scored = losses.probabilities(made("metric").prior(y)[None].numpy(), "metric", 3)
    np.testing.assert_allclose(scored[0], METRIC.weights, atol=1e-3)


def test_a_class_without_samples_has_a_finite_start() -> None:
    loss = losses.make(replace(Training(), loss="balanced"), np.array([4, 0]), LogLoss())
    assert torch.isfinite(loss.prior(torch.zeros(4, dtype=torch.int64))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_mixed_targets_is_the_mix_of_losses(kind: str) -> None:
    loss, z = made(kind, smoothing=0.1), logits()
    target = loss.targets(Y)
    partner, share = partners(len(Y)), losses.draw_mix(np.random.default_rng(0), len(Y), 0.4)
    mixed = losses.mixed(target, partner, share)
    rows = torch.stack([loss(z[n : n + 1], mixed[n : n + 1]) for n in range(len(Y))])
    own = torch.stack([loss(z[n : n + 1], target[n : n + 1]) for n in range(len(Y))])
    other = torch.stack([loss(z[n : n + 1], target[partner[n]][None]) for n in range(len(Y))])
    torch.testing.assert_close(rows, share * own + (1 - share) * other)


def test_a_mix_keeps_at_least_half_of_a_bag() -> None:
    share = losses.draw_mix(np.random.default_rng(0), 500, 0.4)
    assert 0.5 <= float(share.min()) < 0.6 and 0.9 < float(share.max()) <= 1
