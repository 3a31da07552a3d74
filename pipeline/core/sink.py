"""The destination of a run's decided documents: folder, columns, format."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.core.scores import Combined
from pipeline.joins.tables import Table
from pipeline.output import records, schema, shards, summary_files
from pipeline.output.records import Task
from pipeline.output.summary import TaskSummary
from pipeline.rules.groups import AnyRule
from winnow.filesystem import storage


@dataclass(frozen=True)
class Sink:
    """Where and how to write shards. Picklable, like a job."""

    output: str
    metadata: tuple[str, ...]
    write: str
    shard_bytes: int
    compression: str
    clusters: bool = False
    copies: bool = False
    grades: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    combined: Combined | None = None
    format: str = "arrow"
    joins: tuple[Table, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """The columns of the shards."""
        return schema.shard_schema(
            self.metadata,
            self.clusters,
            self.copies,
            self.grades,
            self.counts,
            self.names,
            self.joined,
        )

    @property
    def joined(self) -> pa.Schema:
        """The joined columns."""
        return pa.schema([field for table in self.joins for field in table.columns])

    @property
    def groupings(self) -> dict[str, Any]:
        """The grouping of each joined column in statistics."""
        return {
            name: grouping for table in self.joins for name, grouping in table.groupings.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The classifiers, if there are several."""
        return self.combined.names if self.combined else ()

    @property
    def work(self) -> str:
        """The folder for intermediate files; a complete run has none."""
        return storage.join(self.output, records.WORK)

    @property
    def marks(self) -> str | None:
        """The folder of the tasks' near-duplicate marks; None without that search."""
        return self.work if self.clusters else None

    def writer(self, folder: str, task: Task) -> shards.ShardWriter:
        """A writer of a task's shards into ``folder``."""
        return shards.ShardWriter(
            folder, task.stem, self.schema, self.shard_bytes, self.compression, self.format
        )

    def chosen(self, decided: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a decided batch to write."""
        return decided.filter(decided["kept"]) if self.write == "kept" else decided

    def summary(self, task: Task, rule: AnyRule) -> TaskSummary:
        """Empty statistics of a task."""
        return TaskSummary(task.source, task.filtered, rule, self.names, self.groupings)

    def save(self, summary: TaskSummary, task: Task) -> None:
        """Write the statistics of a decided task."""
        summary_files.write(records.summary_path(self.work, task.stem), summary.tables())
