"""``manifest.json``: what a finished run read, decided and wrote.

It is written last, so it marks a complete folder. It holds no times, host names or worker counts:
the same input, config and seed give the same bytes.
"""

import json
from typing import Any

import pyarrow as pa

from pipeline.output import output_folder, records
from pipeline.output.records import Record
from winnow.filesystem import storage

NAME = output_folder.MANIFEST
FORMAT = 1


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        ValueError: there is none, or it has another format.
    """
    path = storage.join(folder, NAME)
    if not storage.exists(path):
        raise ValueError(
            f"{folder} has no {NAME}: it is not an output of pipeline/run.py, or that run did not"
            " finish (run it again with --resume)"
        )
    value: dict[str, Any] = json.loads(storage.read_bytes(path))
    if value.get("format") != FORMAT:
        raise ValueError(f"{path} has format {value.get('format')}, this code reads {FORMAT}")
    return value


def read_records(folder: str) -> list[Record]:
    """The records of the tasks of a finished run."""
    return [records.from_json(task) for task in read_manifest(folder)["tasks"]]


def accounting(sources: pa.Table) -> dict[str, dict[str, int]]:
    """Documents by outcome for each source."""
    out: dict[str, dict[str, int]] = {}
    for row in sources.to_pylist():
        out.setdefault(row["source"], {})[row["outcome"]] = row["documents"]
    return out
