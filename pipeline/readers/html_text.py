"""From the bytes of a web page to its text.

The default is resiliparse's main content. On 501 real pages (docs/log.md) it was 10 to 15 times as
fast as trafilatura and kept more of the pages' sentences, at about the same share of prose in what
it returns. All visible text would be as fast to take, but half of it is menus and labels.
"""

import codecs
import contextlib
import re
from collections.abc import Callable

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from pipeline.readers.contract import Unreadable
from pipeline.readers.http_response import parse_response

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_LOOKS_LIKE_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta)\b", re.IGNORECASE)
_HEAD_BYTES = 1 << 10
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_META = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]+)", re.IGNORECASE)
_NESTED = re.compile(r"<(/?)(?:div|article)\b", re.IGNORECASE)
_MAX_NESTED = 512  # browsers nest no deeper either


def page_text(message: bytes, extractor: str, max_bytes: int) -> tuple[str | None, str | None]:
    """The text of the page in an HTTP response, or None and what the response is instead.

    Raises:
        Unreadable: the response is damaged, binary, too long, or its text cannot be extracted.
    """
    response = parse_response(message, max_bytes)
    if not 200 <= response.status < 300:
        return None, "http_status"
    head = response.body[:_HEAD_BYTES]
    is_html = response.content_type in _HTML_TYPES
    if not is_html and (response.content_type or not _LOOKS_LIKE_HTML.search(head)):
        return None, "not_html"
    page = decode(response.body, response.charset)
    if "\0" in page[:_HEAD_BYTES]:
        raise Unreadable("not_html")
    text = extract(page, extractor)
    return (text, None) if text else (None, "no_text")


def decode(page: bytes, charset: str | None) -> str:
    """A page as text: by its byte order mark, else the HTTP header, else its meta tag, else guess.

    This is the order of the HTML standard. Where the page is not what it says to be, a guess that
    fits is taken; else what cannot be decoded becomes U+FFFD.
    """
    for mark, encoding in _BOMS.items():
        if page.startswith(mark):
            return page[len(mark) :].decode(encoding, "replace")
    declared = charset
    if declared is None and (meta := _META.search(page[:_HEAD_BYTES])):
        declared = meta.group(1).decode()
        # A page in UTF-16 could not be searched for this tag: the standard reads UTF-8 here.
        if declared.lower().startswith("utf-16"):
            declared = "utf-8"
    stated = map_encoding_to_html5(declared) if declared else None
    guess = detect_encoding(page) or "utf-8"
    for encoding in (stated or guess, guess):
        with contextlib.suppress(UnicodeDecodeError):
            return page.decode(encoding)
    return page.decode(stated or guess, "replace")


def extract(page: str, extractor: str) -> str:
    """The text of a page by one of :data:`EXTRACTORS`; empty if there is none."""
    try:
        text = EXTRACTORS[extractor](page)
    except (Unreadable, ImportError):
        raise
    except Exception as error:  # a parser's failure on one page must not end the run
        raise Unreadable("bad_html") from error
    # No library promises that its text can be encoded.
    return text.encode("utf-8", "replace").decode().strip()


def _resiliparse(page: str) -> str:
    # Its search for the main content takes time quadratic in the depth of these two.
    depth = 0
    for tag in _NESTED.finditer(page):
        depth = max(depth - 1, 0) if tag.group(1) else depth + 1
        if depth > _MAX_NESTED:
            raise Unreadable("bad_html")
    return extract_plain_text(page, preserve_formatting=True, main_content=True)


def _trafilatura(page: str) -> str:
    try:
        import trafilatura
    except ImportError:
        raise ImportError(
            "--html-extractor trafilatura needs: pip install 'winnow-lm[trafilatura]'"
        ) from None
    # Favouring recall is also faster, as it tries fewer other extractors.
    return trafilatura.extract(page, favor_recall=True) or ""


EXTRACTORS: dict[str, Callable[[str], str]] = {
    "resiliparse": _resiliparse,
    "trafilatura": _trafilatura,
}


def check_extractor(name: str) -> None:
    """Refuse what is none of :data:`EXTRACTORS`.

    Raises:
        ValueError: it is not.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"--html-extractor is one of {', '.join(EXTRACTORS)}, not {name!r}")
