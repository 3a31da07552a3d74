"""A model's size, its training FLOPs per token, and the cost of a run on given hardware.

::

    python model/sizes.py
    python model/sizes.py model=glam_1b7_64e model.vocabulary=50000
    python model/sizes.py model=glam_64b_64e --accelerator tpu-v4 --devices 1024 --tokens 280e9

Parameters are counted from the model itself, on the meta device. FLOPs, memory, time and energy are
estimates; the functions say what each leaves out.
"""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from model.accelerators import ACCELERATORS, GIB
from model.glam.config import GLaMConfig
from winnow.arguments import Parser
from winnow.cli import program
from winnow.commands import command_line, hydra_errors
from winnow.defaults import CONF


@dataclass(frozen=True)
class Counts:
    """A model's parameters: all, active per token, and the embedding's."""

    total: int
    active: int
    embedding: int


@dataclass(frozen=True)
class Published:
    """The paper's counts for a size, in billions, and what is odd about them."""

    total: float
    active: float
    oddity: str = ""


_SMALL = "computed 5-6 % higher, unexplained"
PAPER = {
    "glam_0b1": Published(0.13, 0.13, _SMALL),
    "glam_0b1_64e": Published(1.9, 0.145, _SMALL),
    "glam_1b7": Published(1.7, 1.7),
    "glam_1b7_32e": Published(20, 1.878, "20B does not follow from its own shape: 14.0B"),
    "glam_1b7_64e": Published(27, 1.879),
    "glam_1b7_128e": Published(53, 1.881),
    "glam_1b7_256e": Published(105, 1.886),
    "glam_8b": Published(8.7, 8.7),
    "glam_8b_64e": Published(143, 9.8),
    "glam_137b": Published(137, 137),
    "glam_64b_64e": Published(1200, 96.6, "fits a 256K vocabulary, all others 32K"),
}


OPTIMIZER_BYTES = {"adafactor": 0, "adamw": 8}
"""Optimizer state per parameter. Adafactor keeps a row and a column per matrix: about 0."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device: ``state`` is permanent, the rest is needed during a step."""

    state: float
    gathered: float
    activations: float

    @property
    def total(self) -> float:
        return self.state + self.gathered + self.activations


def count(config: GLaMConfig) -> Counts:
    """Count on the meta device: a trillion parameters take a second."""
    import torch  # here: --help does not need it

    from model.glam.routing import ROUTERS
    from model.glam.transformer import Experts, GLaM

    with torch.device("meta"):
        model = GLaM(config)
    total = sum(p.numel() for p in model.parameters())
    experts = [module for module in model.modules() if isinstance(module, Experts)]
    in_experts = sum(p.numel() for module in experts for p in module.parameters())
    choices = ROUTERS[config.router].choices
    idle = in_experts - in_experts * choices // config.experts if config.sparse else 0
    return Counts(total, total - idle, model.embedding.weight.numel())


def training_flops(config: GLaMConfig, counts: Counts, sequence: int) -> float:
    """FLOPs per token, forward and backward, without recomputation.

    6 per active parameter (the embedding counts once, for the logits), plus 6 * heads * head_width
    * sequence per layer for attention: a token sees half of its sequence on average.
    """
    attention = config.layers * config.heads * config.head_width * sequence
    return 6.0 * (counts.active + attention)


def memory(
    config: GLaMConfig,
    counts: Counts,
    *,
    devices: int,
    expert_parallel: int,
    device_tokens: int,
    optimizer: str,
) -> Memory:
    """The memory of one of ``devices`` when everything is sharded over all of them.

    State: float32 weights, gradients and optimizer state. Gathered: bfloat16 weights of two layers,
    the current and the next (experts are split over ``expert_parallel`` devices). Activations, with
    recomputation: bfloat16, each layer's input and the inside of one layer. Leaves out
    communication buffers, the vocabulary's chunk and fragmentation. Raises ValueError unless
    ``expert_parallel`` divides devices and experts.
    """
    from model.glam.routing import ROUTERS

    if devices % expert_parallel or (config.sparse and config.experts % expert_parallel):
        raise ValueError(
            f"--expert-parallel {expert_parallel} must divide both --devices {devices} and the"
            f" {config.experts} experts"
        )
    M, H, inner = config.width, config.hidden, config.heads * config.head_width
    attention = 4 * M * inner
    dense_layer = attention + 3 * M * H
    sparse_layer = attention + 2 * M * H * config.experts // expert_parallel
    choices = ROUTERS[config.router].choices
    inside = 4 * M + 4 * inner + max(4 * H, choices * (2 * M + 2 * H) if config.sparse else 0)
    return Memory(
        state=counts.total * (8 + OPTIMIZER_BYTES[optimizer]) / devices,
        gathered=2.0 * (dense_layer + (sparse_layer if config.sparse else dense_layer)),
        activations=2.0 * device_tokens * (config.layers * M + inside),
    )


def load(names: Sequence[str], overrides: Sequence[str] = ()) -> dict[str, GLaMConfig]:
    """Load configs of ``conf/model`` with Hydra overrides; raise ValueError for unknown ones."""
    configs = {}
    with initialize_config_dir(CONF, version_base="1.3"):
        for name in names:
            try:
                composed = compose(overrides=[f"+model={name}", *overrides])
                config = command_line.checked(composed.model)
            except (HydraException, OmegaConfBaseException) as error:
                raise ValueError(hydra_errors.one_line(error)) from error
            assert isinstance(config, GLaMConfig)
            configs[name] = config
    return configs


def names() -> list[str]:
    return sorted(f.removesuffix(".yaml") for f in os.listdir(os.path.join(CONF, "model")))


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line's ``model=NAME`` from its other overrides, for :func:`load`."""
    start = "model="
    chosen = [text.removeprefix(start) for text in overrides if text.startswith(start)]
    return chosen, [text for text in overrides if not text.startswith(start)]


def _number(
    kind: Callable[[str], float], allowed: Callable[[float], bool], wanted: str
) -> Callable[[str], Any]:
    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not allowed(number):
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text}")
        return number

    return parse


whole = _number(int, lambda x: x >= 1, "a whole number, 1 or more")
positive = _number(float, lambda x: 0 < x < math.inf, "a number above 0")
share = _number(float, lambda x: 0 < x <= 1, "a number above 0, at most 1")
factor = _number(float, lambda x: 1 <= x < math.inf, "a number, 1 or more")


MFU = """share of the peak that is reached (default: 0.28, which follows from the hours reported for
GLaM 64B/64E; measure your own)"""


def parser() -> Parser:
    out = Parser(
        prog=program(),
        description="Parameters, active parameters and training FLOPs per token of each size;"
        " with --devices also memory per device, step time, days and energy.",
        epilog="accelerators:\n"
        + "\n".join(
            f"  {name:7} {a.flops / 1e12:.0f} TFLOP/s, {a.memory / 1e9:.0f} GB,"
            f" {a.watts:.0f} W ({a.source})"
            for name, a in ACCELERATORS.items()
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="model=NAME picks a config of conf/model and may be repeated (default: all);"
        " model.KEY=VALUE changes a value in each",
    )
    out.add_argument("--sequence", type=whole, default=1024, help="tokens of a row (default: 1024)")
    group = out.add_argument_group("a run")
    group.add_argument("--devices", type=whole, help="number of devices; needed to estimate a run")
    group.add_argument("--accelerator", choices=ACCELERATORS, default="h100", help="default: h100")
    for flag, kind, default, text in (
        ("--peak-tflops", positive, None, "instead of the accelerator's"),
        ("--memory-gb", positive, None, "instead of the accelerator's"),
        ("--watts", positive, None, "mean per device, instead of the accelerator's"),
        ("--mfu", share, 0.28, MFU),
        ("--pue", factor, 1.11, "default: 1.11, as GLaM's"),
        ("--batch-tokens", positive, 1e6, "of one step (default: 1e6, the paper's)"),
        ("--tokens", positive, 600e9, "of the run (default: 600e9)"),
        ("--expert-parallel", whole, 1, "devices that share the experts (default: 1)"),
        ("--device-tokens", whole, 8192, "on a device at a time, for activations (default: 8192)"),
    ):
        group.add_argument(flag, type=kind, default=default, help=text)
    group.add_argument(
        "--optimizer", choices=OPTIMIZER_BYTES, default="adafactor", help="default: adafactor"
    )
    return out


def sizes_table(configs: dict[str, GLaMConfig], sequence: int) -> list[list[str]]:
    headings = "model|L|M|H|heads|E|parameters|active|beside embedding|GFLOP/token"
    rows = [f"{headings}|paper: total|active|".split("|")]
    for name, config in configs.items():
        counts = count(config)
        paper = PAPER.get(name)
        shape = (config.layers, config.width, config.hidden)
        rows.append(
            [name, *map(str, shape), f"{config.heads} x {config.head_width}"]
            + [str(config.experts) if config.sparse else "-"]
            + [_short(counts.total), _short(counts.active)]
            + [_short(counts.active - counts.embedding)]
            + [f"{training_flops(config, counts, sequence) / 1e9:,.4g}"]
            + ([_short(paper.total * 1e9), _short(paper.active * 1e9)] if paper else ["", ""])
            + [paper.oddity if paper else ""]
        )
    return rows


def run_table(configs: dict[str, GLaMConfig], options: argparse.Namespace) -> list[list[str]]:
    device = ACCELERATORS[options.accelerator]
    flops = device.flops if options.peak_tflops is None else options.peak_tflops * 1e12
    available = device.memory if options.memory_gb is None else options.memory_gb * 1e9
    watts = device.watts if options.watts is None else options.watts
    headings = "model|state GiB|gathered|activations|per device|fits|s/step|tokens/s|days|MWh"
    rows = [headings.split("|")]
    for name, config in configs.items():
        counts = count(config)
        need = memory(
            config, counts, devices=options.devices, device_tokens=options.device_tokens,
            expert_parallel=options.expert_parallel if config.sparse else 1,
            optimizer=options.optimizer,
        )  # fmt: skip
        speed = options.devices * flops * options.mfu
        speed /= training_flops(config, counts, options.sequence)
        seconds = options.tokens / speed
        energy = options.devices * watts * options.pue * seconds / 3.6e9
        rows.append(
            [name]
            + [f"{x / GIB:,.1f}" for x in (need.state, need.gathered, need.activations, need.total)]
            + ["yes" if need.total < available else "NO"]
            + [f"{options.batch_tokens / speed:,.3g}", f"{speed:,.0f}"]
            + [f"{seconds / 86400:,.1f}", f"{energy:,.1f}"]
        )
    return rows


def _short(number: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if number >= 0.9995 * size:
            return f"{number / size:.4g}{unit}"
    return f"{number:,.0f}"


def _print(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *cells = (
            text.ljust(width) if i in (0, len(row) - 1) and width > 12 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *cells]).rstrip())


def main(arguments: Sequence[str] | None = None) -> None:
    command = parser()
    options = command.parse(arguments)
    chosen, overrides = split(options.overrides)
    try:
        configs = load(chosen or names(), overrides)
        if not chosen:
            configs = dict(sorted(configs.items(), key=lambda item: count(item[1]).active))
        _print(sizes_table(configs, options.sequence))
        if options.devices is not None:
            print()
            _print(run_table(configs, options))
    except ValueError as error:
        command.error(str(error))


if __name__ == "__main__":
    main()
