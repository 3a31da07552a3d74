"""Turns glob patterns into tasks: finds, splits and orders the files."""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.output.records import Task
from pipeline.readers import FieldMap, ReadOptions, plan_ranges
from winnow.commands import console
from winnow.filesystem import inputs, storage


def plan_tasks(
    sources: Mapping[str, Sequence[str]],
    filtered: Sequence[str],
    split_bytes: int,
    fields: Mapping[str, FieldMap] | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008 (it can't change)
    say: Callable[[str], None] = console.say,
) -> list[Task]:
    """The tasks of a run, whatever the order of patterns and sources.

    ``say`` receives a warning for each file that a source reaches by several paths.

    Raises:
        ValueError: a pattern matches nothing, two sources share a file, a format is unknown, or a
            file lacks the text column.
        OSError: a file can't be opened.
    """
    paths = {
        source: inputs.each_once(
            f"source {source!r}", (path for p in patterns for path in inputs.find(p, say)), say
        )
        for source, patterns in sources.items()
    }
    inputs.check_disjoint((path, repr(source)) for source in paths for path in paths[source])
    # Pass-through sources come first: among duplicates their documents are the ones to keep.
    order = sorted(paths, key=lambda source: (source in filtered, source))
    tasks: list[Task] = []
    with ThreadPoolExecutor(32) as pool:
        for source in order:
            wanted = fields[source] if fields else None
            plan = functools.partial(
                plan_ranges,
                open_input=storage.open_input,
                split_bytes=split_bytes,
                fields=wanted,
                options=options,
            )
            cuts = pool.map(plan, paths[source])
            ranges = [piece for pieces in cuts for piece in pieces]
            for index, piece in enumerate(ranges):
                tasks.append(
                    Task(source, source in filtered, piece, index, len(ranges), len(tasks))
                )
    return tasks
