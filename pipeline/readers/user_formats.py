"""User-defined formats, by their dotted paths (docs/extending.md)."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline.readers.contract import Format, Reading, StreamFormat, TableFormat, document_schema
from winnow import own_code


@functools.cache
def user_format(path: str) -> Format:
    """The format at a dotted path, which its errors will name; ValueError if there is none."""
    found = own_code.load(path, "reader")
    if not isinstance(found, StreamFormat | TableFormat):
        raise ValueError(
            f"reader {path}: it is no StreamFormat or TableFormat of pipeline.readers, but"
            f" {type(found).__name__}"
        )
    return replace(found, read=functools.partial(_checked, path, found.read))


def _checked(
    path: str, read: Callable[..., Iterator[pa.RecordBatch]], *arguments: Any
) -> Iterator[pa.RecordBatch]:
    reading: Reading = arguments[-1]
    wanted = document_schema(reading.fields.metadata)
    try:
        for batch in read(*arguments):
            if not (isinstance(batch, pa.RecordBatch) and batch.schema.equals(wanted)):
                columns = ", ".join(f"{field.name} ({field.type})" for field in wanted)
                raise TypeError(f"it must give record batches of {columns}")
            yield batch
    except OSError:
        raise
    except Exception as error:
        raise RuntimeError(f"reader {path}: {type(error).__name__}: {error}") from error
