"""Near-duplicate clusters on the page of a run."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.summary import Summary

Json = dict[str, Any]


def give_clusters(sources: Sequence[Json], statistics: Summary) -> None:
    """Put into every source ``clusters``: documents by the size of their cluster.

    Rows ``[least, documents, kept documents]``, of clusters of ``least`` to less than twice as many
    documents, the smallest first; none where nothing was compared.
    """
    for source in sources:
        source["clusters"] = []
        if "cluster_sizes" in statistics:
            table = statistics["cluster_sizes"]
            own = table.filter(pc.is_in(table["source"], pa.array(source["names"], pa.string())))
            sums = [("documents", "sum"), ("kept_documents", "sum")]
            total = own.group_by("least").aggregate(sums).sort_by("least")
            columns = ("least", "documents_sum", "kept_documents_sum")
            rows = zip(*(total[name].to_pylist() for name in columns), strict=True)
            source["clusters"] = [list(row) for row in rows]
