"""Expert computation behind one interface, and the dispatch of tokens to experts and back.

A backend turns :class:`ExpertInputs` into ``y_RM``: row r of expert e becomes
``activation(x_r @ w_in[e]) @ w_out[e]``. Rows are sorted by expert; ``ends_E`` (int32) is where
each expert's rows end. Rows from ``ends_E[-1]`` on are dropped: their result and gradient are zero.
``may_drop=False`` promises that there are none. Products are computed in the rows' dtype; weights
have that dtype or float32. :data:`BACKENDS` agree up to rounding:

============  ==========================================================================
``loop``      one product per expert; the reference, for any dtype and any alignment
``grouped``   ``torch.nn.functional.grouped_mm``: no padding, no loop, no host sync on CUDA
``cpu``       :mod:`model.ops.cpu_experts`: a loop that stays in the cache
``fastest``   ``cpu`` on a CPU, elsewhere ``grouped`` in bfloat16 and ``loop`` in float32
============  ==========================================================================

Pitfalls avoided here, each with a test: indexing a stacked weight in a loop makes a full-size
gradient per expert; ``grouped_mm`` leaves rows past the last end uninitialised, requires rows of a
multiple of 16 bytes, rejects an expanded gradient, and ignores autocast.

Shapes: T tokens, C choices, R = C * T routed rows, M width, H hidden, E experts.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.glam.config import ExpertActivation
from model.ops.cpu_experts import expert_products

Activation = Callable[[Tensor], Tensor]


class ExpertInputs(NamedTuple):
    """The inputs of a backend; ``may_drop`` says whether rows may follow ``ends_E[-1]``."""

    x_RM: Tensor
    ends_E: Tensor
    w_in_EMH: Tensor
    w_out_EHM: Tensor
    activation: Activation
    may_drop: bool = True


ExpertBackend = Callable[[ExpertInputs], Tensor]

ACTIVATIONS: dict[ExpertActivation, Activation] = {
    ExpertActivation.relu: F.relu,
    ExpertActivation.gelu: partial(F.gelu, approximate="tanh"),
}


def loop_experts(of: ExpertInputs) -> Tensor:
    """One expert after another. Synchronises with the host to read ``ends_E``."""
    x_RM, ends_E, w_in_EMH, w_out_EHM, activation, _ = of
    ends = ends_E.tolist()
    counts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    pieces = x_RM[: ends[-1]].split(counts)
    # unbind, not w[e]: its backward stacks the gradients once instead of adding E full ones.
    weights = zip(*(w.to(x_RM.dtype).unbind(0) for w in (w_in_EMH, w_out_EHM)), strict=True)
    outputs = [
        activation(x @ w_in) @ w_out for x, (w_in, w_out) in zip(pieces, weights, strict=True)
    ]
    return torch.cat([*outputs, x_RM.new_zeros(len(x_RM) - ends[-1], x_RM.shape[1])])


def grouped_experts(of: ExpertInputs) -> Tensor:
    """Grouped products in bfloat16; raise ValueError if a row is no multiple of 16 bytes."""
    x_RM, ends_E, w_in_EMH, w_out_EHM, activation, may_drop = of
    for width in w_in_EMH.shape[1:]:
        if width * x_RM.element_size() % 16:
            raise ValueError(
                f"grouped products need rows of a multiple of 16 bytes, not {width} values of"
                f" {x_RM.dtype}: use a multiple of 8, or the loop backend"
            )
    w_in_EMH, w_out_EHM = w_in_EMH.to(x_RM.dtype), w_out_EHM.to(x_RM.dtype)
    if not may_drop:
        hidden_RH = activation(F.grouped_mm(x_RM, w_in_EMH, offs=ends_E))
        return _Contiguous.apply(F.grouped_mm(hidden_RH, w_out_EHM, offs=ends_E))
    past_end_R1 = (torch.arange(len(x_RM), device=x_RM.device) >= ends_E[-1])[:, None]
    # Fill the input too, as these rows' gradients are uninitialised. Between the products they may
    # be anything: grouped_mm reads no row past the last end.
    hidden_RH = activation(F.grouped_mm(x_RM.masked_fill(past_end_R1, 0), w_in_EMH, offs=ends_E))
    y_RM = F.grouped_mm(hidden_RH, w_out_EHM, offs=ends_E)
    return y_RM.masked_fill(past_end_R1, 0)


def cpu_experts(of: ExpertInputs) -> Tensor:
    """The CPU kernel, which leaves zeros past the last end."""
    return expert_products(of.x_RM, of.ends_E, of.w_in_EMH, of.w_out_EHM, of.activation)


def fastest_experts(of: ExpertInputs) -> Tensor:
    if of.x_RM.is_cpu:
        return cpu_experts(of)
    return (grouped_experts if of.x_RM.dtype == torch.bfloat16 else loop_experts)(of)


BACKENDS: dict[str, ExpertBackend] = {
    "loop": loop_experts,
    "grouped": grouped_experts,
    "cpu": cpu_experts,
    "fastest": fastest_experts,
}
"""The expert backends of :class:`model.glam.transformer.GLaM`, by name."""


def dispatch(x_TM: Tensor, order_R: Tensor, place_CT: Tensor) -> Tensor:
    """The rows of T tokens in dispatch order: [T, M] to [R, M].

    The backward pass gathers too: autograd's scatter-add is not deterministic on CUDA.
    """
    return _Dispatch.apply(x_TM, order_R, place_CT)


def combine(y_RM: Tensor, gates_CT: Tensor, order_R: Tensor, place_CT: Tensor) -> Tensor:
    """The gate-weighted sum of each token's rows, in float32 then rounded: [R, M] to [T, M]."""
    return _Combine.apply(y_RM, gates_CT, order_R, place_CT)


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TM: Tensor, order_R: Tensor, place_CT: Tensor) -> Tensor:
        ctx.save_for_backward(place_CT)
        return x_TM.index_select(0, order_R % len(x_TM))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (place_CT,) = ctx.saved_tensors
        grad_TM = grads[0].index_select(0, place_CT[0])
        for place_T in place_CT[1:]:
            grad_TM += grads[0].index_select(0, place_T)
        return grad_TM, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y_RM: Tensor, gates_CT: Tensor, order_R: Tensor, place_CT: Tensor
    ) -> Tensor:
        ctx.save_for_backward(y_RM, gates_CT, order_R, place_CT)
        total_TM = torch.zeros(place_CT.shape[1], y_RM.shape[1], device=y_RM.device)
        for gate_T, place_T in zip(gates_CT, place_CT, strict=True):
            total_TM.addcmul_(y_RM.index_select(0, place_T).float(), gate_T[:, None])
        return total_TM.to(y_RM.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        y_RM, gates_CT, order_R, place_CT = ctx.saved_tensors
        grad_TM = grads[0]
        grad_RM = grad_TM.index_select(0, order_R % place_CT.shape[1])
        grad_gates_R = (grad_RM.float() * y_RM).sum(-1)
        grad_RM *= gates_CT.flatten()[order_R, None].to(grad_RM.dtype)
        return grad_RM, grad_gates_R[place_CT], None, None


class _Contiguous(torch.autograd.Function):
    """Identity whose gradient is contiguous: ``grouped_mm`` refuses one of stride 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].contiguous()
