"""The dense feed-forward part: GEGLU (Shazeer 2020) with the approximate GELU, three matrices.

Suffixes as in :mod:`model.glam.transformer`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.glam.config import GLaMConfig
from model.glam.parameter import Weight
from model.ops import cpu_kernels


class DenseFeedForward(nn.Module):
    """down(gelu(gate(x)) * up(x))."""

    def __init__(self, config: GLaMConfig) -> None:
        super().__init__()
        M, H = config.width, config.hidden
        self.gate = Weight(M, H, fan_in=M)
        self.up = Weight(M, H, fan_in=M)
        self.down = Weight(H, M, fan_in=H)

    def forward(self, x_BSM: Tensor) -> Tensor:
        """[B, S, M] to the same."""
        dtype = x_BSM.dtype
        return geglu(x_BSM @ self.gate(dtype), x_BSM @ self.up(dtype)) @ self.down(dtype)


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    """gelu(gate) * up, of any shape."""
    if cpu_kernels.can_read(gate):
        y: Tensor = _GEGLUCPU.apply(gate, up)
        return y
    return F.gelu(gate, approximate="tanh") * up


class _GEGLUCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        return cpu_kernels.geglu(gate, up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return cpu_kernels.geglu_backward(grads[0].contiguous(), *ctx.saved_tensors)
