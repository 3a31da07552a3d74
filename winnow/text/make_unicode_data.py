"""Write ``unicode.xz``, the word rules' table of code points.

    python winnow/text/make_unicode_data.py

Only for a new version of the normaliser: another table gives other features, and trained
classifiers would score differently. Frozen at Unicode 14.0.0; ``unicodedata`` grows with Python.
"""

import lzma
import unicodedata
from pathlib import Path

import numpy as np

SEPARATOR, IGNORED = 0, 1
FOLDED_BITS = 21
UNSTABLE, SOLO = 1 << 30, 1 << 31

# Scripts written without spaces: every character is a word, and bigrams do the rest.
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark, zero
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA000, 0xA48C),  # Yi
    (0xA9E0, 0xA9FF),  # Myanmar extended
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),  # Han, for compatibility
    (0xFF66, 0xFF9F),  # Katakana, half width
    (0x1AFF0, 0x1B16F),  # Kana supplements
    (0x20000, 0x3FFFF),  # Han
)
VARIATION_SELECTORS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))


def within(point: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= point <= last for first, last in ranges)


def folded(character: str) -> str:
    """Case folding that keeps the length: full, else lower case, else the character itself."""
    candidates = (character.casefold(), character.lower(), character)
    return next(candidate for candidate in candidates if len(candidate) == 1)


def seconds_of_compositions() -> set[int]:
    """Code points that may merge with what precedes them under NFC."""
    jamo = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}
    pairs = (unicodedata.decomposition(chr(point)).split() for point in range(0x110000))
    return jamo | {int(pair[1], 16) for pair in pairs if len(pair) == 2 and pair[0][0] != "<"}


def entry(point: int, seconds: set[int]) -> int:
    """The table's entry for a code point: folded character, combining class and flags."""
    character = chr(point)
    category = unicodedata.category(character)
    if category == "Cf" or within(point, VARIATION_SELECTORS):
        value = IGNORED
    elif category[0] in "LMN":
        value = ord(folded(character)) | (SOLO if within(point, UNSPACED) else 0)
    elif category[0] in "PS":
        value = point | SOLO
    else:
        value = SEPARATOR
    if point in seconds or unicodedata.normalize("NFC", character) != character:
        value |= UNSTABLE
    return value | unicodedata.combining(character) << FOLDED_BITS


def main() -> None:
    seconds = seconds_of_compositions()
    table = np.array([entry(point, seconds) for point in range(0x110000)], "<u4")
    steps = np.diff(table, prepend=np.uint32(0))
    Path(__file__).with_name("unicode.xz").write_bytes(lzma.compress(steps.tobytes(), preset=9))


if __name__ == "__main__":
    main()
