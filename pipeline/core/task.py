"""One task, from raw file to decided shard, on Arrow batches and without Beam.

    read -> identify -> score -> steps -> decide -> summarise -> write

:func:`run_task` reads and scores, and decides if the rule is known. :func:`decide_task` decides
from stored scores, without model or text.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.core import repeated_lines, scores, tokens
from pipeline.core.identity import content_hashes, identify
from pipeline.core.job import Job, Sink
from pipeline.core.joined import TaskJoins
from pipeline.core.scored_documents import drop_duplicates, scored_batches, with_schema
from pipeline.core.task_steps import TaskSteps
from pipeline.near_duplicates.files import BandsWriter
from pipeline.output import records, schema
from pipeline.output.records import Record, Task
from pipeline.readers import Quarantined, ReadReport, digest_range, read_batches
from pipeline.rules.decision import Rule, keep_draw
from pipeline.rules.groups import AnyRule, decide, to_json
from pipeline.steps.host_lines import NAME as HOST_LINES
from winnow.filesystem import storage, tables
from winnow.heartbeat import beat
from winnow.text.counts import measure
from winnow.text.hashing import xxh3_64

Progress = Callable[[pa.RecordBatch, int], None]
"""Called after every batch with the decided batch and the number of raw bytes read for it."""


def run_task(
    task: Task, job: Job, rule: AnyRule | None, folder: str, progress: Progress | None = None
) -> Record:
    """Read, score and (given a ``rule``) decide one input range; write its shards to ``folder``.

    Without a rule every document that no step dropped counts as kept, and there are no statistics
    yet. ``job.resume`` skips tasks with the same key and input, and intact outputs.
    """
    repeated, known = None, []
    if HOST_LINES in job.steps and task.filtered:
        repeated = repeated_lines.load_repeated(job.sink.work, task.stem)
        known = [xxhash.xxh3_128_hexdigest(repeated.tobytes())]
    key = job.key(task, None if rule is None else to_json(rule), *known)
    if job.resume and (done := _done(task, job, key, folder)):
        return done

    digest = _InputDigest()
    seen = 0
    report = ReadReport()
    lacking: Counter[str] = Counter()
    learned = 0
    changed = Counter(dict.fromkeys(job.sink.counts, 0))
    # Pass-through sources skip the steps, as in GLaM.
    steps = TaskSteps(job.steps if task.filtered else {}, repeated)
    joins = TaskJoins(job.sink.joins, job.sink.work)
    summary = job.sink.summary(task, rule or Rule("all"))
    keys: list[pa.RecordBatch] = []
    bands = BandsWriter(job.near_duplicates) if job.near_duplicates else None
    with _Quarantine(job.sink.output, task) as quarantine, job.sink.writer(folder, task) as writer:

        def on_quarantine(record: Quarantined) -> None:
            quarantine.add(record)
            summary.quarantine()

        batches = read_batches(
            task.input, job.fields[task.source], job.reading, on_quarantine=on_quarantine,
            open_input=storage.open_input, digest=digest, report=report,
        )  # fmt: skip
        for batch in batches:
            lacking.update({c: batch[c].null_count for c in batch.schema.names})
            batch = steps.apply(score_batch(batch, task, job, joins))
            if job.tokenizer:
                batch = tokens.counted(batch, job.tokenizer)
            learned += job.scorer.trained_on(batch["content_hash"])
            changed.update({name: pc.sum(batch[name]).as_py() or 0 for name in job.sink.counts})
            keys.append(_keys(batch))
            if bands:
                batch = bands.add(batch)
            batch = decide_batch(batch, rule or Rule("all"), task.filtered)
            if rule:
                summary.update(batch)
            writer.write(job.sink.chosen(batch) if rule else batch)
            if progress:
                progress(batch, digest.size - seen)
                seen = digest.size
    lacking = Counter({column: count for column, count in lacking.items() if count})
    record = Record(
        task, key, digest.hexdigest(), tuple(writer.shards), quarantine.count, quarantine.checksum,
        report.skipped, lacking, report.truncated, report.kinds, learned, changed, steps.changed,
        joins.counts, steps.unchecked,
    )  # fmt: skip
    joins.save(task.stem)
    if bands:
        bands.save(job.sink.work, task.stem)
    if rule:
        summary.change(steps.changed)
        summary.join(joins.counts)
        job.sink.save(summary, task)
    records.save(job.sink.work, record, keys)
    return record


def decide_task(
    scored: Record,
    scored_folder: str,
    sink: Sink,
    rule: AnyRule,
    duplicates: npt.NDArray[np.int64],
    progress: Progress | None = None,
) -> Record:
    """Decide one task from its scored shards; write shards and statistics.

    ``duplicates`` are the rows (int64, sorted) to drop as exact duplicates.
    """
    task = scored.task
    summary = sink.summary(task, rule)
    summary.quarantine(scored.quarantined)
    summary.change(scored.by_step)
    summary.join(scored.joined)
    with sink.writer(storage.join(sink.output, "shards"), task) as writer:
        for batch, repeats, near in scored_batches(scored, scored_folder, sink.marks, duplicates):
            batch = with_schema(sink.combined.again(batch) if sink.combined else batch, sink.schema)
            batch = decide_batch(batch, rule, task.filtered, repeats, near)
            summary.update(batch)
            writer.write(sink.chosen(batch))
            if progress:
                progress(batch, 0)
    sink.save(summary, task)
    return replace(scored, shards=tuple(writer.shards))


def _done(task: Task, job: Job, key: str, folder: str) -> Record | None:
    """The record of a complete task with this key and input."""
    done = records.load(job.sink.work, task)
    if done is None or done.key != key:
        return None
    digest = digest_range(task.input, storage.open_input, _InputDigest(), job.reading)
    same = done.input_digest == digest and records.intact(done, folder, job.sink.output)
    return done if same else None


def score_batch(batch: pa.RecordBatch, task: Task, job: Job, joins: TaskJoins) -> pa.RecordBatch:
    """Fill :func:`pipeline.output.schema.shard_schema` before anything is dropped or decided."""
    n = len(batch)
    text = batch["text"]
    language = job.fields[task.source].language
    n_bytes, n_characters, n_words = measure(text)
    hashes = content_hashes(text)
    ids = identify(batch["id"], task.source, batch["url"], hashes)
    joined = joins.columns(ids, batch["url"])
    columns = {
        **{name: batch[name] for name in batch.schema.names},
        "id": ids,
        "source": pa.array(np.full(n, task.source), pa.string()),
        "bytes": n_bytes,
        "characters": n_characters,
        "words": n_words,
        "content_hash": hashes,
        "language": batch[language] if language else pa.nulls(n, pa.string()),
        "language_score": pa.nulls(n, pa.float32()),
        **scores.columns(text, job.scorer, job.sink.combined, joined),
        **joined,
        "keep_draw": keep_draw(ids, job.seed),
        "keep_probability": np.zeros(n, np.float32),
        "kept": np.zeros(n, np.bool_),
        "drop_reason": pa.nulls(n, pa.string()),
        "cluster": pa.nulls(n, pa.uint64()),
        "cluster_size": pa.nulls(n, pa.int64()),
        **dict.fromkeys(job.sink.counts, np.zeros(n, np.int64)),
    }
    if job.sink.copies:
        columns["copies"] = np.zeros(n, np.int32)
    return pa.RecordBatch.from_pydict(columns, schema=job.sink.schema)


def decide_batch(
    batch: pa.RecordBatch,
    rule: AnyRule,
    filtered: bool,
    repeated: npt.NDArray[np.bool_] | None = None,
    near: npt.NDArray[np.bool_] | None = None,
) -> pa.RecordBatch:
    """Fill ``keep_probability``, ``kept``, ``drop_reason`` and, if present, ``copies``.

    This replaces an earlier decision, but what a step dropped stays dropped. ``repeated`` (bool
    [n]) marks duplicates to drop, ``near`` near-duplicates. Raises ValueError if a document's group
    has no rule.
    """
    rule = rule if filtered else Rule("all")
    score = batch["quality_score"].to_numpy()
    reason = batch["drop_reason"]
    reason = pc.if_else(pc.equal(reason, schema.QUALITY), pa.scalar(None, pa.string()), reason)
    reason = drop_duplicates(reason, repeated, near)
    reaches = pc.is_null(reason).to_numpy(zero_copy_only=False)
    copies, probability = decide(rule, batch, score, reaches)
    kept = copies > 0
    reason = pc.if_else(pa.array(reaches & ~kept), schema.QUALITY, reason)
    counted = {"copies": copies} if "copies" in batch.schema.names else {}
    return tables.replaced(
        batch, keep_probability=probability, kept=kept, drop_reason=reason, **counted
    )


def _keys(scored: pa.RecordBatch) -> pa.RecordBatch:
    ids, candidates = pa.array(xxh3_64(scored["id"])), pc.is_null(scored["drop_reason"])
    columns = [ids, scored["content_hash"], candidates]
    return pa.RecordBatch.from_arrays(columns, schema=records.KEYS)


class _Quarantine(contextlib.ExitStack):
    """Writes a task's unreadable records, if any, to ``quarantine/<stem>.jsonl``."""

    def __init__(self, output: str, task: Task) -> None:
        super().__init__()
        self.count = 0
        self._task = task
        self._path = records.quarantine_path(output, task.stem)
        self._file: BinaryIO | None = None

    def add(self, record: Quarantined) -> None:
        if self._file is None:
            self._file = self.enter_context(storage.open_output(self._path))
        line = {"source": self._task.source, **asdict(record)}
        self._file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
        self.count += 1

    @property
    def checksum(self) -> str | None:
        """The xxh3-128 of the closed file; None if nothing was quarantined."""
        return storage.checksum(self._path) if self.count else None


class _InputDigest:
    """The xxh3-128 and size of an input's raw bytes; each update is a heartbeat."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = xxhash.xxh3_128()

    def update(self, data: bytes) -> None:
        self.size += len(data)
        self._hash.update(data)
        beat()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
