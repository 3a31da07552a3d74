"""Duplicates across tasks against a dictionary of first occurrences."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import duplicates
from pipeline.output import records
from pipeline.output.records import Task
from pipeline.readers import InputRange

tasks_of_documents = st.lists(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=8), max_size=6
)


def as_keys(documents):
    return pa.table(
        {
            "id_hash": pa.array([ord(text) for text, _ in documents], pa.uint64()),
            "content_hash": pa.array([text.encode() * 16 for text, _ in documents], pa.binary(16)),
            "candidate": pa.array([candidate for _, candidate in documents], pa.bool_()),
        },
        schema=records.KEYS,
    )


@given(tasks_of_documents, st.randoms(), st.integers(1, 1024))
@settings(deadline=None)
def test_all_but_the_first_of_equal_documents_are_repeats(corpus, random, n_buckets):
    buckets = defaultdict(list)
    tasks = []
    for order, documents in enumerate(corpus):
        task = Task("web", True, InputRange("x", 0, None, 1), order, len(corpus), order)
        tasks.append((task, as_keys(documents)))
        for bucket, keys in duplicates.content_keys(*tasks[-1], n_buckets):
            buckets[bucket].append(keys)
    found, in_files = set(), set()
    for parts in buckets.values():
        random.shuffle(parts)  # workers finish in any order
        for part, rows in duplicates.repeats(parts):
            found |= {(part.order, int(row)) for row in rows}
            assert (np.diff(rows) > 0).all()
    random.shuffle(tasks)
    for part, rows in duplicates.repeats_in_files(tasks, n_buckets):
        in_files |= {(part.order, int(row)) for row in rows}
        assert part.stem.startswith(f"data-web-{part.order:05d}")
        assert (np.diff(rows) > 0).all()

    seen, expected = set(), set()
    for order, documents in enumerate(corpus):
        for row, (text, candidate) in enumerate(documents):
            if not candidate:
                continue
            if text in seen:
                expected.add((order, row))
            seen.add(text)
    assert found == in_files == expected


@given(tasks_of_documents, st.integers(1, 1024))
@settings(deadline=None)
def test_ids_that_were_there_before_are_counted(corpus, n_buckets):
    buckets = defaultdict(list)
    for documents in corpus:
        for bucket, hashes in duplicates.id_hashes(as_keys(documents), n_buckets):
            buckets[bucket].append(hashes)
    ids = [text for documents in corpus for text, _ in documents]
    repeated = len(ids) - len(set(ids))
    assert sum(map(duplicates.count_repeats, buckets.values())) == repeated
    assert duplicates.count_repeats_in_files(map(as_keys, corpus), n_buckets) == repeated
