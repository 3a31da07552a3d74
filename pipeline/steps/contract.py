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
    """One optional filter before the keep decision. It drops documents, or changes their text.

    A subclass is a dataclass whose fields are its settings. A call takes a batch of
    :func:`pipeline.output.schema.shard_schema` and returns it (language fills columns; a changed
    text comes from :func:`pipeline.steps.changes.changed`) and a code for each of the n documents:
    0 passes, i is dropped for ``reasons[i - 1]``.

    Attributes:
        reasons: every drop reason it can give, in the order of its rules.
        input_files: the settings that name files. A run's output depends on their content.
        needs_url: whether it does nothing for documents without a URL.
        notes: lines for the user about the files that it has read.
        counts: the columns (int64) in which it counts what it changes in a document.
    """

    reasons: ClassVar[tuple[str, ...]]
    input_files: ClassVar[tuple[str, ...]] = ()
    needs_url: ClassVar[bool] = False
    notes: Sequence[str] = ()
    counts: Sequence[str] = ()

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        """The batch, and the code of each document (integers [n])."""
        raise NotImplementedError


def first_failing(*failing: Flags) -> Codes:
    """Codes (int8 [n]) from what each rule, in order, drops (bool [n]): the first one counts."""
    codes = np.zeros(len(failing[0]), np.int8)
    for code in range(len(failing), 0, -1):
        codes[failing[code - 1]] = code
    return codes


def ratio(part: Counts, whole: Counts) -> npt.NDArray[np.float64]:
    """``part / whole`` as float64 [n]; 0 where the whole is 0, as in an empty document."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
