"""What a model is fitted to: the loss of a batch of bags, its targets, and the probabilities that it implies.

A loss weighs classes, and so implies class shares of its own (its prior): `balanced` and `metric` act as if
classes were as frequent as their weights say, `binary` does not let probabilities sum to 1, and unlabelled
images pull to no class. None of this need be undone here: the second level fits a bias a class on the
out-of-fold rows, which moves whatever prior a loss implies to the one that is scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from kit.competition import Training
from kit.metrics import Metric

HALF = 0.5  # of an image, added to each class: one that has none is unlikely, not impossible


@dataclass(frozen=True)
class Loss:
    """Cross-entropy against soft targets, or one sigmoid a class with binary cross-entropy.

    weights: what a bag counts, by its class ``(K,)``; the mean over the training samples is 1.
    smoothing: the share of a label that all classes get alike (Szegedy 2016).
    binary: one sigmoid a class instead of a softmax.
    spare: whether images without a label are a class K + 1; else they are of none.
    """

    weights: tuple[float, ...]
    smoothing: float = 0.0
    binary: bool = False
    spare: bool = False

    @property
    def outputs(self) -> int:
        """The number of logits that the head must have in training."""
        return len(self.weights) + self.spare

    def targets(self, y: Tensor) -> Tensor:
        """What the logits of bags of classes ``(B,)`` are compared with: ``(B, outputs)`` float.

        Rows carry the weight of their class, so that mixing two targets mixes two losses. A class of -1 is
        an image without a label of the task: the class K + 1 where there is one; else all classes alike,
        or, for sigmoids, none of them. It weighs 1.
        """
        known = y >= 0
        hard = nn.functional.one_hot(torch.where(known, y, len(self.weights)), len(self.weights) + 1).float()
        hard = hard[:, : self.outputs]
        if not self.spare and not self.binary:
            hard = torch.where(known[:, None], hard, 1 / self.outputs)
        # A sigmoid's two classes are yes and no: each gets half of what is smoothed.
        other = HALF if self.binary else 1 / self.outputs
        soft = torch.where(known[:, None], (1 - self.smoothing) * hard + self.smoothing * other, hard)
        weight = torch.tensor([*self.weights, 1.0], device=y.device)[y]
        return soft * weight[:, None]

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean over bags, from logits and targets ``(B, outputs)``.

        It is divided by the number of bags, not by their weights: so the mean over batches is the mean
        over the training set. Sigmoids are summed over classes, so that a logit's gradient is as large as
        under softmax, and the same rate and ridge suit both.
        """
        if self.binary:
            return (
                nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()
            )
        return -(target * nn.functional.log_softmax(logits, dim=1)).sum(1).mean()

    def prior(self, y: Tensor) -> Tensor:
        """The constant logits ``(outputs,)`` that fit the classes ``(n,)`` of a training set best."""
        total = self.targets(y).sum(0)
        if self.binary:
            return torch.log((total + HALF) / (len(y) - total + HALF))
        return torch.log((total + HALF) / (total + HALF).sum())


def make(training: Training, counts: NDArray[np.int64], metric: Metric) -> Loss:
    """The loss that ``train.loss`` names.

    cross-entropy: every bag counts the same.
    balanced: a bag counts by the inverse share of its class.
    metric: the mean over the training samples is the competition's metric on them.
    binary: one sigmoid a class, with binary cross-entropy; also for two classes.

    Args:
        counts: labelled samples of an epoch, by class ``(K,)``.
    """
    prior = {"balanced": (1 / len(counts),) * len(counts), "metric": metric.fixed_prior}.get(training.loss)
    weights = np.ones(len(counts))
    if prior is not None:
        # A class that no sample has cannot be weighed up; its weight is never asked for.
        weights = np.asarray(prior) * counts.sum() / np.maximum(counts, 1)
    return Loss(
        tuple(float(weight) for weight in weights),
        training.smoothing,
        binary=training.loss == "binary",
        spare=training.extra == "class",
    )


def start_at_prior(head: nn.Linear, loss: Loss, y: Tensor) -> None:
    """Let an untrained model say the class shares that its loss implies: no step is spent on learning them.

    ``y`` are the classes of an epoch's samples ``(n,)``, -1 for an image without a label.
    """
    with torch.no_grad():
        head.bias.copy_(loss.prior(y))


def draw_mix(draw: np.random.Generator, bags: int, alpha: float) -> Tensor:
    """How much of itself each bag keeps in a mixup: shares ``(B,)`` float (Zhang 2018, Verma 2019).

    A bag keeps its share, which is Beta(alpha, alpha) of one half or more: two bags that mix half and half
    are the same mix twice, and the mixes of a batch stay different.
    """
    share = draw.beta(alpha, alpha, bags)
    return torch.from_numpy(np.maximum(share, 1 - share)).float()


def mixed(target: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """Targets ``(B, outputs)`` of bags that were mixed with partners ``(B,)``, of which each kept a share."""
    kept = share[:, None].to(target)
    return kept * target + (1 - kept) * target[partner]


def probabilities(logits: NDArray[np.floating[Any]], loss: str, classes: int) -> NDArray[np.float64]:
    """Probabilities ``(B, K)`` of logits ``(B, K)`` or, with a class more, ``(B, K + 1)``.

    Softmax over the K classes of the task; for ``binary`` the sigmoids, divided by their sum.
    """
    mine = np.asarray(logits, np.float64)[:, :classes]
    # softmax(log s) is s / sum(s), and does not underflow where all sigmoids are tiny.
    return np.asarray(softmax(-np.logaddexp(0, -mine) if loss == "binary" else mine, axis=1))
