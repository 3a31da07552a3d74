"""Adafactor (Shazeer and Stern 2018, algorithms 4 and 5, with relative step sizes).

A step moves a tensor by ``max(1e-3, RMS(tensor)) * rate`` times its gradient over the root of a
second moment, clipped to an RMS of 1. The second moment of a matrix is the product of the mean
squares of its rows and of its columns; of stacked matrices each has its own, and all have one RMS.

State (names and shapes) and results are those of ``torch.optim.Adafactor``, but torch's version
refuses sharded weights (2.13: it squares a norm in place that is not reduced yet), synchronises
with the device twice per weight, and makes some ten passes over each weight on a CPU. Both differ
from the lingvo code that trained GLaM:

- lingvo factors only dimensions of 128 or more; here the last two are factored at any size.
- lingvo adds 1e-30 to squared gradients; here the second moment is bounded below by the square of
  :data:`LEAST`. The usual 1e-30 would square to 0 in float32, and the first gradient of an expert
  that got no token would be 0 * infinity. 2e-19 is about the smallest whose square is a normal
  float32 number. A matrix whose gradients have stayed below an RMS of about 4e-10 since the start
  is therefore normalised less exactly than lingvo's would be.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from model.ops import cpu_adafactor, cpu_kernels
from model.training import processes

LEAST = 2e-19
"""Bound of the root of the second moment."""
LEAST_SCALE = 1e-3
"""Bound of a tensor's RMS."""
CLIP = 1.0
"""The largest RMS of an update, before the rate."""
DECAY = -0.8
"""The share of a step's squares in the moving averages is step ** DECAY."""


class Adafactor(torch.optim.Optimizer):
    """Adafactor for float32 parameters, sharded or not, on any device."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; its rate is at most 1 / sqrt(step)."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"])

    def _update(self, parameter: Tensor, grad: Tensor, rate: float) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # on the host, for any device
        state["step"] += 1
        step = float(state["step"])
        rate = min(rate, step**-0.5)
        if grad.ndim > 1 and cpu_kernels.can_read(grad) and not isinstance(grad, DTensor):
            _update_compiled(parameter, grad, state, step**DECAY, rate)
        else:
            _update(parameter, grad, state, step**DECAY, rate)


def _update(
    parameter: Tensor, grad: Tensor, state: dict[str, Any], share: float, rate: float
) -> None:
    """One parameter's step in torch operations."""
    if grad.ndim > 1:
        row = _average(state, "row_var", _mean_square(grad, -1), share)
        column = _average(state, "col_var", _mean_square(grad, -2), share)
        variance = row * column / _row_mean(row)
    else:
        variance = _average(state, "variance", grad.square(), share)
    update = variance.clamp_min(LEAST * LEAST).rsqrt() * grad
    if isinstance(parameter, DTensor):
        assert isinstance(update, DTensor)
        # torch mistakes a sharded dimension of size 1 for one to broadcast, and shards nothing.
        update = update.redistribute(placements=parameter.placements)
    scale = _root_mean_square(parameter).clamp_min(LEAST_SCALE)
    clip = (_root_mean_square(update) / CLIP).clamp_min(1.0)
    _local(parameter).sub_(_local(update) * (rate * scale / clip))


def _update_compiled(
    parameter: Tensor, grad: Tensor, state: dict[str, Any], share: float, rate: float
) -> None:
    """The same on a CPU, for matrices."""
    assert parameter.is_contiguous()
    grad = grad.contiguous()
    of_rows, of_columns, of_parameter = cpu_adafactor.squares(parameter, grad)
    row = _average(state, "row_var", of_rows / grad.shape[-1], share)
    column = _average(state, "col_var", of_columns / grad.shape[-2], share)
    inverses = (row / _row_mean(row)).rsqrt(), column.rsqrt()
    of_update = cpu_adafactor.update_square(grad, *inverses, 1 / LEAST)
    scale = max(math.sqrt(of_parameter / parameter.numel()), LEAST_SCALE)
    clip = max(math.sqrt(of_update / parameter.numel()) / CLIP, 1.0)
    cpu_adafactor.update_(parameter, grad, *inverses, 1 / LEAST, rate * scale / clip)


def _average(state: dict[str, Any], name: str, value: Tensor, share: float) -> Tensor:
    """Update the moving average in ``state``, initially 0, with this share of a new value."""
    if name not in state:
        state[name] = torch.zeros_like(value)
    average: Tensor = state[name].lerp_(value, share)
    return average


def _mean_square(x: Tensor, dim: int) -> Tensor:
    """The mean square over one dimension, which stays with size 1."""
    norm = _reduced(torch.linalg.vector_norm(x, dim=dim, keepdim=True))
    return norm.square() / x.shape[dim]


def _row_mean(row: Tensor) -> Tensor:
    """The divisor for the product of the mean squares of rows and columns."""
    return (_reduced(row.sum(-2, keepdim=True)) / row.shape[-2]).clamp_min(LEAST)


def _root_mean_square(x: Tensor) -> Tensor:
    """The root mean square of a tensor across all its shards, on every process."""
    return processes.total_norm([x]) / math.sqrt(x.numel())


def _reduced(x: Tensor) -> Tensor:
    """The tensor, with any pending reduction done."""
    if not isinstance(x, DTensor):
        return x
    placements = [Replicate() if p.is_partial() else p for p in x.placements]
    return x.redistribute(placements=placements)


def _local(x: Tensor) -> Tensor:
    """The shard of a tensor that this process holds."""
    return x.to_local() if isinstance(x, DTensor) else x
