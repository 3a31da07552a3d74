"""Rules per group, buckets and clusters on the page of a run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.score_counts import COUNTS
from pipeline.output.summary import Summary
from pipeline.page.data import keep_rules
from pipeline.rules.groups import rules_of

Json = dict[str, Any]

GROUPS_SHOWN = 100
"""Each takes a few kilobytes."""


def counts_of(bins: pa.Table, curves: pa.Table, laws: Iterable[str]) -> Json:
    """A source's or group's histograms and, for each of ``laws``, its keep curve in each unit."""
    bins, curves = bins.sort_by("score_low"), curves.sort_by("parameter")
    out: Json = {
        "histogram": bins["documents"].to_pylist(),
        "kept_histogram": bins["kept_documents"].to_pylist(),
    }
    by_law = {law: curves.filter(pc.equal(curves["rule"], law)) for law in laws}
    if by_law:
        out["curves"] = {law: [of[n].to_pylist() for n in COUNTS] for law, of in by_law.items()}
    return out


def give_clusters(sources: Sequence[Json], statistics: Summary) -> None:
    """Add to every source ``clusters``, documents by cluster size: ``[least, documents, kept]``,
    with sizes from ``least`` to less than twice that; none if nothing was compared.
    """
    names = ["documents", "kept_documents"]
    for source in sources:
        source["clusters"] = []
        if "cluster_sizes" in statistics:
            table = statistics["cluster_sizes"]
            own = table.filter(pc.is_in(table["source"], pa.array(source["names"], pa.string())))
            total = own.group_by("least").aggregate([(name, "sum") for name in names])
            rows = total.sort_by("least").select(["least", *(f"{name}_sum" for name in names)])
            source["clusters"] = [list(row.values()) for row in rows.to_pylist()]


def give_groups(
    sources: Sequence[Json],
    manifest: Mapping[str, Any],
    statistics: Summary,
    insert_own_stop: Callable[..., None],
    grids: Mapping[str, Sequence[float]],
) -> None:
    """Add the largest groups to every single source.

    A group has the keys of a source (``outcomes``, ``histogram``, ``curves``, …), its ``rule`` and,
    if its parameter is not a common stop, ``stops``. With one rule for all documents, the source is
    the group.
    """
    rule = manifest["rule"]
    for source in sources:
        source["rule_groups"] = []
    if rule["name"] != "groups":
        return
    rules = {group["group"]: group for group in rules_of(rule)}
    shown = {source["names"][0]: source for source in sources if len(source["names"]) == 1}
    bins, curves = statistics["rule_group_histogram"], statistics["rule_group_curves"]
    for row in _largest(statistics["rule_groups"], set(shown)):
        source, name = row["source"], row["group"]
        own = {
            "name": name,
            "group": name,
            "path": rules[name]["path"],
            "filtered": True,
            "rule": rules[name]["rule"],
            "outcomes": {
                outcome: [row[f"{kind}{unit}_sum"] for unit in COUNTS]
                for outcome, kind in (("read", ""), ("kept", "kept_"), ("copied", "copied_"))
            },
            **counts_of(_of(bins, source, name), _of(curves, source, name), grids),
        }
        stops = {law: list(grid) for law, grid in grids.items()}
        insert_own_stop(own["rule"], stops, [own])
        own["stops"] = {law: stops[law] for law in grids if stops[law] != list(grids[law])}
        if rule["by"]:
            shown[source]["rule_groups"].append(own)
        else:
            outcomes = {**shown[source]["outcomes"], "copied": own["outcomes"]["copied"]}
            total = {name: own[name] for name in ("group", "path", "rule", "stops")}
            shown[source].update(total, outcomes=outcomes)


def rule_rows(manifest: Mapping[str, Any], statistics: Summary) -> list[Json]:
    """A row for each group (and bucket): its rule and the outcome."""
    rows = []
    decision = manifest["config"]["decision"]
    rules = {group["group"]: group for group in rules_of(manifest["rule"])}
    counted = statistics["rule_groups"].to_pylist() if rules else []
    for row in counted:
        rule = rules[row["group"]]["rule"]
        stated = keep_rules.stated(decision, rules[row["group"]]["path"])
        rows.append(
            {
                "group": row["group"],
                "source": row["source"],
                "rule": keep_rules.short(rule) + keep_rules.solved_for(stated),
                **_bucket(rule, row["bucket"]),
                "documents": row["documents"],
                "kept": row["kept_documents"],
                "kept share": f"{100 * row['kept_documents'] / row['documents']:.3g} %",
                "in training": row["copied_documents"],
                "MB in training": round(row["copied_bytes"] / 1e6, 3),
            }
        )
    found = {row["group"] for row in counted}
    rows += [
        {"group": name, "source": None, "rule": "no document is of this group", "documents": 0}
        for name in rules
        if name not in found
    ]
    if not keep_rules.has_copies(manifest["rule"]):
        return [{n: v for n, v in row.items() if n not in ("bucket", "copies")} for row in rows]
    return rows


def _bucket(rule: Mapping[str, Any], bucket: int) -> Json:
    if rule["name"] != "buckets":
        return {"bucket": None, "copies": None}
    bounds = [0.0, *(cut["parameter"] for cut in rule["cuts"]), 1.0]
    scores = f"{bounds[bucket]:.4g} to {bounds[bucket + 1]:.4g}"
    return {"bucket": scores, "copies": rule["copies"][bucket]}


def _largest(groups: pa.Table, sources: set[str]) -> list[Json]:
    """The largest groups of some sources, with buckets added up."""
    kinds = ("", "kept_", "copied_")
    sums = [(f"{kind}{unit}", "sum") for kind in kinds for unit in COUNTS]
    total = groups.group_by(["source", "group"]).aggregate(sums).to_pylist()
    rows = [row for row in total if row["source"] in sources]
    rows.sort(key=lambda row: (-row["documents_sum"], row["source"], row["group"]))
    return rows[:GROUPS_SHOWN]


def _of(table: pa.Table, source: str, group: str) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["source"], source), pc.equal(table["group"], group)))
