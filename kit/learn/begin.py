"""How a fit begins: its network, on the device, and what it learns from."""

from __future__ import annotations

import logging

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn

from kit.learn import embed, extra, masks, ranks, sources
from kit.learn.bags import BagModel
from kit.learn.encode import device
from kit.learn.fit import Fit
from kit.learn.sources import Source

log = logging.getLogger("kit")


def begun(fit: Fit, judged: pd.DataFrame | None) -> tuple[BagModel, Source]:
    """The network as it begins, on the device, and what it learns from; ``judged`` images are set aside."""
    if fit.model.frozen:
        network, source = sources.embedded(fit, judged)
        return network.to(device()), source
    network = embed.new_encoder(fit.run, fit.model)
    assert network.encoder is not None
    masks.without_last(network.encoder)
    warmed = extra.warm(fit.run, fit.model)
    if warmed is not None:
        network.encoder.load_state_dict(load_file(warmed))
    network = network.to(device())
    if ranks.active() and device().type == "cuda" and fit.training.norm == "batch":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    if not fit.training.channels_last:
        network = network.to(memory_format=torch.contiguous_format)
    if fit.training.compile:
        _compile(fit, network)
    return network, sources.tiles(fit, judged)


def _compile(fit: Fit, network: BagModel) -> None:
    """Let torch compile the encoder, or go on without: it needs a compiler, and not every network can be."""
    assert network.encoder is not None
    tiles = torch.zeros(2, 3, *[fit.model.backbone.size or fit.run.competition.tiles.size] * 2)
    try:
        network.encoder.compile(dynamic=True)  # bags differ in length
        with torch.inference_mode():
            network.eval().embed(tiles.to(torch.uint8).to(device()))
    except Exception as error:  # whatever the compilers raise
        log.warning("%s goes on without torch.compile: %s", fit.purpose, str(error).partition("\n")[0])
        network.encoder._compiled_call_impl = None
