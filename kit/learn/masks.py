"""Dropout and mixing of whole bags, drawn for a whole batch however it goes through the network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class BagDropout(nn.Module):
    """Dropout by masks that were drawn beforehand, one a bag: how a batch is cut does not change them."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.threshold = min(255, round(p * 256))  # a mask is drawn by bytes
        self.mask: Tensor | None = None
        self.bag: Tensor | None = None

    def draw(self, seed: int, bags: int, features: int) -> Tensor | None:
        """The masks ``(B, D)`` of a batch: 0, or what keeps the mean."""
        if not self.threshold:
            return None
        raw = np.random.SFC64(seed).random_raw(-(-bags * features // 8)).view(np.uint8)
        kept = raw[: bags * features].reshape(bags, features) >= self.threshold
        scale = np.float32(256 / (256 - self.threshold))
        return torch.from_numpy(np.multiply(kept, scale, dtype=np.float32))

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors of bags ``(B, D)``, or of tiles ``(T, D)`` that have the mask of their bag."""
        if not self.training or self.mask is None:
            return vectors
        mask = self.mask if len(vectors) == len(self.mask) or self.bag is None else self.mask[self.bag]
        # Of embeddings nobody needs the gradient, nor these copies again.
        return vectors * mask if vectors.requires_grad else vectors.mul_(mask)


def without_last(encoder: nn.Module) -> None:
    """Turn off the dropout behind an encoder's last layer: that of the bag follows at once, and is enough.

    timm's is drawn for tiles by torch's generator, so that it would depend on how a batch is cut.
    """
    body = getattr(encoder, "body", encoder)
    if hasattr(body, "drop_rate"):
        body.drop_rate = 0.0
    for holder, name in ((body, "head_drop"), (getattr(body, "head", None), "drop")):
        last = getattr(holder, name, None)
        if isinstance(last, nn.Dropout):
            last.p = 0.0


def partners(bags: int) -> Tensor:
    """With whom each bag is mixed ``(B,)``: its neighbour, in an order that was drawn.

    >>> partners(5).tolist()
    [1, 0, 3, 2, 3]
    """
    found = torch.arange(bags) ^ 1
    if bags % 2:
        found[-1] = max(0, bags - 2)
    return found
