"""Checks settings that name an input field: one that no document has is an error.

Before a run, the columns of Parquet and Arrow files and the first documents of JSON lines are
checked. After the run, every document has been read, so all fields are known.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import PipelineConfig, field_maps
from pipeline.output.records import Task
from pipeline.readers import (
    FieldMap,
    InputRange,
    ReadOptions,
    StreamFormat,
    TableFormat,
    document_schema,
    format_of,
    language_field,
    read_batches,
)
from pipeline.readers.web import warc
from pipeline.steps import step_class
from winnow.filesystem import storage

_FILES = 32
"""Files per source to look into before a run."""


@dataclass(frozen=True)
class FieldSetting:
    """A setting, spelled ``title``, that fills ``column`` of some sources from ``field``.

    WARC records ignore ``mapped`` ones, those of ``--field``: they have fixed places for them.
    """

    title: str
    column: str
    field: str
    sources: tuple[str, ...]
    mapped: bool = False
    advice: str = "correct the name, or leave the setting out"


def field_settings(config: PipelineConfig) -> list[FieldSetting]:
    """The settings of a run that name or need a field, the text's first.

    Raises:
        ValueError: one applies to no source.
    """
    found = []
    for key, field in sorted(config.field.items()):
        owner, _, column = key.rpartition(".")
        title = f"--field {key}={field}"
        others = tuple(s for s in config.source if f"{s}.{column}" not in config.field)
        sources = (owner,) if owner else others
        if not sources:
            raise ValueError(f"{title} is never used, each source has its own: leave it out")
        mapped = column != "language"  # it is read as metadata
        found.append(FieldSetting(title, column if mapped else field, field, sources, mapped))
    found.sort(key=lambda setting: setting.column != "text")  # without it nothing is read
    every = tuple(config.source)
    found += [
        FieldSetting(f"--metadata {name}", name, name, every)
        for name in config.metadata
        if name.lower() != warc.TRUNCATED  # none truncated is good news
    ]
    for step in (name for name in config.steps if step_class(name).needs_url):
        maps = field_maps(config)
        for url in sorted({maps[source].url for source in config.filter}):
            own = tuple(source for source in config.filter if maps[source].url == url)
            advice = "name the field of URLs with --field url=FIELD, or leave the step out"
            found.append(FieldSetting(f"step {step}", "url", url, own, advice=advice))
    return found


def check_before(
    settings: Sequence[FieldSetting],
    tasks: Iterable[Task],
    maps: Mapping[str, FieldMap],
    options: ReadOptions,
) -> None:
    """Raise ValueError for a field that no record can have, OSError for an unreadable input."""
    paths: dict[str, dict[str, None]] = {}
    for task in tasks:
        paths.setdefault(task.source, {})[task.input.path] = None
    possible: dict[str, set[tuple[str, bool]]] = {}
    for setting in settings:
        for source in setting.sources:
            if source not in possible:
                wanted = {(s.column, s.mapped) for s in settings if source in s.sources}
                possible[source] = _possible(list(paths[source]), maps[source], wanted, options)
        if not any((setting.column, setting.mapped) in possible[s] for s in setting.sources):
            raise ValueError(_nowhere(setting))


def language_notes(
    config: PipelineConfig, tasks: Iterable[Task], maps: Mapping[str, FieldMap]
) -> list[str]:
    """A line for each source with a field of languages that is not used."""
    identified = config.filter if "language" in config.steps else ()
    paths: dict[str, str] = {}
    for task in tasks:
        paths.setdefault(task.source, task.input.path)
    options = ReadOptions.of(config)
    lines = []
    for source, path in paths.items():
        if maps[source].language is not None or source in identified:
            continue
        if field := language_field(path, maps[source], storage.open_input, options):
            lines.append(
                f"source {source}: statistics lack languages, although field {field!r} may hold"
                f" them: add --field {source}.language={field}"
            )
    return lines


def check_after(settings: Sequence[FieldSetting], manifest: Mapping[str, Any]) -> list[str]:
    """A line for each field that some documents of a source lack; ValueError if all of them do."""
    documents = {
        source: counts["read"] - counts.get("quarantined", 0)
        for source, counts in manifest["accounting"].items()
    }
    lacking: Counter[tuple[str, str]] = Counter()
    for record in manifest["tasks"]:
        for column, count in record.get("lacking", {}).items():
            lacking[record["task"]["source"], column] += count
    lines = []
    for setting in settings:
        counts = {source: lacking[source, setting.column] for source in setting.sources}
        if 0 < sum(counts.values()) == sum(documents.get(s, 0) for s in setting.sources):
            raise ValueError(f"{_nowhere(setting)} (the output is complete without it)")
        lines += [
            f"{setting.title}: {count:,} of {documents[source]:,} documents of {source} have"
            f" nothing in {setting.field!r}"
            for source, count in counts.items()
            if count
        ]
    return lines


def _possible(
    paths: Sequence[str], fields: FieldMap, wanted: set[tuple[str, bool]], options: ReadOptions
) -> set[tuple[str, bool]]:
    """The wanted (column, mapped) pairs that the files have or may have."""
    found: set[tuple[str, bool]] = set()
    names = dict(zip(document_schema(fields.metadata).names, fields.inputs, strict=True))
    documents = False
    reasons = set()
    for number, path in enumerate(paths):
        if number == _FILES:
            return wanted
        match format_of(path, storage.open_input, options):
            case StreamFormat(own_places=True):
                documents = True
                found |= {(column, mapped) for column, mapped in wanted if not mapped}
            case TableFormat(column_names=column_names):
                with storage.open_input(path) as stream:
                    present = column_names(stream)
                if present is None:
                    return wanted
                documents = True
                found |= {pair for pair in wanted if names[pair[0]] in present}
            case _:
                batches = read_batches(
                    InputRange(path, 0, None, 0), fields, options, open_input=storage.open_input,
                    on_quarantine=lambda record: reasons.add(record.reason),
                )  # fmt: skip
                if (batch := next(batches, None)) is not None:
                    documents = True
                    found |= {p for p in wanted if batch[p[0]].null_count < len(batch)}
                if found != wanted and next(batches, None) is not None:
                    return wanted
        if found == wanted:
            break
    if documents:
        return found
    # The other fields of unreadable records are unknown.
    return wanted - {("text", True)} if "missing_text" in reasons else wanted


def _nowhere(setting: FieldSetting) -> str:
    sources = " and ".join(sorted(setting.sources))
    return (
        f"{setting.title}: no record of {sources} has anything in {setting.field!r}:"
        f" {setting.advice}"
    )
