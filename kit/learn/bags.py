"""The unit of learning: a bag of tiles, packed rather than padded, pooled into one vector."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kit.competition import Training
from kit.errors import DataError, SettingError
from kit.learn import pooling


@dataclass(frozen=True)
class Packed:
    """Several bags end to end.

    tiles: uint8 images ``(T, 3, H, W)``, or embeddings ``(T, D)`` in frozen mode.
    bag: the bag of each tile ``(T,)``, numbered from 0.
    weight: how much each tile counts ``(T,)``.
    bags: the number of bags B.
    names: of the bags, for messages; may be left out.

    Raises:
        DataError: a bag has no tile that counts.
    """

    tiles: Tensor
    bag: Tensor
    weight: Tensor
    bags: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.bag.is_cpu:  # on a GPU the answer would have to be waited for, and it was packed here
            counted = torch.bincount(self.bag[self.weight > 0], minlength=self.bags)
            if bool((counted == 0).any()):
                self._refuse(int((counted == 0).nonzero()[0]))

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        tiles, bag, weight = (
            part.to(device, non_blocking=True) for part in (self.tiles, self.bag, self.weight)
        )
        return replace(self, tiles=tiles, bag=bag, weight=weight)

    def _refuse(self, number: int) -> None:
        name = f"image {self.names[number]}" if self.names else f"bag {number + 1} of {self.bags}"
        raise DataError(
            f"{name} has no tile that counts: {int((self.bag == number).sum())} tiles, of weight 0",
            "an image without tiles is left out: see the column tiles of images.csv",
        )


@dataclass(frozen=True)
class Mix:
    """Which bags are mixed: ``share`` of each with the rest of its partner (mixup, Zhang et al. 2018).

    partner: int64 ``(B,)``, the number of another bag.
    share: float ``(B,)``, from 0 to 1.
    """

    partner: Tensor
    share: Tensor

    def to(self, device: torch.device) -> Mix:
        """The same on another device."""
        return Mix(self.partner.to(device), self.share.to(device))


def outputs(classes: int, training: Training) -> int:
    """The logits of a bag: one a class, and one for images of none where they are a class of their own."""
    return classes + (training.extra == "class")


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
        self.pool = pooling.make(pool, features, classes)
        self.drop = nn.Dropout(drop)
        self.head = nn.Linear(features, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1) * 255)
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))

    @property
    def votes(self) -> bool:
        """Whether each tile has logits of its own, which are pooled."""
        return isinstance(self.pool, pooling.Vote)

    def embed(self, tiles: Tensor) -> Tensor:
        """uint8 images ``(T, 3, H, W)`` -> features ``(T, D)``; embeddings pass through."""
        if self.encoder is None:
            return (tiles - self.center) / self.spread
        pixels = (tiles.to(self.mean.dtype) - self.mean) / self.std
        features: Tensor = self.encoder(pixels.contiguous(memory_format=self._layout(self.encoder)))
        return features

    @staticmethod
    def _layout(encoder: nn.Module) -> torch.memory_format:
        """How pixels lie in memory: as the first kernels do, or the encoder would turn every map."""
        kernel = next((weight for weight in encoder.parameters() if weight.ndim == 4), None)
        plain = kernel is not None and not kernel.is_contiguous(memory_format=torch.channels_last)
        return torch.contiguous_format if plain else torch.channels_last

    def forward(self, packed: Packed, mix: Mix | None = None) -> Tensor:
        """Logits ``(B, K)``.

        Raises:
            SettingError: bags are to be mixed whose tiles vote.
        """
        return self.classify(self.embed(packed.tiles), packed, mix)

    def classify(self, features: Tensor, packed: Packed, mix: Mix | None = None) -> Tensor:
        """Logits ``(B, K)`` of features that are already computed.

        With ``mix`` the pooled vectors are mixed, before dropout and head (manifold mixup, Verma et al.
        2019): pixels of two bags of different lengths have no common grid.
        """
        bags = packed.bag, packed.weight, packed.bags
        if self.votes:
            if mix is not None:
                raise SettingError(
                    "bags cannot be mixed where tiles vote", "use train.mixup=0, or train.pool=mean"
                )
            logits: Tensor = self.pool(self.head(self.drop(features)), *bags)
            return logits
        pooled = self.pool(features, *bags)
        if mix is not None:
            share = mix.share[:, None].to(pooled.dtype)
            pooled = share * pooled + (1 - share) * pooled[mix.partner]
        logits = self.head(self.drop(pooled))
        return logits

    def attention(self, features: Tensor, packed: Packed) -> Tensor:
        """What each tile counts ``(T,)``: shares that sum to 1 in every bag."""
        values = self.head(features) if self.votes else features
        shares: Tensor = self.pool.attention(values, packed.bag, packed.weight, packed.bags)  # type: ignore[operator]
        return shares
