"""The unit of learning: a bag of tiles, packed rather than padded, pooled into one vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Packed:
    """Several bags end to end.

    tiles: uint8 images ``(T, 3, H, W)``, or embeddings ``(T, D)`` in frozen mode.
    bag: the bag of each tile ``(T,)``, numbered from 0.
    weight: how much each tile counts ``(T,)``.
    bags: the number of bags B.
    """

    tiles: Tensor
    bag: Tensor
    weight: Tensor
    bags: int

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        return Packed(self.tiles.to(device), self.bag.to(device), self.weight.to(device), self.bags)


def segment_sum(values: Tensor, bag: Tensor, bags: int) -> Tensor:
    """Sum rows ``(T, D)`` by bag: ``(B, D)``."""
    zeros = torch.zeros(bags, values.shape[1], dtype=values.dtype, device=values.device)
    return zeros.index_add(0, bag, values)


def segment_softmax(scores: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
    """Weighted softmax of scores ``(T,)`` within each bag; sums to 1 in every bag."""
    top = torch.full((bags,), -torch.inf, dtype=scores.dtype, device=scores.device)
    top = top.scatter_reduce(0, bag, scores.detach(), "amax")
    shares = weight * torch.exp(scores - top[bag])
    total = segment_sum(shares[:, None], bag, bags)[:, 0]
    return shares / total[bag]


class MeanPool(nn.Module):
    """The weighted mean of a bag."""

    def forward(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Features ``(T, D)`` -> ``(B, D)``."""
        share = weight / segment_sum(weight[:, None], bag, bags)[bag, 0]
        return segment_sum(features * share[:, None], bag, bags)


class GatedAttention(nn.Module):
    """Gated attention pooling (Ilse, Tomczak and Welling 2018, eq. 9)."""

    def __init__(self, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.value = nn.Linear(features, hidden)
        self.gate = nn.Linear(features, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, features: Tensor, bag: Tensor, weight: Tensor, bags: int) -> Tensor:
        """Features ``(T, D)`` -> ``(B, D)``."""
        hidden = torch.tanh(self.value(features)) * torch.sigmoid(self.gate(features))
        share = segment_softmax(self.score(hidden)[:, 0], bag, weight, bags)
        return segment_sum(features * share[:, None], bag, bags)


class BagModel(nn.Module):
    """Encoder, pool and head: packed bags in, logits ``(B, K)`` out.

    Without an encoder (frozen mode) the tiles are embeddings, standardised by ``center`` and
    ``spread``, which are those of the training fold. The head starts at zero, so that an untrained
    model says the same for every bag.
    """

    mean: Tensor
    std: Tensor
    center: Tensor
    spread: Tensor

    def __init__(
        self,
        encoder: nn.Module | None,
        features: int,
        classes: int,
        pool: str,
        drop: float,
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pool = GatedAttention(features) if pool == "attention" else MeanPool()
        self.drop = nn.Dropout(drop)
        self.head = nn.Linear(features, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1) * 255)
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))

    def embed(self, tiles: Tensor) -> Tensor:
        """uint8 images ``(T, 3, H, W)`` -> features ``(T, D)``; embeddings pass through."""
        if self.encoder is None:
            return (tiles - self.center) / self.spread
        pixels = (tiles.to(self.mean.dtype) - self.mean) / self.std
        features: Tensor = self.encoder(pixels.contiguous(memory_format=torch.channels_last))
        return features

    def forward(self, packed: Packed) -> Tensor:
        """Logits ``(B, K)``."""
        return self.classify(self.embed(packed.tiles), packed)

    def classify(self, features: Tensor, packed: Packed) -> Tensor:
        """Logits ``(B, K)`` of features that are already computed."""
        pooled = self.pool(features, packed.bag, packed.weight, packed.bags)
        logits: Tensor = self.head(self.drop(pooled))
        return logits
