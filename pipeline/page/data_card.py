"""The ``README.md`` of an output folder: a data card for the Hugging Face Hub.

Its front matter names the shards, so ``datasets.load_dataset(DIR)`` works, locally or uploaded.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline.output import schema
from pipeline.output.score_counts import COUNTS
from pipeline.output.summary import Summary
from pipeline.page.data import keep_rules
from pipeline.page.data.changed_texts import counted
from pipeline.page.data.join_data import joined_columns
from pipeline.page.data.totals import DAMAGE, account, damage, headline, megabytes, share
from pipeline.page.reading_test import agreement_rows

_COLUMNS = {
    "id": "the record's own id, or a hash of source, URL and text",
    "source": "the input it came from",
    "url": "where the text was found",
    "text": "the document",
    "bytes": "length of the text in UTF-8 bytes",
    "characters": "length in code points",
    "words": "runs of characters between white space",
    "content_hash": "XXH3-128 of the text",
    "language": "language code, where a language step ran",
    "language_score": "that step's confidence",
    "quality_score": "calibrated probability of being curated text",
    "keep_draw": "uniform in [0, 1), from id and seed only",
    "keep_probability": "probability of being kept under the rule; 0 if a step dropped it",
    "kept": "the decision",
    "copies": "number of copies in the training order, 0 if it was dropped",
    "drop_reason": "why it was dropped: `quality` (the rule), or the step's reason",
    "cluster": "cluster of near-duplicates; it has no others if `cluster_size` is 1",
    "cluster_size": "number of documents in its cluster; null if not compared",
    "removed_bytes": "bytes that steps removed from the text, not included in `bytes`",
    "removed_lines": "lines that steps removed for repeating across a host",
    "tokens": "tokens of the text, by the run's tokenizer",
    "masked_emails": "e-mail addresses that were replaced in the text",
    "masked_ips": "IP addresses that were replaced in the text",
}


def data_card(manifest: Mapping[str, Any], statistics: Summary) -> str:
    sources, groups = statistics["sources"], statistics["groups"]
    config, classifier = manifest["config"], manifest["classifier"]
    everything, form = config["write"] == "all", _form(manifest)
    front = yaml.safe_dump(_front_matter(manifest), sort_keys=False, allow_unicode=True)
    example = f'documents = load_dataset("{form}", data_files="shards/*.{form}", split="train")'
    if everything:
        example += '\nkept = documents.filter(lambda row: row["kept"])'
    blocks = [
        f"---\n{front.rstrip()}\n---",
        "# Scored and filtered web text",
        f"{headline(sources)}. {' '.join(account(manifest, sources))}",
        (
            "The shards hold every document that was read, kept or not, with its score and the"
            " decision: filter on `kept`, or decide again from `quality_score` and `keep_draw`."
            if everything
            else "The shards hold only the kept documents."
        ),
        f"```python\nfrom datasets import load_dataset\n\n{example}\n```",
        "## Accounting",
        "Per source, read = kept + dropped for each reason + quarantined.",
        markdown_table(
            ["source", "outcome", "documents", "MB of text", "words", "share of read"],
            _accounting(sources),
        ),
        "## Damaged text",
        "Of all documents read: those with mojibake (UTF-8 decoded as windows-1252 or -1251), with"
        " U+FFFD (invalid bytes), and those cut short when they were crawled or stored.",
        markdown_table(["source", *DAMAGE], _damage(manifest, sources, groups)),
        "## Keep rule",
        f"{_rule(manifest['rule'])}, seed {config['seed']}."
        " With s = `quality_score` and u = `keep_draw`:",
        "- `pareto`: kept if u < (2 − s)^−α (GPT-3, GLaM);\n"
        "- `threshold`: kept if s > the threshold, or s = the threshold and u < ties;\n"
        "- `random`: kept if u < the rate;\n"
        "- `all`: always kept." + (_GROUPS if manifest["rule"]["name"] == "groups" else ""),
        "Sources that are not filtered pass through: all of their documents are kept.",
        "## Classifier",
        *_scored_by(classifier),
        *_reading(manifest, statistics),
        "## Columns",
        markdown_table(["column", "type", "meaning"], _columns(manifest)),
        "## Provenance",
        f"Made by Winnow {manifest['code']}; run key `{manifest['key']}`. Inputs, shards and"
        " their checksums are in `manifest.json`. The configuration:",
        f"```json\n{json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)}\n```\n",
    ]
    return "\n\n".join(blocks)


_GROUPS = (
    "\n- `buckets`: s and u are cut at thresholds, and each bucket has a number of `copies`.\n\n"
    "`manifest.json` has the rule of each group, `statistics/rule_groups.parquet` what it kept."
)


def _rule(rule: Mapping[str, Any]) -> str:
    if rule["name"] == "groups":
        return f"Rules per group: {keep_rules.short(rule)}"
    ties = keep_rules.ties(rule)
    return f"Rule `{rule['name']}`, parameter {rule['parameter']:.12g}, ties {ties:.12g}"


def _scored_by(classifier: Mapping[str, Any]) -> list[str]:
    if "several" not in classifier:
        return [
            f"`quality_score` is by the classifier with fingerprint `{classifier['fingerprint']}`."
            " Its card and figures are in `manifest.json` and `report.html`."
        ]
    anew = ", calibrated anew" if classifier["calibration"] else ""
    what = "those of several classifiers"
    if "joined" in classifier:
        if not classifier["several"]:
            return [f"`quality_score` is `{classifier['combine']}`{anew}, of joined columns."]
        what += " and joined columns"
    return [
        f"`quality_score` combines {what} by `{classifier['combine']}`{anew}."
        " Their cards are in `manifest.json` and `report.html`.",
        markdown_table(
            ["classifier", "fingerprint"],
            [[name, f"`{one['fingerprint']}`"] for name, one in classifier["several"].items()],
        ),
    ]


def _reading(manifest: Mapping[str, Any], statistics: Summary) -> list[str]:
    rows = agreement_rows(manifest, statistics)
    if not rows:
        return []
    return [
        "## Blind reading test",
        "Readers saw pairs of documents of one source and of similar length, without their scores,"
        " and said which is better. Agreement is how often that is the one with the higher score,"
        " among the pairs that they could decide, with Wilson's 95 % interval.",
        markdown_table([*rows[0]], [[str(value) for value in row.values()] for row in rows]),
    ]


def _front_matter(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """One dataset config of all shards, and one per source. The hub refuses empty patterns."""
    rows: Counter[str] = Counter()
    for task in manifest["tasks"]:
        rows[task["task"]["source"]] += sum(shard["rows"] for shard in task["shards"])
    rows = +rows  # without sources of no rows
    digits = "[0-9]" * 5
    form = _form(manifest)
    everything = "default"
    while everything in rows:
        everything += "_all"
    configs = [(everything, f"shards/*.{form}")] if rows else []
    configs += [
        (source, f"shards/data-{source}-{digits}-of-{digits}*.{form}") for source in sorted(rows)
    ]
    return {
        "pretty_name": "Scored and filtered web text",
        "task_categories": ["text-generation"],
        "size_categories": [_size_category(rows.total())],
        "tags": ["winnow", "quality-filter"],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": path}]}
            for name, path in configs
        ],
    }


def _form(manifest: Mapping[str, Any]) -> str:
    """The format of the shards, in the manifest if not the default."""
    return str(manifest["config"].get("format", "arrow"))


def _size_category(rows: int) -> str:
    names = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    place = max(0, len(str(rows)) - 3)
    if place == 0:
        return "n<1K"
    return "n>1T" if place >= len(names) else f"{names[place - 1]}<n<{names[place]}"


def _accounting(sources: pa.Table) -> list[list[str]]:
    rows = sources.to_pylist()
    read = {row["source"]: row["documents"] for row in rows if row["outcome"] == "read"}
    first = {"read": 0, "kept": 1, "quarantined": 3}
    rows.sort(key=lambda row: (row["source"], first.get(row["outcome"], 2), -row["documents"]))
    return [
        [
            row["source"],
            row["outcome"],
            f"{row[COUNTS[0]]:,}",
            megabytes(row[COUNTS[1]]),
            f"{row[COUNTS[2]]:,}",
            share(row["documents"], read[row["source"]]),
        ]
        for row in rows
    ]


def _damage(manifest: Mapping[str, Any], sources: pa.Table, groups: pa.Table) -> list[list[str]]:
    damaged = damage(manifest, groups)
    read = sources.filter(pc.equal(sources["outcome"], "read")).sort_by("source")
    return [
        [row["source"], *(f"{n:,} ({share(n, row['documents'])})" for n in damaged[row["source"]])]
        for row in read.to_pylist()
    ]


def _columns(manifest: Mapping[str, Any]) -> list[list[str]]:
    config, classifier = manifest["config"], manifest["classifier"]
    classifiers, grades = sorted(classifier.get("several", ())), schema.grade_columns(classifier)
    meanings = _COLUMNS | {
        schema.score_column(name): f"the score of the classifier {name}" for name in classifiers
    }
    for column, scale in grades.items():
        own = f"score{column.removeprefix(schema.grade_column())}"
        score = own if classifiers else "quality_score"
        meanings[score] = f"calibrated probability of grade {scale['at_least']} or more"
        meanings[column] = f"its expected grade, of {', '.join(scale['names'])}"
    columns = schema.shard_schema(
        config["metadata"],
        config.get("near_duplicates", False),
        keep_rules.has_copies(manifest["rule"]),
        [*grades],
        counted(manifest),
        classifiers,
    )
    carried = "carried from the input"
    rows = [[f"`{f.name}`", str(f.type), meanings.get(f.name, carried)] for f in columns]
    return rows + joined_columns(manifest)


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; ``|`` in cells is escaped."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in [head, *rows]]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
