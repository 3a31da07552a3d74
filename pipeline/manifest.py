"""The end of a run: check the accounting, write statistics and page, and the manifest last.

``manifest.json`` is written last, so a folder that has one is complete. It holds no times, host
names or worker counts: the same input, config and seed give the same bytes.
"""

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline import records, shards, storage, summary_files
from pipeline.records import Record
from pipeline.summary import check_accounting

NAME = "manifest.json"
FORMAT = 1


def write_output(
    output: str,
    code: str,
    config: Mapping[str, Any],
    key: str,
    rule: Mapping[str, Any],
    classifier: Mapping[str, Any],
    tasks: Sequence[Record],
    summaries: Sequence[str],
    duplicate_ids: int,
) -> None:
    """Everything beside shards and quarantine, the manifest last; then remove the work folder.

    ``code`` is the version of the code where the run was started, which workers on other machines
    cannot tell; ``summaries`` are the files that together hold the run's statistics.

    Raises:
        RuntimeError: the row accounting of a source does not balance.
    """
    from pipeline.report import write_report  # the page reads what this function writes

    tasks = sorted(tasks, key=lambda record: record.task.stem)
    _remove_strangers(storage.join(output, "shards"), {s.name for t in tasks for s in t.shards})
    quarantined = {f"{t.task.stem}.jsonl" for t in tasks if t.quarantined}
    _remove_strangers(storage.join(output, "quarantine"), quarantined)
    folder = storage.join(output, "statistics")
    small, rows = summary_files.write_parquet(summaries, folder)
    check_accounting(small["sources"])
    value = {
        "format": FORMAT,
        "key": key,
        "code": code,
        "config": config,
        "rule": rule,
        "classifier": classifier,
        "accounting": accounting(small["sources"]),
        "duplicate_ids": duplicate_ids,
        "statistics": {
            name: {
                "rows": rows[name],
                "checksum": shards.checksum(storage.join(folder, f"{name}.parquet")),
            }
            for name in rows
        },
        "tasks": [record.to_json() for record in tasks],
    }
    write_report(output, value)
    storage.write_json(storage.join(output, NAME), value)
    storage.remove(storage.join(output, records.WORK))


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        ValueError: there is none, or it has another format.
    """
    path = storage.join(folder, NAME)
    if not storage.exists(path):
        raise ValueError(
            f"{folder} has no {NAME}: it is no output of pipeline/run.py, or that run did not"
            " finish (run it again with --resume)"
        )
    value: dict[str, Any] = json.loads(storage.read_bytes(path))
    if value.get("format") != FORMAT:
        raise ValueError(f"{path} has format {value.get('format')}, this code reads {FORMAT}")
    return value


def read_records(folder: str) -> list[Record]:
    """What the tasks of a finished run left behind."""
    return [records.from_json(task) for task in read_manifest(folder)["tasks"]]


def accounting(sources: pa.Table) -> dict[str, dict[str, int]]:
    """Documents by outcome for each source."""
    out: dict[str, dict[str, int]] = {}
    for row in sources.to_pylist():
        out.setdefault(row["source"], {})[row["outcome"]] = row["documents"]
    return out


def code_version() -> str:
    """The version of this package, with the git commit where it runs from a checkout."""
    version = importlib.metadata.version("winnow-lm")
    here = os.path.dirname(os.path.abspath(__file__))
    git = subprocess.run(
        ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{version}+{git.stdout.strip()}" if git.returncode == 0 else version


def _remove_strangers(folder: str, expected: set[str]) -> None:
    """Delete what an earlier, interrupted run wrote of other inputs or with another config."""
    for path in storage.listing(folder):
        if path.rsplit("/", 1)[1] not in expected:
            storage.remove(path)
