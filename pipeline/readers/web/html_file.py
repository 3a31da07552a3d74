"""HTML files: pages without HTTP headers."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipeline.readers.contract import Reading, Unreadable
from pipeline.readers.inflate import Damage
from pipeline.readers.text_files import text_documents, whole
from pipeline.readers.web.html_text import check_extractor, page_text
from pipeline.readers.web.http_response import Response


def read_page(pieces: Iterable[bytes | Damage], reading: Reading) -> Iterator[pa.RecordBatch]:
    """The document of a file; a page without text is counted as skipped.

    Raises:
        ValueError: there is no such HTML extractor.
    """
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
