"""Checks a device against the CPU, in order of importance."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from gpu_parts.attentions import attentions, triton_attention
from gpu_parts.bench import SMALL, Bench, batch, distance, gradient_distance, learned
from model.glam.attention import Cache
from model.glam.config import AttentionBackend
from model.glam.experts import ACTIVATIONS, BACKENDS, ExpertInputs
from model.glam.loss import IGNORE, vocabulary_loss
from model.glam.parameter import copies
from model.glam.routing import route_top2
from model.glam.transformer import GLaM
from model.training.checkpoints import checkpoint
from model.training.distributed import parallel
from model.training.optimizers import optim
from model.training.optimizers.adafactor import Adafactor

CPU = torch.device("cpu")
BF16, FP32, FP64 = torch.bfloat16, torch.float32, torch.float64
ROOT = Path(__file__).resolve().parents[2]


def routing(bench: Bench) -> None:
    """Bit-equal to the CPU's, ties, capacity and random dispatch included."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4096, 64, generator=generator)
    uniforms = torch.rand(4096, generator=generator)
    logits[:64] = 0.0  # ties
    settings: dict[str, dict[str, Any]] = {
        "all": {},
        "capacity": {"capacity": 100, "groups": 2},
        "random": {"uniforms_T": uniforms, "capacity": 130},
    }
    for name, how in settings.items():
        moved: dict[str, Any] = {
            k: v.to(bench.device) if torch.is_tensor(v) else v for k, v in how.items()
        }
        expected, found = route_top2(logits, **how), route_top2(logits.to(bench.device), **moved)
        for field in ("expert_CT", "order_R", "place_CT", "ends_E"):
            differ = getattr(expected, field) != getattr(found, field).cpu()
            bench.check(f"routing {name} {field}", float(differ.float().mean()), 0.0)


def experts(bench: Bench) -> None:
    """Against float64: experts without rows, one with all, no rows, NaN in uninitialised memory."""
    M, H = 64, 128
    generator = torch.Generator().manual_seed(0)
    for name, counts, tail in (
        ("even", [32] * 8, 0),
        ("odd", [1, 0, 77, 3, 0, 130, 9, 36], 0),
        ("tail", [1, 0, 77, 3, 0, 130, 9, 0], 36),
        ("one", [0, 0, 0, 256, 0, 0, 0, 0], 0),
        ("none", [0] * 8, 0),
    ):
        ends = torch.tensor(counts).cumsum(0).int()
        x = torch.randn(int(ends[-1]) + tail, M, generator=generator)
        w_in = torch.randn(8, M, H, generator=generator) / 8
        w_out = torch.randn(8, H, M, generator=generator) / 11
        direction = torch.randn(x.shape, generator=generator)
        given = [t.to(BF16) for t in (x, w_in, w_out)], ends, direction, tail > 0
        expected = _experts(*given, "loop", CPU, FP64)
        with _poisoned_memory():
            found = _experts(*given, "grouped", bench.device, BF16)
        for what, a, b in zip(("y", "x", "w_in", "w_out"), found, expected, strict=True):
            if b.numel():
                bench.check(f"experts {name} {what}", distance(a, b), 1e-2)


def _experts(
    inputs: Sequence[Tensor],
    ends: Tensor,
    direction: Tensor,
    tail: bool,
    backend: str,
    device: torch.device,
    dtype: torch.dtype,
) -> list[Tensor]:
    leaves = [t.to(device, dtype, copy=True).requires_grad_() for t in inputs]
    x, w_in, w_out = leaves
    activation = next(iter(ACTIVATIONS.values()))
    y = BACKENDS[backend](ExpertInputs(x, ends.to(device), w_in, w_out, activation, tail))
    return [y, *torch.autograd.grad(y, leaves, direction.to(device, dtype))]


@contextmanager
def _poisoned_memory() -> Iterator[None]:
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def loss(bench: Bench) -> None:
    """The chunked vocabulary loss against torch's in float64."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(700, 64, generator=generator)
    table = torch.randn(999, 64, generator=generator)
    targets = torch.randint(0, 999, (700,), generator=generator)
    targets[::7] = IGNORE
    leaves = [t.double().requires_grad_() for t in (hidden, table)]
    logits = leaves[0] @ leaves[1].T / 8
    exact = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    expected = [exact, *torch.autograd.grad(exact, leaves)]
    for dtype, bound in ((FP32, 1e-5), (BF16, 1e-2)):
        moved = hidden.to(bench.device, dtype), table.to(bench.device)
        leaves = [t.requires_grad_() for t in moved]
        how: dict[str, Any] = {"scale": 1 / 8, "denominator": 1.0, "chunk_logits": 999 * 100}
        x, w = leaves
        found = vocabulary_loss(x, w, targets.to(bench.device), **how).objective
        both = [found, *torch.autograd.grad(found, leaves)]
        for what, a, b in zip(("value", "hidden", "table"), both, expected, strict=True):
            bench.check(f"loss {dtype} {what}", distance(a, b), bound)


def model(bench: Bench) -> None:
    """float32 as on the CPU; bfloat16 at most 1.5 times as far from float32 as the CPU's.

    If rounding flips a choice of expert, gradients move by a tenth, so a fixed bound would mislead.
    """
    for name, config in {
        "dense": dataclasses.replace(SMALL, experts=0),
        "sparse": SMALL,
        "capacity": dataclasses.replace(SMALL, capacity_factor=2.0, group_rows=1),
        "64 experts": dataclasses.replace(SMALL, experts=64),
    }.items():
        exact, expected = learned(config, CPU, FP32)
        value, found = learned(config, bench.device, FP32)
        bench.check(f"model {name} fp32 loss", abs(value - exact) / exact, 1e-6)
        bench.check(f"model {name} fp32 gradients", gradient_distance(found, expected), 1e-4)
        reference = gradient_distance(learned(config, CPU, BF16)[1], expected)
        ways: dict[str, dict[str, Any]] = {"plain": {}, "recompute": {"recompute": True}}
        if bench.cuda:
            ways["flex"] = {"attention": AttentionBackend.flex}
        for way, how in ways.items():
            value, found = learned(config, bench.device, BF16, **how)
            far = gradient_distance(found, expected)
            bench.check(f"model {name} bf16 {way} loss", abs(value - exact) / exact, 3e-3)
            bench.check(f"model {name} bf16 {way} gradients", far, max(1.5 * reference, 0.03))
            again = learned(config, bench.device, BF16, **how)[1]
            differ = max(float((again[n] != found[n]).float().mean()) for n in found)
            if way == "flex":  # the gradient of the bias is added up by atomics
                bench.number(f"model {name} flex: most gradients of a weight that differ", differ)
            else:
                bench.check(f"model {name} bf16 {way} bit-equal twice", differ, 0.0)


def optimizers(bench: Bench) -> None:
    """Three steps with the CPU's gradients."""
    makers: dict[str, Callable[[GLaM], torch.optim.Optimizer]] = {
        "Adafactor": lambda m: Adafactor(m.parameters(), 0.01),
        "AdamW": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, fused=True),
    }
    for name, make in makers.items():
        weights = []
        for device in (CPU, bench.device):
            one = GLaM(SMALL, seed=3).to(device)
            optimizer = make(one)
            for step in range(3):
                for parameter in one.parameters():
                    generator = torch.Generator().manual_seed(step)
                    drawn = torch.randn(parameter.shape, generator=generator)
                    parameter.grad = drawn.to(device) * 1e-3
                optimizer.step()
            weights.append({n: p.detach().cpu() for n, p in one.named_parameters()})
        bench.check(name, gradient_distance(weights[1], weights[0]), 1e-6)


def sharded(bench: Bench) -> None:
    """FSDP2, all-to-all and the sharded Adafactor in a group of one, against an unsharded model."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "nccl" if bench.cuda else "gloo",
            init_method=f"file://{folder}/store",
            rank=0,
            world_size=1,
            device_id=torch.device("cuda", 0) if bench.cuda else None,
        )
        try:
            for dtype, backend, bound in ((FP32, "loop", 1e-5), (BF16, "grouped", 1e-2)):
                _sharded(bench, dtype, backend, bound)
        finally:
            dist.destroy_process_group()


def _sharded(bench: Bench, dtype: torch.dtype, backend: str, bound: float) -> None:
    how: dict[str, Any] = {"compute_dtype": dtype, "expert_backend": backend}
    alone = GLaM(SMALL, **how, seed=3).to(bench.device)
    with torch.device("meta"):
        shared = GLaM(SMALL, **how)
    parallel.shard(shared, parallel.make_grid(SMALL, bench.device.type, 1))
    shared.to_empty(device=bench.device)
    shared.initialise(3)
    both = [(m, Adafactor(m.parameters(), 0.01)) for m in (alone, shared)]
    for step in range(2):
        for one, _ in both:
            one.loss(*batch(SMALL, 2, 128, bench.device, seed=step)).total.backward()
        pairs = list(zip(alone.named_parameters(), shared.parameters(), strict=True))
        expected = {n: p.grad.cpu() for (n, p), _ in pairs if p.grad is not None}
        found: dict[str, Any] = {n: q.grad.to_local().cpu() for (n, _), q in pairs}  # type: ignore[union-attr]
        if step == 0:
            bench.check(f"sharded {dtype} gradients", gradient_distance(found, expected), bound)
        norms = [float(optim.gradient_norm(one)) for one, _ in both]
        bench.check(f"sharded {dtype} norm {step}", abs(norms[0] - norms[1]) / norms[0], bound)
        for _, optimizer in both:
            optimizer.step()
            optimizer.zero_grad()


def checkpoints(bench: Bench) -> None:
    """A checkpoint of the CPU, loaded on the device bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        old = GLaM(SMALL, seed=3)
        optimizer = Adafactor(old.parameters(), 0.01)
        old.loss(*batch(SMALL, 2, 64, CPU)).total.backward()
        optimizer.step()
        checkpoint.save(folder, 1, checkpoint.tensors(old, optimizer), {})
        new = GLaM(SMALL, seed=4).to(bench.device)
        its = Adafactor(new.parameters(), 0.01)
        checkpoint.materialise(new, its)
        saved = checkpoint.newest(folder)
        assert saved is not None
        checkpoint.load(saved, checkpoint.tensors(new, its))
        a, b = checkpoint.tensors(old, optimizer), checkpoint.tensors(new, its)
        differ = sum(int((a[n] != b[n].cpu()).sum()) for n in a)
        bench.check("a checkpoint of the CPU: values that differ", float(differ), 0.0)


def generation(bench: Bench) -> None:
    """Greedy tokens, with the cache of keys and values, as on the CPU."""
    tokens = []
    for device in (CPU, bench.device):
        one = GLaM(SMALL, seed=3).to(device).eval()
        new = batch(SMALL, 1, 16, device)[0]
        out = []
        with torch.inference_mode(), copies(one):
            cache = Cache.empty(SMALL.layers)
            for _ in range(24):
                new = one(new, cache=cache)[:, -1:].argmax(-1)
                out.append(int(new))
        tokens.append(out)
    differ = sum(a != b for a, b in zip(*tokens, strict=True))
    bench.check("greedy tokens that differ", float(differ), 0.0)


def waits(bench: Bench) -> None:
    """Forward and backward never wait for the device."""
    one = GLaM(SMALL, compute_dtype=BF16, expert_backend="grouped").to(bench.device)
    data = batch(SMALL, 2, 128, bench.device)
    with copies(one):
        one.loss(*data).total.backward()
    if not bench.cuda:
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said, copies(one):
            warnings.simplefilter("always")
            one.loss(*data).total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = {f"{w.filename}:{w.lineno}" for w in said if "synchroniz" in str(w.message)}
    bench.results["waits"] = sorted(places)
    bench.check("places that wait in a step", float(len(places)), 0.0)


def training(bench: Bench) -> None:
    """Given a corpus, the commands resume a CPU's run on the device, and generate."""
    if bench.corpus is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        common = [
            f"model={'glam_1m_16e' if bench.tiny else 'glam_30m_16e'}",
            *(f"data.corpus={bench.corpus}", "data.arm=unfiltered", "data.sequence_length=64"),
            *("train.batch_rows=8", "train.precision=fp32", "checkpoint.every=10"),
            *("evaluate.every=0", "evaluate.final_bytes=20000", f"output={run}"),
        ]
        for device, steps in (("cpu", 10), (bench.device.type, 20), (bench.device.type, 40)):
            here = [f"train.device={device}", f"train.tokens={steps * 512}"]
            code = _command("model/train.py", *common, *here)
            bench.check(f"training to step {steps} on {device}: exit code", code, 0)
        rows = Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [json.loads(row)["loss"] for row in rows]
        bench.check("last loss over the first", losses[-1] / losses[0], 0.98)
        asked = [f"checkpoint={run}", "prompt=The", "tokens=8", f"device={bench.device.type}"]
        bench.check("generation: exit code", _command("model/generate.py", *asked), 0)


def _command(script: str, *settings: str) -> int:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, script, *settings]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:])
    return done.returncode


CHECKS = (
    *(routing, experts, attentions, triton_attention, loss, model, optimizers, sharded),
    *(checkpoints, generation, waits, training),
)
