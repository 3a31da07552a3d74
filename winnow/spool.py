"""Group more than memory holds by key: GroupByKey on a single machine."""

import contextlib
import pickle
import tempfile
from collections.abc import Hashable, Iterable, Iterator
from typing import IO, Generic, TypeVar

import numpy as np
import numpy.typing as npt

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

FILES = 256
"""Limit of a spool's open files; systems allow 1024 per process."""


def split(buckets: npt.NDArray[np.integer]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """The ascending indices of each bucket that occurs."""
    order = np.argsort(buckets, kind="stable")
    numbers, first = np.unique(buckets[order], return_index=True)
    for number, rows in zip(numbers, np.split(order, first)[1:], strict=True):
        yield int(number), rows


class Spool(contextlib.ExitStack, Generic[K, V]):
    """(key, value) pairs in unnamed files in ``$TMPDIR``, gone on close or when the process dies.

    No other process can write them, so they are safe to unpickle.
    """

    def __init__(self, pairs: Iterable[tuple[K, V]] = ()) -> None:
        super().__init__()
        self._numbers: dict[K, int] = {}
        self._files: list[IO[bytes]] = []
        for key, value in pairs:
            self.add(key, value)

    def add(self, key: K, value: V) -> None:
        number = self._numbers.setdefault(key, len(self._numbers)) % FILES
        if number == len(self._files):
            file = tempfile.TemporaryFile(prefix="winnow-")  # noqa: SIM115 closed with all
            self._files.append(self.enter_context(file))
        pickle.dump((key, value), self._files[number], protocol=4)  # 5 is slow for small arrays

    def __iter__(self) -> Iterator[tuple[K, list[V]]]:
        """Each key with its values in the order added; memory holds one file at a time."""
        for number in range(len(self._files)):
            groups: dict[K, list[V]] = {}
            for key, value in self._read(number):
                groups.setdefault(key, []).append(value)
            yield from groups.items()

    def of(self, key: K) -> list[V]:
        """The values of one key, in the order added."""
        if key not in self._numbers:
            return []
        return [value for own, value in self._read(self._numbers[key] % FILES) if own == key]

    def _read(self, number: int) -> Iterator[tuple[K, V]]:
        file = self._files[number]
        end = file.tell()
        file.seek(0)
        while file.tell() < end:
            yield pickle.load(file)


def grouped(pairs: Iterable[tuple[K, V]]) -> Iterator[tuple[K, list[V]]]:
    """Each key with its values, once all pairs have been read."""
    with Spool(pairs) as spool:
        yield from spool
