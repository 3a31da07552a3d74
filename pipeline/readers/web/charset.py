"""From the bytes of a web page to characters: which charset it is in, by the HTML standard.

Written from the HTML and Encoding standards (WHATWG), with three differences that real pages ask
for: what is valid UTF-8 is UTF-8, whatever is declared; a meta tag is looked for to the end of the
head, not only in the first 1,024 bytes; and a charset that does not fit most of the page is wrong.
"""

import codecs
import re

from resiliparse.parse.encoding import detect_encoding

from pipeline.readers.contract import Unreadable
from pipeline.readers.web.web_codecs import Charset, lookup, the

_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16le", codecs.BOM_UTF16_BE: "utf-16be"}
_UTF_8 = the("utf-8")
_WINDOWS_1252 = the("windows-1252")
_UTF_16 = ("utf-16le", "utf-16be")
_SURE = 12
"""So many continuation bytes of UTF-8 do not come by chance in a CJK charset: less than one of six
hanzi in GBK, the most similar, passes for a character of UTF-8."""

_ESCAPE = b"\x1b$"  # to Chinese, Japanese or Korean; never by chance in a page
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_ANGLE = re.compile(rb"[<>]")
_ISO = re.compile(r"^iso(?=\d)")
_OTHER_NAMES = {"cp949": "euc-kr", "mac-cyrillic": "x-mac-cyrillic"}
_CONTROLS = re.compile(rb"[\x80-\x9f]")
_OF_WINDOWS = {
    "iso-8859-2": "windows-1250",
    "iso-8859-6": "windows-1256",
    "iso-8859-7": "windows-1253",
    "iso-8859-8": "windows-1255",
    "iso-8859-13": "windows-1257",
    "iso-8859-15": "windows-1252",
}
"""Charsets with letters and punctuation in the place of control characters, which no page has."""

_MIN_HEAD = 1 << 10  # where the standard stops to look for a declaration
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
_NO_MARKUP = {
    name: re.compile(rb"</" + name + rb"[\t\n\f\r />]", re.IGNORECASE)
    for name in (
        *(b"script", b"style", b"title", b"textarea"),
        *(b"xmp", b"iframe", b"noembed", b"noframes"),
    )
}
"""Elements whose content is no markup, and how each ends."""


def decode(page: bytes, charset: str | None) -> str:
    """A page as text.

    Its charset is that of its byte order mark; else UTF-8 if it is valid UTF-8; else what the HTTP
    header (``charset``) says, or a meta tag, or an XML declaration. Where the page does not fit
    that, or declares nothing, the charset is guessed. What cannot be decoded becomes U+FFFD.

    Raises:
        Unreadable: ``unknown_charset``: it is in ISO-2022-CN, which nobody reads.
    """
    for mark, name in _BOMS.items():
        if page.startswith(mark):
            page, charset = page[len(mark) :], name
            if name in _UTF_16:
                return the(name).decode(page)
    utf_8 = _valid_utf_8(page)
    if utf_8 is not None and len(page) - len(utf_8) >= _SURE:
        return utf_8
    declared = _declared(page, charset)
    if utf_8 is not None and (declared is None or not declared.is_multibyte):
        return utf_8
    text = (declared or _UTF_8).decode(page)
    wrong = text.count("\ufffd")
    if utf_8 is not None:
        return utf_8 if wrong else text
    if declared is not _UTF_8 and _is_nearly_utf_8(page):
        return _UTF_8.decode(page)
    if 2 * wrong <= _not_ascii(text):
        return text  # what does not fit is the exception
    guess = _detected(page).decode(page)
    return guess if guess.count("\ufffd") < wrong else text


def _not_ascii(text: str) -> int:
    return sum(map(len, _NOT_ASCII.findall(text)))


def _is_nearly_utf_8(page: bytes) -> bool:
    """Whether a page can be nothing but UTF-8, though a few bytes of it are not."""
    text = page.decode(errors="replace")
    wrong = text.count("\ufffd")
    return _not_ascii(text) - wrong >= max(_SURE, 20 * wrong)


def _valid_utf_8(page: bytes) -> str | None:
    """The page if it is UTF-8, be it that its last character is cut off."""
    try:
        text, used = codecs.utf_8_decode(page, "strict", False)
    except UnicodeDecodeError:
        return None
    if used == len(page):
        return text
    return None if text.isascii() else text + "\ufffd"


def _declared(page: bytes, charset: str | None) -> Charset | None:
    """What a page without byte order mark declares, if that is a charset and can be so."""
    if page.startswith((b"<\0", b"\0<")):  # a page in no other charset starts so
        return the("utf-16le" if page[1] == 0 else "utf-16be")
    stated = lookup(charset) if charset else None
    if stated and (stated.name not in _UTF_16 or b"\0" in page):
        return _readable(stated, page)
    inside = _in_meta(page)
    if inside is None and (xml := _XML.match(page)):
        inside = lookup(xml.group(1).decode("latin-1"))
    if inside and inside.name in _UTF_16:
        return _UTF_8  # in UTF-16 it would not have been found
    if inside and inside.name == "x-user-defined":
        return _WINDOWS_1252
    if inside:
        return _readable(inside, page)
    return the("iso-2022-jp") if _ESCAPE in page else None


def _readable(declared: Charset, page: bytes) -> Charset | None:
    """What is declared, but for a charset that nobody reads, where the page makes use of it."""
    if declared.name != "replacement":
        return declared
    if _ESCAPE in page:
        raise Unreadable("unknown_charset")
    return None


def _in_meta(page: bytes) -> Charset | None:
    """The charset of the first meta tag in the head (or the first 1,024 bytes) that has one.

    Tags in comments, scripts, attributes and other text are none.
    """
    at, in_head = 0, True
    while found := _MARKUP.search(page, at):
        if not in_head and found.start() >= _MIN_HEAD:
            return None
        comment, closing, name = found.groups()
        if comment:
            end = _COMMENT_END.search(page, found.start() + 2)
            if end is None:
                return None
            at = end.end()
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
                if end is None:
                    return None
                at = end.start()
    return None


def _of_meta(tag: bytes) -> Charset | None:
    """The charset that the attributes of a meta tag declare."""
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
    """What uchardet takes a page for that is not UTF-8; where it has no idea, browsers' default.

    It is shown the text that is not ASCII, which in a long page may be far from both ends.
    """
    text = b"\n".join(part for part in _ANGLE.split(page) if not part.isascii())
    name = detect_encoding(text, html5_compatible=False) or ""
    label = _ISO.sub("iso-", name).replace("_", "-")
    if _CONTROLS.search(page):
        label = _OF_WINDOWS.get(label, label)
    found = lookup(_OTHER_NAMES.get(label, label))
    return _WINDOWS_1252 if found in (None, _UTF_8) else found
