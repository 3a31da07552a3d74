"""Causal attention with T5's bucketed relative bias, masked to the document, with a cache.

A logit is q.k + bias[head, bucket(distance)]; the query's initialisation replaces the division by
the root of the head width (praxis). A token attends to itself and to earlier tokens of its
document; ``segments_BS`` numbers the documents in packed rows.

Shapes: B rows, S positions, K keys (cached, then the S new ones), N heads, D head width, P = B * N,
Q queries of a block, U buckets.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from model.glam.config import AttentionBackend
from model.ops import cpu_kernels

BLOCK = 128
"""Queries per block: the fastest size from 64 to 512 on a CPU."""


def relative_bucket(distance: Tensor, buckets: int, far: int) -> Tensor:
    """T5's buckets, int64, of int64 distances >= 0 into the past.

    The first half of the buckets hold one distance each, the others are spaced logarithmically up
    to ``far``; all larger distances share the last one.
    """
    exact = buckets // 2
    ratio = torch.log(distance.clamp_min(1).float() / exact) / math.log(far / exact)
    spaced = exact + (ratio * (buckets - exact)).to(torch.int64)
    return torch.where(distance < exact, distance, spaced.clamp_max(buckets - 1))


def bias_of_distance(table_NU: Tensor, keys: int, far: int) -> Tensor:
    """The bias of each head at distances 0 .. keys - 1: [N, U] to [N, keys].

    A product with a one-hot matrix: exact, and its gradient needs no atomics.
    """
    distance = torch.arange(keys, device=table_NU.device)
    bucket = relative_bucket(distance, table_NU.shape[1], far)
    one_hot_UK = F.one_hot(bucket, table_NU.shape[1]).T.to(table_NU.dtype)
    return table_NU @ one_hot_UK


class Segments(NamedTuple):
    """The documents of the last S positions and of all K keys: int32, [B, S] and [B, K]."""

    of_queries: Tensor
    of_keys: Tensor


class Runs(NamedTuple):
    """Documents as runs of positions, for the kernels of :mod:`model.ops.triton_attention`.

    ``first_BS`` is the first key of each query's document, ``last_BK`` the last position of each
    key's: int32, [B, S] and [B, K]. Distances from ``far`` on share one bias.
    """

    first_BS: Tensor
    last_BK: Tensor
    far: int


Mask = Segments | Tensor | BlockMask | Runs
"""Which keys each query sees. The type of the mask selects the attention implementation."""


def attention_mask(
    segments_BS: Tensor,
    segments_BK: Tensor,
    dtype: torch.dtype,
    far: int,
    backend: AttentionBackend = AttentionBackend.plain,
) -> Mask:
    """A backend's mask for queries, keys and values of this dtype.

    ``segments_BS`` and ``segments_BK`` (int32) are the documents of the last S and of all K
    positions. Distances from ``far`` on share the last bucket.
    """
    if backend == AttentionBackend.flex:
        return flex_mask(segments_BS, segments_BK)
    if backend == AttentionBackend.triton:
        return document_runs(segments_BS, segments_BK, far)
    if cpu_kernels.can_read(segments_BK):
        return Segments(segments_BS, segments_BK)
    return additive_mask(segments_BS, segments_BK, dtype)


def attend(q_BNSD: Tensor, k_BNKD: Tensor, v_BNKD: Tensor, bias_NK: Tensor, mask: Mask) -> Tensor:
    """softmax(q.k + bias) v for the last S of K positions: [B, N, S, D].

    Queries, keys and values share a dtype. ``bias_NK`` is float32, from :func:`bias_of_distance`,
    the mask from :func:`attention_mask`.
    """
    if isinstance(mask, Segments):
        return attend_cpu(q_BNSD, k_BNKD, v_BNKD, bias_NK, mask)
    if isinstance(mask, Tensor):
        return attend_plainly(q_BNSD, k_BNKD, v_BNKD, bias_NK, mask)
    if isinstance(mask, Runs):
        return attend_triton(q_BNSD, k_BNKD, v_BNKD, bias_NK, mask)
    return attend_flex(q_BNSD, k_BNKD, v_BNKD, bias_NK, mask)


def attend_cpu(
    q_BNSD: Tensor, k_BNKD: Tensor, v_BNKD: Tensor, bias_NK: Tensor, segments: Segments
) -> Tensor:
    """:func:`attend` on a CPU: matrix products with a compiled softmax between them.

    torch's fused kernel falls back to a slow path once the bias requires a gradient.
    """
    y_PSD = _AttendCPU.apply(
        *(x.flatten(0, 1).contiguous() for x in (q_BNSD, k_BNKD, v_BNKD)),
        bias_NK.flip(-1),
        *segments,
    )
    return y_PSD.view_as(q_BNSD)


class _AttendCPU(torch.autograd.Function):
    """Attention of P = B * N heads; the bias is ordered from the farthest distance."""

    @staticmethod
    def forward(
        ctx: Any, q_PSD: Tensor, k_PKD: Tensor, v_PKD: Tensor, line_NK: Tensor,
        of_queries_BS: Tensor, of_keys_BK: Tensor,
    ) -> Tensor:  # fmt: skip
        y_PSD = torch.empty_like(q_PSD)
        kept = []
        for start, stop, end in _blocks(q_PSD, k_PKD):
            weights_PQK = torch.bmm(q_PSD[:, start:stop], k_PKD[:, :end].transpose(1, 2))
            cpu_kernels.biased_softmax_(
                weights_PQK,
                line_NK[:, -end:].contiguous(),
                of_queries_BS[:, start:stop].contiguous(),
                of_keys_BK[:, :end].contiguous(),
            )
            y_PSD[:, start:stop] = torch.bmm(weights_PQK, v_PKD[:, :end])
            kept += [weights_PQK] if any(ctx.needs_input_grad) else []
        ctx.save_for_backward(q_PSD, k_PKD, v_PKD, *kept)
        ctx.rows = len(of_keys_BK)
        return y_PSD

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q_PSD, k_PKD, v_PKD, *kept = ctx.saved_tensors
        grad_y_PSD = grads[0].contiguous()
        grad_q_PSD = torch.empty_like(q_PSD)
        grad_k_PKD, grad_v_PKD = torch.zeros_like(k_PKD), torch.zeros_like(v_PKD)
        grad_line_PK = torch.zeros(k_PKD.shape[:2])
        for (start, stop, end), weights_PQK in zip(_blocks(q_PSD, k_PKD), kept, strict=True):
            grad_y_PQD = grad_y_PSD[:, start:stop]
            grad_v_PKD[:, :end] += torch.bmm(weights_PQK.transpose(1, 2), grad_y_PQD)
            grad_PQK = torch.bmm(grad_y_PQD, v_PKD[:, :end].transpose(1, 2))
            cpu_kernels.biased_softmax_backward_(weights_PQK, grad_PQK, grad_line_PK)
            grad_q_PSD[:, start:stop] = torch.bmm(grad_PQK, k_PKD[:, :end])
            grad_k_PKD[:, :end] += torch.bmm(grad_PQK.transpose(1, 2), q_PSD[:, start:stop])
        grad_line_NK = grad_line_PK.unflatten(0, (ctx.rows, -1)).sum(0)
        return grad_q_PSD, grad_k_PKD, grad_v_PKD, grad_line_NK, None, None


def _blocks(q_SD: Tensor, k_KD: Tensor) -> Iterator[tuple[int, int, int]]:
    """The start and stop of each block of queries, and the end of its visible keys."""
    queries = q_SD.shape[-2]
    past = k_KD.shape[-2] - queries
    for start in range(0, queries, BLOCK):
        stop = min(start + BLOCK, queries)
        yield start, stop, past + stop


def attend_plainly(
    q_BNSD: Tensor, k_BNKD: Tensor, v_BNKD: Tensor, bias_NK: Tensor, mask: Tensor
) -> Tensor:
    """:func:`attend` in plain torch operations, with a mask of :func:`additive_mask`."""
    outputs = []
    for start, stop, end in _blocks(q_BNSD, k_BNKD):
        added_BNQK = toeplitz(bias_NK[:, :end], stop - start).to(q_BNSD.dtype)
        added_BNQK = added_BNQK + mask[:, :, start:stop, :end]
        logits_BNQK = q_BNSD[:, :, start:stop] @ k_BNKD[:, :, :end].transpose(-1, -2) + added_BNQK
        outputs.append(logits_BNQK.softmax(-1) @ v_BNKD[:, :, :end])
    return torch.cat(outputs, 2)


def toeplitz(bias_NK: Tensor, positions: int) -> Tensor:
    """The bias as a matrix for the last S of K positions, [N, S, K], 0 where k is in the future.

    Entry (s, k) has distance K - S + s - k.
    """
    N, K = bias_NK.shape
    # Each row is a window of one line, from distance K - 1 down to the future's zeros.
    line_NL = torch.cat([bias_NK.flip(-1), bias_NK.new_zeros(N, positions - 1)], -1)
    return line_NL.unfold(-1, K, 1).flip(1)


def additive_mask(segments_BS: Tensor, segments_BK: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive mask for the last S of K positions: [B, 1, S, K].

    Minus infinity for the future and other documents, else 0. Masked weights are exactly 0.
    """
    S, K = segments_BS.shape[1], segments_BK.shape[1]
    position_K = torch.arange(K, device=segments_BK.device)
    future_SK = position_K > position_K[K - S :, None]
    other_BSK = segments_BS[:, :, None] != segments_BK[:, None, :]
    zeros_BSK = torch.zeros(other_BSK.shape, dtype=dtype, device=other_BSK.device)
    return zeros_BSK.masked_fill_(future_SK | other_BSK, -math.inf)[:, None]


def flex_mask(segments_BS: Tensor, segments_BK: Tensor) -> BlockMask:
    """:func:`additive_mask` as a block mask of FlexAttention."""
    past = segments_BK.shape[1] - segments_BS.shape[1]

    def visible(b: Tensor, n: Tensor, s: Tensor, k: Tensor) -> Tensor:
        return (k <= s + past) & (segments_BS[b, s] == segments_BK[b, k])

    B, S = segments_BS.shape
    return create_block_mask(visible, B, None, S, S + past, device=segments_BS.device)


def attend_flex(
    q_BNSD: Tensor, k_BNKD: Tensor, v_BNKD: Tensor, bias_NK: Tensor, mask: BlockMask
) -> Tensor:
    """:func:`attend` by FlexAttention, which never materialises the logits.

    For CUDA: on a CPU it is not compiled and has no backward pass.
    """
    past = k_BNKD.shape[2] - q_BNSD.shape[2]

    def with_bias(logit: Tensor, b: Tensor, n: Tensor, s: Tensor, k: Tensor) -> Tensor:
        return logit + bias_NK[n, (s + past - k).clamp_min(0)]

    compute = _compiled_flex() if q_BNSD.is_cuda else flex_attention
    return compute(q_BNSD, k_BNKD, v_BNKD, score_mod=with_bias, block_mask=mask, scale=1.0)


@functools.cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention)


def document_runs(segments_BS: Tensor, segments_BK: Tensor, far: int) -> Runs:
    """:func:`additive_mask` as runs of equal document numbers.

    Padding on both sides of a row counts as two documents here, as one there; no token sees it.
    """
    S, K = segments_BS.shape[1], segments_BK.shape[1]
    position_K = torch.arange(K, device=segments_BK.device)
    changes_BK = segments_BK[:, 1:] != segments_BK[:, :-1]
    begins_BK = F.pad(changes_BK, (1, 0), value=True)
    ends_BK = F.pad(changes_BK, (0, 1), value=True)
    first_BK = torch.where(begins_BK, position_K, 0).cummax(1).values
    last_BK = torch.where(ends_BK, position_K, K).flip(1).cummin(1).values.flip(1)
    return Runs(first_BK[:, K - S :].int().contiguous(), last_BK.int().contiguous(), far)


def attend_triton(
    q_BNSD: Tensor, k_BNKD: Tensor, v_BNKD: Tensor, bias_NK: Tensor, runs: Runs
) -> Tensor:
    """:func:`attend` by our Triton kernels, whose gradients are deterministic.

    Softmax is invariant to a constant, so the bias of far distances is subtracted from all; its
    gradient is minus the sum of the others'. Raises ValueError for unsupported heads or distances.
    """
    from model.ops import triton_attention  # triton is optional

    near_NF = bias_NK[:, : runs.far]
    if bias_NK.shape[1] > runs.far:
        near_NF = near_NF - bias_NK[:, runs.far :][:, :1]
    return triton_attention.attend(q_BNSD, k_BNKD, v_BNKD, near_NF, runs.first_BS, runs.last_BK)


@dataclass
class Cache:
    """Each layer's keys and values of the positions so far, for generation.

    Rows of different lengths are padded on the left with a separate segment. This changes nothing,
    as only distances matter.
    """

    keys: list[Tensor | None]
    values: list[Tensor | None]
    segments_BK: Tensor | None = None

    @classmethod
    def empty(cls, layers: int) -> "Cache":
        return cls([None] * layers, [None] * layers)

    def extend(self, layer: int, k_BNSD: Tensor, v_BNSD: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's new keys and values; return all, [B, N, K, D] each."""
        old_k, old_v = self.keys[layer], self.values[layer]
        if old_k is not None and old_v is not None:
            k_BNSD, v_BNSD = torch.cat([old_k, k_BNSD], 2), torch.cat([old_v, v_BNSD], 2)
        self.keys[layer], self.values[layer] = k_BNSD, v_BNSD
        return k_BNSD, v_BNSD

    def extend_segments(self, segments_BS: Tensor) -> Tensor:
        """Append the segments of new positions; return all, [B, K]."""
        if self.segments_BK is not None:
            segments_BS = torch.cat([self.segments_BK, segments_BS], 1)
        self.segments_BK = segments_BS
        return segments_BS
