"""Tells which run owns an output folder, and removes only files that this run wrote.

``_work/run.json``, the run record, is written first and marks an unfinished run; ``manifest.json``
marks a finished one. Both hold each source's number of tasks, which determines the names of all
files of a run. Other files are never touched.
"""

import json
import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from pipeline.output import records, schema
from winnow import heartbeat, run_log
from winnow.filesystem import files, storage

MANIFEST = "manifest.json"
RECORD = f"{records.WORK}/run.json"
JOB = f"{records.WORK}/job.json"  # see pipeline.beam.job_server

Parts = frozenset[tuple[str, int]]
"""Sources and their numbers of tasks; a source whose input has changed appears repeatedly."""

_FOLDERS = ("", "shards", "quarantine", "statistics", *records.FOLDERS)
_TEMPORARY = rf"(?:{re.escape(files.TEMPORARY)}\w{{8}}-)"
_NO_FILE_YET = re.compile(rf"\.lock|{records.WORK}/{_TEMPORARY}run\.json")


def stranger(output: str) -> str | None:
    """A file in a folder without a run record, but for a lock or a half-written run record."""
    names = storage.tree(output)
    return next((name for name in names if not _NO_FILE_YET.fullmatch(name)), None)


def begun(output: str) -> Parts | None:
    """The parts in the run record of a folder; None without a valid one."""
    match _json(storage.join(output, RECORD)):
        case {"key": str(), "sources": list(pairs)}:
            if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
                return frozenset((str(source), int(of)) for source, of in pairs)
    return None


def finished(output: str) -> Mapping[str, Any] | None:
    """The manifest of a finished run of any version; None without one of ours."""
    match _json(storage.join(output, MANIFEST)):
        case {"format": int(), "key": str(), "tasks": list()} as value:
            return value
    return None


def parts_of(tasks: Iterable[Mapping[str, Any]]) -> Parts:
    """The parts of a manifest's tasks."""
    return frozenset((task["task"]["source"], task["task"]["of"]) for task in tasks)


def begin(output: str, key: str, parts: Parts) -> None:
    """Write the run record; remove half-written files of killed writers of these parts."""
    value = {"key": key, "sources": sorted([source, of] for source, of in parts)}
    storage.write_json(storage.join(output, RECORD), value)
    _remove(output, parts, lambda name: _basename(name).startswith(files.TEMPORARY))
    ours = _names(parts)
    storage.remove_unfinished(output, lambda name: ours.fullmatch(name) is not None)


def remove_leftovers(output: str, written: Container[str]) -> None:
    """Remove an interrupted run's files for inputs that have changed since, all but ``written``."""
    data = ("shards/", "quarantine/")
    parts = begun(output) or frozenset()
    _remove(output, parts, lambda name: name.startswith(data) and name not in written)


def remove_work(output: str, parts: Parts = frozenset()) -> None:
    """Remove the work folder of a finished run, the run record last.

    ``parts`` of the manifest serve where the run record is gone already.
    """
    parts |= begun(output) or frozenset()
    for _ in range(10):  # a worker may still write its heartbeat
        _remove(output, parts, lambda name: name.startswith(f"{records.WORK}/") and name != RECORD)
        if storage.remove_if_empty(storage.join(output, records.PROGRESS)):
            break
    _remove(output, parts, lambda name: name == RECORD)
    for folder in (records.SCORED, records.WORK):
        storage.remove_if_empty(storage.join(output, folder))


def remove_late(output: str) -> None:
    """Remove what a duplicate task wrote after its run was complete.

    An engine that loses contact with a worker gives its tasks to another while the first goes on.
    """
    if (complete := finished(output)) is not None:
        remove_work(output, parts_of(complete["tasks"]))


def _remove(output: str, parts: Parts, chosen: Callable[[str], bool]) -> None:
    """Remove the files of these parts that are ``chosen`` by their path within the folder."""
    ours = _names(parts)
    for folder in _FOLDERS:
        found = storage.listing(storage.join(output, folder) if folder else output)
        prefix = f"{folder}/" if folder else ""
        names = [prefix + _basename(path) for path in found]
        storage.remove_files(
            [storage.join(output, name) for name in names if ours.fullmatch(name) and chosen(name)]
        )


def _names(parts: Parts) -> re.Pattern[str]:
    """The paths of all files of a run, half-written ones included."""
    each = (rf"{re.escape(source)}-\d{{5,}}-of-{of:05d}" for source, of in sorted(parts))
    stem = f"data-(?:{'|'.join(each) or '(?!)'})"
    shard = rf"{stem}(?:\.\d+)?\.(?:arrow|parquet)"
    paths = {
        "": rf"{re.escape(MANIFEST)}|report\.html|README\.md|{re.escape(run_log.NAME)}",
        "shards": shard,
        "quarantine": rf"{stem}\.jsonl",
        "statistics": rf"(?:{'|'.join(schema.TABLES)})\.parquet",
        records.WORK: rf"(?:run|job)\.json|{re.escape(records.TASKS)}|{stem}\.json"
        rf"|{stem}\.(?:keys|bands|near|lines|repeated|joined)\.arrow"
        rf"|join-\w+(?:\.json|-\d{{5}}\.arrow)"
        rf"|(?:{stem}|group-\d{{5,}})\.summary\.arrow",
        records.SCORED: shard,
        records.PROGRESS: heartbeat.FILE.pattern,
    }
    return re.compile(
        "|".join(
            rf"{re.escape(folder)}{'/' if folder else ''}{_TEMPORARY}?(?:{names})"
            for folder, names in paths.items()
        )
    )


def _basename(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _json(path: str) -> Any:
    """The value in a JSON file, or None if it is missing or not JSON."""
    if not storage.exists(path):
        return None
    try:
        return json.loads(storage.read_bytes(path))
    except ValueError:
        return None
