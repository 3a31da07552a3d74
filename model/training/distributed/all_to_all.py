"""Exchanges of activations between processes that share a layer.

The experts' group spreads experts over P processes; an all-to-all sends each row to its expert's
process and the result back. The tensor's group of T processes splits the hidden width of an expert
or a layer: it gathers rows before the layer and sums partial results after it, as in Megatron's
sequence parallelism (Korthikanti et al. 2022, arXiv 2205.05198), by rows instead of positions.

Shapes as in :mod:`model.glam.experts`, and F = E / P experts per process, Q = T * P senders, X rows
received here, Y rows of T processes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor

from model.glam.experts import ExpertBackend, ExpertInputs, dispatch


class Counts(NamedTuple):
    """Numbers of rows: per sender and expert here; sent to and received from each process of the
    experts' group; and held by each process of the tensor's group.
    """

    there_QF: Tensor
    sent: list[int]
    received: list[int]
    shared: list[int]


class AllToAll:
    """Expert parallelism: an expert backend that sends rows to their experts and calls another."""

    def __init__(
        self, compute: ExpertBackend, group: dist.ProcessGroup, tensor: dist.ProcessGroup
    ) -> None:
        self.compute = compute
        self.group = group
        self.tensor = tensor

    def __call__(self, of: ExpertInputs) -> Tensor:
        x_RM, ends_E, w_in_EMH, w_out_EHM, activation, may_drop = of
        assert isinstance(w_in_EMH, DTensor)
        assert isinstance(w_out_EHM, DTensor)
        w_in_FMH, w_out_FHM = w_in_EMH.to_local(), w_out_EHM.to_local()
        counts_PF = ends_E.diff(prepend=ends_E.new_zeros(1)).view(self.group.size(), -1)
        there_QF, sent, received, shared = self.exchange_counts(counts_PF)

        x_XM = exchange(x_RM[: sum(sent)], sent, received, self.group)
        x_YM = gather(x_XM, self.tensor, shared)
        # Rows arrive by sender, then expert: sort them by expert.
        expert_QF = torch.arange(there_QF.shape[1], device=x_RM.device).expand_as(there_QF)
        expert_Y = expert_QF.flatten().repeat_interleave(
            there_QF.flatten(), output_size=sum(shared)
        )
        order_Y = expert_Y.argsort(stable=True)
        place_Y = torch.empty_like(order_Y)
        place_Y[order_Y] = torch.arange(len(order_Y), device=order_Y.device)
        ends_F = there_QF.sum(0).cumsum(0).to(torch.int32)
        rows_YM = dispatch(x_YM, order_Y, place_Y[None])
        y_YM = self.compute(
            ExpertInputs(rows_YM, ends_F, w_in_FMH, w_out_FHM, activation, may_drop=False)
        )
        y_XM = scatter(dispatch(y_YM, place_Y, order_Y[None]), self.tensor, shared)
        y_RM = exchange(y_XM, received, sent, self.group)
        return F.pad(y_RM, (0, 0, 0, len(x_RM) - sum(sent))) if may_drop else y_RM

    def exchange_counts(self, counts_PF: Tensor) -> Counts:
        """Exchange the numbers of rows per expert: the only host sync."""
        there_PF = torch.empty_like(counts_PF)
        dist.all_to_all_single(there_PF, counts_PF.contiguous(), group=self.group)
        there_QF = gather(there_PF, self.tensor)
        of_each = counts_PF.sum(1), there_PF.sum(1), there_QF.view(self.tensor.size(), -1).sum(1)
        sizes = [len(rows) for rows in of_each]
        sent, received, shared = (rows.tolist() for rows in torch.cat(of_each).cpu().split(sizes))
        return Counts(there_QF, sent, received, shared)


def gather(x: Tensor, group: dist.ProcessGroup, rows: Sequence[int] | None = None) -> Tensor:
    """Gather the rows of a group's processes in rank order: [X, ...] to [Y, ...].

    ``rows`` counts those of each process; None means equal numbers. A row's gradients are summed
    over the processes, and travel in the dtype of ``x``.
    """
    size = group.size()
    if size == 1:
        return x
    return _Gather.apply(x, [*(rows or [len(x)] * size)], group)


def scatter(y: Tensor, group: dist.ProcessGroup, rows: Sequence[int] | None = None) -> Tensor:
    """Reduce-scatter: sum over a group, and keep this process's rows: [Y, ...] to [X, ...].

    Each sum is rounded once; NCCL's reduction would round it at every hop.
    """
    size = group.size()
    if size == 1:
        return y
    return _Scatter.apply(y, [*(rows or [len(y) // size] * size)], group)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.rows, ctx.group = rows, group
        x = x.contiguous()
        out = x.new_empty(sum(rows), *x.shape[1:])
        if len(set(rows)) == 1:
            # The second name is that of torch before 2.13.
            collective = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
            collective(out, x, group)
            return out
        # gloo gathers only equal parts; for others NCCL uses broadcasts too.
        for source, part in enumerate(out.split(rows)):
            if source == group.rank():
                part.copy_(x)
            dist.broadcast(part, group=group, group_src=source)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return scatter(grads[0], ctx.group, ctx.rows), None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, rows: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.rows, ctx.group = rows, group
        size, own = group.size(), rows[group.rank()]
        return exchange(y, rows, [own] * size, group).view(size, own, *y.shape[1:]).sum(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return gather(grads[0], ctx.group, ctx.rows), None, None


def exchange(
    x: Tensor, sent: Sequence[int], received: Sequence[int], group: dist.ProcessGroup
) -> Tensor:
    """Exchange rows with the other processes; gradients travel in reverse.

    ``sent`` and ``received`` count the rows to and from each process, in order.
    """
    return _Exchange.apply(x, [*sent], [*received], group)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        out = x.new_empty(sum(received), *x.shape[1:])
        dist.all_to_all_single(out, x.contiguous(), received, sent, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return exchange(grads[0], ctx.received, ctx.sent, ctx.group), None, None, None
