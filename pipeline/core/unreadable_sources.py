"""The check at the end of a run for sources that could not be read at all."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.output import records
from pipeline.readers.contract import ADVICE
from winnow.filesystem import storage

_FILES = 32
_LOOKED_AT = 1 << 20  # bytes of each quarantine file to read; a record has some kilobytes
_SHOWN = 160  # characters of a record in the message


def check_read(output: str, manifest: Mapping[str, Any]) -> None:
    """Fail a finished run that read nothing, or nothing of one of its sources.

    A source without any records is fine if others have some.

    Raises:
        ValueError: with the reasons and what to do.
    """
    if not any(counts["read"] for counts in manifest["accounting"].values()):
        raise ValueError(f"no document was read: {'; '.join(empty_sources(manifest))}")
    lines = []
    for source, counts in manifest["accounting"].items():
        if 0 < counts["read"] == counts.get("quarantined", 0):
            lines.append(_why(output, source, manifest))
    if lines:
        folder = storage.join(output, "quarantine")
        raise ValueError("\n".join([*lines, f"({folder} holds what could not be read)"]))


def empty_sources(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each source of a finished run that has neither documents nor bad records."""
    lines = []
    for source, counts in manifest["accounting"].items():
        if not counts["read"]:
            skipped: Counter[str] = Counter()
            for record in _records(source, manifest):
                skipped.update(record["skipped"])
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in skipped.most_common())
            about = f" (skipped: {kinds})" if kinds else ""
            lines.append(f"source {source} has no documents{about}")
    return lines


def _records(source: str, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [record for record in manifest["tasks"] if record["task"]["source"] == source]


def _why(output: str, source: str, manifest: Mapping[str, Any]) -> str:
    found: list[dict[str, Any]] = []
    tasks = sorted(_records(source, manifest), key=lambda record: record["task"]["index"])
    for record in [record for record in tasks if record["quarantined"]][:_FILES]:
        stem = records.from_json(record).task.stem
        with storage.open_input(records.quarantine_path(output, stem)) as file:
            whole_lines = file.read(_LOOKED_AT).split(b"\n")[:-1]
        found += [json.loads(line) for line in whole_lines]
    quarantined = sum(record["quarantined"] for record in tasks)
    first = found[0]
    reasons = Counter(record["reason"] for record in found)
    counts = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
    part = "" if len(found) == quarantined else f" among the first {len(found):,} records"
    place = f"{first['path']}, {first['unit']} {first['position']:,}"
    # Escaped: control characters could harm a terminal.
    content = f" ({first['content'][:_SHOWN]!r})" if first["content"] else ""
    lines = [
        f"nothing of source {source} could be read: {counts}{part};"
        f" the first is {place}: {first['reason']}{content}"
    ]
    advice = [ADVICE[reason].format(source=source) for reason in reasons if reason in ADVICE]
    return "\n".join([*lines, *(f"  {line}" for line in advice)])
