"""The effect of contamination on a run's scores."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ablations.tasks.scores import summarise


def counts(contamination: pa.Table) -> list[dict[str, Any]]:
    """Counts of items, dirty items and items too short to check, by task and arm."""
    table = contamination.append_column("short", pc.is_null(contamination["dirty"]))
    sums = table.group_by(["task", "arm"], use_threads=False).aggregate(
        [("item", "count"), ("dirty", "sum"), ("short", "sum")]
    )
    return [
        {"task": row["task"], "arm": row["arm"], "items": row["item_count"]}
        | {"dirty": row["dirty_sum"] or 0, "too_short": row["short_sum"]}
        for row in sums.to_pylist()
    ]


def split_scores(tasks: pa.Table, contamination: pa.Table, arm: str) -> list[dict[str, Any]]:
    """Scores of an arm's run over all, clean and dirty items, None without such items.

    From ``TASKS`` and ``CONTAMINATION`` (:mod:`ablations.study_files.results`). Items too short to
    check count as clean.
    """
    dirty = contamination.filter((pc.field("arm") == arm) & pc.field("dirty"))
    flagged, all_items = (
        pc.binary_join_element_wise(table["task"], table["item"], "\0") for table in (dirty, tasks)
    )
    is_dirty = pc.is_in(all_items, value_set=flagged)
    clean = tasks.filter(pc.invert(is_dirty))
    kinds = {"all": tasks, "clean": clean, "dirty": tasks.filter(is_dirty)}
    by_kind = {
        kind: {(s.task, s.shots, s.metric): s for s in summarise(rows)}
        for kind, rows in kinds.items()
    }
    out = []
    for key in by_kind["all"]:
        row: dict[str, Any] = dict(zip(("task", "shots", "metric"), key, strict=True))
        for kind, of_kind in by_kind.items():
            score = of_kind.get(key)
            row[kind] = None if score is None else score.value
            row[f"{kind}_items"] = 0 if score is None else score.items
        out.append(row)
    return out
