"""One float32 weight, read in the dtype of the computation, with its initialisation.

Casting a weight costs memory traffic, which at many experts and few tokens is more than bfloat16
saves. Inside ``with copies(model):`` each weight is cast at its first use and not again; its
gradients still go to the float32 weight, in float32, and add up there. So a step that accumulates
batches casts once::

    with copies(model):
        for batch in batches:
            model.loss(*batch).total.backward()
    optimizer.step()

The optimizer's step must lie outside. (A weight's version counter can't tell that it has changed:
torch's fused optimizers do not move it.) Under FSDP leave this alone and let its mixed precision
cast: a weight that comes in the wanted dtype is taken as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


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
        self.copy: Tensor | None = None

    def forward(self, dtype: torch.dtype) -> Tensor:
        """The weight in this dtype."""
        if self.weight.dtype == dtype:
            return self.weight
        if not self.keep_copy:
            return self.weight.to(dtype)
        if self.copy is None or self.copy.dtype != dtype:
            # A tensor made in inference mode could not serve training later.
            with torch.inference_mode(False), torch.no_grad():
                self.copy = self.weight.to(dtype)
        return _ReadCopy.apply(self.weight, self.copy)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws the weight anew, on the generator's device, wherever it or its shards are."""
        whole = torch.empty(self.weight.shape, device=generator.device)
        if self.std is not None:
            whole.normal_(0.0, self.std, generator=generator)
        elif self.fan_in is not None:
            bound = (3 / self.fan_in) ** 0.5
            whole.uniform_(-bound, bound, generator=generator)
        else:
            assert self.constant is not None
            whole.fill_(self.constant)
        if isinstance(self.weight, DTensor):
            mesh, placements = self.weight.device_mesh, self.weight.placements
            # Every process draws the whole, so nothing need be sent.
            shards = distribute_tensor(whole, mesh, placements, src_data_rank=None)
            self.weight.to_local().copy_(shards.to_local())
        else:
            self.weight.copy_(whole)


@contextmanager
def copies(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model's weights are cast once each and must not change."""
    weights = [module for module in model.modules() if isinstance(module, Weight)]
    for weight in weights:
        weight.keep_copy = True
    try:
        yield
    finally:
        for weight in weights:
            weight.keep_copy, weight.copy = False, None


class _ReadCopy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, copy: Tensor) -> Tensor:
        return copy.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].float(), None
