"""Runs functions in several gloo processes and gives back what the first one returned."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from model.glam.config import GLaMConfig
from model.glam.transformer import GLaM
from model.training.distributed import parallel, processes

# One interpreter imports torch, the processes are forked from it before it has any thread.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "model.training.distributed.parallel",
        "model.training.checkpoints.checkpoint",
        "model.training.optimizers.optim",
    ]
)

CONFIG = GLaMConfig(
    vocabulary=97, layers=4, width=16, hidden=32, heads=2, head_width=8, experts=8, group_rows=1
)
ROWS, LENGTH = 8, 12


def run(world: int, folder: Path, calls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """One call after the other in each of ``world`` processes; the results, by name."""
    processes = [
        CONTEXT.Process(target=_process, args=(rank, world, folder, calls)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * world, f"exit codes {codes}"
    return torch.load(folder / "results.pt", weights_only=True)


def _process(rank: int, world: int, folder: Path, calls: dict[str, Callable[[], Any]]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    results = {name: call() for name, call in calls.items()}
    if rank == 0:
        torch.save(results, folder / "results.pt")
    dist.destroy_process_group()


def make_model(
    config: GLaMConfig,
    expert_parallel: int | None,
    dtype: torch.dtype,
    recompute: bool = False,
    tensor_parallel: int = 1,
) -> GLaM:
    return parallel.build(
        config,
        torch.device("cpu"),
        compute_dtype=dtype,
        seed=3,
        expert_parallel=expert_parallel if processes.count() > 1 else None,
        tensor_parallel=tensor_parallel if processes.count() > 1 else 1,
        recompute=recompute,
    )


def make_optimizer(model: GLaM) -> torch.optim.Optimizer:
    """SGD: a wrong scale of some gradients shows in the next losses, which Adam would hide."""
    return torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """This process's rows of the tokens, targets and segments of a step."""
    generator = torch.Generator().manual_seed(step)
    stream = torch.randint(0, CONFIG.vocabulary, (ROWS, LENGTH + 1), generator=generator)
    segments = torch.randint(0, 2, (ROWS, LENGTH), generator=generator).cumsum(1).int()
    share = ROWS // processes.count()
    mine = slice(processes.rank() * share, (processes.rank() + 1) * share)
    return stream[mine, :-1], stream[mine, 1:], segments[mine]


def learn(model: GLaM, optimizer: torch.optim.Optimizer, steps: range) -> list[list[float]]:
    """Loss, balance loss and norm of the gradient, step by step."""
    history = []
    for step in steps:
        tokens, targets, segments = batch(step)
        losses = model.loss(tokens, targets, segments)
        losses.total.backward()
        norm = processes.total_norm(p.grad for p in model.parameters() if p.grad is not None)
        means = processes.mean({"loss": losses.cross_entropy.detach(), "balance": losses.balance})
        history.append([*(float(value) for value in means.values()), float(norm)])
        optimizer.step()
        optimizer.zero_grad()
    return history
