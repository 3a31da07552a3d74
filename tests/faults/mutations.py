"""Damaged files of every format, and what a reader must still do with them.

A seed names one file: which sound file it starts from, and what happens to its bytes. Files are
read in processes of their own, which may take only so much address space, and computing time for
each file, so that a crash, a hang or a bomb costs that process and names its seed.
"""

import gzip
import io
import random
import resource
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import xxhash
from faults.files import every_format
from faults.limits import CONTEXT, limit_memory, limit_time

from pipeline.readers import (
    FieldMap,
    ReadReport,
    digest_range,
    document_schema,
    plan_ranges,
    read_batches,
)
from pipeline.readers.decoders import zstd

SECONDS = 20
"""How long one file, of some kilobytes, may compute. It should take milliseconds."""

SPARE_BYTES = 1 << 30
"""How much more address space a process may take than it has when it starts."""

FIELDS = FieldMap(metadata=("WARC-Date",))
REFUSALS = (
    "unknown format",
    "--field text=COLUMN",
    "unpack it",
    "convert it",
    "fetch it again",
    "several columns named",
)
"""Parts of the messages that refuse a file as a whole: the user named the wrong file."""

_BATCH = 500  # files per process


@cache
def sound_files() -> dict[str, bytes]:
    """What is damaged."""
    return every_format(40)


def mutated(seed: int) -> tuple[str, bytes]:
    """The name and the bytes of the damaged file of a seed."""
    rng = random.Random(seed)
    name = rng.choice(list(sound_files()))
    data = bytearray(sound_files()[name])
    if rng.random() < 0.3:  # a file whose name says nothing
        name = name.partition(".")[0]
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        size = len(data)
        at = rng.randrange(size + 1)
        # Headers and footers say where all the rest is.
        if rng.random() < 0.3:
            at = rng.choice((min(at, 64), max(size - rng.randrange(600), 0)))
        length = rng.choice((1, 2, 4, 8, 40, rng.randrange(size + 1)))
        match rng.randrange(8):
            case 0 | 1 if at < size:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at : at + length] = rng.randbytes(min(length, 8))
            case 3:
                edge = rng.choice((0, 0x7F, 0x80, 0xFF))
                data[at : at + min(length, 8)] = bytes([edge]) * min(length, 8, size - at)
            case 4:
                del data[at : at + length]
            case 5:
                data[at:at] = data[at : at + length]
            case 6:
                other = sound_files()[rng.choice(list(sound_files()))]
                start = rng.randrange(len(other))
                data[at : at + length * rng.randrange(2)] = other[start : start + length]
            case _ if rng.random() < 0.3:
                del data[at:]
    return name, bytes(data)


@dataclass(frozen=True)
class Reading:
    """What came out of a file, in order; ``bad`` are (position, unit, reason, content)."""

    rows: list[dict[str, Any]]
    bad: list[tuple[int, str, str, str]]
    skipped: Counter[str]


def read(name: str, data: bytes, split_bytes: int) -> Reading:
    """Read a file in ranges, each twice over as far as hashing goes.

    Raises:
        ValueError: the file is refused.
        AssertionError: a batch is not sound, or what was hashed is not what was read.
    """

    def open_input(_: str) -> io.BytesIO:
        return io.BytesIO(data)

    rows: list[dict[str, Any]] = []
    bad: list[tuple[int, str, str, str]] = []
    report = ReadReport()
    for piece in plan_ranges(name, open_input, split_bytes):
        digest = xxhash.xxh3_128()
        batches = read_batches(
            piece,
            FIELDS,
            on_quarantine=lambda q: bad.append((q.position, q.unit, q.reason, q.content)),
            open_input=open_input,
            digest=digest,
            report=report,
        )
        for batch in batches:
            batch.validate(full=True)
            assert batch.schema.equals(document_schema(FIELDS.metadata))
            rows += batch.to_pylist()
        assert digest.hexdigest() == digest_range(piece, open_input), "the hash of what was read"
    return Reading(rows, bad, report.skipped)


def outcome(name: str, data: bytes, split_bytes: int) -> Reading | str:
    """As :func:`read`, or the message that refuses the file.

    Raises:
        ValueError: a message that does not tell what to do.
    """
    try:
        return read(name, data, split_bytes)
    except ValueError as refusal:
        if not any(text in str(refusal) for text in REFUSALS):
            raise
        return str(refusal)


def check(name: str, data: bytes) -> str:
    """Read a damaged file whole, again, and in ranges; the kind of its outcome.

    Raises:
        AssertionError: readings differ, or records are lost or counted twice.
    """
    reading = outcome(name, data, 1 << 40)
    assert outcome(name, data, 1 << 40) == reading, "the same file read twice"
    assert outcome(name, data, 700) == reading, "the file read in ranges"
    if isinstance(reading, str):
        return "refused"
    rows, bad = reading.rows, reading.bad
    assert rows or bad or reading.skipped or not data.strip(b"\0\r\n\t "), "nothing to show for it"
    expected = known_count(data)
    if expected is not None:
        assert len(rows) + len(bad) == expected, f"{len(rows)} + {len(bad)} is not {expected}"
    return "quarantined in part" if bad and rows else "quarantined" if bad else "read"


def known_count(data: bytes) -> int | None:
    """How many records a file has, where somebody else can say: JSON lines that Python unpacks."""
    try:
        if data.startswith(b"\x1f\x8b\x08"):
            data = gzip.decompress(data)
        elif data.startswith(b"\x28\xb5\x2f\xfd"):
            data = zstd.decompress(data)
    except (OSError, EOFError, zlib.error, zstd.ZstdError):
        return None
    if not data.lstrip().startswith(b"{"):
        return None
    return sum(bool(line.strip(b" \t\r")) for line in data.split(b"\n"))


@dataclass
class Report:
    """What became of many files. ``failures`` are (seed, file, what went wrong)."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    peak_bytes: int = 0
    """The largest resident size of a process."""


def run(seeds: range) -> Report:
    """Check the damaged files of all seeds."""
    report = Report()
    todo = seeds
    while todo:
        batch, todo = todo[:_BATCH], todo[_BATCH:]
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_check_all, args=(batch, sender))
        process.start()
        sender.close()
        done = 0
        for outcome in _received(receiver):
            if isinstance(outcome, int):
                report.peak_bytes = max(report.peak_bytes, outcome)
                continue
            kind, what = outcome
            report.outcomes[kind] += 1
            if kind == "failed":
                report.failures.append((batch[done], mutated(batch[done])[0], what))
            done += 1
        process.join()
        if done < len(batch):  # it died on this one; the others get a new process
            what = f"the process ended with {process.exitcode}"
            report.outcomes["failed"] += 1
            report.failures.append((batch[done], mutated(batch[done])[0], what))
            todo = range(batch[done] + 1, seeds.stop)
    return report


def _received(receiver: Connection) -> Iterator[Any]:
    with receiver:
        while True:
            try:
                yield receiver.recv()
            except EOFError:
                return


def _check_all(seeds: range, sender: Connection) -> None:
    limit_memory(SPARE_BYTES)
    for seed in seeds:
        limit_time(SECONDS)
        name, data = mutated(seed)
        try:
            sender.send((check(name, data), ""))
        except Exception:
            sender.send(("failed", traceback.format_exc(limit=-4)))
    sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
