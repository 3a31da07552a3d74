"""Notes for the user on a finished run beyond its table, from the manifest."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.output import records
from pipeline.readers.contract import ADVICE
from winnow.filesystem import storage

_FILES = 32
_FILE_BYTES = 1 << 20  # to read of each quarantine file; a record has a few kilobytes
_CONTENT = 160  # characters of a record in the message
_LANGUAGES = 8


def check_read(output: str, manifest: Mapping[str, Any]) -> None:
    """Raise ValueError, with reasons and advice, if nothing, or nothing of a source, could be read.

    A source without any records is fine if others have some.
    """
    accounting = manifest["accounting"]
    if not any(counts["read"] for counts in accounting.values()):
        raise ValueError(f"no document was read: {'; '.join(empty_sources(manifest))}")
    lines = [
        _why_unreadable(output, source, manifest)
        for source, counts in accounting.items()
        if 0 < counts["read"] == counts.get("quarantined", 0)
    ]
    if lines:
        folder = storage.join(output, "quarantine")
        raise ValueError("\n".join([*lines, f"({folder} holds what could not be read)"]))


def empty_sources(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each source that has neither documents nor bad records."""
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


def trained_on(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each filtered source with documents that the classifier was trained on."""
    lines = []
    for source, counts in sorted(manifest["accounting"].items()):
        tasks = [task for task in _records(source, manifest) if task["task"]["filtered"]]
        if count := sum(task.get("trained_on", 0) for task in tasks):
            lines.append(
                f"the classifier was trained on {count:,} of the {counts['read']:,} documents of"
                f" {source}, whose scores only repeat their labels: keep them out of the input, or"
                " out of its training text"
            )
    return lines


def unchecked(manifest: Mapping[str, Any]) -> list[str]:
    """A line for each step that passed documents whose language it has no settings for."""
    lines = []
    for step, languages in _unchecked(manifest).items():
        most = sorted(languages.items(), key=lambda item: (-item[1], item[0]))
        counts = ", ".join(f"{count:,} in {language}" for language, count in most[:_LANGUAGES])
        left = len(most) - _LANGUAGES
        more = f" and {left} more languages" if left > 0 else ""
        lines.append(
            f"{step} passed {languages.total():,} documents unchecked, as their languages"
            f' have no settings: {counts}{more}; give them some, or "*" for all others'
        )
    return lines


def unchecked_rows(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The documents of :func:`unchecked` by step and language, the most first."""
    rows = [
        {"step": step, "language": language, "documents": count}
        for step, languages in _unchecked(manifest).items()
        for language, count in languages.items()
    ]
    return sorted(rows, key=lambda row: (-row["documents"], row["step"], row["language"]))


def joins(manifest: Mapping[str, Any]) -> list[str]:
    """A line on the result of each join; ValueError if one matched nothing."""
    lines = []
    accounting = manifest["accounting"].values()
    documents = sum(counts["read"] - counts.get("quarantined", 0) for counts in accounting)
    for name, join in manifest.get("joins", {}).items():
        matched, without = (
            sum(task["joined"][name][kind] for task in manifest["tasks"])
            for kind in ("matched", "without_key")
        )
        if not matched and documents and join["rows"]:
            raise ValueError(
                f"--join {name}: no document has the {join['key']} of any of its"
                f" {join['rows']:,} rows: name the field that holds it, as :field=NAME, or join by"
                f" {'url' if join['key'] == 'id' else 'id'} (the output is complete without it)"
            )
        keyless = f", {without:,} have no {join['key']}" if without else ""
        lines.append(
            f"{name}: {matched:,} of {documents:,} documents matched{keyless};"
            f" {join['rows'] - join['matched_rows']:,} of {join['rows']:,} rows matched no document"
        )
    return lines


def _records(source: str, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [record for record in manifest["tasks"] if record["task"]["source"] == source]


def _unchecked(manifest: Mapping[str, Any]) -> dict[str, Counter[str]]:
    totals: dict[str, Counter[str]] = {}
    for record in manifest["tasks"]:
        for step, languages in record.get("unchecked", {}).items():
            totals.setdefault(step, Counter()).update(languages)
    return totals


def _why_unreadable(output: str, source: str, manifest: Mapping[str, Any]) -> str:
    found: list[dict[str, Any]] = []
    tasks = sorted(_records(source, manifest), key=lambda record: record["task"]["index"])
    for record in [record for record in tasks if record["quarantined"]][:_FILES]:
        stem = records.from_json(record).task.stem
        with storage.open_input(records.quarantine_path(output, stem)) as file:
            whole_lines = file.read(_FILE_BYTES).split(b"\n")[:-1]
        found += [json.loads(line) for line in whole_lines]
    first = found[0]
    reasons = Counter(record["reason"] for record in found)
    counts = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
    everything = len(found) == sum(record["quarantined"] for record in tasks)
    part = "" if everything else f" among the first {len(found):,} records"
    # Escaped: control characters could harm a terminal.
    content = f" ({first['content'][:_CONTENT]!r})" if first["content"] else ""
    advice = [ADVICE[reason].format(source=source) for reason in reasons if reason in ADVICE]
    return "\n  ".join(
        [
            f"nothing of source {source} could be read: {counts}{part}; the first is"
            f" {first['path']}, {first['unit']} {first['position']:,}: {first['reason']}{content}",
            *advice,
        ]
    )
