"""Compares Beam engines with the embedded one on the same cores.

    make engines
    python benchmarks/engines.py formats --megabytes 200
    python benchmarks/engines.py slots --megabytes 200
    python benchmarks/engines.py small --files 10000

- formats  64 files of uneven size in all formats, with a known rule, a solved one, and one with
           exact duplicates: byte equality, time, memory, network traffic
- slots    the work of 1, 2 and 4 slots on these 64 files, and their waiting time at the end
- small    many files of 5 documents each: time, memory, manifest

The input is real text (benchmarks/real_text.py), repeated with other ids and hosts. Every run is a
new process, start-up and imports included. As root it has a separate network namespace, whose
loopback counts each byte between engine and workers once. Memory is the peak of the largest
process.
"""

import argparse
import bz2
import csv
import gzip
import hashlib
import html
import io
import itertools
import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
from throughput import ROOT, Measurement, classifier, measure, read_texts

from pipeline.readers.decoders import zstd
from winnow import run_log

Rows = list[dict[str, str]]
RULES = {
    "known": ["--alpha=2"],
    "solved": ["--target-fraction=0.3"],
    "duplicates": ["--target-fraction=0.3", "--deduplicate"],
}
FILES = 64
LARGEST = 50  # times the smallest


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        _inside(Path(sys.argv[2]), sys.argv[3:])
        return
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("what", choices=["formats", "slots", "small"])
    parser.add_argument("--megabytes", type=int, default=200, help="of text (default: 200)")
    parser.add_argument("--files", type=int, default=10_000, help="for small (default: 10000)")
    parser.add_argument("--rounds", type=int, default=1, help="(default: 1)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="cores (default: all)")
    parser.add_argument("--work", type=Path, default=ROOT / "cache" / "benchmark")
    prism = shutil.which("prism") or str(ROOT / "cache" / "engines" / "prism")
    parser.add_argument("--prism", default=prism, help=f"(default: {prism})")
    flags = parser.parse_args()
    {"formats": formats, "slots": slots, "small": small}[flags.what](flags)


def engines(flags: argparse.Namespace) -> dict[str, list[str]]:
    """The flags of each installed engine."""
    found = {"DirectRunner": [f"--direct_num_workers={flags.workers}"]}
    if os.path.exists(flags.prism):
        found["PrismRunner"] = ["--runner=PrismRunner", f"--prism_location={flags.prism}"]
    return found


def formats(flags: argparse.Namespace) -> None:
    corpus = write_formats(flags.work / f"formats_{flags.megabytes}", flags.megabytes * 10**6)
    compare(flags, corpus)


def small(flags: argparse.Namespace) -> None:
    compare(flags, write_small(flags.work / f"small_{flags.files}", flags.files))


def compare(flags: argparse.Namespace, corpus: Path) -> None:
    """Every rule on every engine, round by round."""
    columns = "wall s | CPU s | peak MB | MB over the network | manifest kB | files, digest"
    print(f"| rule | engine | {columns} |\n|" + "---|" * 8)
    output = flags.work / "engine_output"
    for rule, said in RULES.items():
        for _ in range(flags.rounds):
            digests = set()
            for engine, own in engines(flags).items():
                one, sent = run(flags, corpus, output, [*said, *own])
                count, digest = digest_of(output)
                digests.add(digest)
                manifest = (output / "manifest.json").stat().st_size / 1e3
                print(
                    f"| {rule} | {engine} | {one.wall:.1f} | {one.cpu:.1f} |"
                    f" {one.memory / 1e6:.0f} | {sent} | {manifest:.0f} | {count}, {digest[:12]} |",
                    flush=True,
                )
            if len(digests) > 1:
                sys.exit("the engines wrote different files")


def slots(flags: argparse.Namespace) -> None:
    """How the slots of each engine share uneven tasks."""
    corpus = write_formats(flags.work / f"formats_{flags.megabytes}", flags.megabytes * 10**6)
    modes = {"threads": "multi_threading", "processes": "multi_processing"}
    ways = {
        f"DirectRunner, {n} {kind}": [f"--direct_num_workers={n}", f"--direct_running_mode={mode}"]
        for kind, mode in modes.items()
        for n in (1, 2, 4)
    }
    ways |= {name: own for name, own in engines(flags).items() if name != "DirectRunner"}
    print("| engine | slots at work | share of the text of each | s at work | waited at the end |")
    print("|" + "---|" * 5)
    for name, own in ways.items():
        folder = flags.work / "slots"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        settings = folder.with_suffix(".yaml")
        step = {"watched_step.Watched": {"folder": str(folder)}}
        settings.write_text(json.dumps({"steps": step}))
        output = flags.work / "engine_output"
        run(flags, corpus, output, ["--alpha=2", f"--config={settings}", *own])
        found = [
            [json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted(folder.iterdir())
        ]
        begin = min(batches[0][0] for batches in found)
        ends = [batches[-1][0] for batches in found]
        whole = sum(size for batches in found for _, size in batches)
        shares = sorted(sum(size for _, size in batches) / whole for batches in found)[::-1]
        waited = sum(max(ends) - end for end in ends) / len(ends) / (max(ends) - begin)
        print(
            f"| {name} | {len(found)} | {', '.join(f'{share:.0%}' for share in shares)}"
            f" | {max(ends) - begin:.1f} | {waited:.0%} |",
            flush=True,
        )


def run(
    flags: argparse.Namespace, corpus: Path, output: Path, own: list[str]
) -> tuple[Measurement, str]:
    """Run once; return the measurement, and the MB over its loopback if counted."""
    shutil.rmtree(output, ignore_errors=True)
    scorer = classifier(flags.work, "hashed_linear")
    command = [sys.executable, str(ROOT / "pipeline" / "run.py"), f"--source=web={corpus}/*/*"]
    command += ["--filter=web", f"--classifier={scorer}", f"--output={output}", *own]
    sent = flags.work / "sent.txt"
    sent.write_text("not counted")
    if os.geteuid() == 0 and shutil.which("unshare") and shutil.which("ip"):
        inside = [sys.executable, __file__, "--inside", str(sent)]
        command = ["unshare", "--net", *inside, *command]
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"
    return measure(command, flags.workers), sent.read_text()


def _inside(sent: Path, command: list[str]) -> None:
    """Run a command in this network namespace, and record the traffic of its loopback."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    code = subprocess.run(command, check=False).returncode
    (line,) = (x for x in Path("/proc/net/dev").read_text().splitlines() if x.strip()[:3] == "lo:")
    sent.write_text(f"{int(line.split()[1]) / 1e6:.1f}")
    sys.exit(code)


def digest_of(folder: Path) -> tuple[int, str]:
    """The number of files below a folder, and a digest of their names and contents."""
    found = hashlib.sha256()
    files = (path for path in folder.rglob("*") if path.is_file())
    paths = sorted(path for path in files if path.name != run_log.NAME)  # it contains times
    for path in paths:
        found.update(str(path.relative_to(folder)).encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return len(paths), found.hexdigest()


def write_formats(folder: Path, size: int) -> Path:
    """Write ``size`` bytes of text to 64 files of uneven size, in turns of all formats."""

    def files() -> Iterator[tuple[str, bytes]]:
        weights = [LARGEST ** (i * 37 % FILES / (FILES - 1)) for i in range(FILES)]
        source = _documents()
        for number, weight in enumerate(weights):
            name, write = list(FORMATS.items())[number % len(FORMATS)]
            rows, held = [], 0
            while held < size * weight / sum(weights):
                rows.append(next(source))
                held += len(rows[-1]["text"].encode())
            yield f"files/{number:02d}.{name}", write(rows)

    return _write(folder, files())


def write_small(folder: Path, count: int) -> Path:
    """Write files of 5 documents each, a hundred to a folder."""

    def files() -> Iterator[tuple[str, bytes]]:
        source = _documents()
        for number in range(count):
            rows = list(itertools.islice(source, 5))
            yield f"{number // 100:04d}/{number:06d}.jsonl.gz", gzip.compress(_lines(rows), 1)

    return _write(folder, files())


def _write(folder: Path, files: Iterator[tuple[str, bytes]]) -> Path:
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for name, content in files:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)
        partial.rename(folder)
    return folder


def _documents() -> Iterator[dict[str, str]]:
    """Endless real texts; nine in ten repeats end with a different number."""
    texts = read_texts()
    for number in itertools.count():
        repeat, i = divmod(number, len(texts))
        text = f"{texts[i]}\n{number}" if repeat and i % 10 else texts[i]
        yield {"id": f"d{number}", "url": f"https://h{number}.example/", "text": text}


def _lines(rows: Rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _warc(kind: str, media: str, rows: Rows, block: Callable[[dict[str, str]], bytes]) -> bytes:
    out = []
    for row in rows:
        body = block(row)
        head = (
            f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {row['url']}\r\n"
            f"WARC-Record-ID: <urn:{row['id']}>\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
            f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        out.append(gzip.compress(head.encode() + body + b"\r\n\r\n", 1))
    return b"".join(out)


def _page(row: dict[str, str]) -> bytes:
    lines = "".join(f"<p>{html.escape(line)}</p>\n" for line in row["text"].splitlines())
    return f"<!doctype html><html><meta charset=utf-8><body>{lines}</body></html>".encode()


def _response(row: dict[str, str]) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + _page(row)


def _arc(rows: Rows) -> bytes:
    out = [b"filedesc://x 0.0.0.0 20010203040506 text/plain 3\n1 0\n"]
    for row in rows:
        http = _response(row)
        line = f"{row['url']} 1.2.3.4 20010203040506 text/html {len(http)}\n"
        out.append(line.encode() + http + b"\n")
    return b"".join(gzip.compress(record, 1) for record in out)


def _csv(rows: Rows, delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["id", "url", "text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _parquet(rows: Rows) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=500, compression="zstd")
    return bytes(sink.getvalue())


def _arrow(rows: Rows, new: Callable[..., pa.ipc.RecordBatchFileWriter]) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(rows)
    with new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    return bytes(sink.getvalue())


def _text(rows: Rows) -> bytes:
    return "\n\n".join(row["text"] for row in rows).encode()


FORMATS: dict[str, Callable[[Rows], bytes]] = {
    "jsonl": _lines,
    "jsonl.gz": lambda rows: gzip.compress(_lines(rows), 1),
    "jsonl.zst": lambda rows: zstd.compress(_lines(rows)),
    "jsonl.bz2": lambda rows: bz2.compress(_lines(rows), 1),
    "jsonl.xz": lambda rows: lzma.compress(_lines(rows), preset=1),
    "jsonl.lz4": lambda rows: lz4.frame.compress(_lines(rows)),
    "json": lambda rows: json.dumps(rows, ensure_ascii=False).encode(),
    "warc.wet.gz": lambda rows: _warc("conversion", "text/plain", rows, lambda r: _text([r])),
    "warc.gz": lambda rows: _warc("response", "application/http", rows, _response),
    "arc.gz": _arc,
    "parquet": _parquet,
    "arrow": lambda rows: _arrow(rows, pa.ipc.new_file),
    "stream.arrow": lambda rows: _arrow(rows, pa.ipc.new_stream),
    "csv": lambda rows: _csv(rows, ","),
    "tsv": lambda rows: _csv(rows, "\t"),
    "txt": _text,
    "html": lambda rows: _page({"text": _text(rows).decode()}),
}


if __name__ == "__main__":
    main()
