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


def _changes(manifest: Mapping[str, Any], source: str | None = None) -> dict[str, int]:
    """Changes to the texts of one source or all, by title."""
    total: Counter[str] = Counter()
    for task in manifest["tasks"]:
        if source in (None, task["task"]["source"]):
            total.update(task.get("changed", {}))
    return {_TITLES.get(name, name): n for name, n in total.items() if name != TOKENS}


def counted(manifest: Mapping[str, Any]) -> list[str]:
    """The columns of the shards that count changes."""
    return sorted({name for task in manifest["tasks"] for name in task.get("changed", {})})


def by_source(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each source with a changed text."""
    names = sorted({task["task"]["source"] for task in manifest["tasks"]})
    found = {name: _changes(manifest, name) for name in names}
    return [{"source": name, **n} for name, n in found.items() if any(n.values())]


def change_rows(_: Mapping[str, Any], statistics: Summary) -> list[dict[str, Any]]:
    """A row for each source and step that may change texts."""
    if "changes" not in statistics:
        return []
    outcomes = statistics["sources"].to_pylist()
    read = {row["source"]: row for row in outcomes if row["outcome"] == "read"}
    rows = statistics["changes"].to_pylist()
    removed: Counter[str] = Counter()
    for row in rows:
        removed[row["source"]] += row["removed_bytes"]
    return [
        {
            "source": source,
            "step": row["step"],
            "documents": row["documents"],
            "of read": _share(row["documents"], read[source]["documents"]),
            "bytes removed": row["removed_bytes"],
            "of bytes read": _share(row["removed_bytes"], read[source]["bytes"] + removed[source]),
        }
        for row in rows
        for source in [row["source"]]
    ]


def _share(part: int, total: int) -> str:
    return f"{100 * part / total:.3g} %".replace("-", "−") if total else "–"


def sentence(manifest: Mapping[str, Any]) -> list[str]:
    """What steps changed in all sources, as a sentence, or nothing."""
    parts = [f"{n:,} {title}" for title, n in _changes(manifest).items() if n]
    return [f"Steps changed texts after they were scored: {', '.join(parts)}."] if parts else []
