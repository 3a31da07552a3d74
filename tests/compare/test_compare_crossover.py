"""Where one arm overtakes the other: against Fieller's closed form, a known truth, and in words."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from written_study import declare, write_run

from ablations.analyses.comparison import compare
from ablations.page.headline import reach
from ablations.reading import read_study
from ablations.stats.crossover import crossing
from ablations.study_files import results

X = np.array([1.0, 2.0, 4.0, 8.0])


def drawn(random, root, seeds=5, noise=0.03, slope=0.1):
    """Differences at each place and seed; a seed's luck is in all of its places too."""
    line = slope * (np.log(X) - np.log(root))[:, None]
    return line + noise * (random.normal(size=(1, seeds)) + random.normal(size=(len(X), seeds)))


def fieller(values, alpha=0.05):
    """Fieller's interval of the root of a line in log x, over each seed's own line."""
    slopes, levels = np.polyfit(np.log(X), values, 1)
    n = values.shape[1]
    t = stats.t.isf(alpha / 2, n - 1)
    (a, c), (_, b) = np.cov(levels, slopes) * t**2 / n
    level, slope = levels.mean(), slopes.mean()
    roots = np.roots([slope**2 - b, 2 * (level * slope - c), level**2 - a])
    return np.exp(-level / slope), np.sort(np.exp(roots.real)), slope**2 > b


def test_it_is_fiellers_interval():
    random = np.random.default_rng(0)
    for _ in range(5):
        values = drawn(random, 3.0, noise=0.015)
        found = crossing(X, values, [])
        at, bounds, bounded = fieller(values)
        assert bounded
        assert found.at == pytest.approx(at)
        assert [found.low, found.high] == pytest.approx(bounds, rel=2e-3)


def test_the_interval_covers_the_truth_and_documents_count():
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        found = crossing(X, drawn(random, 3.0, seeds=4), [])
        covered += found.possible and (found.low or 0) <= 3 <= (found.high or np.inf)
    assert covered / 40 > 0.9
    values = drawn(random, 3.0, noise=0.01)
    alone = crossing(X, values, [])
    moved = crossing(X, values, [np.tile(random.normal(size=(4, 1, 40)) / 300, (1, 5, 1))])
    assert moved.low < alone.low < alone.high < moved.high


def test_beyond_what_was_run_nothing_is_claimed():
    random = np.random.default_rng(2)
    never = crossing(X, drawn(random, 300.0, noise=0.01), [])
    assert (never.at, never.low, never.high, never.possible) == (None, None, None, False)
    near = crossing(X, drawn(random, 8.5, noise=0.03), [])
    assert near.possible
    assert near.low < 8
    assert near.high is None
    flat = crossing(X, drawn(random, 3.0, noise=0.03, slope=0.0), [])
    assert (flat.low, flat.high) == (None, None)


def test_a_bend_is_noticed_and_a_line_has_none():
    random = np.random.default_rng(3)
    line = drawn(random, 3.0, noise=0.005)
    assert not crossing(X, line, []).bends
    assert crossing(X, line + np.array([[0], [0.1], [0.1], [0]]), []).bends
    with pytest.raises(ValueError, match="two points and two seeds"):
        crossing(X, line[:, :1], [])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("crossover") / "study")
    primary = results.Primary("heldout/curated", "unfiltered", "filtered", 0.01)
    places = [1.0, 2.0, 8.0]
    names = [f"passes={n:.1f}" for n in places]
    declared = declare(seeds=[1, 2], variants=names, main=names[0], primary=primary)
    results.write_declaration(path, declared)
    for name, passes in zip(names, places, strict=True):
        for arm in declared.arms:
            for seed in declared.seeds:
                shift = 0.05 * np.log(passes / 3) if arm == "filtered" else 0.0
                shift = dict.fromkeys(("wiki", "books"), shift)
                write_run(path, arm, seed, shift, name, tasks=False, evaluations=1)
    return read_study(path)


def test_a_study_of_passes_says_who_overtakes_whom(study):
    result = compare(study)
    said = next(note for note in result.notes if "overtakes" in note)
    assert said.startswith("unfiltered overtakes filtered on curated text at ")
    at, low, high = (
        float(said.split(word)[1].split()[0].rstrip(").")) for word in (" at ", "interval ", " to ")
    )
    assert low < at < high
    assert low < 3 < high
    rows = result.tables["crossover"]
    assert [row["at"] for row in rows] == [1, 2, 8]
    assert [np.sign(row["difference"]) for row in rows] == [-1, -1, 1]
    assert "“Along the sweep” shows" in reach(study)


def test_without_a_change_of_sign_it_says_so_and_other_studies_say_nothing(study):
    kept = {
        key: run for key, run in study.runs.items() if key.variant in ("passes=1.0", "passes=2.0")
    }
    names = ["passes=1.0", "passes=2.0"]
    short = dataclasses.replace(
        study, declared=dataclasses.replace(study.declared, variants=names), runs=kept
    )
    said = next(note for note in compare(short).notes if "crossover" in note)
    assert said.startswith("No crossover on curated text from 1 to 2 passes: filtered is ahead")
    assert said.endswith("Nothing is known beyond the range that was run.")
    one = dataclasses.replace(study.declared, variants=names[:1])
    first = {key: run for key, run in kept.items() if key.variant == names[0]}
    plain = compare(dataclasses.replace(study, declared=one, runs=first))
    assert "crossover" not in plain.tables
