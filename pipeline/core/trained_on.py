"""Documents of a finished run that its classifier has learned from."""

from collections.abc import Mapping
from typing import Any


def notes(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each filtered source with such documents."""
    counts: dict[str, int] = {}
    for record in manifest["tasks"]:
        if record["task"]["filtered"] and record.get("trained_on"):
            source = record["task"]["source"]
            counts[source] = counts.get(source, 0) + record["trained_on"]
    return [
        f"the classifier was trained on {count:,} of the {manifest['accounting'][source]['read']:,}"
        f" documents of {source}, whose scores are what it was told: keep them out of the input,"
        " or out of its training text"
        for source, count in sorted(counts.items())
    ]
