"""Lines that repeat across a host, found from hashes alone, before anything is scored.

Each task has two files in the work folder: ``<stem>.lines.arrow``, the hashes of its lines and
their texts, and ``<stem>.repeated.arrow``, the keys of its lines that repeat in the run.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.near_duplicates.components import home
from pipeline.output.records import Task
from pipeline.readers import FieldMap, ReadOptions, read_batches
from pipeline.steps.words.folded_lines import BLANK, Keys, line_keys
from winnow import heartbeat
from winnow.filesystem import storage, tables
from winnow.sorted_keys import among
from winnow.spool import split
from winnow.text.hashing import xxh3_64


@dataclass(frozen=True)
class Lines:
    """Distinct pairs of a line and a text that has it, of one task.

    ``keys`` (uint64 [n]) come from :func:`pipeline.steps.words.folded_lines.line_keys`; ``texts``
    (uint64 [n]) are hashes of documents.
    """

    stem: str
    keys: Keys
    texts: Keys


def buckets(n_tasks: int) -> int:
    """The number of buckets: 9 million pairs in each for 3 billion pages of 25 lines."""
    return min(8192, max(64, n_tasks // 8))


def read_lines(task: Task, fields: FieldMap, reading: ReadOptions, work: str) -> None:
    """Read a task's documents and write their lines. Bad records are quarantined later."""
    found = [(np.empty(0, np.uint64), np.empty(0, np.uint64))]
    batches = read_batches(
        task.input, fields, reading, on_quarantine=lambda _: None, open_input=storage.open_input
    )
    for batch in batches:
        keys, lines = line_keys(batch["text"], batch["url"])
        texts = np.repeat(xxh3_64(batch["text"]), lines)
        compared = keys != BLANK
        found.append(_distinct(keys[compared], texts[compared]))
        heartbeat.beat()
    keys, texts = _distinct(*(np.concatenate(column) for column in zip(*found, strict=True)))
    tables.write(_lines_path(work, task.stem), pa.table({"key": keys, "text": texts}))


def load_lines(task: Task, work: str) -> Lines:
    """What :func:`read_lines` wrote for a task."""
    table = tables.read(_lines_path(work, task.stem))
    heartbeat.beat()
    return Lines(task.stem, table["key"].to_numpy(), table["text"].to_numpy())


def in_buckets(lines: Lines, buckets: int) -> Iterator[tuple[int, Lines]]:
    """The lines of a task by the bucket in which equal ones meet."""
    for bucket, mine in split(home(lines.keys, buckets)):
        yield bucket, Lines(lines.stem, lines.keys[mine], lines.texts[mine])


def repeated(bucket: Iterable[Lines], max_documents: int) -> Iterator[tuple[str, Keys]]:
    """Each task's stem and keys (uint64, ascending) of lines in over ``max_documents`` texts."""
    heartbeat.beat()
    parts = list(bucket)
    every = [np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "texts")]
    keys, texts = np.unique(_distinct(*every)[0], return_counts=True)
    often = keys[texts > max_documents]
    for part in parts:
        mine = among(often, part.keys)
        if mine.any():
            yield part.stem, np.unique(part.keys[mine])


def save_repeated(work: str, stem: str, parts: Iterable[Keys]) -> None:
    """Write the keys of a task's repeated lines, from their parts in any order."""
    keys = np.sort(np.concatenate([np.empty(0, np.uint64), *parts]))
    tables.write(_repeated_path(work, stem), pa.table({"key": keys}))


def load_repeated(work: str, stem: str) -> Keys:
    """What :func:`save_repeated` wrote for a task: uint64, ascending."""
    keys: Keys = tables.read(_repeated_path(work, stem))["key"].to_numpy()
    return keys


def _distinct(keys: Keys, texts: Keys) -> tuple[Keys, Keys]:
    order = np.lexsort((texts, keys))
    keys, texts = keys[order], texts[order]
    first: npt.NDArray[np.bool_] = np.ones(len(keys), np.bool_)
    first[1:] = (keys[1:] != keys[:-1]) | (texts[1:] != texts[:-1])
    return keys[first], texts[first]


def _lines_path(work: str, stem: str) -> str:
    return storage.join(work, f"{stem}.lines.arrow")


def _repeated_path(work: str, stem: str) -> str:
    return storage.join(work, f"{stem}.repeated.arrow")
