"""What a step is, and the few helpers that turn statistics of n documents into drop codes."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Codes = npt.NDArray[np.integer]
Flags = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


class Step(Protocol):
    """One optional filter before the keep decision. It may fill columns and drop documents.

    ``reasons`` are the drop reasons it can give, in the order of its rules. A call takes a batch of
    :func:`pipeline.output.schema.shard_schema` and returns it (with columns filled in, for
    language) and a code for each of the n documents: 0 passes, i is dropped for ``reasons[i - 1]``.
    """

    @property
    def reasons(self) -> tuple[str, ...]: ...

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]: ...


def first_failing(*failing: Flags) -> Codes:
    """Codes (int8 [n]) from what each rule, in order, drops (bool [n]): the first one counts."""
    codes = np.zeros(len(failing[0]), np.int8)
    for code in range(len(failing), 0, -1):
        codes[failing[code - 1]] = code
    return codes


def ratio(part: Counts, whole: Counts) -> npt.NDArray[np.float64]:
    """``part / whole`` as float64 [n]; 0 where the whole is 0, as in an empty document."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
