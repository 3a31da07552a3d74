"""Groups of documents that statistics and audits compare: by host, by length."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.text.hosts import hosts

NONE = "(none)"
"""The value of documents without one."""

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
