"""RMSNorm (Zhang & Sennrich 2019), with sums in float32 for activations of any dtype.

Shapes: [..., W] with W values to be normalised, T rows of them in all.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.glam.parameter import Weight
from model.ops import cpu_kernels


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale, in the input's dtype."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.scale = Weight(width, constant=1.0, decay=False)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last dimension, the width, of a tensor of any shape."""
        scale_W = self.scale(torch.float32)
        if cpu_kernels.can_read(x):
            y: Tensor = _RMSNormCPU.apply(x, scale_W, self.epsilon)
            return y
        return F.rms_norm(x.float(), scale_W.shape, scale_W, self.epsilon).to(x.dtype)


class _RMSNormCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale_W: Tensor, epsilon: float) -> Tensor:
        x = x.contiguous()
        scale_W = scale_W.clone()  # FSDP cannot free a tensor that numpy has a view of
        y, inverse_T = cpu_kernels.rms_norm(x, scale_W, epsilon)
        ctx.save_for_backward(x, inverse_T, scale_W)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, inverse_T, scale_W = ctx.saved_tensors
        gradients = cpu_kernels.rms_norm_backward(grads[0].contiguous(), x, inverse_T, scale_W)
        return *gradients, None
