"""Do the pipeline's outputs have the bytes that they had at an earlier commit?

    .venv/bin/python tests/helpers/same_bytes.py 2d4f3b7

Runs the pipeline of that commit and of this working tree on one small corpus with a source for each
input format: a known rule, a rule that is solved with exact duplicates dropped, the steps that need
no files, and a new decision from stored scores. Names every file whose bytes differ, and exits 1 if
there is one. Most of the time the earlier commit compiles its kernels.
"""

import argparse
import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
from corpora import ROOT, documents, fingerprints, write_jsonl
from pyarrow import csv

from pipeline.readers.decoders import zstd

TRAINED = (
    "positive=[good.jsonl]",
    "negative=[bad.jsonl]",
    "bootstrap=10",
    "output=classifier",
    "seed=0",
)
STEPS = ("language", "gopher", "gopher_repetition", "c4", "fineweb", "pii")
RUNS = {
    "known": ("--rule=pareto", "--alpha=2"),
    "solved": (
        "--rule=threshold",
        "--target-fraction=0.4",
        "--target-unit=bytes",
        "--deduplicate",
    ),
    "steps": ("--rule=all", *(f"--steps={name}" for name in STEPS)),
}
DECIDED = ("--rule=top_fraction", "--target-fraction=0.3")


def rows(name: str) -> list[dict[str, str]]:
    """Documents of a source: ten that all sources share, some that stand twice, the others its own.

    They are random words of several scripts, and sections of our log.
    """
    sections = (ROOT / "docs" / "log.md").read_text().split("\n## ")[1:]
    log = [{"text": f"{section}\n{name}"} for section in sections]
    found = documents(10) + log + documents(60, source=name) + log[:5]
    return [
        {"url": f"http://{i % 7}.example/{i}", "id": f"{name}-{i}"} | row
        for i, row in enumerate(found)
    ]


def as_lines(found: list[dict[str, str]]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in found).encode()


def damaged(found: list[dict[str, str]]) -> bytes:
    """JSON lines, and lines that are quarantined or count as empty."""
    return as_lines(found) + b'{"text": 3}\n{"id": "x"}\n{"text": ""}\nnot json\n{"text": "cut'


FORMATS: dict[str, tuple[str, Callable[[list[dict[str, str]]], bytes]]] = {
    "jsonl": ("jsonl", damaged),
    "gzip": ("jsonl.gz", lambda found: gzip.compress(damaged(found), mtime=0)),
    "cut": ("jsonl.gz", lambda found: gzip.compress(as_lines(found), mtime=0)[:-2000]),
    "zstd": ("jsonl.zst", lambda found: zstd.compress(as_lines(found))),
    "bzip2": ("jsonl.bz2", lambda found: bz2.compress(as_lines(found))),
    "xz": ("jsonl.xz", lambda found: lzma.compress(as_lines(found))),
    "lz4": ("jsonl.lz4", lambda found: lz4.frame.compress(as_lines(found))),
    "array": ("json", lambda found: json.dumps(found).encode()),
    "parquet": ("parquet", lambda found: _sunk(pq.write_table, found, row_group_size=50)),
    "arrow": ("arrow", lambda found: _sunk(_write_arrow, found)),
    "csv": ("csv", lambda found: _sunk(csv.write_csv, found)),
    "tsv": ("tsv", lambda found: _sunk(csv.write_csv, found, csv.WriteOptions(delimiter="\t"))),
    "text": ("txt", lambda found: found[11]["text"].encode()),
    "html": ("html", lambda found: page(found[12]["text"])),
    "warc": ("warc.gz", lambda found: b"".join(gzip.compress(response(r), mtime=0) for r in found)),
    "wet": ("warc.wet", lambda found: b"".join(map(conversion, found))),
    "arc": ("arc", lambda found: b"".join([ARC_HEAD, *map(arc_record, found)])),
}
"""A source for each format: the ending of its file, and its bytes."""


def _sunk(
    write: Callable[..., None], found: list[dict[str, str]], *args: Any, **kwargs: Any
) -> bytes:
    sink = io.BytesIO()
    columns = {name: [row[name] for row in found] for name in ("text", "id", "url")}
    write(pa.table(columns), sink, *args, **kwargs)
    return sink.getvalue()


def _write_arrow(table: pa.Table, sink: io.BytesIO) -> None:
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, 50)


def page(text: str) -> bytes:
    """A page whose main text is ``text``."""
    body = "".join(f"<p>{line}</p>" for line in text.replace("<", "&lt;").split("\n"))
    return f"<!doctype html><html><head><title>t</title></head><body>{body}</body></html>".encode()


def _warc(kind: str, row: dict[str, str], block: bytes) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {row['url']}\r\n"
        f"WARC-Record-ID: <{row['id']}>\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def conversion(row: dict[str, str]) -> bytes:
    """A WET record."""
    return _warc("conversion", row, row["text"].encode())


HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"


def response(row: dict[str, str]) -> bytes:
    """A WARC record of a page."""
    return _warc("response", row, HTTP + page(row["text"]))


_FIELDS = b"1 0 x\nURL IP-address Archive-date Content-type Archive-length\n"
ARC_HEAD = b"filedesc://x.arc 0.0.0.0 20100101000000 text/plain %d\n%b\n" % (len(_FIELDS), _FIELDS)


def arc_record(row: dict[str, str]) -> bytes:
    """An ARC record of a page."""
    block = HTTP + page(row["text"])
    head = f"{row['url']} 10.0.0.1 20100101000000 text/html {len(block)}\n"
    return head.encode() + block + b"\n"


def write_inputs(folder: Path) -> list[str]:
    """Write the corpus below ``folder``; returns the flags of a run that reads it there."""
    flags = ["--source=plain=inputs/plain.jsonl", "--split-bytes=100000"]
    (folder / "inputs").mkdir()
    for name, (ending, content) in FORMATS.items():
        path = folder / "inputs" / f"{name}.{ending}"
        path.write_bytes(content(rows(name)))
        flags += [f"--source={name}=inputs/{path.name}", f"--filter={name}"]
    (folder / "inputs" / "plain.jsonl").write_bytes(as_lines(rows("plain")))
    lines = (ROOT / "docs" / "log.md").read_text().splitlines()
    write_jsonl(folder / "good.jsonl", [{"text": line} for line in lines if line])
    write_jsonl(folder / "bad.jsonl", documents(300, 1))
    return flags


def run(tree: Path, folder: Path, module: str, *arguments: str) -> None:
    """Run a command of ``tree`` in ``folder``, where git does not tell it which commit it is."""
    environment = os.environ | {"PYTHONPATH": str(tree), "GIT_DIR": os.devnull}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} in {tree} failed:\n{done.stderr[-4000:]}")


def outputs(tree: Path, work: Path, flags: list[str], keep: Path) -> dict[str, str]:
    """The SHA-256 of all files that ``tree`` writes, by run and name; they end up in ``keep``."""
    given = ["pipeline.run", *flags, "--classifier=classifier", "--seed=5"]
    commands = {name: [*given, *rule] for name, rule in RUNS.items()}
    commands["decided"] = ["pipeline.decide", "--scored=known", *DECIDED]
    for name, command in commands.items():
        run(tree, work, *command, f"--output={name}", "--direct_num_workers=1")
    keep.mkdir(parents=True)
    for name in commands:
        (work / name).rename(keep / name)
    return fingerprints(keep)


def compare(earlier: Path, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The outputs of the tree ``earlier`` and of this one, from one corpus and one classifier."""
    work = folder / "work"
    work.mkdir()
    flags = write_inputs(work)
    run(earlier, work, "quality_classifier.train", *TRAINED)
    return (
        outputs(earlier, work, flags, folder / "earlier"),
        outputs(ROOT, work, flags, folder / "now"),
    )


def main() -> None:
    """Compare, and say what differs."""
    parser = argparse.ArgumentParser(description="Compare outputs with those of an earlier commit.")
    parser.add_argument("commit")
    parser.add_argument(
        "--keep", metavar="DIR", help="write the outputs of both to this new folder"
    )
    given = parser.parse_args()
    worktree = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory(prefix="winnow-same-bytes-") as temporary:
        earlier = Path(temporary) / "earlier-tree"
        folder = Path(given.keep or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([*worktree, "add", "--quiet", "--detach", earlier, given.commit], check=True)
        try:
            before, now = compare(earlier, folder)
        finally:
            subprocess.run([*worktree, "remove", "--force", earlier], check=True)
    print(f"{len(before)} files at {given.commit}, {len(now)} now")
    differ = [name for name in before.keys() & now.keys() if before[name] != now[name]]
    for what, names in (
        ("differ", differ),
        ("are gone", before.keys() - now.keys()),
        ("are new", now.keys() - before.keys()),
    ):
        if names:
            print(f"{len(names)} {what}:", *sorted(names), sep="\n  ")
    if before != now:
        sys.exit(1)
    print("all have the same bytes")


if __name__ == "__main__":
    main()
