"""Checks of Parquet pages before pyarrow decodes them.

A footer may lie. How much memory a piece of a row group takes depends on the unpacked size of its
pages and on the longest value that rows share. So each page is inspected on its way to pyarrow,
which reads the pages of a column in order.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.readers.columnar.parquet_footer import Column, Compact, Value, get
from winnow.text.buffers import Octets

Integers = npt.NDArray[np.int64]

PIECE_BYTES = 128 << 20
"""Limit for a column's unpacked pages and for its values in a piece of more than one row."""

_MAX_RATIO = 64
"""A page that unpacks to more than both is damaged or a bomb: text compresses 2 to 4 times."""

_FEW_BYTES = 1 << 9  # nearly all headers are shorter
_MAX_HEADER = 1 << 20
_MAX_NUMBER = (1 << 31) - 1
_ITEM_BYTES = 16  # the least memory of a dictionary or list entry, or a length decoded early

_AT_ONCE = 1 << 12
_MAX_WIDTH = 32  # bits of a length

# parquet.thrift: PageType, Encoding, CompressionCodec
_DICTIONARY = 2
_OLD_INDICES, _RLE, _DELTA_LENGTH, _DELTA, _INDICES = 2, 3, 6, 7, 8
_ENCODINGS = range(10)
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}

_AHEAD = 4  # limit on reading ahead by 16 KiB, in PIECE_BYTES: at 28,000 to 1 they hold 460 MB


class Leaf(NamedTuple):  # a column in the schema
    definition: int  # depth of its values in optional fields and lists
    repetition: int  # depth in lists
    width: int | None  # bytes of each value; None for strings


class Page(NamedTuple):
    """A page header."""

    kind: int
    unpacked: int  # bytes after decompression
    stored: int  # bytes in the file
    values: int
    encoding: int
    levels: tuple[tuple[int, int | None], ...] = ()
    """Encoding and size of the repetition and definition levels, never compressed, before the
    values; a size of None is stored inside the page."""
    compressed: bool = True

    @property
    def delta(self) -> bool:  # pyarrow decodes all of its lengths at once
        return self.kind != _DICTIONARY and self.encoding in (_DELTA_LENGTH, _DELTA)

    @property
    def indices(self) -> bool:  # into the dictionary
        return self.kind != _DICTIONARY and self.encoding in (_OLD_INDICES, _INDICES)


class TooMuchError(ValueError):
    """A piece of a row group may take too much memory: try pieces of ``rows`` rows."""

    def __init__(self, rows: int, careful: bool) -> None:
        super().__init__(f"one piece takes more than {PIECE_BYTES:,} bytes")
        self.rows = max(rows, 1)
        self.careful = careful


class Pages:
    """Inspects the pages of some columns of a row group that is decoded ``rows`` at a time.

    Pages that are read ahead for a later piece count for the current one, which may then be too
    much; ``careful`` says that little is read ahead. Overlapping columns raise ValueError.
    """

    def __init__(
        self, columns: Iterable[tuple[Column, Leaf]], rows: int, careful: bool = False
    ) -> None:
        self._rows = rows
        self._most = _AHEAD * PIECE_BYTES if careful else PIECE_BYTES
        self._careful = careful
        self._chunks = sorted(itertools.starmap(_Chunk, columns), key=lambda chunk: chunk.at)
        for before, after in itertools.pairwise(self._chunks):
            if before.at + before.column.stored > after.at:
                raise ValueError("two columns in one place")

    def next_piece(self) -> None:
        for chunk in self._chunks:
            chunk.entered = chunk.cost = 0

    def see(self, position: int, data: bytes) -> None:
        """Inspect the pages that start in ``data``, read at a position in the file.

        Raises:
            TooMuchError: the piece may take too much memory.
            ValueError: a header is invalid, or its numbers are out of proportion.
        """
        # At a boundary the read belongs to the next column.
        chunk = next((chunk for chunk in reversed(self._chunks) if chunk.at == position), None)
        if chunk is None:
            raise ValueError(f"no page of a column is to be read at {position}")
        for page, body in chunk.pages(data):
            self._enter(chunk, page, body)

    def _enter(self, chunk: "_Chunk", page: Page, body: bytes) -> None:
        cost = max(page.unpacked, page.stored)
        if page.kind == _DICTIONARY or page.delta or chunk.leaf.repetition:
            cost += _ITEM_BYTES * page.values
        if page.indices and chunk.leaf.repetition:  # all may be of one row
            cost += chunk.shared * page.values
        _check_ratio(page, cost)
        if page.kind == _DICTIONARY:
            longest = chunk.learn(page, body, self._rows)
        else:
            longest = max(chunk.shared, page.unpacked // max(page.values, 1))
        if page.delta:
            lengths = _lengths(page, chunk.unpack(page, body), chunk.leaf)
            total = int(lengths.sum())
            cost += total
            if chunk.leaf.repetition:
                _check_ratio(page, cost)
            if total > PIECE_BYTES:
                longest = max(longest, int(lengths.max()))
        if self._rows > 1 and self._rows * longest > PIECE_BYTES:
            raise TooMuchError(PIECE_BYTES // longest, self._careful)
        chunk.entered += 1
        chunk.cost += cost
        # A single page, even a large one, may serve many pieces.
        if chunk.entered > 1 and chunk.cost > self._most:
            if self._rows > 1 or not self._careful:
                raise TooMuchError(self._rows // 8, careful=True)
            if chunk.leaf.repetition:
                raise ValueError(f"a row of more than {self._most:,} bytes")


def _check_ratio(page: Page, cost: int) -> None:
    if cost > max(PIECE_BYTES, _MAX_RATIO * page.stored):
        raise ValueError(f"a page of {page.stored:,} bytes takes {cost:,}")


class _Chunk:
    """The inspected pages of a column in a row group."""

    def __init__(self, column: Column, leaf: Leaf) -> None:
        self.column = column
        self.leaf = leaf
        self.at = column.start  # of the next bytes
        self.entered = self.cost = 0  # pages of the current piece, and their memory
        self.shared = leaf.width or 0  # the length of the longest value in the dictionary
        self._data = bytearray()  # from the start of a header, or of a wanted body
        self._page: Page | None = None
        self._skip = 0

    def pages(self, data: bytes) -> Iterator[tuple[Page, bytes]]:
        """The pages that ``data`` completes; only bodies that are inspected are not empty."""
        self.at += len(data)
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._data += memoryview(data)[skipped:]
        while self._data:
            if self._page is None:
                found = read_header(bytes(self._data[:_FEW_BYTES])) or read_header(
                    bytes(self._data[:_MAX_HEADER])
                )
                if found is None:
                    return
                self._page, size = found
                del self._data[:size]
            page = self._page
            wanted = page.kind == _DICTIONARY or page.delta
            if wanted and len(self._data) < page.stored:
                return
            body = bytes(self._data[: page.stored]) if wanted else b""
            self._skip = max(page.stored - len(self._data), 0)
            del self._data[: page.stored]
            self._page = None
            yield page, body

    def learn(self, page: Page, body: bytes, rows: int) -> int:
        """The new ``shared``, if ``page`` is the dictionary."""
        if self.leaf.width is None:
            self.shared = max(page.unpacked, page.stored)
            # Finding the exact length takes a while.
            if self.leaf.repetition or rows * self.shared > PIECE_BYTES:
                self.shared = _longest(self.unpack(page, body))
        return self.shared

    def unpack(self, page: Page, body: bytes) -> bytes:
        """The decompressed content after the levels; any error if it is damaged."""
        start = sum(size or 0 for _, size in page.levels)
        if self.column.codec == 0 or not page.compressed:
            return body[start:]
        if self.column.codec not in _CODECS:
            raise ValueError(f"compressed by codec {self.column.codec}")
        size = page.unpacked - start
        return pa.decompress(body[start:], size, _CODECS[self.column.codec], asbytes=True)


def read_header(data: bytes) -> tuple[Page, int] | None:
    """The page header that starts ``data``, and its size; None if incomplete, or ValueError."""
    reader = Compact(data)
    try:
        page = _page(reader.struct())
    except IndexError:
        if len(data) >= _MAX_HEADER:
            raise ValueError("an endless page header") from None
        return None
    except TypeError as error:
        raise ValueError(f"an invalid page header: {error}") from error
    sizes = [page.unpacked, page.stored, page.values, *(size or 0 for _, size in page.levels)]
    if not all(0 <= size <= _MAX_NUMBER for size in sizes) or page.encoding not in _ENCODINGS:
        raise ValueError(f"an invalid page header: {page}")
    return page, reader.at


def _page(header: dict[int, Value]) -> Page:
    kind, unpacked, stored = (get(header, field, int) for field in (1, 2, 3))
    levels: tuple[tuple[int, int | None], ...] = ()
    match kind:
        case 0:  # DataPageHeader
            about = get(header, 5, dict)
            levels = tuple((get(about, field, int), None) for field in (4, 3))
        case 2:  # DictionaryPageHeader
            about = get(header, 7, dict)
        case 3:  # DataPageHeaderV2
            about = get(header, 8, dict)
            levels = tuple((_RLE, get(about, field, int)) for field in (6, 5))
        case _:
            raise ValueError(f"a page of kind {kind}")
    values, encoding = get(about, 1, int), get(about, 4 if kind == 3 else 2, int)
    compressed = kind != 3 or about.get(7) is not False
    return Page(kind, unpacked, stored, values, encoding, levels, compressed)


def _longest(dictionary: bytes) -> int:
    at = longest = 0
    while at < len(dictionary):
        length = int.from_bytes(dictionary[at : at + 4], "little")
        longest = max(longest, length)
        at += 4 + length
    return longest


def _lengths(page: Page, content: bytes, leaf: Leaf) -> Integers:
    """The lengths of a page's values if they share prefixes (DELTA_BYTE_ARRAY); otherwise empty.

    The lengths of the prefixes and of the suffixes are DELTA_BINARY_PACKED (Encodings.md of Apache
    Parquet). More lengths than values are refused: pyarrow would decode them all at once.
    """
    at = 0
    for (encoding, size), deep in zip(page.levels, (leaf.repetition, leaf.definition), strict=True):
        if deep and size is None:
            if encoding != _RLE:
                raise ValueError(f"levels in encoding {encoding}")
            at += 4 + int.from_bytes(content[at : at + 4], "little")
    reader = Compact(content, at)
    try:
        if page.encoding == _DELTA_LENGTH:
            _count(reader, page)
            return np.empty(0, np.int64)
        prefixes, suffixes = (_numbers(reader, *_count(reader, page)) for _ in range(2))
    except IndexError:
        raise ValueError("endless lengths") from None
    if len(prefixes) != len(suffixes) or min(prefixes.min(initial=0), suffixes.min(initial=0)) < 0:
        raise ValueError("invalid lengths")
    return prefixes + suffixes


def _count(reader: Compact, page: Page) -> tuple[int, int, int]:
    """The header of DELTA_BINARY_PACKED: the count of numbers, parts of a block, size of a part."""
    block, parts, count = (reader.unsigned() for _ in range(3))
    size = block // max(parts, 1)
    if count > page.values:
        raise ValueError(f"{count} lengths of {page.values} values")
    if not size:
        raise ValueError(f"blocks of {block} in {parts} parts")
    return count, parts, size


def _numbers(reader: Compact, count: int, parts: int, size: int) -> Integers:
    """``count`` numbers (int64), stored as the first and differences."""
    found = [np.array([reader.signed()], np.int64)]
    left = count - 1
    while left > 0:
        smallest = reader.signed()
        for width in reader.octets(parts):
            if left > 0:
                part = np.frombuffer(reader.octets(size * width // 8), np.uint8)
                found += (smallest + more for more in _unpacked(part, width, min(size, left)))
                left -= size
    # pyarrow counts in 32 bits and wraps around.
    return np.cumsum(np.concatenate(found)[:count]).astype(np.int32).astype(np.int64)


def _unpacked(part: Octets, width: int, count: int) -> Iterator[Integers]:
    """``count`` numbers (int64) of ``width`` bits, lowest bit first, in batches."""
    if width > _MAX_WIDTH:
        raise ValueError(f"lengths of {width} bits")
    powers = np.int64(1) << np.arange(width)
    for start in range(0, count, _AT_ONCE):
        rows = min(count - start, _AT_ONCE)
        first = start * width // 8
        bits = np.unpackbits(part[first:][: rows * width], count=rows * width, bitorder="little")
        yield bits.reshape(rows, width) @ powers
