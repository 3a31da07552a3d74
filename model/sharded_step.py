"""Traces a sharded training step: the memory of one device and the traffic of collectives.

:mod:`model.training.distributed.parallel` shards the real model over a fake process group of the
real size. It runs forward and backward with fake tensors, twice, as with gradient accumulation.
Counted are live bytes and traffic of the first process, whose shards are the largest.
"""

import dataclasses
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.glam import loss
from model.glam.config import GLaMConfig
from model.glam.experts import ExpertInputs
from model.glam.transformer import Experts, GLaM
from model.sizes import OPTIMIZER_BYTES
from model.training.distributed import parallel
from model.training.distributed.all_to_all import AllToAll, Counts

TENSOR = "tensor"
"""The kind of traffic for tensor parallelism."""

TO_LOSS, BACK, AFTER_LAYERS = range(3)
"""The phases of a pass, each with a peak."""

COLLECTIVES = {
    "_allgather_base_": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
    "alltoall_base_": "all-to-all",
    "allreduce_": "all-reduce",
}


class Group(NamedTuple):
    """The number of processes in a collective, and the distance of their ranks."""

    size: int
    stride: int


@dataclass
class Traffic:
    """One kind of collective on one device, in a forward and backward pass.

    ``received`` is in bytes, also in ``by_group``.
    """

    calls: float = 0
    received: float = 0.0
    by_group: dict[Group, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The memory of one device in bytes, and its traffic.

    ``weights``, ``gradients`` and ``optimizer`` are persistent float32 shards. ``peaks`` include
    these three: up to the loss, in the layers' backward pass, after it, and in the optimizer's
    step.
    """

    weights: float
    gradients: float
    optimizer: float
    peaks: tuple[float, ...]
    traffic: dict[str, Traffic]

    @property
    def peak(self) -> float:
        return max(self.peaks)


def plan(
    config: GLaMConfig,
    *,
    devices: int,
    expert_parallel: int | None,
    rows: int,
    sequence: int,
    optimizer: str,
    tensor_parallel: int = 1,
    recompute: bool = False,
    imbalance: float = 1.0,
) -> Plan:
    """Trace a pass of each of ``devices`` over ``rows`` rows of ``sequence`` tokens.

    ``expert_parallel`` and ``tensor_parallel`` are those of
    :func:`model.training.distributed.parallel.build`; ``optimizer`` is a key of
    :data:`model.sizes.OPTIMIZER_BYTES`. The first device's experts get ``imbalance`` times an even
    share of the rows. Raises ValueError if the devices can't share the model that way.
    """
    with _fake_processes(devices):
        with torch.device("meta"):
            # The GPU's code paths, traced on a device called cpu.
            model = GLaM(
                config, compute_dtype=torch.bfloat16, recompute=recompute, expert_backend="grouped"
            )
        parallel.shard(model, parallel.make_grid(config, "cpu", expert_parallel, tensor_parallel))
        for module in model.modules():
            if isinstance(module, Experts):
                assert isinstance(module.compute, AllToAll)
                module.compute = _Shares(module.compute, imbalance)
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with _loss_as_on_cuda(), fake, _Trace(tensor_parallel) as trace:
            model.to_empty(device="cpu")
            tokens_BS = torch.zeros(rows, sequence, dtype=torch.int64)
            model.layers[0].register_forward_pre_hook(trace.watch_gradient)
            for _ in range(2):
                trace.traffic.clear()
                trace.enter(TO_LOSS)
                total = model.loss(tokens_BS, tokens_BS).total
                trace.enter(BACK)
                total.backward()
        parameters = list(model.parameters())
        shards = [_local(p) for p in parameters]
        gradients = sum(_local(p.grad).nbytes for p in parameters)
    state = sum(_optimizer_bytes(shard, optimizer) for shard in shards)
    weights = sum(shard.nbytes for shard in shards)
    # Adafactor holds its updates, and a second copy of the largest one, without activations.
    updates = weights + max(shard.nbytes for shard in shards) if optimizer == "adafactor" else 0
    return Plan(
        weights=weights,
        gradients=gradients,
        optimizer=state,
        peaks=tuple(peak + state for peak in (*trace.peaks, 2 * weights + updates)),
        traffic=dict(trace.traffic),
    )


def _local(tensor: Tensor | None) -> Tensor:
    assert isinstance(tensor, DTensor)
    return tensor.to_local()


def _optimizer_bytes(shard: Tensor, optimizer: str) -> float:
    if optimizer == "adafactor":
        if shard.ndim == 1:
            return 4.0 * shard.numel()
        matrices = shard.shape[:-2].numel()
        return 4.0 * matrices * (shard.shape[-2] + shard.shape[-1])
    return float(OPTIMIZER_BYTES[optimizer] * shard.numel())


def estimate(config: GLaMConfig, **options: Any) -> Plan:
    """:func:`plan` of a deep model in less time, extrapolated from two and four layers."""
    if config.layers <= 4 or config.layers % 2:
        return plan(config, **options)
    two, four = (plan(dataclasses.replace(config, layers=n), **options) for n in (2, 4))

    def extended(a: float, b: float) -> float:
        return a + (b - a) * (config.layers - 2) / 2

    traffic = {}
    for name, more in four.traffic.items():
        less = two.traffic.get(name, Traffic())
        traffic[name] = Traffic(
            extended(less.calls, more.calls),
            extended(less.received, more.received),
            {of: extended(less.by_group.get(of, 0.0), n) for of, n in more.by_group.items()},
        )
    return Plan(
        extended(two.weights, four.weights),
        extended(two.gradients, four.gradients),
        extended(two.optimizer, four.optimizer),
        # Each separately: with more layers another peak may be the highest.
        tuple(map(extended, two.peaks, four.peaks)),
        traffic,
    )


@contextmanager
def _loss_as_on_cuda() -> Iterator[None]:
    """Use CUDA's chunk size, and a reduction in place like the compiled one."""
    before = loss.chunk_tokens, loss.cross_entropy_

    def chunk_tokens(embedding_VM: Tensor, chunk_logits: int | None = None) -> int:
        return max(loss.CHUNK_TOKENS_CUDA, loss.CHUNK_LOGITS_CUDA // len(embedding_VM))

    def cross_entropy_(logits_TV: Tensor, targets_T: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        sums = targets_T.new_zeros(2, len(targets_T), dtype=torch.float32)
        return sums[0], sums[1]

    loss.chunk_tokens, loss.cross_entropy_ = chunk_tokens, cross_entropy_  # type: ignore[assignment]
    try:
        yield
    finally:
        loss.chunk_tokens, loss.cross_entropy_ = before


class _Shares(AllToAll):
    """Sends equal numbers of rows, since fake tensors can't be counted.

    This process, whose experts are the busiest, receives ``imbalance`` times as many.
    """

    def __init__(self, real: AllToAll, imbalance: float) -> None:
        super().__init__(real.compute, real.group, real.tensor)
        self.rows, self.imbalance = 0, imbalance

    def __call__(self, of: ExpertInputs) -> Tensor:
        self.rows = len(of.x_RM)
        return super().__call__(of)

    def exchange_counts(self, counts_PF: Tensor) -> Counts:
        processes, parts = self.group.size(), self.tensor.size()
        share, more = divmod(self.rows, processes)
        sent = [share + (process < more) for process in range(processes)]
        received = round(self.imbalance * sent[0]) if processes > 1 else sent[0]
        there_QF = torch.empty_like(counts_PF).repeat(parts, 1)
        return Counts(there_QF, sent, [received] * processes, [received * processes] * parts)


class _Trace(TorchDispatchMode):
    """Counts live bytes after each operation, and the traffic of collectives."""

    def __init__(self, tensor_parallel: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensor = Group(tensor_parallel, 1)
        self.bytes: weakref.WeakKeyDictionary[Any, list[int]] = weakref.WeakKeyDictionary()
        self.live = 0
        self.peaks = [0, 0, 0]
        self.phase = TO_LOSS
        self.traffic: dict[str, Traffic] = {}
        self._resize = torch.UntypedStorage.resize_

    def __enter__(self) -> Any:
        # FSDP frees gathered weights by resizing their storage, which is no operation.
        def resize(storage: Any, size: int) -> Any:
            out = self._resize(storage, size)
            self._watch(storage)
            return out

        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign, assignment]
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *exception: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0  # the smallest and largest token, undefined here
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, DTensor):
                tensor = tensor._local_tensor  # the outer storage has the global size
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self._watch(tensor.untyped_storage())
        if func.namespace == "c10d":
            self._count(func._opname, args)
        return out

    def enter(self, phase: int) -> None:
        """Start a phase: from now on, live bytes count towards its peak."""
        self.phase = phase
        self.peaks[phase] = max(self.peaks[phase], self.live)

    def watch_gradient(self, _: Any, inputs: tuple[Tensor, ...]) -> None:
        """Hook the gradient of the first layer's input, which ends the layers' backward pass."""
        inputs[0].register_hook(lambda _: self.enter(AFTER_LAYERS))

    def _watch(self, storage: Any) -> None:
        if storage not in self.bytes:
            self.bytes[storage] = [0]
            weakref.finalize(storage, self._forget, self.bytes[storage])
        cell = self.bytes[storage]
        size = storage.nbytes()
        self.live += size - cell[0]
        cell[0] = size
        self.enter(self.phase)

    def _forget(self, cell: list[int]) -> None:
        self.live -= cell[0]

    def _count(self, name: str, args: Any) -> None:
        if name not in COLLECTIVES:
            raise AssertionError(f"collective {name} is not counted")
        first, second, third = args[:3]
        group = dist.ProcessGroup.unbox(second if name == "allreduce_" else third)
        if name == "alltoall_base_":
            own = args[3][0] if args[3] else len(second) // group.size()
            received = first.nbytes * (1 - own / max(1, len(first)))
        elif name == "allreduce_":
            received = 2.0 * sum(tensor.nbytes for tensor in first)
        else:
            received = abs(first.nbytes - second.nbytes)
        ranks = dist.get_process_group_ranks(group)
        joined = Group(len(ranks), ranks[1] - ranks[0] if len(ranks) > 1 else 1)
        # Activations keep their shape; FSDP, perhaps in the same group, gathers flat buffers.
        activations = name in ("alltoall_base_", "_allgather_base_") and first.ndim > 1
        within = activations and joined == self.tensor != Group(1, 1)
        traffic = self.traffic.setdefault(TENSOR if within else COLLECTIVES[name], Traffic())
        traffic.calls += 1
        traffic.received += received
        traffic.by_group[joined] = traffic.by_group.get(joined, 0.0) + received


@contextmanager
def _fake_processes(count: int) -> Iterator[None]:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()
