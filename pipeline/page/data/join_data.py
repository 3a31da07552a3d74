"""Joins on the page of a run."""

from collections.abc import Mapping
from typing import Any

from pipeline.joins.tables import decoded
from pipeline.output.summary import Summary
from pipeline.page.data.totals import share
from winnow.text.groups import names_between


def join_rows(manifest: Mapping[str, Any], statistics: Summary) -> list[dict[str, Any]]:
    """A row for each join and source, with numbers of matched documents and unmatched rows."""
    if "joins" not in statistics:
        return []
    ordered = statistics["joins"].sort_by([("join", "ascending"), ("source", "ascending")])
    return [
        {
            "join": row["join"],
            "by": join["key"],
            "source": row["source"],
            "documents": row["documents"],
            "matched": row["matched"],
            "share": share(row["matched"], row["documents"]),
            "without a key": row["without_key"],
            "rows": join["rows"],
            "rows of no document": join["rows"] - join["matched_rows"],
        }
        for row in ordered.to_pylist()
        for join in [manifest["joins"][row["join"]]]
    ]


def joined_columns(manifest: Mapping[str, Any]) -> list[list[str]]:
    """Name, type and meaning of each joined column, for the data card."""
    return [
        [f"`{field.name}`", str(field.type), f"of join {name}, by the document's {join['key']}"]
        for name, join in manifest.get("joins", {}).items()
        for field in decoded(join["schema"])
    ]


def bins_in_order(manifest: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """The index of each bin of a joined numeric column."""
    return {
        (column, name): place
        for join in manifest.get("joins", {}).values()
        for column, of in join["groupings"].items()
        if of["by"] == "edges"
        for place, name in enumerate(names_between(of["edges"]))
    }
