"""Several processes that fit one model together, as ``torchrun`` starts them.

``torchrun --nproc-per-node 2 -m kit train strip-ai ...``: every process takes its share of the bags of each
batch, and gradients are added up, so that the batch is the same as that of one process. One process alone
(rank 0) writes, logs and fits what is frozen; the others wait.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kit.learn.memory import spans

PATIENCE = timedelta(days=7)  # for the process that embeds or fits alone
T = TypeVar("T")


def world() -> int:
    """How many processes were started together; 1 without ``torchrun``."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is; 0 is the one that writes."""
    return int(os.environ.get("RANK", "0"))


def active() -> bool:
    """Whether there are others to work with now."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def span(bags: int, unit: int = 1) -> tuple[int, int]:
    """First and last bag (exclusive) of a batch that are this process's; none if it is too small."""
    parts = spans(bags, world(), unit)
    return parts[rank()] if rank() < len(parts) else (0, 0)


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes, if there are any: over NCCL on GPUs, else over Gloo."""
    if world() == 1:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    yield
    dist.destroy_process_group()  # not after an error: the others could not be waited for


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace every tensor by its sum over all processes, in one exchange."""
    if not active() or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def from_first(value: T) -> T:
    """What rank 0 has, on every process."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def wait() -> None:
    """Until all processes are here."""
    if active():
        dist.barrier()
