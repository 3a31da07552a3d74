"""Checks attention backends against float64, for determinism and in a model, and times them."""

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_parts.bench import SMALL, Bench, distance, gradient_distance, learned
from model.glam import attention
from model.glam.config import AttentionBackend

CPU = torch.device("cpu")
BF16, FP32, FP64 = torch.bfloat16, torch.float32, torch.float64
FAR = 128
OUTPUTS = ("y", "q", "k", "v", "bias")


@dataclass(frozen=True)
class Problem:
    """Queries, keys, values, bias table, documents, and the gradient of the result."""

    inputs: list[Tensor]
    table: Tensor
    segments: Tensor
    direction: Tensor

    @classmethod
    def random(cls, B: int, N: int, S: int, D: int, documents: float) -> "Problem":
        """Draw on a CPU, in float32; ``documents`` start in each row on average."""
        generator = torch.Generator().manual_seed(0)
        q, k, v, direction = (torch.randn(B, N, S, D, generator=generator) for _ in range(4))
        table = torch.randn(N, 32, generator=generator)
        starts = torch.rand(B, S, generator=generator) < documents / S
        return cls([q / D**0.25, k / D**0.25, v], table, starts.cumsum(1).int(), direction)

    def leaves(self, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """The inputs and the bias table, the latter at least float32, with gradients."""
        wide = FP64 if dtype == FP64 else FP32
        leaves = [t.to(device, dtype, copy=True) for t in self.inputs]
        return [t.requires_grad_() for t in (*leaves, self.table.to(device, wide, copy=True))]

    def attend(self, backend: AttentionBackend, leaves: list[Tensor]) -> Tensor:
        q, k, v, table = leaves
        at = self.segments.to(q.device)
        mask: attention.Mask
        if backend == AttentionBackend.plain:
            mask = attention.additive_mask(at, at, q.dtype)  # on a CPU too
        else:
            mask = attention.attention_mask(at, at, q.dtype, FAR, backend)
        line = attention.bias_of_distance(table, q.shape[2], FAR)
        return attention.attend(q, k, v, line, mask)

    def solved(
        self, backend: AttentionBackend, device: torch.device, dtype: torch.dtype
    ) -> list[Tensor]:
        leaves = self.leaves(device, dtype)
        y = self.attend(backend, leaves)
        return [y, *torch.autograd.grad(y, leaves, self.direction.to(device, dtype))]


def attentions(bench: Bench) -> None:
    """Torch's implementations and their gradients against float64."""
    ways = [(AttentionBackend.plain, FP32, 1e-5), (AttentionBackend.plain, BF16, 2e-2)]
    if bench.cuda:
        ways += [(AttentionBackend.flex, FP32, 1e-3), (AttentionBackend.flex, BF16, 1e-2)]
    shapes = ((32, 200), (128, 300)) if bench.tiny else ((32, 1024), (64, 1024), (128, 1024))
    for D, S in shapes:
        problem = Problem.random(2, 4, S, D, S / 100)
        expected = problem.solved(AttentionBackend.plain, CPU, FP64)
        for backend, dtype, bound in ways:
            found = problem.solved(backend, bench.device, dtype)
            for what, a, b in zip(OUTPUTS, found, expected, strict=True):
                bench.check(f"attention {D} {backend} {dtype} {what}", distance(a, b), bound)


def triton_attention(bench: Bench) -> None:
    """Our kernels against float64, twice, and in a model; on a CPU in Triton's interpreter."""
    if importlib.util.find_spec("triton") is None:
        bench.results.setdefault("left_out", []).append("triton_attention: no triton")
        return
    # The interpreter can't multiply bfloat16.
    ways = [(FP32, 1e-5), *([(BF16, 1e-2)] if bench.cuda else [])]
    for D, S in ((32, 150),) if bench.tiny else ((32, 1000), (64, 1000), (128, 1000), (128, 1024)):
        B, N = (1, 1) if bench.tiny else (2, 4)
        problem = Problem.random(B, N, S, D, S / 100)
        expected = problem.solved(AttentionBackend.plain, CPU, FP64)
        for dtype, bound in ways:
            found = problem.solved(AttentionBackend.triton, bench.device, dtype)
            again = problem.solved(AttentionBackend.triton, bench.device, dtype)
            name = f"attention {D} of {S} triton {dtype}"
            for what, a, b, c in zip(OUTPUTS, found, expected, again, strict=True):
                bench.check(f"{name} {what}", distance(a, b), bound)
                bench.check(f"{name} {what} twice", float((a != c).float().mean()), 0.0)
    if not bench.cuda:
        return
    exact, expected_of = learned(SMALL, CPU, FP32)
    reference = gradient_distance(learned(SMALL, CPU, BF16)[1], expected_of)
    value, found_of = learned(SMALL, bench.device, BF16, attention=AttentionBackend.triton)
    bench.check("model, triton attention, bf16 loss", abs(value - exact) / exact, 3e-3)
    far = gradient_distance(found_of, expected_of)
    bench.check("model, triton attention, bf16 gradients", far, max(1.5 * reference, 0.03))
    again_of = learned(SMALL, bench.device, BF16, attention=AttentionBackend.triton)[1]
    differ = max(float((again_of[n] != found_of[n]).float().mean()) for n in found_of)
    bench.check("model, triton attention, bit-equal twice", differ, 0.0)


def attention_speed(bench: Bench) -> None:
    """Milliseconds of one layer of 1.7B/64E, packed and as one long document, by each backend."""
    packed, long = (16, 16, 1024, 128, 4.0), (2, 16, 8192, 128, 0.0)
    shapes = {"16 rows of 1,024": packed, "2 rows of 8,192": long}
    if bench.tiny:
        shapes = {"1 row of 40": (1, 1, 40, 32, 4.0)}
    dtype = BF16 if bench.cuda else FP32
    for name, shape in shapes.items():
        problem = Problem.random(*shape)
        for backend in AttentionBackend:
            if backend == AttentionBackend.flex and not bench.cuda:
                continue
            named = f"attention ms, {name}, {backend}"
            measure = functools.partial(_speed, bench, named, problem, backend, dtype)
            bench.attempt(f"attention_speed {name} {backend}", measure)


def _speed(
    bench: Bench, name: str, problem: Problem, backend: AttentionBackend, dtype: torch.dtype
) -> None:
    leaves = problem.leaves(bench.device, dtype)
    direction = problem.direction.to(bench.device, dtype)

    def forward() -> Tensor:
        return problem.attend(backend, leaves)

    def both() -> None:
        torch.autograd.grad(forward(), leaves, direction)

    calls: dict[str, Callable[[], object]] = {"forward": forward, "with gradients": both}
    bench.forget()
    for what, call in calls.items():
        bench.number(f"{name}, {what}", bench.milliseconds(call, seconds=1.0))
    bench.number(f"{name}, GiB", bench.peak_gib())
