"""Files of every format that the readers know."""

import bz2
import csv
import gzip
import html
import io
import json
import lzma
from collections.abc import Callable
from typing import Any

import brotli
import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
from corpora import documents

from pipeline.readers.decoders import zstd


def _jsonl(n: int) -> bytes:
    rows = [json.dumps(row, ensure_ascii=i % 3 == 0) for i, row in enumerate(documents(n, n))]
    rows[5:5] = ["", '{"text": "\\ud83d\\ude00 \\u00e9", "id": 7, "WARC-Date": {"a": [1, 2.5e3]}}']
    return ("\n".join(rows) + "\n").encode()


def _record(kind: str, block: bytes, *headers: str) -> bytes:
    lines = [f"WARC-Type: {kind}", *headers, f"Content-Length: {len(block)}"]
    return b"WARC/1.0\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def _wet(n: int) -> list[bytes]:
    return [_record("warcinfo", b"software: x")] + [
        _record("conversion", row["text"].encode(), f"WARC-Target-URI: {row.get('url')}")
        for row in documents(n // 3, n)
    ]


def _warc(n: int) -> list[bytes]:
    out = [_record("request", b"GET / HTTP/1.1\r\n\r\n")]
    for i, row in enumerate(documents(n // 3, n)):
        page = f"<html><head><title>t</title></head><body><p>{row['text']}</p></body></html>"
        body, headers = page.encode(), "Content-Type: text/html; charset=utf-8\r\n"
        match i % 5:
            case 1:
                body, headers = gzip.compress(body), headers + "Content-Encoding: gzip\r\n"
            case 2:
                body, headers = brotli.compress(body), headers + "Content-Encoding: br\r\n"
            case 3:
                chunks = [body[at : at + 50] for at in range(0, len(body), 50)]
                body = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in [*chunks, b""])
                headers += "Transfer-Encoding: chunked\r\n"
            case 4:
                body, headers = zstd.compress(body), headers + "Content-Encoding: zstd\r\n"
        message = f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode() + body
        out.append(_record("response", message, f"WARC-Record-ID: <{i}>", "WARC-Date: 2020"))
    return out


def _table(n: int) -> pa.Table:
    rows = documents(n, n)
    return pa.table(
        {
            "id": [row.get("id") for row in rows],
            "url": pa.array([row.get("url") for row in rows]).dictionary_encode(),
            "text": [row["text"] for row in rows],
            "WARC-Date": [[i, None] if i % 3 else None for i in range(len(rows))],
        }
    )


def _parquet(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=len(table) // 3 + 1, **options)
    return sink.getvalue().to_pybytes()


def _arrow(table: pa.Table, new: Callable[..., Any], compression: str | None) -> bytes:
    sink = pa.BufferOutputStream()
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=len(table) // 3 + 1)
    return sink.getvalue().to_pybytes()


def _arc(n: int) -> list[bytes]:
    head = b"filedesc://x 0.0.0.0 20010203040506 text/plain 3\n1 0\n"
    records = [head]
    for i, row in enumerate(documents(n // 3, n)):
        body = f"<html><body><p>{html.escape(row['text'])}</p></body></html>"
        http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body.encode()
        line = f"http://x.example/{i} 1.2.3.4 20010203040506 text/html {len(http)}\n"
        records.append(line.encode() + http + b"\n")
    return records


def _csv(n: int, **form: Any) -> bytes:
    out = io.StringIO(newline="")
    rows = [(i, row["text"]) for i, row in enumerate(documents(n, n))]
    csv.writer(out, **form).writerows([("id", "text"), *rows])
    return out.getvalue().encode()


def _text(n: int) -> bytes:
    return "\n".join(row["text"] for row in documents(n // 8, n)).encode()


def every_format(n: int) -> dict[str, bytes]:
    """Sound files of up to ``n`` documents in every format and packing that is read, by name."""
    lines, wet, warc, table = _jsonl(n), _wet(n), _warc(n), _table(n)
    half = lines.find(b"\n", len(lines) // 2) + 1
    return {
        "plain.jsonl": lines,
        "one.jsonl.gz": gzip.compress(lines, mtime=0),
        "two.jsonl.gz": b"".join(gzip.compress(p, mtime=0) for p in (lines[:half], lines[half:])),
        "one.jsonl.zst": zstd.compress(lines),
        "two.jsonl.zst": zstd.compress(lines[:half]) + zstd.compress(lines[half:]),
        "plain.wet": b"".join(wet),
        "each.wet.gz": b"".join(gzip.compress(record, mtime=0) for record in wet),
        "plain.warc": b"".join(warc),
        "each.warc.gz": b"".join(gzip.compress(record, mtime=0) for record in warc),
        "one.warc.zst": zstd.compress(b"".join(warc)),
        "snappy.parquet": _parquet(table, write_page_checksum=True),
        "plain.parquet": _parquet(table, compression="none", use_dictionary=False),
        "zstd.parquet": _parquet(
            table, compression="zstd", data_page_version="2.0", data_page_size=512
        ),
        "gzip.parquet": _parquet(table, compression="gzip"),
        "plain.arrow": _arrow(table, pa.ipc.new_file, None),
        "lz4.arrow": _arrow(table, pa.ipc.new_file, "lz4"),
        "zstd.arrow": _arrow(table, pa.ipc.new_file, "zstd"),
        "stream.arrow": _arrow(table, pa.ipc.new_stream, "lz4"),
        "one.jsonl.bz2": bz2.compress(lines),
        "one.jsonl.xz": lzma.compress(lines),
        "one.jsonl.lz4": lz4.frame.compress(lines),
        "plain.arc": b"".join(_arc(n)),
        "each.arc.gz": b"".join(gzip.compress(record, mtime=0) for record in _arc(n)),
        "table.csv": _csv(n),
        "table.tsv.gz": gzip.compress(_csv(n, delimiter="\t"), mtime=0),
        "some.txt": _text(n),
        "some.txt.xz": lzma.compress(_text(n)),
        "page.html": b"<html><body><p>" + _text(n) + b"</p></body></html>",
    }
