"""Rows that torch would pass over many times on a CPU, once: softmax, loss, RMSNorm, GEGLU.

Between a small model's products lies elementwise work, each operation of which goes through memory
and, in bfloat16, casts on the way in and out. Compiled here into one loop over a row, which stays
in the cache, it takes between a half and a tenth of the time. Values are float32 inside the loops,
float32 or bfloat16 outside. Threads are torch's number of them; each row is the work of one, so
their number changes no bit.

Suffixes as in :mod:`model.glam`; besides P = B * N, pairs of a row and a head, Q queries, W the
width of a row.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit, types
from numba.extending import overload
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

Array = npt.NDArray[Any]

# Sums may be made in any order: that of the vectors, which is the same for the same length.
_compiled = njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"}
)
_exact = njit(nogil=True, cache=True, fastmath={"contract"})

_LOG2_E = np.float32(1 / np.log(2))
_LN2_HIGH = np.float32(0.693359375)  # 9 bits: its product with a small integer is exact
_LN2_LOW = np.float32(np.log(2) - 0.693359375)
_HALF, _ONE = np.float32(0.5), np.float32(1.0)
_C2, _C3, _C4, _C5, _C6 = (np.float32(1 / x) for x in (2, 6, 24, 120, 720))
_GELU_SLOPE, _GELU_CUBE = np.float32(2 * np.sqrt(2 / np.pi)), np.float32(0.044715)
_SHIFT, _ROUND = np.uint32(16), np.uint32(0x7FFF)
_SIGN, _MANTISSA, _BIAS = np.int32(31), np.int32(23), np.int32(127)
_REST = np.int32(0x7FFFFFFF)
_LEAST = np.int32(-0x80000000)
_MINUS_INFINITY, _ZERO = np.float32(-np.inf), np.float32(0.0)


def biased_softmax_(
    logits_PQK: Tensor, line_NK: Tensor, segments_BQ: Tensor, segments_BK: Tensor
) -> None:
    """Turns the logits of the last Q of K positions into the weights of attention, in place.

    Args:
        logits_PQK: contiguous; q.k.
        line_NK: float32, contiguous; what to add by distance, that of K - 1 first, of 0 last.
        segments_BQ: int32; a query sees the keys of its own segment up to its own position. The
            weights of all others are 0.
        segments_BK: int32, of the keys.
    """
    heads = len(line_NK)
    _in_threads(
        _biased_softmax, len(logits_PQK), _numbers(logits_PQK), line_NK.numpy(),
        segments_BQ.numpy(), segments_BK.numpy(), heads,
    )  # fmt: skip


@_compiled
def _biased_softmax(
    start: int,
    stop: int,
    logits: Array,
    line: Array,
    segments_q: Array,
    segments_k: Array,
    heads: int,
) -> None:
    queries, keys = logits.shape[1:]
    work = np.empty(keys, np.float32)
    for pair in range(start, stop):
        segments = segments_k[pair // heads]
        for query in range(queries):
            end = keys - queries + query + 1
            row = logits[pair, query]
            bias = line[pair % heads, keys - end :]
            own = segments_q[pair // heads, query]
            top = _LEAST
            for k in range(end):
                x = _load(row[k]) + bias[k]
                x = x if segments[k] == own else _MINUS_INFINITY
                work[k] = x
                top = np.int32(max(top, _ordered(x)))
            highest = _unordered(top)
            total = _ZERO
            for k in range(end):
                x = _exp(work[k] - highest)
                work[k] = x
                total += x
            scale = _ONE / total
            for k in range(end):
                row[k] = _store(work[k] * scale, row[k])
            for k in range(end, keys):
                row[k] = 0


def biased_softmax_backward_(weights_PQK: Tensor, grad_PQK: Tensor, grad_line_PK: Tensor) -> None:
    """Turns the gradient of the weights into that of the logits, in place.

    Args:
        weights_PQK: contiguous, what :func:`biased_softmax_` made.
        grad_PQK: contiguous, of the same dtype.
        grad_line_PK: float32; the gradient of the bias is added to its last columns.
    """
    _in_threads(
        _biased_softmax_backward, len(grad_PQK), _numbers(weights_PQK), _numbers(grad_PQK),
        grad_line_PK[:, -weights_PQK.shape[2] :].numpy(),
    )  # fmt: skip


@_compiled
def _biased_softmax_backward(
    start: int, stop: int, weights: Array, grads: Array, grad_line: Array
) -> None:
    queries, keys = weights.shape[1:]
    for pair in range(start, stop):
        for query in range(queries):
            end = keys - queries + query + 1
            weight, grad = weights[pair, query], grads[pair, query]
            of_line = grad_line[pair, keys - end :]
            inner = _ZERO
            for k in range(end):
                inner += _load(weight[k]) * _load(grad[k])
            for k in range(end):
                x = _load(weight[k]) * (_load(grad[k]) - inner)
                of_line[k] += x
                grad[k] = _store(x, grad[k])
            for k in range(end, keys):
                grad[k] = 0


def cross_entropy_(
    logits_TV: Tensor, targets_T: Tensor, scale: float, z_coefficient: float, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """The cross-entropy and the logsumexp of ``scale * logits``: float32 [T] each.

    Args:
        logits_TV: contiguous. With gradient it becomes, in place, that of the sum over tokens of
            cross-entropy + coefficient * logsumexp^2, by these logits.
        targets_T: int64. One below 0 counts for nothing: its loss, logsumexp and gradient are 0.
        scale: of the logits.
        z_coefficient: of the logsumexp's square.
        with_gradient: whether it is wanted; else the logits stay.
    """
    loss_T, logsumexp_T = torch.zeros(2, len(logits_TV))
    _in_threads(
        _cross_entropy, len(logits_TV), _numbers(logits_TV), targets_T.numpy(), np.float32(scale),
        np.float32(z_coefficient), with_gradient, loss_T.numpy(), logsumexp_T.numpy(),
    )  # fmt: skip
    return loss_T, logsumexp_T


@_compiled
def _cross_entropy(
    start: int,
    stop: int,
    logits: Array,
    targets: Array,
    scale: np.float32,
    z_coefficient: np.float32,
    with_gradient: bool,
    losses: Array,
    logsumexps: Array,
) -> None:
    size = logits.shape[1]
    work = np.empty(size, np.float32)
    for t in range(start, stop):
        row = logits[t]
        target = targets[t]
        if target < 0:
            if with_gradient:
                row[:] = 0
            continue
        top = _LEAST
        for v in range(size):
            x = _load(row[v]) * scale
            work[v] = x
            top = np.int32(max(top, _ordered(x)))
        highest = _unordered(top)
        picked = work[target] - highest
        total = _ZERO
        for v in range(size):
            x = _exp(work[v] - highest)
            work[v] = x
            total += x
        log_total = np.float32(np.log(total))
        losses[t] = log_total - picked
        logsumexps[t] = highest + log_total
        if with_gradient:
            # softmax * (1 + 2 * coefficient * logsumexp) - [target], times the scale.
            more = _ONE + np.float32(2) * z_coefficient * logsumexps[t]
            factor = scale * more / total
            work[target] -= total / more
            for v in range(size):
                row[v] = _store(work[v] * factor, row[v])


def rms_norm(x_TW: Tensor, scale_W: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """RMSNorm: x / sqrt(mean(x^2) + epsilon) * scale, like x, and the inverse root, float32 [T].

    Args:
        x_TW: contiguous.
        scale_W: float32.
        epsilon: added to the mean.
    """
    y_TW, inverse_T = torch.empty_like(x_TW), torch.empty(len(x_TW))
    _in_threads(
        _rms_norm, len(x_TW), _numbers(x_TW), scale_W.numpy(), np.float32(epsilon), _numbers(y_TW),
        inverse_T.numpy(),
    )  # fmt: skip
    return y_TW, inverse_T


@_compiled
def _rms_norm(
    start: int,
    stop: int,
    xs: Array,
    scale: Array,
    epsilon: np.float32,
    ys: Array,
    inverses: Array,
) -> None:
    width = xs.shape[1]
    for t in range(start, stop):
        x, y = xs[t], ys[t]
        total = _ZERO
        for w in range(width):
            total += _load(x[w]) * _load(x[w])
        inverse = _ONE / np.sqrt(total / np.float32(width) + epsilon)
        inverses[t] = inverse
        for w in range(width):
            y[w] = _store(_load(x[w]) * inverse * scale[w], y[w])


PART = 64
"""Rows whose gradients of a norm's scale are added up in one go: a fixed order of the sums."""


def rms_norm_backward(
    grad_TW: Tensor, x_TW: Tensor, inverse_T: Tensor, scale_W: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of x, like x, and of the scale, float32 [W].

    Args:
        grad_TW: contiguous, like x.
        x_TW: as it was given.
        inverse_T: what :func:`rms_norm` returned.
        scale_W: as it was given.
    """
    parts = -(-len(x_TW) // PART)
    grad_x_TW, grad_scale = torch.empty_like(x_TW), torch.zeros(parts, x_TW.shape[1])
    _in_threads(
        _rms_norm_backward, parts, _numbers(grad_TW), _numbers(x_TW), inverse_T.numpy(),
        scale_W.numpy(), _numbers(grad_x_TW), grad_scale.numpy(),
    )  # fmt: skip
    return grad_x_TW, grad_scale.sum(0)


@_compiled
def _rms_norm_backward(
    start: int,
    stop: int,
    grads: Array,
    xs: Array,
    inverses: Array,
    scale: Array,
    grad_xs: Array,
    grad_scales: Array,
) -> None:
    width = xs.shape[1]
    for part in range(start, stop):
        of_scale = grad_scales[part]
        for t in range(part * PART, min((part + 1) * PART, len(xs))):
            x, grad, grad_x, inverse = xs[t], grads[t], grad_xs[t], inverses[t]
            inner = _ZERO
            for w in range(width):
                inner += _load(grad[w]) * scale[w] * _load(x[w])
            inner *= inverse * inverse / np.float32(width)
            for w in range(width):
                g, v = _load(grad[w]), _load(x[w])
                of_scale[w] += g * v * inverse
                grad_x[w] = _store((g * scale[w] - v * inner) * inverse, grad_x[w])


def geglu(gate_TW: Tensor, up_TW: Tensor) -> Tensor:
    """The approximate GELU of the gate, times ``up``, like them.

    Args:
        gate_TW: contiguous.
        up_TW: contiguous, of the same dtype.
    """
    y_TW = torch.empty_like(gate_TW)
    _in_threads(
        _geglu, len(gate_TW), _numbers(gate_TW), _numbers(up_TW), _numbers(y_TW)
    )  # fmt: skip
    return y_TW


@_compiled
def _geglu(start: int, stop: int, gates: Array, ups: Array, ys: Array) -> None:
    for t in range(start, stop):
        gate, up, y = gates[t], ups[t], ys[t]
        for w in range(len(gate)):
            x = _load(gate[w])
            y[w] = _store(x * _gelu_share(x) * _load(up[w]), y[w])


def geglu_backward(grad_TW: Tensor, gate_TW: Tensor, up_TW: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the gate and of ``up``, like them.

    Args:
        grad_TW: contiguous, like them.
        gate_TW: as it was given.
        up_TW: as it was given.
    """
    grad_gate_TW, grad_up_TW = torch.empty_like(gate_TW), torch.empty_like(up_TW)
    _in_threads(
        _geglu_backward, len(gate_TW), _numbers(grad_TW), _numbers(gate_TW), _numbers(up_TW),
        _numbers(grad_gate_TW), _numbers(grad_up_TW),
    )  # fmt: skip
    return grad_gate_TW, grad_up_TW


@_compiled
def _geglu_backward(
    start: int,
    stop: int,
    grads: Array,
    gates: Array,
    ups: Array,
    grad_gates: Array,
    grad_ups: Array,
) -> None:
    for t in range(start, stop):
        grad, gate, up, grad_gate, grad_up = grads[t], gates[t], ups[t], grad_gates[t], grad_ups[t]
        for w in range(len(gate)):
            x, g = _load(gate[w]), _load(grad[w])
            share = _gelu_share(x)
            inner = _GELU_SLOPE * (_ONE + np.float32(3) * _GELU_CUBE * x * x)
            slope = share + x * share * (_ONE - share) * inner
            grad_up[w] = _store(g * x * share, grad_up[w])
            grad_gate[w] = _store(g * _load(up[w]) * slope, grad_gate[w])


def fit(x: Tensor) -> bool:
    """Whether the kernels can read the tensor: it lies in a CPU's memory, and is no fake."""
    return x.is_cpu and not isinstance(x, FakeTensor)


def _numbers(x: Tensor) -> Array:
    """The tensor's memory as numpy's float32, or as uint16 where it is bfloat16."""
    x = x.detach()
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


def _in_threads(kernel: Callable[..., None], count: int, *arguments: Any) -> None:
    """Call ``kernel(start, stop, *arguments)`` for runs that together are 0 .. count."""
    threads = min(torch.get_num_threads(), count)
    if threads < 2:
        kernel(0, count, *arguments)
        return
    ends = [count * i // threads for i in range(threads + 1)]
    pool = _pool(threads, os.getpid())
    list(pool.map(lambda start, stop: kernel(start, stop, *arguments), ends, ends[1:]))


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Kept, for threads take long to start; but a fork has none."""
    return ThreadPoolExecutor(threads)


def _load(number: Any) -> Any:
    """A float32 from what an array holds."""


def _store(x: Any, like: Any) -> Any:
    """What an array of such numbers holds of a float32; bfloat16 is rounded to the nearest."""


@overload(_load, inline="always")
def _load_typed(number):  # type: ignore[no-untyped-def]
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << _SHIFT).view(np.float32)
    return lambda number: number


@overload(_store, inline="always")
def _store_typed(x, like):  # type: ignore[no-untyped-def]
    if like == types.uint16:
        return lambda x, like: _rounded(x)
    return lambda x, like: x


@_exact
def _rounded(x: np.float32) -> np.uint16:
    bits = np.float32(x).view(np.uint32)
    return np.uint16((bits + _ROUND + ((bits >> _SHIFT) & np.uint32(1))) >> _SHIFT)


@_exact
def _ordered(x: np.float32) -> np.int32:
    """An int32 that is ordered as float32 are, NaN above all: compilers make vectors of its max."""
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ np.int32((bits >> _SIGN) & _REST))


@_exact
def _unordered(bits: np.int32) -> np.float32:
    return np.int32(bits ^ np.int32((bits >> _SIGN) & _REST)).view(np.float32)


@_exact
def _exp(x: np.float32) -> np.float32:
    """The exponential of x <= 0 to some units in the last place; 0 where it is no normal number."""
    power = np.float32(np.floor(x * _LOG2_E + _HALF))
    x = (x - power * _LN2_HIGH) - power * _LN2_LOW
    y = _ONE + x * (_ONE + x * (_C2 + x * (_C3 + x * (_C4 + x * (_C5 + x * _C6)))))
    y = y * np.int32((np.int32(power) + _BIAS) << _MANTISSA).view(np.float32)
    return _ZERO if power < np.float32(-126) else y  # NaN stays


@_exact
def _gelu_share(x: np.float32) -> np.float32:
    """What the approximate GELU keeps of x: (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))."""
    u = _GELU_SLOPE * (x + _GELU_CUBE * x * x * x)
    small = _exp(-np.abs(u))
    return (_ONE if u > _ZERO else small) / (_ONE + small)
