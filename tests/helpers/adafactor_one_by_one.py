"""Adafactor weight after weight, with torch's own operations on sharded tensors: what
:mod:`model.training.optimizers.adafactor_batch` is held against.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from model.training.distributed import processes
from model.training.optimizers.adafactor_batch import CLIP, DECAY, LEAST, LEAST_SCALE


class OneByOne(torch.optim.Optimizer):
    """Adafactor."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
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
