"""Adafactor (Shazeer and Stern 2018, algorithms 4 and 5, with relative step sizes).

A step moves a tensor by ``max(1e-3, RMS(tensor)) * rate`` times its gradient over the root of a
second moment, clipped to an RMS of 1. A matrix's second moment is the product of the mean squares
of its rows and columns; stacked matrices have separate second moments but one RMS.

State (names and shapes) and results are those of ``torch.optim.Adafactor``, but torch's version
rejects sharded weights (2.13), synchronises with the device twice per weight, and makes some ten
passes over each weight on a CPU. Here matrices on a CPU take compiled passes; all else goes through
:mod:`model.training.optimizers.adafactor_batch`. Differences from lingvo, which trained GLaM:

- lingvo factors only dimensions of 128 or more; here the last two are factored at any size.
- lingvo adds 1e-30 to squared gradients; here ``LEAST``, about the smallest number whose square is
  a normal float32, bounds the root of the second moment. (1e-30 would square to 0, and the first
  update of an expert without tokens would be 0 * infinity.) So a matrix whose gradients stay below
  an RMS of about 4e-10 is normalised less exactly.
"""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from model.ops import cpu_adafactor, cpu_kernels
from model.training.optimizers import adafactor_batch
from model.training.optimizers.adafactor_batch import CLIP, DECAY, LEAST, LEAST_SCALE, Member


class Adafactor(torch.optim.Optimizer):
    """Adafactor for float32 parameters, sharded or not, on any device."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.found_inf: Tensor | None = None
        """As in torch's fused optimizers: float32, above 0 to skip the step."""
        self._counted: list[Tensor] = []

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, without the decorator that imports ``torch._dynamo``, which takes 0.8 s."""
        inspect.unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, without that decorator."""
        inspect.unwrap(torch.optim.Optimizer.zero_grad)(self, set_to_none)

    def uncount(self) -> None:
        """Uncount the last step, which changed nothing."""
        for step in self._counted:
            step -= 1
        self._counted = []

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter with a gradient, at a rate of at most 1 / sqrt(step)."""
        self._counted = []
        if self.found_inf is not None and self.found_inf.is_cpu and self.found_inf > 0:
            return
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            states = [self.state[parameter] for parameter in parameters]
            for state in states:
                if not state:
                    state["step"] = torch.tensor(0.0)  # on the host, for any device
            counts = [state["step"] for state in states]
            torch._foreach_add_(counts, 1)
            self._counted += counts
            steps = torch.stack(counts).tolist()
            others = []
            for parameter, state, step in zip(parameters, states, steps, strict=True):
                grad = parameter.grad
                member = Member(parameter, grad, state, step)
                compiled = cpu_kernels.can_read(grad) and not isinstance(grad, DTensor)
                if compiled and grad.ndim > 1:
                    _update_compiled(member, group["lr"])
                else:
                    others.append(member)
            adafactor_batch.update(others, group["lr"], self.found_inf)


def _update_compiled(member: Member, rate: float) -> None:
    parameter, grad, state, step = member
    assert parameter.is_contiguous()
    grad = grad.contiguous()
    share, rate = step**DECAY, min(rate, step**-0.5)
    of_rows, of_columns, of_parameter = cpu_adafactor.squares(parameter, grad)
    row = _average(state, "row_var", of_rows / grad.shape[-1], share)
    column = _average(state, "col_var", of_columns / grad.shape[-2], share)
    row_mean = (row.sum(-2, keepdim=True) / row.shape[-2]).clamp_min(LEAST)
    inverses = (row / row_mean).rsqrt(), column.rsqrt()
    of_update = cpu_adafactor.update_square(grad, *inverses, 1 / LEAST)
    scale = max(math.sqrt(of_parameter / parameter.numel()), LEAST_SCALE)
    clip = max(math.sqrt(of_update / parameter.numel()) / CLIP, 1.0)
    cpu_adafactor.update_(parameter, grad, *inverses, 1 / LEAST, rate * scale / clip)


def _average(state: dict[str, Any], name: str, value: Tensor, share: float) -> Tensor:
    """Update a moving average in ``state``, initially 0, with this share of a new value."""
    if name not in state:
        state[name] = torch.zeros_like(value)
    average: Tensor = state[name].lerp_(value, share)
    return average
