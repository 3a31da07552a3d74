"""Parts of a source by quality score, as components of a mixture."""

import itertools

import numpy as np
import pytest
from tokens_scored import documents, make_corpus

from model.data import components
from model.data.stream import TokenStream


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rows = documents(120, seed=3, sources=("web", "wiki", "web@home"))
    for row in rows[:30]:
        row["quality_score"] = 0.5  # ties
    return make_corpus(tmp_path_factory.mktemp("components"), [rows[:70], rows[70:]])


def test_parts_hold_their_share_of_tokens_and_better_ones_have_higher_scores(corpus):
    pool = np.flatnonzero(corpus.pool)
    names = ["web@0-25", "web@25-60", "web@60-100", "wiki", "web@home"]
    parts = components.split(corpus, pool, names)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == pool.tolist()
    for name in ("wiki", "web@home"):
        assert {corpus.sources[i] for i in corpus.source_index[parts[name]]} == {name}
    score, sizes = corpus.column("quality_score"), corpus.lengths + 1
    total = sum(sizes[parts[name]].sum() for name in names[:3])
    for name, share in zip(names[:3], (0.25, 0.35, 0.4), strict=True):
        assert abs(sizes[parts[name]].sum() - share * total) <= sizes.max()
    for lower, upper in itertools.pairwise(names[:3]):
        assert score[parts[lower]].max() <= score[parts[upper]].min()
    kept = np.flatnonzero(corpus.arm("filtered").mask)
    for name, of_arm in components.split(corpus, kept, names).items():
        assert of_arm.tolist() == np.intersect1d(parts[name], kept).tolist()


@pytest.mark.parametrize("parts", [("0-50",), ("0-50", "40-100"), ("0-50", "60-100"), ("10-100",)])
def test_parts_that_do_not_make_the_whole_are_refused(corpus, parts):
    with pytest.raises(ValueError, match="the parts of web must make 0 to 100, as web@0-50 and"):
        components.split(corpus, np.flatnonzero(corpus.pool), [f"web@{part}" for part in parts])


def test_a_stream_reads_parts_by_their_weights_and_counts_them_by_source(corpus):
    mixture = {"web@0-50": 0.1, "web@50-100": 0.6, "wiki": 0.3, "web@home": 0.0}
    stream = TokenStream(corpus, "unfiltered", 1, 16, 10, mixture)
    parts = components.split(corpus, np.flatnonzero(corpus.pool), mixture)
    read = {name: 40 * 10 * 16 * weight for name, weight in mixture.items()}
    counts = stream.consumed(40)
    assert counts.keys() == {"web", "wiki"}
    assert counts["web"]["targets"] == read["web@0-50"] + read["web@50-100"]
    whole = {name: int((corpus.lengths[of] + 1).sum()) for name, of in parts.items()}
    assert counts["web"]["epochs"] == read["web@50-100"] / whole["web@50-100"] > 1
    assert counts["web"]["unique_targets"] == sum(
        min(read[name], whole[name]) for name in ("web@0-50", "web@50-100")
    )
    assert stream.unique_targets == int(
        min(whole[name] / weight for name, weight in mixture.items() if weight)
    )
    with pytest.raises(ValueError, match="does not name web@home"):
        TokenStream(corpus, "unfiltered", 1, 16, 10, {"web": 1, "wiki": 1})
