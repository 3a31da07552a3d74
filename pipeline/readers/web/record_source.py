"""Splits the byte stream of a WARC or ARC file into records.

Both formats are a header with a length, then the block. Damage or a wrong length costs one record,
which is reported with its offset.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.readers.contract import Quarantine, Reason
from pipeline.readers.inflate import Damage
from pipeline.readers.web.warc_kernel import MAX_HEADER

_EMPTY_LINES = re.compile(rb"[\r\n]*")
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class Record:
    """One record. Header names are lower case; ``offset`` is its position in the stream."""

    offset: int
    headers: Mapping[str, str]
    block: bytes


@dataclass(frozen=True)
class Framing:
    """How a format delimits records.

    ``header`` matches the header of a record, ``next_record`` ends where one starts, and spans
    fewer than ``start_bytes``. ``headers`` are a match's names, as WARC has them, and values.
    ``may_follow`` says whether ``look_ahead`` bytes, or those before the end, may come after a
    record.
    """

    header: re.Pattern[bytes]
    next_record: re.Pattern[bytes]
    start_bytes: int
    look_ahead: int
    headers: Callable[[re.Match[bytes]], dict[str, str]]
    may_follow: Callable[[bytes], bool]


def next_record(source: "RecordSource", quarantine: Quarantine, max_bytes: int) -> Record | None:
    """The next record, or None if it was bad and has been reported.

    A record's length is right if two empty lines, another record or the end follow its block. If it
    is not, or the header cannot be parsed, reading resumes at the next start of a record, even
    within the block that the wrong length claims. Records over ``max_bytes`` are reported and
    passed over in the same way.
    """
    match = source.header()
    if match is None:
        source.give_up(quarantine, "bad_warc")
        return None
    headers = source.framing.headers(match)
    length = headers.get("content-length", "")
    if not _LENGTH.fullmatch(length):
        source.give_up(quarantine, "bad_warc")
        return None
    if int(length) > max_bytes:
        source.give_up(quarantine, "too_long")
        return None
    end = match.end() + int(length)
    if not source.holds(end):
        source.give_up(quarantine, "bad_warc")
        return None
    block = bytes(memoryview(source.data)[match.end() : end])
    record = Record(source.offset, headers, block)
    source.use(end)
    return record


class RecordSource:
    """Decoded bytes up to the next damage; ``data`` is read but not consumed.

    After damage nothing is read until it is reported, so no record is glued together across it.
    """

    def __init__(self, pieces: Iterator[bytes | Damage], framing: Framing) -> None:
        self._pieces = pieces
        self.framing = framing
        self.data = bytearray()
        self.offset = 0
        self.damage: Damage | None = None
        self._ahead: Damage | None = None
        self._ended = False

    def fill(self, enough: int) -> bool:
        """Buffer ``enough`` bytes; False if damage or the end comes first."""
        self.read_ahead(enough)
        if len(self.data) < enough and self._ahead:
            self.damage, self._ahead = self._ahead, None
        return len(self.data) >= enough

    def read_ahead(self, enough: int) -> None:
        """Buffer ``enough`` bytes, or as many as precede damage; does not report the damage."""
        while len(self.data) < enough and not (self._ended or self.damage or self._ahead):
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
            elif isinstance(piece, Damage):
                self._ahead = piece
            else:
                self.data += piece

    def use(self, count: int) -> None:
        """Consume ``count`` bytes."""
        del self.data[:count]
        self.offset += count

    def at_record(self, quarantine: Quarantine) -> bool:
        """Whether anything but empty lines is left; reports the damage before it."""
        while True:
            while self.fill(1):
                self.use(_EMPTY_LINES.match(self.data).end())  # type: ignore[union-attr]
                if self.data:
                    return True
            if self.damage is None:
                return False
            self.report(quarantine)

    def header(self) -> re.Match[bytes] | None:
        """The header that ``data`` starts with."""
        size = 1 << 10
        while True:
            more = self.fill(size)
            # A copy: a match object would lock the bytearray.
            match = self.framing.header.match(bytes(self.data[:size]))
            if match or not more or size >= MAX_HEADER:
                return match
            size *= 4

    def holds(self, end: int) -> bool:
        """Whether a block that ends at ``end`` is complete, undamaged and correctly terminated."""
        self.fill(end + self.framing.look_ahead)
        if len(self.data) < end:
            return False
        if self.damage and self.damage.produced > len(self.data) - end:
            return False
        after = bytes(self.data[end : end + self.framing.look_ahead])
        return self.framing.may_follow(after)

    def give_up(self, quarantine: Quarantine, reason: Reason) -> None:
        """Report the record at the start of ``data`` and skip to the next one.

        If damage comes first, only the damage is reported.
        """
        at, content = self.offset, bytes(self.data[:MAX_HEADER])
        while True:
            match = self.framing.next_record.search(self.data)
            place = match.end() if match else 0
            del match  # it would lock the bytearray
            if place:
                self.use(place)
                break
            self.use(max(len(self.data) - self.framing.start_bytes, 0))
            if not self.fill(len(self.data) + 1):
                self.use(len(self.data))
                if self.damage:
                    self.report(quarantine, content)
                    return
                break
        quarantine.add(at, "byte", reason, content)

    def report(self, quarantine: Quarantine, content: bytes = b"") -> None:
        """Report the damage and resume after it."""
        assert self.damage is not None
        quarantine.add(self.damage.offset, "compressed byte", self.damage.reason, content)
        self.damage = None
