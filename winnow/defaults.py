"""Default settings for reading documents, in the pipeline and in classifier training."""

import os

HTML_EXTRACTOR = "resiliparse"
"""For the reasons in docs/log.md."""

PLAIN_TEXT = True
"""Whether to read plain text in WARC files, besides pages."""

TEXT_DOCUMENT = "file"
"""What is a document in a text file: the file, or each line."""

MAX_DOCUMENT_BYTES = 64 << 20
"""Longer records are quarantined."""

SPLIT_BYTES = 256 << 20
"""Large files are split into ranges of about this size."""

CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")
"""The folder with all default settings."""
