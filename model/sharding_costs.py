"""How long a sharded step takes and which layout is the fastest, by a trace and the links' speeds.

Processes lie in nodes in order. A row of the grid, which all-to-all joins, is processes next to one
another; a column, over which experts' weights are gathered, takes one of every row. Work is the
model's FLOPs, on the device whose experts are the busiest. Gathers and reductions run in rings, one
through each network port, and hide behind a part of the work; all-to-all does not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from model import sizes
from model.accelerators import Accelerator
from model.glam.config import GLaMConfig
from model.sharded_step import Plan, Traffic, estimate


@dataclass(frozen=True)
class Machines:
    """What a step runs on.

    Bytes per second that a device receives, from its own node (``nvlink``) and through its port
    (``network``); devices of a node; the share of the work behind which gathers and reductions can
    hide; and the share of the device's peak that products reach.
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
    """Of one device's forward and backward pass over its rows."""

    work: float
    exchange: float
    """All-to-all."""
    gather: float
    """Gathers and reductions, hidden or not."""
    exposed: float
    """The part of them that is not hidden."""

    @property
    def all(self) -> float:
        """The whole pass."""
        return self.work + self.exchange + self.exposed


@dataclass(frozen=True)
class Layout:
    """A way to share a model, what it holds, and how long a step's passes take."""

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
    expert_parallel: int,
    tokens: int,
    sequence: int,
    recompute: bool,
    imbalance: float,
) -> Seconds:
    """The times of a pass over so many tokens of one device, by its trace."""
    counts = sizes.count(config)
    flops = sizes.training_flops(config, counts, sequence)
    # A token's two experts, of two matrices each, at 6 FLOPs a weight.
    experts = 6.0 * len(config.moe_layers) * 2 * 2 * config.width * config.hidden
    flops += (imbalance - 1) * experts if config.sparse else 0.0
    flops *= 4 / 3 if recompute else 1
    work = tokens * flops / (machines.accelerator.flops * machines.utilisation)
    exchange = gather = 0.0
    for name, traffic in found.traffic.items():
        took = _transfer(name, traffic, machines, expert_parallel)
        if name == "all-to-all":
            exchange += took
        else:
            gather += took
    exposed = max(0.0, gather - machines.overlap * work)
    return Seconds(work, exchange, gather, exposed)


def _transfer(name: str, traffic: Traffic, machines: Machines, columns: int) -> float:
    """The seconds of one kind of collective."""
    total = 0.0
    for size, received in traffic.by_group.items():
        if name == "all-to-all" or size == machines.devices:
            near = min(size, machines.node)
        else:  # one process of each row
            near = min(size, max(1, machines.node // columns))
        if size <= near:
            total += received / machines.nvlink
        elif name == "all-to-all":
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
    """Of each number of processes that can share the experts, the fastest ways that fit.

    The most rows at a time that the memory (bytes) has room for, since fewer would gather the same
    weights more often; and recomputing layers, where that makes room for more.

    Raises:
        ValueError: the devices can't share the batch.
    """
    devices = machines.devices
    if batch_rows % devices:
        raise ValueError(f"a batch of {batch_rows} rows can't be shared by {devices} devices")
    own = batch_rows // devices
    for columns in _divisors(devices) if config.sparse else [1]:
        if config.sparse and (
            config.experts % columns
            or config.width % (devices // columns)
            or config.hidden % (devices // columns)
        ):
            continue
        fitting = 0  # rows at a time that fit without recomputing, which is then in vain
        for recompute in (False, True):
            for rows in reversed([rows for rows in _divisors(own) if rows > fitting]):
                found = estimate(
                    config,
                    devices=devices,
                    expert_parallel=columns,
                    rows=rows,
                    sequence=sequence,
                    optimizer=optimizer,
                    recompute=recompute,
                    imbalance=imbalance,
                )
                if found.peak > memory:
                    continue
                took = seconds(
                    found,
                    config,
                    machines,
                    expert_parallel=columns,
                    tokens=rows * sequence,
                    sequence=sequence,
                    recompute=recompute,
                    imbalance=imbalance,
                )
                yield Layout(columns, rows, recompute, found, took, own / rows * took.all)
                fitting = rows
                break


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def settings(layout: Layout) -> Mapping[str, object]:
    """The settings of ``model/train.py`` that make this layout."""
    return {
        "train.expert_parallel": layout.expert_parallel,
        "train.micro_rows": layout.rows,
        "train.recompute": str(layout.recompute).lower(),
    }
