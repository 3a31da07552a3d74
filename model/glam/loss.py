"""Cross-entropy over the vocabulary, a chunk of tokens at a time.

All logits at once would be the largest array of a small model's step. Instead each chunk is reduced
in float32 to its loss and, if needed, to the gradients of hidden states and embedding. Unlike with
activation checkpointing, nothing is computed twice.

``torch.nn.functional.linear_cross_entropy`` is off by some percent in bfloat16 (torch 2.13; a test
shows it).

Shapes: T tokens, M width, V vocabulary.
"""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.ops import cpu_kernels

IGNORE = -100
"""The target of positions without loss, such as padding, as in torch and transformers."""

CHUNK_LOGITS = 1 << 22
"""Logits per chunk on a CPU, 16 MiB in float32: about the fastest of 2^19 to 2^24."""
CHUNK_LOGITS_CUDA, CHUNK_TOKENS_CUDA = 1 << 28, 1 << 11
"""Logits per chunk on CUDA, 512 MiB in bfloat16, and the minimum of tokens. Each chunk after the
first adds [V, M] to the embedding's gradient, 12 bytes a weight beside 6 operations a token: at 800
TFLOP/s and 3.3 TB/s a quarter more time with chunks of 2048 tokens, and none with one chunk."""


class VocabularyLoss(NamedTuple):
    """Float32 scalars. Only ``objective``, cross-entropy + coefficient * z, has a gradient."""

    objective: Tensor
    cross_entropy: Tensor
    z_loss: Tensor


def vocabulary_loss(
    hidden_TM: Tensor,
    embedding_VM: Tensor,
    targets_T: Tensor,
    *,
    scale: float,
    denominator: float,
    z_coefficient: float = 0.0,
    chunk_logits: int | None = None,
) -> VocabularyLoss:
    """Cross-entropy of ``scale * hidden @ embedding.T``, and the z-loss, logsumexp squared.

    Both are sums over the tokens whose target (int64) is not :data:`IGNORE`, divided by
    ``denominator``. ``hidden_TM`` is float32 or bfloat16, the dtype of the products; the embedding
    has that dtype or float32, all else is float32. ``chunk_logits`` is the number of logits in
    memory at a time, None for the device's default.
    """
    tokens = chunk_tokens(embedding_VM, chunk_logits)
    sums = _VocabularyLoss.apply(hidden_TM, embedding_VM, targets_T, scale, z_coefficient, tokens)
    return VocabularyLoss(*(total / denominator for total in sums))


def chunk_tokens(embedding_VM: Tensor, chunk_logits: int | None = None) -> int:
    """Tokens per chunk; arguments as in :func:`vocabulary_loss`."""
    least = 1
    if chunk_logits is None and embedding_VM.is_cuda:
        chunk_logits, least = CHUNK_LOGITS_CUDA, CHUNK_TOKENS_CUDA
    return max(least, (chunk_logits or CHUNK_LOGITS) // len(embedding_VM))


def cross_entropy_(
    logits_TV: Tensor, targets_T: Tensor, scale: float, z_coefficient: float, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """:func:`model.ops.cpu_kernels.cross_entropy_` in torch operations, compiled on CUDA."""
    reduce, gradient_ = _compiled() if logits_TV.is_cuda else (row_sums, to_gradient_)
    counts_T1 = (targets_T != IGNORE)[:, None].float()
    target_T1 = targets_T.clamp_min(0)[:, None]
    picked_T1 = logits_TV.gather(-1, target_T1).float() * scale
    top_T1, total_T1 = reduce(logits_TV, scale)
    log_total_T1 = total_T1.log()
    logsumexp_T1 = top_T1 + log_total_T1
    if with_gradient:
        # d objective / d logit is softmax * (1 + 2 * coefficient * logsumexp) - [target].
        weight_T1 = counts_T1 * scale
        share_T1 = weight_T1 * (1 + 2 * z_coefficient * logsumexp_T1) / total_T1
        gradient_(logits_TV, target_T1, scale, top_T1, share_T1, weight_T1)
    loss_T1 = log_total_T1 - (picked_T1 - top_T1)
    return (loss_T1 * counts_T1)[:, 0], (logsumexp_T1 * counts_T1)[:, 0]


def row_sums(logits_TV: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The largest scaled logit, and the sum of exponentials relative to it: float32 [T, 1]."""
    scaled_TV = logits_TV.float() * scale
    top_T1 = scaled_TV.amax(-1, keepdim=True)
    return top_T1, (scaled_TV - top_T1).exp().sum(-1, keepdim=True)


def to_gradient_(
    logits_TV: Tensor, target_T1: Tensor, scale: float, top_T1: Tensor, share_T1: Tensor,
    weight_T1: Tensor,
) -> None:  # fmt: skip
    """Turn logits into ``share * exp(scaled - top) - weight * [target]``, in place."""
    powers_TV = (logits_TV.float() * scale - top_T1).exp()
    is_target_TV = torch.arange(logits_TV.shape[1], device=logits_TV.device) == target_T1
    logits_TV.copy_(powers_TV * share_T1 - torch.where(is_target_TV, weight_T1, 0.0))


@functools.cache
def _compiled() -> tuple[Any, Any]:
    # Two graphs: a single one would keep the exponentials in float32 between them.
    return torch.compile(row_sums), torch.compile(to_gradient_)


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TM: Tensor, embedding_VM: Tensor, targets_T: Tensor, scale: float,
        z_coefficient: float, chunk: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        weight_VM = embedding_VM.to(hidden_TM.dtype)
        loss_sum, z_sum = hidden_TM.new_zeros(2, dtype=torch.float32)
        with_gradient = any(ctx.needs_input_grad)
        grad_hidden_TM = torch.empty_like(hidden_TM) if with_gradient else None
        grad_weight_VM: Tensor | None = None
        # Chunks share buffers, which stay in a CPU's cache.
        room_CV = hidden_TM.new_empty(min(chunk, len(hidden_TM)), len(weight_VM))
        room_VM = torch.empty_like(weight_VM) if with_gradient else None
        for start in range(0, len(hidden_TM), chunk):
            piece = slice(start, start + chunk)
            hidden_CM, target_C = hidden_TM[piece], targets_T[piece]
            logits_CV = torch.mm(hidden_CM, weight_VM.T, out=room_CV[: len(hidden_CM)])
            reduce = (
                cpu_kernels.cross_entropy_ if cpu_kernels.can_read(logits_CV) else cross_entropy_
            )
            loss_C, logsumexp_C = reduce(logits_CV, target_C, scale, z_coefficient, with_gradient)
            loss_sum += loss_C.sum()
            z_sum += logsumexp_C.square().sum()
            if grad_hidden_TM is not None:
                torch.mm(logits_CV, weight_VM, out=grad_hidden_TM[piece])
                grad_VM = torch.mm(logits_CV.T, hidden_CM, out=room_VM)
                if grad_weight_VM is None:
                    grad_weight_VM = grad_VM.to(torch.float32, copy=True)
                else:
                    grad_weight_VM += grad_VM
        if grad_weight_VM is None:  # no tokens
            grad_weight_VM = torch.zeros_like(embedding_VM, dtype=torch.float32)
        if grad_hidden_TM is not None:
            ctx.save_for_backward(grad_hidden_TM, grad_weight_VM)
        objective = loss_sum + z_coefficient * z_sum
        ctx.mark_non_differentiable(loss_sum, z_sum)
        return objective, loss_sum, z_sum

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_TM, grad_weight_VM = ctx.saved_tensors
        scale = grads[0]
        return grad_hidden_TM * scale, grad_weight_VM * scale, None, None, None, None
