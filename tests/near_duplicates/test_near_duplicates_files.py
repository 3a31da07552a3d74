"""What near-duplicates leave in the work folder, row by row."""

import itertools
import tempfile
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.beam import near_duplicates
from pipeline.core.identity import content_hashes, hexadecimal
from pipeline.core.scores import Combined
from pipeline.near_duplicates import choice, files, minhash
from pipeline.near_duplicates.choice import Found, Stays, choose
from pipeline.near_duplicates.settings import Settings
from pipeline.output import schema
from pipeline.output.records import Record, Task
from pipeline.output.shards import Shard
from pipeline.readers import InputRange
from winnow.filesystem import storage, tables
from winnow.spool import FILES, Spool, grouped

SETTINGS = Settings(bands=3, rows=2, words=2)


def batch(texts, reasons):
    shards = schema.shard_schema(clusters=True)
    columns = {
        "text": pa.array(texts, pa.large_string()),
        "content_hash": content_hashes(pa.array(texts, pa.large_string())),
        "drop_reason": pa.array(reasons, pa.string()),
        "cluster": pa.nulls(len(texts), pa.uint64()),
        "cluster_size": pa.nulls(len(texts), pa.int64()),
    }
    fields = [field for field in shards if field.name in columns]
    return pa.RecordBatch.from_arrays(
        [columns[field.name] for field in fields], schema=pa.schema(fields)
    )


def test_documents_that_are_compared_have_bands_and_are_alone_at_first(tmp_path):
    texts = [["one two", "one"], ["", "three four five", "two one", "gone away"]]
    reasons = [[None, None], [None, None, None, "c4_sentences"]]
    writer = files.BandsWriter(SETTINGS)
    scored = [writer.add(batch(*each)) for each in zip(texts, reasons, strict=True)]
    writer.save(str(tmp_path), "a")
    bands = files.load_bands(str(tmp_path), "a")
    assert bands.rows.tolist() == [0, 3, 4]
    flat = pa.array([text for part in texts for text in part], pa.large_string())
    digits = hexadecimal(content_hashes(flat)).to_pylist()
    assert bands.nodes.tolist() == [int(digits[row][:16], 16) for row in (0, 3, 4)]
    expected, _ = minhash.band_hashes(flat, SETTINGS)
    assert (bands.bands == expected[[0, 3, 4]]).all()
    table = pa.Table.from_batches(scored)
    alone = [int(digits[row][:16], 16) if row in (0, 3, 4) else None for row in range(6)]
    assert table["cluster"].to_pylist() == alone
    assert table["cluster_size"].to_pylist() == [None if c is None else 1 for c in alone]


@pytest.mark.parametrize("texts", [[], ["short"]])
def test_a_task_may_have_nothing_to_compare(tmp_path, texts):
    writer = files.BandsWriter(SETTINGS)
    if texts:
        writer.add(batch(texts, [None]))
    writer.save(str(tmp_path), "a")
    bands = files.load_bands(str(tmp_path), "a")
    assert len(bands.rows) == len(bands.nodes) == 0
    assert bands.bands.shape == (0, 3)


def test_marks_come_back_in_the_batches_of_their_rows(tmp_path):
    parts = [
        Found(*(np.array(c) for c in ([4, 1], np.uint64([7, 7]), [3, 3], [True, False]))),
        Found(*(np.array(c) for c in ([2], np.uint64([7]), [3], [True]))),
    ]
    files.save_marks(str(tmp_path), "a", parts)
    texts = [["a b", "c d"], ["e f"], ["g h", "i j"]]
    batches = [batch(part, [None] * len(part)) for part in texts]
    marked = list(files.marked(files.load_marks(str(tmp_path), "a"), batches))
    assert [dropped.tolist() for _, dropped in marked] == [[False, False], [True], [False, True]]
    table = pa.Table.from_batches([each for each, _ in marked])
    assert table["cluster"].to_pylist() == [None, 7, 7, None, 7]
    assert table["cluster_size"].to_pylist() == [None, 3, 3, None, 3]
    files.save_marks(str(tmp_path), "a", [])
    (again,) = files.marked(files.load_marks(str(tmp_path), "a"), [batch(["x"], [None])])
    assert not again[1].any()


def test_clusters_are_read_from_shards_of_several_files(tmp_path):
    paths = []
    for name, sizes in (("a", [1, 2, None]), ("b", [3])):
        table = pa.table(
            {
                "cluster": pa.array([s and 10 * s for s in sizes], pa.uint64()),
                "cluster_size": pa.array(sizes, pa.int64()),
            }
        )
        paths.append(f"{tmp_path}/{name}.arrow")
        with pa.ipc.new_file(paths[-1], table.schema) as writer:
            writer.write_table(table)
    rows, clusters = files.clusters_of(paths)
    assert rows.tolist() == [1, 3]
    assert clusters.tolist() == [20, 30]


@pytest.mark.parametrize(("combine", "stays"), [("a", 1), ("b", 2), ("a + b", 0)])
def test_the_best_is_so_by_the_scores_as_they_are_combined_now(tmp_path, combine, stays):
    table = pa.table(
        {
            "cluster": pa.array([5, 5, 5], pa.uint64()),
            "cluster_size": pa.array([3, 3, 3], pa.int64()),
            "bytes": pa.array([1, 1, 1], pa.int64()),
            "keep_draw": pa.array([0.5, 0.5, 0.5], pa.float64()),
            "quality_score": pa.array([0.1, 0.1, 0.9], pa.float32()),  # as they were
            "score_a": pa.array([0.4, 0.5, 0.0], pa.float32()),
            "score_b": pa.array([0.4, 0.0, 0.5], pa.float32()),
        }
    )
    with pa.ipc.new_file(f"{tmp_path}/a.arrow", table.schema) as writer:
        writer.write_table(table)
    task = Task("web", True, InputRange("x", 0, None, 1), 0, 1, 0)
    record = Record(task, "", "", (Shard("a.arrow", 3, 0, ""),), 0, None)
    combined, rule = Combined(("a", "b"), combine), Stays("best")
    ((_, members),) = near_duplicates._members(
        ("stem", ([record], None)), str(tmp_path), combined, rule, 8
    )
    ((_, found),) = choose([members], rule)
    assert np.flatnonzero(~found.dropped).tolist() == [stays]


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_in_files_is_what_walking_and_choosing_among_all_gives(tmp_path_factory, data):
    """Tasks of documents with few different hashes, so that many meet, some of them equal."""
    work = str(tmp_path_factory.mktemp("work"))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sizes = data.draw(st.lists(st.integers(0, 25), min_size=1, max_size=6))
    stays = Stays(data.draw(st.sampled_from(["best", "first", "sample", "all"])), 0.5)
    tasks, scored, documents = {}, {}, []
    for order, size in enumerate(sizes):
        place = InputRange("x", 0, None, 1)
        task = Task("web", bool(order), place, order, len(sizes), order)
        tasks[order] = Record(task, "", "", (Shard(f"{order}.arrow", size, 0, ""),), 0, None)
        rows = np.flatnonzero(rng.random(size) < 0.8)
        nodes = rng.integers(0, 2**64, 40, np.uint64)[rng.integers(0, 40, len(rows))]
        bands = (rng.integers(0, 60, (40, 3)).astype(np.uint64) << np.uint64(7))[nodes % 40]
        column = pa.FixedSizeListArray.from_arrays(bands.ravel(), 3)
        table = pa.table({"row": rows, "node": nodes, "bands": column})
        tables.write(files._bands_path(work, task.stem), table)
        columns = {
            "quality_score": rng.integers(0, 3, size).astype(np.float32) / 3,
            "bytes": rng.integers(0, 3, size),
            "keep_draw": rng.random(size),
        }
        scored[order] = [pa.RecordBatch.from_pydict(columns)]
        tables.write(storage.join(work, f"{order}.arrow"), pa.Table.from_batches(scored[order]))
        documents += [(order, row, n, set(b)) for row, n, b in zip(rows, nodes, bands, strict=True)]

    # Whoever shares a node or a band with one of a group is in it.
    label = list(range(len(documents)))
    for i, j in itertools.combinations(range(len(documents)), 2):
        if documents[i][2] == documents[j][2] or documents[i][3] & documents[j][3]:
            label = [label[i] if other == label[j] else other for other in label]
    labelled = list(zip(documents, label, strict=True))
    least = {at: min(d[2] for d, of in labelled if of == at) for at in label}
    together = [at for at in label if label.count(at) > 1]
    parts = []
    for order, record in tasks.items():
        mine = [(d[1], least[at]) for d, at in labelled
                if d[0] == order and at in together]  # fmt: skip
        rows = np.array([row for row, _ in mine], np.int64)
        cluster = np.array([node for _, node in mine], np.uint64)
        parts.append(choice.members(record.task, scored[order], rows, cluster, stays))
    expected = dict(choose(parts, stays))

    with mock.patch.object(near_duplicates, "IN_FILES", 20):
        near_duplicates._mark_in_files(list(tasks.values()), work, work, None, stays, True)
    for record in tasks.values():
        found = files.load_marks(work, record.task.stem)
        wanted = expected[record.task.stem]
        for name in ("rows", "cluster", "size", "dropped"):
            assert getattr(found, name).tolist() == getattr(wanted, name).tolist()


def test_values_come_back_by_key_in_their_order_and_leave_no_names(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    keys = [i % (FILES + 9) for i in range(1000)]  # more keys than files
    with Spool(zip(keys, range(1000), strict=True)) as spool:
        expected = {key: [i for i in range(1000) if keys[i] == key] for key in keys}
        assert dict(spool) == expected
        spool.add(7, -1)
        assert spool.of(7) == [*expected[7], -1]
        assert dict(spool) == expected | {7: [*expected[7], -1]}
        assert spool.of("none") == []
        assert list(tmp_path.iterdir()) == []
    assert dict(grouped(zip("aba", [1, 2, 3], strict=True))) == {"a": [1, 3], "b": [2]}
