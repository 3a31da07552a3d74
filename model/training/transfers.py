"""Transfers of batches to the device and metrics back, while it computes."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from model.data.stream import Batch


class Batches:
    """Batches by number, on the device.

    For a GPU a thread makes the next batch while the device computes, in pinned memory: from
    pageable memory even a ``non_blocking`` copy waits. ``make`` makes one of ``end`` batches on the
    host. ``ahead`` enables that thread; None is the device's default.
    """

    def __init__(
        self,
        make: Callable[[int], Batch],
        device: torch.device,
        end: int,
        ahead: bool | None = None,
    ) -> None:
        self._make, self._device, self._end = make, device, end
        self._pin = device.type == "cuda"
        ahead = self._pin if ahead is None else ahead
        self._pool = ThreadPoolExecutor(1, "batches") if ahead else None
        self._next: tuple[int, Future[Batch]] | None = None

    def __call__(self, number: int) -> Batch:
        """A batch; raises any error of the thread that made it."""
        made = None
        if self._next is not None:
            ready, future = self._next
            self._next = None
            made = future.result() if ready == number else None
        if made is None:
            made = self._prepared(number)
        if self._pool is not None and number + 1 < self._end:
            self._next = number + 1, self._pool.submit(self._prepared, number + 1)
        return Batch(*(column.to(self._device, non_blocking=True) for column in made))

    def _prepared(self, number: int) -> Batch:
        made = self._make(number)
        return Batch(*(column.pin_memory() for column in made)) if self._pin else made


class Readback:
    """Float32 tensors of one device, copied to the host in one asynchronous transfer."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._shapes = {name: value.shape for name, value in values.items()}
        self._flat = torch.cat([value.reshape(-1) for value in values.values()])
        self._arrived: torch.cuda.Event | None = None
        if self._flat.is_cuda:
            there = torch.empty(self._flat.shape, dtype=self._flat.dtype, pin_memory=True)
            self._flat = there.copy_(self._flat, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> dict[str, Any]:
        """Wait for the transfer; return numbers and nested lists by name."""
        if self._arrived is not None:
            self._arrived.synchronize()
        parts = self._flat.split([shape.numel() for shape in self._shapes.values()])
        return {
            name: part.view(shape).tolist()
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
