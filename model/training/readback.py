"""Copies of numbers from the device, which the host waits for only when it reads them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Readback:
    """Float32 tensors of one device, copied to the host in one transfer.

    On CUDA the copy waits for what was queued before it, and for nothing queued later.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._shapes = {name: value.shape for name, value in values.items()}
        self._flat = torch.cat([value.reshape(-1) for value in values.values()])
        self._arrived: torch.cuda.Event | None = None
        if self._flat.is_cuda:  # needs a GPU: not run where this was written
            there = torch.empty(self._flat.shape, dtype=self._flat.dtype, pin_memory=True)
            self._flat = there.copy_(self._flat, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> dict[str, Any]:
        """Wait for them; numbers and nested lists by name."""
        if self._arrived is not None:
            self._arrived.synchronize()
        parts = self._flat.split([shape.numel() for shape in self._shapes.values()])
        return {
            name: part.view(shape).tolist()
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
