"""Arms from stored scores and draws: nested in alpha, equal in yield, blind to what is held out."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens_scored import documents, make_corpus

from ablations.study.design import arms
from ablations.study.design.config import DataChoice, DataRule


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("arms"), [documents(400, seed=0)])


def choice(rule, name=None, **parameters):
    about = {"name": rule, "arm": name or rule, "rule": DataRule(rule), "sequence_length": 16}
    return DataChoice(**about, **parameters)


def web_tokens(corpus, arm):
    return int((corpus.lengths[arm.mask & corpus.filterable] + 1).sum())


def test_pareto_keeps_by_the_published_rule_and_only_filters_filtered_sources(corpus):
    arm = arms.ensure(corpus, choice("pareto", alpha=3.0))
    score, draw = corpus.column("quality_score").astype(float), corpus.column("keep_draw")
    wanted = corpus.pool & (~corpus.filterable | (draw < (2 - score) ** -3.0))
    assert np.array_equal(arm.mask, wanted)
    assert 0 < web_tokens(corpus, arm) < (corpus.lengths + 1)[corpus.pool & corpus.filterable].sum()


def test_arms_are_nested_in_alpha(corpus):
    masks = [arms.ensure(corpus, choice("pareto", f"a{a}", alpha=a)).mask for a in (0.0, 1.0, 4.0)]
    assert np.array_equal(masks[0], corpus.pool)
    for loose, strict in itertools.pairwise(masks):
        assert not (strict & ~loose).any()
        assert strict.sum() < loose.sum()


@pytest.mark.parametrize("rule", ["threshold", "random"])
def test_the_controls_hold_as_many_tokens_as_pareto(corpus, rule):
    pareto = arms.ensure(corpus, choice("pareto", "p2", alpha=2.0))
    control = arms.ensure(corpus, choice(rule, f"{rule}_like", alpha=2.0))
    gap = abs(web_tokens(corpus, control) - web_tokens(corpus, pareto))
    assert gap <= corpus.lengths.max() + 1  # one document more or less
    assert not np.array_equal(control.mask, pareto.mask)


def test_the_threshold_takes_the_best_documents_and_random_ignores_the_score(corpus):
    among = corpus.pool & corpus.filterable
    score = corpus.column("quality_score")
    best = arms.ensure(corpus, choice("threshold", "best", alpha=2.0)).mask & among
    assert score[best].min() > score[among & ~best].max()
    chance = arms.ensure(corpus, choice("random", "chance", alpha=2.0)).mask & among
    draw = corpus.column("keep_draw")
    assert draw[chance].max() < draw[among & ~chance].min()


def test_a_given_parameter_needs_no_alpha(corpus):
    rule = arms.find_rule(corpus, choice("random", rate=0.25))
    assert (rule.name, rule.parameter) == ("random", 0.25)
    rule = arms.find_rule(corpus, choice("threshold", threshold=0.5))
    assert (rule.name, rule.parameter) == ("threshold", 0.5)


@pytest.mark.parametrize("rule", ["pareto", "threshold", "random"])
def test_a_rule_without_any_parameter_is_refused(corpus, rule):
    with pytest.raises(ValueError, match=r"data\.alpha"):
        arms.find_rule(corpus, choice(rule))


def test_stored_arms_must_be_there(corpus):
    assert arms.ensure(corpus, choice("stored", "filtered")).name == "filtered"
    with pytest.raises(ValueError, match="no arm 'other'"):
        arms.ensure(corpus, choice("stored", "other"))


def test_an_arm_of_the_same_name_with_another_rule_is_refused(corpus):
    arms.ensure(corpus, choice("pareto", "mine", alpha=1.0))
    with pytest.raises(ValueError, match="another arm 'mine'"):
        arms.ensure(corpus, choice("pareto", "mine", alpha=2.0))


def test_without_a_filtered_source_there_is_nothing_to_choose(tmp_path):
    only_wiki = make_corpus(tmp_path, [documents(60, sources=("wiki",))])
    with pytest.raises(ValueError, match="no documents of a filtered source"):
        arms.find_rule(only_wiki, choice("random", alpha=1.0))


def test_pool_shares_are_the_parts_of_all_tokens(corpus):
    shares = arms.pool_shares(corpus)
    counts = corpus.lengths + 1
    for source, share in shares.items():
        ours = corpus.pool & (corpus.source_index == corpus.sources.index(source))
        assert share == pytest.approx(counts[ours].sum() / counts[corpus.pool].sum(), abs=1e-6)


def test_junk_is_the_lowest_part(corpus):
    held = corpus.held_out & corpus.filterable
    junk = arms.lowest(corpus, held, 0.2)
    score = corpus.column("quality_score")
    assert 0.1 <= junk.sum() / held.sum() <= 0.35
    assert score[junk].max() < score[held & ~junk].min()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.integers(1, 50)), min_size=1, unique_by=lambda x: x[0]
    ),
    st.integers(0, 600),
)
def test_the_rate_is_the_best_there_is(rows, goal):
    draw = np.array([row[0] for row in rows]) / 1001
    tokens = np.array([row[1] for row in rows])
    rate = arms.rate_for(draw, tokens, goal)
    found = abs(int(tokens[draw < rate].sum()) - goal)
    best = min(abs(int(tokens[draw < r].sum()) - goal) for r in [*draw, 1.0])
    assert found == best
