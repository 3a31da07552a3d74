"""Training documents: from globs and field names to an Arrow table, by the pipeline's readers."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.readers import (
    FieldMap,
    InputRange,
    Quarantined,
    ReadOptions,
    document_schema,
    language_field,
    plan_ranges,
    read_batches,
)
from quality_classifier.splits import CLASSES
from winnow.commands import console
from winnow.defaults import SPLIT_BYTES
from winnow.filesystem import inputs, storage

FIELDS = ("text", "id", "url", "language")


@dataclass(frozen=True)
class Source:
    """Files of one role under one name; ``field`` maps FIELDS to their fields.

    The role is the setting that names them: ``positive``, ``negative``, ``labels`` or ``pairs``.
    """

    role: str
    name: str
    paths: tuple[str, ...]
    field: Mapping[str, str]

    @property
    def title(self) -> str:
        return f"{self.role} {self.name}"


@dataclass(frozen=True)
class Input:
    """How to read files; ``further`` maps additional columns to input fields."""

    options: ReadOptions
    metadata: tuple[str, ...]
    list_separator: str | None = None
    further: Mapping[str, str] = dataclasses.field(default_factory=dict)


def find_sources(
    values: Mapping[str, Any],
    field: Mapping[str, str],
    find: Callable[[str], list[str]],
    say: Callable[[str], None],
) -> list[Source]:
    """The sources of each role, sorted, whatever the order of globs.

    Args:
        values: by role, a glob or a list of globs (every file is a source, named by its stem), or a
            mapping from source names to globs or to ``{glob: …, text: …, id: …}``.
        field: the default input fields of FIELDS.
        find: lists the files that match a glob.
        say: warns of files with several paths.

    Raises:
        ValueError: a glob matches nothing, a file is in two sources, or a description is invalid.
    """
    _check_fields(field)
    found = [
        source
        for role, value in values.items()
        for source in _sources_of(role, value, field, partial(_find_all, find=find, say=say))
    ]
    inputs.check_disjoint((path, source.title) for source in found for path in source.paths)
    return found


def read(
    sources: Sequence[Source], how: Input, say: Callable[[str], None]
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """All documents, and counts of unreadable records by source and reason.

    Columns: ``text``, ``positive``, ``source``, ``url``, ``id``, ``language``, ``bytes``, metadata
    and the further ones. ``say`` reports every source.

    Raises:
        ValueError: no document has a requested field.
    """
    tables, unreadable = [], []
    workers = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool, console.doing("reading") as tell:
        for source in sources:
            tell(f"reading {source.title}")
            ranges = [
                piece
                for path in source.paths
                for piece in plan_ranges(path, storage.open_input, SPLIT_BYTES, options=how.options)
            ]
            parts = list(pool.map(partial(_read_range, source=source, how=how), ranges))
            table = pa.concat_tables([part for part, _ in parts])
            reasons = sum((bad for _, bad in parts), Counter[str]())
            tables.append(table)
            unreadable += [
                {"class": source.role, "source": source.name, "reason": reason, "records": count}
                for reason, count in sorted(reasons.items())
            ]
            size = pc.sum(table["bytes"]).as_py() or 0
            bad = f", {reasons.total():,} unreadable records" if reasons else ""
            say(f"read {source.title}: {len(table):,} documents, {size / 1e6:,.1f} MB{bad}")
    _check_fields_there(sources, tables, how, say)
    _suggest_languages(sources, tables, how.options, say)
    return pa.concat_tables(tables), unreadable


def _check_fields_there(
    sources: Sequence[Source], tables: Sequence[pa.Table], how: Input, say: Callable[[str], None]
) -> None:
    """Warn of documents without a requested field; ValueError if no document has it."""
    required: dict[tuple[str, str], list[tuple[str, int, int]]] = {}
    named = [*((name, name) for name in how.metadata), *how.further.items()]
    for source, table in zip(sources, tables, strict=True):
        renamed = [(c, name) for c, name in source.field.items() if c not in ("text", name)]
        for column, name in [*renamed, *named]:
            counts = (source.title, table[column].null_count, len(table))
            required.setdefault((column, name), []).append(counts)
    for (_, name), present in required.items():
        if 0 < sum(lacking for _, lacking, _ in present) == sum(n for _, _, n in present):
            titles = " and ".join(title for title, _, _ in present)
            raise ValueError(f"no record of {titles} has anything in {name!r}: correct the name")
        for title, lacking, n in present:
            if lacking:
                say(f"warning: {lacking:,} of {n:,} documents of {title} have nothing in {name!r}")


def _suggest_languages(
    sources: Sequence[Source],
    tables: Sequence[pa.Table],
    options: ReadOptions,
    say: Callable[[str], None],
) -> None:
    """Suggest a field that holds languages, which the card compares."""
    for source, table in zip(sources, tables, strict=True):
        if 0 < table["language"].null_count == len(table):
            field = FieldMap(text=source.field["text"])
            found = language_field(source.paths[0], field, storage.open_input, options)
            if found is not None:
                say(
                    f"warning: {source.title} has languages not in {source.field['language']!r} but"
                    f" in {found!r}: add field.language={found} to compare them"
                )


def _sources_of(
    role: str, value: Any, field: Mapping[str, str], find: Callable[[str, Any], list[str]]
) -> list[Source]:
    if isinstance(value, str | list):
        stems: dict[str, list[str]] = {}
        for path in find(role, value):
            stems.setdefault(path.rsplit("/", 1)[-1].split(".")[0], []).append(path)
        return [Source(role, stem, tuple(stems[stem]), field) for stem in sorted(stems)]
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{role} must be globs, or a mapping from source names to globs")
    sources = []
    for source, description in sorted(value.items()):
        own = dict(description) if isinstance(description, Mapping) else {"glob": description}
        paths = find(f"{role}.{source}", own.pop("glob", None))
        _check_fields(own)
        sources.append(Source(role, str(source), tuple(paths), {**field, **own}))
    return sources


def _find_all(
    name: str, globs: Any, find: Callable[[str], list[str]], say: Callable[[str], None]
) -> list[str]:
    patterns = [globs] if isinstance(globs, str) else globs
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise ValueError(f"{name} must be a glob or a list of globs, not {globs!r}")
    if not patterns:
        raise ValueError(f"{name} is an empty list: name at least one glob")
    return inputs.each_once(name, (path for pattern in patterns for path in find(pattern)), say)


def _check_fields(field: Mapping[str, str]) -> None:
    if unknown := sorted(set(field) - set(FIELDS)):
        raise ValueError(f"unknown fields {unknown}: known are {', '.join(FIELDS)}")


def _read_range(piece: InputRange, source: Source, how: Input) -> tuple[pa.Table, Counter[str]]:
    reasons: Counter[str] = Counter()

    def on_quarantine(record: Quarantined) -> None:
        reasons[record.reason] += 1

    mapped = {name: name for name in FIELDS} | dict(source.field)
    language = mapped.pop("language")
    asked = dict.fromkeys((*how.metadata, *how.further.values()))
    further = tuple(name for name in asked if name != language)
    batches = read_batches(
        piece,
        FieldMap(**mapped, metadata=(language, *further), list_separator=how.list_separator),
        how.options,
        on_quarantine=on_quarantine,
        open_input=storage.open_input,
    )
    table = pa.Table.from_batches(batches, document_schema((language, *further)))
    size = pc.binary_length(table["text"]).cast(pa.int64())
    columns = {
        "text": table["text"],
        "positive": pa.repeat(pa.scalar(source.role == CLASSES[True]), len(table)),
        "source": pa.repeat(pa.scalar(source.name), len(table)),
        "url": table["url"],
        "id": table["id"],
        "language": table[language],
        "bytes": size,
        **{name: table[name] for name in how.metadata},
        **{name: table[field] for name, field in how.further.items()},
    }
    return pa.table(columns), reasons
