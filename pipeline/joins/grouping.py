"""How statistics group documents by a joined column, decided from all of its values.

Up to :data:`MOST_VALUES` distinct values are the groups; more numbers are binned, and all else is
grouped by presence (:func:`winnow.text.groups.grouped`). So the number of groups is bounded.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

MOST_VALUES = 100
MOST_BINS = 10
Grouping = Mapping[str, Any]


class Values:
    """Observes a column, a bucket at a time: its values while few, and its range."""

    def __init__(self, kind: pa.DataType) -> None:
        self._is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        self._countable = not pa.types.is_floating(kind) and _is_text(kind)
        self._values: set[Any] = set()
        self._low, self._high = math.inf, -math.inf

    def add(self, column: pa.Array) -> None:
        if self._countable and len(self._values) <= MOST_VALUES:
            self._values.update(column.drop_null().unique().slice(0, MOST_VALUES + 1).to_pylist())
        if self._is_number:
            numbers = column.drop_null().cast(pa.float64(), safe=False).to_numpy()
            numbers = numbers[np.isfinite(numbers)]
            if len(numbers):
                self._low = min(self._low, float(numbers.min()))
                self._high = max(self._high, float(numbers.max()))

    def grouping(self) -> Grouping:
        if self._countable and len(self._values) <= MOST_VALUES:
            return {"by": "value"}
        if self._is_number and 0 <= self._high - self._low < math.inf:
            return {"by": "edges", "edges": edges(self._low, self._high)}
        return {"by": "presence"}


def edges(low: float, high: float) -> list[float]:
    """Round edges of up to :data:`MOST_BINS` + 1 equal bins that contain low and high."""
    width = (high - low) / MOST_BINS or max(abs(low), 1.0)
    power = 10.0 ** math.floor(math.log10(width))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= width * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, 12 - math.floor(math.log10(step)))
    return [round(k * step, digits) for k in range(first, max(last, first + 1) + 1)]


def _is_text(kind: pa.DataType) -> bool:
    """Whether every value of a type can be written as text."""
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return False
    try:
        pa.array([], kind).cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True
