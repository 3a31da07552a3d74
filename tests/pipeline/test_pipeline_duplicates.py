"""Duplicates across tasks against a dictionary of first occurrences."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import duplicates
from pipeline.output import records
from pipeline.output.records import Task
from pipeline.readers import InputRange
from winnow.spool import grouped

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
    tasks = []
    for order, documents in enumerate(corpus):
        filtered = order % 3 > 0
        task = Task("web", filtered, InputRange("x", 0, None, 1), order, len(corpus), order)
        tasks.append((task, as_keys(documents)))
    random.shuffle(tasks)  # workers finish in any order
    pairs = (pair for task in tasks for pair in duplicates.content_keys(*task, n_buckets))
    found = set()
    for _, parts in grouped(pairs):
        for stem, rows in duplicates.repeats(parts):
            found |= {(stem, int(row)) for row in rows}
            assert (np.diff(rows) > 0).all()

    seen, expected = set(), set()
    for task, _ in sorted(tasks, key=lambda pair: pair[0].order):
        for row, (text, candidate) in enumerate(corpus[task.order]):
            if not candidate:
                continue
            if text in seen and task.filtered:
                expected.add((task.stem, row))
            seen.add(text)
    assert found == expected


@given(tasks_of_documents, st.integers(1, 1024))
@settings(deadline=None)
def test_ids_that_were_there_before_are_counted(corpus, n_buckets):
    tables = map(as_keys, corpus)
    pairs = (pair for keys in tables for pair in duplicates.id_hashes(keys, n_buckets))
    ids = [text for documents in corpus for text, _ in documents]
    counts = [n for _, bucket in grouped(pairs) for n in duplicates.count_repeats(bucket)]
    assert sum(counts) == len(ids) - len(set(ids))
