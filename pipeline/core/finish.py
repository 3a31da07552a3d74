"""The end of a run: check the accounting, write the statistics, the page and the manifest."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.joined import with_matched_rows
from pipeline.output import output_folder, records, summary_files
from pipeline.output.group_counts import check_groups
from pipeline.output.manifest import FORMAT, NAME, accounting
from pipeline.output.records import Record
from pipeline.output.summary import check_accounting
from pipeline.page.render import write_report
from winnow.filesystem import storage


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
    joins: Mapping[str, Any] | None = None,
) -> None:
    """Write everything but shards and quarantine, the manifest last; remove the work folder.

    ``code`` is the version that started the run, unknown to remote workers; ``summaries`` are the
    files with the run's statistics; ``joins`` comes from :func:`pipeline.core.joined.about` or an
    earlier manifest. Raises RuntimeError if the row accounting of a source does not balance.
    """
    tasks = sorted(tasks, key=lambda record: record.task.stem)
    written = {f"shards/{shard.name}" for t in tasks for shard in t.shards}
    written |= {f"quarantine/{t.task.stem}.jsonl" for t in tasks if t.quarantined}
    output_folder.remove_leftovers(output, written)
    folder = storage.join(output, "statistics")
    small, rows = summary_files.write_parquet(summaries, folder)
    check_accounting(small["sources"])
    if "rule_groups" in small:
        check_groups(small["rule_groups"], small["sources"])
    paths = {name: storage.join(folder, f"{name}.parquet") for name in rows}
    value: dict[str, Any] = {"format": FORMAT, "key": key, "code": code, "config": config}
    value |= {"rule": rule, "classifier": classifier, "duplicate_ids": duplicate_ids}
    value["accounting"] = accounting(small["sources"])
    value["statistics"] = {
        name: {"rows": rows[name], "checksum": storage.checksum(path)}
        for name, path in paths.items()
    }
    value["tasks"] = [record.to_json() for record in tasks]
    if joins:
        work = storage.join(output, records.WORK)
        known = all("matched_rows" in join for join in joins.values())
        value["joins"] = dict(joins) if known else with_matched_rows(joins, tasks, work)
    write_report(output, value)
    storage.write_json(storage.join(output, NAME), value)
    output_folder.remove_work(output)
