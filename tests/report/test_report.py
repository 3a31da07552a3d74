"""The page's data, the terminal's table and the data card, against the statistics themselves."""

import base64
import hashlib
import json
import re
import subprocess
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_run import CARD, FILTERED, documents, invented, kept_at, scored, write_run
from statsmodels.stats.proportion import proportion_confint

from pipeline import report
from pipeline.core.task import decide_batch
from pipeline.output import schema
from pipeline.output.summary import COUNTS, TaskSummary, merge
from pipeline.page import embed_json, render
from pipeline.page.data.totals import share
from pipeline.page.data_card import data_card
from pipeline.page.report_data import DOMAINS_SHOWN, SOURCES_SHOWN, page_data
from pipeline.rules.decision import Rule


def statistics_of(output):
    return {name: render.read_statistics(str(output), name) for name in schema.STATISTICS}


def embedded(html):
    """The JSON that a browser would find in the page."""
    found = []

    class Finder(HTMLParser):
        inside = False

        def handle_starttag(self, tag, attributes):
            self.inside = tag == "script" and ("id", "data") in attributes

        def handle_data(self, data):
            if self.inside:
                found.append(data)

        def handle_endtag(self, tag):
            self.inside = False

    Finder().feed(html)
    return json.loads("".join(found))


@pytest.mark.parametrize(
    "rule",
    [
        Rule("pareto", 2.345),
        Rule("threshold", 0.5),
        Rule("threshold", 0.5, 0.25),
        Rule("threshold", 0.123, 0.25),
        Rule("random", 0.2),
    ],
)
def test_every_stop_of_the_control_is_what_deciding_anew_keeps(tmp_path, rule):
    batches = documents(150)
    write_run(tmp_path / "run", batches, rule, FILTERED)
    data = embedded((tmp_path / "run" / "report.html").read_text())
    if rule.name in data["stops"]:
        assert rule.parameter in data["stops"][rule.name]
    for source in data["sources"]:
        assert ("curves" in source) == (source["name"] in FILTERED)
        for name, counts in source.get("curves", {}).items():
            assert {len(unit) for unit in counts} == {len(data["stops"][name])}
            for i in [*range(0, len(data["stops"][name]), 12), 23, 24, 25]:
                stop = Rule(name, data["stops"][name][i])
                own = (stop.name, stop.parameter) == (rule.name, rule.parameter)
                expected = kept_at(batches[source["name"]], rule if own else stop)
                assert [unit[i] for unit in counts] == expected


def test_the_page_says_what_the_statistics_say(run):
    output, _, _ = run
    data = embedded((output / "report.html").read_text())
    tables = statistics_of(output)
    by_name = {source["name"]: source for source in data["sources"]}
    for row in tables["sources"].to_pylist():
        counts = [row["documents"], row["bytes"], row["words"]]
        assert by_name[row["source"]]["outcomes"][row["outcome"]] == counts
    for row in tables["score_histogram"].to_pylist():
        place = round(row["score_low"] * 100)
        source = by_name[row["source"]]
        found = source["histogram"][place], source["kept_histogram"][place]
        assert found == (row["documents"], row["kept_documents"])
    for name, batch in run[1].items():
        reached = batch.filter(pc.is_null(batch["drop_reason"]))
        scores = np.floor(reached["quality_score"].to_numpy() * 100) / 100 + 0.005
        found = by_name[name]["mean_score"]
        assert found["value"] == pytest.approx(scores.mean(), abs=1e-6)
        error = scores.std(ddof=1) / np.sqrt(len(scores))
        assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=1e-3)
    examples = {(s["name"], e["level"], e["id"]) for s in data["sources"] for e in s["examples"]}
    assert examples == {(r["source"], r["level"], r["id"]) for r in tables["examples"].to_pylist()}
    assert data["classifier"]["card"] == {
        "kind": CARD["kind"],
        "held_out": CARD["held_out"],
        "per_source": [
            {
                "source": "web",
                "documents": 1200,
                "ROC-AUC": 0.96,
                "Calibration error (ECE)": 0.0213,
            },
            {
                "source": "wiki",
                "documents": 300,
                "ROC-AUC": 0.98,
                "Calibration error (ECE)": 0.0107,
            },
        ],
    }
    shards = [shard for task in run[2]["tasks"] for shard in task["shards"]]
    assert data["provenance"]["shards"] == [
        [s["name"], s["rows"], s["bytes"], s["checksum"]] for s in shards
    ]


def test_the_largest_domains_and_the_sum_of_the_others_make_the_whole(run):
    output, _, _ = run
    web = embedded((output / "report.html").read_text())["sources"][0]  # the largest
    rows = [r for r in statistics_of(output)["domains"].to_pylist() if r["source"] == "web"]
    columns = ["documents", "bytes", "kept_documents", "kept_bytes"]
    expected = {r["domain"]: [r[c] for c in columns] for r in rows}
    assert len(web["domains"]) == min(DOMAINS_SHOWN, len(rows))
    assert all(expected[name] == counts for name, *counts in web["domains"])
    shown = [counts[0] for _, *counts in web["domains"]]
    assert shown == sorted((e[0] for e in expected.values()), reverse=True)[: len(shown)]


def test_the_largest_domains_do_not_depend_on_how_the_table_is_cut(run):
    output, _, manifest = run
    statistics = statistics_of(output)
    domains = statistics["domains"]
    whole = page_data(manifest, statistics, [domains])
    for rows in (1, 7, 100):
        parts = [domains.slice(i, rows) for i in range(0, len(domains), rows)]
        assert page_data(manifest, statistics, parts) == whole


def test_groups_are_those_of_the_statistics_with_wilsons_interval(run):
    output, _, manifest = run
    statistics = statistics_of(output)
    shown = page_data(manifest, statistics, [statistics["domains"]])["sources"]
    for row in statistics_of(output)["groups"].to_pylist():
        (source,) = [s for s in shown if s["name"] == row["source"]]
        (found,) = [g for g in source["groups"][row["column"]] if g[0] == row["value"]]
        assert found[1:4] == [row["documents"], row["bytes"], row["kept_documents"]]
        interval = proportion_confint(row["kept_documents"], row["documents"], method="wilson")
        assert found[4:] == pytest.approx(interval)


def crowd(n_sources, n_domains):
    """Statistics of very many sources with many domains and texts that double when escaped."""
    hostile = "<" * 700 + "\x00" * 800
    parts = []
    for i in range(n_sources):
        rng = np.random.default_rng(i)
        batch = invented(f"source{i:04d}", 40 + i % 7, rng)
        batch = batch.set_column(
            3, batch.schema.field(3), pa.array([hostile] * len(batch), pa.large_string())
        )
        filtered = i % 3 > 0
        summary = TaskSummary(f"source{i:04d}", filtered, Rule("pareto", 1.05))
        summary.update(decide_batch(batch, Rule("pareto", 1.05), filtered))
        parts.append(summary.tables())
    domains = {
        "source": np.repeat([f"source{i:04d}" for i in range(n_sources)], n_domains),
        "domain": [f"{'x' * 400}{i}.example" for i in range(n_sources * n_domains)],
        **{name: np.full(n_sources * n_domains, 10**12) for name in schema.DOMAINS.names[2:]},
    }
    parts[0]["domains"] = pa.table(domains, schema=schema.DOMAINS)
    return merge(parts)


def test_the_page_of_a_huge_run_stays_small_and_its_sums_exact(run):
    statistics = crowd(60, 300)
    value = json.loads(json.dumps(run[2]))
    value["rule"] = {"name": "pareto", "parameter": 1.05}
    value["tasks"] *= 3000
    value["classifier"]["card"] = {"rows": ["x" * 100] * 10_000}
    html = render.render(value, statistics, [statistics["domains"]])
    assert len(html.encode()) < 3_000_000
    data = embedded(html)
    assert len(data["sources"]) == SOURCES_SHOWN
    assert data["provenance"]["n_inputs"] == len(value["tasks"])

    for outcome in ("read", "kept", "quality", "language"):
        rows = [r for r in statistics["sources"].to_pylist() if r["outcome"] == outcome]
        for i, unit in enumerate(COUNTS):
            shown = sum(s["outcomes"].get(outcome, [0, 0, 0])[i] for s in data["sources"])
            assert shown == sum(r[unit] for r in rows)
    grid = data["stops"]["pareto"]
    stops = [r for r in statistics["keep_curves"].to_pylist() if r["rule"] == "pareto"]
    curves = [s["curves"]["pareto"][0] for s in data["sources"] if s["filtered"]]
    for parameter in (0.0, 0.7, 1.0, 1.1, 9.0, 16.0):
        expected = sum(r["documents"] for r in stops if r["parameter"] == parameter)
        assert sum(curve[grid.index(parameter)] for curve in curves) == expected
    own = [r for r in statistics["sources"].to_pylist() if r["filtered"] and r["outcome"] == "kept"]
    kept = sum(r["documents"] for r in own)
    assert sum(curve[grid.index(1.05)] for curve in curves) == kept


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.sampled_from(["</script>", "<!--", "]]>", "\u2028&amp;\u2029", "\x7f"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
@settings(max_examples=80, deadline=None)
def test_embedded_json_is_the_value_and_no_markup(value):
    text = embed_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029\x7f\n\r")


def test_only_the_pages_own_script_and_style_may_run(run):
    html = (run[0] / "report.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe|\*|https?:", policy)
    for kind, pattern in [
        ("script", r"<script>(.*?)</script>"),
        ("style", r"<style>(.*?)</style>"),
    ]:
        (content,) = re.findall(pattern, html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"<[a-z]+[^>]* (on\w+|style)=", html.split('id="data"')[0])
    assert not re.search(r"(src|href)=\"(?!data:)", html.split('id="data"')[0])


def test_the_same_run_gives_the_same_bytes(run):
    output, _, value = run
    before = {name: (output / name).read_bytes() for name in (render.PAGE, render.CARD)}
    for name in before:
        (output / name).unlink()
    render.write_report(str(output), value)
    assert {name: (output / name).read_bytes() for name in before} == before
    # The value is told before it is written; the file has its keys sorted.
    shuffled = dict(reversed(list(value.items())))
    statistics = statistics_of(output)
    html = render.render(shuffled, statistics, [statistics["domains"]])
    assert html.encode() == before[render.PAGE]


def test_the_data_card_loads_each_source_by_name(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    output, batches, _ = run
    for name, size in [
        ("default", sum(map(len, batches.values()))),
        *((source, len(batch)) for source, batch in batches.items()),
    ]:
        loaded = datasets.load_dataset(str(output), name, split="train", cache_dir=str(tmp_path))
        assert loaded.num_rows == size
        if name != "default":
            assert set(loaded["source"]) == {name}


def test_damaged_text_is_counted_by_source_on_page_and_card(run):
    statistics, value = statistics_of(run[0]), json.loads(json.dumps(run[2]))
    texts = ["cafÃ©", "itâ€™s \ufffd", "\ufffd", "fine", "fine too"]
    batch = decide_batch(scored("web", texts, [None] * 5, [0.5] * 5), Rule("all"), True)
    summary = TaskSummary("web", True, Rule("all"))
    summary.update(batch)
    statistics["groups"] = summary.tables()["groups"]
    for task in value["tasks"]:
        task["truncated"] = 2 if task["task"]["source"] == "mail" else 0
    mails = 2 * sum(task["task"]["source"] == "mail" for task in value["tasks"])
    shown = page_data(value, statistics, [statistics["domains"]])["sources"]
    found = {source["name"]: source["damage"] for source in shown}
    assert found["web"] == [2, 2, 0]
    assert found["mail"] == [0, 0, mails]
    read = {s["name"]: s["outcomes"]["read"][0] for s in shown}
    card = data_card(value, statistics)
    two = f"2 ({share(2, read['web'])})"
    assert f"| web | {two} | {two} | 0 (0 %) |" in card
    assert f"| mail | 0 (0 %) | 0 (0 %) | {mails} (" in card


def test_a_source_without_rows_is_no_config_of_the_card(run):
    # The hub refuses a pattern that matches no file.
    value = json.loads(json.dumps(run[2]))
    for task in value["tasks"]:
        if task["task"]["source"] == "mail":
            task["shards"] = []
    statistics = statistics_of(run[0])
    card = data_card(value, statistics)
    assert "config_name: web\n" in card
    assert "config_name: mail\n" not in card
    assert "| mail | quarantined | 3 |" in card


def test_every_column_is_explained(run):
    card = (run[0] / "README.md").read_text()
    columns = card.split("## Columns")[1].split("##")[0]
    assert re.findall(r"^\| `(\w+)`", columns, re.MULTILINE) == schema.shard_schema().names
    assert "carried from the input" not in columns


@pytest.fixture
def command(quick_python):
    start = [quick_python, report.__file__]
    return lambda *arguments: subprocess.run(
        [*start, *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_rebuilds_and_prints(command, run):
    output, _, _ = run
    page = (output / "report.html").read_bytes()
    (output / "report.html").unlink()
    done = command(str(output))
    assert done.returncode == 0, done.stderr
    assert "quarantined" in done.stdout
    assert done.stdout.endswith(f"\nnext: python model/prepare.py scored={output} output=corpus\n")
    assert (output / "report.html").read_bytes() == page


@pytest.mark.slow
def test_the_command_refuses_what_is_no_run(command, tmp_path):
    for arguments in ([], [str(tmp_path)], ["--alpha", "3"]):
        done = command(*arguments)
        assert done.returncode == (1 if arguments == [str(tmp_path)] else 2)
        assert done.stderr.startswith("pipeline/report.py: error: ")
        assert len(done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
    assert command("--help").returncode == 0


def test_a_card_that_is_too_long_is_named_not_dropped(run):
    value = {**run[2], "classifier": {**run[2]["classifier"], "card": {"x": "y" * 200_000}}}
    data = page_data(value, statistics_of(run[0]), [])
    assert "see manifest.json" in data["classifier"]["card"]
