"""The Arrow schema of what every reader yields."""

from collections.abc import Sequence

import pyarrow as pa


def document_schema(metadata: Sequence[str] = ()) -> pa.Schema:
    """The schema of the batches that every reader yields.

    ``id`` and ``url`` are null where the record has none. ``metadata`` names further input fields
    to carry along, each a nullable string column of the same name.
    """
    return pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("url", pa.string()),
            pa.field("text", pa.large_string(), nullable=False),
            *(pa.field(name, pa.string()) for name in metadata),
        ]
    )
