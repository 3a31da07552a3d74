"""Removes the lines that repeat across the pages of a host: menus, footers, cookie notices.

A line is removed from a host's documents if more than ``max_documents`` different texts of the host
have it, in its folded form (:mod:`pipeline.steps.words.folded_lines`). All documents of the run's
filtered sources count as they were read, whatever other steps do with them.

Llama 3 removes lines that appear more than 6 times among 30 million documents (Dubey et al. 2024,
section 3.1.1), after CCNet (Wenzek et al. 2020). What repeats within a host is its template.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.changes import REMOVED_BYTES, REMOVED_LINES, changed
from pipeline.steps.contract import Codes, Step
from pipeline.steps.words.folded_lines import Keys, line_keys, without
from winnow.sorted_keys import among

NAME: Final = "host_lines"  # of the step in a run's settings


@dataclass
class HostLines(Step):
    """Removes repeated lines; drops documents that have no others, with their text unchanged.

    :mod:`pipeline.core.repeated_lines` finds the lines for :meth:`knowing`.
    """

    max_documents: int

    reasons: ClassVar[tuple[str, ...]] = ("host_lines_nothing_left",)
    needs_url: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_documents < 1:
            raise ValueError(f"max_documents must be 1 or more, not {self.max_documents}")
        self.counts = (REMOVED_BYTES, REMOVED_LINES)
        self._repeated: Keys | None = None

    def knowing(self, repeated: Keys) -> "HostLines":
        """The same step, with the keys of the repeated lines (uint64, ascending)."""
        step = copy.copy(self)
        step._repeated = repeated
        return step

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        assert self._repeated is not None
        codes = np.zeros(len(batch), np.int8)
        text = batch["text"]
        keys, lines = line_keys(text, batch["url"])
        removed = among(self._repeated, keys)
        if not removed.any():
            return batch, codes
        document = np.repeat(np.arange(len(batch)), lines)
        gone = np.bincount(document[removed], minlength=len(batch))
        left = np.bincount(document[(keys != 0) & ~removed], minlength=len(batch))
        codes[(gone > 0) & (left == 0)] = 1
        passes = codes == 0
        gone[~passes] = 0
        shorter = without(text, removed & passes[document])
        fewer = np.subtract(*(pc.binary_length(t).to_numpy() for t in (text, shorter)))
        return changed(batch, shorter, {REMOVED_BYTES: fewer, REMOVED_LINES: gone}), codes
