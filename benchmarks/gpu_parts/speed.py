"""Measures a device's speed: single products, and steps of our models and of others'."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from gpu_parts.attentions import attention_speed
from gpu_parts.bench import SMALL, Bench, batch, dense_twin, peer_model
from model import sizes
from model.accelerators import ACCELERATORS
from model.glam.config import AttentionBackend, GLaMConfig
from model.glam.parameter import copies
from model.glam.transformer import GLaM
from model.training.optimizers.adafactor import Adafactor

BF16 = torch.bfloat16
PEAK = ACCELERATORS["h100"].flops
"""The published peak of H100 and H200 in dense bfloat16, to which others relate utilisation."""

KERNELS = 15


def ceilings(bench: Bench) -> None:
    n = 256 if bench.tiny else 8192
    a, b = (torch.randn(n, n, device=bench.device, dtype=BF16) for _ in range(2))
    bench.number("product TFLOP/s", 2 * n**3 / bench.milliseconds(lambda: a @ b) / 1e9)
    x = torch.randn(n * n * (1 if bench.tiny else 8), device=bench.device)
    y = torch.empty_like(x)
    bench.number("copy TB/s", 2 * x.nbytes / bench.milliseconds(lambda: y.copy_(x)) / 1e9)


def grouped_ceilings(bench: Bench) -> None:
    """``grouped_mm`` at the shapes of 1.7B/64E: the forward and the two backward products."""
    E, M, H = (4, 64, 128) if bench.tiny else (64, 2048, 8192)
    for experts in (E, 1):
        for rows in (256,) if bench.tiny else (16384, 65536):
            ends = torch.linspace(0, rows, experts + 1, device=bench.device)[1:].int()
            x = torch.randn(rows, M, device=bench.device, dtype=BF16)
            w = torch.randn(experts, M, H, device=bench.device, dtype=BF16)
            g = torch.randn(rows, H, device=bench.device, dtype=BF16)
            products = ("forward", x, w), ("rows", g, w.transpose(1, 2)), ("weights", x.T, g)
            for name, left, right in products:
                time_ms = bench.milliseconds(lambda: F.grouped_mm(left, right, offs=ends))  # noqa: B023
                rate = 2 * rows * M * H / time_ms / 1e9
                bench.number(f"grouped TFLOP/s, {experts} experts, {rows} rows, {name}", rate)


def contender(bench: Bench, name: str, *given: Any, **how: Any) -> None:
    """Measure forward and backward, the update, the host's time, and memory."""
    bench.attempt_in_time(name, functools.partial(_contend, bench, name, *given, **how))


def _contend(
    bench: Bench,
    name: str,
    config: GLaMConfig,
    rows: int,
    length: int,
    compiled: bool = False,
    **how: Any,
) -> None:
    with torch.device("meta"):
        model = GLaM(config, compute_dtype=BF16, expert_backend="grouped", **how)
    model.to_empty(device=bench.device)
    for p in model.parameters():  # initialise() draws on the CPU, for minutes
        torch.nn.init.normal_(p, std=max(p.shape[-2:-1] or (1,)) ** -0.5)
        if p.ndim == 1:
            torch.nn.init.ones_(p)
    if compiled:
        for layer in model.layers:
            layer.compile()
    update = Adafactor(model.parameters(), 1e-4)
    data = [batch(config, rows, length, bench.device, seed=i) for i in range(2)]
    turns = itertools.cycle(data)

    def learn() -> None:
        with copies(model):
            model.loss(*next(turns)).total.backward()

    def whole() -> None:
        learn()
        model.zero_grad(set_to_none=False)

    learn()
    bench.synchronise()
    begun = time.perf_counter()
    learn()
    host = time.perf_counter() - begun
    bench.synchronise()
    learn_ms = bench.milliseconds(whole, least=3, most=10, seconds=3)
    update_ms = bench.milliseconds(update.step, least=3, most=5)
    tokens = rows * length
    row = _row(bench, config, rows, length, learn_ms) | {
        "host_ms": 1e3 * host,
        "update_ms": update_ms,
        "tokens/s": 1e3 * tokens / (learn_ms + update_ms),
    }
    if bench.cuda and not compiled:
        row["kernels"] = _longest_kernels(bench, learn)
    bench.row(name, row)


def _row(
    bench: Bench, config: GLaMConfig, rows: int, length: int, learn_ms: float
) -> dict[str, Any]:
    flops = rows * length * sizes.training_flops(config, sizes.count(config), length)
    measured = bench.results["numbers"].get("product TFLOP/s")
    rate = flops / learn_ms * 1e3
    return {
        "learn_ms": learn_ms,
        "of the peak": rate / PEAK,
        "of a product": rate / (measured * 1e12) if measured else float("nan"),
        "GiB": bench.peak_gib(),
    }


def _longest_kernels(bench: Bench, learn: Callable[[], None]) -> dict[str, float]:
    """The longest kernels' shares of the device's time, and the number of launches."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        learn()
        bench.synchronise()
    kernels = [e for e in found.key_averages() if e.self_device_time_total > 0]
    total = sum(e.self_device_time_total for e in kernels)
    longest = sorted(kernels, key=lambda e: -e.self_device_time_total)[:KERNELS]
    return {"busy_ms": total / 1e3, "launches": float(sum(e.count for e in kernels))} | {
        e.key[:60]: round(e.self_device_time_total / total, 3) for e in longest
    }


def ours(bench: Bench) -> None:
    """Two layers of 1.7B/64E at full width, 0.1B/64E, 100m_16e, and their dense twins."""
    if bench.tiny:
        wide = base = small = SMALL
        rows, length = 2, 128
    else:
        named = sizes.load(["glam_1b7_64e", "glam_0b1_64e", "glam_100m_16e"])
        wide, base, small = named.values()
        wide = dataclasses.replace(wide, layers=2)
        rows, length = 16, 1024
    many = 4 * rows if bench.cuda else rows
    flex: dict[str, Any] = {"attention": AttentionBackend.flex} if bench.cuda else {}
    compiled = not bench.tiny
    run = contender
    run(bench, "1.7B/64E, 2 layers", wide, rows, length, **flex)
    run(bench, "1.7B/64E, 2 layers, compiled", wide, rows, length, compiled, **flex)
    run(bench, "1.7B/64E, 2 layers, dense twin", dense_twin(wide), rows, length, **flex)
    run(bench, "0.1B/64E", base, many, length, **flex)
    run(bench, "100m_16e", small, many, length, **flex)
    run(bench, "100m_16e, compiled", small, many, length, compiled, **flex)
    run(bench, "100m, dense twin", dense_twin(small), many, length, **flex)
    run(bench, "1.7B/64E, 2 layers, plain attention", wide, rows, length)
    if bench.cuda:
        kernels: dict[str, Any] = {"attention": AttentionBackend.triton}
        run(bench, "1.7B/64E, 2 layers, triton attention", wide, rows, length, **kernels)
    run(bench, "1.7B/64E, 2 layers, recompute", wide, rows, length, recompute=True, **flex)


def theirs(bench: Bench) -> None:
    """Transformers' Mixtral and OLMoE, shaped like 100m_16e with an MoE in every layer."""
    config = SMALL if bench.tiny else sizes.load(["glam_100m_16e"])["glam_100m_16e"]
    config = dataclasses.replace(config, moe_period=1)
    rows, length = (2, 64) if bench.tiny else (16, 1024)
    flex: dict[str, Any] = {"attention": AttentionBackend.flex} if bench.cuda else {}
    contender(bench, "100m_16e, all MoE", config, rows, length, **flex)
    for peer, way in itertools.product(("Mixtral", "OLMoE"), ("grouped_mm", "eager")):
        name = f"{peer}, {way}"
        contend = functools.partial(_contend_peer, bench, name, peer, way, config, rows, length)
        bench.attempt_in_time(name, contend)


def _contend_peer(
    bench: Bench, name: str, peer: str, way: str, config: GLaMConfig, rows: int, length: int
) -> None:
    model = peer_model(peer, config, way).to(bench.device)
    tokens = batch(config, rows, length, bench.device)[0]

    def learn() -> None:
        with torch.autocast(bench.device.type, BF16):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        model.zero_grad(set_to_none=False)

    learn_ms = bench.milliseconds(learn, least=3, most=10, seconds=2)
    bench.row(name, _row(bench, config, rows, length, learn_ms))


MEASUREMENTS = (ceilings, grouped_ceilings, attention_speed, ours, theirs)
