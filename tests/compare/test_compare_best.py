"""Each arm at its best: the choice, what it does to an interval, and where a page says so.

Simulations have a known truth, and fixed seeds: nothing here is a matter of luck.
"""

import numpy as np
import pyarrow as pa
import pytest
from written_study import declare, write_run

from ablations import report
from ablations.analyses.comparison import compare
from ablations.contrasts import variant_selection
from ablations.contrasts.pairing import between
from ablations.page.headline import headline
from ablations.reading import read_declaration, read_study
from ablations.stats import candidates
from ablations.stats.candidates import difference_of_bests, first_and_possible
from ablations.stats.inference import estimate, over_seeds
from ablations.study_files import results
from ablations.study_files.variant_choice import Choice, Compare
from model.training.outcome import HELDOUT_SCHEMA

ALPHA = 0.05
RATES = {"lr1": 0.003, "lr2": 0.01, "lr3": 0.03}


def runs(random, seeds, levels):
    """Runs of one arm at each candidate, on the text that chooses and on the endpoint's.

    Both are of the same model, so the luck of its training is in both.
    """
    of_run = np.asarray(levels) + random.normal(size=(seeds, len(levels)))
    return [of_run + 0.3 * random.normal(size=of_run.shape) for _ in range(2)]


def naive(arms):
    """The interval that forgets the choice: Student's at the candidates that look best."""
    ours, theirs = [end[:, choice.mean(axis=0).argmax()] for choice, end in arms]
    of = over_seeds(ours - theirs, ALPHA)
    return of.low, of.high


def honest(arms):
    possible = [first_and_possible(choice, ALPHA * candidates.SPENT / 2) for choice, _ in arms]
    ends = [end for _, end in arms]
    pairs = [[(ends[0][:, k] - ends[1][:, j], []) for j in possible[1]] for k in possible[0]]
    of = difference_of_bests(pairs, ALPHA, 1)
    assert (of.p < ALPHA) == (of.low > 0 or of.high < 0)
    return of.low, of.high


@pytest.mark.parametrize(
    ("seeds", "ours", "theirs"),
    [
        (3, [0, 0, 0, 0], [0, -6, -6, -6]),
        (5, [0] * 8, [0, 0]),
        (5, [0, -0.7, -0.7, -6], [0, -8, -8, -8]),
        (3, [0, -20, -20], [0, -20, -20]),
    ],
)
def test_the_best_of_several_makes_no_false_verdict(seeds, ours, theirs):
    # The bests are equal, so each interval without 0 is a false verdict.
    random = np.random.default_rng(1)
    arms = [[runs(random, seeds, of) for of in (ours, theirs)] for _ in range(150)]
    false = sum(low > 0 or high < 0 for low, high in map(honest, arms)) / len(arms)
    assert false <= ALPHA


def test_an_interval_that_forgets_the_choice_finds_what_is_not_there():
    random = np.random.default_rng(2)
    arms = [[runs(random, 12, of) for of in ([0.0] * 30, [0.0])] for _ in range(150)]
    false = [
        np.mean([low > 0 or high < 0 for low, high in map(how, arms)]) for how in (naive, honest)
    ]
    assert false[0] > 0.15
    assert false[1] <= ALPHA


def test_a_choice_that_is_clear_costs_little():
    random = np.random.default_rng(3)
    widths = []
    for _ in range(50):
        arms = [runs(random, 5, [0, -20, -20]) for _ in range(2)]
        widths.append([np.subtract(*how(arms)) for how in (honest, naive)])
    honest_width, naive_width = np.mean(widths, axis=0)
    assert 1 < honest_width / naive_width < 1.1


def test_the_true_best_is_seldom_left_out_and_what_is_clearly_worse_is():
    random = np.random.default_rng(4)
    found = [
        first_and_possible(runs(random, 4, [0, 0, -0.5, -15])[0], 0.05, [0.0] * 4)
        for _ in range(300)
    ]
    assert np.mean([0 in of for of in found]) > 0.95
    assert not any(3 in of for of in found)
    # What other documents might change counts too, and one seed excludes nothing.
    values = runs(random, 4, [0, -15])[0]
    assert first_and_possible(values, 0.05) == [0]
    assert first_and_possible(values, 0.05, [0.0, 20.0]) == [0, 1]
    assert first_and_possible(values[:1], 0.05) == [0, 1]


def test_less_is_better_where_it_is_and_another_endpoint_has_the_outermost_bounds():
    random = np.random.default_rng(5)
    pairs = [
        [(random.normal(size=4), [random.normal(size=(4, 9)) / 30]) for _ in range(2)]
        for _ in range(3)
    ]
    flipped = [[(-values, [-of for of in moves]) for values, moves in row] for row in pairs]
    of, mirrored = difference_of_bests(pairs, ALPHA, 1), difference_of_bests(flipped, ALPHA, -1)
    assert (of.low, of.high) == pytest.approx((-mirrored.high, -mirrored.low))
    assert of.p == pytest.approx(mirrored.p)
    outer = difference_of_bests(pairs, ALPHA, None)
    each = [estimate(*pair, ALPHA * 0.8) for row in pairs for pair in row]
    assert (outer.low, outer.high) == (min(e.low for e in each), max(e.high for e in each))
    assert outer.value == of.value == each[0].value


def test_documents_that_choose_are_apart_and_the_same_in_every_run():
    names = [f"d{i}" for i in range(40)]
    sizes = [1000 + i for i in range(38)] + [1000, 1001]  # the last two are copies of the first
    table = pa.table(
        [["a"] * 20 + ["b"] * 17 + ["c"] * 3, names, [2.0 * n for n in sizes], sizes],
        schema=HELDOUT_SCHEMA,
    )
    chosen = variant_selection.selection(table, ["a", "c"], 0.25)
    assert chosen[:20].sum() == 5
    assert not chosen[20:].any()  # b does not choose, and c has too few
    same = table.take([*range(39, -1, -1)])
    assert variant_selection.selection(same, ["a", "c"], 0.25)[::-1].tolist() == chosen.tolist()
    copies = table.set_column(0, HELDOUT_SCHEMA.field(0), [["a"] * 40])
    sides = variant_selection.selection(copies, ["a"], 0.5)
    assert (sides[0], sides[1]) == (sides[38], sides[39])
    with pytest.raises(ValueError, match="hold out more"):
        variant_selection.selection(table, ["c"], 0.25)


def gains(arm, rate):
    """Unfiltered text is best at 0.03, filtered at 0.01, and unfiltered is then better by 0.05."""
    return {"unfiltered": {0.03: -0.15}, "filtered": {0.01: -0.1}}[arm].get(rate, 0.0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("best") / "study")
    declared = declare(
        seeds=[1, 2, 3],
        variants=list(RATES),
        main="lr2",
        compare=Compare("best", 0.25),
        unigram=dict.fromkeys(("wiki", "books", "web"), 3.0),
    )
    results.write_declaration(path, declared)
    for variant, rate in RATES.items():
        for arm in declared.arms:
            for seed in declared.seeds:
                shift = dict.fromkeys(("wiki", "books"), gains(arm, rate))
                write_run(path, arm, seed, shift, variant, tasks=False, learning_rate=rate)
    return path


def test_a_study_compares_each_arm_at_its_best(written):
    study = read_study(written)
    assert read_declaration(written).compare == Compare("best", 0.25)
    chosen = variant_selection.choose(study)
    assert chosen.chosen.choices == {
        "unfiltered": Choice("lr3", ["lr3"], 3),
        "filtered": Choice("lr2", ["lr2"], 3),
    }
    # Values by a plain reference: means over sources and seeds of the documents that choose.
    run = next(iter(study.runs.values()))
    rows = variant_selection.selection(run.heldout, ["wiki", "books"], 0.25)
    row = next(r for r in chosen.chosen.rows if r["best"] and r["arm"] == "filtered")
    values = []
    for one in study.seeds("filtered", "lr2").values():
        names, bits, sizes = (np.array(one.heldout[k]) for k in ("source", "bits", "bytes"))
        of = [(names == source) & rows for source in ("wiki", "books")]
        values += [bits[mask].sum() / sizes[mask].sum() for mask in of]
    assert row["value"] == pytest.approx(np.mean(values))
    ends = {k: r.heldout for k, r in chosen.runs.items() if k.variant == "lr1"}
    assert all(
        of.equals(study.runs[key].heldout.filter(pa.array(~rows))) for key, of in ends.items()
    )
    # At the main variant filtered is better by 0.1; at its best unfiltered is, by 0.05.
    result = compare(study)
    assert result.verdict.outcome == "worse"
    assert result.primary["low"] < 0.05 < result.primary["high"]
    assert between(study, "filtered", "unfiltered").estimate.value == pytest.approx(-0.1, abs=0.02)
    assert result.primary["value"] == next(
        r["difference"]
        for r in result.tables["heldout"]
        if (r["arm"], r["endpoint"]) == ("filtered", "heldout/curated")
    )


def test_the_page_says_so_in_its_first_sentence_and_warns_of_the_end_of_the_grid(written):
    study = read_study(written)
    data = report.gather(written, study, None)
    assert data["headline"].startswith(
        "Each arm at its best of 3 learning rates: filtered is worse than unfiltered: "
    )
    assert "unfiltered: the best lies at the edge" in data["next"]
    notes = " ".join(data["notes"])
    assert "The best learning rate of unfiltered, 0.03, is the highest that was tried" in notes
    assert "learning rate of filtered" not in notes
    panel = next(p for p in data["panels"] if p["name"] == "learning_rates")
    assert [row[-1] for row in panel["rows"]] == ["", "", "best", "", "best", ""]
    with pytest.raises(ValueError, match="leave learning_rate"):
        report.gather(written, study, study)


def test_without_every_run_there_is_no_verdict(written):
    study = read_study(written)
    lost = results.JobKey("filtered", "lr1", 2)
    runs = {key: run for key, run in study.runs.items() if key != lost}
    short = results.Study(study.declared, runs, {}, [], [lost])
    result = compare(short)
    assert result.verdict.outcome == "interim"
    said = headline(variant_selection.choose(short), result)
    assert said.startswith("Each arm at its best of 3 learning rates: interim, no verdict: 2 of 3")
    assert "Seeds [2] of filtered lack a setting" not in result.verdict.sentence
    assert any("lack a setting" in note for note in result.notes)


def test_at_the_lowest_learning_rate_as_a_proxy(written):
    study = read_study(written)
    declared = declare(**{**vars(study.declared), "compare": Compare("lowest")})
    study = results.Study(declared, study.runs, {}, [], [])
    chosen = variant_selection.choose(study)
    assert chosen.variant_of("filtered") == chosen.variant_of("unfiltered") == "lr1"
    data = report.gather(written, study, None)
    assert data["headline"].startswith("At the lowest of 3 learning rates, as a proxy for tuned")
    plain = between(study, "filtered", "unfiltered")
    assert data["primary"]["value"] != plain.estimate.value
    assert any("At the next learning rate, 0.01, the difference has" in n for n in data["notes"])
    one = {key: run for key, run in study.runs.items() if key.variant == "lr1"}
    with pytest.raises(ValueError, match="needs several"):
        variant_selection.choose(results.Study(declared, one, {}, [], []))


def test_what_is_declared_is_checked():
    with pytest.raises(ValueError, match="choose main, best or lowest"):
        Compare("worst")
    with pytest.raises(ValueError, match="share of documents"):
        Compare("best", 1.0)
