"""Marks the places in a web page that resiliparse misreads, for ``html_rewrite``.

A compiled kernel splits the page into tags and texts by the HTML standard ("Tokenization"), without
building a tree.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.readers.web.html_scan import (
    alt,
    end_of_raw,
    end_of_tag,
    find,
    has_attributes,
    is_character,
    is_letter,
    may_be_three_bytes,
    name_hash,
    skip_to,
    starts_tag,
    starts_with,
    tag_name,
    trim,
)
from winnow.text.buffers import Octets
from winnow.text.vectors import BLOCK

Integers = npt.NDArray[np.int64]


# The kinds of marks: a text that may have three bytes, not all ASCII; such a text without character
# references, in a CDATA section or ``<xmp>``; the start of a text that may touch that of another
# element; the start of a text that belongs on a new line; and both starts where no HTML element is
# allowed, in SVG, MathML, plain text or an attribute.
MARKS = ("TEXT", "CDATA", "SPACE", "NEWLINE", "BARE_SPACE", "BARE_NEWLINE")
TEXT, CDATA, _SPACE, _NEWLINE, _BARE_SPACE, _BARE_NEWLINE = range(len(MARKS))

# How elements affect the texts around them.
_SEPARATOR, _BLOCK, _DROPPED, _UNLISTED, _BOX, _IMAGE, _FOREIGN, _PART, _LEAVING = range(1, 10)
_RAW, _RAW_BOX, _RAW_UNLISTED = range(10, 13)
_HTML = {
    _SEPARATOR: "br hr td th",
    # Blocks at which resiliparse ends a line, unless it drops them for their attributes,
    _BLOCK: "address blockquote center dd details dl dt fieldset figcaption figure form h1 h2 h3 h4"
    " h5 h6 header hgroup li main ol p pre section table tr",
    # or in any case.
    _DROPPED: "article aside div footer nav ul",
    # Other blocks of the HTML standard ("Rendering").
    _UNLISTED: "caption dialog dir legend listing menu optgroup search summary",
    # Inline boxes. Most are dropped.
    _BOX: "audio button canvas input label meter noscript object option progress select time video",
    _IMAGE: "area img",
    _FOREIGN: "math svg",
    # Tags inside these are text, which is dropped or kept.
    _RAW: "script style title",
    _RAW_BOX: "iframe textarea",
    _RAW_UNLISTED: "noembed noframes plaintext xmp",
}
_IN_FOREIGN = {
    # Parts of SVG and MathML that are separate texts.
    _PART: "annotation annotation-xml desc foreignobject mlabeledtr mtd mtr text title",
    # HTML that ends them (the standard's "Parsing", foreign content).
    _LEAVING: "b big blockquote body br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head hr"
    " i img li listing menu meta nobr ol p pre ruby s small span strong strike sub sup table tt u"
    " ul var",
}

_LESS, _GREATER, _SLASH = (ord(c) for c in "<>/")
_COMMENT, _COMMENT_END, _SECTION, _SECTION_END = (
    np.frombuffer(part, np.uint8) for part in (b"<!--", b"-->", b"<![CDATA[", b"]]>")
)
_MAX_OPEN = 256  # blocks; of more, as with unclosed paragraphs, the oldest are forgotten
_SLOTS = 256


def _table(names: dict[int, str]) -> Integers:
    """A hash table, int64 [_SLOTS, 2]: hashes of names and their kinds, 0 in empty slots."""
    table = np.zeros((_SLOTS, 2), np.int64)
    for kind, line in names.items():
        for name in line.split():
            key = name_hash(name)
            slot = key % _SLOTS
            while table[slot, 1]:
                slot = (slot + 1) % _SLOTS
            table[slot] = key, kind
    return table


_HTML_TABLE = _table(_HTML)
_PART_TABLE = _table(_IN_FOREIGN)
_DIV, _ARTICLE = name_hash("div"), name_hash("article")


def scan(page: bytes) -> tuple[Integers, int]:
    """The marks of a page, and the nesting depth of its ``div`` and ``article`` elements.

    Marks are int64 [n, 3]: start, end and kind (of :data:`MARKS`). As parsers drop unmatched end
    tags, a short text that follows one byte and end tags is marked again, together with these.
    """
    padded = np.frombuffer(page + bytes(BLOCK), np.uint8)
    return _scan(padded[: len(page)])


@njit(nogil=True, cache=True)
def _scan(page: Octets) -> tuple[Integers, int]:
    marks = np.empty((64, 3), np.int64)
    count = deepest = depth = 0
    stop = len(page)
    at = name = 0
    raw = hidden = section = False  # the kind of the next text
    blocks = np.zeros((_MAX_OPEN, 2), np.int64)  # open: names, and if a text touches
    opened = 0
    foreign = 0  # open SVG and MathML elements
    seen = False  # whether the line has a text
    touching = False  # whether only tags separate the next text from the previous one
    gap = 0  # what these tags mean: nothing, _SPACE or _NEWLINE
    byte_before = -1  # the last text, if it has one byte and only end tags followed
    while at < stop:
        start = at
        if raw:
            at = end_of_raw(page, at, name)
        elif section:
            at = find(page, at, _SECTION_END)
        else:
            at = skip_to(page, at, _LESS)
            while not starts_tag(page, at + 1):
                at = skip_to(page, at + 1, _LESS)
        first, end = trim(page, start, at)
        if first < end and not hidden:
            bare = raw or foreign > 0
            if gap == _NEWLINE and seen:
                mark = _BARE_NEWLINE if bare else _NEWLINE
                marks, count = _add(marks, count, first, first, mark)
            elif gap and touching and first == start:
                mark = _BARE_SPACE if bare else _SPACE
                marks, count = _add(marks, count, first, first, mark)
            if may_be_three_bytes(page, first, end):
                marks, count = _add(marks, count, first, end, CDATA if raw or section else TEXT)
                if byte_before >= 0:
                    marks, count = _add(marks, count, byte_before, end, TEXT)
            byte_before = first if end - first == 1 else -1
            gap = 0
            seen = True
            touching = end == at
        elif at > start and not hidden:
            touching = False
        if section:
            at += len(_SECTION_END)
        raw = hidden = section = False
        if at >= stop or page[at] != _LESS:
            continue

        closes = at + 1 < stop and page[at + 1] == _SLASH
        if not closes:
            byte_before = -1
        name = at + 1 + closes
        if name >= stop or not is_letter(page[name]):
            if foreign and starts_with(page, at, _SECTION):
                section = True
                at += len(_SECTION)
            elif starts_with(page, at, _COMMENT):
                at = find(page, at + 2, _COMMENT_END) + len(_COMMENT_END)
            else:
                at = skip_to(page, at, _GREATER) + 1
            continue
        at, key = tag_name(page, name)
        attributes = at
        at = end_of_tag(page, at)
        kind = _kind(_PART_TABLE, key) if foreign else 0
        if kind == _LEAVING and not closes:
            foreign = 0
        if kind in (0, _LEAVING):
            kind = _kind(_HTML_TABLE, key)
        if foreign and kind not in (_PART, _FOREIGN) and not closes:
            kind = 0

        if key in (_DIV, _ARTICLE):
            depth = max(depth - 1, 0) if closes else depth + 1
            deepest = max(deepest, depth)
        if kind == _SEPARATOR:
            seen = touching = False
        elif kind in (_BLOCK, _DROPPED) and closes:
            opened, touching = _close(blocks, opened, key)
            gap = _SPACE
            seen = False
        elif kind in (_BLOCK, _DROPPED):
            # If resiliparse drops it, the text after it touches the one before.
            touching &= kind == _DROPPED or has_attributes(page, attributes, at)
            opened = (opened + 1) % len(blocks)
            blocks[opened] = key, int(touching)
            seen = touching = False
        elif kind in (_BOX, _PART, _RAW_BOX):
            gap = max(gap, _SPACE)
            touching |= closes  # if dropped, then with its trailing white space
        elif kind in (_UNLISTED, _RAW_UNLISTED):
            gap = _NEWLINE
            touching |= closes
        elif kind == _FOREIGN:
            if closes:
                foreign = max(foreign - 1, 0)
            elif page[at - 2] != _SLASH:
                foreign += 1
        elif kind == _IMAGE:
            start, end = alt(page, attributes, at)
            if start < end:
                is_word = not is_character(page, start, end)  # else an initial or an emoji
                if gap == _NEWLINE and seen:
                    marks, count = _add(marks, count, start, start, _BARE_NEWLINE)
                elif touching and (gap or is_word):
                    marks, count = _add(marks, count, start, start, _BARE_SPACE)
                gap = _SPACE if is_word else 0
                seen = touching = True
        if kind in (_RAW, _RAW_BOX, _RAW_UNLISTED) and not closes:
            raw = True
            hidden = kind != _RAW_UNLISTED
    return marks[:count], deepest


@njit(nogil=True, cache=True)
def _add(marks: Integers, count: int, start: int, end: int, mark: int) -> tuple[Integers, int]:
    if count == len(marks):
        marks = np.concatenate((marks, np.empty_like(marks)))
    marks[count] = start, end, mark
    return marks, count + 1


@njit(nogil=True, cache=True)
def _close(blocks: Integers, opened: int, key: np.int64) -> tuple[int, bool]:
    """The number of blocks open after the last of a name closes, and whether a text touches it."""
    for place in range(opened, 0, -1):
        if blocks[place, 0] == key:
            return place - 1, blocks[place, 1] != 0
    return opened, False


@njit(nogil=True, cache=True)
def _kind(table: Integers, key: np.int64) -> int:
    slot = key & (_SLOTS - 1)
    while table[slot, 1] and table[slot, 0] != key:
        slot = (slot + 1) & (_SLOTS - 1)
    return table[slot, 1]
