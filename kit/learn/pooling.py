"""From the tiles of a bag to one vector: packed rather than padded, so that a bag may be of any length.

Every pool takes features ``(T, D)``, the bag of each tile ``(T,)``, its weight ``(T,)`` and the number of
bags, and gives ``(B, D)``. A tile of weight 2 counts like two of it, and one of weight 0 like none.
``attention`` is what each tile counted, ``(T,)``: it sums to 1 in every bag.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from kit.competition import Training
from kit.errors import SettingError, did_you_mean

HEADS = 4
WIDTH = 256  # of a token in the transformer
LAYERS = 2
PAD = 8  # further numbers of a query and a key: the fast kernels want a multiple of 8
NEVER = -1e4  # stands for the logarithm of 0, which would not survive a product; exp of it is 0
TOKENS = 1 << 15  # tokens that go through the transformer's attention at a time


def segment_sum(values: Tensor, bag: Tensor, bags: int) -> Tensor:
    """Sum rows ``(T, D)`` by bag: ``(B, D)``."""
    zeros = torch.zeros(bags, values.shape[1], dtype=values.dtype, device=values.device)
    return zeros.index_add(0, bag, values)


def segment_max(values: Tensor, bag: Tensor, bags: int) -> Tensor:
    """The largest of rows ``(T, D)`` by bag: ``(B, D)``; ties share the gradient."""
    low = torch.full((bags, values.shape[1]), -torch.inf, dtype=values.dtype, device=values.device)
    return low.scatter_reduce(0, bag[:, None].expand_as(values), values, "amax")


def segment_softmax(scores: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
    """Weighted softmax of scores ``(T,)`` within each bag; sums to 1 in every bag."""
    # Half precision has too few digits for shares that must sum to 1.
    scores = scores.float()
    known = torch.where(weight > 0, scores.detach(), -torch.inf)  # a tile that does not count sets no scale
    top = segment_max(known[:, None], bag, bags)[:, 0]
    shares = weight * torch.exp(torch.where(weight > 0, scores - top[bag], 0.0))
    total = segment_sum(shares[:, None], bag, bags)[:, 0]
    return shares / total[bag]


def _weighted(features: Tensor, share: Tensor, bag: Tensor, bags: int) -> Tensor:
    return segment_sum(features.float() * share[:, None], bag, bags)


class MeanPool(nn.Module):
    """The weighted mean of a bag. What a tile counts is its share of the weights."""

    def forward(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Features ``(T, D)`` -> ``(B, D)``."""
        return _weighted(features, self.attention(features, bag, weight, bags), bag, bags)

    def attention(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Shares ``(T,)``: the weights."""
        return weight / segment_sum(weight[:, None], bag, bags)[bag, 0]


class MaxPool(nn.Module):
    """The largest value of each feature; how much a tile weighs does not matter, unless it is nothing.

    What a tile counts is the share of the features that it gives; tiles that give the same value share it
    by their weights.
    """

    def forward(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Features ``(T, D)`` -> ``(B, D)``."""
        return segment_max(features.masked_fill(weight[:, None] <= 0, -torch.inf), bag, bags)

    def attention(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Shares ``(T,)``: of the features that a tile wins."""
        won = (features == self(features, bag, weight, bags)[bag]) * weight[:, None]
        share: Tensor = won / segment_sum(won, bag, bags)[bag]
        return share.mean(dim=1)


class GatedAttention(nn.Module):
    """Gated attention pooling (Ilse, Tomczak and Welling 2018, eq. 9)."""

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.value = nn.Linear(features, hidden)
        self.gate = nn.Linear(features, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Features ``(T, D)`` -> ``(B, D)``."""
        return _weighted(features, self.attention(features, bag, weight, bags), bag, bags)

    def attention(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Shares ``(T,)``: the attention."""
        hidden = torch.tanh(self.value(features)) * torch.sigmoid(self.gate(features))
        return segment_softmax(self.score(hidden)[:, 0], bag, weight, bags)


class Heads(nn.Module):
    """Several heads of gated attention, each over its own part of the features, joined again.

    What a tile counts is the mean of the heads' attention, each by how many features it has.
    """

    def __init__(self, features: int, heads: int = HEADS) -> None:
        super().__init__()
        few = min(heads, features)
        self.sizes = [features // few + (n < features % few) for n in range(few)]
        self.heads = nn.ModuleList(GatedAttention(size) for size in self.sizes)

    def forward(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Features ``(T, D)`` -> ``(B, D)``."""
        return torch.cat([head(part, bag, weight, bags) for head, part in self._parts(features)], dim=1)

    def attention(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Shares ``(T,)``: the mean over heads."""
        total = torch.zeros_like(weight)
        for head, part in self._parts(features):
            total = total + head.attention(part, bag, weight, bags) * part.shape[1]
        return total / features.shape[1]

    def _parts(self, features: Tensor) -> Iterator[tuple[GatedAttention, Tensor]]:
        return zip(self.heads, torch.split(features, self.sizes, dim=1), strict=True)  # type: ignore[arg-type]


class Block(nn.Module):
    """A pre-norm transformer layer (Xiong et al. 2020) in which tiles see those of their own bag."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.after = nn.Linear(width, width)
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor, weight: Tensor, groups: list[Tensor]) -> Tensor:
        """Tokens ``(T, W)`` -> ``(T, W)``; each of ``groups`` ``(n, t)`` holds n bags of t tiles."""
        asked = self.query_key_value(self.before(tokens))
        seen = torch.empty_like(asked[:, : tokens.shape[1]])
        for rows in groups:
            seen = seen.index_copy(0, rows.flatten(), self._attend(asked[rows], weight[rows]).flatten(0, 1))
        tokens = tokens + self.after(seen)
        mixed: Tensor = tokens + self.mix(tokens)
        return mixed

    def _attend(self, asked: Tensor, weight: Tensor) -> Tensor:
        """Attention within bags of one length: ``(n, t, 3 W)`` -> ``(n, t, W)``.

        The logarithm of a key's weight is added to its scores. It goes in as one more number of query and
        key: as a mask it would be ``(t, t)`` in some kernels, and there may be 8,000 tiles.
        """
        query, key, value = asked.view(*asked.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scale = query.shape[-1] ** -0.5
        bias = torch.log(weight).clamp(min=NEVER)[:, None, :, None].expand(*key.shape[:3], 1)
        one = torch.full_like(bias, 1 / scale)
        query, key, value = (
            torch.cat([part, end.to(part.dtype), part.new_zeros(*part.shape[:3], PAD - 1)], dim=3)
            for part, end in ((query, one), (key, bias), (value, torch.zeros_like(bias)))
        )
        found = nn.functional.scaled_dot_product_attention(query, key, value, scale=scale)
        return found[..., :-PAD].transpose(1, 2).flatten(2)


class Transformer(nn.Module):
    """Self-attention among the tiles of a bag, then gated attention pooling.

    What the layers found is added to the features, beginning with nothing: at the start this is gated
    attention. What a tile counts is its share in the pooling; the layers before it have moved what the
    others say as well.
    """

    def __init__(self, features: int, width: int = WIDTH, heads: int = HEADS, layers: int = LAYERS) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.leave = nn.Linear(width, features)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.pool = GatedAttention(features)

    def forward(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Features ``(T, D)`` -> ``(B, D)``."""
        found: Tensor = self.pool(self._informed(features, bag, weight, bags), bag, weight, bags)
        return found

    def attention(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Shares ``(T,)``: those of the pooling."""
        return self.pool.attention(self._informed(features, bag, weight, bags), bag, weight, bags)

    def _informed(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """The features of each tile, with what the others of its bag add to them."""
        groups = groups_of(bag, bags)
        tokens = self.enter(features)
        for block in self.blocks:
            tokens = block(tokens, weight, groups)
        informed: Tensor = features + self.leave(tokens)
        return informed


def groups_of(bag: Tensor, bags: int) -> list[Tensor]:
    """The tiles of bags of one length, ``(n, t)`` each, so that they go through a layer together.

    A group has no more than ``TOKENS`` tiles, or one bag: memory does not grow with the number of bags.
    """
    counts = torch.bincount(bag, minlength=bags)
    order, start = torch.argsort(bag, stable=True), torch.cumsum(counts, 0) - counts
    groups = []
    for count in torch.unique(counts).tolist():
        first = start[counts == count]
        rows = order[first[:, None] + torch.arange(count, device=bag.device)]
        groups += list(torch.split(rows, max(1, TOKENS // max(count, 1))))
    return groups


class Vote(nn.Module):
    """Every tile says its own probabilities, and the bag says their weighted mean.

    This pool comes after the head: it takes logits ``(T, K)`` and gives ``(B, K)``, the logarithm of the mean
    probability. What a tile counts is its part of the probability of the class that the bag favours.
    """

    def forward(self, logits: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Logits ``(T, K)`` -> ``(B, K)``."""
        votes = self._votes(logits, bag, weight, bags)
        # In logarithms: a class that all tiles deny keeps its gradient.
        top = segment_max(votes.detach(), bag, bags)
        return top + torch.log(segment_sum(torch.exp(votes - top[bag]), bag, bags))

    def attention(self, logits: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Shares ``(T,)``: of the probability of the bag's first class."""
        said = self(logits, bag, weight, bags)
        favoured = said.argmax(dim=1, keepdim=True)
        mine = self._votes(logits, bag, weight, bags).gather(1, favoured[bag])
        return torch.exp(mine - said.gather(1, favoured)[bag])[:, 0]

    def _votes(self, logits: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """The logarithm of each tile's part of its bag's probabilities ``(T, K)``."""
        share = weight / segment_sum(weight[:, None], bag, bags)[bag, 0]
        return torch.log_softmax(logits.float(), dim=1) + torch.log(share).clamp(min=NEVER)[:, None]


NAMES = ("mean", "max", "attention", "heads", "transformer", "vote")
# Those that say something of single tiles which is worth a picture.
ATTENDING = ("attention", "heads", "transformer", "vote")


def make(name: str, features: int, classes: int) -> nn.Module:
    """A pool by its name in ``train.pool``.

    Raises:
        SettingError: there is no such pool.
    """
    if name == "mean":
        return MeanPool()
    if name == "max":
        return MaxPool()
    if name == "attention":
        return GatedAttention(features)
    if name == "heads":
        return Heads(features)
    if name == "transformer":
        return Transformer(features)
    if name == "vote":
        return Vote()
    raise SettingError(f"there is no pool '{name}'", did_you_mean(name, NAMES))


def check(training: Training) -> None:
    """The other settings can be had with the pool.

    Raises:
        SettingError: votes cannot be mixed, and are no sigmoids.
    """
    if training.pool != "vote":
        return
    if training.mixup:
        raise SettingError(
            f"train.mixup={training.mixup} mixes the vectors of bags, and train.pool=vote has none",
            "use train.mixup=0, or train.pool=mean",
        )
    if training.loss == "binary":
        raise SettingError(
            "train.pool=vote averages probabilities that sum to 1, and those of train.loss=binary do not",
            "use train.loss=cross-entropy, or train.pool=mean",
        )
