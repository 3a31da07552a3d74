"""Warns of documents in a finished run that its classifier was trained on."""

from collections import Counter
from collections.abc import Mapping
from typing import Any


def notes(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each filtered source with such documents."""
    counts: Counter[str] = Counter()
    for record in manifest["tasks"]:
        if record["task"]["filtered"]:
            counts[record["task"]["source"]] += record.get("trained_on", 0)
    return [
        f"the classifier was trained on {count:,} of the {manifest['accounting'][source]['read']:,}"
        f" documents of {source}, whose scores only repeat their labels: keep them out of the"
        " input, or out of its training text"
        for source, count in sorted(counts.items())
        if count
    ]
