"""Steps that change the text: what they count, and how a batch gets its new text."""

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
    """The batch with another text, and with what was changed added to its counts.

    ``bytes``, ``characters`` and ``words`` are those of the new text. The id, the content hash, the
    score and the draw stay those of the text that was read.

    Args:
        batch: of :func:`pipeline.output.schema.shard_schema`, with a column for each count.
        text: large_string [n].
        counts: for each column the number to add to every document (int64 [n]).
    """
    added = {name: pc.add(batch[name], pa.array(n)) for name, n in counts.items()}
    sizes = zip(("bytes", "characters", "words"), measure(text), strict=True)
    return tables.replaced(batch, text=text, **dict(sizes), **added)
