"""Every pool, packed, against a plain loop over bags; and what each says of single tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kit.competition import Training
from kit.errors import SettingError
from kit.learn import pooling
from kit.learn.pooling import NAMES, GatedAttention, Heads, MaxPool, MeanPool, segment_softmax, segment_sum

SIZES = (3, 1, 5, 2, 5)
WIDTH, CLASSES = 10, 3
BAG = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(name: str, width: int = WIDTH) -> nn.Module:
    """A pool whose every part says something."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        pool = pooling.make(name, width, CLASSES)
        for parameter in pool.parameters():
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return pool


def weights(seed: int = 1) -> Tensor:
    return torch.rand(len(BAG), generator=torch.Generator().manual_seed(seed)) + 0.1


def softmax_alone(scores: Tensor, weight: Tensor) -> Tensor:
    return weight * scores.exp() / (weight * scores.exp()).sum()


def gated_alone(pool: Any, x: Tensor, weight: Tensor) -> Tensor:
    hidden = torch.tanh(pool.value(x)) * torch.sigmoid(pool.gate(x))
    return softmax_alone(pool.score(hidden)[:, 0], weight) @ x


def layer_alone(block: Any, x: Tensor, weight: Tensor) -> Tensor:
    query, key, value = (
        part.view(len(x), block.heads, -1).transpose(0, 1)
        for part in block.query_key_value(block.before(x)).chunk(3, dim=1)
    )
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5 + torch.log(weight)
    seen = (torch.softmax(scores, dim=2) @ value).transpose(0, 1).flatten(1)
    x = x + block.after(seen)
    return x + block.mix(x)


def alone(name: str, pool: Any, x: Tensor, weight: Tensor) -> Tensor:
    """One bag by the textbook, without any of the packing."""
    if name == "mean":
        return weight @ x / weight.sum()
    if name == "max":
        return x.max(dim=0).values
    if name == "attention":
        return gated_alone(pool, x, weight)
    if name == "heads":
        parts = zip(pool.heads, x.split(pool.sizes, dim=1), strict=True)
        return torch.cat([gated_alone(head, part, weight) for head, part in parts])
    if name == "transformer":
        tokens = pool.enter(x)
        for block in pool.blocks:
            tokens = layer_alone(block, tokens, weight)
        return gated_alone(pool.pool, x + pool.leave(tokens), weight)
    return torch.log(weight @ torch.softmax(x, dim=1) / weight.sum())


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_pool_is_a_plain_loop_over_bags_with_its_gradient(name: str) -> None:
    pool, weight, seen = made(name), weights(), draw(len(SIZES), WIDTH, seed=5)
    found: list[list[Tensor]] = []
    for packed in (True, False):
        pool.zero_grad()
        x = draw(len(BAG), WIDTH).requires_grad_()
        if packed:
            pooled = pool(x, BAG, weight, len(SIZES))
        else:
            parts = zip(x.split(SIZES), weight.split(SIZES), strict=True)
            pooled = torch.stack([alone(name, pool, mine, share) for mine, share in parts])
        (pooled * seen).sum().backward()
        assert x.grad is not None
        found.append([pooled.detach(), x.grad, *(p.grad.clone() for p in pool.parameters())])
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_neither_the_order_of_tiles_nor_other_bags_matter(name: str) -> None:
    pool, x, weight = made(name), draw(len(BAG), WIDTH), weights()
    whole, shares = pool(x, BAG, weight, len(SIZES)), pool.attention(x, BAG, weight, len(SIZES))  # type: ignore[operator]
    order = torch.randperm(len(BAG), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pool(x[order], BAG[order], weight[order], len(SIZES)), whole)
    mixed = pool.attention(x[order], BAG[order], weight[order], len(SIZES))  # type: ignore[operator]
    torch.testing.assert_close(mixed, shares[order])
    for n in range(len(SIZES)):
        mine = torch.eq(BAG, n)
        none = torch.zeros(int(mine.sum()), dtype=torch.int64)
        torch.testing.assert_close(pool(x[mine], none, weight[mine], 1)[0], whole[n])


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_is_a_number_of_copies_and_none_at_zero(name: str) -> None:
    pool, x = made(name), draw(4, WIDTH)
    copies = torch.tensor([3, 1, 0, 2])
    none = torch.zeros(4, dtype=torch.int64)
    repeated = x.repeat_interleave(copies, dim=0)
    zeros, ones = torch.zeros(6, dtype=torch.int64), torch.ones(6)
    expected = pool(repeated, zeros, ones, 1)
    torch.testing.assert_close(pool(x, none, copies.float(), 1), expected, atol=1e-5, rtol=1e-5)
    shares = pool.attention(x, none, copies.float(), 1)  # type: ignore[operator]
    each = pool.attention(repeated, zeros, ones, 1)  # type: ignore[operator]
    torch.testing.assert_close(shares[[0, 1, 3]], torch.stack([each[:3].sum(), each[3], each[4:].sum()]))
    assert shares[2] == 0
    assert not torch.allclose(pool(x, none, torch.ones(4), 1), expected, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_tiles_counted_sums_to_one_in_every_bag(name: str) -> None:
    shares = made(name).attention(draw(len(BAG), WIDTH) * 20, BAG, weights(), len(SIZES))  # type: ignore[operator]
    assert shares.shape == BAG.shape and (shares >= 0).all()
    torch.testing.assert_close(segment_sum(shares[:, None], BAG, len(SIZES))[:, 0], torch.ones(len(SIZES)))


@pytest.mark.parametrize("name", ["mean", "max", "attention", "heads"])
def test_a_bag_of_one_is_pooled_to_itself_whatever_it_weighs(name: str) -> None:
    x = draw(4, WIDTH)
    for weight in (1.0, 0.25):
        torch.testing.assert_close(made(name)(x, torch.arange(4), torch.full((4,), weight), 4), x)


def test_a_segment_softmax_is_the_softmax_of_every_bag_however_large_the_scores() -> None:
    scores = draw(len(BAG)) * 20
    found = segment_softmax(scores, BAG, torch.ones(len(BAG)), len(SIZES))
    for part, mine in zip(scores.split(SIZES), found.split(SIZES), strict=True):
        torch.testing.assert_close(mine, torch.softmax(part, dim=0))
    large = segment_softmax(torch.tensor([1e4, 1e4 - 1, -1e4]), torch.tensor([0, 0, 1]), torch.ones(3), 2)
    torch.testing.assert_close(large.sum(), torch.tensor(2.0))


def test_a_tile_of_weight_zero_with_a_huge_score_leaves_the_others_their_shares_and_gradient() -> None:
    scores = torch.tensor([500.0, 0.0, 1.0], requires_grad=True)
    found = segment_softmax(scores, torch.zeros(3, dtype=torch.int64), torch.tensor([0.0, 1.0, 1.0]), 1)
    torch.testing.assert_close(found[1:], torch.softmax(torch.tensor([0.0, 1.0]), dim=0))
    found[1].backward()
    assert scores.grad is not None and scores.grad.isfinite().all() and scores.grad[1] > 0.1


def test_a_tile_without_weight_never_wins_the_maximum_and_ties_are_shared() -> None:
    x = torch.tensor([[9.0, 9.0], [1.0, 3.0], [1.0, 2.0]])
    zero = torch.zeros(3, dtype=torch.int64)
    pool, weight = MaxPool(), torch.tensor([0.0, 1.0, 3.0])
    assert pool(x, zero, weight, 1).tolist() == [[1, 3]]
    torch.testing.assert_close(pool.attention(x, zero, weight, 1), torch.tensor([0, 0.625, 0.375]))


def test_the_heads_take_all_features_between_them() -> None:
    assert Heads(10).sizes == [3, 3, 2, 2] and Heads(2).sizes == [1, 1]
    pool, x = made("heads"), draw(5, WIDTH)
    one, parts = torch.zeros(5, dtype=torch.int64), x.split([3, 3, 2, 2], dim=1)
    each = [head.attention(part, one, torch.ones(5), 1) for head, part in zip(pool.heads, parts, strict=True)]  # type: ignore[arg-type]
    expected = (3 * each[0] + 3 * each[1] + 2 * each[2] + 2 * each[3]) / 10
    torch.testing.assert_close(pool.attention(x, one, torch.ones(5), 1), expected)  # type: ignore[operator]


def test_a_new_transformer_is_gated_attention() -> None:
    pool = pooling.Transformer(WIDTH)
    x, weight = draw(len(BAG), WIDTH), weights()
    torch.testing.assert_close(pool(x, BAG, weight, 5), pool.pool(x, BAG, weight, 5))


def test_a_tile_that_only_others_see_moves_what_a_transformer_says() -> None:
    """Not through the pooling: its weight there is next to nothing."""
    pool, x, none = made("transformer"), draw(3, WIDTH), torch.zeros(3, dtype=torch.int64)
    informed = pool._informed(x, none, torch.ones(3), 1)  # type: ignore[operator]
    x[2] += 3
    assert (pool._informed(x, none, torch.ones(3), 1)[:2] - informed[:2]).abs().max() > 1e-3  # type: ignore[operator]


def test_the_votes_of_a_bag_are_its_mean_probability() -> None:
    logits, weight = draw(len(BAG), CLASSES) * 5, weights()
    pool = pooling.Vote()
    found = torch.softmax(pool(logits, BAG, weight, len(SIZES)), dim=1)
    expected = MeanPool()(torch.softmax(logits, dim=1), BAG, weight, len(SIZES))
    torch.testing.assert_close(found, expected)
    first = pool.attention(logits, BAG, weight, len(SIZES))[:3]
    said = (torch.softmax(logits[:3], dim=1) * weight[:3, None])[:, int(expected[0].argmax())]
    torch.testing.assert_close(first, said / said.sum())


def test_a_class_that_every_tile_denies_still_learns() -> None:
    logits = torch.tensor([[200.0, 0.0], [300.0, 0.0]], requires_grad=True)
    pooling.Vote()(logits, torch.zeros(2, dtype=torch.int64), torch.ones(2), 1)[0, 1].backward()
    assert logits.grad is not None and logits.grad[:, 1].sum() > 0.5 and logits.grad.isfinite().all()


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    most = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for part in made if isinstance(made, tuple | list) else (made,):
            if isinstance(part, Tensor):
                self.most = max(self.most, part.untyped_storage().nbytes() // part.element_size())
        return made


def test_no_tensor_of_a_bag_of_thousands_is_as_large_as_all_pairs_of_its_tiles() -> None:
    tiles = 4000
    pool, bag = pooling.Transformer(16), torch.cat([torch.zeros(tiles, dtype=torch.int64), torch.tensor([1])])
    x = draw(tiles + 1, 16).requires_grad_()
    with Largest() as seen:
        pool(x, bag, torch.ones(tiles + 1), 2).sum().backward()
    assert x.grad is not None and seen.most < tiles * tiles // 4


def test_bags_of_one_length_go_together_and_no_group_grows_with_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pooling, "TOKENS", 6)
    bag = torch.tensor([0, 1, 2, 1, 3, 0, 2, 3, 3])  # lengths 2, 2, 2, 3
    groups = [rows.tolist() for rows in pooling.groups_of(bag, 4)]
    assert groups == [[[0, 5], [1, 3], [2, 6]], [[4, 7, 8]]]
    monkeypatch.setattr(pooling, "TOKENS", 4)
    assert [len(rows) for rows in pooling.groups_of(bag, 4)] == [2, 1, 1]


def test_gated_attention_in_half_precision_still_sums_to_one() -> None:
    pool, bag = GatedAttention(WIDTH), torch.zeros(3000, dtype=torch.int64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        shares = pool.attention(draw(3000, WIDTH), bag, torch.ones(3000), 1)
    assert abs(float(shares.sum()) - 1) < 1e-4


def test_an_unknown_pool_and_settings_that_votes_cannot_have_are_refused() -> None:
    with pytest.raises(SettingError, match="no pool 'mena'") as caught:
        pooling.make("mena", 3, 2)
    assert "did you mean mean?" in caught.value.hint
    pooling.check(Training(pool="vote"))
    pooling.check(Training(mixup=0.2, loss="binary"))
    with pytest.raises(SettingError, match=r"train\.mixup=0\.2"):
        pooling.check(Training(pool="vote", mixup=0.2))
    with pytest.raises(SettingError, match=r"train\.loss=binary"):
        pooling.check(Training(pool="vote", loss="binary"))
