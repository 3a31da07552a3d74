"""A Python stream for pyarrow that tells damaged data from a failing disk."""

from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa

DAMAGE = (pa.ArrowException, OSError, MemoryError, ValueError, OverflowError, UnicodeDecodeError)
"""What pyarrow raises for damaged data, OSError among them: see :meth:`Source.check`."""


class Section:
    """The bytes ``[start, end)`` of a stream, as a stream."""

    def __init__(self, stream: BinaryIO, start: int, end: int) -> None:
        self._stream = stream
        self._start = start
        self._size = end - start
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._at, 0)
        self._stream.seek(self._start + self._at)
        data = self._stream.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max((0, self._at, self._size)[whence] + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Source:
    """Passes ``stream`` to pyarrow and remembers the error if reading itself fails."""

    def __init__(self, stream: BinaryIO) -> None:
        self.watch: Callable[[int, bytes], None] | None = None  # gets, and may refuse, what is read
        self._stream = stream
        self._error: OSError | None = None

    def arrow(self) -> pa.NativeFile:
        self._stream.seek(0)
        return pa.PythonFile(self, mode="r")

    def check(self) -> None:
        """Raise the OSError of the stream, if reading failed: then the data is not damaged."""
        if self._error is not None:
            raise self._error

    def read(self, size: int = -1) -> bytes:
        try:
            position = self._stream.tell()
            data = self._stream.read(size)
        except OSError as error:
            self._error = error
            raise
        if self.watch:
            self.watch(position, data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
