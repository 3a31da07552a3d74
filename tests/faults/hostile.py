"""Small files that are large within, pages and lines that are long or deep, and what reads them."""

import gzip
import io
import struct
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output import schema
from pipeline.readers import FieldMap, plan_ranges, read_batches
from pipeline.readers.decoders import zstd
from pipeline.settings.step_settings import resolve_steps
from pipeline.steps import build_steps


def read(path: str, data: bytes) -> tuple[int, list[str], int]:
    """Documents, reasons of quarantine, and the bytes of the longest text of what is in memory."""
    documents, longest = 0, 0
    bad: list[str] = []

    def open_input(_):
        return io.BytesIO(data)

    for piece in plan_ranges(path, open_input):
        for batch in read_batches(
            piece,
            FieldMap(),
            on_quarantine=lambda record: bad.append(record.reason),
            open_input=open_input,
        ):
            documents += len(batch)
            longest = max(longest, batch.nbytes)
    return documents, bad, longest


def bomb(name: str) -> bytes:
    """A small file of which something takes a gibibyte once it is unpacked.

    Of newlines it is a quarter of that, for where each begins and ends.
    """
    good = b'{"text": "x"}\n'
    head = b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: %d\r\n\r\n"
    record = head % 1 + b"x\r\n\r\n"
    match name:
        case "line.jsonl.gz":
            return _packed(gzip.compress, b'{"text": "', b"a", b'"}\n' + good)
        case "line.jsonl.zst":
            return _packed(zstd.compress, b'{"text": "', b"a", b'"}\n' + good)
        case "newlines.jsonl.gz":
            return gzip.compress(good + b"\n" * (16 << 20))
        case "window.jsonl.zst":  # wants that much memory, and twice, for what it looks back to
            packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 31})
            return packer.compress(good) + packer.flush() + zstd.compress(good)
        case "record.warc.gz":
            return _packed(gzip.compress, head % (1 << 30), b"a", b"\r\n\r\n" + record)
        case "header.warc.gz":
            return _packed(gzip.compress, b"WARC/1.0\r\n", b"a", b"\r\n\r\n" + record)
    raise AssertionError(name)


def _packed(pack, head: bytes, unit: bytes, tail: bytes) -> bytes:
    """Members one after the other are one stream."""
    return pack(head) + 16 * pack(unit * (64 << 20)) + pack(tail)


ROWS = 200


def columnar_bomb(name: str) -> bytes:
    """A small file whose columns, decoded at once, would take two gigabytes."""
    sink = pa.BufferOutputStream()
    text = pa.array(["a" * (10 << 20), "b"])
    rows = pa.DictionaryArray.from_arrays(pa.array(np.zeros(ROWS, np.int32)), text)
    plain = pa.array(["x"] * ROWS)
    match name:
        case "dictionary.parquet":
            table = pa.table({"text": rows, "id": plain})
            pq.write_table(table, sink, compression="zstd", dictionary_pagesize_limit=1 << 30)
        case "id.parquet":
            table = pa.table({"text": plain, "id": rows})
            pq.write_table(table, sink, compression="zstd", dictionary_pagesize_limit=1 << 30)
        case "dictionary.arrow" | "id.arrow":
            columns = {"text": rows, "id": plain}
            if name == "id.arrow":
                columns = {"text": plain, "id": rows}
            table = pa.table(columns)
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            with pa.ipc.new_file(sink, table.schema, options=options) as writer:
                writer.write_table(table)
        case "views.arrow":
            # Each view is its length, the first four bytes, and where all of them are.
            views = struct.pack("<i4sii", 10 << 20, b"aaaa", 0, 0) * ROWS
            buffers = [None, pa.py_buffer(views), pa.py_buffer(b"a" * (10 << 20))]
            table = pa.table({"text": pa.Array.from_buffers(pa.string_view(), ROWS, buffers)})
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
    return sink.getvalue().to_pybytes()


def packed_batch(form: str, compression: str) -> bytes:
    """Three Arrow record batches; the text of the middle one takes more than a gibibyte."""
    sink = pa.BufferOutputStream()
    size = 1100 << 20
    buffers = [None, pa.py_buffer(np.array([0, size])), pa.py_buffer(np.zeros(size, np.uint8))]
    huge = pa.record_batch({"text": pa.Array.from_buffers(pa.large_binary(), 1, buffers)})
    tiny = pa.record_batch({"text": pa.array([b"x"], pa.large_binary())})
    new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with new(sink, huge.schema, options=options) as writer:
        for batch in (tiny, huge, tiny):
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def read_page(name: str) -> tuple[int, list[str], int]:
    """As :func:`read`, of one of the pages."""
    return read("x.warc", crawled(PAGES[name]()))


def crawled(page: bytes) -> bytes:
    """A WARC file of one web page."""
    message = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page
    head = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n" % len(message)
    return head + message + b"\r\n\r\n"


PAGES: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"<p>" + b"words and words " * (1 << 20),
    "paragraphs": lambda: b"<p>words</p>" * (1 << 18),
    "attributes": lambda: b"<p " + b"a=b " * (1 << 20) + b">x</p>",
    "attribute": lambda: b"<p class='" + b"x " * (2 << 20) + b"'>x</p>",
    "entities": lambda: b"<p>" + b"&amp;" * (1 << 20),
    "comment": lambda: b"<!--" + b"-" * (4 << 20),
    "open tag": lambda: b"<p " * (1 << 20),
    "less than": lambda: b"<" * (4 << 20),
    "charset": lambda: b"<meta " * (1 << 19),
    **{
        f"nested {tag}": (lambda tag=tag: f"<{tag}>".encode() * (1 << 18) + b"deep")
        for tag in ("div", "b", "span", "font", "table", "ul", "a", "blockquote", "section",
                    "article", "svg", "i", "p", "form", "template", "select")
    },
}  # fmt: skip


UNITS = {
    "one word": "x",
    "letters": "a b ",
    "newlines": "\n",
    "blanks": " ",
    "lines": "a\n",
    "bullets": "- ",
    "dots": "...",
    "ellipses": "…\n",
    "braces": "{ ",
    "javascript": "javascript ",
    "repeats": "the same words again and again. ",
    "marks": "!?.;:,",
    "combining": "e\u0301\u0301\u0301",
    "wide": "漢字",
    "astral": "😀",
    "nul": "\0",
    "almost a bad word": "badwor ",
    "dotted hosts": "a.",
}


def apply_step(name: str, folder: str, size: int) -> int:
    """Apply a step to texts, and URLs, of one unit again and again; how many were tried."""
    settings = {
        "url_blocklist": {key: [f"{folder}/list"] for key in ("domains", "words", "substrings")},
        "c4": {"bad_words": [f"{folder}/list"]},
        "decontamination": {"files": [f"{folder}/evaluation.jsonl"]},
    }
    (step,) = build_steps(resolve_steps({name: settings.get(name, {})}))
    for unit in UNITS:
        text = unit * (size // len(unit.encode()))
        known = {"text": [text], "url": [f"http://{text}/{text}"]}
        batch = pa.RecordBatch.from_arrays(
            [pa.array(known.get(f.name, [None]), f.type) for f in schema.shard_schema()],
            names=schema.shard_schema().names,
        )
        assert len(step(batch)[1]) == 1
    return len(UNITS)
