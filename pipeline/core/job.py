"""Shared by all tasks of a run: its settings, and the destination of its documents."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from pipeline.core import scores
from pipeline.core.scores import Combined, Named
from pipeline.joins.tables import Table
from pipeline.near_duplicates.settings import Settings as NearDuplicates
from pipeline.output import records, schema, shards, summary_files
from pipeline.output.records import Task
from pipeline.output.summary import TaskSummary
from pipeline.readers import FieldMap, ReadOptions
from pipeline.rules.groups import AnyRule
from quality_classifier.scoring import Classifier, ClassifierSet
from winnow.filesystem import files, storage

SCHEMA_VERSION = 4
"""Bump it when the same input and config give different bytes, so that ``--resume`` starts over."""


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
        chosen = (self.metadata, self.clusters, self.copies, self.grades, self.counts)
        return schema.shard_schema(*chosen, self.names, self.joined)

    @property
    def joined(self) -> pa.Schema:
        return pa.schema([field for table in self.joins for field in table.columns])

    @property
    def groupings(self) -> dict[str, Any]:
        """How statistics group each joined column."""
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
        """The folder of near-duplicate marks; None without that search."""
        return self.work if self.clusters else None

    def writer(self, folder: str, task: Task) -> shards.ShardWriter:
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
        summary_files.write(records.summary_path(self.work, task.stem), summary.tables())


@dataclass(frozen=True)
class Job:
    """The resolved settings that all tasks of a run share, with paths that workers can reach.

    ``step_files`` maps each file that a step or join reads to its checksum, and each user-defined
    step or reader to its source's.
    """

    sink: Sink
    classifier: str
    classifier_fingerprint: str
    label: str | None
    seed: int
    steps: Mapping[str, Any]
    step_files: Mapping[str, str]
    fields: Mapping[str, FieldMap]
    reading: ReadOptions
    resume: bool
    near_duplicates: NearDuplicates | None = None
    several: tuple[Named, ...] = ()
    tokenizer: str = ""

    @property
    def scorer(self) -> Classifier | ClassifierSet:
        """The classifier, or several, shared by the threads of a process."""
        return scores.scorer(self.classifier, self.label, self.several)

    def key(self, task: Task, *parts: Any) -> str:
        """The fingerprint of everything that a task's output depends on but its input's bytes."""
        shared = asdict(self)
        for name in ("classifier", "several", "resume"):  # fingerprints identify classifiers
            del shared[name]
        if not self.reading.reader:
            del shared["reading"]["reader"]
        del shared["sink"]["output"]
        if self.sink.combined and not self.sink.combined.joined:
            del shared["sink"]["combined"]["joined"]
        shared["sink"] = _given(shared["sink"], self.sink)
        shared = _given(shared, self)
        return files.fingerprint(SCHEMA_VERSION, shared, asdict(task), *parts)


def _given(settings: Mapping[str, Any], of: Sink | Job) -> dict[str, Any]:
    """The settings of a dataclass that differ from their defaults: the others are unused."""
    defaults = {field.name: field.default for field in fields(of)}
    return {name: value for name, value in settings.items() if value != defaults[name]}
