"""The processes of a run, one per device, and their collective operations.

``torchrun`` starts them. Without it there is one process, and these functions are no-ops.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

T = TypeVar("T")

FROM_TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def are_several() -> bool:
    """Whether ``torchrun``, or a launcher like it, started several processes."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def join(device: torch.device, patience: float) -> torch.device:
    """Join the process group if ``torchrun`` started several; return this process's device.

    ``patience`` is the timeout of collectives in seconds. Raises ValueError if the environment is
    not ``torchrun``'s, or there are too few GPUs.
    """
    environment = os.environ
    if not are_several() or dist.is_initialized():
        return device
    if absent := [name for name in FROM_TORCHRUN if not environment.get(name)]:
        raise ValueError(
            f"WORLD_SIZE={environment['WORLD_SIZE']} is set, but not {', '.join(absent)}: start"
            " several processes with torchrun, or unset WORLD_SIZE for one"
        )
    if device.type == "cuda":
        device = torch.device("cuda", int(environment["LOCAL_RANK"]))
        if device.index >= torch.cuda.device_count():
            raise ValueError(
                f"process {device.index} of this machine sees {torch.cuda.device_count()} GPUs:"
                " start at most one process per GPU, and make all GPUs visible to each"
            )
        torch.cuda.set_device(device)
    store, rank, world = next(rendezvous("env://"))
    # Restarted processes would find the addresses of those that are gone.
    store = PrefixStore(environment.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world,
        device_id=device if device.type == "cuda" else None,
        timeout=timedelta(seconds=patience),
    )
    return device


def leave() -> None:
    """Leave the process group, after the last exchange."""
    if dist.is_initialized():
        dist.destroy_process_group()


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process writes the run's files."""
    return rank() == 0


def together(call: Callable[[], T], group: dist.ProcessGroup | None = None) -> list[T]:
    """Make a call on all processes and gather the results by rank.

    ``group`` contains all processes; None is the default group. The first error by rank is raised
    on every process, so none waits for one that has failed.
    """
    if count() == 1:
        return [call()]
    result: T | None = None
    error: Exception | None = None
    try:
        result = call()
    except Exception as raised:
        error = raised
    every: list[tuple[T, Exception | None]] = [(None, None)] * count()  # type: ignore[list-item]
    dist.all_gather_object(every, (result, error), group)
    for here, (_, other) in enumerate(every):
        if other is not None:
            raise error if here == rank() and error is not None else other
    return [value for value, _ in every]


def from_first(call: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """Make a call on the first process; return its result, or raise its error, on all."""
    return together(lambda: call() if is_first() else cast(T, None), group)[0]


def share(values: Sequence[T]) -> Sequence[T]:
    """The values of this rank: every P-th for P processes."""
    return values[rank() :: count()]


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all tensors together: float32, not synchronised with the host.

    Sharded tensors must be sharded over all processes, on any mesh: then each number is on one
    process, and one reduction sums all squares.
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


def total(x: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place."""
    if count() > 1:
        dist.all_reduce(x)
    return x


def mean(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means of float32 tensors over all processes, by one reduction."""
    if count() == 1:
        return dict(values)
    flat = torch.cat([value.reshape(-1) for value in values.values()])
    dist.all_reduce(flat)
    parts = (flat / count()).split([value.numel() for value in values.values()])
    return {
        name: part.view_as(value) for (name, value), part in zip(values.items(), parts, strict=True)
    }
