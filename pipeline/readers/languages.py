"""Finds the field that holds the language of a file's documents."""

from dataclasses import replace

from pipeline.readers.contract import FieldMap, InputRange, OpenInput, ReadOptions, StreamFormat
from pipeline.readers.formats import format_of, read_batches

NAMES = ("language", "lang")


def language_field(
    path: str,
    fields: FieldMap,
    open_input: OpenInput,
    options: ReadOptions = ReadOptions(),  # noqa: B008 (it can't change)
) -> str | None:
    """The first of :data:`NAMES` that the first documents of a file have; None if they have none.

    WARC files never have one: record headers are not fields.
    """
    kind = format_of(path, open_input, options)
    if isinstance(kind, StreamFormat) and kind.own_places:
        return None
    first = next(
        read_batches(
            InputRange(path, 0, None, 0),
            replace(fields, metadata=NAMES, language=None),
            options,
            on_quarantine=lambda record: None,
            open_input=open_input,
        ),
        None,
    )
    if first is None:
        return None
    return next((name for name in NAMES if first[name].null_count < len(first)), None)
