"""Sharded models outside training, where processes make different numbers of calls.

A sharded model computes only when all its processes call it together, but in evaluation and
generation some need more calls than others. So each process announces its calls; one that has
finished joins the others' calls, with one token, until no process announces any.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from model.glam.transformer import GLaM
from model.training.distributed import processes


@contextlib.contextmanager
def joint_calls(model: GLaM) -> Iterator[None]:
    """Let each process call ``model.hidden`` any number of times, without gradients.

    Not ``model.forward``: FSDP would take it and ``hidden`` within it for two calls, and lose the
    root's weights. All processes enter and leave the block together, but one whose block raises
    does not wait: the others can't continue without it. No-op with a single process.
    """
    if processes.count() == 1:
        yield
        return
    assert isinstance(model, FSDPModule)
    device = model.embedding.weight.device

    def say(calls: bool) -> torch.Tensor:
        return processes.total(torch.full((), float(calls), device=device))

    def announce(*_: Any) -> None:
        say(True)

    # Gather the root's weights now; later this would precede the announcement.
    model.unshard()
    # Then only layers gather weights, and each pass calls the first one once.
    hook = model.layers[0].register_forward_pre_hook(announce)
    try:
        yield
    finally:
        hook.remove()
    token_BS = torch.zeros(model.config.group_rows or 1, 1, dtype=torch.int64, device=device)
    with torch.no_grad():
        while float(say(False)) > 0:
            model.hidden(token_BS)
