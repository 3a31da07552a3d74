"""Adafactor's step for many weights at once; :mod:`model.training.optimizers.adafactor` calls it.

On a GPU small operations cost the host more than the device, and each reduction waits for all
processes. So weights of one shape and sharding are stacked, and reductions are packed: the rows'
sums, one reduction per way of sharding, then the columns' sums, then all tensors' sums of squares.
Nothing is synchronised with the host. The updates take as much memory as the gradients.

Shapes: L weights of a stack, of R rows and C columns or of N numbers: [L, ..., R, C] or [L, N].
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Placement, Replicate

from model.glam.parameter import local

LEAST = 2e-19
"""Lower bound of the root of the second moment."""
LEAST_SCALE = 1e-3
"""Lower bound of a tensor's RMS."""
CLIP = 1.0
"""The largest RMS of an update, before the rate."""
DECAY = -0.8
"""A step's squares enter the moving averages with the share step ** DECAY."""

STACK = 1 << 24
"""Maximum numbers of a stack on one process, unless it is a single weight."""


class Member(NamedTuple):
    """A float32 weight, its gradient and state, and the number of this step, from 1."""

    parameter: Tensor
    grad: Tensor
    state: dict[str, Any]
    step: float


def update(members: Iterable[Member], rate: float, found_inf: Tensor | None = None) -> None:
    """Update all weights; if ``found_inf`` is above 0, nothing changes.

    Weights are all plain, or all sharded over all processes, on any mesh and dimension, evenly or
    not. Every process calls this with the same weights in the same order.
    """
    skip = None if found_inf is None else found_inf > 0
    stacks = [_Stack(alike, rate, skip) for alike in _alike(members)]
    _reduce(stacks, -1)
    for stack in stacks:
        stack.average_rows()
    _reduce(stacks, -2)
    for stack in stacks:
        stack.make_update()
    sharded = [stack for stack in stacks if isinstance(stack.whole, DTensor)]
    if sharded:
        assert len(sharded) == len(stacks)
        squares = torch.cat([stack.squares for stack in stacks], 1)
        dist.all_reduce(squares)
        lengths = [len(stack.members) for stack in stacks]
        for stack, part in zip(stacks, squares.split(lengths, 1), strict=True):
            stack.squares = part
    for stack in stacks:
        stack.apply()


def _alike(members: Iterable[Member]) -> Iterable[list[Member]]:
    """Group members that can be stacked, alike on every process, whatever shards it holds."""
    groups: dict[Any, list[list[Member]]] = {}
    for member in members:
        whole, numbers = member.parameter, member.parameter.numel()
        key: tuple[Any, ...] = whole.shape, whole.device, member.step
        if isinstance(whole, DTensor):
            key = *key, whole.device_mesh, whole.placements
            numbers //= whole.device_mesh.size()
        lists = groups.setdefault(key, [[]])
        if lists[-1] and (len(lists[-1]) + 1) * numbers > STACK:
            lists.append([])
        lists[-1].append(member)
    return [members for lists in groups.values() for members in lists]


class _Stack:
    """Weights of one shape, and the three phases of their step."""

    def __init__(self, members: Sequence[Member], rate: float, skip: Tensor | None) -> None:
        self.members = members
        self.skip = skip
        self.whole, _, _, step = members[0]
        self.share = step**DECAY
        self.rate = min(rate, step**-0.5)
        self.parameters = [local(member.parameter) for member in members]
        self.grads = [local(member.grad) for member in members]
        self.matrices = self.whole.ndim > 1
        # Local, then global sums: of a gradient's squares by row, [L, ..., R, 1]; later by column,
        # [L, ..., 1, C], and of the rows' averages, [L, ..., 1, 1].
        self.sums: list[Tensor] = []
        if self.matrices:
            grad = _stacked(self.grads)
            self.sums, self.of_columns = [_square_sum(grad, -1)], _square_sum(grad, -2)
        self.squares: Tensor  # local, then global sums, of weights and updates: [2, L]

    def cut_over(self, dim: int) -> tuple[dist.ProcessGroup, ...]:
        """The process groups that shard this dimension of a matrix, -1 or -2."""
        if not (self.matrices and isinstance(self.whole, DTensor)):
            return ()
        mesh, cuts = self.whole.device_mesh, self.whole.placements
        return tuple(
            mesh.get_group(i)
            for i, cut in enumerate(cuts)
            if cut.is_shard(self.whole.ndim + dim) and mesh.size(i) > 1
        )

    def average_rows(self) -> None:
        """Update the averages of a matrix's rows, or of a vector."""
        if self.matrices:
            mean = self.sums[0] / self.whole.shape[-1]
            self.row = self._average("row_var", mean, self.whole.ndim - 1)
            self.sums = [self.of_columns, self.row.sum(-2, keepdim=True)]
        else:
            self.variance = self._average("variance", _stacked(self.grads).square())

    def make_update(self) -> None:
        """Compute the updates [L, ...], not clipped yet."""
        grad = _stacked(self.grads)
        if self.matrices:
            of_columns, of_rows = self.sums
            rows = self.whole.shape[-2]
            column = self._average("col_var", of_columns / rows, self.whole.ndim - 2)
            row = self.row / (of_rows / rows).clamp_min(LEAST)
            inverse = (row.rsqrt() * column.rsqrt()).clamp_max_(1 / LEAST)
        else:
            inverse = self.variance.clamp_min(LEAST * LEAST).rsqrt_()
        self.update = inverse.mul_(grad)
        norms = torch.stack(torch._foreach_norm(self.parameters))
        of_update = torch.linalg.vector_norm(self.update.flatten(1), dim=1)
        self.squares = torch.stack([norms, of_update]).square()

    def apply(self) -> None:
        """Clip the updates and subtract them from the weights."""
        of_parameter, of_update = (self.squares / self.whole.numel()).sqrt()
        clip = (of_update / CLIP).clamp_min(1.0)
        factor = self.rate * of_parameter.clamp_min(LEAST_SCALE) / clip
        self.update.mul_(factor.view(-1, *[1] * self.whole.ndim))
        if self.skip is not None:
            self.update.masked_fill_(self.skip, 0.0)  # it may be NaN
        torch._foreach_sub_(self.parameters, list(self.update.unbind()))

    def _average(self, name: str, value: Tensor, reduced: int | None = None) -> Tensor:
        """Update and stack moving averages, initially 0.

        ``reduced`` is the dimension of a weight that the averages reduce.
        """
        for member, one in zip(self.members, value.unbind(), strict=True):
            if name not in member.state:
                member.state[name] = self._as_whole(torch.zeros_like(one), reduced)
        averages = [local(member.state[name]) for member in self.members]
        if self.skip is not None:
            value = torch.where(self.skip, _stacked(averages), value)
        torch._foreach_lerp_(averages, list(value.unbind()), self.share)
        return _stacked(averages)

    def _as_whole(self, local: Tensor, reduced: int | None) -> Tensor:
        """State sharded like its weight, so that a checkpoint can reshard it."""
        if not isinstance(self.whole, DTensor):
            return local
        shape = list(self.whole.shape)
        placements: list[Placement] = list(self.whole.placements)
        if reduced is not None:
            shape[reduced] = 1
            placements = [Replicate() if p.is_shard(reduced) else p for p in placements]
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            local, self.whole.device_mesh, placements, run_check=False, shape=torch.Size(shape),
            stride=stride,
        )  # fmt: skip


def _reduce(stacks: Sequence[_Stack], dim: int) -> None:
    """Sum the stacks' ``sums`` over the processes that shard a dimension."""
    ways: dict[tuple[str, ...], list[_Stack]] = {}
    for stack in stacks:
        if groups := stack.cut_over(dim):
            ways.setdefault(tuple(g.group_name for g in groups), []).append(stack)
    for alike in ways.values():
        parts = [part for stack in alike for part in stack.sums]
        flat = torch.cat([part.reshape(-1) for part in parts])
        for group in alike[0].cut_over(dim):
            dist.all_reduce(flat, group=group)
        pieces = iter(flat.split([part.numel() for part in parts]))
        for stack in alike:
            stack.sums = [next(pieces).view_as(part) for part in stack.sums]


def _square_sum(x: Tensor, dim: int) -> Tensor:
    return torch.linalg.vector_norm(x, dim=dim, keepdim=True).square()


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors, without a copy if there is only one."""
    return torch.stack(list(tensors)) if len(tensors) > 1 else tensors[0][None]
