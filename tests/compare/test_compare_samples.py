"""``winnow compare samples=…``: against SciPy, statsmodels and plain NumPy, and what it refuses."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from browser import needs_browser, opened
from logged_samples import DATE, logged, write
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from ablations import compare
from ablations.samples import comparison, log, pairing
from ablations.samples.comparison import Criteria
from ablations.samples.endpoints import mid_p

ALL = ("piqa", "boolq", "gsm8k", "wikitext", "wmt")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs of two models on five tasks: base0, base1, tuned0, tuned1."""
    root = tmp_path_factory.mktemp("samples")
    for arm, lift in (("base", 0.0), ("tuned", 0.8)):
        for run in range(2):
            write(root / f"{arm}{run}", lift, run, ALL)
    return root


def compared(folders, tasks=(), runs=1, **asked):
    arms = {
        arm: [log.read(str(folders / f"{arm}{run}")) for run in range(runs)]
        for arm in ("base", "tuned")
    }
    return comparison.compare(pairing.pair(arms, tasks), Criteria(**asked))


def test_a_paired_difference_has_the_interval_of_a_paired_t_test(folders):
    result = compared(folders, ["piqa"])
    ours, theirs = (100 * logged(folders / f"{arm}0", "piqa", "acc") for arm in ("tuned", "base"))
    t = stats.ttest_rel(ours, theirs)
    low, high = t.confidence_interval(0.95)
    assert result.primary["value"] == pytest.approx((ours - theirs).mean())
    assert (result.primary["low"], result.primary["high"]) == pytest.approx((low, high))
    table = [[0, int((ours > theirs).sum())], [int((theirs > ours).sum()), 0]]
    exact = mcnemar(table, exact=True).pvalue
    less, differing = min(table[0][1], table[1][0]), table[0][1] + table[1][0]
    mid = exact - stats.binom.pmf(less, differing, 0.5)
    assert result.primary["p"] == pytest.approx(max(mid, t.pvalue))


def test_questions_on_one_passage_are_one_cluster(folders):
    found = compared(folders, ["boolq"]).primary
    gap = logged(folders / "tuned0", "boolq", "acc") - logged(folders / "base0", "boolq", "acc")
    fit = sm.OLS(100 * gap, np.ones(len(gap))).fit(
        cov_type="cluster", cov_kwds={"groups": np.arange(len(gap)) // 2}, use_t=True
    )
    ((low, high),) = fit.conf_int()
    assert (found["value"], found["error"]) == pytest.approx((fit.params[0], fit.bse[0]))
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_a_perplexity_is_compared_in_bits_as_a_ratio_of_sums(folders):
    result = compared(folders, ["wikitext"], metrics=["bits_per_byte"])
    ratios, moves = [], []
    for arm in ("tuned0", "base0"):
        logprob, length = logged(folders / arm, "wikitext", "bits_per_byte").T
        bits = -logprob / math.log(2)
        ratios.append(bits.sum() / length.sum())
        moves.append((bits - ratios[-1] * length) / length.mean())
    error = (moves[0] - moves[1]).std(ddof=1) / math.sqrt(len(moves[0]))
    assert result.primary["value"] == pytest.approx(ratios[0] - ratios[1])
    assert result.primary["error"] == pytest.approx(error)
    assert result.verdict.outcome == "better"  # fewer bits


def test_the_mean_over_tasks_weighs_each_alike(folders):
    result = compared(folders, ["piqa", "boolq", "gsm8k", "wikitext"])
    by_task = [compared(folders, [task]).primary for task in ("piqa", "boolq", "gsm8k")]
    assert result.primary["value"] == pytest.approx(np.mean([of["value"] for of in by_task]))
    assert result.primary["error"] == pytest.approx(
        math.sqrt(sum(of["error"] ** 2 for of in by_task)) / 3
    )
    assert (result.primary["tasks"], result.primary["items"]) == (3, 120)
    assert result.paired == {"tasks": 4, "items": 160}
    assert "wikitext" in result.notes[0]


def test_runs_are_paired_in_their_order(folders):
    result = compared(folders, ["piqa"], runs=2)
    ours, theirs = (
        np.array([100 * logged(folders / f"{arm}{k}", "piqa", "acc").mean() for k in range(2)])
        for arm in ("tuned", "base")
    )
    gaps = ours - theirs
    found = [row["difference"] for row in result.tables["runs_of_primary"]]
    assert found == pytest.approx(gaps)
    assert result.primary["value"] == pytest.approx(np.mean(gaps))
    assert result.primary["seed_error"] == pytest.approx(abs(gaps[0] - gaps[1]) / 2)


def test_what_is_no_mean_of_items_is_left_out_with_a_reason(folders):
    (row,) = compared(folders).tables["left_out"]
    assert (row["task"], row["metric"]) == ("wmt", "bleu")
    assert "all of them at once" in row["reason"]


def test_models_alike_on_few_items_are_not_called_alike(tmp_path):
    arms = {
        arm: [log.read(write(tmp_path / arm, 0.3, tasks=("piqa", "boolq")))]
        for arm in ("base", "tuned")
    }
    result = comparison.compare(pairing.pair(arms), Criteria())
    assert result.verdict.outcome == "underpowered"
    # Of one of two tasks, which has 20 passages; were twice 6.96 % other, one in twenty shows none.
    assert stats.binom.pmf(0, 20, 2 * 0.0696) == pytest.approx(0.05, rel=0.01)
    assert "could hide 6.96 points" in result.verdict.sentence
    assert {(row["outcome"], row["detectable"]) for row in result.tables["tests"]} == {
        ("all alike", None)
    }


@pytest.mark.parametrize(("one", "other"), [(0, 5), (3, 9), (7, 7), (41, 20)])
def test_the_mid_p_value_counts_half_of_what_is_as_likely(one, other):
    n = one + other
    chances = {k: math.comb(n, k) / 2**n for k in range(n + 1)}
    far = abs(one - n / 2)
    brute = sum(p for k, p in chances.items() if abs(k - n / 2) > far)
    brute += sum(p for k, p in chances.items() if abs(k - n / 2) == far) / 2
    assert mid_p(one, other) == pytest.approx(brute)


def other_document(results, rows):
    rows["piqa"][7]["doc_hash"] = "0" * 64


def other_answer(results, rows):
    rows["piqa"][7]["target_hash"] = "0" * 64


def other_prompt(results, rows):
    rows["piqa"][7]["prompt_hash"] = "0" * 64
    results["chat_template_sha"] = "abc"


def fewer_items(results, rows):
    rows["piqa"].pop()
    results["n-samples"]["piqa"]["effective"] = len(rows["piqa"])
    acc = [row["acc"] for row in rows["piqa"]]
    results["results"]["piqa"] |= {"acc,none": np.mean(acc)}
    results["results"]["piqa"].pop("acc_norm,none")


def other_shots(results, rows):
    results["n-shot"]["piqa"] = 5


def other_version(results, rows):
    results["versions"]["piqa"] = 2.0


def no_hashes(results, rows):
    for row in rows["piqa"]:
        del row["prompt_hash"]


def cut_off(results, rows):
    rows["piqa"].pop()


def twice(results, rows):
    rows["piqa"].append(rows["piqa"][0])


def of_another_run(results, rows):
    results["results"]["piqa"]["acc,none"] += 0.1


def nothing_logged(results, rows):
    rows.clear()


def other_tasks(results, rows):
    rows["winogrande"] = rows.pop("piqa")
    for name in ("results", "n-samples"):
        results[name]["winogrande"] = results[name].pop("piqa")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_document, "different items .the doc_hash of item 7"),
        (other_answer, "different right answers .the target_hash of item 7"),
        (other_prompt, "different prompts .the prompt_hash of item 7 differs; chat template"),
        (fewer_items, r"different items \(39 and 40; only one has item 39\)"),
        (other_shots, r"different numbers of shots \(5 and 0\)"),
        (other_version, "different task versions"),
        (no_hashes, "row 1 has no prompt_hash"),
        (cut_off, "39 items, and .* says 40"),
        (twice, "item 0 twice"),
        (of_another_run, "does not match"),
        (nothing_logged, "evaluate with --log_samples"),
        (other_tasks, "no task was evaluated in every run"),
    ],
)
def test_what_cannot_be_paired_is_refused(tmp_path, change, message):
    one = write(tmp_path / "one", 0.0, tasks=["piqa"])
    other = write(tmp_path / "other", 0.5, tasks=["piqa"], change=change)
    with pytest.raises(ValueError, match=message):
        pairing.pair({"base": [log.read(one)], "tuned": [log.read(other)]})


def test_other_prompts_may_be_allowed_and_are_said(tmp_path):
    one = write(tmp_path / "one", 0.0, tasks=["piqa"])
    other = write(tmp_path / "other", 0.5, tasks=["piqa"], change=other_prompt)
    arms = {"base": [log.read(one)], "tuned": [log.read(other)]}
    assert "may be due to prompts" in pairing.pair(arms, any_prompts=True).notes[0]


def test_rows_before_0_4_8_have_the_filters_in_order(folders, tmp_path):
    shutil.copytree(folders / "base0", tmp_path / "old")
    (file,) = (tmp_path / "old").rglob(f"samples_gsm8k_{DATE}.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows.sort(key=lambda row: row["doc_id"])  # an item's rows follow one another
    file.write_text("".join(json.dumps(r | {"filter": None}) + "\n" for r in rows))
    new = log.read(str(folders / "base0")).tasks["gsm8k"]
    old = log.read(str(tmp_path / "old")).tasks["gsm8k"]
    for key, score in new.scores.items():
        np.testing.assert_array_equal(old.scores[key].numerator, score.numerator)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give samples=.* or study=DIR"),
        (["tasks=[piqa]"], "give samples=.* or study=DIR"),
        (["samples={base: [a]}"], "at least two arms"),
        (["samples={base: [a], tuned: []}"], "no folders for tuned"),
        (["samples={base: [a], tuned: [a]}"], "names a twice"),
        (["samples={base: [a"], "at least two arms"),
        (["samples={base: [a], tuned: [b]}", "tasks=[a,,b]"], "check its brackets"),
        (["samples={base: [a], tuned: [b]}", "study=c"], "unknown setting 'study=c'"),
        (["samples={base: [BASE], tuned: [TUNED, OTHER]}"], "base has 1, tuned has 2"),
        (["samples={base: [BASE], tuned: [TUNED]}", "tasks=[arc]"], "no samples of arc"),
        (
            ["samples={base: [BASE], tuned: [TUNED]}", "primary=arc"],
            "primary=arc cannot be compared",
        ),
        (["samples={base: [BASE], tuned: [TUNED]}", "alpha=much"], "alpha is a number"),
        (["samples={base: [BASE], tuned: [TUNED]}", "power=2"], "power in"),
    ],
)
def test_settings_that_make_no_comparison_are_refused(folders, arguments, message):
    places = {"BASE": "base0", "TUNED": "tuned0", "OTHER": "tuned1"}
    for name, place in places.items():
        arguments = [argument.replace(name, str(folders / place)) for argument in arguments]
    with pytest.raises(ValueError, match=message):
        compare.main(arguments)


HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    """The folder of a comparison of three arms; one's model and metric have hostile names."""
    root = tmp_path_factory.mktemp("written")

    def hostile(results, rows):
        results["model_name"] = HOSTILE
        results["results"]["piqa"]["<b onclick=alert(2)>,none"] = 1.0

    write(root / "hostile", 0.2, 5, ALL, hostile)
    for output in ("one", "two"):
        compare.main(
            [
                f"samples={{base: [{root}/hostile], tuned: [{folders}/tuned0],"
                f" other: [{folders}/tuned1]}}",
                f"output={root}/{output}",
            ]
        )
    return root


def test_the_same_samples_give_the_same_bytes(written):
    one, two = (
        {path.name: path.read_bytes() for path in Path(written / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two
    assert {"comparison.json", "report.html", "tests.csv", "items.csv", "left_out.csv"} <= set(one)
    assert json.loads(one["comparison.json"])["paired"] == {"tasks": 4, "items": 160}


def test_names_from_a_file_are_text_on_the_page(written):
    page = (written / "one" / "report.html").read_text()
    assert "onerror=alert(1)" in page
    assert "<img src=x" not in page
    assert "<b onclick" not in page


@pytest.mark.slow
@needs_browser
def test_every_column_is_seen_on_a_wide_screen(chromium, written):
    with opened(chromium, written / "one" / "report.html", 1440) as page:
        width = "element => [element.scrollWidth, element.clientWidth]"
        for table in ("tests", "left_out"):
            whole, shown = page.locator(f"#{table}").evaluate(width)
            assert whole <= shown, table
        assert page.locator("#tests th", has_text="Outcome").count() == 1
        page.locator("summary", has_text="Provenance").click()
        assert page.locator("#left_out").get_by_text("<b onclick=alert(2)>").count() == 1
        assert page.locator("#evaluations").get_by_text(HOSTILE).count() == 1
