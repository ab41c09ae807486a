"""Packed bags: each is pooled by itself, whatever its order and company."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kit.learn.bags import BagModel, GatedAttention, MeanPool, Packed, segment_softmax, segment_sum
from kit.learn.train import start_at_prior

SIZES = (3, 1, 5, 2)
WIDTH = 7


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def packed(tiles: list[Tensor], weights: list[Tensor] | None = None) -> Packed:
    bag = torch.repeat_interleave(torch.arange(len(tiles)), torch.tensor([len(part) for part in tiles]))
    weight = torch.ones(len(bag)) if weights is None else torch.cat(weights)
    return Packed(torch.cat(tiles), bag, weight, len(tiles))


def bags(seed: int = 0) -> list[Tensor]:
    return list(draw(sum(SIZES), WIDTH, seed=seed).split(SIZES))


def made(pool: str, drop: float = 0.0) -> BagModel:
    """A model whose every weight says something."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = BagModel(None, WIDTH, 3, pool, drop)
        nn.init.normal_(model.head.weight)
        nn.init.normal_(model.head.bias)
    return model.eval()


POOLS = ("mean", "attention")


def test_a_segment_softmax_is_the_softmax_of_every_bag() -> None:
    scores = draw(sum(SIZES)) * 20
    bag = packed(bags()).bag
    found = segment_softmax(scores, bag, torch.ones(len(bag)), len(SIZES))
    for part, mine in zip(scores.split(SIZES), found.split(SIZES), strict=True):
        torch.testing.assert_close(mine, torch.softmax(part, dim=0))


def test_scores_that_would_overflow_still_sum_to_one() -> None:
    found = segment_softmax(torch.tensor([1e4, 1e4 - 1, -1e4]), torch.tensor([0, 0, 1]), torch.ones(3), 2)
    torch.testing.assert_close(segment_sum(found[:, None], torch.tensor([0, 0, 1]), 2)[:, 0], torch.ones(2))


def test_the_weights_of_a_softmax_multiply_its_shares() -> None:
    scores, weight = draw(4), torch.tensor([1.0, 2.0, 0.0, 0.5])
    found = segment_softmax(scores, torch.zeros(4, dtype=torch.int64), weight, 1)
    expected = weight * scores.exp() / (weight * scores.exp()).sum()
    torch.testing.assert_close(found, expected)


def test_the_gradient_of_attention_is_that_of_a_softmax() -> None:
    scores = draw(5).requires_grad_()
    segment_softmax(scores, torch.zeros(5, dtype=torch.int64), torch.ones(5), 1)[2].backward()
    other = scores.detach().clone().requires_grad_()
    torch.softmax(other, dim=0)[2].backward()
    torch.testing.assert_close(scores.grad, other.grad)


@pytest.mark.parametrize("pool", [MeanPool(), GatedAttention(WIDTH)])
def test_a_bag_of_one_is_pooled_to_itself(pool: nn.Module) -> None:
    features = draw(4, WIDTH)
    for weight in (1.0, 0.25):
        found = pool(features, torch.arange(4), torch.full((4,), weight), 4)
        torch.testing.assert_close(found, features)


def test_the_mean_pool_is_the_mean_of_every_bag() -> None:
    found = MeanPool()(packed(bags()).tiles, packed(bags()).bag, torch.ones(sum(SIZES)), len(SIZES))
    torch.testing.assert_close(found, torch.stack([part.mean(dim=0) for part in bags()]))


def test_gated_attention_is_the_published_formula() -> None:
    pool, features = GatedAttention(WIDTH), draw(6, WIDTH)
    found = pool(features, torch.zeros(6, dtype=torch.int64), torch.ones(6), 1)[0]
    gate = torch.sigmoid(features @ pool.gate.weight.T + pool.gate.bias)
    value = torch.tanh(features @ pool.value.weight.T + pool.value.bias)
    share = torch.softmax((value * gate) @ pool.score.weight[0] + pool.score.bias, dim=0)
    torch.testing.assert_close(found, share @ features)


@pytest.mark.parametrize("pool", POOLS)
def test_a_bag_says_the_same_in_any_company_and_order(pool: str) -> None:
    model, all_bags = made(pool), bags()
    together = model(packed(all_bags))
    for n, part in enumerate(all_bags):
        torch.testing.assert_close(model(packed([part]))[0], together[n])
        torch.testing.assert_close(model(packed([part.flip(0)]))[0], together[n])
    torch.testing.assert_close(model(packed(all_bags[::-1])), together.flip(0))


@pytest.mark.parametrize("pool", POOLS)
def test_the_tiles_of_a_bag_need_not_lie_side_by_side(pool: str) -> None:
    model, whole = made(pool), packed(bags())
    order = torch.randperm(len(whole.bag), generator=torch.Generator().manual_seed(1))
    mixed = Packed(whole.tiles[order], whole.bag[order], whole.weight[order], whole.bags)
    torch.testing.assert_close(model(mixed), model(whole))


@pytest.mark.parametrize("pool", POOLS)
def test_a_tile_of_weight_two_counts_like_two_and_of_weight_zero_like_none(pool: str) -> None:
    model, (first, *_) = made(pool), bags()
    twice = model(packed([torch.cat([first, first[:1]])]))
    torch.testing.assert_close(model(packed([first], [torch.tensor([2.0, 1.0, 1.0])])), twice)
    without = model(packed([first[1:]]))
    torch.testing.assert_close(model(packed([first], [torch.tensor([0.0, 1.0, 1.0])])), without)
    assert not torch.allclose(twice, without)


@pytest.mark.parametrize("pool", POOLS)
def test_an_untrained_model_says_the_class_shares_for_every_bag(pool: str) -> None:
    model = BagModel(None, WIDTH, 3, pool, 0.5)
    assert torch.count_nonzero(model(packed(bags()))) == 0
    start_at_prior(model, torch.tensor([0] * 6 + [1] * 3))
    shares = torch.softmax(model(packed(bags())), dim=1)
    expected = torch.tensor([6.5, 3.5, 0.5]) / 10.5
    torch.testing.assert_close(shares, expected.expand(len(SIZES), 3))


def test_images_reach_the_encoder_as_it_was_trained_and_embeddings_standardised() -> None:
    class Seen(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return pixels.mean(dim=(2, 3))

    model = BagModel(Seen(), 3, 2, "mean", 0.0, (0.5, 0.25, 0.0), (0.5, 0.5, 2.0))
    tiles = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    torch.testing.assert_close(model.embed(tiles), torch.tensor([[1.0, 1.5, 0.5]]))
    frozen = made("mean")
    frozen.center.fill_(2)
    frozen.spread.fill_(4)
    torch.testing.assert_close(frozen.embed(torch.full((1, WIDTH), 10.0)), torch.full((1, WIDTH), 2.0))


def test_dropout_works_in_training_only() -> None:
    model, tiles = made("mean", drop=0.5), packed(bags())
    assert torch.equal(model(tiles), model(tiles))
    model.train()
    assert not torch.equal(model(tiles), model(tiles))
