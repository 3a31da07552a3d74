"""Groups of documents that statistics and audits compare, such as by host or length."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.text.hosts import hosts

NONE = "(none)"
"""The group of documents without a value."""

LENGTHS = ("under 500 B", "500 B to 2 kB", "2 to 8 kB", "8 to 32 kB", "32 kB and more")
_LENGTH_EDGES = np.array([500, 2_000, 8_000, 32_000])


def domain(url: pa.Array) -> pa.Array:
    """Hosts of n URLs (:mod:`winnow.text.hosts`) without ``www.``; ``(none)`` for none."""
    host = pc.replace_substring_regex(hosts(url), r"^www\.", "", max_replacements=1)
    return pc.fill_null(host, NONE)


def length(size: pa.Array) -> pa.Array:
    """The names in LENGTHS of n sizes in bytes."""
    bins = np.searchsorted(_LENGTH_EDGES, size.to_numpy(), side="right")
    return pa.array(LENGTHS).take(pa.array(bins))


SOME = "(some)"
"""The group of documents with a value, if values are too many to tell apart."""


def grouped(column: pa.Array, grouping: Mapping[str, Any]) -> pa.Array:
    """The groups (string [n]) of documents with these values; null where they have none.

    A grouping is ``{"by": "value"}``, ``{"by": "presence"}`` or ``{"by": "edges", "edges": […]}``.
    """
    match grouping["by"]:
        case "value":
            return column.cast(pa.string())
        case "edges":
            return between(column, grouping["edges"])
    return pc.if_else(column.is_valid(), SOME, pa.scalar(None, pa.string()))


def between(value: pa.Array, edges: Sequence[float]) -> pa.Array:
    """The names (``0.5 to 1``) of the bins of n numbers, null where they are.

    A bin includes its lower edge, the last one both; NaN and numbers beyond have names, too.
    """
    numbers = value.cast(pa.float64()).fill_null(np.nan).to_numpy()
    bins = np.searchsorted(edges, numbers, side="right")
    bins[numbers == edges[-1]] -= 1
    bins[np.isnan(numbers)] = len(edges) + 1
    names = pa.array(names_between(edges))
    missing = value.is_null().to_numpy(zero_copy_only=False)
    return names.take(pa.array(bins, mask=missing))


def names_between(edges: Sequence[float]) -> list[str]:
    """All names that :func:`between` may give, in order."""
    inner = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    return [f"under {edges[0]:g}", *inner, f"over {edges[-1]:g}", "NaN"]
