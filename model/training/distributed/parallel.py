"""One model on many processes, one per device: expert and tensor parallelism, FSDP2 for the rest.

Processes form a grid, ``experts`` x ``experts_fsdp`` x ``tensor``:

- along ``experts`` each process has a share of the experts, and an all-to-all sends tokens to their
  experts and back;
- along ``experts_fsdp`` FSDP shards the same experts;
- along ``tensor`` the heads and hidden widths are split, as in Megatron (Shoeybi et al. 2019, arXiv
  1909.08053): matrices into a layer by columns, those out of it by rows;
  :mod:`model.training.distributed.all_to_all` gathers rows of activations before the layer and
  sums them after it.

FSDP shards attention and dense layers over ``experts`` and ``experts_fsdp``, all other weights over
all processes. Each process reads different rows.

Ranks count along ``tensor`` first, then ``experts_fsdp``, and launchers fill one node after
another. So activations of a layer and weights of an expert, the most traffic of large models, stay
within a node as far as possible.

Workarounds for torch 2.13, each with a test: gloo accepts a custom gradient divisor only for a
reduction forced to a sum, and then a group of one process divides twice; ``torch.nn.utils`` cannot
combine norms of gradients on different meshes.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from model.glam.config import AttentionBackend, GLaMConfig
from model.glam.parameter import Weight
from model.glam.transformer import Attention, DenseFeedForward, Experts, GLaM
from model.training.distributed import processes
from model.training.distributed.all_to_all import AllToAll, gather, scatter

TENSOR = "tensor"
"""The dimension of the grid that splits heads and hidden widths."""

OUT_OF_LAYER = {"output", "down", "w_out"}
"""The matrices from heads or a hidden width back to the residual stream."""


def build(
    config: GLaMConfig,
    device: torch.device,
    *,
    compute_dtype: torch.dtype,
    seed: int,
    expert_parallel: int | None = None,
    tensor_parallel: int = 1,
    recompute: bool = False,
    attention: AttentionBackend = AttentionBackend.plain,
) -> GLaM:
    """The model with its initial weights, which do not depend on the number of processes.

    ``expert_parallel`` processes share the experts, None for as many as possible;
    ``tensor_parallel`` split heads and hidden widths. The rest is as in
    :class:`model.glam.transformer.GLaM`. Raises ValueError if the processes can't share the model
    that way.
    """
    with torch.device("meta"):
        model = GLaM(config, compute_dtype=compute_dtype, recompute=recompute, attention=attention)
    model = _share(model, device, expert_parallel, tensor_parallel)
    model.initialise(seed)
    return model


def empty(config: GLaMConfig, device: torch.device, compute_dtype: torch.dtype) -> GLaM:
    """:func:`build` with undefined weights, shared by as many processes as possible."""
    with torch.device("meta"):
        model = GLaM(config, compute_dtype=compute_dtype)
    return _share(model, device, None, 1)


def _share(
    model: GLaM, device: torch.device, expert_parallel: int | None, tensor_parallel: int
) -> GLaM:
    """Shard a model on ``meta``, and allocate this process's part on its device."""
    if processes.count() > 1:
        shard(model, make_grid(model.config, device.type, expert_parallel, tensor_parallel))
    else:
        grid_shape(model.config, 1, expert_parallel, tensor_parallel)
    return model.to_empty(device=device)


def make_grid(
    config: GLaMConfig,
    device_type: str,
    expert_parallel: int | None = None,
    tensor_parallel: int = 1,
) -> DeviceMesh:
    """Arrange all processes in a grid; raise ValueError if the model can't be divided that way."""
    shape = grid_shape(config, processes.count(), expert_parallel, tensor_parallel)
    return init_device_mesh(device_type, shape, mesh_dim_names=("experts", "experts_fsdp", TENSOR))


def grid_shape(
    config: GLaMConfig, world: int, expert_parallel: int | None = None, tensor_parallel: int = 1
) -> tuple[int, int, int]:
    """The shape of :func:`make_grid` for ``world`` processes; raises as that does."""
    if world % tensor_parallel:
        raise ValueError(
            f"train.tensor_parallel={tensor_parallel} must divide the {world} processes: change one"
            " of them"
        )
    for name in ("heads", "hidden"):
        if getattr(config, name) % tensor_parallel:
            raise ValueError(
                f"model.{name}={getattr(config, name)} can't be cut into"
                f" train.tensor_parallel={tensor_parallel} parts: choose one that divides it"
            )
    others = world // tensor_parallel
    columns = expert_parallel or (math.gcd(others, config.experts) if config.sparse else 1)
    if others % columns:
        each = f", {tensor_parallel} for each part" if tensor_parallel > 1 else ""
        raise ValueError(
            f"train.expert_parallel={columns} must divide the {world} processes{each}: change one"
            " of them"
        )
    rows = others // columns
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
    if tensor_parallel > 1 and config.width % others:
        raise ValueError(
            f"model.width={config.width} must be a multiple of {others}, the processes that share"
            " one part of a layer: raise train.tensor_parallel"
        )
    return columns, rows, tensor_parallel


def shard(model: GLaM, grid: DeviceMesh) -> None:
    """Shard the model's weights; call this while they are on the meta device.

    Weight matrices are gathered in the dtype of the computation. Norms, routers, the embedding and
    the biases of attention are gathered in float32, once a step. Gradients are reduced in float32.
    """
    everyone = init_device_mesh(grid.device_type, (grid.size(),), mesh_dim_names=("fsdp",))
    # Inputs have the dtype already, and FSDP's cast would hand each layer a copy of the cache.
    policy = MixedPrecisionPolicy(
        param_dtype=model.compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    # Shard biases before their modules, which would gather them in the computation's dtype.
    biases: list[nn.Module] = [
        module.bias for module in model.modules() if isinstance(module, Attention)
    ]
    fully_shard(biases, mesh=everyone, reshard_after_forward=False)
    parts = grid[TENSOR].size()
    if parts > 1:
        shape = grid.size() // parts, parts
        layers = init_device_mesh(grid.device_type, shape, mesh_dim_names=("fsdp", TENSOR))
        _gather_mask(model, layers.get_group(TENSOR))
    for module in model.modules():
        if isinstance(module, Experts):
            experts, tensor = grid.get_group("experts"), grid.get_group(TENSOR)
            module.compute = AllToAll(module.compute, experts, tensor)
            _cut(module, grid["experts", TENSOR], [Shard(0)])
            _shard_parts(module, grid["experts_fsdp"], policy)
        elif not isinstance(module, Attention | DenseFeedForward):
            continue
        elif parts == 1:
            fully_shard(module, mesh=everyone, mp_policy=policy)
        else:
            _cut(module, layers[TENSOR])
            _compute_part(module, layers.get_group(TENSOR))
            _shard_parts(module, layers["fsdp"], policy)
    fully_shard(model, mesh=everyone)
    # GLaM.loss and evaluation call ``hidden``; by default FSDP hooks only ``forward``.
    register_fsdp_forward_method(model, "hidden")


def _cut(
    module: Attention | DenseFeedForward | Experts, mesh: DeviceMesh, outer: Sequence[Shard] = ()
) -> None:
    """Split matrices into a layer by columns, those out of it by rows.

    ``outer`` has the placements along the mesh's other dimensions, which come first.
    """
    for name, weight in module.named_children():
        if name != "bias":
            assert isinstance(weight, Weight)
            whole = weight.weight
            dim = whole.ndim - (2 if name in OUT_OF_LAYER else 1)
            weight.weight = nn.Parameter(distribute_tensor(whole, mesh, [*outer, Shard(dim)]))


def _compute_part(module: Attention | DenseFeedForward, group: dist.ProcessGroup) -> None:
    """Make a layer gather the group's rows, use local parts, and sum the results."""
    for name, weight in module.named_children():
        if name == "bias":
            weight.register_forward_hook(lambda _, __, x: x.chunk(group.size())[group.rank()])
        else:
            weight.register_forward_hook(lambda _, __, x: x.to_local())
    module.register_forward_pre_hook(lambda _, inputs: (gather(inputs[0], group), *inputs[1:]))
    module.register_forward_hook(lambda _, __, y: scatter(y, group))


def _gather_mask(model: GLaM, group: dist.ProcessGroup) -> None:
    """Make the mask cover the group's rows, which attention gathers."""
    mask = model.mask
    model.mask = lambda *segments: mask(*(gather(x, group) for x in segments))


def _shard_parts(module: nn.Module, mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    """Let FSDP shard matrices along the dimension that is not split yet."""

    def whole_dimension(weight: nn.Parameter) -> Shard:
        assert isinstance(weight, DTensor)
        by_columns = weight.placements[-1] == Shard(weight.ndim - 1)
        parts = weight.device_mesh[TENSOR].size()
        return Shard(weight.ndim - (2 if by_columns or parts == 1 else 1))

    fully_shard(module, mesh=mesh, shard_placement_fn=whole_dimension, mp_policy=policy)
    assert isinstance(module, FSDPModule)
    # A part's gradient sums over all processes, each with a mean loss over its tokens.
    module.set_gradient_divide_factor(processes.count())
    if mesh.device_type == "cpu" and mesh.size() > 1:
        # gloo can't scale while reducing. A group of one process would divide twice.
        module.set_force_sum_reduction_for_comms(True)


def reshard(model: GLaM) -> None:
    """Free the weights that a pass without gradients gathered, so that parameters are shards."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
