"""Fused kernels for a CPU: attention's softmax, cross-entropy, RMSNorm and GEGLU.

In torch each elementwise operation goes through memory and, in bfloat16, casts on the way in and
out. One compiled loop over a row, which stays in the cache, takes a tenth to a half of the time.
Loops compute in float32; tensors are float32 or bfloat16. One thread computes a whole row, so the
number of threads (torch's) does not change a bit.

Suffixes as in :mod:`model.glam.transformer`, and P = B * N pairs of a row and a head, Q queries, W
the width of a row.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from model.ops.cpu_dtypes import (
    GELU_CUBE,
    GELU_SLOPE,
    LEAST,
    MINUS_INFINITY,
    ONE,
    ZERO,
    exp,
    gelu_share,
    load,
    ordered,
    store,
    unordered,
)

Array = npt.NDArray[Any]

# Sums may be reassociated for vector instructions: always alike for the same length.
compiled = njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"}
)


def biased_softmax_(
    logits_PQK: Tensor, line_NK: Tensor, segments_BQ: Tensor, segments_BK: Tensor
) -> None:
    """Turn the logits q.k of the last Q of K positions into attention weights, in place.

    ``line_NK`` (float32) is the bias by distance, from K - 1 down to 0. Segments are int32: a query
    sees the keys of its segment up to its position; other weights are 0. Logits and bias are
    contiguous.
    """
    heads = len(line_NK)
    in_threads(
        _biased_softmax, len(logits_PQK), _array(logits_PQK), line_NK.numpy(),
        segments_BQ.numpy(), segments_BK.numpy(), heads,
    )  # fmt: skip


@compiled
def _biased_softmax(
    start: int, stop: int, logits: Array, line: Array, segments_q: Array, segments_k: Array,
    heads: int,
) -> None:  # fmt: skip
    queries, keys = logits.shape[1:]
    work = np.empty(keys, np.float32)
    for pair in range(start, stop):
        segments = segments_k[pair // heads]
        for query in range(queries):
            end = keys - queries + query + 1
            row = logits[pair, query]
            bias = line[pair % heads, keys - end :]
            own = segments_q[pair // heads, query]
            top = LEAST
            for k in range(end):
                x = load(row[k]) + bias[k]
                x = x if segments[k] == own else MINUS_INFINITY
                work[k] = x
                top = np.int32(max(top, ordered(x)))
            highest = unordered(top)
            total = ZERO
            for k in range(end):
                x = exp(work[k] - highest)
                work[k] = x
                total += x
            scale = ONE / total
            for k in range(end):
                row[k] = store(work[k] * scale, row[k])
            for k in range(end, keys):
                row[k] = 0


def biased_softmax_backward_(weights_PQK: Tensor, grad_PQK: Tensor, grad_line_PK: Tensor) -> None:
    """Turn the gradient of :func:`biased_softmax_`'s weights into that of the logits, in place.

    Both are contiguous, of one dtype. The bias's gradient is added to the last columns of
    ``grad_line_PK`` (float32).
    """
    in_threads(
        _biased_softmax_backward, len(grad_PQK), _array(weights_PQK), _array(grad_PQK),
        grad_line_PK[:, -weights_PQK.shape[2] :].numpy(),
    )  # fmt: skip


@compiled
def _biased_softmax_backward(
    start: int, stop: int, weights: Array, grads: Array, grad_line: Array
) -> None:
    queries, keys = weights.shape[1:]
    for pair in range(start, stop):
        for query in range(queries):
            end = keys - queries + query + 1
            weight, grad = weights[pair, query], grads[pair, query]
            of_line = grad_line[pair, keys - end :]
            inner = ZERO
            for k in range(end):
                inner += load(weight[k]) * load(grad[k])
            for k in range(end):
                x = load(weight[k]) * (load(grad[k]) - inner)
                of_line[k] += x
                grad[k] = store(x, grad[k])
            for k in range(end, keys):
                grad[k] = 0


def cross_entropy_(
    logits_TV: Tensor, targets_T: Tensor, scale: float, z_coefficient: float, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """The cross-entropy and the logsumexp of ``scale * logits``: float32 [T] each.

    ``with_gradient`` replaces the contiguous logits by the gradient of the sum over tokens of
    cross-entropy + z_coefficient * logsumexp^2. Targets (int64) below 0 have loss, logsumexp and
    gradient 0.
    """
    loss_T, logsumexp_T = torch.zeros(2, len(logits_TV))
    in_threads(
        _cross_entropy, len(logits_TV), _array(logits_TV), targets_T.numpy(), np.float32(scale),
        np.float32(z_coefficient), with_gradient, loss_T.numpy(), logsumexp_T.numpy(),
    )  # fmt: skip
    return loss_T, logsumexp_T


@compiled
def _cross_entropy(
    start: int, stop: int, logits: Array, targets: Array, scale: np.float32,
    z_coefficient: np.float32, with_gradient: bool, losses: Array, logsumexps: Array,
) -> None:  # fmt: skip
    size = logits.shape[1]
    work = np.empty(size, np.float32)
    for t in range(start, stop):
        row = logits[t]
        target = targets[t]
        if target < 0:
            if with_gradient:
                row[:] = 0
            continue
        top = LEAST
        for v in range(size):
            x = load(row[v]) * scale
            work[v] = x
            top = np.int32(max(top, ordered(x)))
        highest = unordered(top)
        picked = work[target] - highest
        total = ZERO
        for v in range(size):
            x = exp(work[v] - highest)
            work[v] = x
            total += x
        log_total = np.float32(np.log(total))
        losses[t] = log_total - picked
        logsumexps[t] = highest + log_total
        if with_gradient:
            # softmax * (1 + 2 * coefficient * logsumexp) - [target], times the scale.
            more = ONE + np.float32(2) * z_coefficient * logsumexps[t]
            factor = scale * more / total
            work[target] -= total / more
            for v in range(size):
                row[v] = store(work[v] * factor, row[v])


def rms_norm(x: Tensor, scale_W: Tensor, epsilon: float) -> Tensor:
    """Rows of W as x / sqrt(mean(x^2) + epsilon) * scale, like x; the scale is float32 [W]."""
    y: Tensor = _RMSNorm.apply(x, scale_W, epsilon)
    return y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale_W: Tensor, epsilon: float) -> Tensor:
        x = x.contiguous()
        scale_W = scale_W.clone()  # FSDP cannot free a tensor that numpy has a view of
        y, inverse_T = torch.empty_like(x), torch.empty(_count(x))
        in_threads(
            _rms_norm, len(inverse_T), rows(x), scale_W.numpy(), np.float32(epsilon), rows(y),
            inverse_T.numpy(),
        )  # fmt: skip
        ctx.save_for_backward(x, inverse_T, scale_W)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, inverse_T, scale_W = ctx.saved_tensors
        parts = -(-len(inverse_T) // PART)
        grad_x, grad_scale = torch.empty_like(x), torch.zeros(parts, len(scale_W))
        in_threads(
            _rms_norm_backward, parts, rows(grads[0].contiguous()), rows(x), inverse_T.numpy(),
            scale_W.numpy(), rows(grad_x), grad_scale.numpy(),
        )  # fmt: skip
        return grad_x, grad_scale.sum(0), None


@compiled
def _rms_norm(
    start: int, stop: int, xs: Array, scale: Array, epsilon: np.float32, ys: Array, inverses: Array
) -> None:
    width = xs.shape[1]
    for t in range(start, stop):
        x, y = xs[t], ys[t]
        total = ZERO
        for w in range(width):
            total += load(x[w]) * load(x[w])
        inverse = ONE / np.sqrt(total / np.float32(width) + epsilon)
        inverses[t] = inverse
        for w in range(width):
            y[w] = store(load(x[w]) * inverse * scale[w], y[w])


PART = 64
"""Rows whose gradients of a norm's scale are summed at once: fixes the order of the sums."""


@compiled
def _rms_norm_backward(
    start: int, stop: int, grads: Array, xs: Array, inverses: Array, scale: Array, grad_xs: Array,
    grad_scales: Array,
) -> None:  # fmt: skip
    width = xs.shape[1]
    for part in range(start, stop):
        of_scale = grad_scales[part]
        for t in range(part * PART, min((part + 1) * PART, len(xs))):
            x, grad, grad_x, inverse = xs[t], grads[t], grad_xs[t], inverses[t]
            inner = ZERO
            for w in range(width):
                inner += load(grad[w]) * scale[w] * load(x[w])
            inner *= inverse * inverse / np.float32(width)
            for w in range(width):
                g, v = load(grad[w]), load(x[w])
                of_scale[w] += g * v * inverse
                grad_x[w] = store((g * scale[w] - v * inner) * inverse, grad_x[w])


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    """The approximate GELU of the gate, times ``up``, of the same shape and dtype."""
    y: Tensor = _GEGLU.apply(gate, up)
    return y


class _GEGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        y = torch.empty_like(gate)
        in_threads(_geglu, _count(gate), rows(gate), rows(up), rows(y))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
        in_threads(
            _geglu_backward, _count(gate), rows(grads[0].contiguous()), rows(gate), rows(up),
            rows(grad_gate), rows(grad_up),
        )  # fmt: skip
        return grad_gate, grad_up


@compiled
def _geglu(start: int, stop: int, gates: Array, ups: Array, ys: Array) -> None:
    for t in range(start, stop):
        gate, up, y = gates[t], ups[t], ys[t]
        for w in range(len(gate)):
            x = load(gate[w])
            y[w] = store(x * gelu_share(x) * load(up[w]), y[w])


@compiled
def _geglu_backward(
    start: int, stop: int, grads: Array, gates: Array, ups: Array, grad_gates: Array,
    grad_ups: Array,
) -> None:  # fmt: skip
    for t in range(start, stop):
        grad, gate, up, grad_gate, grad_up = grads[t], gates[t], ups[t], grad_gates[t], grad_ups[t]
        for w in range(len(gate)):
            x, g = load(gate[w]), load(grad[w])
            share = gelu_share(x)
            inner = GELU_SLOPE * (ONE + np.float32(3) * GELU_CUBE * x * x)
            slope = share + x * share * (ONE - share) * inner
            grad_up[w] = store(g * x * share, grad_up[w])
            grad_gate[w] = store(g * load(up[w]) * slope, grad_gate[w])


def can_read(x: Tensor) -> bool:
    """Whether the kernels can read the tensor: it is in a CPU's memory, and not fake."""
    return x.is_cpu and not isinstance(x, FakeTensor)


def _array(x: Tensor) -> Array:
    """The tensor's memory as float32, or as uint16 for bfloat16."""
    x = x.detach()
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


def rows(x: Tensor) -> Array:
    """:func:`_array` of the tensor in rows: [T, W]."""
    return _array(x).reshape(-1, x.shape[-1])


def _count(x: Tensor) -> int:
    return x.numel() // x.shape[-1]


def in_threads(kernel: Callable[..., None], count: int, *arguments: Any) -> None:
    """Call ``kernel(start, stop, *arguments)`` for ranges that cover 0 .. count."""
    threads = min(torch.get_num_threads(), count)
    if threads < 2:
        kernel(0, count, *arguments)
        return
    ends = [count * i // threads for i in range(threads + 1)]
    pool = _pool(threads, os.getpid())
    list(pool.map(lambda start, stop: kernel(start, stop, *arguments), ends, ends[1:]))


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads are slow to start, so they are kept; a fork has none, and starts new ones."""
    return ThreadPoolExecutor(threads)
