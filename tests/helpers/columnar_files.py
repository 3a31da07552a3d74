"""Parquet files, Arrow files and Arrow streams, and what is read of them."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.readers import FieldMap, document_schema, plan_ranges, read_batches

FORMATS = ("parquet", "arrow", "stream")


def write(table, path, form, rows=3, **kwargs):
    match form:
        case "parquet":
            pq.write_table(table, path, row_group_size=rows, **kwargs)
        case "arrow":
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=rows)
        case "stream":
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=rows)
    return str(path)


def read(path, fields=None, split_bytes=1 << 30, **kwargs):
    fields = fields or FieldMap()
    rows, bad = [], []
    for piece in plan_ranges(path, split_bytes=split_bytes):
        for batch in read_batches(piece, fields, on_quarantine=bad.append, **kwargs):
            batch.validate(full=True)
            assert batch.schema == document_schema(fields.metadata)
            rows += batch.to_pylist()
    return rows, bad


def table(count, seed=0):
    return pa.table(
        {
            "id": [f"{seed}-{i}" for i in range(count)],
            "url": [None if i % 3 else f"http://x/{i}" for i in range(count)],
            "other": list(range(count)),
            "text": [f"text {i} " + "é" * (i * 7 % 50) for i in range(count)],
        }
    )


def octets_of(data, form, **kwargs):
    sink = io.BytesIO()
    write(data, sink, form, **kwargs)
    return sink.getvalue()


PAGE_INDEX = {"write_page_index": True, "bloom_filter_options": {"text": {"ndv": 9}}}
