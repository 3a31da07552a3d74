"""The table of a join: its rows sorted by the hash of their key, in buckets, each an Arrow file.

``join-<name>-<bucket>.arrow`` in the work folder is one record batch of ``hash`` (of the key,
uint64, ascending), ``key`` and the joined columns. Processes share memory maps of local files; each
copies those in an object store to ``$TMPDIR``. Keys are compared, not only their hashes.
"""

import base64
import functools
import mmap
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from winnow.filesystem import storage
from winnow.sorted_keys import find
from winnow.spool import split
from winnow.text.hashing import xxh3_64
from winnow.text.hosts import hosts
from winnow.text.urls import canonical

Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Table:
    """The description of the built table of the join ``name``. All values are JSON.

    Attributes:
        key: ``id``, ``url`` or ``host``.
        fingerprint: of the settings and files.
        buckets: rows in each; their number is a power of two.
        schema: of the joined columns, as named in the shards (:func:`encoded`).
        groupings: how statistics group documents by each column.
        duplicates: rows that were left out as duplicates.
        without_key: rows without a key.
    """

    name: str
    key: str
    fingerprint: str
    buckets: tuple[int, ...]
    schema: str
    groupings: Mapping[str, Any]
    duplicates: int
    without_key: int

    @property
    def columns(self) -> pa.Schema:
        return decoded(self.schema)

    @property
    def rows(self) -> int:
        """Rows in all buckets."""
        return sum(self.buckets)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"buckets": list(self.buckets)}


def encoded(columns: pa.Schema) -> str:
    """An Arrow schema as text: its IPC message in base64."""
    return base64.b64encode(columns.serialize()).decode()


def decoded(text: str) -> pa.Schema:
    """The schema that :func:`encoded` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def keys_of(values: pa.Array, key: str) -> pa.Array:
    """The keys (string [n], may be null) of n ids, URLs or hosts.

    A host may also be reversed as in Common Crawl's index: ``com,example``.
    """
    match key:
        case "url":
            return canonical(values)
        case "host":
            return pc.replace_substring_regex(hosts(_forwards(values)), r"^www\.", "")
    return values


def _forwards(values: pa.Array) -> pa.Array:
    """The same names, with those that begin with the top-level domain reversed."""
    backwards = pc.match_substring_regex(values, r"^[^/.:,]+(?:,[^/.:,]+)+,?\)?/?$")
    names = pc.filter(values, backwards).to_pylist()
    forwards = [".".join(reversed(name.rstrip("/),").split(","))) for name in names]
    return pc.replace_with_mask(values, backwards.fill_null(False), pa.array(forwards, pa.string()))


def bucket_of(hashes: Hashes, buckets: int) -> Rows:
    """The buckets of n hashes, by their first bits: buckets are in the order of hashes."""
    bits = buckets.bit_length() - 1
    return (hashes >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(hashes), int)


def bucket_path(work: str, name: str, bucket: int) -> str:
    return storage.join(work, f"join-{name}-{bucket:05d}.arrow")


def about_path(work: str, name: str) -> str:
    """The file that describes a table; written last."""
    return storage.join(work, f"join-{name}.json")


class Lookup:
    """Looks up keys in a built table. Threads may share one."""

    def __init__(self, table: Table, work: str) -> None:
        self._table = table
        self._work = work
        self._first = np.cumsum((0, *table.buckets))
        self._open: dict[int, pa.RecordBatch] = {}

    def find(self, keys: pa.Array) -> Rows:
        """The row numbers, over all buckets, of n keys: int64 [n], -1 for none."""
        found = np.full(len(keys), -1)
        asked = np.flatnonzero(keys.is_valid().to_numpy(zero_copy_only=False))
        wanted = keys.take(pa.array(asked))
        hashes = xxh3_64(wanted)
        for number, mine in split(bucket_of(hashes, len(self._table.buckets))):
            if self._table.buckets[number]:
                rows = _rows(self._bucket(number), hashes[mine], wanted.take(pa.array(mine)))
                found[asked[mine]] = np.where(rows < 0, -1, rows + self._first[number])
        return found

    def take(self, rows: Rows) -> list[pa.Array]:
        """The joined columns of n rows, null where a row is -1."""
        known = np.flatnonzero(rows >= 0)
        parts, order = [], [np.empty(0, np.int64)]
        for number, mine in split(np.searchsorted(self._first, rows[known], "right") - 1):
            own = pa.array(rows[known[mine]] - self._first[number])
            parts.append(self._bucket(number).select(self._table.columns.names).take(own))
            order.append(known[mine])
        if not parts:
            return [pa.nulls(len(rows), field.type) for field in self._table.columns]
        together = pa.concat_batches(parts)
        at = np.zeros(len(rows), np.int64)
        at[np.concatenate(order)] = np.arange(len(known))
        return list(together.take(pa.array(at, mask=rows < 0)).columns)

    def _bucket(self, number: int) -> pa.RecordBatch:
        if number not in self._open:
            pages = _mapped(bucket_path(self._work, self._table.name, number))
            self._open[number] = pa.ipc.open_file(pa.py_buffer(pages)).get_batch(0)
        return self._open[number]


def _rows(bucket: pa.RecordBatch, hashes: Hashes, keys: pa.Array) -> Rows:
    """The rows of n keys in a bucket: int64 [n], -1 for none.

    The rows with a key's hash are adjacent; usually there is one.
    """
    ascending, stored = bucket["hash"].to_numpy(), bucket["key"]
    at, alike = find(ascending, hashes)
    found = np.full(len(keys), -1)
    open_rows = np.flatnonzero(alike)
    while len(open_rows):
        place = at[open_rows]
        same = pc.equal(stored.take(pa.array(place)), keys.take(pa.array(open_rows)))
        same = same.to_numpy(zero_copy_only=False)
        found[open_rows[same]] = place[same]
        after = place + 1
        more = ~same & (after < len(ascending))
        more[more] = ascending[after[more]] == hashes[open_rows[more]]
        at[open_rows] = after
        open_rows = open_rows[more]
    return found


@functools.lru_cache(maxsize=8)
def lookup(work: str, name: str, fingerprint: str) -> Lookup:
    """The table of a join in a work folder, shared by the threads of a process."""
    table = read_about(work, name)
    if table is None or table.fingerprint != fingerprint:
        raise ValueError(f"{about_path(work, name)} is missing or outdated: start a new run")
    return Lookup(table, work)


def read_about(work: str, name: str) -> Table | None:
    """The description of a table, or None if it is incomplete."""
    path = about_path(work, name)
    if not storage.exists(path):
        return None
    value = storage.read_json(path)
    return Table(**{**value, "buckets": tuple(value["buckets"])})


def _mapped(path: str) -> mmap.mmap:
    """Map a file, or an unnamed copy of one in an object store."""
    with storage.open_input(path) as stream:
        if storage.scheme(path) is None:
            return mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        with tempfile.TemporaryFile(prefix="winnow-") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
            copy.flush()
            return mmap.mmap(copy.fileno(), 0, prot=mmap.PROT_READ)
