"""Memory: in how many parts a batch goes through the network, so that it fits.

``train.batch`` is the batch of the mathematics: gradients of its parts are added up before a step is made.
There are ``train.accumulate`` of them. What is free when a fit begins may ask for more only where that
changes nothing but rounding: not in a network with batch norm in batch mode, or with dropout of its own, for
both see a part (`sees_parts`). Such a network keeps the number that was set, and is refused where it cannot
fit.

Where memory runs out all the same there are twice as many parts from then on, in any network: a night is
worth more. That is a warning, the number is in the record of the weights, and a network that sees parts
learns otherwise than it would have on a larger machine.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kit.errors import SettingError
from kit.learn.bags import BagModel, Packed
from kit.learn.models import Model

SHARE = 0.8  # of the free memory that a step may take
CGROUPS = (  # limit and use of a container, in its two versions
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
# What torch says on a CPU, where it has no exception of its own for this.
WORDS = ("not enough memory", "DefaultCPUAllocator", "CUDA out of memory", "CUDNN_STATUS_ALLOC_FAILED")
log = logging.getLogger("kit")


def is_short(error: RuntimeError) -> bool:
    """Whether an error says that memory is exhausted."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in WORDS)


def spans(bags: int, parts: int, unit: int = 1) -> list[tuple[int, int]]:
    """First and last bag (exclusive) of nearly equal parts of a batch; ``unit`` neighbours stay together.

    >>> spans(5, 2), spans(5, 9, unit=2), spans(1, 4, unit=2)
    ([(0, 3), (3, 5)], [(0, 2), (2, 5)], [(0, 1)])
    """
    blocks = max(1, bags // unit)
    ends = [int(part[-1]) + 1 for part in np.array_split(np.arange(blocks), min(parts, blocks))]
    ends = [end * unit for end in ends[:-1]] + [bags]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def cut(packed: Packed, first: int, end: int) -> Packed:
    """Some bags of a batch, in a row."""
    if (first, end) == (0, packed.bags):
        return packed
    tiles = slice(
        *torch.searchsorted(packed.bag, torch.tensor([first, end], device=packed.bag.device)).tolist()
    )
    bag = packed.bag[tiles] - first
    return Packed(packed.tiles[tiles], bag, packed.weight[tiles], end - first, packed.names[first:end])


def more_parts(parts: int, bags: int, unit: int, bag: int, size: int) -> int:
    """Twice as many parts of a batch that did not fit.

    Raises:
        SettingError: a part is a single bag (or two that are mixed) already.
    """
    if parts >= max(1, bags // unit):
        raise SettingError(
            f"the memory is too small for {unit} bag{'s' * (unit > 1)} of {bag} tiles of {size} pixels",
            f"show fewer tiles a bag (--set train.bag={max(1, bag // 2)}), or smaller ones"
            " (encoder:mode:pixels in train.backbones)",
        )
    return 2 * parts


def refuse_statistics(error: ValueError, bags: int, parts: int, model: Model) -> None:
    """Say it where torch's batch norm found a single number to take the variance of.

    Where there are more parts than ``train.accumulate``, the memory was short.

    Raises:
        SettingError: that is what the error says.
    """
    if "more than 1 value per channel" in str(error):
        size, least = bags // min(bags, parts), model.training.accumulate
        hints = ["a larger train.batch"] + [f"fewer parts than train.accumulate={least}"] * (least > 1)
        if parts > least:
            hints = ["fewer or smaller tiles (train.bag, encoder:mode:pixels): no more bags fit into memory"]
        if model.backbone.mode == "finetune":  # a random start has no statistics to keep
            hints.insert(0, "--set train.norm=kept")
        raise SettingError(
            f"{model.name}: batch norm has no statistics of a part of {size} bag{'s' * (size > 1)}",
            f"use {', or '.join(hints)}",
        ) from error


def sees_parts(network: BagModel) -> bool:
    """Whether the result of a network, in the mode that its layers are in, depends on how a batch is cut.

    Batch norm in batch mode does, and whatever drops something at random beside `kit.learn.masks`.
    """
    if network.encoder is None:
        return False
    return any(_sees_parts(layer) for part in (network.encoder, network.pool) for layer in part.modules())


def _sees_parts(layer: nn.Module) -> bool:
    if not layer.training:
        return False
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return True
    names = ("p", "prob", "drop_prob") if "Drop" in type(layer).__name__ else ()
    # Some encoders have no layer for it: they call a function with this number.
    return any((getattr(layer, name, 0.0) or 0.0) > 0 for name in (*names, "drop_rate"))


def consequence(network: BagModel, parts: int) -> str:
    """What it means that there are more parts than were set, to be said behind it; empty if nothing."""
    if not sees_parts(network):
        return ""
    return f"; batch norm or dropout see parts, so the result is that of --set train.accumulate={parts}"


def parts_for(network: BagModel, packed: Packed, least: int, unit: int = 1) -> int:
    """Parts in which a first batch must go through a network that learns; at least ``least``.

    On a GPU it is tried: too many parts only cost time. On a CPU, where a process that asks for too much is
    killed without a word, the tensors that one tile leaves for the backward pass are counted, and the batch
    is cut so that they fit into what is free. A network that sees parts is never cut: it is refused if those
    tensors alone are more than all that is free.

    Raises:
        SettingError: that is so.
    """
    if network.encoder is None or packed.tiles.is_cuda:
        return least
    room = free()
    if room is None:
        return least
    need = activation_bytes(network, packed.tiles[:1]) * len(packed.tiles)
    blocks = max(1, packed.bags // unit)
    # Twice: gradients of activations live beside them.
    parts = min(blocks, max(least, math.ceil(2 * need / (SHARE * room))))
    if parts == least or not sees_parts(network):
        return parts
    if need / least > room:
        raise SettingError(
            f"{need / least / 2**30:.1f} GiB are needed for a batch, and {room / 2**30:.1f} GiB are free",
            f"use --set train.accumulate={parts} (batch norm then sees these parts), or train.norm=kept (of"
            " pretrained weights), or free some memory",
        )
    log.warning(
        "the memory may be too small for a batch, which is not cut, since the result would be another one;"
        " if so, use --set train.accumulate=%d, or train.norm=kept",
        parts,
    )
    return least


def activation_bytes(network: BagModel, tiles: Tensor) -> int:
    """Bytes that an encoder keeps for the backward pass of tiles ``(T, 3, H, W)``, without its weights."""
    kept: dict[int, int] = {}
    own = {parameter.data_ptr() for parameter in network.parameters()}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    training = [module.training for module in network.modules()]
    network.eval()  # batch statistics are not to be touched
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        held = network.embed(tiles)  # held: a storage that is freed would be counted under another name
    del held
    for module, before in zip(network.modules(), training, strict=True):
        module.training = before
    return sum(kept.values())


def statistics(network: BagModel) -> dict[str, Tensor]:
    """What a pass of an encoder in training changes beside gradients."""
    if network.encoder is None:
        return {}
    return {name: value.clone() for name, value in network.encoder.named_buffers()}


def restore(network: BagModel, statistics: dict[str, Tensor]) -> None:
    """Undo that."""
    if network.encoder is not None:
        for name, value in network.encoder.named_buffers():
            value.copy_(statistics[name])


def free() -> int | None:
    """Bytes that this process may still take: of the machine or of its container; ``None`` if unknown."""
    found = []
    for folder, limit, used in CGROUPS:
        most, now = _number(folder / limit), _number(folder / used)
        if most is not None and now is not None:
            # Files that were read are counted as use until somebody wants their place.
            found.append(most - now + _lines(folder / "memory.stat").get("inactive_file", 0))
    machine = _lines(Path("/proc/meminfo")).get("MemAvailable:")
    if machine is not None:
        found.append(machine * 1024)
    return max(1, min(found)) if found else None


def _number(path: Path) -> int | None:
    """The number in a file; ``None`` if there is no such file, or no limit in it."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> dict[str, int]:
    """The numbers of a file by the word before them; empty if there is no such file."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
