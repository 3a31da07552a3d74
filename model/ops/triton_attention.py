"""Causal attention with a relative bias, by Triton kernels for GPUs, forward and backward.

The bias of far distances is 0 (:func:`model.glam.attention.attend_triton`), so only tiles with near
distances read the bias or add to its gradient; keys before a tile's first document are skipped.
Logits and softmax are float32 and never in memory. Without atomics the results are deterministic:
each tile stores its part of the bias's gradient, and torch sums the parts.

Tests run the kernels on a CPU, by ``TRITON_INTERPRET=1``. The forward pass is FlashAttention-2's
(Dao 2023, arXiv 2307.08691), as is the backward pass but for the bias.

Shapes: B rows, S queries (the last positions), K keys, N heads, D head width, F near distances (a
power of two), T tiles of queries. In kernels ``i`` are queries, ``at`` their positions, ``j`` keys.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

HEAD_WIDTHS = (16, 32, 64, 128)
MOST_NEAR = 256
"""The maximum number of near distances."""

LOG2E = tl.constexpr(1.4426950408889634)


class Tiles(NamedTuple):
    """The queries and keys of a tile, its warps, and the stages of its pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


class Plan(NamedTuple):
    """The tiles of each kernel: forward, gradient of queries, gradient of keys and values."""

    forward: Tiles
    of_queries: Tiles
    of_keys: Tiles


def plan(width: int, dtype: torch.dtype) -> Plan:
    """The tiles for a head width; fixed, since other sizes would round differently."""
    if dtype == torch.float32:
        return Plan(*[Tiles(32, 32, 4, 2)] * 3)
    warps = 8 if width == 128 else 4
    return Plan(Tiles(128, 64, 8, 2), Tiles(64, 64, 8, 2), Tiles(64, 64, warps, 2))


def attend(
    q_BNSD: Tensor,
    k_BNKD: Tensor,
    v_BNKD: Tensor,
    near_NF: Tensor,
    first_BS: Tensor,
    last_BK: Tensor,
) -> Tensor:
    """softmax(q.k + bias) v for the last S of K positions: [B, N, S, D], strided as q.

    Queries, keys and values are all bfloat16 or all float32. ``near_NF`` (float32) is the bias of
    distances 0 .. F - 1, and 0 at all others. ``first_BS`` (int32) is the first key that each query
    sees, the last being its own; ``last_BK`` (int32) is the last position that sees a key. Raises
    ValueError for an unsupported head width or number of near distances.
    """
    if q_BNSD.shape[-1] not in HEAD_WIDTHS:
        raise ValueError(
            f"train.attention=triton: heads of {q_BNSD.shape[-1]} are none of"
            f" {', '.join(map(str, HEAD_WIDTHS))}: take train.attention=flex or plain"
        )
    if near_NF.shape[1] > MOST_NEAR:
        raise ValueError(
            f"train.attention=triton: model.bias_distance={near_NF.shape[1]} is more than"
            f" {MOST_NEAR}: take train.attention=flex or plain"
        )
    size = max(16, triton.next_power_of_2(near_NF.shape[1]))
    near_NF = F.pad(near_NF, (0, size - near_NF.shape[1]))
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_BNSD, k_BNKD, v_BNKD))
    y_BNSD, _ = _attention(q, k, v, near_NF, first_BS, last_BK)
    return y_BNSD


# Custom operators, so that torch.compile calls them without tracing into them.


@torch.library.custom_op("winnow::attention", mutates_args=())
def _attention(
    q: Tensor, k: Tensor, v: Tensor, near_NF: Tensor, first_BS: Tensor, last_BK: Tensor
) -> tuple[Tensor, Tensor]:
    """The values, and the logarithm (of base 2) of each softmax's denominator: [B, N, S]."""
    B, N, S, D = q.shape
    tiles = plan(D, q.dtype).forward
    y, log_BNS = torch.empty_like(q), q.new_empty((B, N, S), dtype=torch.float32)
    _forward[(triton.cdiv(S, tiles.queries), B * N)](
        *(q, k, v, near_NF.contiguous(), first_BS, y, log_BNS),
        *(*_strides(q), *_strides(k), *_strides(v), *_strides(y)),
        *(N, S, k.shape[2]),
        **_constants(D, near_NF, tiles),
    )
    return y, log_BNS


@_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, near_NF: Tensor, first_BS: Tensor, last_BK: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("winnow::attention_backward", mutates_args=())
def _attention_backward(
    q: Tensor, k: Tensor, v: Tensor, near_NF: Tensor, first_BS: Tensor, last_BK: Tensor, y: Tensor,
    log_BNS: Tensor, grad_y: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of q, k, v and the near biases."""
    B, N, S, D = q.shape
    K = k.shape[2]
    of_queries, of_keys = plan(D, q.dtype)[1:]
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    grad_q, grad_k, grad_v = grads
    inner_BNS = torch.empty_like(log_BNS)
    tiles = triton.cdiv(S, of_queries.queries)
    parts_BNTF = q.new_empty((B, N, tiles, near_NF.shape[1]), dtype=torch.float32)
    near_NF = near_NF.contiguous()
    strides = (*_strides(q), *_strides(k), *_strides(v))
    _gradient_of_queries[(tiles, B * N)](
        *(q, k, v, near_NF, first_BS, y, log_BNS, grad_y, grad_q, inner_BNS, parts_BNTF),
        *(*strides, *_strides(y), *_strides(grad_y), *_strides(grad_q)),
        *(N, S, K),
        **_constants(D, near_NF, of_queries),
    )
    _gradient_of_keys[(triton.cdiv(K, of_keys.keys), B * N)](
        *(q, k, v, near_NF, last_BK, log_BNS, inner_BNS, grad_y, grad_k, grad_v),
        *(*strides, *_strides(grad_y), *_strides(grad_k), *_strides(grad_v)),
        *(N, S, K),
        **_constants(D, near_NF, of_keys),
    )
    return grad_q, grad_k, grad_v, parts_BNTF.sum((0, 2))


@_attention_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, near_NF: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), near_NF.contiguous()


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_y: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grad_y = grad_y if grad_y.stride(-1) == 1 else grad_y.contiguous()
    return (*_attention_backward(*ctx.saved_tensors, grad_y), None, None)


_attention.register_autograd(_backward, setup_context=_keep)


def _strides(x: Tensor) -> tuple[int, ...]:
    """The strides of rows, heads and positions; that of the head width is 1."""
    return x.stride()[:3]


def _constants(D: int, near_NF: Tensor, tiles: Tiles) -> dict[str, Any]:
    return {
        "D": D,
        "NEAR": near_NF.shape[1],
        "QUERIES": tiles.queries,
        "KEYS": tiles.keys,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, near_ptr, first_ptr, y_ptr, log_ptr,
    q_b, q_n, q_s, k_b, k_n, k_s, v_b, v_n, v_s, y_b, y_n, y_s,
    N, S, K,
    D: tl.constexpr, NEAR: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One tile of queries. Later ones, which may see more keys, come first."""
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * QUERIES
    head = tl.program_id(1).to(tl.int64)
    b, n = head // N, head % N
    past = K - S
    i = start + tl.arange(0, QUERIES)
    at = past + i
    d = tl.arange(0, D)
    within = i[:, None] < S
    first = tl.load(first_ptr + b * S + i, mask=i < S, other=K)
    q = tl.load(q_ptr + b * q_b + n * q_n + i[:, None] * q_s + d, mask=within, other=0.0)
    y = tl.full([QUERIES, D], 0.0, tl.float32)
    top = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.full([QUERIES], 0.0, tl.float32)
    begin = tl.min(first) // KEYS * KEYS
    near_begin = tl.maximum(tl.maximum(past + start - NEAR + 1, 0) // KEYS * KEYS, begin)
    end = tl.minimum(past + start + QUERIES, K)
    for near in tl.static_range(2):
        for key in range(near_begin if near else begin, end if near else near_begin, KEYS):
            j = key + tl.arange(0, KEYS)
            there = j < K
            k = tl.load(
                k_ptr + b * k_b + n * k_n + j * k_s + d[:, None], mask=there[None, :], other=0.0
            )
            v = tl.load(
                v_ptr + b * v_b + n * v_n + j[:, None] * v_s + d, mask=there[:, None], other=0.0
            )
            logit = tl.dot(q, k, input_precision="ieee") * LOG2E
            seen = j >= first[:, None]
            if near:
                away = at[:, None] - j
                has_bias = (away >= 0) & (away < NEAR)
                logit += LOG2E * tl.load(near_ptr + n * NEAR + away, mask=has_bias, other=0.0)
                seen = seen & (away >= 0)
            logit = tl.where(seen, logit, float("-inf"))
            new_top = tl.maximum(top, tl.max(logit, 1))
            base = tl.where(new_top == float("-inf"), 0.0, new_top)
            weight = tl.exp2(logit - base[:, None])
            shrink = tl.exp2(top - base)
            total = total * shrink + tl.sum(weight, 1)
            y = y * shrink[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
            top = new_top
    y = y / total[:, None]
    y_at = y_ptr + b * y_b + n * y_n + i[:, None] * y_s + d
    tl.store(y_at, y.to(q.dtype), mask=within)
    tl.store(log_ptr + head * S + i, top + tl.log2(total), mask=i < S)


@triton.jit
def _gradient_of_queries(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, near_ptr, first_ptr, y_ptr, log_ptr, grad_ptr, grad_q_ptr, inner_ptr,
    parts_ptr,
    q_b, q_n, q_s, k_b, k_n, k_s, v_b, v_n, v_s, y_b, y_n, y_s, g_b, g_n, g_s, gq_b, gq_n, gq_s,
    N, S, K,
    D: tl.constexpr, NEAR: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One tile of queries; it also stores y.grad_y, and its part of the bias's gradient."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    start = tile * QUERIES
    head = tl.program_id(1).to(tl.int64)
    b, n = head // N, head % N
    past = K - S
    i = start + tl.arange(0, QUERIES)
    at = past + i
    d = tl.arange(0, D)
    within = i[:, None] < S
    first = tl.load(first_ptr + b * S + i, mask=i < S, other=K)
    log = tl.load(log_ptr + head * S + i, mask=i < S, other=0.0)
    q = tl.load(q_ptr + b * q_b + n * q_n + i[:, None] * q_s + d, mask=within, other=0.0)
    y = tl.load(y_ptr + b * y_b + n * y_n + i[:, None] * y_s + d, mask=within, other=0.0)
    grad = tl.load(grad_ptr + b * g_b + n * g_n + i[:, None] * g_s + d, mask=within, other=0.0)
    inner = tl.sum(y.to(tl.float32) * grad.to(tl.float32), 1)
    tl.store(inner_ptr + head * S + i, inner, mask=i < S)
    grad_q = tl.full([QUERIES, D], 0.0, tl.float32)
    away_of = tl.arange(0, NEAR)
    part = tl.full([NEAR], 0.0, tl.float32)
    begin = tl.min(first) // KEYS * KEYS
    near_begin = tl.maximum(tl.maximum(past + start - NEAR + 1, 0) // KEYS * KEYS, begin)
    end = tl.minimum(past + start + QUERIES, K)
    for near in tl.static_range(2):
        for key in range(near_begin if near else begin, end if near else near_begin, KEYS):
            j = key + tl.arange(0, KEYS)
            there = j < K
            k = tl.load(
                k_ptr + b * k_b + n * k_n + j[:, None] * k_s + d, mask=there[:, None], other=0.0
            )
            v = tl.load(
                v_ptr + b * v_b + n * v_n + j * v_s + d[:, None], mask=there[None, :], other=0.0
            )
            logit = tl.dot(q, tl.trans(k), input_precision="ieee") * LOG2E
            seen = j >= first[:, None]
            if near:
                away = at[:, None] - j
                has_bias = (away >= 0) & (away < NEAR)
                logit += LOG2E * tl.load(near_ptr + n * NEAR + away, mask=has_bias, other=0.0)
                seen = seen & (away >= 0)
            weight = tl.where(seen, tl.exp2(logit - log[:, None]), 0.0)
            grad_weight = tl.dot(grad, v, input_precision="ieee")
            grad_logit = weight * (grad_weight - inner[:, None])
            grad_q += tl.dot(grad_logit.to(k.dtype), k, input_precision="ieee")
            if near:
                # A row's numbers by their distance; then the sum of each distance's.
                column = at[:, None] - key - away_of
                inside = (column >= 0) & (column < KEYS)
                by_distance = tl.gather(grad_logit, tl.where(inside, column, 0), 1)
                part += tl.sum(tl.where(inside, by_distance, 0.0), 0)
    grad_q_at = grad_q_ptr + b * gq_b + n * gq_n + i[:, None] * gq_s + d
    tl.store(grad_q_at, grad_q.to(q.dtype), mask=within)
    tl.store(parts_ptr + (head * tl.num_programs(0) + tile) * NEAR + away_of, part)


@triton.jit
def _gradient_of_keys(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, near_ptr, last_ptr, log_ptr, inner_ptr, grad_ptr, grad_k_ptr, grad_v_ptr,
    q_b, q_n, q_s, k_b, k_n, k_s, v_b, v_n, v_s, g_b, g_n, g_s, gk_b, gk_n, gk_s, gv_b, gv_n, gv_s,
    N, S, K,
    D: tl.constexpr, NEAR: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One tile of keys and their values; its logits are transposed."""
    key = tl.program_id(0) * KEYS
    head = tl.program_id(1).to(tl.int64)
    b, n = head // N, head % N
    past = K - S
    j = key + tl.arange(0, KEYS)
    d = tl.arange(0, D)
    there = j[:, None] < K
    last = tl.load(last_ptr + b * K + j, mask=j < K, other=-1)
    k = tl.load(k_ptr + b * k_b + n * k_n + j[:, None] * k_s + d, mask=there, other=0.0)
    v = tl.load(v_ptr + b * v_b + n * v_n + j[:, None] * v_s + d, mask=there, other=0.0)
    grad_k = tl.full([KEYS, D], 0.0, tl.float32)
    grad_v = tl.full([KEYS, D], 0.0, tl.float32)
    begin = tl.maximum(key - past, 0) // QUERIES * QUERIES
    end = tl.minimum(tl.max(last) + 1 - past, S)
    # From here on each query is far from all of these keys.
    far_begin = tl.maximum(key + KEYS - 1 + NEAR - past, 0)
    far_begin = (far_begin + QUERIES - 1) // QUERIES * QUERIES
    near_end = tl.minimum(far_begin, end)
    for far in tl.static_range(2):
        for start in range(far_begin if far else begin, end if far else near_end, QUERIES):
            i = start + tl.arange(0, QUERIES)
            at = past + i
            within = i < S
            q = tl.load(
                q_ptr + b * q_b + n * q_n + i * q_s + d[:, None], mask=within[None, :], other=0.0
            )
            grad = tl.load(
                grad_ptr + b * g_b + n * g_n + i[:, None] * g_s + d, mask=within[:, None], other=0.0
            )
            log = tl.load(log_ptr + head * S + i, mask=within, other=0.0)
            inner = tl.load(inner_ptr + head * S + i, mask=within, other=0.0)
            logit = tl.dot(k, q, input_precision="ieee") * LOG2E
            seen = at <= last[:, None]
            if not far:
                away = at - j[:, None]
                has_bias = (away >= 0) & (away < NEAR)
                logit += LOG2E * tl.load(near_ptr + n * NEAR + away, mask=has_bias, other=0.0)
                seen = seen & (away >= 0)
            weight = tl.where(seen, tl.exp2(logit - log), 0.0)
            grad_v += tl.dot(weight.to(grad.dtype), grad, input_precision="ieee")
            grad_weight = tl.dot(v, tl.trans(grad), input_precision="ieee")
            grad_logit = weight * (grad_weight - inner)
            grad_k += tl.dot(grad_logit.to(q.dtype), tl.trans(q), input_precision="ieee")
    grad_k_at = grad_k_ptr + b * gk_b + n * gk_n + j[:, None] * gk_s + d
    grad_v_at = grad_v_ptr + b * gv_b + n * gv_n + j[:, None] * gv_s + d
    tl.store(grad_k_at, grad_k.to(k.dtype), mask=there)
    tl.store(grad_v_at, grad_v.to(v.dtype), mask=there)
