"""Adafactor over weights that are sharded: torch's own refuses them (torch 2.13).

It squares norms in place, which a norm that still awaits its reduction can't have. This is the same
update, out of place, and without waiting for the device once for each weight. The state has the
names and, gathered, the shapes of torch's: a checkpoint serves both.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from model import parallel


class ShardedAdafactor(torch.optim.Adafactor):
    """``torch.optim.Adafactor`` with a step of its own; all parameters are float32 DTensors."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            assert group["weight_decay"] == 0
            assert not group["maximize"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # on the host, whatever the device
        state["step"] += 1
        step = float(state["step"])
        share = step ** group["beta2_decay"]
        low, least_scale = group["eps"]

        if grad.ndim > 1:
            row = _average(state, "row_var", _mean_square(grad, -1), share)
            column = _average(state, "col_var", _mean_square(grad, -2), share)
            mean = _reduced(row.sum(-2, keepdim=True)) / row.shape[-2]
            variance = row * column / mean.clamp_min(low)
        else:
            variance = _average(state, "variance", grad.square(), share)
        update = variance.clamp_min(low * low).rsqrt() * grad
        assert isinstance(parameter, DTensor)
        assert isinstance(update, DTensor)
        # Torch takes a cut dimension of size 1 for one to broadcast, and then cuts nothing.
        update = update.redistribute(placements=parameter.placements)

        rate = min(group["lr"], step**-0.5)
        scale = _root_mean_square(parameter).clamp_min(least_scale)
        clip = (_root_mean_square(update) / group["d"]).clamp_min(1.0)
        parameter.to_local().sub_(update.to_local() * (rate * scale / clip))


def _average(state: dict[str, Any], name: str, value: Tensor, share: float) -> Tensor:
    """The moving average, kept in ``state`` and 0 at first, with this share of a new value."""
    if name not in state:
        state[name] = torch.zeros_like(value)
    average: Tensor = state[name].lerp_(value, share)
    return average


def _mean_square(x: Tensor, dim: int) -> Tensor:
    """Over one dimension, which is kept."""
    norm = _reduced(torch.linalg.vector_norm(x, dim=dim, keepdim=True))
    return norm.square() / x.shape[dim]


def _root_mean_square(x: Tensor) -> Tensor:
    """Of all numbers, on every process."""
    return parallel.total_norm([x]) / math.sqrt(x.numel())


def _reduced(x: Tensor) -> DTensor:
    """Reduced wherever that is still to be done."""
    assert isinstance(x, DTensor)
    placements = [Replicate() if p.is_partial() else p for p in x.placements]
    return x.redistribute(placements=placements)
