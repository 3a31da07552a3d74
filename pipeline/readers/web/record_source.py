"""Splits the byte stream of a WARC or ARC file into records.

A record is a header with a length, then the block. Damage or a wrong length costs one record, whose
offset is reported.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.readers.contract import Quarantine, Reason
from pipeline.readers.inflate import Damage
from pipeline.readers.web.warc_kernel import MAX_HEADER

_EMPTY_LINES = re.compile(rb"[\r\n]*")
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class Record:
    offset: int  # in the decompressed stream
    headers: Mapping[str, str]  # by name in lower case
    block: bytes


@dataclass(frozen=True)
class Framing:
    """How a format delimits records."""

    header: re.Pattern[bytes]  # of a record
    next_record: re.Pattern[bytes]  # its match ends where a record starts
    start_bytes: int  # the most bytes that next_record looks at
    look_ahead: int
    headers: Callable[[re.Match[bytes]], dict[str, str]]  # of a match, by their WARC names
    may_follow: Callable[[bytes], bool]  # whether these look_ahead bytes may follow a record


@dataclass
class RecordSource:
    """Decoded bytes up to the next damage; ``data`` is read but not consumed.

    Nothing after damage is read until it is reported, so no record spans it.
    """

    _pieces: Iterator[bytes | Damage]
    _framing: Framing
    _quarantine: Quarantine
    _max_bytes: int
    data: bytearray = field(default_factory=bytearray)
    damage: Damage | None = None
    _offset: int = 0
    _ahead: Damage | None = None
    _ended: bool = False

    def read_ahead(self, enough: int) -> None:
        """Buffer ``enough`` bytes, or as many as precede damage, which is not reported."""
        while len(self.data) < enough and not (self._ended or self.damage or self._ahead):
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
            elif isinstance(piece, Damage):
                self._ahead = piece
            else:
                self.data += piece

    def use(self, count: int) -> None:
        del self.data[:count]
        self._offset += count

    def at_record(self) -> bool:
        """Skip empty lines and report damage; False at the end."""
        while True:
            while self._fill(1):
                self.use(_EMPTY_LINES.match(self.data).end())  # type: ignore[union-attr]
                if self.data:
                    return True
            if self.damage is None:
                return False
            self._report_damage()

    def next_record(self) -> Record | None:
        """The next record, or None if it was bad, or too long, and has been reported.

        A record's length is right if two empty lines, another record or the end follow its block.
        If it is wrong, or the header cannot be parsed, reading resumes at the next start of a
        record, even within the block that the length claims.
        """
        match = self._header()
        headers = self._framing.headers(match) if match else {}
        length = headers.get("content-length", "")
        reason: Reason = "bad_warc"
        if match and _LENGTH.fullmatch(length):
            end = match.end() + int(length)
            if int(length) > self._max_bytes:
                reason = "too_long"
            elif self._holds(end):
                block = bytes(memoryview(self.data)[match.end() : end])
                record = Record(self._offset, headers, block)
                self.use(end)
                return record
        self._give_up(reason)
        return None

    def _fill(self, enough: int) -> bool:
        """Buffer ``enough`` bytes; False if damage or the end comes first."""
        self.read_ahead(enough)
        if len(self.data) < enough and self._ahead:
            self.damage, self._ahead = self._ahead, None
        return len(self.data) >= enough

    def _header(self) -> re.Match[bytes] | None:
        size = 1 << 10
        while True:
            more = self._fill(size)
            # A copy: a match object would lock the bytearray.
            match = self._framing.header.match(bytes(self.data[:size]))
            if match or not more or size >= MAX_HEADER:
                return match
            size *= 4

    def _holds(self, end: int) -> bool:
        """Whether a block that ends at ``end`` is complete, undamaged and correctly terminated."""
        self._fill(end + self._framing.look_ahead)
        if len(self.data) < end:
            return False
        if self.damage and self.damage.produced > len(self.data) - end:
            return False
        return self._framing.may_follow(bytes(self.data[end : end + self._framing.look_ahead]))

    def _give_up(self, reason: Reason) -> None:
        """Report the record at the start of ``data``, or damage in it, and skip to the next one."""
        at, content = self._offset, bytes(self.data[:MAX_HEADER])
        while True:
            match = self._framing.next_record.search(self.data)
            place = match.end() if match else 0
            del match  # it would lock the bytearray
            if place:
                self.use(place)
                break
            self.use(max(len(self.data) - self._framing.start_bytes, 0))
            if not self._fill(len(self.data) + 1):
                self.use(len(self.data))
                if self.damage:
                    self._report_damage(content)
                    return
                break
        self._quarantine.add(at, "byte", reason, content)

    def _report_damage(self, content: bytes = b"") -> None:
        assert self.damage is not None
        self._quarantine.add(self.damage.offset, "compressed byte", self.damage.reason, content)
        self.damage = None
