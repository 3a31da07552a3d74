"""Pairs of documents for a blind reading test: one source, similar length, different score.

Equal sources and lengths (within :data:`LENGTH_RATIO`) give nothing away. No document is in two
pairs, so pairs are independent trials. Pairs are spread evenly over strata of the score distance
(:data:`EDGES`) and, within these, over sources: most random pairs would have nearly equal scores.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output import schema
from pipeline.rules.decision import keep_draw
from winnow.filesystem import storage, tables
from winnow.filesystem.tables import required
from winnow.text.hashing import xxh3_64

EDGES = (0.01, 0.1, 0.3, 0.6)
"""Minimum score distances of the strata; scores are not exact enough for smaller ones."""

LENGTH_RATIO = 1.25
SAMPLE = 4000
"""Documents of a source to make pairs from."""

NEIGHBOURS = 16
"""Maximum distance of a pair in the order of length."""

CHARACTERS = 3000
"""The part of a text that a reader sees."""

_SEED = 0x70616972  # not the keep draw's, whatever the run's seed
_SIDE = required(id=pa.string(), score=pa.float32(), text=pa.string(), cut=pa.bool_())
PAIRS = pa.schema(
    [
        *required(source=pa.string()),
        *(field.with_name(f"{side}_{field.name}") for side in ("left", "right") for field in _SIDE),
    ]
)
"""Pairs in reading order; a hash decides which document is on the left. ``cut``: truncated text."""

_NEEDED = {"id", "bytes", "quality_score", "kept", "drop_reason", "content_hash"}

IntArray = npt.NDArray[np.int64]


def draw_pairs(folder: str, manifest: Mapping[str, Any], n: int) -> pa.Table:
    """At most n pairs (:data:`PAIRS`) of a finished run, the same whenever they are drawn.

    From the filtered sources, or all if none is filtered, of documents that reached the keep
    decision. Reads all scores, but only the texts of the pairs.

    Raises:
        ValueError: no two documents make a pair.
    """
    config = manifest["config"]
    shards = sorted(
        (shard["name"], task["task"]["source"])
        for task in manifest["tasks"]
        for shard in task["shards"]
    )
    wanted = set(config["filter"]) or set(config["source"])
    paths = [storage.join(folder, "shards", name) for name, _ in shards]
    chosen = [(i, source) for i, (_, source) in enumerate(shards) if source in wanted]
    sample = _sample(paths, chosen, config["seed"] ^ _SEED)
    rows = pair_up(sample, n) if sample else np.zeros((0, 2), np.int64)
    if sample is None or not len(rows):
        raise ValueError(
            f"{folder} has no two documents of one source and similar length whose scores differ by"
            f" {EDGES[0]} or more: there is nothing to compare"
        )
    rows = _presented(sample["id"], rows, config["seed"] ^ _SEED)
    texts = _texts(paths, sample, rows.ravel())
    columns: dict[str, Any] = {"source": sample["source"].take(rows[:, 0])}
    for side, own in zip(("left", "right"), rows.T, strict=True):
        text = texts.take(pa.array(np.arange(len(rows)) * 2 + (side == "right")))
        columns |= {
            f"{side}_id": sample["id"].take(own),
            f"{side}_score": sample["score"].take(own),
            f"{side}_text": pc.utf8_slice_codeunits(text, 0, CHARACTERS),
            f"{side}_cut": pc.greater(pc.utf8_length(text), CHARACTERS),
        }
    return pa.table(columns, schema=PAIRS)


def pair_up(sample: pa.Table, n: int) -> IntArray:
    """Rows of at most n pairs: int64 [m, 2].

    ``sample`` has ``source``, ``score``, ``bytes`` and ``rank`` (uniform, unique). Within a stratum
    and source, pairs are sorted by their larger rank: a fair sample of all pairs.
    """
    names = sorted(sample["source"].unique().to_pylist())
    source = sample["source"].combine_chunks()
    queues: list[deque[Iterator[tuple[int, int]]]] = [deque() for _ in EDGES]
    for name in names:
        rows = np.flatnonzero(pc.equal(source, name).to_numpy(zero_copy_only=False))
        for queue, pairs in zip(queues, _possible(sample.take(rows), rows), strict=True):
            queue.append(iter(pairs))
    for place, queue in enumerate(queues):  # strata start at different sources
        queue.rotate(-(place * len(names) // len(queues)))
    chosen: list[tuple[int, int]] = []
    used: set[int] = set()
    while len(chosen) < n and any(queues):
        for queue in queues:
            pair = _next(queue, used) if len(chosen) < n else None
            if pair:
                chosen.append(pair)
                used.update(pair)
    return np.array(chosen, np.int64).reshape(-1, 2)


def _next(queue: deque[Iterator[tuple[int, int]]], used: set[int]) -> tuple[int, int] | None:
    """The next pair of unused documents; sources take turns."""
    while queue:
        pairs = queue.popleft()
        for pair in pairs:
            if used.isdisjoint(pair):
                queue.append(pairs)
                return pair
    return None


def _possible(sample: pa.Table, rows: IntArray) -> list[list[tuple[int, int]]]:
    """The pairs of one source in each stratum, as ``rows`` of its documents."""
    score = sample["score"].to_numpy().astype(np.float64)
    size, rank = sample["bytes"].to_numpy(), sample["rank"].to_numpy()
    order = np.lexsort((rank, size))
    found = []
    for step in range(1, NEIGHBOURS + 1):
        one, other = order[:-step], order[step:]
        near = size[other] <= LENGTH_RATIO * size[one]
        found.append(np.stack([one[near], other[near]], axis=1))
    pairs = np.concatenate(found)
    stratum = np.searchsorted(EDGES, np.abs(score[pairs[:, 0]] - score[pairs[:, 1]]), "right") - 1
    first = np.lexsort((rank[pairs].min(axis=1), rank[pairs].max(axis=1)))
    pairs, stratum = pairs[first], stratum[first]
    return [list(map(tuple, rows[pairs[stratum == i]].tolist())) for i in range(len(EDGES))]


def _presented(ids: pa.ChunkedArray, rows: IntArray, seed: int) -> IntArray:
    """The pairs [m, 2] in reading order, left document first, both by hash."""
    one, other = (ids.take(own).combine_chunks() for own in rows.T)
    hashed = xxh3_64(pc.binary_join_element_wise(one, other, "\n"), seed)
    swap = (hashed & np.uint64(1)).astype(np.bool_)
    rows = np.where(swap[:, None], rows[:, ::-1], rows)
    return rows[np.argsort(hashed, kind="stable")]


def _sample(paths: Sequence[str], shards: Sequence[tuple[int, str]], seed: int) -> pa.Table | None:
    """Each source's SAMPLE distinct texts of smallest rank (a hash of the id), if any."""
    best: dict[str, pa.Table] = {}
    for place, source in shards:
        start = 0
        for batch in tables.batches(paths[place], _NEEDED):
            part = pa.table(
                {
                    "id": batch["id"],
                    "score": batch["quality_score"],
                    "bytes": batch["bytes"],
                    "content": batch["content_hash"],
                    "rank": keep_draw(batch["id"], seed),
                    "shard": pa.repeat(pa.scalar(place, pa.int64()), len(batch)),
                    "row": np.arange(start, start + len(batch)),
                }
            )
            start += len(batch)
            by_rule = pc.fill_null(pc.equal(batch["drop_reason"], schema.QUALITY), False)
            part = part.filter(pc.or_(batch["kept"], by_rule))
            before = best.get(source, part.slice(0, 0))
            best[source] = _smallest(pa.concat_tables([before, part]))
    found = [
        table.append_column("source", pa.repeat(source, len(table)))
        for source, table in sorted(best.items())
    ]
    return pa.concat_tables(found).combine_chunks() if found else None


def _smallest(table: pa.Table) -> pa.Table:
    table = table.sort_by([(key, "ascending") for key in ("rank", "shard", "row")])
    content = table["content"].combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.sort(np.unique(content, return_index=True)[1])
    return table.take(first[:SAMPLE]).combine_chunks()


def _texts(paths: Sequence[str], sample: pa.Table, rows: IntArray) -> pa.Array:
    """The texts of some rows of the sample, in their order."""
    shard, place = (sample[name].to_numpy()[rows] for name in ("shard", "row"))
    at, texts = [np.zeros(0, np.int64)], [pa.array([], pa.string())]
    for own in np.unique(shard).tolist():
        start = 0
        for batch in tables.batches(paths[own], {"text"}):
            here = np.flatnonzero((shard == own) & (place >= start) & (place < start + len(batch)))
            if len(here):
                at.append(here)
                texts.append(batch["text"].take(pa.array(place[here] - start)).cast(pa.string()))
            start += len(batch)
    return pa.concat_arrays(texts).take(pa.array(np.argsort(np.concatenate(at))))
