"""One float32 weight, read in the dtype of the computation, with its initialisation.

Casting a weight costs memory traffic, which at many experts and few tokens is more than bfloat16
saves. With ``keep_copy`` the cast is kept until the weight changes, which its version counter
tells: one cast per optimizer step, however many batches are accumulated. The gradient goes to the
float32 weight, in float32, and adds up there. A write through ``weight.data`` does not move the
counter; nor does FSDP when it gathers, so leave this off under FSDP and let its mixed precision
cast (a weight that comes in the wanted dtype is taken as it is).
"""

from typing import Any

import torch
from torch import Tensor, nn


class Weight(nn.Module):
    """A weight and how it starts: Gaussian (std), uniform (fan_in) or constant; give one of them.

    ``fan_in`` means uniform within sqrt(3 / fan_in), of standard deviation fan_in ** -0.5.
    """

    def __init__(
        self,
        *shape: int,
        std: float | None = None,
        fan_in: int | None = None,
        constant: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.std = std
        self.fan_in = fan_in
        self.constant = constant
        self.keep_copy = False
        self._copy: Tensor | None = None
        self._copied: tuple[Any, ...] = ()

    def forward(self, dtype: torch.dtype) -> Tensor:
        """The weight in this dtype."""
        weight = self.weight
        if weight.dtype == dtype:
            return weight
        if not self.keep_copy:
            return weight.to(dtype)
        state = (dtype, weight.device, weight.data_ptr(), weight._version)
        if self._copy is None or self._copied != state:
            with torch.inference_mode(False), torch.no_grad():
                self._copy = weight.to(dtype)
            self._copied = state
        return _ReadCopy.apply(weight, self._copy)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws the weight anew."""
        if self.std is not None:
            self.weight.normal_(0.0, self.std, generator=generator)
        elif self.fan_in is not None:
            bound = (3 / self.fan_in) ** 0.5
            self.weight.uniform_(-bound, bound, generator=generator)
        else:
            assert self.constant is not None
            self.weight.fill_(self.constant)


class _ReadCopy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, copy: Tensor) -> Tensor:
        return copy.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].float(), None
