"""Runs functions in several gloo processes and gives back what the first one returned."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from model.glam.config import GLaMConfig
from model.glam.transformer import GLaM
from model.training.distributed import parallel, processes

CONFIG = GLaMConfig(
    vocabulary=97, layers=4, width=16, hidden=32, heads=2, head_width=8, experts=8, group_rows=1
)
ROWS, LENGTH = 8, 12


def run(
    python: Path, world: int, folder: Path, calls: dict[str, Callable[[], Any]]
) -> dict[str, Any]:
    """One call after the other in each of ``world`` processes; the results, by name.

    Args:
        python: what runs this file in a process; the ``quick_python`` has torch imported.
        world: how many processes.
        folder: an empty one, for what they exchange.
        calls: partial functions of modules.
    """
    (folder / "calls").write_bytes(pickle.dumps(calls))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen([python, __file__, folder, str(world), str(rank)], env=environment)
        for rank in range(world)
    ]
    try:
        codes = [process.wait(300) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert codes == [0] * world, f"exit codes {codes}"
    return torch.load(folder / "results.pt", weights_only=True)


def _process(folder: str, world: int, rank: int) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
    calls = pickle.loads(Path(folder, "calls").read_bytes())
    results = {name: call() for name, call in calls.items()}
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
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


if __name__ == "__main__":
    _process(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
