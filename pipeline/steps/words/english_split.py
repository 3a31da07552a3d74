"""spaCy's rules for English, for the code points of one piece between white space.

Punctuation is split off both ends of a piece until a known word or no punctuation is left
(``"(Mr."`` gives ``( Mr.``); then the rest is split inside, such as at hyphens, unless it is a URL.
Tokens that together are a known word, such as ``:)``, are joined again.

Rare rules are left out. Letters and symbols follow Unicode's categories instead of spaCy's lists of
ranges, and only units in Latin letters are known.
"""

import functools
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from pipeline.steps.words.characters import MAXIMUM, Hashes, mix, table_size
from pipeline.steps.words.english_words import DOLLARS, UNITS, vocabulary

CodePoints = npt.NDArray[np.int32]
Kinds = npt.NDArray[np.uint16]

_LOWER: Final = 1  # letters that are not upper case
_UPPER: Final = 2  # letters that are not lower case
_DIGIT: Final = 4
_MARK: Final = 8  # punctuation and quotes, split off at either end
_PREFIX: Final = 16
_SUFFIX: Final = 32
_SYMBOL: Final = 64
_CURRENCY: Final = 128
_QUOTE: Final = 256
_ALPHA: Final = _LOWER | _UPPER
PUNCTUATION: Final = 512  # of Unicode's categories P
FULL_STOP: Final = 1024  # ends a sentence

_PUNCTUATION = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧"
_DOT, _PLUS, _MINUS, _COMMA, _AT, _COLON, _SLASH = (ord(character) for character in ".+-,@:/")
_ELLIPSIS, _APOSTROPHE, _CURLY = (ord(character) for character in "…'’")
_S_LOWER, _S_UPPER = ord("s"), ord("S")
_STAR, _CARET, _TILDE, _EN_DASH, _EM_DASH = (ord(character) for character in "*^~–—")
_LESS, _GREATER, _EQUAL, _QUESTION, _HASH = (ord(character) for character in "<>=?#")
_PERCENT, _SQUARED, _BAR, _UNDERSCORE = (ord(character) for character in "%²|_")

_LONGEST = 12  # no known word has more characters


class Words(NamedTuple):
    """Words by the hash of their code points, as an open-addressing table."""

    keys: Hashes
    lengths: npt.NDArray[np.uint32]
    """The characters of the parts that a word splits into: a byte for each, the first lowest."""


class Tables(NamedTuple):
    kinds: Kinds
    known: Words
    units: Words
    dollars: Words


@functools.cache
def tables() -> Tables:
    units = _table([word] for word in f"{UNITS} {DOLLARS}".split())
    return Tables(_kinds(), _table(vocabulary()), units, _table([word] for word in DOLLARS.split()))


def _kinds() -> Kinds:
    """The kinds of every code point, as bits (uint16 [0x110000])."""
    kinds = np.zeros(MAXIMUM, np.uint16)
    for code in range(0x20000):  # beyond are only rare ideographs
        category = unicodedata.category(chr(code))
        if category[0] == "L" and (code < 0x80 or code >= 0xC0):
            kinds[code] = _LOWER * (category != "Lu") | _UPPER * (category != "Ll")
        elif category == "So":
            kinds[code] = _SYMBOL | _PREFIX | _SUFFIX
        elif category == "Sc" and chr(code) not in "¢¤":
            kinds[code] = _CURRENCY | _PREFIX
        elif category[0] == "P":
            kinds[code] = PUNCTUATION
    kinds[0x20000:0x32000] = _ALPHA
    for characters, bits in (
        ("0123456789", _DIGIT),
        (_PUNCTUATION, _MARK | _PREFIX | _SUFFIX),
        (_QUOTES, _MARK | _PREFIX | _SUFFIX | _QUOTE),
        ("—–", _PREFIX | _SUFFIX),
        ("§%=", _PREFIX),
        ("!.?‼‽⁇⁈⁉⸮﹒﹖﹗！．？｡。", FULL_STOP),
    ):
        kinds[[ord(character) for character in characters]] |= bits
    return kinds


def _table(words: Iterable[Sequence[str]]) -> Words:
    parted = {"".join(parts): [len(part) for part in parts] for parts in words}
    size = table_size(2 * len(parted))
    table = Words(np.zeros(size, np.uint64), np.zeros(size, np.uint32))
    for word, lengths in parted.items():
        codes = np.array([ord(character) for character in word], np.int32)
        slot, key = _slot(table, codes, 0, len(codes))
        table.keys[slot] = key
        table.lengths[slot] = sum(length << 8 * k for k, length in enumerate(lengths))
    return table


@nb.njit(nogil=True, cache=True)
def _slot(table: Words, codes: CodePoints, low: int, high: int) -> tuple[int, np.uint64]:
    """The slot in the table for the word ``codes[low:high]``, and its hash."""
    key = np.uint64(high - low)
    for k in range(low, high):
        key = mix(key, np.uint64(codes[k]))
    key |= np.uint64(key == 0)
    mask = len(table.keys) - 1
    slot = np.int64(key & np.uint64(mask))
    while table.keys[slot] != 0 and table.keys[slot] != key:
        slot = (slot + 1) & mask
    return int(slot), key


@nb.njit(nogil=True, cache=True)
def _look_up(table: Words, codes: CodePoints, low: int, high: int) -> int:
    """The lengths of the parts of a known word, or 0."""
    if high - low > _LONGEST or high <= low:
        return 0
    slot, _ = _slot(table, codes, low, high)
    return int(table.lengths[slot])


@nb.njit(nogil=True, cache=True)
def split(codes: CodePoints, n: int, tables: Tables, ends: CodePoints, rest: CodePoints) -> int:
    """Split a piece of n characters, fill ``ends`` with the end of each token, return their number.

    ``rest`` is scratch for the ends of suffixes, the last one first.
    """
    low, high = 0, n
    found = suffixes = 0
    while low < high and not _look_up(tables.known, codes, low, high):
        before = _prefix(codes, low, high, tables)
        after = 0
        if not before or not _look_up(tables.known, codes, low + before, high):
            after = _suffix(codes, low + before, high, tables)
            if after and _look_up(tables.known, codes, low, high - after):
                before = 0
            if not before and not after:
                break
        if before:
            low += before
            ends[found] = low
            found += 1
        if after:
            rest[suffixes] = high
            suffixes += 1
            high -= after
    if low < high:
        parts = _look_up(tables.known, codes, low, high)
        if parts:
            while parts:
                low += parts & 0xFF
                ends[found] = low
                found += 1
                parts >>= 8
        else:
            if not _is_url(codes, low, high, tables.kinds):
                found = _split_inside(codes, low, high, tables.kinds, ends, found)
            ends[found] = high
            found += 1
    while suffixes:
        suffixes -= 1
        ends[found] = rest[suffixes]
        found += 1
    return _join(codes, tables.known, ends, found, rest) if found > 1 else found


@nb.njit(nogil=True, cache=True)
def _join(codes: CodePoints, known: Words, ends: CodePoints, n: int, joined: CodePoints) -> int:
    """Join tokens that together are a known word; returns the new number of tokens."""
    found = k = start = 0
    while k < n:
        last, parts = k, 0
        more = k + 1
        while more < n and ends[more] - start <= _LONGEST:
            longer = _look_up(known, codes, start, ends[more])
            if longer:
                last, parts = more, longer
            more += 1
        if not parts:
            start = ends[k]
            joined[found] = start
            found += 1
        while parts:
            start += parts & 0xFF
            joined[found] = start
            found += 1
            parts >>= 8
        k = last + 1
    ends[:found] = joined[:found]
    return found


@nb.njit(nogil=True, cache=True)
def _prefix(codes: CodePoints, low: int, high: int, tables: Tables) -> int:
    """The number of characters to split off at the start of ``codes[low:high]``."""
    kinds = tables.kinds
    code = codes[low]
    if kinds[code] & _PREFIX:
        return 1
    if code == _PLUS:
        return int(low + 1 == high or not kinds[codes[low + 1]] & _DIGIT)
    if code == _DOT:
        dots = 1
        while low + dots < high and codes[low + dots] == _DOT:
            dots += 1
        return dots if dots > 1 else 0
    for size in (2, 3):
        if low + size <= high and codes[low + size - 1] == 36:
            return size if _look_up(tables.dollars, codes, low, low + size) else 0
    return 0


@nb.njit(nogil=True, cache=True)
def _suffix(codes: CodePoints, low: int, high: int, tables: Tables) -> int:
    """The number of characters to split off at the end of ``codes[low:high]``."""
    if low >= high:
        return 0
    kinds = tables.kinds
    code = codes[high - 1]
    dots = 0
    while high - dots > low and codes[high - dots - 1] == _DOT:
        dots += 1
    if dots > 1:
        return dots
    for size in range(min(4, high - low - 1), 0, -1):
        if kinds[codes[high - size - 1]] & _DIGIT and (
            _look_up(tables.units, codes, high - size, high)
            or (size == 1 and kinds[code] & _CURRENCY)
        ):
            return size
    last = codes[high - 2] if high - low > 1 else 0
    if code == _ELLIPSIS and last == _ELLIPSIS:
        return 2
    if code in (_S_LOWER, _S_UPPER) and last in (_APOSTROPHE, _CURLY):
        return 2
    if kinds[code] & _SUFFIX or (code == _PLUS and kinds[last] & _DIGIT):
        return 1
    if code == _DOT:
        before = (_PERCENT, _SQUARED, _MINUS, _PLUS, _BAR)
        if kinds[last] & (_DIGIT | _LOWER | _MARK) or last in before:
            return 1
        if kinds[last] & _UPPER and high - low > 2:
            return int((kinds[codes[high - 3]] & _UPPER) != 0)
    return 0


@nb.njit(nogil=True, cache=True)
def _split_inside(
    codes: CodePoints, low: int, high: int, kinds: Kinds, ends: CodePoints, found: int
) -> int:
    """Add the ends of all tokens in ``codes[low:high]`` but the last; returns the new number."""
    start = at = low
    while at < high:
        size = _infix(codes, at, low, high, kinds)
        if size == 0 or at == low:
            at += max(size, 1)
            continue
        if at > start:
            ends[found] = at
            found += 1
        at += size
        start = at
        if at < high:
            ends[found] = at
            found += 1
    return found


@nb.njit(nogil=True, cache=True)
def _infix(codes: CodePoints, at: int, low: int, high: int, kinds: Kinds) -> int:
    """The number of characters of the token at ``at`` that splits ``codes[low:high]``, or 0."""
    code = codes[at]
    if code == _DOT:
        dots = 1
        while at + dots < high and codes[at + dots] == _DOT:
            dots += 1
        if dots > 1:
            return dots
    elif code == _ELLIPSIS or kinds[code] & _SYMBOL:
        return 1
    if at == low:
        return 0
    before = kinds[codes[at - 1]]
    size = 1
    if code == _MINUS:
        while size < 3 and at + size < high and codes[at + size] == _MINUS:
            size += 1
    elif code == _EM_DASH and at + 1 < high and codes[at + 1] == _EM_DASH:
        size = 2
    following = codes[at + size] if at + size < high else 0
    after = kinds[following]
    if code == _DOT:
        return int((before & (_LOWER | _QUOTE)) != 0 and (after & (_UPPER | _QUOTE)) != 0)
    if code == _COMMA:
        return int((before & _ALPHA) != 0 and (after & _ALPHA) != 0)
    if before & _DIGIT and code in (_PLUS, _MINUS, _STAR, _CARET):
        following = codes[at + 1] if at + 1 < high else 0
        if kinds[following] & _DIGIT or following == _MINUS:
            return 1
    if before & (_ALPHA | _DIGIT) and after & _ALPHA:
        if code in (_MINUS, _EN_DASH, _EM_DASH, _TILDE):
            return size
        if code in (_COLON, _LESS, _GREATER, _EQUAL, _SLASH):
            return 1
    return 0


@nb.njit(nogil=True, cache=True)
def _is_url(codes: CodePoints, low: int, high: int, kinds: Kinds) -> bool:
    """Whether the piece is a URL, a host name or an e-mail address to spaCy."""
    dot = False
    for k in range(low, high):
        dot |= codes[k] == _DOT
    if not dot:
        return False
    first = low
    for k in range(low, high - 2):
        if codes[k] == _COLON and codes[k + 1] == _SLASH and codes[k + 2] == _SLASH:
            first = k + 3
            break
        if not kinds[codes[k]] & (_ALPHA | _DIGIT) and codes[k] not in (_PLUS, _MINUS, _DOT):
            break
    if _is_host(codes, first, high, kinds):
        return True
    for k in range(first + 1, high):
        if codes[k] == _AT and _is_host(codes, k + 1, high, kinds):
            return True
    return False


@nb.njit(nogil=True, cache=True)
def _is_host(codes: CodePoints, low: int, high: int, kinds: Kinds) -> bool:
    """Whether a host name starts at ``low``, perhaps with a port and a path after it."""
    labels = 0
    start = at = low
    numeric = lower = True  # whether all labels are numeric, and this one is lower-case letters
    while at < high:
        code = codes[at]
        if code == _DOT:
            if at == start or at - start > 64 or codes[at - 1] in (_MINUS, _UNDERSCORE):
                return False
            labels += 1
            start = at + 1
            lower = True
        elif code in (_COLON, _SLASH, _QUESTION, _HASH):
            break
        else:
            letter = kinds[code] & _ALPHA and code < 0x80
            digit = (kinds[code] & _DIGIT) != 0
            inner = code in (_MINUS, _UNDERSCORE) and at > start
            if not (letter or digit or inner or 0xA1 <= code <= 0xFFFF):
                return False
            numeric &= digit
            lower &= (kinds[code] & _LOWER) != 0
        at += 1
    if not ((lower and 2 <= at - start <= 63 and labels) or (numeric and labels == 3)):
        return False
    if at < high and codes[at] == _COLON:
        digits = 0
        at += 1
        while at < high and kinds[codes[at]] & _DIGIT:
            digits += 1
            at += 1
        if not 2 <= digits <= 5:
            return False
    return at == high or codes[at] in (_SLASH, _QUESTION, _HASH)
