"""Causal attention with T5's bucketed relative bias, masked to the document, with a cache.

A logit is q.k + bias[head, bucket(distance)], with no division by the root of the head width:
the initialisation of the query takes its place (praxis). A token attends to itself and to earlier
tokens of its own document. Packed rows give each position a document's number, in ``segments_BS``.

Shapes: B rows, S positions, K keys (the cache's and then the S new ones), N heads, D head width,
U buckets.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

BLOCK = 128
"""Queries of one block, the fastest of 64 to 512 on CPU."""


def relative_bucket(distance: Tensor, buckets: int, far: int) -> Tensor:
    """T5's bucket of a distance into the past: int64, of int64 distances >= 0.

    The first half of the buckets hold one distance each; the others are spaced by logarithm up to
    ``far``; from there on all share the last one.
    """
    exact = buckets // 2
    ratio = torch.log(distance.clamp_min(1).float() / exact) / math.log(far / exact)
    spaced = exact + (ratio * (buckets - exact)).to(torch.int64)
    return torch.where(distance < exact, distance, spaced.clamp_max(buckets - 1))


def bias_of_distance(table_NU: Tensor, keys: int, far: int) -> Tensor:
    """The bias of each head at distances 0 .. keys - 1: [N, U] to [N, keys].

    A product with a constant of ones and zeros: exact, and its gradient needs no atomics.
    """
    distance = torch.arange(keys, device=table_NU.device)
    bucket = relative_bucket(distance, table_NU.shape[1], far)
    one_hot_UK = torch.nn.functional.one_hot(bucket, table_NU.shape[1]).T.to(table_NU.dtype)
    return table_NU @ one_hot_UK


def attend(q_BNSD: Tensor, k_BNKD: Tensor, v_BNKD: Tensor, bias_NK: Tensor, mask: Tensor) -> Tensor:
    """softmax(q.k + bias) v for the last S of K positions: [B, N, S, D].

    Plain products, a block of queries at a time against the keys up to its end, which saves the
    work of the future. Faster on CPU than the fused kernel, which takes a slow path as soon as the
    bias is trained (512 positions, bfloat16: a quarter of its time), and a reference for CUDA.

    Args:
        q_BNSD: queries.
        k_BNKD: keys, of the same dtype.
        v_BNKD: values, of the same dtype.
        bias_NK: the bias by distance, from :func:`bias_of_distance`.
        mask: from :func:`attention_mask`.
    """
    end = k_BNKD.shape[2] - q_BNSD.shape[2]
    outputs = []
    for q_BNQD, mask_B1QK in zip(q_BNSD.split(BLOCK, 2), mask.split(BLOCK, 2), strict=True):
        queries = q_BNQD.shape[2]
        end += queries
        added_BNQK = toeplitz(bias_NK[:, :end], queries).to(q_BNQD.dtype) + mask_B1QK[..., :end]
        # [B, N, ...] as one dimension: a product that adds takes no more.
        q, k, v = (x.flatten(0, 1) for x in (q_BNQD, k_BNKD[:, :, :end], v_BNKD[:, :, :end]))
        logits = torch.baddbmm(added_BNQK.flatten(0, 1), q, k.transpose(-1, -2))
        outputs.append((logits.softmax(-1) @ v).view_as(q_BNQD))
    return torch.cat(outputs, 2)


def toeplitz(bias_NK: Tensor, positions: int) -> Tensor:
    """The bias by distance laid out for the last S of K positions: [N, S, K].

    Entry (s, k) is that of distance K - S + s - k; where k lies in the future it is 0.
    """
    N, K = bias_NK.shape
    # Windows of one line, distance K - 1 first and then zeros for the future.
    line_NL = torch.cat([bias_NK.flip(-1), bias_NK.new_zeros(N, positions - 1)], -1)
    return line_NL.unfold(-1, K, 1).flip(1)


def attention_mask(segments_BS: Tensor, segments_BK: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to the logits of the last S of K positions: [B, 1, S, K].

    Minus infinity for the future and for other documents, else 0: a masked weight is exactly 0.
    """
    S, K = segments_BS.shape[1], segments_BK.shape[1]
    position_K = torch.arange(K, device=segments_BK.device)
    future_SK = position_K > position_K[K - S :, None]
    other_BSK = segments_BS[:, :, None] != segments_BK[:, None, :]
    zeros_BSK = torch.zeros(other_BSK.shape, dtype=dtype, device=other_BSK.device)
    return zeros_BSK.masked_fill_(future_SK | other_BSK, -math.inf)[:, None]


def flex_mask(segments_BS: Tensor, segments_BK: Tensor) -> BlockMask:
    """What :func:`attention_mask` says, in FlexAttention's form."""
    past = segments_BK.shape[1] - segments_BS.shape[1]

    def visible(b: Tensor, n: Tensor, s: Tensor, k: Tensor) -> Tensor:
        return (k <= s + past) & (segments_BS[b, s] == segments_BK[b, k])

    B, S = segments_BS.shape
    return create_block_mask(visible, B, None, S, S + past, device=segments_BS.device)


def attend_flex(
    q_BNSD: Tensor, k_BNKD: Tensor, v_BNKD: Tensor, bias_NK: Tensor, mask: BlockMask
) -> Tensor:
    """What :func:`attend` computes, by FlexAttention, without the logits ever in memory.

    For CUDA: on CPU torch has no backward for it, and nothing is compiled there.
    """
    past = k_BNKD.shape[2] - q_BNSD.shape[2]

    def with_bias(logit: Tensor, b: Tensor, n: Tensor, s: Tensor, k: Tensor) -> Tensor:
        return logit + bias_NK[n, (s + past - k).clamp_min(0)]

    compute = _compiled_flex() if q_BNSD.is_cuda else flex_attention
    return compute(q_BNSD, k_BNKD, v_BNKD, score_mod=with_bias, block_mask=mask, scale=1.0)


@functools.cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention)


@dataclass
class Cache:
    """Keys and values of the positions seen so far, for generation, one pair per layer.

    Rows of unlike length are padded on the left, with a segment of its own for the padding: only
    distances matter, so the padding moves nothing.
    """

    keys: list[Tensor | None]
    values: list[Tensor | None]
    segments_BK: Tensor | None = None

    @classmethod
    def empty(cls, layers: int) -> "Cache":
        """A cache that has seen nothing."""
        return cls([None] * layers, [None] * layers)

    def extend(self, layer: int, k_BNSD: Tensor, v_BNSD: Tensor) -> tuple[Tensor, Tensor]:
        """Appends a layer's new keys and values and returns all of them, [B, N, K, D] each."""
        old_k, old_v = self.keys[layer], self.values[layer]
        if old_k is not None and old_v is not None:
            k_BNSD, v_BNSD = torch.cat([old_k, k_BNSD], 2), torch.cat([old_v, v_BNSD], 2)
        self.keys[layer], self.values[layer] = k_BNSD, v_BNSD
        return k_BNSD, v_BNSD

    def extend_segments(self, segments_BS: Tensor) -> Tensor:
        """Appends the new positions' segments and returns all of them, [B, K]."""
        if self.segments_BK is not None:
            segments_BS = torch.cat([self.segments_BK, segments_BS], 1)
        self.segments_BK = segments_BS
        return segments_BS
