"""The base class of steps, and helpers that turn statistics of n documents into drop codes."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Codes = npt.NDArray[np.integer]
Flags = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


class Step:
    """An optional filter before the keep decision: it drops documents or changes their text.

    A subclass is a dataclass whose fields are its settings. A call takes a batch of
    :func:`pipeline.output.schema.shard_schema` and returns it (with a changed text, by
    :func:`pipeline.steps.changes.changed`) and a code for each of the n documents: 0 passes, i is
    dropped for ``reasons[i - 1]``.
    """

    reasons: ClassVar[tuple[str, ...]]  # every drop reason, in the order of the rules
    input_files: ClassVar[tuple[str, ...]] = ()  # settings that name files
    needs_url: ClassVar[bool] = False  # it does nothing for documents without a URL
    notes: Sequence[str] = ()  # lines for the user about the files it has read
    counts: Sequence[str] = ()  # int64 columns in which it counts its changes to a document

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        """The batch, and the code of each document (integers [n])."""
        raise NotImplementedError


def first_failing(*failing: Flags) -> Codes:
    """Codes (int8 [n]) of the first rule that each document fails, from bool [n] of each rule."""
    codes = np.zeros(len(failing[0]), np.int8)
    for code in range(len(failing), 0, -1):
        codes[failing[code - 1]] = code
    return codes


def ratio(part: Counts, whole: Counts) -> npt.NDArray[np.float64]:
    """``part / whole`` as float64 [n]; 0 where the whole is 0, as in an empty document."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
