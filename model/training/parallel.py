"""One model on many processes, one per device: expert parallelism, and FSDP2 for all other weights.

Processes form a grid, ``experts_fsdp`` x ``experts``. A row of the grid holds all experts, each
process E / columns of them; tokens travel to their experts and back by all-to-all within the row.
The processes of a column hold the same experts, each a slice of every matrix, which FSDP gathers
when needed. FSDP shards all other weights over all processes. The same code runs with NCCL on GPUs
and with gloo on CPUs, under ``torchrun``; a single process does none of this.

Workarounds for torch 2.13, each with a test: gloo refuses a custom gradient divisor unless the
reduction is forced to a sum, and then a group of one process divides twice; ``torch.nn.utils``
cannot combine norms of gradients on different meshes.

Shapes as in :mod:`model.glam.experts`, and P processes of a row, F = E / P experts of one process.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from model.glam.config import AttentionBackend, GLaMConfig
from model.glam.dense import DenseFeedForward
from model.glam.experts import ExpertBackend, ExpertInputs, dispatch
from model.glam.transformer import Attention, Experts, GLaM
from model.training import processes


def build(
    config: GLaMConfig,
    device: torch.device,
    *,
    compute_dtype: torch.dtype,
    seed: int,
    expert_parallel: int | None = None,
    recompute: bool = False,
    attention: AttentionBackend = AttentionBackend.plain,
) -> GLaM:
    """The model with its initial weights, which do not depend on the number of processes.

    Args:
        config: shape and architecture.
        device: of this process.
        compute_dtype: as of :class:`model.glam.transformer.GLaM`.
        seed: as of :class:`model.glam.transformer.GLaM`.
        expert_parallel: processes that share the experts; None for as many as possible.
        recompute: as of :class:`model.glam.transformer.GLaM`.
        attention: as of :class:`model.glam.transformer.GLaM`.

    Raises:
        ValueError: the processes can't share the model that way.
    """
    make = functools.partial(
        GLaM, config, compute_dtype=compute_dtype, recompute=recompute, attention=attention
    )
    if processes.count() == 1:
        _columns(config, expert_parallel)
        return make(seed=seed).to(device)
    model = _empty(make, device, expert_parallel)
    model.initialise(seed)
    return model


def empty(config: GLaMConfig, device: torch.device, compute_dtype: torch.dtype) -> GLaM:
    """The model, shared by as many processes as can, with weights that are yet to be written.

    Raises:
        ValueError: the processes can't share the model.
    """
    return _empty(functools.partial(GLaM, config, compute_dtype=compute_dtype), device, None)


def _empty(make: Callable[[], GLaM], device: torch.device, expert_parallel: int | None) -> GLaM:
    with torch.device("meta"):
        model = make()
    shard(model, make_grid(model.config, device.type, expert_parallel))
    return model.to_empty(device=device)


def make_grid(
    config: GLaMConfig, device_type: str, expert_parallel: int | None = None
) -> DeviceMesh:
    """All processes as a grid of ``experts_fsdp`` x ``experts``.

    Raises:
        ValueError: the experts or their matrices can't be divided that way.
    """
    world, columns = processes.count(), _columns(config, expert_parallel)
    rows = world // columns
    if config.sparse and config.experts % columns:
        raise ValueError(
            f"model.experts={config.experts} can't be shared by {columns} processes: choose a"
            " train.expert_parallel that divides it"
        )
    if config.sparse and (config.width % rows or config.hidden % rows):
        raise ValueError(
            f"model.width={config.width} and model.hidden={config.hidden} must be multiples of"
            f" {rows}, the processes that share one expert: raise train.expert_parallel"
        )
    return init_device_mesh(
        device_type, (rows, columns), mesh_dim_names=("experts_fsdp", "experts")
    )


def _columns(config: GLaMConfig, expert_parallel: int | None) -> int:
    """How many processes share the experts: the given number, or as many as possible."""
    world = processes.count()
    columns = expert_parallel or (math.gcd(world, config.experts) if config.sparse else 1)
    if world % columns:
        raise ValueError(
            f"train.expert_parallel={columns} must divide the {world} processes: change one of them"
        )
    return columns


def shard(model: GLaM, grid: DeviceMesh) -> None:
    """Shard the model's weights; call this while they are on the meta device.

    Weight matrices are gathered in the dtype of the computation. Norms, routers, the embedding and
    the biases of attention are gathered in float32, once a step. Gradients are reduced in float32.
    """
    everyone = init_device_mesh(grid.device_type, (grid.size(),), mesh_dim_names=("fsdp",))
    # What goes in has the dtype already, and FSDP's cast would hand each layer a copy of the cache.
    policy = MixedPrecisionPolicy(
        param_dtype=model.compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    # Before the modules that hold them, which would gather them in the computation's dtype.
    biases: list[nn.Module] = [
        module.bias for module in model.modules() if isinstance(module, Attention)
    ]
    fully_shard(biases, mesh=everyone, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, Experts):
            _shard_experts(module, grid, policy)
        elif isinstance(module, Attention | DenseFeedForward):
            fully_shard(module, mesh=everyone, mp_policy=policy)
    fully_shard(model, mesh=everyone)
    # GLaM.loss and evaluation call it; FSDP hooks only ``forward`` by default.
    register_fsdp_forward_method(model, "hidden")


def _shard_experts(experts: Experts, grid: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    row = grid["experts"]
    for weight in (experts.w_in, experts.w_out):
        weight.weight = nn.Parameter(distribute_tensor(weight.weight, row, [Shard(0)]))
    experts.compute = AllToAll(experts.compute, row.get_group())
    column = grid["experts_fsdp"]
    fully_shard(experts, mesh=column, shard_placement_fn=lambda _: Shard(1), mp_policy=policy)
    assert isinstance(experts, FSDPModule)
    # An expert's gradient sums over tokens of all processes, and each process's loss is a mean
    # over its own tokens.
    experts.set_gradient_divide_factor(grid.size())
    if grid.device_type == "cpu" and column.size() > 1:
        # gloo can't scale while it reduces. A group of one process would divide twice.
        experts.set_force_sum_reduction_for_comms(True)


class AllToAll:
    """Experts distributed over processes, F each: rows go to their expert's process and back.

    It is an :data:`model.glam.experts.ExpertBackend`, and calls another one with the rows here.
    """

    def __init__(self, compute: ExpertBackend, group: dist.ProcessGroup) -> None:
        self.compute = compute
        self.group = group

    def __call__(self, of: ExpertInputs) -> Tensor:
        """An :data:`model.glam.experts.ExpertBackend` of weights sharded over ``group``."""
        x_RM, ends_E, w_in_EMH, w_out_EHM, activation, may_drop = of
        assert isinstance(w_in_EMH, DTensor)
        assert isinstance(w_out_EHM, DTensor)
        w_in_FMH, w_out_FHM = w_in_EMH.to_local(), w_out_EHM.to_local()
        counts_PF = ends_E.diff(prepend=ends_E.new_zeros(1)).view(self.group.size(), -1)
        there_PF, sent, received = self.exchange_counts(counts_PF)

        x_XM = _Exchange.apply(x_RM[: sum(sent)], sent, received, self.group)
        # Rows arrive by sender and then by expert: sort them by expert.
        expert_PF = torch.arange(there_PF.shape[1], device=x_RM.device).expand_as(there_PF)
        expert_X = expert_PF.flatten().repeat_interleave(
            there_PF.flatten(), output_size=sum(received)
        )
        order_X = expert_X.argsort(stable=True)
        place_X = torch.empty_like(order_X)
        place_X[order_X] = torch.arange(len(order_X), device=order_X.device)
        ends_F = there_PF.sum(0).cumsum(0).to(torch.int32)
        rows_XM = dispatch(x_XM, order_X, place_X[None])
        y_XM = self.compute(
            ExpertInputs(rows_XM, ends_F, w_in_FMH, w_out_FHM, activation, may_drop=False)
        )
        y_RM = _Exchange.apply(dispatch(y_XM, place_X, order_X[None]), received, sent, self.group)
        return F.pad(y_RM, (0, 0, 0, len(x_RM) - sum(sent))) if may_drop else y_RM

    def exchange_counts(self, counts_PF: Tensor) -> tuple[Tensor, list[int], list[int]]:
        """Exchange the numbers of rows per expert with the others: the only host sync.

        Returns:
            Rows for each expert here, by sender [P, F]; the numbers of rows sent to, and received
            from, each process.
        """
        there_PF = torch.empty_like(counts_PF)
        dist.all_to_all_single(there_PF, counts_PF.contiguous(), group=self.group)
        sent, received = torch.stack([counts_PF.sum(1), there_PF.sum(1)]).tolist()
        return there_PF, sent, received


class _Exchange(torch.autograd.Function):
    """Exchanges rows with the other processes; gradients travel in reverse."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        out = x.new_empty(sum(received), x.shape[1])
        dist.all_to_all_single(out, x.contiguous(), received, sent, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        grad = _Exchange.apply(grads[0], ctx.received, ctx.sent, ctx.group)
        return grad, None, None, None


def reshard(model: GLaM) -> None:
    """Free the weights that a pass without gradients has gathered.

    Until then the model's parameters are full tensors, not the shards that the optimizer knows.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
