"""Whom the filter keeps: keep rates by source, domain, language, length or any other column.

python quality_classifier/audit.py scored=scored/ 'by=[source,domain,language,length]'

reads the shards of a pipeline run. Every default is in ``conf/classifier/audit.yaml``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from quality_classifier.evaluation.group_rates import Audit
from winnow import command_line, overrides, storage, tables
from winnow.text.groups import NONE, grouped


@dataclass
class AuditConfig:
    """What the command line is told; defaults and their meaning are in ``audit.yaml``."""

    scored: str = MISSING
    by: list[str] = MISSING
    alpha: float = MISSING
    threshold: float = MISSING
    sources: list[str] = field(default_factory=list)
    rows: int = MISSING
    output: str | None = None


def audit_run(config: AuditConfig) -> pa.Table:
    """The audit of the documents of a pipeline run that came as far as the keep decision.

    Raises:
        ValueError: the folder is not a finished run, or one that has not stored what it dropped.
    """
    folder = config.scored
    manifest = _manifest(folder)
    known = sorted(manifest["config"]["source"])
    sources = config.sources or manifest["config"]["filter"] or known
    if strangers := set(sources) - set(known):
        raise ValueError(f"no source {sorted(strangers)} in {folder}: there are {known}")
    counts = Audit(config.by, config.alpha, config.threshold)
    joined = _joined(manifest)
    names = sorted(shard["name"] for task in manifest["tasks"] for shard in task["shards"])
    for name in names:
        for batch in _batches(storage.join(folder, "shards", name), config.by):
            reached = pc.fill_null(pc.equal(batch["drop_reason"], "quality"), True)
            chosen = pc.is_in(batch["source"], pa.array(sources, pa.string()))
            counts.update(_told_apart(batch.filter(pc.and_(reached, chosen)), joined))
    return counts.table()


def text_table(table: pa.Table, rows: int) -> str:
    """An audit as lines for a terminal, at most ``rows`` values of each column."""
    lines = [
        f"{'column':10} {'value':28} {'documents':>9} {'score':>6}  {'rule':10}"
        f" {'keep rate':>9}  {'95 % interval':17} {'ratio':>6}"
    ]
    shown: dict[str, list[str]] = {}
    for row in table.to_pylist():
        values = shown.setdefault(row["column"], [])
        first = row["value"] not in values[-1:]
        if first and len(values) == rows:
            continue
        group = " " * 56  # a group is named on its first line
        if first:
            values.append(row["value"])
            group = f"{row['column']:10.10} {row['value']:28.28} {row['documents']:9,}"
            group += f" {row['mean_score']:6.3f}"
        interval = f"{row['low']:.2%} to {row['high']:.2%}"
        rates = f"{row['rate']:9.2%}  {interval:17} {row['ratio']:6.2f}"
        lines.append(f"{group}  {row['rule']:10} {rates}")
    return "\n".join(lines)


def _manifest(folder: str) -> dict[str, Any]:
    path = storage.join(folder, "manifest.json")
    if not storage.exists(path):
        raise ValueError(
            f"{folder} has no manifest.json: name the --output of a finished pipeline run"
        )
    manifest: dict[str, Any] = json.loads(storage.read_bytes(path))
    if manifest["config"]["write"] != "all":
        raise ValueError(
            f"{folder} was written with --write kept: what it dropped is not there to be audited"
        )
    return manifest


def _joined(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """How a run's statistics tell documents apart by each joined column."""
    joins = manifest.get("joins", {}).values()
    return {column: of for join in joins for column, of in join["groupings"].items()}


def _told_apart(batch: pa.RecordBatch, joined: Mapping[str, Mapping[str, Any]]) -> pa.RecordBatch:
    """The batch with bins in place of joined numbers, and lists by whether there is one."""
    for at, name in enumerate(batch.schema.names):
        of = joined.get(name)
        if of and (of["by"] == "edges" or pa.types.is_nested(batch[name].type)):
            batch = batch.set_column(at, name, grouped(batch[name], of))
    return batch


def _batches(path: str, by: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches of a shard, memory-mapped, with no more columns than an audit needs."""
    return tables.batches(
        path, {"source", "url", "bytes", "quality_score", "kept", "drop_reason", *by}
    )


ConfigStore.instance().store(name="audit_schema", node=AuditConfig)


@command_line.main("classifier/audit")
def main(config: DictConfig) -> None:
    """The command line."""
    command_line.run(print_audit, config)


def print_audit(config: AuditConfig) -> None:
    """Print the audit, and write it as Parquet where that is asked for."""
    table = audit_run(config)
    print(text_table(table, config.rows))
    print(
        f"\npareto: expected at alpha = {config.alpha:g}; threshold: score >= {config.threshold:g};"
        " run: what the run itself has kept"
    )
    if set(_values_of(table, "language")) == {NONE}:
        print(
            "no document has a language: run with --steps language, or name the input field that"
            " tells it, as --field language=lang"
        )
    if config.output:
        pq.write_table(table, config.output)


def _values_of(table: pa.Table, column: str) -> list[str]:
    values: list[str] = table.filter(pc.equal(table["column"], column))["value"].to_pylist()
    return values


if __name__ == "__main__":
    overrides.run(main, "classifier/audit")
