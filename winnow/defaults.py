"""How documents are read unless told otherwise, by the pipeline and by classifier training."""

import os

HTML_EXTRACTOR = "resiliparse"
"""Why this one: docs/log.md."""

PLAIN_TEXT = True
"""Whether plain text in WARC files is read, beside pages."""

TEXT_DOCUMENT = "file"
"""What is a document in a text file: the file, or each line."""

MAX_DOCUMENT_BYTES = 64 << 20
"""Longer records are quarantined."""

SPLIT_BYTES = 256 << 20
"""Large files are read in ranges of about this size."""

CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")
"""The folder of every default."""
