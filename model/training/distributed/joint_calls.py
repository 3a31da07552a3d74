"""Sharded models outside training, where processes make different numbers of calls.

A sharded model computes only when all its processes call it together. In evaluation and generation
one process has more questions than another, and longer answers. So each announces its calls, and
one that has none left joins the others' calls, with one token, until nobody announces any.
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
    """Within the block each process calls ``model.hidden`` as often as it likes, without gradients.

    Not ``model.forward``: FSDP hooks it as well as ``hidden`` within it, takes them for two calls,
    and loses the root's weights. All processes enter and leave the block together. One whose block
    raises does not wait for the others, which can't continue without it. With a single process
    nothing changes.
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

    # The root's weights now: elsewhere they would be gathered before the announcement.
    model.unshard()
    # Layers alone gather weights, and the first one is called once a pass.
    hook = model.layers[0].register_forward_pre_hook(announce)
    try:
        yield
    finally:
        hook.remove()
    token_BS = torch.zeros(model.config.group_rows or 1, 1, dtype=torch.int64, device=device)
    with torch.no_grad():
        while float(say(False)) > 0:
            model.hidden(token_BS)
