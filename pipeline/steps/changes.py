"""For steps that change the text: their counts, and the batch with its new text."""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.contract import Counts
from winnow.filesystem import tables
from winnow.text.counts import measure

REMOVED_BYTES: Final = "removed_bytes"
REMOVED_LINES: Final = "removed_lines"
MASKED_EMAILS: Final = "masked_emails"
MASKED_IPS: Final = "masked_ips"


def changed(batch: pa.RecordBatch, text: pa.Array, counts: Mapping[str, Counts]) -> pa.RecordBatch:
    """The batch with a new text (large_string [n]), its sizes and increased counts.

    The id, the content hash, the score and the draw stay those of the text that was read.
    ``counts`` are the numbers to add to columns (int64 [n]).
    """
    added = {name: pc.add(batch[name], pa.array(n)) for name, n in counts.items()}
    sizes = zip(("bytes", "characters", "words"), measure(text), strict=True)
    return tables.replaced(batch, text=text, **dict(sizes), **added)
