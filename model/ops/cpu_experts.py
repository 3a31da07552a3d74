"""Experts on a CPU, one at a time, so that their working set stays in the cache.

Three things make this faster than a product of stacked weights, forward and backward, each measured
by ``benchmarks/training_step.py``:

- Float32 weights are cast one expert at a time, just before their product; gradients are cast back
  likewise. No copy of all weights or gradients goes through memory.
- bfloat16 products come in few sizes, as oneDNN compiles a kernel for each, which takes as long as
  the product. So an expert's rows are rounded up to a multiple of :data:`STEP` with rows of the
  next expert, which then overwrites these results; their gradients are zeroed.
- The backward pass recomputes the hidden layer's activation.

Shapes as in :mod:`model.glam.experts`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

STEP = 16
"""The rows of a bfloat16 product are a multiple of this."""


def expert_products(
    x_RM: Tensor,
    ends_E: Tensor,
    w_in_EMH: Tensor,
    w_out_EHM: Tensor,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """``activation(x_r @ w_in[e]) @ w_out[e]`` of each row r of expert e: [R, M] to the same.

    Weights have the rows' dtype or float32.
    """
    return _CPUExperts.apply(x_RM, ends_E, w_in_EMH, w_out_EHM, activation)


class _Rows(NamedTuple):
    """One expert's rows, up to ``end``, and those of its products, up to ``stop``."""

    expert: int
    start: int
    end: int
    stop: int


def _rows(ends_E: Tensor, dtype: torch.dtype) -> Iterator[_Rows]:
    step = STEP if dtype == torch.bfloat16 else 1
    ends = ends_E.tolist()
    for expert, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if start < end:
            stop = min(start + -(-(end - start) // step) * step, ends[-1])
            yield _Rows(expert, start, end, stop)


class _CPUExperts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_RM: Tensor, ends_E: Tensor, w_in_EMH: Tensor, w_out_EHM: Tensor,
        activation: Callable[[Tensor], Tensor],
    ) -> Tensor:  # fmt: skip
        hidden_RH = x_RM.new_empty(len(x_RM), w_in_EMH.shape[2])
        y_RM = torch.empty_like(x_RM)
        y_RM[int(ends_E[-1]) :] = 0
        w_in_MH, w_out_HM = x_RM.new_empty(w_in_EMH.shape[1:]), x_RM.new_empty(w_out_EHM.shape[1:])
        for expert, start, _, stop in _rows(ends_E, x_RM.dtype):
            w_in_MH.copy_(w_in_EMH[expert])
            w_out_HM.copy_(w_out_EHM[expert])
            torch.mm(x_RM[start:stop], w_in_MH, out=hidden_RH[start:stop])
            torch.mm(activation(hidden_RH[start:stop]), w_out_HM, out=y_RM[start:stop])
        ctx.save_for_backward(x_RM, ends_E, w_in_EMH, w_out_EHM, hidden_RH)
        ctx.activation = activation
        return y_RM

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_RM, ends_E, w_in_EMH, w_out_EHM, hidden_RH = ctx.saved_tensors
        grad_x_RM = torch.zeros_like(x_RM)
        grad_in_EMH, grad_out_EHM = torch.empty_like(w_in_EMH), torch.empty_like(w_out_EHM)
        w_in_MH, w_out_HM = x_RM.new_empty(w_in_EMH.shape[1:]), x_RM.new_empty(w_out_EHM.shape[1:])
        without_rows = set(range(len(w_in_EMH)))
        for expert, start, end, stop in _rows(ends_E, x_RM.dtype):
            without_rows.remove(expert)
            w_in_MH.copy_(w_in_EMH[expert])
            w_out_HM.copy_(w_out_EHM[expert])
            grad_PM = grads[0][start:stop].contiguous()
            if end < stop:
                grad_PM = grad_PM.clone()
                grad_PM[end - start :] = 0
            with torch.enable_grad():
                hidden_PH = hidden_RH[start:stop].requires_grad_()
                active_PH = ctx.activation(hidden_PH)
            (grad_PH,) = torch.autograd.grad(active_PH, hidden_PH, grad_PM @ w_out_HM.T)
            torch.mm(grad_PH, w_in_MH.T, out=grad_x_RM[start:stop])
            grad_in_EMH[expert] = torch.mm(x_RM[start:stop].T, grad_PH, out=w_in_MH)
            grad_out_EHM[expert] = torch.mm(active_PH.detach().T, grad_PM, out=w_out_HM)
        for expert in without_rows:
            grad_in_EMH[expert] = 0
            grad_out_EHM[expert] = 0
        return grad_x_RM, None, grad_in_EMH, grad_out_EHM, None
