"""Decision accuracy and signal to noise: by counting, by closed forms, by simulated truth."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from study_run import ARMS, EFFECTS, declare, write_study

from ablations import compare as command
from ablations.analyses import proxy_metrics
from ablations.analyses.comparison import compare
from ablations.reading import read_study
from ablations.stats import decisions
from ablations.study import forecast
from ablations.study_files import results

SIZES = ["small", "medium", "large"]


def runs(means, seeds, random, seed_sd=1.0, noise=1.0):
    """[seeds, arms]; what a seed adds to all arms is in it too."""
    shape = seeds, len(means)
    return means + seed_sd * random.normal(size=(seeds, 1)) + noise * random.normal(size=shape)


def test_noise_is_half_the_variance_of_paired_differences():
    values = runs(np.arange(5.0), 4, np.random.default_rng(0))
    gaps = [values[:, a] - values[:, b] for a, b in combinations(range(5), 2)]
    of = decisions.scores(values)
    assert of.noise**2 == pytest.approx(np.mean([gap.var(ddof=1) for gap in gaps]) / 2)
    shifted = decisions.scores(values + np.array([[9.0], [2], [-3], [0]]))
    assert shifted.noise == pytest.approx(of.noise)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_two_arms_are_clear_where_the_paired_t_test_rejects(alpha):
    random = np.random.default_rng(1)
    for effect in np.linspace(0, 4, 25):
        values = runs(np.array([0.0, effect]), 3, random)
        of = decisions.scores(values)
        p = stats.ttest_rel(values[:, 0], values[:, 1]).pvalue
        assert (abs(of.means[0] - of.means[1]) > of.least_clear(alpha)) == (p < alpha)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=2, max_size=7))
def test_decisions_against_counting(values):
    sizes = np.array(values, float).T
    found = decisions.decide([decisions.scores(size[None]) for size in sizes])
    kept = total = 0
    for small, large in ((sizes[0], sizes[1]), (sizes[1], sizes[2])):
        for a in range(len(values)):
            for b in range(a):
                total += 1
                kept += bool((small[a] < small[b] and large[a] < large[b])
                             or (small[a] > small[b] and large[a] > large[b]))  # fmt: skip
    assert (found.kept, found.pairs) == (kept, total)
    # One seed each: nothing is clear.
    assert (found.low, found.high) == (0, 1)


@pytest.mark.parametrize(
    ("arms", "seeds", "spread"), [(2, 3, 1.0), (4, 3, 2.0), (4, 5, 1.0), (8, 3, 1.0)]
)
def test_the_interval_holds_the_true_accuracy(arms, seeds, spread):
    random, held, repetitions = np.random.default_rng(arms + seeds), 0, 250
    for _ in range(repetitions):
        truth = spread * random.normal(size=(2, arms))
        sizes = [decisions.scores(runs(means, seeds, random)) for means in truth]
        true = decisions.decide([decisions.scores(means[None]) for means in truth]).accuracy
        found = decisions.decide(sizes)
        held += found.low <= true <= found.high
        assert found.low <= found.accuracy <= found.high
    assert held / repetitions >= 0.95


def test_what_is_clear_leaves_no_interval():
    random = np.random.default_rng(2)
    truth = np.array([[0.0, 1, 2, 3], [0, 1, 3, 2]])
    sizes = [decisions.scores(runs(means, 5, random, noise=0.01)) for means in truth]
    found = decisions.decide(sizes)
    assert (found.low, found.accuracy, found.high) == (5 / 6, 5 / 6, 5 / 6)


def test_equal_arms_exceed_the_ratio_by_chance_in_a_share_alpha():
    random, alpha = np.random.default_rng(3), 0.2
    found = [decisions.signal_to_noise(decisions.scores(runs(np.full(4, 9.0), 3, random)), alpha)
             for _ in range(2000)]  # fmt: skip
    assert np.mean([of.ratio > of.by_chance for of in found]) == pytest.approx(alpha, abs=0.03)


def test_signal_and_noise_are_shares_of_the_mean_and_their_ratio_is_of_no_unit():
    values = runs(np.array([10.0, 11, 13]), 4, np.random.default_rng(4), noise=0.1)
    one, scaled = (decisions.signal_to_noise(decisions.scores(k * values)) for k in (1.0, -50.0))
    assert one.signal == pytest.approx(np.ptp(values.mean(axis=0)) / values.mean())
    assert one.ratio == pytest.approx(one.signal / one.noise)
    assert vars(scaled) == pytest.approx(vars(one))
    rounded = np.array([[0.1 + 0.2, 0.3], [0.3, 0.3], [0.3, 0.1 + 0.2]])
    for unknown in (values[:1], values[:, :1], np.zeros((3, 2)), rounded):
        assert decisions.signal_to_noise(decisions.scores(unknown)) is None


def test_sizes_of_other_arms_are_refused():
    two, three = (decisions.scores(np.ones((1, arms))) for arms in (2, 3))
    for sizes in ([two], [two, three], [decisions.scores(np.ones((1, 1)))] * 2):
        with pytest.raises(ValueError, match="at least two sizes"):
            decisions.decide(sizes)


def ladder(path, arms=ARMS, seeds=(1, 2, 3), skip=(), **changes):
    declared = declare(arms=arms, seeds=list(seeds), variants=SIZES, main="large")
    return read_study(write_study(path, declared, skip, routers=False, **changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("ladder") / "s")


@pytest.fixture(scope="module")
def study(folder):
    return ladder(folder)


def test_a_ladder_of_four_arms(study):
    found = compare(study)
    rows = found.tables["orders"]
    steps = [
        ("small", "medium"),
        ("small", "large"),
        ("medium", "large"),
        ("each size", "the next"),
    ]
    assert [(row["variant"], row["target"]) for row in rows] == steps
    assert [row["decision_of"] for row in rows] == [6, 6, 6, 12]
    # unfiltered and random lie 0.004 apart, all others by 0.01 at least.
    assert all(row["decision_low"] >= 0.5 for row in rows[:3])
    assert all(row["decision_high"] == 1 for row in rows)
    assert (found.signs.kept, found.signs.sizes, found.signs.clear) == (3, 3, 3)
    assert "Sign kept at 3 of 3 sizes" in command.render(study, found)


def test_metrics_are_ordered_by_signal_to_noise(study):
    rows = [row for row in compare(study).tables["proxies"] if row["variant"] == "small"]
    assert [row["ratio"] for row in rows] == sorted((row["ratio"] for row in rows), reverse=True)
    by_name = {row["endpoint"]: row for row in rows}
    gaps = []
    for arm in ARMS:
        values = [study.seeds(arm, "small")[seed].result.heldout["web"] for seed in (1, 2, 3)]
        gaps.append(np.mean(values))
    web = by_name["heldout/web"]
    assert web["signal"] == pytest.approx(np.ptp(gaps) / np.mean(gaps))
    assert web["kind"] == "loss on text"
    # All arms were made to answer alike: there is no noise, and no row.
    assert "task/piqa/gold_bits_per_byte/0" not in by_name
    assert proxy_metrics.kind("task/piqa/gold_bits_per_byte/0") == "loss of right answers"
    assert by_name["task/piqa/accuracy/0"]["kind"] == "score"
    # Web text gets worse where curated text gets better: the order of the arms turns.
    assert web["own_right"] == 6
    assert web["primary_right"] <= 1
    assert by_name["heldout/curated"]["primary_right"] == by_name["heldout/curated"]["own_right"]


@pytest.mark.parametrize(
    ("changes", "orders", "metrics"),
    [
        ({"arms": ARMS[:2]}, [1, 1, 1, 2], True),
        ({"seeds": [1]}, [6, 6, 6, 12], False),
        ({"skip": [("random", "medium", seed) for seed in (1, 2, 3)]}, [3, 6, 3, 6], True),
        ({"skip": [(arm, size, s) for arm in ARMS for size in SIZES[:2] for s in (1, 2, 3)]},
         [], True),
    ],
)  # fmt: skip
def test_less_than_a_whole_ladder(tmp_path, changes, orders, metrics):
    found = compare(ladder(tmp_path / "s", tasks=False, evaluations=0, **changes))
    assert [row["decision_of"] for row in found.tables["orders"]] == orders
    assert bool(found.tables["proxies"]) == metrics
    assert (found.signs is None) == (not orders)
    if changes.get("seeds") == [1]:
        rows = found.tables["orders"]
        assert {(row["decision_low"], row["decision_high"]) for row in rows} == {(0, 1)}
        assert found.signs.clear is None
        assert "one seed cannot say" in found.signs.sentence


def test_a_sign_that_turns_is_counted(tmp_path, monkeypatch):
    path = tmp_path / "s"
    declared = declare(arms=ARMS[:2], variants=SIZES, main="large")
    write_study(path, declared, routers=False, tasks=False)
    monkeypatch.setitem(EFFECTS, "filtered", 0.05)
    results_of_small = declare(arms=ARMS[:2], variants=["small"], main="small")
    write_study(path, results_of_small, routers=False, tasks=False)
    results.write_declaration(str(path), declared)
    found = compare(read_study(str(path)))
    assert (found.signs.kept, found.signs.sizes) == (2, 3)
    assert [row["decision_right"] for row in found.tables["orders"]] == [0, 0, 1, 1]


def plan(pilot, flops, seeds=(1, 2, 3, 4, 5)):
    declared = declare(seeds=list(seeds))
    noise = SimpleNamespace(pilot=pilot, seed_sd=0.005, item_error=0.002)
    primary = SimpleNamespace(endpoint=None, treatment="filtered", baseline="unfiltered")
    config = SimpleNamespace(noise=noise, primary=primary)
    return "\n".join(forecast.forecast(config, declared, flops))


def test_a_plan_says_what_a_ladder_lets_it_expect(study, folder):
    said = plan(folder, [1e13])
    assert "filtered against unfiltered has the same sign at 3 of 3 sizes" in said
    row = compare(study).tables["orders"][-1]
    assert f"{row['decision_right']} of 12 pairs of arms" in said
    assert f"interval {row['decision_low']:.0%} to 100%" in said
    assert "0.2 times the compute of the largest there." in said
    assert "Expected verdict: 100% better, 0% worse, 0% neither" in said
    # A step there is 4 times the compute.
    assert "less certain" not in plan(folder, [1.9e14])
    assert "a longer step than any there (at most 4 times): less certain." in plan(folder, [2.1e14])
    assert "Expected" not in plan(folder, [1e13], seeds=[1])


def test_a_plan_says_when_there_is_no_forecast(tmp_path):
    assert "no forecast of whether the verdict holds" in plan(None, [1e13])
    assert "The 3 sizes of this study will show it" in plan(None, [1e13, 1e14, 1e15])
    path = write_study(tmp_path / "s", declare(arms=ARMS[:2]), tasks=False, routers=False)
    said = plan(path, [1e13])
    assert f"since {path} ran one size" in said
    assert "Expected verdict: 100% better" in said
