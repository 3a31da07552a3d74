"""Records of finished tasks, which a resumed run skips and the end of a run merges.

The folder ``_work`` holds three small files per task: ``<stem>.summary.arrow`` (statistics, once
decided), ``<stem>.keys.arrow`` (ids and content hashes) and, last, ``<stem>.json``, which marks the
task as finished.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.output.shards import Shard
from pipeline.readers import InputRange
from winnow import heartbeat
from winnow.filesystem import storage, tables

WORK = "_work"
SCORED = f"{WORK}/scored"
PROGRESS = f"{WORK}/{heartbeat.FOLDER}"
FOLDERS = (WORK, SCORED, PROGRESS)
"""Folders of intermediate files, removed at the end of a run."""

TASKS = "tasks.json"

KEYS = pa.schema(
    tables.required(id_hash=pa.uint64(), content_hash=pa.binary(16), candidate=pa.bool_())
)
"""One row per document of a task, in order; no step dropped the candidates."""


@dataclass(frozen=True)
class Task:
    """One input range of one source: the unit of work, of resume and of shard names.

    ``order`` breaks ties between duplicates: pass-through sources come first.
    """

    source: str
    filtered: bool
    input: InputRange
    index: int
    of: int
    order: int

    @property
    def stem(self) -> str:
        """``data-<source>-<index>-of-<count>``, the stem of all of the task's files."""
        return f"data-{self.source}-{self.index:05d}-of-{self.of:05d}"


@dataclass(frozen=True)
class Record:
    """A finished task.

    Attributes:
        key: the fingerprint of everything its output depends on except the bytes of the input.
        input_digest: the xxh3-128 of these bytes.
        kinds: documents of web archives and HTML files, by their origin.
        lacking: documents without a value, by column: ``id``, ``url`` and metadata.
        truncated: documents that were truncated before we read them.
        trained_on: documents that the classifier was trained on.
        changed: sums of the columns that count steps' changes and tokens.
        by_step: changes of texts, by step (:class:`pipeline.core.task_steps.TaskSteps`).
        joined: matches, by join (:class:`pipeline.core.joined.TaskJoins`).
        unchecked: documents that a step passed for want of settings, by step and language.
    """

    task: Task
    key: str
    input_digest: str
    shards: tuple[Shard, ...]
    quarantined: int
    quarantine_checksum: str | None
    skipped: Mapping[str, int] = field(default_factory=dict)
    lacking: Mapping[str, int] = field(default_factory=dict)
    truncated: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    trained_on: int = 0
    changed: Mapping[str, int] = field(default_factory=dict)
    by_step: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    joined: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unchecked: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; :func:`from_json` is the inverse."""
        counts = ("skipped", "lacking", "kinds", "changed")
        value = asdict(self) | {name: dict(getattr(self, name)) for name in counts}
        for name in ("changed", "by_step", "joined", "unchecked"):
            if not value[name]:
                del value[name]
        return value


def from_json(value: Mapping[str, Any]) -> Record:
    """The record that :meth:`Record.to_json` wrote."""
    shards = tuple(Shard(**shard) for shard in value["shards"])
    return Record(**{**value, "task": _task(value["task"]), "shards": shards})


def _task(value: Mapping[str, Any]) -> Task:
    return Task(**{**value, "input": InputRange(**value["input"])})


def quarantine_path(output: str, stem: str) -> str:
    return storage.join(output, "quarantine", f"{stem}.jsonl")


def save_tasks(work: str, tasks: Sequence[Task]) -> None:
    """Write the tasks of a run for :func:`load_tasks`, the largest first to start with them."""
    largest_first = sorted(tasks, key=lambda task: -task.input.size)
    storage.write_json(storage.join(work, TASKS), [asdict(task) for task in largest_first])


def load_tasks(work: str) -> list[Task]:
    """The tasks that :func:`save_tasks` wrote, in its order."""
    return [_task(value) for value in json.loads(storage.read_bytes(storage.join(work, TASKS)))]


def summary_path(work: str, stem: str) -> str:
    """The file with a decided task's statistics (:mod:`pipeline.output.summary_files`)."""
    return storage.join(work, f"{stem}.summary.arrow")


def save(work: str, record: Record, keys: Sequence[pa.RecordBatch]) -> None:
    """Write a finished task's keys and, last, its record."""
    stem = record.task.stem
    with (
        storage.open_output(storage.join(work, f"{stem}.keys.arrow")) as file,
        pa.ipc.new_stream(file, KEYS) as writer,
    ):
        for batch in keys:
            writer.write_batch(batch)
    storage.write_json(storage.join(work, f"{stem}.json"), record.to_json())


def load(work: str, task: Task) -> Record | None:
    """The record of a task, or None if it is unfinished."""
    path = storage.join(work, f"{task.stem}.json")
    return from_json(json.loads(storage.read_bytes(path))) if storage.exists(path) else None


def load_keys(work: str, task: Task) -> pa.Table:
    """Ids and content hashes of a finished task's documents (:data:`KEYS`)."""
    data = storage.read_bytes(storage.join(work, f"{task.stem}.keys.arrow"))
    heartbeat.beat()
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()


def intact(record: Record, folder: str, output: str) -> bool:
    """Whether all outputs in a record exist and have their checksums."""
    named = [(storage.join(folder, shard.name), shard.checksum) for shard in record.shards]
    if record.quarantine_checksum is not None:
        named.append((quarantine_path(output, record.task.stem), record.quarantine_checksum))
    return all(
        storage.exists(path) and storage.checksum(path) == checksum for path, checksum in named
    )
