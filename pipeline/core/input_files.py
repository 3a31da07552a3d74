"""A task's record of its input: unreadable records, and a hash of its bytes."""

import contextlib
import json
from dataclasses import asdict
from typing import BinaryIO

import xxhash

from pipeline.output import records
from pipeline.output.records import Task
from pipeline.readers import Quarantined
from winnow.filesystem import storage
from winnow.heartbeat import beat


class Quarantine(contextlib.ExitStack):
    """Writes a task's unreadable records, if any, to ``quarantine/<stem>.jsonl``."""

    def __init__(self, output: str, task: Task) -> None:
        super().__init__()
        self.count = 0
        self._task = task
        self._path = records.quarantine_path(output, task.stem)
        self._file: BinaryIO | None = None

    def add(self, record: Quarantined) -> None:
        """Append one record as a JSON line."""
        if self._file is None:
            self._file = self.enter_context(storage.open_output(self._path))
        line = {"source": self._task.source, **asdict(record)}
        self._file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
        self.count += 1

    @property
    def checksum(self) -> str | None:
        """The xxh3-128 of the closed file; None if nothing was quarantined."""
        return storage.checksum(self._path) if self.count else None


class InputDigest:
    """The xxh3-128 and the size of an input's raw bytes; each update is a heartbeat."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = xxhash.xxh3_128()

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        self.size += len(data)
        self._hash.update(data)
        beat()

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()
