"""Rewrites web pages around two bugs of resiliparse 2.0.1 (reports in docs/upstream).

- It means to delete private-use characters (icons) but reads their bytes in the wrong order, and so
  deletes nearly every three-byte text between two tags: the dash of ``<b>pip</b>—<i>the</i>``,
  ``m²``, most single Chinese characters. We replace a lone character with an ASCII token and split
  ``m²`` with a comment. Private-use characters and the pilcrows of links are still deleted.
- It joins texts at the alternative text of images, at elements that it drops and at blocks that it
  does not know. We insert a token there, which becomes a space or a newline if none follows.

No rewrite lengthens a text: resiliparse uses lengths to find the main content.
"""

import re
import string
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, product
from typing import NamedTuple

from resiliparse.parse.html import HTMLTree

from pipeline.readers.contract import Unreadable
from pipeline.readers.web.html_kernel import CDATA, MARKS, TEXT, Integers
from pipeline.readers.web.html_words import stand_apart

_DIGITS = string.ascii_letters + string.digits
# Except white space of HTML or Python.
_CONTROLS = [code for code in range(1, 128) if not 8 < code < 14 and not 27 < code < 127]
_WHITE = " \t\n\v\f\r"
_WHITE_END = re.compile(
    rb"(?:&(?:#(?:0*(?:9|1[0-3]|32)|x0*(?:[9a-d]|20))(?![0-9a-f]);?|Tab;|NewLine;)|[\0\t-\r ])*\Z",
    re.IGNORECASE,
)
_REFERENCE = re.compile(rb"&#(?:0*(\d{1,3})(?!\d)|[xX]0*([0-9a-fA-F]{1,2})(?![0-9a-fA-F]))")
_LAST_CHARACTER = re.compile(rb"(?:&#?\w+;?|[\xc2-\xf4][\x80-\xbf]+)\Z")
_LINK_STARTS = (b"<a ", b"<a\t", b"<a\n", b"<a>")
_LINK_BYTES = 1 << 10  # between the start of a link's tag and its text
_PILCROW = "¶"


class Rewritten(NamedTuple):
    """A rewritten page, and the meaning of its tokens."""

    page: str
    characters: dict[str, str]
    split: str
    character: str
    space: str
    newline: str

    def restore(self, text: str) -> str:
        """The text of the original page, from the text of :attr:`page`."""
        if not self.space:
            return text
        text = text.replace(self.split, "")
        text = re.sub(self.character, lambda token: self.characters[token[0]], text)
        if self.newline in text:  # or the pattern gets slow
            text = re.sub(f"( *){self.newline}+( *)", _restored_newline, text)
        pieces, at = [], 0
        # Not "+": re finds a pattern that starts with a plain character nine times as fast.
        for token in re.finditer(f"{self.space}{self.space}*( *)", text):
            start = token.start() - text.startswith("\n", max(token.start() - 1, 0))
            pieces += [text[at:start], _restored_space(text, start, token)]
            at = token.end()
        return "".join([*pieces, text[at:]])


class _Edit(NamedTuple):
    """Replace ``[start, end)`` with ``new``, a character or a name of ``written``."""

    start: int
    end: int
    new: str


def rewrite(page: str, data: bytes, marks: Integers) -> Rewritten:
    """Rewrite ``page`` so that resiliparse keeps all of its text.

    ``data`` is the page in UTF-8, ``marks`` are from :func:`pipeline.readers.web.html_kernel.scan`.
    A page without three unused control characters for tokens raises Unreadable.
    """
    edits = sorted(set(_edits(data, marks)))
    if not edits:
        return Rewritten(page, {}, "", "", "", "")
    control, space, newline = _unused_controls(data)
    split = f"<!--{control}-->"  # is text where tags are, as in <xmp>
    written = {
        "SPLIT": split,
        "SPACE": f'<img alt="{space}">',
        "BARE_SPACE": space * 2,  # one and é would be three bytes
        "NEWLINE": f'<img alt="{newline}">',
        "BARE_NEWLINE": newline * 2,
    }
    characters = sorted({edit.new for edit in edits} - written.keys())
    width = 2 if len(characters) <= len(_DIGITS) ** 2 else 3
    numbers = map("".join, product(_DIGITS, repeat=width))
    tokens = {control + next(numbers): character for character in characters}
    written |= {character: token for token, character in tokens.items()}
    encoded = {new: form.encode() for new, form in written.items()}
    pieces, at = [], 0
    for start, end, new in edits:
        pieces += [data[at:start], encoded[new]]
        at = end
    page = b"".join([*pieces, data[at:]]).decode()
    return Rewritten(page, tokens, split, f"{control}.{{{width}}}", space, newline)


def _unused_controls(page: bytes) -> list[str]:
    """Three control characters that neither the page nor its references contain."""
    references = _REFERENCE.findall(page)
    used = {int(decimal or code, 10 if decimal else 16) for decimal, code in references}
    unused = (code for code in _CONTROLS if code not in used and bytes([code]) not in page)
    controls = [chr(code) for code in islice(unused, 3)]
    if len(controls) < 3:
        raise Unreadable("bad_html")
    return controls


def _edits(page: bytes, marks: Integers) -> Iterator[_Edit]:
    for start, end, mark in marks.tolist():
        if mark == TEXT:
            text = page[start:end]
            edit = _edit(text)
            if edit and not (_parse(text) == _PILCROW and _is_in_link(page, start)):
                yield _Edit(start + edit.start, start + edit.end, edit.new)
        elif mark == CDATA:
            plain = page[start:end].decode()
            if _is_deleted(plain):
                yield _Edit(end - len(plain[-1].encode()), end, plain[-1])
        else:
            yield _Edit(end, end, MARKS[mark])


@lru_cache(1 << 14)
def _edit(text: bytes) -> _Edit | None:
    """The replacement for a text that resiliparse would delete."""
    parsed = _parse(text)
    if not _is_deleted(parsed):
        return None
    white = _WHITE_END.search(text)
    assert white
    last = _LAST_CHARACTER.search(text, 0, white.start())
    assert last
    if len(parsed) == 1 or parsed[-1] == _PILCROW:
        return _Edit(*last.span(), parsed[-1])
    return _Edit(last.start(), last.start(), "SPLIT")


@lru_cache(1 << 14)
def _parse(text: bytes) -> str:
    """The text as the parser reads it, stripped."""
    parsed = text.decode()
    if b"&" in text or b"<" in text:
        body = HTMLTree.parse(f"<body>{parsed}").body
        parsed = (body and body.text) or ""
    return parsed.replace("\0", "").strip(_WHITE)


def _is_deleted(text: str) -> bool:
    """Whether resiliparse deletes a text, other than an icon."""
    if text == _PILCROW:
        return True
    data = text.encode()
    misread = len(data) == 3 and 0x8080EE <= int.from_bytes(data, "little") <= 0xBFA3EF
    return misread and not "\ue000" <= text <= "\uf8ff"


def _is_in_link(page: bytes, at: int) -> bool:
    before = page[max(at - _LINK_BYTES, 0) : at].lower()
    return max(map(before.rfind, _LINK_STARTS)) > before.rfind(b"</a")


def _restored_newline(token: re.Match[str]) -> str:
    start, end = token.span()
    if {_around(token.string, start - 1), _around(token.string, end)} & {"", "\n"}:
        return token[1] + token[2]
    return "\n"


def _restored_space(text: str, start: int, token: re.Match[str]) -> str:
    """What replaces the token, and the newline before it, from ``start``."""
    newline, white = text[start : token.start()], token[1]
    before, after = newline or _around(text, start - 1), _around(text, token.end())
    if before in ("", "\n"):
        # Without the token, resiliparse would have dropped white space and empty lines.
        return newline if after not in ("", "\n") else ""
    if white or not after:
        return white
    return " " if stand_apart(before, after) else ""


def _around(text: str, at: int) -> str:
    return text[at] if 0 <= at < len(text) else ""
