"""Audit a filter: keep rates by source, domain, language, length or any other column.

python quality_classifier/audit.py scored=scored/ 'by=[source,domain,language,length]'

reads the shards of a pipeline run. It also reports the spread of scores within groups and, with
``label=COLUMN``, their agreement with labels. Defaults are in ``conf/classifier/audit.yaml``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from quality_classifier import labels
from quality_classifier.evaluation.group_rates import OTHER, Audit
from quality_classifier.evaluation.within_groups import (
    LEAST_DOCUMENTS,
    NEAR_CONSTANT,
    Within,
    share_near_constant,
)
from winnow.commands import command_line, overrides
from winnow.filesystem import storage, tables
from winnow.text.groups import NONE, grouped


@dataclass
class AuditConfig:
    """The settings; defaults and their meaning are in ``audit.yaml``."""

    scored: str = MISSING
    by: list[str] = MISSING
    alpha: float = MISSING
    threshold: float = MISSING
    sources: list[str] = field(default_factory=list)
    rows: int = MISSING
    output: str | None = None
    within: list[str] = field(default_factory=list)
    label: str | None = None
    grades: list[Any] = field(default_factory=list)
    calibration: Any = None
    within_output: str | None = None


def audit_run(config: AuditConfig) -> tuple[pa.Table, pa.Table]:
    """Audit the documents of a pipeline run that reached the keep decision.

    Returns keep rates (:data:`~quality_classifier.evaluation.group_rates.AUDIT`) and statistics of
    scores within groups (:data:`~quality_classifier.evaluation.within_groups.WITHIN`).

    Raises:
        ValueError: the run is unfinished or did not store dropped documents, or a label is invalid.
    """
    folder = config.scored
    path = storage.join(folder, "manifest.json")
    if not storage.exists(path):
        raise ValueError(
            f"{folder} has no manifest.json: name the --output of a finished pipeline run"
        )
    manifest = storage.read_json(path)
    if manifest["config"]["write"] != "all":
        raise ValueError(
            f"{folder} was written with --write kept, so what it dropped cannot be audited"
        )
    known = sorted(manifest["config"]["source"])
    sources = config.sources or manifest["config"]["filter"] or known
    if unknown := set(sources) - set(known):
        raise ValueError(f"no source {sorted(unknown)} in {folder}: there are {known}")
    joins = manifest.get("joins", {}).values()
    joined = {column: group for join in joins for column, group in join["groupings"].items()}
    many = [column for column, group in joined.items() if group["by"] == "presence"]
    counts = Audit(config.by, config.alpha, config.threshold, bounded=many)
    but_labels = {column: group for column, group in joined.items() if column != config.label}
    within = _within(config)
    columns = {"source", "url", "bytes", "quality_score", "keep_draw", "kept", "drop_reason"}
    columns |= {*config.by, *within.by, *([within.label] if within.label else [])}
    names = sorted(shard["name"] for task in manifest["tasks"] for shard in task["shards"])
    for name in names:
        for batch in tables.batches(storage.join(folder, "shards", name), columns):
            reached = pc.fill_null(pc.equal(batch["drop_reason"], "quality"), True)
            chosen = pc.is_in(batch["source"], pa.array(sources, pa.string()))
            batch = batch.filter(pc.and_(reached, chosen))
            counts.update(_binned(batch, joined))
            within.update(_binned(batch, but_labels))
    return counts.table(), within.table()


def _within(config: AuditConfig) -> Within:
    scale = labels.declared(config.grades) if config.grades else None
    for name in ("grades", "calibration"):
        if getattr(config, name) not in (None, []) and not config.label:
            raise ValueError(f"{name} needs a column of labels: name it, as label=grade")
    numbers = partial(labels.numbers, scale=scale, target=config.label or "")
    at_least = None
    if config.calibration is not None:
        at_least = float(numbers(pa.array([str(config.calibration)]))[0])
    return Within(config.within, config.label, numbers, at_least)


def text_table(table: pa.Table, rows: int) -> str:
    """An audit for the terminal, with at most ``rows`` values of each column."""
    lines = [
        f"{'column':10} {'value':28} {'documents':>9} {'score':>6}  {'rule':10}"
        f" {'keep rate':>9}  {'95 % interval':17} {'ratio':>6}"
    ]
    shown: dict[str, list[str]] = {}
    for row in table.to_pylist():
        values = shown.setdefault(row["column"], [])
        first = row["value"] not in values[-1:]
        if first and len(values) >= rows and not row["value"].startswith(OTHER):
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


def within_table(table: pa.Table, rows: int) -> str:
    """Scores within groups for the terminal, at most ``rows`` of them."""
    has_labels = bool(pc.any(pc.greater(table["labelled"], 0)).as_py())
    has_calibration = table["share"].null_count < len(table)
    head = f"{'scores within':32} {'documents':>9}  {'80 % lie in':16} {'':14}"
    if has_labels:
        head += f" {'labelled':>8} {'Spearman':>8} {'95 % interval':16}"
    if has_calibration:
        head += f" {'score':>6} {'label':>6} {'95 % interval':16} {'error':>6}"
    lines = [head.rstrip()]
    for row in table.slice(0, rows).to_pylist():
        ends = f"{row['low']:.3f} to {row['high']:.3f}"
        line = f"{row['group']:32.32} {row['documents']:9,}  {ends:16}"
        line += f" {'near constant' if row['near_constant'] else '':14}"
        if has_labels:
            line += f" {row['labelled']:8,} {_figure(row['spearman']):>8}"
            line += f" {_ends(row, 'spearman'):16}"
        if has_calibration:
            line += f" {_figure(row['mean_score']):>6} {_figure(row['share']):>6}"
            line += f" {_ends(row, 'share'):16} {_figure(row['calibration_error']):>6}"
        lines.append(line.rstrip())
    flat, known = share_near_constant(table)
    lines += [
        "",
        f"near constant: 80 % of the scores span less than {NEAR_CONSTANT}, as in {flat} of"
        f" {known} groups with at least {LEAST_DOCUMENTS} documents",
    ]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _ends(row: dict[str, Any], name: str) -> str:
    low, high = (_figure(row[f"{name}_{end}"]) for end in ("low", "high"))
    return "" if row[name] is None else f"{low} to {high}"


def _binned(batch: pa.RecordBatch, joined: Mapping[str, Mapping[str, Any]]) -> pa.RecordBatch:
    """The batch with bins in place of joined numbers, and presence in place of lists."""
    for at, name in enumerate(batch.schema.names):
        group = joined.get(name)
        if group and (group["by"] == "edges" or pa.types.is_nested(batch[name].type)):
            batch = batch.set_column(at, name, grouped(batch[name], group))
    return batch


ConfigStore.instance().store(name="audit_schema", node=AuditConfig)


@command_line.main("classifier/audit")
def main(config: DictConfig) -> None:
    command_line.run(print_audit, config)


def print_audit(config: AuditConfig) -> None:
    """Print the audit and, if an output is named, write it as Parquet."""
    table, within = audit_run(config)
    print(text_table(table, config.rows))
    print(
        f"\npareto: expected at alpha = {config.alpha:g}; threshold: score >= {config.threshold:g};"
        " run: what the run kept"
    )
    if config.within:
        print(f"\n{within_table(within, config.rows)}")
    languages = table.filter(pc.equal(table["column"], "language"))["value"]
    if set(languages.to_pylist()) == {NONE}:
        print(
            "no document has a language: run with --steps language, or name the input field that"
            " holds it, as --field language=lang"
        )
    if config.output:
        pq.write_table(table, config.output)
    if config.within_output:
        pq.write_table(within, config.within_output)


if __name__ == "__main__":
    overrides.run(main, "classifier/audit")
