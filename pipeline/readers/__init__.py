"""Readers: files of any known format in, batches of documents out."""

from pipeline.readers.contract import (
    HTML_EXTRACTOR,
    MAX_DOCUMENT_BYTES,
    FieldMap,
    InputRange,
    Quarantined,
    ReadReport,
    open_local,
)
from pipeline.readers.formats import digest_range, plan_ranges, read_batches
from pipeline.readers.html_text import check_extractor

__all__ = [
    "HTML_EXTRACTOR",
    "MAX_DOCUMENT_BYTES",
    "FieldMap",
    "InputRange",
    "Quarantined",
    "ReadReport",
    "check_extractor",
    "digest_range",
    "open_local",
    "plan_ranges",
    "read_batches",
]
