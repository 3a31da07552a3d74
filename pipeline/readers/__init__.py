"""Readers: files of any known format in, Arrow batches of documents out."""

from pipeline.readers.contract import (
    FieldMap,
    InputRange,
    Quarantined,
    ReadOptions,
    ReadReport,
    StreamFormat,
    TableFormat,
    open_local,
)
from pipeline.readers.formats import digest_range, format_of, plan_ranges, read_batches
from pipeline.readers.user_formats import user_format
from pipeline.readers.web.html_text import check_extractor

__all__ = [
    "FieldMap",
    "InputRange",
    "Quarantined",
    "ReadOptions",
    "ReadReport",
    "StreamFormat",
    "TableFormat",
    "check_extractor",
    "digest_range",
    "format_of",
    "open_local",
    "plan_ranges",
    "read_batches",
    "user_format",
]
