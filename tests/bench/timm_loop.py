"""The peer of the kit's training and prediction: timm's own data set, loader, transforms and optimiser."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.optim import create_optimizer_v2
from torch import nn

from tests.bench.pictures import Album


def loader(album: Album, model: nn.Module, batch: int, workers: int, training: bool, augment: bool) -> Any:
    """timm's loader of an album, as its training script makes it."""
    data = resolve_data_config({"input_size": (3, album.side, album.side), "crop_pct": 1.0}, model=model)
    return create_loader(
        create_dataset("", str(album.folder / "train")),
        batch_size=batch,
        is_training=training,
        no_aug=training and not augment,
        use_prefetcher=torch.cuda.is_available(),
        num_workers=workers,
        persistent_workers=False,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        **{name: data[name] for name in ("input_size", "mean", "std", "interpolation", "crop_pct")},
    )


def train(
    album: Album, encoder: str, batch: int, epochs: int, threads: int, workers: int, augment: bool
) -> int:
    """Fit a network from scratch; returns how many images it has seen."""
    torch.set_num_threads(threads)
    model = timm.create_model(encoder, num_classes=2).to(memory_format=torch.channels_last).train()
    optimiser = create_optimizer_v2(model, opt="adamw", lr=1e-3)
    batches, seen = loader(album, model, batch, workers, True, augment), 0
    for _ in range(epochs):
        for pixels, truth in batches:
            loss = nn.functional.cross_entropy(
                model(pixels.contiguous(memory_format=torch.channels_last)), truth
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            seen += len(truth)
    return seen


@torch.inference_mode()
def predict(album: Album, encoder: str, batch: int, threads: int, workers: int) -> int:
    """Probabilities of every image; returns of how many."""
    torch.set_num_threads(threads)
    model = timm.create_model(encoder, num_classes=2).to(memory_format=torch.channels_last).eval()
    found = [
        model(pixels.contiguous(memory_format=torch.channels_last)).softmax(1)
        for pixels, _ in loader(album, model, batch, workers, False, False)
    ]
    return len(torch.cat(found))
