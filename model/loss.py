"""The vocabulary's cross-entropy, a chunk of tokens at a time.

Tokens times vocabulary is the largest array of a small model's step. Here it never exists: the
logits of one chunk are made, turned to float32, reduced to the loss and, where a gradient is
wanted, at once to the gradients of hidden states and embedding. So one chunk lives at a time, and
none is computed twice as it would be under activation checkpointing.

``torch.nn.functional.linear_cross_entropy`` was no choice: in bfloat16 its value is off by some
percent (torch 2.13; a test shows it).

Shapes: T tokens, M width, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORE = -100
"""A target that counts for nothing, padding: the number that torch and transformers take."""

CHUNK_LOGITS = 1 << 22
"""Logits of one chunk, 16 MiB in float32: of 2^19 to 2^24 the fastest, or near, on CPU."""


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
    denominator: float | Tensor,
    z_coefficient: float = 0.0,
    chunk_logits: int = CHUNK_LOGITS,
) -> VocabularyLoss:
    """Cross-entropy of ``scale * hidden @ embedding.T``, and the z-loss, mean logsumexp squared.

    Both are sums over the tokens whose target is not :data:`IGNORE`, divided by ``denominator``.

    Args:
        hidden_TM: float32 or bfloat16; the products are made in this dtype, all else in float32.
        embedding_VM: float32, or as ``hidden_TM``.
        targets_T: int64, in 0 .. V - 1 or :data:`IGNORE`.
        scale: of the logits.
        denominator: a number, or a tensor of one, which is not synchronised.
        z_coefficient: of the z-loss in the objective.
        chunk_logits: how many logits exist at a time.
    """
    tokens = max(1, chunk_logits // len(embedding_VM))
    sums = _VocabularyLoss.apply(hidden_TM, embedding_VM, targets_T, scale, z_coefficient, tokens)
    return VocabularyLoss(*(total / denominator for total in sums))


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TM: Tensor,
        embedding_VM: Tensor,
        targets_T: Tensor,
        scale: float,
        z_coefficient: float,
        chunk: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        weight_VM = embedding_VM.to(hidden_TM.dtype)
        loss_sum, z_sum = hidden_TM.new_zeros(2, dtype=torch.float32)
        with_gradient = any(ctx.needs_input_grad)
        grad_hidden_TM = torch.empty_like(hidden_TM) if with_gradient else None
        grad_weight_VM = torch.zeros_like(embedding_VM, dtype=torch.float32)
        for start in range(0, len(hidden_TM), chunk):
            piece = slice(start, start + chunk)
            hidden_CM, target_C1 = hidden_TM[piece], targets_T[piece, None]
            counts_C1 = (target_C1 != IGNORE).float()
            target_C1 = target_C1.clamp_min(0)

            # One array of float32: the logits, then less their maximum, then their exponentials.
            work_CV = (hidden_CM @ weight_VM.T).float().mul_(scale)
            top_C1 = work_CV.amax(-1, keepdim=True)
            picked_C1 = work_CV.sub_(top_C1).gather(-1, target_C1)
            total_C1 = work_CV.exp_().sum(-1, keepdim=True)
            log_total_C1 = total_C1.log()
            logsumexp_C1 = top_C1 + log_total_C1
            loss_sum += ((log_total_C1 - picked_C1) * counts_C1).sum()
            z_sum += (logsumexp_C1.square() * counts_C1).sum()
            if grad_hidden_TM is None:
                continue

            # d objective / d logit is softmax * (1 + 2 * coefficient * logsumexp) - [target].
            weight_C1 = counts_C1 * scale
            work_CV *= weight_C1 * (1 + 2 * z_coefficient * logsumexp_C1) / total_C1
            work_CV.scatter_add_(-1, target_C1, -weight_C1)
            grad_CV = work_CV.to(weight_VM.dtype)
            torch.mm(grad_CV, weight_VM, out=grad_hidden_TM[piece])
            if grad_CV.dtype == torch.float32:
                grad_weight_VM.addmm_(grad_CV.T, hidden_CM)
            else:
                grad_weight_VM += grad_CV.T @ hidden_CM
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
