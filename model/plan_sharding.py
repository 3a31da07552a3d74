"""Whether a model fits the devices it is to be trained on, and what they would have to send.

python model/plan_sharding.py model=glam_64b_64e --devices 1024 --expert-parallel 64 --rows 4

The step is traced, not estimated: :mod:`model.sharded_step`.
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


def parser() -> Parser:
    """The command line."""
    out = Parser(prog=program(), description=__doc__.split("\n")[0])
    out.add_argument(
        "overrides",
        nargs="+",
        metavar="KEY=VALUE",
        help="model=NAME picks a config of conf/model; model.KEY=VALUE changes a value in it",
    )
    out.add_argument("--devices", type=sizes.whole, required=True)
    out.add_argument(
        "--expert-parallel", type=sizes.whole, help="default: as many as can share the experts"
    )
    out.add_argument(
        "--rows", type=sizes.whole, default=8, help="of a device at a time (default: 8)"
    )
    out.add_argument(
        "--sequence", type=sizes.whole, default=1024, help="tokens of a row (default: 1024)"
    )
    out.add_argument("--optimizer", choices=OPTIMIZER_BYTES, default="adafactor")
    out.add_argument("--recompute", action="store_true", help="as train.recompute=true")
    out.add_argument("--accelerator", choices=ACCELERATORS, default="h100", help="default: h100")
    out.add_argument(
        "--link-gb",
        type=sizes.positive,
        default=50.0,
        help="GB/s that a device receives (default: 50, a 400 Gbit/s port for each)",
    )
    return out


def describe(found: "Plan", config: GLaMConfig, options: argparse.Namespace) -> Iterator[str]:
    """The plan in lines of text."""
    device = ACCELERATORS[options.accelerator]
    counts = sizes.count(config)
    yield f"{counts.total:,} parameters, {counts.active:,} active, on {options.devices} devices"
    rest = found.peak - found.weights - found.gradients - found.optimizer
    yield "GiB on one device, at the worst moment"
    for name, value in (
        ("weights, float32", found.weights),
        ("gradients, float32", found.gradients),
        ("optimizer", found.optimizer),
        ("gathered and activations", rest),
        ("all", found.peak),
    ):
        yield f"  {name:<26}{value / GIB:>10.2f}"
    fits = found.peak <= 0.9 * device.memory
    yield f"  {'90 % of ' + options.accelerator:<26}{0.9 * device.memory / GIB:>10.2f}" + (
        "  fits" if fits else "  DOES NOT FIT"
    )
    tokens = options.rows * options.sequence
    yield f"received by one device in a forward and backward pass over its {tokens:,} tokens, GiB"
    for name, traffic in sorted(found.traffic.items()):
        yield f"  {name:<26}{traffic.received / GIB:>10.2f}  in {traffic.calls} calls"
    received = sum(traffic.received for traffic in found.traffic.values())
    flops = tokens * sizes.training_flops(config, counts, options.sequence)
    yield f"  {'seconds, none overlapped':<26}{received / options.link_gb / 1e9:>10.2f}"
    yield f"  {'seconds of work at peak':<26}{flops / device.flops:>10.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the plan; exit status 1 if it does not fit."""
    command = parser()
    options = command.parse(arguments)
    from model.sharded_step import plan  # torch, which --help does without

    chosen, overrides = sizes.split(options.overrides)
    try:
        if len(chosen) != 1:
            raise ValueError("give one model, as in model=glam_1b7_64e")
        config = sizes.load(chosen, overrides)[chosen[0]]
        found = plan(
            config,
            devices=options.devices,
            expert_parallel=options.expert_parallel,
            rows=options.rows,
            sequence=options.sequence,
            optimizer=options.optimizer,
            recompute=options.recompute,
        )
    except ValueError as error:
        command.error(str(error))
    print("\n".join(describe(found, config, options)))
    sys.exit(found.peak > 0.9 * ACCELERATORS[options.accelerator].memory)


if __name__ == "__main__":
    main()
