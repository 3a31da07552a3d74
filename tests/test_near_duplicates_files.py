"""What near-duplicates leave in the work folder, row by row."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.beam import near_duplicates
from pipeline.core.identity import content_hashes, hexadecimal
from pipeline.core.scores import Combined
from pipeline.near_duplicates import files, minhash
from pipeline.near_duplicates.choice import Found, Stays, choose
from pipeline.near_duplicates.settings import Settings
from pipeline.output import schema
from pipeline.output.records import Record, Task
from pipeline.output.shards import Shard
from pipeline.readers import InputRange

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
    marked = list(files.Marks.load(str(tmp_path), "a").over(batches))
    assert [dropped.tolist() for _, dropped in marked] == [[False, False], [True], [False, True]]
    table = pa.Table.from_batches([each for each, _ in marked])
    assert table["cluster"].to_pylist() == [None, 7, 7, None, 7]
    assert table["cluster_size"].to_pylist() == [None, 3, 3, None, 3]
    files.save_marks(str(tmp_path), "a", [])
    (again,) = files.Marks.load(str(tmp_path), "a").over([batch(["x"], [None])])
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
