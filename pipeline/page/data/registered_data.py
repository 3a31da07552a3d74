"""Registered domains of a finished run: sums over hosts, stored with its statistics."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output import schema
from pipeline.output.score_counts import COUNTS, KEPT_COUNTS
from pipeline.output.summary import Summary, Tally
from pipeline.page.data.totals import clip, share
from winnow.filesystem import storage, tables
from winnow.text.groups import NONE
from winnow.text.hosts import registered_domains

NAME = "registered_domains"
ROWS = 100
_RUN = b"run"


def add_up(domains: Iterable[pa.Table]) -> pa.Table:
    """Registered domains of all sources (:data:`pipeline.output.schema.REGISTERED_DOMAINS`), from
    parts of :data:`pipeline.output.schema.DOMAINS` with distinct hosts.
    """
    tally = Tally(schema.REGISTERED_DOMAINS)
    for part in domains:
        counts = [part[name] for name in COUNTS + KEPT_COUNTS]
        hosts = np.ones(len(part), np.int64)
        tally.add([part["source"], registered_domains(part["domain"]), hosts, *counts])
    return tally.total()


def write(output: str, manifest: Mapping[str, Any]) -> None:
    with tables.open_file(_path(output, "domains")) as source, pq.ParquetFile(source) as file:
        table = add_up(file.read_row_group(i) for i in range(file.num_row_groups))
    table = table.replace_schema_metadata({_RUN: manifest["key"]})
    with storage.open_output(_path(output, NAME)) as out:
        pq.write_table(table, out, compression="zstd")


def read(output: str, manifest: Mapping[str, Any]) -> pa.Table | None:
    """The registered domains of a run; None if not requested."""
    path = _path(output, NAME)
    if not storage.exists(path):
        return None
    with tables.open_file(path) as source:
        table = pq.read_table(source)
    return table if (table.schema.metadata or {}).get(_RUN) == manifest["key"].encode() else None


def registered_rows(_: Mapping[str, Any], statistics: Summary) -> list[dict[str, Any]]:
    """The registered domains with the most documents, over all sources."""
    if NAME not in statistics:
        return []
    table = statistics[NAME].sort_by(
        [("documents", "descending"), ("source", "ascending"), ("registered_domain", "ascending")]
    )
    named = [r for r in table.slice(0, ROWS + 1).to_pylist() if r["registered_domain"] != NONE]
    return [
        {
            "source": clip(row["source"]),
            "registered domain": clip(row["registered_domain"]),
            "hosts": row["hosts"],
            "documents": row["documents"],
            "MB": round(row["bytes"] / 1e6, 3),
            "kept": row["kept_documents"],
            "kept share": share(row["kept_documents"], row["documents"]),
        }
        for row in named[:ROWS]
    ]


def _path(output: str, name: str) -> str:
    return storage.join(output, "statistics", f"{name}.parquet")
