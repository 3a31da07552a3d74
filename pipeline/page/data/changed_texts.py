"""The texts that steps changed, on the page of a run."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.output.schema import TOKENS
from pipeline.output.summary import Summary

_TITLES = {
    "removed_bytes": "bytes removed",
    "removed_lines": "lines removed that repeat across a host",
    "masked_emails": "e-mail addresses masked",
    "masked_ips": "IP addresses masked",
}


def changes(manifest: Mapping[str, Any], source: str | None = None) -> Counter[str]:
    """What steps changed in the texts of a source, or of all, by the column that counts it."""
    total: Counter[str] = Counter()
    for task in manifest["tasks"]:
        if source in (None, task["task"]["source"]):
            total.update(task.get("changed", {}))
    total.pop(TOKENS, None)  # which is a property of the text
    return total


def counted(manifest: Mapping[str, Any]) -> list[str]:
    """The columns of the shards that count something for each document."""
    return sorted({name for task in manifest["tasks"] for name in task.get("changed", {})})


def by_source(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each source with a changed text."""
    names = sorted({task["task"]["source"] for task in manifest["tasks"]})
    found = [(name, changes(manifest, name)) for name in names]
    return [
        {"source": name, **{_TITLES.get(column, column): n for column, n in counts.items()}}
        for name, counts in found
        if any(counts.values())
    ]


def change_rows(_: Mapping[str, Any], statistics: Summary) -> list[dict[str, Any]]:
    """A row for each source and step that may change its texts."""
    if "changes" not in statistics:
        return []
    outcomes = statistics["sources"].to_pylist()
    written = {row["source"]: row for row in outcomes if row["outcome"] == "read"}
    rows = statistics["changes"].to_pylist()
    removed: Counter[str] = Counter()
    for row in rows:
        removed[row["source"]] += row["removed_bytes"]
    return [
        {
            "source": row["source"],
            "step": row["step"],
            "documents": row["documents"],
            "of read": _share(row["documents"], written[row["source"]]["documents"]),
            "bytes removed": row["removed_bytes"],
            "of bytes read": _share(
                row["removed_bytes"], written[row["source"]]["bytes"] + removed[row["source"]]
            ),
        }
        for row in rows
    ]


def _share(part: int, total: int) -> str:
    return f"{100 * part / total:.3g} %".replace("-", "−") if total else "–"


def sentence(manifest: Mapping[str, Any]) -> list[str]:
    """What was changed in all, as a sentence, or nothing."""
    parts = [f"{n:,} {_TITLES.get(name, name)}" for name, n in changes(manifest).items() if n]
    return [f"Steps changed texts after they were scored: {', '.join(parts)}."] if parts else []
