"""Registered domains: the public suffix list's own examples, and a plain loop over hosts."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_run import invented, write_run

from pipeline import report
from pipeline.output.score_counts import COUNTS, KEPT_COUNTS
from pipeline.rules.decision import Rule
from winnow.text import hosts as of_hosts

# From https://raw.githubusercontent.com/publicsuffix/list/main/tests/test_psl.txt (public domain),
# names of registries alone; where there is no registered domain the host stays as it is.
EXAMPLES = {
    "example.com": "example.com", "b.example.com": "example.com", "a.b.example.com": "example.com",
    "com": "com", "uk.com": "uk.com", "a.b.example.uk.com": "uk.com",
    "biz": "biz", "a.b.domain.biz": "domain.biz",
    "test.ac.jp": "test.ac.jp", "www.test.ac.jp": "test.ac.jp", "ac.jp": "ac.jp",
    "ide.kyoto.jp": "ide.kyoto.jp", "a.b.ide.kyoto.jp": "b.ide.kyoto.jp",
    "b.c.kobe.jp": "b.c.kobe.jp", "a.b.c.kobe.jp": "b.c.kobe.jp", "city.kobe.jp": "city.kobe.jp",
    "www.city.kobe.jp": "city.kobe.jp",
    "b.test.ck": "b.test.ck", "a.b.test.ck": "b.test.ck", "www.www.ck": "www.ck",
    "test.us": "test.us", "www.test.ak.us": "test.ak.us", "www.test.k12.ak.us": "test.k12.ak.us",
    "www.xn--85x722f.com.cn": "xn--85x722f.com.cn",
    "www.xn--85x722f.xn--55qx5d.cn": "xn--85x722f.xn--55qx5d.cn",
    "www.xn--85x722f.xn--fiqs8s": "xn--85x722f.xn--fiqs8s",
    "a.github.io": "github.io",
    "192.168.0.1": "192.168.0.1", "[::1]": "[::1]", "localhost": "localhost", "(none)": "(none)",
}  # fmt: skip


def test_the_lists_own_examples():
    pytest.importorskip("tld")
    hosts = pa.array([*EXAMPLES, *EXAMPLES, None])
    found = of_hosts.registered_domains(hosts).to_pylist()
    assert found == [*EXAMPLES.values(), *EXAMPLES.values(), None]
    chunked = pa.chunked_array([hosts.slice(0, 9), hosts.slice(9)])
    assert of_hosts.registered_domains(chunked).to_pylist() == found


def test_a_host_is_looked_up_once(monkeypatch):
    looked_up = []
    monkeypatch.setattr(of_hosts, "_registered", lambda h: looked_up.append(h) or h)
    of_hosts.registered_domains(pa.array(["a.com", "b.com"] * 50))
    assert looked_up == ["a.com", "b.com"]


def test_a_report_adds_up_hosts(tmp_path, capsys):
    pytest.importorskip("tld")
    rng = np.random.default_rng(0)
    output = tmp_path / "run"
    write_run(
        output,
        {"web": invented("web", 300, rng), "mail": invented("mail", 90, rng)},
        Rule("pareto", 1.0),
        {"web"},
    )
    domains = output / "statistics" / "domains.parquet"
    table = pq.read_table(domains)
    host = [f"h{i}.{'abc'[i % 3]}.co.uk" for i in range(len(table))]
    pq.write_table(table.set_column(1, table.schema.field("domain"), pa.array(host)), domains)
    expected = defaultdict(lambda: [0] * 7)
    for row, name in zip(table.to_pylist(), host, strict=True):
        counts = [1, *(row[n] for n in COUNTS + KEPT_COUNTS)]
        key = row["source"], name.split(".", 1)[1]
        expected[key] = [a + b for a, b in zip(expected[key], counts, strict=True)]
    report.main([str(output), "--registered-domains"])
    path = output / "statistics" / "registered_domains.parquet"
    found = {
        (s, d): counts
        for s, d, *counts in zip(*pq.read_table(path).to_pydict().values(), strict=True)
    }
    assert found == {key: list(counts) for key, counts in expected.items()}
    page = (output / "report.html").read_text()
    assert "Largest registered domains" in page
    report.main([str(output)])  # stays
    assert (output / "report.html").read_text() == page
    capsys.readouterr()


def test_without_the_list_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    write_run(
        tmp_path, {"web": invented("web", 30, np.random.default_rng(0))}, Rule("all"), {"web"}
    )
    monkeypatch.setattr(of_hosts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as left:
        report.main([str(tmp_path), "--registered-domains"])
    assert left.value.code == 1
    assert "pip install 'winnow-lm[domains]'" in capsys.readouterr().err
