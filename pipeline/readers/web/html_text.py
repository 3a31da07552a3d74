"""Extracts the text of web pages and plain text from their bytes.

The default is resiliparse's main content. On 501 real pages (docs/log.md) it was 10 to 15 times as
fast as trafilatura and kept more sentences, with about the same share of prose. Extracting all
visible text is as fast, but half of that is menus and labels.
"""

import re
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
from resiliparse.extract.html2text import extract_plain_text

from pipeline.readers.contract import Reading, Unreadable
from pipeline.readers.inflate import Damage
from pipeline.readers.text_files import text_documents, whole
from pipeline.readers.web.charset import Decoded, decode
from pipeline.readers.web.html_kernel import scan
from pipeline.readers.web.html_rewrite import rewrite
from pipeline.readers.web.html_words import take_apart
from pipeline.readers.web.http_response import Response
from winnow.defaults import PLAIN_TEXT

_PLAIN_TYPE = "text/plain"
_HTML_TYPES = {"text/html", "application/xhtml+xml"}
_TAGS = r"<(?:!doctype\s+html|html|head|body|title|meta)\b"
_LOOKS_LIKE_HTML = re.compile(_TAGS.encode(), re.IGNORECASE)
_IS_A_PAGE = re.compile(rb"\s*<(?:!doctype\s+html|html|head)\b", re.IGNORECASE)
_HTML_TAG = re.compile(_TAGS, re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # of binary formats (MIME Sniffing)
_HEAD_BYTES = 1 << 10
_MAX_NESTED = 512  # as deep as browsers nest


def page_text(
    response: Response, extractor: str, plain_text: bool = PLAIN_TEXT
) -> tuple[str | None, str]:
    """The text of an HTTP response and its kind (``html`` or ``plain_text``), or None and why not.

    Plain text is skipped without ``plain_text``; HTML declared as plain text counts as HTML.

    Raises:
        Unreadable: the page is binary, or its text cannot be extracted.
    """
    if not 200 <= response.status < 300:
        return None, "http_status"
    head = response.body[:_HEAD_BYTES]
    types = response.content_types
    if _PLAIN_TYPE in types:
        if not _IS_A_PAGE.match(head):
            return _plain_text(response) if plain_text else (None, "plain_text")
    elif not (_HTML_TYPES & set(types) if types else _LOOKS_LIKE_HTML.search(head)):
        return None, "not_html"
    page = decode(response.body, response.charset)
    if _is_binary(page.text[:_HEAD_BYTES]):
        raise Unreadable("not_html")
    text = extract(page, extractor)
    return (text, "html") if text else (None, "no_text")


def _plain_text(response: Response) -> tuple[str | None, str]:
    """Servers declare unknown types as plain text, so we check for binary data, as browsers do."""
    text = decode(response.body, response.charset).text
    if _CONTROLS.search(text[:_HEAD_BYTES]):
        return None, "binary"
    text = text.replace("\r\n", "\n").strip()
    return (text, "plain_text") if text else (None, "no_text")


def _is_binary(head: str) -> bool:
    """Whether this is binary data, not just a page with a stray NUL."""
    if "\0" not in head or _HTML_TAG.search(head):
        return False
    return not head.lstrip().startswith("<") or 20 * len(_CONTROLS.findall(head)) > len(head)


def extract(page: Decoded, extractor: str) -> str:
    """The text of a page by one of :data:`EXTRACTORS`; empty if there is none."""
    try:
        text = EXTRACTORS[extractor](page)
    except (Unreadable, ImportError):
        raise
    except Exception as error:  # a failing parser must not end the run
        raise Unreadable("bad_html") from error
    # The libraries may return lone surrogates.
    return text.encode("utf-8", "replace").decode().strip()


def _resiliparse(page: Decoded) -> str:
    data = page.utf_8
    marks, depth = scan(data)
    # resiliparse finds the main content in time quadratic in the depth.
    if depth > _MAX_NESTED:
        raise Unreadable("bad_html")
    rewritten = rewrite(page.text, data, marks)
    text = extract_plain_text(rewritten.page, preserve_formatting=True, main_content=True)
    return rewritten.restore(text)


def _trafilatura(page: Decoded) -> str:
    try:
        import trafilatura
    except ImportError:
        raise ImportError(
            "--html-extractor trafilatura needs: pip install 'winnow-lm[trafilatura]'"
        ) from None
    # Favouring recall is also faster: it tries fewer extractors.
    text = trafilatura.extract(page.text, favor_recall=True) or ""
    return take_apart(text, page.text)


EXTRACTORS: dict[str, Callable[[Decoded], str]] = {
    "resiliparse": _resiliparse,
    "trafilatura": _trafilatura,
}


def check_extractor(name: str) -> None:
    """Raise ValueError if the name is not one of :data:`EXTRACTORS`."""
    if name not in EXTRACTORS:
        raise ValueError(f"--html-extractor is one of {', '.join(EXTRACTORS)}, not {name!r}")


def read_page(pieces: Iterable[bytes | Damage], reading: Reading) -> Iterator[pa.RecordBatch]:
    """The document of an HTML file, or counted as skipped; ValueError for unknown extractors."""
    check_extractor(reading.options.html_extractor)
    body = whole(pieces, reading)
    if body is None:
        return
    response = Response(200, {"content-type": ["text/html"]}, body, truncated=False)
    try:
        text, kind = page_text(response, reading.options.html_extractor)
    except Unreadable as error:
        reading.quarantine.add(0, "byte", error.reason, body)
        return
    if text is None:
        reading.report.skipped[kind] += 1
        return
    reading.report.kinds[kind] += 1
    yield from text_documents(pa.array([text]), reading)
