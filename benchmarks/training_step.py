"""One training step: ours against its dense twin, transformers' MoE models and plain products.

    OMP_NUM_THREADS=1 python benchmarks/training_step.py

Each contender is a process, ours with the allocator settings of ``model/train.py``, transformers'
with the defaults. They take turns, a step each, on the same random tokens, at most four at a time
(up to 8 GB with 64 experts). Ratios are medians over rounds of CPU seconds, which other load
changes little; wall time needs a quiet machine, and matters with several threads. Forward and
backward (``learn``) are timed apart from the update by Adafactor: ours for ours, torch's for the
others. Random tokens route nearly evenly at first.

The dense twin has wider hidden layers, for the active parameters and FLOPs of the MoE models.
Mixtral and OLMoE have the shape of ours with an MoE in every layer. Their experts have three
matrices, ours two, so their hidden layers are two thirds as wide: equal parameters and FLOPs. They
use rotary embeddings and their default (fused) attention, ours its trained bias. In bfloat16 they
run under autocast, with float32 weights like ours.

``of product`` is the FLOP rate of a step relative to a plain matrix product, the limit for any code
with the same products.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from gpu_parts.bench import dense_twin, peer_model
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from model import sizes
from model.glam.config import GLaMConfig
from model.glam.parameter import copies
from model.glam.transformer import GLaM
from model.training import allocator, hardware
from model.training.optimizers.adafactor import Adafactor

PARTS = {
    "products of weights": ("aten::mm", "aten::addmm", "aten::_grouped_mm"),
    "attention": (
        "aten::bmm", "aten::baddbmm", "aten::_softmax", "aten::_softmax_backward_data",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "dispatch, routing, embedding": (
        "aten::index_select", "aten::gather", "aten::sort", "aten::scatter_add_", "aten::scatter_",
        "aten::embedding_dense_backward", "aten::argmax", "aten::cumsum", "aten::index",
        "aten::_index_put_impl_", "aten::topk",
    ),
    "casts and copies": ("aten::copy_", "aten::cat"),
    "filling with zeros": ("aten::fill_", "aten::zero_"),
}  # fmt: skip

DEFAULT_ALLOCATOR = "default allocator"
OUR_ALLOCATOR = "our allocator"
WARM_UP = 10
"""Steps before the first that counts: oneDNN compiles a kernel for each new product size."""


@dataclass
class Contender:
    """A model that learns from a batch: ``learn`` is forward and backward."""

    model: nn.Module
    learn: Callable[[Tensor, Tensor], None]
    optimizer: torch.optim.Optimizer
    parameters: int
    flops: float
    """Of a token, forward and backward."""


def ours(config: GLaMConfig, dtype: torch.dtype, length: int, backend: str) -> Contender:
    model = GLaM(config, compute_dtype=dtype, expert_backend=backend)

    def learn(tokens: Tensor, targets: Tensor) -> None:
        with copies(model):
            model.loss(tokens, targets).total.backward()

    counts = sizes.count(config)
    flops = sizes.training_flops(config, counts, length)
    return Contender(model, learn, Adafactor(model.parameters(), 0.01), counts.total, flops)


def theirs(
    name: str, experts: str, config: GLaMConfig, dtype: torch.dtype, length: int
) -> Contender:
    """Mixtral or OLMoE, shaped like a GLaM with an MoE in every layer."""
    model = peer_model(name, config, experts)
    autocast = dtype != torch.float32

    def learn(tokens: Tensor, targets: Tensor) -> None:
        with torch.autocast("cpu", dtype) if autocast else contextlib.nullcontext():
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()

    numbers = sum(parameter.numel() for parameter in model.parameters())
    flops = sizes.training_flops(config, sizes.count(config), length)
    optimizer = torch.optim.Adafactor(model.parameters(), lr=0.01)
    return Contender(model, learn, optimizer, numbers, flops)


def contenders(options: argparse.Namespace) -> dict[str, Callable[[], Contender]]:
    """A constructor for each contender, by name."""
    dtype = getattr(torch, options.dtype)
    width = options.width
    shape = {"width": width, "hidden": 3 * width, "heads": width // 32, "head_width": 32}
    base = GLaMConfig(vocabulary=options.vocabulary, layers=options.layers, **shape)

    def glam(backend: str = "fastest", **changes: Any) -> Callable[[], Contender]:
        config = dataclasses.replace(base, **changes)
        return lambda: ours(config, dtype, options.length, backend)

    twin = dense_twin(dataclasses.replace(base, experts=16))
    out = {"dense twin": lambda: ours(twin, dtype, options.length, "fastest")}
    for experts in options.experts:
        out[f"ours {experts}e"] = glam(experts=experts)
        if options.growth:
            continue
        out[f"ours {experts}e, loop"] = glam("loop", experts=experts)
        out[f"ours {experts}e, grouped_mm"] = glam("grouped", experts=experts)
        sparse = dataclasses.replace(base, experts=experts, moe_period=1)
        for allocation in ("", f", {DEFAULT_ALLOCATOR}"):
            name = f"ours {experts}e, all layers MoE{allocation}"
            out[name] = glam(experts=experts, moe_period=1)
        for name in ("Mixtral", "OLMoE"):
            for way in ("eager", "grouped_mm", f"grouped_mm, {OUR_ALLOCATOR}"):
                made = partial(theirs, name, way.split(",")[0], sparse, dtype, options.length)
                out[f"{name} {experts}e, {way}"] = made
        del out[f"OLMoE {experts}e, grouped_mm, {OUR_ALLOCATOR}"]
    if options.growth:
        for experts in (4, 32):
            out[f"ours {experts}e"] = glam(experts=experts)
        wide: Any = {"width": 2 * base.width, "hidden": 2 * base.hidden, "heads": 2 * base.heads}
        out["ours 16e, twice as wide"] = glam(experts=16, **wide)
        out["ours 16e, twice the tokens"] = glam(experts=16)
    return out


def batch(options: argparse.Namespace, name: str) -> tuple[Tensor, Tensor]:
    """Random tokens and targets: int64 [rows, length]."""
    rows = options.rows * (2 if name.endswith("twice the tokens") else 1)
    generator = torch.Generator().manual_seed(0)
    shape = (rows, options.length + 1)
    stream = torch.randint(0, options.vocabulary, shape, generator=generator)
    return stream[:, :-1].contiguous(), stream[:, 1:].contiguous()


def product_speed(dtype: torch.dtype) -> float:
    """The current FLOP per CPU second of a plain product."""
    a, b = (torch.rand(1024, 1024).to(dtype) for _ in range(2))
    begun = time.process_time()
    for _ in range(10):
        a @ b
    return 10 * 2.0 * 1024**3 / (time.process_time() - begun)


def shares(contender: Contender, tokens: Tensor, targets: Tensor) -> dict[str, float]:
    """The shares of :data:`PARTS` in forward and backward.

    The profiler knows only wall time, so each operation counts with the minimum of three passes.
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


def work(name: str, options: argparse.Namespace) -> None:
    """A contender's process: answer each line of input with a line of JSON."""
    # Redirect what libraries print to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    contender = contenders(options)[name]()
    tokens, targets = batch(options, name)

    def step() -> dict[str, float]:
        begun, wall = time.process_time(), time.perf_counter()
        contender.learn(tokens, targets)
        learnt = time.process_time()
        contender.optimizer.step()
        contender.optimizer.zero_grad(set_to_none=True)
        ended, wall = time.process_time(), time.perf_counter() - wall
        times = {"learn": learnt - begun, "update": ended - learnt, "step": ended - begun}
        return times | {"wall": wall}

    commands: dict[str, Callable[[], dict[str, float]]] = {
        "step": step,
        "product": lambda: {"speed": product_speed(getattr(torch, options.dtype))},
        "shares": lambda: shares(contender, tokens, targets),
        "about": lambda: {
            "parameters": contender.parameters,
            "flops": contender.flops * tokens.numel(),
            "peak": hardware.peak_memory(torch.device("cpu")),
        },
    }
    for command in sys.stdin:
        answers.write(json.dumps(commands[command.strip()]()) + "\n")


class Process:
    """A running contender."""

    def __init__(self, name: str) -> None:
        tuned = OUR_ALLOCATOR in name or ("ours" in name and DEFAULT_ALLOCATOR not in name)
        tunables = allocator.GLIBC_TUNABLES if tuned or name == "dense twin" else ""
        command = [sys.executable, *sys.argv, "--work", name]
        environment = os.environ | {"GLIBC_TUNABLES": tunables}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment
        )

    def ask(self, command: str) -> dict[str, float]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a contender failed; its error is above")
        answer: dict[str, float] = json.loads(line)
        return answer


@contextlib.contextmanager
def at_work(names: list[str]) -> Iterator[dict[str, Process]]:
    processes = {name: Process(name) for name in names}
    try:
        for process in processes.values():
            for _ in range(WARM_UP):
                process.ask("step")
        yield processes
    finally:
        for process in processes.values():
            process.process.kill()
            process.process.communicate()


def report(options: argparse.Namespace) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    machine = hardware.describe(torch.device("cpu"))
    print(f"{machine}, {os.cpu_count()} CPUs, torch {torch.__version__}")
    print(f"{platform.system()}, load {os.getloadavg()[0]:.1f}, commit {commit.stdout.strip()}")
    print("command: " + " ".join(["python", *sys.argv]))
    about = f"{options.rows * options.length} tokens a step, {options.dtype}"
    ratios = "ratios of learning, of the whole step, and of its wall time"
    print(f"{about}, {options.rounds} rounds; CPU seconds; {ratios}")
    groups: dict[str, list[str]] = {}
    for name in contenders(options):
        groups.setdefault(reference(name), []).append(name)
    for base, names in groups.items():
        others = [name for name in names if name != base]
        # transformers' eager experts take 3 GB and more.
        size = 3 if base == "dense twin" else 2
        for start in range(0, len(others), size):
            compare(base, others[start : start + size], start == 0, options)


def compare(base: str, others: list[str], first: bool, options: argparse.Namespace) -> None:
    """Take turns and print a row per contender; for the base only if ``first``."""
    names = [base, *others]
    rounds: list[dict[str, dict[str, float]]] = []
    with at_work(names) as processes:
        speeds = []
        for number in range(options.rounds):
            speeds.append(processes[base].ask("product")["speed"])
            turn = number % len(names)  # vary the predecessor, because of the cache
            order = names[turn:] + names[:turn]
            rounds.append({name: processes[name].ask("step") for name in order})
        about = {name: process.ask("about") for name, process in processes.items()}
        profiled = [n for n in names if n.startswith("Mixtral") or (n == base and first)]
        parts = {name: processes[name].ask("shares") for name in profiled}
    speed = statistics.median(speeds)
    if first:
        print(f"\nto {base}; a plain product: {speed / 1e9:.0f} GFLOP for a CPU second")
        columns = f"{'weights':>9}{'learn':>8}{'update':>8}{'ratio':>8}{'step':>8}{'wall':>8}"
        print(f"{'':<44}{columns}{'of product':>12}{'MiB':>8}")
    median = statistics.median
    for name in names if first else others:
        learn, update = (median(one[name][x] for one in rounds) for x in ("learn", "update"))
        ratio, step, wall = (
            median(one[name][x] / one[base][x] for one in rounds) for x in ("learn", "step", "wall")
        )
        print(
            f"{name:<44}{about[name]['parameters'] / 1e6:>8.1f}M{learn:>8.2f}{update:>8.2f}"
            f"{ratio:>8.2f}{step:>8.2f}{wall:>8.2f}{about[name]['flops'] / learn / speed:>12.2f}"
            f"{about[name]['peak'] / 2**20:>8.0f}"
        )
    for name, found in parts.items():
        print(f"{name}: " + ", ".join(f"{part} {share:.0%}" for part, share in found.items()))


def reference(name: str) -> str:
    if name == "dense twin" or ("ours" in name and "all layers MoE" not in name):
        return "dense twin"
    return f"ours {name.split()[1].rstrip(',')}, all layers MoE"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--experts", type=int, nargs="*", default=[16, 64])
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--growth", action="store_true", help="with E, tokens and width instead")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options)
    else:
        report(options)


if __name__ == "__main__":
    main()
