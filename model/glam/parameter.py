"""A float32 weight with its initialisation, read in the dtype of the computation.

With many experts and few tokens, casting weights costs more memory traffic than bfloat16 saves.
Inside ``with copies(model):`` each weight is cast once, at its first use; gradients still
accumulate on the float32 weight. A step that accumulates batches then casts once::

    with copies(model):
        for batch in batches:
            model.loss(*batch).total.backward()
    optimizer.step()

The optimizer's step must be outside: torch's fused optimizers do not increment a weight's version
counter. Under FSDP, whose mixed precision does the casting, this changes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from winnow.filesystem import files


class Weight(nn.Module):
    """A weight with one initialisation: Gaussian (``std``), uniform (``fan_in``) or ``constant``.

    ``fan_in`` means uniform within sqrt(3 / fan_in), so a standard deviation of fan_in ** -0.5.
    ``decay`` says whether the optimizer's weight decay, if any, applies.
    """

    def __init__(
        self,
        *shape: int,
        std: float | None = None,
        fan_in: int | None = None,
        constant: float | None = None,
        decay: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.std = std
        self.fan_in = fan_in
        self.constant = constant
        self.decay = decay
        self.keep_copy = False
        self.copy: Tensor | None = None

    def forward(self, dtype: torch.dtype) -> Tensor:
        if self.weight.dtype == dtype:
            return self.weight
        if not self.keep_copy:
            return self.weight.to(dtype)
        if self.copy is None or self.copy.dtype != dtype:
            # Training can't use a tensor made in inference mode.
            with torch.inference_mode(False), torch.no_grad():
                self.copy = self.weight.to(dtype)
        return _ReadCopy.apply(self.weight, self.copy)

    @torch.no_grad()
    def initialise(self, *key: object) -> None:
        """Draw the weight from a generator seeded by ``key``: the same values under any sharding.

        Of stacked matrices a process draws only those that it holds a part of, one at a time.
        """
        here = local(self.weight)
        if here.ndim < 3:
            write(self.weight, self._draw(self.weight.shape, *key))
            return
        first, *others = (_indices_here(self.weight, dim) for dim in range(here.ndim))
        for place, index in enumerate(first.tolist()):
            here[place] = _part(self._draw(self.weight.shape[1:], *key, index), *others)

    def _draw(self, shape: torch.Size, *key: object) -> Tensor:
        """Draw on the CPU, whose generator gives the same values on every machine."""
        generator = keyed_generator(torch.device("cpu"), *key)
        drawn = torch.empty(shape)
        if self.std is not None:
            return drawn.normal_(0.0, self.std, generator=generator)
        if self.fan_in is not None:
            bound = (3 / self.fan_in) ** 0.5
            return drawn.uniform_(-bound, bound, generator=generator)
        assert self.constant is not None
        return drawn.fill_(self.constant)


def keyed_generator(device: torch.device, *key: object) -> torch.Generator:
    """A generator seeded by a key of JSON values; there is no state to save."""
    return torch.Generator(device).manual_seed(int(files.fingerprint(*key), 16) % (1 << 63))


def local(x: Tensor) -> Tensor:
    """The local shard of a sharded tensor; a plain tensor itself."""
    return x.to_local() if isinstance(x, DTensor) else x


def write(weight: Tensor, whole: Tensor) -> None:
    """Copy a full tensor into a weight, or into this process's shard of it."""
    indices = (_indices_here(weight, dim) for dim in range(whole.ndim))
    local(weight).copy_(_part(whole, *indices))


def _indices_here(weight: Tensor, dim: int) -> Tensor:
    """The indices along a dimension that this process holds: int64."""
    indices = torch.arange(weight.shape[dim])
    if not isinstance(weight, DTensor):
        return indices
    cuts = [Shard(0) if p == Shard(dim) else Replicate() for p in weight.placements]
    mesh = weight.device_mesh
    mine = distribute_tensor(indices.to(mesh.device_type), mesh, cuts, src_data_rank=None)
    return mine.to_local().cpu()


def _part(whole: Tensor, *indices: Tensor) -> Tensor:
    for dim, index in enumerate(indices):
        if len(index) < whole.shape[dim]:
            whole = whole.index_select(dim, index)
    return whole


@contextmanager
def copies(model: nn.Module) -> Iterator[None]:
    """Within the block, each weight is cast only once and must not change."""
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
