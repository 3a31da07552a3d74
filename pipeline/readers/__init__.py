"""Readers: files of any known format in, batches of documents out."""

from pipeline.readers.contract import (
    FieldMap,
    InputRange,
    Quarantined,
    ReadReport,
    open_local,
)
from pipeline.readers.formats import column_names, digest_range, kind_of, plan_ranges, read_batches
from pipeline.readers.web.html_text import check_extractor

__all__ = [
    "FieldMap",
    "InputRange",
    "Quarantined",
    "ReadReport",
    "check_extractor",
    "column_names",
    "digest_range",
    "kind_of",
    "open_local",
    "plan_ranges",
    "read_batches",
]
