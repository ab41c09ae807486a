"""A whole model on packed bags: what reaches its parts, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kit.competition import Training
from kit.errors import DataError, SettingError
from kit.learn import pooling
from kit.learn.bags import BagModel, Mix, Packed, outputs

SIZES = (3, 1, 5, 2)
WIDTH = 7
POOLS = pooling.NAMES


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
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model.eval()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_pixels_lie_in_memory_as_the_kernels_do(layout: torch.memory_format) -> None:
    class Seen(nn.Conv2d):
        def forward(self, pixels: Tensor) -> Tensor:
            assert pixels.is_contiguous(memory_format=layout)
            return super().forward(pixels).mean((2, 3))

    model = BagModel(Seen(3, WIDTH, 3), WIDTH, 3, "mean", 0.0).to(memory_format=layout)
    for before in (torch.channels_last, torch.contiguous_format):
        tiles = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).contiguous(memory_format=before)
        assert model.embed(tiles).shape == (2, WIDTH)


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
def test_an_untrained_model_says_the_same_for_every_bag(pool: str) -> None:
    model = BagModel(None, WIDTH, 3, pool, 0.5)
    model.head.bias.data = torch.tensor([1.0, 0.0, -1.0])
    found = torch.softmax(model(packed(bags())), dim=1)
    torch.testing.assert_close(found, torch.softmax(model.head.bias, dim=0).expand(len(SIZES), 3))


@pytest.mark.parametrize("pool", POOLS)
def test_what_tiles_counted_is_what_the_pool_says_of_them(pool: str) -> None:
    model, whole = made(pool), packed(bags())
    shares = model.attention(whole.tiles, whole)
    torch.testing.assert_close(pooling.segment_sum(shares[:, None], whole.bag, 4), torch.ones(4, 1))
    if pool in ("mean", "attention"):
        pooled = pooling.segment_sum(whole.tiles * shares[:, None], whole.bag, 4)
        torch.testing.assert_close(model.head(pooled), model(whole))


def test_mixed_bags_are_mixed_as_vectors_before_the_head() -> None:
    model, whole = made("attention"), packed(bags())
    mix = Mix(torch.tensor([1, 0, 2, 0]), torch.tensor([0.7, 1.0, 0.5, 0.0]))
    plain, found = model(whole), model(whole, mix)
    # The head is linear, so mixed vectors have mixed logits.
    torch.testing.assert_close(found[0], 0.7 * plain[0] + 0.3 * plain[1])
    torch.testing.assert_close(found[[1, 2, 3]], plain[[1, 2, 0]])


def test_the_votes_of_tiles_cannot_be_mixed() -> None:
    with pytest.raises(SettingError, match="tiles vote") as caught:
        made("vote")(packed(bags()), Mix(torch.arange(4), torch.ones(4)))
    assert "train.mixup=0" in caught.value.hint


def test_a_bag_without_a_tile_that_counts_is_refused_by_its_name() -> None:
    tiles, bag, names = draw(3, WIDTH), torch.tensor([0, 2, 2]), ("a", "b", "c")
    with pytest.raises(DataError, match="image b has no tile that counts: 0 tiles"):
        Packed(tiles, bag, torch.ones(3), 3, names)
    with pytest.raises(DataError, match="bag 2 of 2 has no tile that counts: 2 tiles, of weight 0"):
        Packed(tiles, torch.tensor([0, 1, 1]), torch.tensor([1.0, 0, 0]), 2)


def test_images_of_no_class_have_an_output_of_their_own() -> None:
    assert outputs(2, Training()) == outputs(2, Training(extra="negative")) == 2
    assert outputs(2, Training(extra="class")) == 3


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
