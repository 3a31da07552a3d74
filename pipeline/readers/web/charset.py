"""Determines the charset of web pages and decodes them.

Follows the HTML and Encoding standards (WHATWG) but for what real pages need: valid UTF-8 is UTF-8,
whatever is declared; a meta tag may be anywhere in the head, not only in the first 1,024 bytes; and
a charset that does not fit most of the page is ignored.
"""

import codecs
import re
from typing import NamedTuple

from resiliparse.parse.encoding import detect_encoding

from pipeline.readers.contract import Unreadable
from pipeline.readers.web.web_codecs import Charset, lookup, the

_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16le", codecs.BOM_UTF16_BE: "utf-16be"}
_UTF_8 = the("utf-8")
_WINDOWS_1252 = the("windows-1252")
_UTF_16 = ("utf-16le", "utf-16be")
# More UTF-8 continuation bytes than occur by chance in a CJK charset: in GBK, the most similar,
# fewer than one hanzi in six looks like UTF-8.
_SURE = 12
_ESCAPE = b"\x1b$"  # switches to Chinese, Japanese or Korean; never there by chance
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_ANGLE = re.compile(rb"[<>]")
_ISO = re.compile(r"^iso(?=\d)")
_OTHER_NAMES = {"cp949": "euc-kr", "mac-cyrillic": "x-mac-cyrillic"}
_CONTROLS = re.compile(rb"[\x80-\x9f]")
# Charsets with printable characters instead of control characters, which pages never contain.
_OF_WINDOWS = {
    f"iso-8859-{part}": f"windows-{number}"
    for part, number in ((2, 1250), (6, 1256), (7, 1253), (8, 1255), (13, 1257), (15, 1252))
}

_MIN_HEAD = 1 << 10  # where the standard stops looking for a declaration
_XML = re.compile(rb"[\t\n\f\r ]*<\?xml[^>]*?[\t\n\f\r ]encoding\s*=\s*[\"']([^\"'>]+)[\"']")
_MARKUP = re.compile(rb"<(?:(!--)|(/?)([a-zA-Z][^\t\n\f\r />]*+)|[!/?])")
_COMMENT_END = re.compile(rb"--!?>")
_ATTRIBUTE_SYNTAX = (
    rb"[\t\n\f\r /]*+([^\t\n\f\r />][^\t\n\f\r />=]*+)"
    rb"(?:[\t\n\f\r ]*+=[\t\n\f\r ]*+"
    rb"(?:\"([^\"]*+)\"|'([^']*+)'|([^\t\n\f\r >\"'][^\t\n\f\r >]*+)|(?=>)))?+"
)
_ATTRIBUTE = re.compile(_ATTRIBUTE_SYNTAX)
_ATTRIBUTES = re.compile(rb"(?:" + _ATTRIBUTE_SYNTAX + rb")*+")
_CONTENT = re.compile(
    r"charset[\t\n\f\r ]*=[\t\n\f\r ]*(?:\"([^\"]*)\"|'([^']*)'|([^\t\n\f\r ;]+))"
)
_IN_HEAD = (b"html", b"head", b"meta", b"title", b"base", b"link", b"script", b"style", b"noscript")
_NO_MARKUP = {  # elements whose content is not markup, and the end of each
    name: re.compile(rb"</" + name + rb"[\t\n\f\r />]", re.IGNORECASE)
    for name in b"script style title textarea xmp iframe noembed noframes".split()
}


class Decoded(NamedTuple):
    text: str
    stored: bytes | None = None  # the page's bytes, if they are UTF-8

    @property
    def utf_8(self) -> bytes:
        return self.text.encode() if self.stored is None else self.stored


def decode(page: bytes, charset: str | None) -> Decoded:
    """Decode a page.

    The charset is that of the byte order mark; else UTF-8 if the page is valid UTF-8; else that of
    the HTTP header (``charset``), a meta tag or an XML declaration. If none is declared, or the
    page does not fit it, the charset is detected. Undecodable bytes become U+FFFD.

    Raises:
        Unreadable: ``unknown_charset``: ISO-2022-CN, which no browser supports.
    """
    for mark, name in _BOMS.items():
        if page.startswith(mark):
            page, charset = page[len(mark) :], name
            if name in _UTF_16:
                return Decoded(the(name).decode(page))
    utf_8 = _valid_utf_8(page)
    if utf_8 is not None and len(page) - len(utf_8.text) >= _SURE:
        return utf_8
    declared = _declared(page, charset)
    if utf_8 is not None and (declared is None or not declared.is_multibyte):
        return utf_8
    text = (declared or _UTF_8).decode(page)
    wrong = text.count("\ufffd")
    if utf_8 is not None:
        return utf_8 if wrong else Decoded(text)
    if declared is not _UTF_8 and _is_nearly_utf_8(page):
        return Decoded(_UTF_8.decode(page))
    if 2 * wrong <= _not_ascii(text):
        return Decoded(text)  # misfits are the exception
    guess = _detected(page).decode(page)
    return Decoded(guess if guess.count("\ufffd") < wrong else text)


def _not_ascii(text: str) -> int:
    return sum(map(len, _NOT_ASCII.findall(text)))


def _is_nearly_utf_8(page: bytes) -> bool:
    text = page.decode(errors="replace")
    wrong = text.count("\ufffd")
    return _not_ascii(text) - wrong >= max(_SURE, 20 * wrong)


def _valid_utf_8(page: bytes) -> Decoded | None:
    """The page if it is UTF-8, perhaps with a truncated last character."""
    try:
        text, used = codecs.utf_8_decode(page, "strict", False)
    except UnicodeDecodeError:
        return None
    if used == len(page):
        return Decoded(text, page)
    return None if text.isascii() else Decoded(text + "\ufffd")


def _declared(page: bytes, charset: str | None) -> Charset | None:
    """The charset that a page without byte order mark declares, if known and plausible."""
    if page.startswith((b"<\0", b"\0<")):  # only UTF-16 pages start like this
        return the("utf-16le" if page[1] == 0 else "utf-16be")
    stated = lookup(charset) if charset else None
    if stated and (stated.name not in _UTF_16 or b"\0" in page):
        return _readable(stated, page)
    inside = _in_meta(page)
    if inside is None and (xml := _XML.match(page)):
        inside = lookup(xml.group(1).decode("latin-1"))
    if inside and inside.name in _UTF_16:
        return _UTF_8  # in real UTF-16 the declaration would not have matched
    if inside and inside.name == "x-user-defined":
        return _WINDOWS_1252
    if inside:
        return _readable(inside, page)
    return the("iso-2022-jp") if _ESCAPE in page else None


def _readable(declared: Charset, page: bytes) -> Charset | None:
    """The declared charset, unless no browser supports it and the page uses it."""
    if declared.name != "replacement":
        return declared
    if _ESCAPE in page:
        raise Unreadable("unknown_charset")
    return None


def _in_meta(page: bytes) -> Charset | None:
    """The charset of the first meta tag in the head (or the first 1,024 bytes) that has one.

    Tags in comments, scripts, attributes and other text do not count.
    """
    at, in_head = 0, True
    while found := _MARKUP.search(page, at):
        if not in_head and found.start() >= _MIN_HEAD:
            return None
        comment, closing, name = found.groups()
        if comment:
            end = _COMMENT_END.search(page, found.start() + 2)
            at = end.end() if end else len(page)
        elif name is None:
            at = page.find(b">", found.end())
            if at < 0:
                return None
        else:
            name = name.lower()
            at = _ATTRIBUTES.match(page, found.end()).end()  # type: ignore[union-attr]
            if name == b"meta" and not closing and (encoding := _of_meta(page[found.end() : at])):
                return encoding
            in_head &= name in _IN_HEAD and not (closing and name == b"head")
            if name in _NO_MARKUP and not closing:
                end = _NO_MARKUP[name].search(page, at)
                at = end.start() if end else len(page)
    return None


def _of_meta(tag: bytes) -> Charset | None:
    attributes: dict[str, str] = {}
    for name, *values in _ATTRIBUTE.findall(tag):
        value = next(filter(None, values), b"")
        attributes.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    if "charset" in attributes:
        return lookup(attributes["charset"])
    if attributes.get("http-equiv", "").lower() != "content-type":
        return None
    content = _CONTENT.search(attributes.get("content", "").lower())
    return lookup(next(filter(None, content.groups()), "")) if content else None


def _detected(page: bytes) -> Charset:
    """The charset that uchardet detects in the non-ASCII text of a page; else windows-1252."""
    text = b"\n".join(part for part in _ANGLE.split(page) if not part.isascii())
    name = detect_encoding(text, html5_compatible=False) or ""
    label = _ISO.sub("iso-", name).replace("_", "-")
    if _CONTROLS.search(page):
        label = _OF_WINDOWS.get(label, label)
    found = lookup(_OTHER_NAMES.get(label, label))
    return _WINDOWS_1252 if found in (None, _UTF_8) else found
