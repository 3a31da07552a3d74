"""The draft of the EU's summary of training content, against plain counts of the kept documents."""

import csv
import json
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from report_run import invented, write_run

from pipeline import report
from pipeline.core.task import decide_batch
from pipeline.page import eu_summary
from pipeline.rules.decision import Rule

SECTIONS = [
    "1. General information", "1.1 Provider identification", "1.2 Model identification",
    "1.3 Modalities, overall training data size and other characteristics",
    "2. List of data sources", "2.1 Publicly available datasets",
    "2.2 Private non-publicly available datasets obtained from third parties",
    "2.3 Data crawled and scraped from online sources", "2.4 User data", "2.5 Synthetic data",
    "2.6 Other sources of data", "3. Data processing aspects",
    "3.1 Respect of reservation of rights from the text and data mining exception or limitation",
    "3.2 Removal of illegal content", "3.3 Other information about data processing",
]  # fmt: skip


def test_it_counts_what_was_kept(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rule = Rule("pareto", 1.0)
    batches = {"web": invented("web", 500, rng, hosts=200), "wiki": invented("wiki", 60, rng)}
    language = pa.array((["en", "de", "fr|x"] * 167)[:500])
    at = batches["web"].schema.get_field_index("language")
    field = batches["web"].schema.field(at)
    batches["web"] = batches["web"].set_column(at, field, language)
    write_run(tmp_path, batches, rule, {"web"})
    kept = []
    for source, batch in batches.items():
        decided = decide_batch(batch, rule, source == "web")
        kept += decided.filter(decided["kept"]).to_pylist()
    by_host, by_language = Counter(), Counter()
    for row in kept:
        by_host[row["url"].split("/")[2]] += row["bytes"]
        by_language[row["language"] or "(none)"] += row["bytes"]

    report.main([str(tmp_path), "--summary", "eu"])
    assert str(tmp_path / "eu_summary.md") in capsys.readouterr().out
    text, about = ((tmp_path / name).read_text() for name in eu_summary.FILES[:2])
    assert re.findall(r"^###? (.*)$", text, re.MULTILINE) == SECTIONS
    about = json.loads(about)
    size = {
        "documents": len(kept),
        "bytes": sum(row["bytes"] for row in kept),
        "words": sum(row["words"] for row in kept),
    }
    assert about["1.3"]["size"] == size
    assert about["1.3"]["tokens"] == "Less than 1 billion tokens"
    languages = {row["language"]: row["bytes"] for row in about["1.3"]["languages"]}
    assert languages == dict(by_language)
    assert "| fr\\|x |" in text
    assert sum(row["bytes"] for row in about["2"]) == size["bytes"]
    n = len(by_host)
    assert about["2.3"] == {"domains": n, "named": -(-n // 10), "named_sme": -(-n // 20)}
    with open(tmp_path / "eu_summary_domains.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    largest = sorted(by_host.items(), key=lambda item: (-item[1], item[0]))[: -(-n // 10)]
    assert [(row["domain"], int(row["bytes"])) for row in rows] == largest
    removed = sum(row["documents"] for row in about["3"]["removed"])
    assert removed == sum(map(len, batches.values())) - len(kept)


@pytest.mark.parametrize(
    ("words", "size", "told"),
    [
        (10, 10**9 - 1, "Less than 1 billion tokens"),
        (2 * 10**9, 9 * 10**9, "1 billion to 10 trillion tokens"),
        (9 * 10**8, 5 * 10**9, "Less than 1 billion tokens or: 1 billion to 10 trillion tokens"),
        (10**13, 10**14, "More than 10 trillion tokens"),
    ],
)
def test_the_range_of_tokens_is_certain_or_two(words, size, told):
    names = ["source", "filtered", "outcome", "documents", "bytes", "words"]
    row = dict(zip(names, ["web", True, "kept", 1, size, words], strict=True))
    manifest = {
        "config": {"source": {}},
        "key": "k",
        "rule": {},
        "classifier": {"fingerprint": "f"},
    }
    groups = {"column": ["length"], "value": ["x"], "kept_documents": [1], "kept_bytes": [1]}
    statistics = {"sources": pa.Table.from_pylist([row]), "groups": pa.table(groups)}
    about = eu_summary.summary(manifest, statistics, eu_summary.DOMAINS.empty_table())
    assert about["1.3"]["tokens"] == told
    text = eu_summary.markdown(about, eu_summary.DOMAINS.empty_table(), False)
    assert "did not identify languages" in text
