"""The page of a run in a real Chromium: its numbers."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from browser import needs_browser, opened
from report_run import FILTERED, invented, kept_at, write_run
from scipy.stats import binomtest

from pipeline.core.scored_documents import with_schema
from pipeline.core.task import decide_batch
from pipeline.output import schema
from pipeline.page import render
from pipeline.rules.buckets import Buckets
from pipeline.rules.decision import Rule
from pipeline.rules.groups import GroupRules
from pipeline.settings.group_settings import decision_of

pytestmark = [needs_browser, pytest.mark.slow]

UNITS = ["documents", "bytes", "words"]


def batches():
    rng = np.random.default_rng(3)
    return {
        "web": invented("web", 600, rng, hosts=500),
        "mail": invented("mail", 250, rng),
        "wiki": invented("wiki", 90, rng),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "scored"
    write_run(output, batches(), Rule("pareto", 2.345), FILTERED, quarantined=4)
    return output


def cells(page, table, name):
    """The exact values of one column of a table of the page, the last one its total."""
    found = page.locator(f"#{table} td[data-name={name}]").evaluate_all(
        "cells => cells.map(cell => [cell.dataset.value, cell.textContent])"
    )
    for value, text in found:
        assert name == "bytes" or re.match(f"{int(value):,}(of |$)", text), text
    return [int(value) for value, _ in found]


def order_of(page, table="sources"):
    return [text.split()[0] for text in page.locator(f"#{table} tbody tr").all_inner_texts()]


def shown_yield(page):
    """What the page says every source would keep: {source: [documents, bytes, words]}."""
    columns = [cells(page, "sources", unit) for unit in UNITS]
    rows = [list(row) for row in zip(*columns, strict=True)]
    assert rows[-1] == [sum(column[:-1]) for column in columns]
    return dict(zip(order_of(page), rows, strict=False))


def stored_yield(output, rule, parameter):
    curves = pq.read_table(output / "statistics" / "keep_curves.parquet").to_pylist()
    return {
        row["source"]: [row[unit] for unit in UNITS]
        for row in curves
        if (row["rule"], row["parameter"]) == (rule, parameter)
    }


def decided_yield(rule):
    return {name: kept_at(of, rule, name in FILTERED) for name, of in batches().items()}


def turn_to(page, rule, parameter):
    page.get_by_text({"pareto": "Pareto", "threshold": "Threshold"}[rule], exact=True).click()
    page.fill("#value", str(parameter))
    page.press("#value", "Enter")


def test_the_control_shows_what_the_parquet_says_and_deciding_anew_gives(chromium, run):
    with opened(chromium, run / "report.html") as page:
        assert shown_yield(page) == decided_yield(Rule("pareto", 2.345))
        assert page.locator("#value").input_value() == "2.345"
        for rule, parameter in [
            ("pareto", 0.0), ("pareto", 0.3), ("pareto", 1.0), ("pareto", 9.0), ("pareto", 16.0),
            ("threshold", 0.0), ("threshold", 0.07), ("threshold", 0.5), ("threshold", 1.0),
        ]:  # fmt: skip
            turn_to(page, rule, parameter)
            shown = shown_yield(page)
            assert shown == decided_yield(Rule(rule, parameter))
            stored = stored_yield(run, rule, parameter)
            assert {source: shown[source] for source in stored} == stored
            assert set(stored) == FILTERED
        assert "--rule threshold --threshold 1" in page.inner_text("#command")
        page.click("#own")
        assert shown_yield(page) == decided_yield(Rule("pareto", 2.345))


RULES = {
    "web": {"mid": {"rule": "pareto", "alpha": 2.345}, "*": {"rule": "buckets", "copies": [0, 2]}},
    "mail": {"rule": "threshold", "threshold": 0.25},
}


@pytest.fixture(scope="module")
def grouped_run(tmp_path_factory):
    """A run with rules by source and by language, which is the host's here."""
    decision = decision_of({"rules": RULES})
    threshold = Rule("threshold", 0.25)
    rules = Rule("pareto", 2.345), Buckets((threshold,), (0, 2)), threshold
    rule = GroupRules(decision.groups, rules)
    output = tmp_path_factory.mktemp("grouped")
    write_run(output, in_groups(), rule, FILTERED, decision=decision.as_settings())
    return output, rule


def in_groups():
    """The documents, in two languages, with room for copies."""
    field, wanted = schema.shard_schema().field("language"), schema.shard_schema(copies=True)
    out = {}
    for source, batch in batches().items():
        language = pa.array([("mid", "low")[i % 2] for i in range(len(batch))])
        at = batch.schema.get_field_index("language")
        out[source] = with_schema(batch.set_column(at, field, language), wanted)
    return out


def test_the_control_moves_the_rule_of_one_group(chromium, grouped_run):
    output, rule = grouped_run
    moved = GroupRules(rule.groups, (Rule("pareto", 9.0), *rule.rules[1:]))

    def kept(rule, source, language=None):
        batch = in_groups()[source]
        if language:
            batch = batch.filter(pc.equal(batch["language"], language))
        return kept_at(batch, rule, source in FILTERED)

    def expected(rule):
        groups = {"web/mid": ("web", "mid"), "web/*": ("web", "low"), "mail": ("mail",)}
        return [
            {name: kept(rule, *where) for name, where in groups.items()},
            {source: kept(rule, source) for source in batches()},
        ]

    def shown(page):
        names = order_of(page)
        values = zip(*(cells(page, "sources", unit) for unit in UNITS), strict=True)
        rows = list(zip(names, map(list, values), strict=False))
        is_group = page.locator("#sources tbody tr").evaluate_all(
            "rows => rows.map(row => row.querySelector('.group') !== null)"
        )
        return [
            {name: row for (name, row), g in zip(rows, is_group, strict=True) if g == wanted}
            for wanted in (True, False)
        ]

    with opened(chromium, output / "report.html") as page:
        assert shown(page) == expected(rule)
        options = [text.strip() for text in page.locator("#source option").all_inner_texts()]
        page.select_option("#source", str(options.index("web")))
        assert page.locator("#stop").is_disabled()
        page.select_option("#source", str(options.index("web/mid")))
        assert page.input_value("#value") == "2.345"
        turn_to(page, "pareto", 9.0)
        assert shown(page) == expected(moved)
        command = page.inner_text("#command")
        tree = json.loads(re.search(r"--rules '(.*)'", command)[1])
        assert decision_of({"rules": tree}).known_rule() is None  # buckets are still solved for
        assert tree == {**RULES, "web": {**RULES["web"], "mid": {"rule": "pareto", "alpha": 9}}}
        page.click("#own")
        assert shown(page) == expected(rule)
        panel = page.locator("#panel-rules tbody tr").all_inner_texts()
        assert len(panel) == 4  # two rules and two buckets
    with opened(chromium, output / "report.html", width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_documents_are_drawn_by_the_size_of_their_cluster(chromium, run, tmp_path):
    rng = np.random.default_rng(8)
    found, expected = {}, {}
    for source, batch in batches().items():
        sizes = rng.choice([0, 1, 2, 3, 4, 7, 40], len(batch)).tolist() if source == "web" else []
        sizes = [size or None for size in sizes] or [None] * len(batch)
        batch = with_schema(batch, schema.shard_schema(clusters=True))
        at = batch.schema.get_field_index("cluster_size")
        found[source] = batch.set_column(at, batch.schema.field(at), pa.array(sizes, pa.int64()))
        for size, kept in zip(
            sizes, decide_batch(batch, Rule("pareto", 1.0), source in FILTERED)["kept"], strict=True
        ):
            if size:
                row = expected.setdefault(1 << (size.bit_length() - 1), [0, 0])
                row[0] += 1
                row[1] += kept.as_py()
    write_run(tmp_path, found, Rule("pareto", 1.0), FILTERED)
    stored = pq.read_table(tmp_path / "statistics" / "cluster_sizes.parquet").to_pylist()
    names = ("least", "documents", "kept_documents")
    assert [[row[name] for name in names] for row in stored] == [
        [least, *counts] for least, counts in sorted(expected.items())
    ]
    assert {row["source"] for row in stored} == {"web"}
    together = sum(n for least, (n, _) in expected.items() if least > 1)
    told = f"{together} of {sum(n for n, _ in expected.values())} have near-duplicates"
    for width, scheme in ((1440, "light"), (390, "dark")):
        with opened(chromium, tmp_path / "report.html", width=width, scheme=scheme) as page:
            assert told in page.inner_text("#clusters-legend")
            assert page.locator("#clusters rect.dropped").count() == len(expected)
            page.locator("#clusters-log").uncheck()
            tall = page.locator("#clusters rect.dropped").evaluate_all(
                "bars => bars.map(bar => Number(bar.getAttribute('height')))"
            )
            counts = [n for _, (n, _) in sorted(expected.items())]
            assert np.array(tall) / tall[0] == pytest.approx(np.array(counts) / counts[0])
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with opened(chromium, run / "report.html") as page:
        assert page.locator("#clustered").is_hidden()


def test_the_slider_walks_from_stop_to_stop(chromium, run):
    with opened(chromium, run / "report.html") as page:
        page.focus("#stop")
        for expected in ("2.4", "2.5", "2.6"):
            page.keyboard.press("ArrowRight")
            assert page.input_value("#value") == expected
        stored = stored_yield(run, "pareto", 2.6)
        assert {source: shown_yield(page)[source] for source in stored} == stored
        for expected in ("2.5", "2.4", "2.345", "2.3"):
            page.keyboard.press("ArrowLeft")
            assert page.input_value("#value") == expected
        page.keyboard.press("End")
        assert page.input_value("#value") == "16"
        page.fill("#value", "3.333")  # no stop: the nearest one
        page.press("#value", "Enter")
        assert page.input_value("#value") == "3.3"


@pytest.mark.parametrize(
    "rule", [Rule("threshold", 0.123), Rule("random", 0.25), Rule("all"), Rule("pareto", 40.0)]
)
def test_every_rule_starts_at_its_own_run(chromium, tmp_path, rule):
    write_run(tmp_path / "run", batches(), rule, FILTERED)
    with opened(chromium, tmp_path / "run" / "report.html") as page:
        assert shown_yield(page) == decided_yield(rule)
        assert page.is_disabled("#own")
        turn_to(page, "pareto", 1.0)
        assert shown_yield(page) == decided_yield(Rule("pareto", 1.0))
        page.click("#own")
        assert shown_yield(page) == decided_yield(rule)


def test_the_account_is_that_of_the_parquet(chromium, run):
    rows = pq.read_table(run / "statistics" / "sources.parquet").to_pylist()
    with opened(chromium, run / "report.html") as page:
        page.click("text=Every source: read, kept")
        order = order_of(page, "accounting")
        for outcome in ("read", "kept", "quarantined"):
            counts = {r["source"]: r["documents"] for r in rows if r["outcome"] == outcome}
            shown = cells(page, "accounting", outcome)
            assert dict(zip(order, shown, strict=False)) == counts
            assert shown[-1] == sum(counts.values())
        for reason in ("quality", "language", "gopher_words"):
            counts = {r["source"]: r["documents"] for r in rows if r["outcome"] == reason}
            assert cells(page, "reasons", reason) == [sum(counts.values())]
        all_counts = page.locator("#reasons td[data-value]").evaluate_all(
            "cells => cells.map(cell => Number(cell.dataset.value))"
        )
        assert all_counts == sorted(all_counts, reverse=True)
        for reason in ("quality", "language", "gopher_words"):
            counts = {r["source"]: r["documents"] for r in rows if r["outcome"] == reason}
            assert cells(page, "source-reasons", reason) == [counts["web"]]


def test_documents_stand_kept_beside_dropped_with_what_decided_them(chromium, run):
    rows = pq.read_table(run / "statistics" / "examples.parquet").to_pylist()
    web = {r["id"]: r for r in rows if r["source"] == "web"}
    rule = Rule("pareto", 16.0)
    with opened(chromium, run / "report.html") as page:
        assert page.locator("#examples").bounding_box()["y"] < 900
        panes = page.locator("#examples .pane")
        for k, kept in enumerate((True, False)):
            texts = panes.nth(k).locator("details").all_text_contents()
            texts = {re.search(r"id(web-\d+)", text)[1]: text for text in texts}
            assert texts.keys() == {i for i, r in web.items() if r["kept"] == kept}
            for i, text in texts.items():
                draw, chance = web[i]["keep_draw"], web[i]["keep_probability"]
                sign = "<" if draw < chance else "≥"
                assert f"score {web[i]['quality_score']:.3f}" in text
                told = f"draw {draw:.3f} {sign} keep probability {chance:.3f}"
                assert (told in text) != web[i]["level"].startswith("dropped")
                assert text.endswith(web[i]["text"])
        kept = [r["quality_score"] for r in web.values() if r["kept"]]
        first = panes.first.locator("details").first
        assert f"score {max(kept):.3f}" in first.inner_text()
        page.click("text=Closest cases first")
        assert f"score {min(kept):.3f}" in first.inner_text()
        assert page.locator("#examples .badge.chosen").count() == 0
        turn_to(page, rule.name, rule.parameter)
        scores = np.array([r["quality_score"] for r in web.values()], np.float32)
        draws = np.array([r["keep_draw"] for r in web.values()])
        lost = [r["kept"] for r in web.values()] & (draws >= rule.probability(scores))
        told = page.locator("#examples .badge.chosen").all_inner_texts()
        assert told == ["dropped at α = 16"] * lost.sum() != []


def test_domains_can_be_sorted_and_follow_the_source(chromium, run):
    rows = pq.read_table(run / "statistics" / "domains.parquet").to_pylist()
    mail = {r["domain"]: r for r in rows if r["source"] == "mail"}
    with opened(chromium, run / "report.html") as page:
        assert "other domains" in page.inner_text("#domains tfoot")
        page.select_option("#source", label="mail")

        def names():
            return page.locator("#domains tbody td:first-child").all_inner_texts()

        assert set(names()) == set(mail)
        documents = [mail[name]["documents"] for name in names()]
        assert documents == sorted(documents, reverse=True)
        page.get_by_label("sort by Kept share").click()
        shares = [mail[name]["kept_documents"] / mail[name]["documents"] for name in names()]
        assert shares == sorted(shares, reverse=True)
        page.get_by_label("sort by Domain").click()
        assert names() == sorted(mail)
        page.get_by_label("sort by Domain").click()
        assert names() == sorted(mail, reverse=True)


def test_the_charts_draw_the_histogram(chromium, run):
    rows = pq.read_table(run / "statistics" / "score_histogram.parquet").to_pylist()
    web = [r for r in rows if r["source"] == "web"]
    with opened(chromium, run / "report.html") as page:
        page.uncheck("#histogram-log")
        for kind, column in [("dropped", "documents"), ("kept", "kept_documents")]:
            heights = page.locator(f"#histogram rect.{kind}").evaluate_all(
                "bars => bars.map(bar => Number(bar.getAttribute('height')))"
            )
            counts = [r[column] for r in web if r[column]]
            assert len(heights) == len(counts)
            assert np.allclose(np.array(heights) / np.array(counts), heights[0] / counts[0])
        filled = {r["score_low"] // 0.05 for r in web if r["documents"]}
        assert page.locator("#rates .dot").count() == len(filled)
        assert page.locator("#rates path.chosen").count() == 0
        turn_to(page, "pareto", 1.0)
        assert page.locator("#rates path.chosen").count() == 1
        page.locator("#histogram svg").hover(position={"x": 70, "y": 100})
        assert re.search(r"score 0\.0\d to .*\d+ documents.*kept", page.inner_text("#tip"), re.S)
        linear = page.locator("#rates .dot").last.get_attribute("cy")
        page.check("#rates-log")
        assert page.locator("#rates .dot").last.get_attribute("cy") != linear
        # (2 - 0) ** -2.345 is 0.2: the axis begins at a tenth.
        assert page.locator("#rates .tick", has_text="10 %").count() == 1
        assert page.locator("#rates .tick", has_text="1 %").count() == 0


@pytest.mark.parametrize(("kept", "n"), [(0, 5), (3, 17), (17, 17), (400, 9000)])
def test_the_error_bars_are_wilsons(chromium, run, kept, n):
    expected = binomtest(kept, n).proportion_ci(method="wilson")
    with opened(chromium, run / "report.html") as page:
        assert np.allclose(page.evaluate(f"wilson({kept}, {n})"), expected, atol=1e-7)


def test_a_run_in_which_nothing_could_be_read(chromium, run, tmp_path):
    value = json.loads((run / "manifest.json").read_text())
    task = next(task for task in value["tasks"] if task["task"]["source"] == "web")
    value["tasks"] = [task | {"skipped": {"request": 3, "not_html": 12}}]
    statistics = {name: table.empty_table() for name, table in schema.STATISTICS.items()}
    sources = [("web", True, "read", 5, 0, 0), ("web", True, "quarantined", 5, 0, 0)]
    names = schema.SOURCES.names
    statistics["sources"] = pa.Table.from_pylist(
        [dict(zip(names, row, strict=True)) for row in sources], schema.SOURCES
    )
    edges = np.arange(101) / 100
    zeros = np.zeros(100, np.int64)
    statistics["score_histogram"] = pa.table(
        [pa.array(["web"] * 100), edges[:-1], edges[1:], *[zeros] * 6],
        schema=schema.SCORE_HISTOGRAM,
    )
    curves = [("pareto", i / 10) for i in range(161)] + [("threshold", i / 100) for i in range(101)]
    statistics["keep_curves"] = pa.Table.from_pylist(
        [
            dict(zip(schema.KEEP_CURVES.names, ("web", rule, stop, 0, 0, 0), strict=True))
            for rule, stop in curves
        ],
        schema.KEEP_CURVES,
    )
    path = tmp_path / "report.html"
    path.write_text(render.render(value, statistics, [statistics["domains"]]))
    with opened(chromium, path) as page:
        assert shown_yield(page) == {"web": [0, 0, 0]}
        turn_to(page, "threshold", 0.5)
        assert "NaN" not in page.inner_text("body")
        rows = page.locator("#panel-skipped tbody tr").all_inner_texts()
        assert [row.split() for row in rows] == [["web", "not_html", "12"], ["web", "request", "3"]]
