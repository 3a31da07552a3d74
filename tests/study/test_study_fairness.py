"""A filter is judged on sources that its classifier does not know, or the page says otherwise."""

import dataclasses

import pytest
from sweeps import jobs_of
from tokens_scored import documents, make_corpus
from written_study import declare, write_study

from ablations.analyses.comparison import compare
from ablations.page.headline import headline
from ablations.reading import read_study
from ablations.study import preflight
from ablations.study.design import arms, fairness, held_out_groups
from ablations.study.design.jobs import declaration
from model.data import scored

SOURCES = ("web", "wiki", "books")

pytestmark = pytest.mark.usefixtures("hydra")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fair")
    corpus = make_corpus(folder, [documents(240, seed=0, sources=SOURCES)])
    corpus.manifest["learned"] = {"sources": ["wiki"], "shares": {}}
    return corpus


def checked(corpus, *overrides):
    jobs = jobs_of("data=filtered,unfiltered", "seed=1,2", f"corpus={corpus.folder}", *overrides)
    declared = declaration(jobs, preflight.groups_of(jobs[0].config, corpus))
    return declared, fairness.check(jobs, declared, corpus)


def test_the_verdict_is_about_unseen_sources_where_there_are_any(corpus):
    declared, known = checked(corpus, "unseen=[books]")
    assert declared.primary.endpoint == "heldout/unseen"
    assert not known
    kept = {"unseen": ["books"], "known": ["wiki"], "web": ["web"], "junk": ["junk_of_web"]}
    assert declared.heldout == kept


def test_a_study_of_a_filter_on_known_sources_is_refused_with_the_command_that_would_run(corpus):
    with pytest.raises(ValueError, match="heldout/known is not a fair endpoint") as refused:
        checked(corpus)
    said = str(refused.value)
    assert "unseen=[books]" in said
    assert "unseen=[wiki]" not in said
    assert "allow_known_sources=true" in said
    declared, known = checked(corpus, "allow_known_sources=true")
    assert (declared.primary.endpoint, known) == ("heldout/known", True)
    with pytest.raises(ValueError, match="heldout/web is not a fair endpoint"):
        checked(corpus, "unseen=[books]", "primary.endpoint=heldout/web")


def test_arms_that_no_score_chose_may_be_judged_on_any_source(corpus):
    common = ["seed=1,2", f"corpus={corpus.folder}", "primary.treatment=random", "data.alpha=1"]
    jobs = jobs_of("data=random,unfiltered", *common)
    declared = declaration(jobs, preflight.groups_of(jobs[0].config, corpus))
    assert not fairness.check(jobs, declared, corpus)
    jobs = jobs_of("experiment=experts", f"corpus={corpus.folder}")
    declared = declaration(jobs, preflight.groups_of(jobs[0].config, corpus))
    assert not fairness.check(jobs, declared, corpus)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (["unseen=[news]"], "no such source; it has books, web, wiki"),
        (["unseen=[web]"], "it was filtered"),
        (["unseen=[wiki]"], "trained on a source of that name"),
        (["unseen=[books]", "data.pool_shares=false"], "unfiltered seed 1 would train on books"),
        (["unseen=[books]", "+data.mixture={web: 1, wiki: 1, books: 1}"], "would train on books"),
    ],
)
def test_a_source_that_is_not_unseen_is_refused(corpus, override, said):
    with pytest.raises(ValueError, match=said.replace("unfiltered seed 1", ".*seed 1")):
        checked(corpus, *override)


def test_sources_of_every_classifier_are_known():
    rows = [("x", "positive"), ("y", "negative"), ("z", "graded")]
    cards = [{"documents": [{"source": s, "class": c}]} for s, c in rows]
    several = {"card": {}, "several": {str(k): {"card": card} for k, card in enumerate(cards)}}
    assert scored._classifier_sources(several) == ("x", "z")
    assert scored._classifier_sources({"card": cards[0]}) == ("x",)
    assert scored._classifier_sources({"card": {"kind": "fasttext"}}) is None


def test_documents_of_the_classifier_make_a_source_known(corpus):
    learned = {"sources": None, "shares": {"books": 0.03}}
    corpus.manifest["learned"], before = learned, corpus.manifest["learned"]
    try:
        with pytest.raises(ValueError, match=r"trained on 3\.0% of its documents"):
            checked(corpus, "unseen=[books]")
    finally:
        corpus.manifest["learned"] = before


def test_no_arm_reads_an_unseen_source(corpus):
    both = {name: corpus.arm(name) for name in ("filtered", "unfiltered")}
    weights, notes = arms.common_shares(corpus, both, ["books"])
    assert weights["books"] == 0
    assert min(weights["web"], weights["wiki"]) > 0
    assert notes == ["books is for evaluation only: no arm trains on it."]
    assert "unseen" not in held_out_groups.heldout_groups(corpus)


def test_the_page_says_first_that_the_endpoint_is_of_known_sources(tmp_path):
    write_study(str(tmp_path / "a"), -0.05)
    study = read_study(str(tmp_path / "a"))
    plain = headline(study, compare(study))
    known = dataclasses.replace(study, declared=declare(known=True))
    said = f"Judged on sources that the classifier may know: {plain}"
    assert headline(known, compare(known)) == said
