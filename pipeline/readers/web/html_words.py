"""Splits words that an extractor has joined.

trafilatura leaves no space where it drops an element or where nested blocks meet. So a word of its
output that is not in the page is matched with consecutive words of the page.
"""

import html
import re
import unicodedata
from bisect import bisect_right
from collections import defaultdict

_MAX_DISTANCE = 1000  # words dropped between two that are joined
_MAX_PLACES = 1000  # of a word
_MAX_LENGTH = 2048  # characters of a joined word
_HIDDEN = re.compile(r"(?is)<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1|\Z)")
_INLINE = re.compile(
    r"</?(?:a|abbr|acronym|b|bdi|bdo|big|cite|code|data|del|dfn|em|font|i|img|ins|kbd|mark|nobr|q|rb"
    r"|rp|rt|ruby|s|samp|small|span|strike|strong|sub|sup|tt|u|var|wbr|[a-z]+-[\w-]*)\b[^<>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[^<>]*>")
_INVISIBLE = re.compile("[\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")  # as trafilatura
_STOPS = ".,:;!?…。、，．！？：；،؛؟۔।"


def stand_apart(before: str, after: str) -> bool:
    """Whether there should be white space between two characters of different elements."""
    if before.isspace() or after.isspace() or after in _STOPS:
        return False
    opens = unicodedata.category(before) in ("Ps", "Pi")
    return not opens and unicodedata.category(after) not in ("Pe", "Pf")


def take_apart(text: str, page: str) -> str:
    """``text``, extracted from ``page``, with spaces between joined words."""
    shown = _TAG.sub(" ", _INLINE.sub("", _HIDDEN.sub("", page)))
    words = _INVISIBLE.sub("", html.unescape(shown)).split()
    strange = set(text.split()).difference(words)
    if not strange:
        return text
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(words):
        if len(places[word]) < _MAX_PLACES:
            places[word].append(place)
    parted = {word: " ".join(parts) for word in strange if (parts := _part(word, places))}
    if not parted:
        return text
    return re.sub(r"\S+", lambda word: parted.get(word[0], word[0]), text)


def _part(glued: str, places: dict[str, list[int]]) -> list[str]:
    """The words of the page that make up ``glued``, in order; empty if there are none.

    ``places`` are the ascending positions of each word in the page.
    """
    # By the end of the part that is matched: its last word, the word's places and its start.
    found: dict[int, tuple[str, list[int], int]] = {0: ("", [-1], 0)}
    for start in range(len(glued) if len(glued) <= _MAX_LENGTH else 0):
        if start not in found:
            continue
        _, before, _ = found[start]
        for end in range(start + 1, len(glued) + 1):
            word = glued[start:end]
            if end in found or word not in places:
                continue
            if start and not stand_apart(glued[start - 1], word[0]):
                continue
            if after := [place for place in places[word] if not start or _follows(before, place)]:
                found[end] = word, after, start
    parts = []
    end = len(glued)
    while end:
        if end not in found:
            return []
        word, _, end = found[end]
        parts.append(word)
    return parts[::-1] if len(parts) > 1 else []


def _follows(places: list[int], place: int) -> bool:
    before = bisect_right(places, place - 1)
    return before > 0 and place - places[before - 1] <= _MAX_DISTANCE
