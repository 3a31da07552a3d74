"""The processes that train together, one for each device: joining them, and sums over all of them.

``torchrun`` starts them; alone, one process is all there are.
"""

import math
import os
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def join(device: torch.device) -> torch.device:
    """Join the processes that ``torchrun`` started, if it did; the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.type == "cuda":  # needs GPUs: not run where this was written
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def leave() -> None:
    """Part from the other processes; each of them was in step until now."""
    if dist.is_initialized():
        dist.destroy_process_group()


def count() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which one this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the one that writes what need be written once."""
    return rank() == 0


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all of them together: float32, not synchronised with the host.

    A sharded tensor must be cut over all processes, by one mesh or another: then every number is
    on one process, and the sum of all squares needs one reduction, whatever the meshes.
    """
    tensors = list(tensors)
    sharded = [tensor for tensor in tensors if isinstance(tensor, DTensor)]
    if not sharded:
        return torch.nn.utils.get_total_norm(tensors)
    assert len(sharded) == len(tensors)
    for tensor in sharded:
        assert math.prod(tensor.device_mesh.shape) == count()
        assert all(placement.is_shard() for placement in tensor.placements)
    square = torch.nn.utils.get_total_norm([tensor.to_local() for tensor in sharded]).square()
    dist.all_reduce(square)
    return square.sqrt()


def mean(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each of these float32 tensors over all processes, by one reduction."""
    if count() == 1:
        return dict(values)
    flat = torch.cat([value.reshape(-1) for value in values.values()])
    dist.all_reduce(flat)
    parts = (flat / count()).split([value.numel() for value in values.values()])
    return {
        name: part.view_as(value) for (name, value), part in zip(values.items(), parts, strict=True)
    }
