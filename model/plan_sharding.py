"""Plans sharded training: memory per device, communication and time of a step.

python model/plan_sharding.py model=glam_64b_64e --devices 1024 --expert-parallel 64 --rows 4

Memory and communication come from a trace of the step (:mod:`model.sharded_step`); ``--recommend``
compares layouts (:mod:`model.sharding_costs`). Assumes plain attention (FlexAttention needs less)
and no fragmentation (leave a tenth for it).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from model import sizes
from model.accelerators import ACCELERATORS, GIB
from model.glam.config import GLaMConfig
from model.sizes import OPTIMIZER_BYTES
from winnow.arguments import Parser
from winnow.cli import program

if TYPE_CHECKING:
    from model.sharded_step import Plan
    from model.sharding_costs import Layout, Machines

ROOM = 0.9
"""The share of a device's memory that a plan may fill."""


def parser() -> Parser:
    out = Parser(prog=program(), description=__doc__.split("\n")[0])
    out.add_argument(
        "overrides",
        nargs="+",
        metavar="KEY=VALUE",
        help="model=NAME picks a config of conf/model; model.KEY=VALUE changes a value in it",
    )
    out.add_argument("--devices", type=sizes.whole, required=True)
    whole, positive, share = sizes.whole, sizes.positive, sizes.share
    for flag, kind, default, text in (
        ("--expert-parallel", whole, None, "default: as many as can share the experts"),
        ("--tensor-parallel", whole, 1, "as train.tensor_parallel"),
        ("--rows", whole, 8, "rows per device at a time (default: 8)"),
        ("--sequence", whole, 1024, "tokens of a row (default: 1024)"),
        ("--imbalance", positive, 1.6, "rows of the busiest experts over an even share (1.6)"),
        ("--node", whole, 8, "devices of a node (default: 8)"),
        ("--nvlink-gb", positive, 450.0, "GB/s from its own node (default: 450, NVLink 4)"),
        ("--link-gb", positive, 50.0, "GB/s from other nodes (default: 50, a 400 Gbit/s port)"),
        ("--overlap", share, 0.5, "share of the work that can hide gathers and reductions (0.5)"),
        ("--utilisation", share, 0.5, "share of the peak that products reach (default: 0.5)"),
    ):
        out.add_argument(flag, type=kind, default=default, help=text)
    out.add_argument("--optimizer", choices=OPTIMIZER_BYTES, default="adafactor")
    out.add_argument("--recompute", action="store_true", help="as train.recompute=true")
    out.add_argument("--accelerator", choices=ACCELERATORS, default="h100", help="default: h100")
    out.add_argument(
        "--recommend",
        type=whole,
        metavar="ROWS",
        help="compare layouts for steps of this many rows over all devices; takes minutes",
    )
    return out


def machines(options: argparse.Namespace) -> "Machines":
    from model.sharding_costs import Machines

    return Machines(
        ACCELERATORS[options.accelerator], devices=options.devices, node=options.node,
        nvlink=options.nvlink_gb * 1e9, network=options.link_gb * 1e9, overlap=options.overlap,
        utilisation=options.utilisation,
    )  # fmt: skip


def describe(found: "Plan", config: GLaMConfig, options: argparse.Namespace) -> Iterator[str]:
    from model.sharding_costs import seconds

    counts = sizes.count(config)
    yield f"{counts.total:,} parameters, {counts.active:,} active, on {options.devices} devices"
    rest = found.peak - found.weights - found.gradients - found.optimizer
    yield "GiB on one device, at the worst moment"
    room = ROOM * ACCELERATORS[options.accelerator].memory
    for name, value in (
        ("weights, float32", found.weights),
        ("gradients, float32", found.gradients),
        ("optimizer", found.optimizer),
        ("gathered and activations", rest),
        ("all", found.peak),
        (f"{ROOM:.0%} of {options.accelerator}", room),
    ):
        yield f"  {name:<26}{value / GIB:>10.2f}"
    yield "  fits" if found.peak <= room else "  DOES NOT FIT"
    tokens = options.rows * options.sequence
    yield f"received by one device in a forward and backward pass over its {tokens:,} tokens, GiB"
    for name, traffic in sorted(found.traffic.items()):
        yield f"  {name:<26}{traffic.received / GIB:>10.2f}  in {traffic.calls:.0f} calls"
    took = seconds(
        found, config, machines(options), tokens=tokens, sequence=options.sequence,
        recompute=options.recompute, imbalance=options.imbalance,
    )  # fmt: skip
    yield "seconds of that pass"
    for name, value in (
        (f"work at {options.utilisation:.0%} of the peak", took.work),
        ("all-to-all", took.exchange),
        ("tensor parallelism", took.tensor),
        ("gathers and reductions", took.gather),
        ("  of which not hidden", took.exposed),
        ("all", took.all),
    ):
        yield f"  {name:<26}{value:>10.3g}"


def compare(found: Sequence["Layout"], options: argparse.Namespace) -> Iterator[str]:
    """The lines of a table of layouts, and the settings of the fastest."""
    from model.sharding_costs import settings

    yield (
        f"layouts of {options.devices} devices for steps of {options.recommend:,} rows, with"
        f" {options.imbalance:g} times an even share on the busiest; the fastest first"
    )
    yield (
        "  tensor  experts over  rows at once  recompute     GiB  s a step    work  all-to-all"
        "  tensor  exposed"
    )
    for of in found:
        took = of.seconds
        work, exchange, tensor, exposed = (
            of.step / took.all * part
            for part in (took.work, took.exchange, took.tensor, took.exposed)
        )
        again = "yes" if of.recompute else "no"
        yield (
            f"  {of.tensor_parallel:>6}  {of.expert_parallel:>12}  {of.rows:>12}  {again:>9}"
            f"  {of.plan.peak / GIB:>6.1f}  {of.step:>8.3g}  {work:>6.3g}  {exchange:>10.3g}"
            f"  {tensor:>6.3g}  {exposed:>7.3g}"
        )
    best = settings(found[0])
    yield "recommended: " + " ".join(f"{key}={value}" for key, value in best.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the plan; the exit status is 1 if it does not fit."""
    command = parser()
    options = command.parse(arguments)
    chosen, overrides = sizes.split(options.overrides)
    room = ROOM * ACCELERATORS[options.accelerator].memory
    # Here, since these load torch.
    from model.sharded_step import plan
    from model.sharding_costs import layouts, preference

    try:
        if len(chosen) != 1:
            raise ValueError("give one model, as in model=glam_1b7_64e")
        config = sizes.load(chosen, overrides)[chosen[0]]
        if options.recommend is not None:
            fitting = layouts(
                config, machines(options), batch_rows=options.recommend, sequence=options.sequence,
                optimizer=options.optimizer, imbalance=options.imbalance, memory=room,
            )  # fmt: skip
            fastest = sorted(fitting, key=preference)
            if not fastest:
                raise ValueError("no layout fits: take more devices or more memory")
            print("\n".join(compare(fastest, options)))
            return
        found = plan(
            config, devices=options.devices, expert_parallel=options.expert_parallel,
            tensor_parallel=options.tensor_parallel, rows=options.rows, sequence=options.sequence,
            optimizer=options.optimizer, recompute=options.recompute, imbalance=options.imbalance,
        )  # fmt: skip
    except ValueError as error:
        command.error(str(error))
    print("\n".join(describe(found, config, options)))
    sys.exit(found.peak > room)


if __name__ == "__main__":
    main()
