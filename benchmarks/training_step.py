"""One training step: ours against its dense twin, transformers' MoE models and plain products.

    OMP_NUM_THREADS=1 python benchmarks/training_step.py

Contenders take turns, round by round, on the same random tokens; times are CPU seconds of the
process, so that what else the machine does counts little. A ratio is the median of those within a
round. Forward and backward are timed apart from the optimizer, which at many experts and few tokens
costs more the more weights there are. Random tokens route nearly evenly. Those
that are compared are in memory at once, a group at a time: up to 6 GB with 64 experts.

The dense twin has hidden layers as wide as makes its active parameters, and so its FLOPs, those of
the MoE models. Mixtral and OLMoE have the shape of ours with an MoE in every layer; their experts
have three matrices, ours two, so their hidden layers are two thirds as wide: equal parameters and
FLOPs. They attend with rotary embeddings through their default (fused) path, ours has its trained
bias. In bfloat16 they run under autocast, their weights being float32 like ours.
"""

import argparse
import contextlib
import dataclasses
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from model import hardware, optim, sizes
from model.config import GLaMConfig
from model.experts import Backend
from model.glam import GLaM
from model.train_config import OptimizerConfig, OptimizerName, Schedule
from model.weight import copies

PARTS = {
    "products of weights": ("aten::mm", "aten::addmm", "aten::_grouped_mm"),
    "attention": ("aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::_softmax_backward_data"),
    "dispatch, routing, embedding": (
        "aten::index_select", "aten::gather", "aten::sort", "aten::scatter_add_", "aten::scatter_",
        "aten::embedding_dense_backward", "aten::argmax", "aten::cumsum",
    ),
    "casts and copies": ("aten::copy_", "aten::cat"),
    "filling with zeros": ("aten::fill_", "aten::zero_"),
}  # fmt: skip


@dataclass
class Contender:
    """A model that learns from a batch: ``learn`` is forward and backward."""

    model: nn.Module
    learn: Callable[[Tensor, Tensor], None]
    optimizer: torch.optim.Optimizer
    parameters: int
    flops: float
    """Of a token, forward and backward; 0 if not known."""


def ours(config: GLaMConfig, dtype: torch.dtype, length: int, backend: Backend) -> Contender:
    """A GLaM."""
    model = GLaM(config, compute_dtype=dtype, expert_backend=backend)

    def learn(tokens: Tensor, targets: Tensor) -> None:
        with copies(model):
            model.loss(tokens, targets).total.backward()

    counts = sizes.count(config)
    flops = sizes.training_flops(config, counts, length)
    return Contender(model, learn, adafactor(model), counts.total, flops)


def theirs(name: str, experts: str, config: GLaMConfig, dtype: torch.dtype) -> Contender:
    """Mixtral or OLMoE of the shape of a GLaM whose every layer is MoE."""
    import transformers

    shape: Any = {
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.hidden * 2 // 3,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "num_experts_per_tok": 2,
        "output_router_logits": True,
        "tie_word_embeddings": True,
    }
    kind, settings = {
        "Mixtral": (
            transformers.MixtralForCausalLM,
            transformers.MixtralConfig(**shape, num_local_experts=config.experts),
        ),
        "OLMoE": (
            transformers.OlmoeForCausalLM,
            transformers.OlmoeConfig(**shape, num_experts=config.experts),
        ),
    }[name]
    settings._experts_implementation = experts
    model = kind(settings).train()
    autocast = dtype != torch.float32

    def learn(tokens: Tensor, targets: Tensor) -> None:
        with torch.autocast("cpu", dtype) if autocast else contextlib.nullcontext():
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()

    numbers = sum(parameter.numel() for parameter in model.parameters())
    return Contender(model, learn, adafactor(model), numbers, 0.0)


def adafactor(model: nn.Module) -> torch.optim.Optimizer:
    """As in training."""
    config = OptimizerConfig(OptimizerName.adafactor, 0.01, schedule=Schedule.inverse_sqrt)
    return optim.build_optimizer(config, model)


def dense_twin(config: GLaMConfig) -> GLaMConfig:
    """Of equal active parameters, to what multiples of 8 allow."""
    wanted = sizes.count(config).active
    dense = dataclasses.replace(config, experts=0)
    spare = wanted - sizes.count(dense).active
    more = spare / (3 * config.width * config.layers)
    return dataclasses.replace(dense, hidden=config.hidden + round(more / 8) * 8)


def contenders(options: argparse.Namespace) -> dict[str, Callable[[], Contender]]:
    """By name; each is made when it is called."""
    dtype = getattr(torch, options.dtype)
    base = GLaMConfig(
        vocabulary=options.vocabulary,
        layers=options.layers,
        width=options.width,
        hidden=3 * options.width,
        heads=options.width // 32,
        head_width=32,
    )

    def glam(backend: Backend = "grouped", **changes: Any) -> Callable[[], Contender]:
        config = dataclasses.replace(base, **changes)
        return lambda: ours(config, dtype, options.length, backend)

    twin = dense_twin(dataclasses.replace(base, experts=16))
    out = {"dense twin": lambda: ours(twin, dtype, options.length, "grouped")}
    for experts in options.experts:
        out[f"ours {experts}e"] = glam(experts=experts)
        out[f"ours {experts}e, loop"] = glam("loop", experts=experts)
        out[f"ours {experts}e, all layers MoE"] = glam(experts=experts, moe_period=1)
        config = dataclasses.replace(base, experts=experts)
        for name in ("Mixtral", "OLMoE"):
            for way in ("eager", "grouped_mm"):
                out[f"{name} {experts}e, {way}"] = partial(theirs, name, way, config, dtype)
    if options.growth:
        out["ours 4e"], out["ours 32e"] = glam(experts=4), glam(experts=32)
        wide: Any = {"width": 2 * base.width, "hidden": 2 * base.hidden, "heads": 2 * base.heads}
        out["ours 16e, twice as wide"] = glam(experts=16, **wide)
    return {name: make for name, make in out.items() if options.only in (None, name)}


def batch(options: argparse.Namespace, rows: int) -> tuple[Tensor, Tensor]:
    """Random tokens, and what follows them: int64 [rows, length]."""
    generator = torch.Generator().manual_seed(0)
    shape = (rows, options.length + 1)
    stream = torch.randint(0, options.vocabulary, shape, generator=generator)
    return stream[:, :-1].contiguous(), stream[:, 1:].contiguous()


def step(contender: Contender, tokens: Tensor, targets: Tensor) -> tuple[float, float]:
    """CPU seconds of forward and backward, and of the optimizer."""
    begun = time.process_time()
    contender.learn(tokens, targets)
    learnt = time.process_time()
    contender.optimizer.step()
    contender.optimizer.zero_grad(set_to_none=True)
    return learnt - begun, time.process_time() - learnt


def product_speed(dtype: torch.dtype) -> float:
    """FLOP for a CPU second of a plain product, now."""
    a, b = (torch.rand(1024, 1024).to(dtype) for _ in range(2))
    begun = time.process_time()
    for _ in range(10):
        a @ b
    return 10 * 2.0 * 1024**3 / (time.process_time() - begun)


def shares(contender: Contender, tokens: Tensor, targets: Tensor) -> dict[str, float]:
    """Of the time of forward and backward, by :data:`PARTS`.

    The profiler knows wall time alone, so each operation counts with the least of three passes.
    """
    times: dict[str, float] = {}
    for _ in range(3):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            contender.learn(tokens, targets)
        contender.optimizer.zero_grad(set_to_none=True)
        for event in profiler.key_averages():
            seconds = event.self_cpu_time_total
            times[event.key] = min(times.get(event.key, seconds), seconds)
    total = sum(times.values())
    out = {part: sum(times.get(op, 0) for op in ops) / total for part, ops in PARTS.items()}
    return out | {"elementwise and all else": 1 - sum(out.values())}


def peak_memory(name: str) -> float:
    """MiB of a process that makes two steps of one contender, less those before the first."""
    command = [sys.executable, *sys.argv, "--only", name, "--steps-only"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def report(options: argparse.Namespace) -> None:
    """Take turns and print."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    machine = hardware.describe(torch.device("cpu"))
    print(f"{machine}, {os.cpu_count()} CPUs, torch {torch.__version__}")
    print(f"{platform.system()}, load {os.getloadavg()[0]:.1f}, commit {commit.stdout.strip()}")
    print("GLIBC_TUNABLES", os.environ.get("GLIBC_TUNABLES") or "unset")
    print("command: " + " ".join(["python", *sys.argv]))
    print(
        f"{options.rows * options.length} tokens a step, {options.dtype}, {options.rounds} rounds"
    )
    columns = f"{'weights':>9}{'learn':>8}{'update':>8}{'ratio':>8}{'of product':>12}"
    print(f"\n{'':<28}{columns}{'MiB':>8}")
    makers = contenders(options)
    groups: dict[str, list[str]] = {}
    for name in makers:
        groups.setdefault(reference(name), []).append(name)
    for base, names in groups.items():
        compare({name: makers[name]() for name in dict.fromkeys([base, *names])}, base, options)
    print("\nratio: of learning; ours to the dense twin, transformers' to ours with all layers MoE")
    for name in ("dense twin", "ours 16e"):
        if name in makers:
            found = shares(makers[name](), *batch(options, options.rows))
            print(f"{name}: " + ", ".join(f"{part} {share:.0%}" for part, share in found.items()))


def compare(made: dict[str, Contender], base: str, options: argparse.Namespace) -> None:
    """Take turns and print a row for each contender."""
    tokens, targets = batch(options, options.rows)
    for contender in made.values():
        step(contender, tokens, targets)
    learn: dict[str, list[float]] = {name: [] for name in made}
    update: dict[str, list[float]] = {name: [] for name in made}
    double, speeds = [], []
    for _ in range(options.rounds):
        speeds.append(product_speed(getattr(torch, options.dtype)))
        for name, contender in made.items():
            seconds, optimizer_seconds = step(contender, tokens, targets)
            learn[name].append(seconds)
            update[name].append(optimizer_seconds)
        if "ours 16e" in made and options.growth:
            double.append(step(made["ours 16e"], *batch(options, 2 * options.rows))[0])
    speed = statistics.median(speeds)
    print(f"a plain product: {speed / 1e9:.0f} GFLOP for a CPU second")
    for name, contender in made.items():
        seconds = statistics.median(learn[name])
        use = contender.flops * tokens.numel() / seconds / speed
        print(
            f"{name:<28}{contender.parameters / 1e6:>8.1f}M{seconds:>8.2f}"
            f"{statistics.median(update[name]):>8.2f}{median_ratio(learn[name], learn[base]):>8.2f}"
            + (f"{use:>12.2f}" if contender.flops else f"{'':>12}")
            + (f"{peak_memory(name):>8.0f}" if options.memory else "")
        )
    if double:
        ratio = median_ratio(double, learn["ours 16e"])
        print(f"ours 16e, twice the tokens: {ratio:.2f} times the time")


def median_ratio(seconds: list[float], others: list[float]) -> float:
    """Of what was measured in the same round."""
    return statistics.median(a / b for a, b in zip(seconds, others, strict=True))


def reference(name: str) -> str:
    """What a contender is compared with."""
    if name.startswith(("ours", "dense")):
        return "dense twin"
    return f"ours {name.split()[1].rstrip(',')}, all layers MoE"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--experts", type=int, nargs="*", default=[16, 64])
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="with E, tokens and width too")
    parser.add_argument("--memory", action="store_true", help="peaks too, each in a process")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--steps-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.steps_only:
        report(options)
        return
    (make,) = contenders(options).values()
    contender = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step(contender, *batch(options, options.rows))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


if __name__ == "__main__":
    hardware.tune_allocator()
    main()
