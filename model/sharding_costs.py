"""Estimates the time of a sharded step, and finds the fastest layout, from traces and link speeds.

Ranks fill one node after another; the trace knows the distance between the ranks of each group.
Work is the model's FLOPs, on the device with the busiest experts. Gathers and reductions run in
rings, one through each network port, and overlap with part of the work; exchanges of activations
do not.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from model import sizes
from model.accelerators import Accelerator
from model.glam.config import GLaMConfig
from model.sharded_step import TENSOR, Plan, Traffic, estimate
from model.training.distributed.parallel import grid_shape


@dataclass(frozen=True)
class Machines:
    """The hardware of a step.

    ``nvlink`` and ``network`` are bytes per second that a device receives within its node and
    through its port; ``node`` is the number of devices per node. ``overlap`` is the share of the
    work that can hide gathers and reductions, ``utilisation`` the share of the peak FLOP/s.
    """

    accelerator: Accelerator
    devices: int
    node: int
    nvlink: float
    network: float
    overlap: float
    utilisation: float


@dataclass(frozen=True)
class Seconds:
    """The times of one device's forward and backward pass over its rows.

    ``exchange`` is for all-to-alls, ``tensor`` for tensor parallelism, ``gather`` for gathers and
    reductions, of which ``exposed`` is not hidden.
    """

    work: float
    exchange: float
    tensor: float
    gather: float
    exposed: float

    @property
    def all(self) -> float:
        return self.work + self.exchange + self.tensor + self.exposed


@dataclass(frozen=True)
class Layout:
    """A way to shard a model, its plan, and the seconds of a step's passes."""

    tensor_parallel: int
    expert_parallel: int
    rows: int
    recompute: bool
    plan: Plan
    seconds: Seconds
    step: float


def seconds(
    found: Plan,
    config: GLaMConfig,
    machines: Machines,
    *,
    tokens: int,
    sequence: int,
    recompute: bool,
    imbalance: float,
) -> Seconds:
    """The times of a pass over one device's tokens, from its trace."""
    counts = sizes.count(config)
    flops = sizes.training_flops(config, counts, sequence)
    # A token's two experts have two matrices each, at 6 FLOPs per weight.
    experts = 6.0 * len(config.moe_layers) * 2 * 2 * config.width * config.hidden
    flops += (imbalance - 1) * experts if config.sparse else 0.0
    flops *= 4 / 3 if recompute else 1
    work = tokens * flops / (machines.accelerator.flops * machines.utilisation)
    took = dict.fromkeys(("all-to-all", TENSOR, "others"), 0.0)
    for name, traffic in found.traffic.items():
        took[name if name in took else "others"] += _transfer(name, traffic, machines)
    exposed = max(0.0, took["others"] - machines.overlap * work)
    return Seconds(work, took["all-to-all"], took[TENSOR], took["others"], exposed)


def _transfer(name: str, traffic: Traffic, machines: Machines) -> float:
    total = 0.0
    for (size, stride), received in traffic.by_group.items():
        near = min(size, max(1, machines.node // stride))
        if size <= near:
            total += received / machines.nvlink
        elif name in ("all-to-all", TENSOR):
            away = (size - near) / (size - 1)
            total += max(
                received * away / machines.network, received * (1 - away) / machines.nvlink
            )
        else:
            total += received / min(machines.nvlink, near * machines.network)
    return total


def layouts(
    config: GLaMConfig,
    machines: Machines,
    *,
    batch_rows: int,
    sequence: int,
    optimizer: str,
    imbalance: float,
    memory: float,
) -> Iterator[Layout]:
    """The fastest layouts that fit, for each grid with tensor parallelism within a node.

    Fewer rows at a time would gather the same weights more often, so each has the most rows that
    fit in ``memory`` (bytes); with recomputation only where that fits more. Raises ValueError if
    the devices can't share the batch.
    """
    devices = machines.devices
    if batch_rows % devices:
        raise ValueError(f"a batch of {batch_rows} rows can't be shared by {devices} devices")
    own = batch_rows // devices
    for parts, columns in _grids(config, machines):
        fitting = 0  # rows at a time that fit without recomputation
        for recompute in (False, True):
            for rows in reversed([rows for rows in _divisors(own) if rows > fitting]):
                found = estimate(
                    config, devices=devices, expert_parallel=columns, tensor_parallel=parts,
                    rows=rows, sequence=sequence, optimizer=optimizer, recompute=recompute,
                    imbalance=imbalance,
                )  # fmt: skip
                if found.peak > memory:
                    continue
                took = seconds(
                    found, config, machines, tokens=rows * sequence, sequence=sequence,
                    recompute=recompute, imbalance=imbalance,
                )  # fmt: skip
                yield Layout(parts, columns, rows, recompute, found, took, own / rows * took.all)
                fitting = rows
                break


def _grids(config: GLaMConfig, machines: Machines) -> Iterator[tuple[int, int]]:
    """The possible degrees of tensor and expert parallelism."""
    for parts in _divisors(math.gcd(machines.devices, machines.node)):
        for columns in _divisors(machines.devices // parts) if config.sparse else [1]:
            with contextlib.suppress(ValueError):
                grid_shape(config, machines.devices, columns, parts)
                yield parts, columns


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def preference(layout: Layout) -> tuple[float, float]:
    """Sort key, best first: seconds per step to three digits (rows are rounded), then gathers."""
    return float(f"{layout.step:.3g}"), layout.seconds.gather


def settings(layout: Layout) -> Mapping[str, object]:
    """The settings of ``model/train.py`` for this layout."""
    return {
        "train.tensor_parallel": layout.tensor_parallel,
        "train.expert_parallel": layout.expert_parallel,
        "train.micro_rows": layout.rows,
        "train.recompute": str(layout.recompute).lower(),
    }
