"""Likelihoods against a plain forward pass, beam search against one without cache or batches."""

import itertools

import numpy as np
import pytest
import torch

from ablations.evaluation.beam import Hypothesis, _Search, beam_search
from ablations.evaluation.token_model import TokenModel
from model.data import tokenizer
from model.glam.config import GLaMConfig
from model.glam.transformer import GLaM

TEXTS = ["the wind and the grain", "a grain of wind\nfell far", "über naïve grain, the winnow fell"]


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer.train(TEXTS * 20, 300, "<eos>"))
    return tokenizer.load(str(path), "<eos>")


@pytest.fixture(scope="module")
def model(codec):
    config = GLaMConfig(
        vocabulary=codec.vocabulary, layers=2, width=16, hidden=32, heads=2, head_width=8, experts=4
    )
    glam = GLaM(config, seed=3).eval()
    # Sharper than at initialisation, so that sequences differ in probability.
    with torch.no_grad():
        glam.embedding.weight.mul_(3)
    return glam


def token_model(model, codec, max_tokens=64, batch_tokens=512):
    return TokenModel(model, codec, max_tokens, batch_tokens)


def plain_logprob(model, context, continuation):
    """Sum and greediness by one forward pass over one row."""
    with torch.no_grad():
        logprob = model(torch.tensor([context + continuation]))[0].log_softmax(-1)
    total, greedy = 0.0, True
    for i, token in enumerate(continuation, len(context) - 1):
        total += float(logprob[i, token])
        greedy &= int(logprob[i].argmax()) == token
    return total, greedy


PAIRS = [
    ("the wind", " and the grain"),
    ("the wind ", "and"),
    ("", "grain"),
    ("a grain of wind\nfell", " far"),
    ("the", " naïve über 漢"),
    ("the wind", " and the grain"),
]


def test_loglikelihood_against_a_plain_forward_pass(model, codec):
    found = token_model(model, codec).loglikelihood(*zip(*PAIRS, strict=True))
    for i, (context, continuation) in enumerate(PAIRS):
        before = codec.encode([context.rstrip()])[0].tolist()
        whole = codec.encode([context + continuation])[0].tolist()
        assert whole[: len(before)] == before
        after = whole[len(before) :]
        total, greedy = plain_logprob(model, [codec.boundary_id, *before], after)
        assert found.logprob[i] == pytest.approx(total, abs=1e-4)
        assert found.greedy[i] == greedy
        assert found.tokens[i] == len(after)
        assert not found.truncated[i]


def test_batches_and_order_change_nothing(model, codec):
    whole = token_model(model, codec).loglikelihood(*zip(*PAIRS, strict=True))
    small = token_model(model, codec, batch_tokens=1).loglikelihood(*zip(*PAIRS[::-1], strict=True))
    np.testing.assert_allclose(small.logprob[::-1], whole.logprob, atol=1e-4)
    np.testing.assert_array_equal(small.tokens[::-1], whole.tokens)


def test_greedy_continuations_are_recognised(model, codec):
    asked = token_model(model, codec)
    pair = asked.pair("the", " wind")
    with torch.no_grad():
        first = int(model(torch.tensor([pair.context]))[0, -1].argmax())
        second = int(model(torch.tensor([[*pair.context, first]]))[0, -1].argmax())
    other = (second + 1) % codec.vocabulary
    rows = [pair._replace(continuation=[first, token]) for token in (second, other)]
    assert asked._score_all(rows)[1].tolist() == [True, False]


def test_probabilities_of_all_continuations_of_one_token_sum_to_one(model, codec):
    asked = token_model(model, codec)
    pair = asked.pair("the", " wind")
    rows = [pair._replace(continuation=[token]) for token in range(codec.vocabulary)]
    logprob, greedy = asked._score_all(rows)
    assert np.exp(logprob).sum() == pytest.approx(1, abs=1e-4)
    assert greedy.sum() == 1


def test_a_long_context_loses_its_start_and_says_so(model, codec):
    long = "the wind and the grain " * 20
    asked = token_model(model, codec, max_tokens=12)
    found = asked.loglikelihood([long + "the", "the"], [" wind", " wind"])
    assert found.truncated.tolist() == [True, False]
    tokens = codec.encode([long + "the wind"])[0].tolist()
    total, _ = plain_logprob(model, tokens[-13:-1], tokens[-1:])
    assert found.logprob[0] == pytest.approx(total, abs=1e-4)


def test_a_long_continuation_is_scored_whole_after_one_token(model, codec):
    context, continuation = "far", " the wind and the grain"
    asked = token_model(model, codec, max_tokens=2)
    found = asked.loglikelihood([context], [continuation])
    before, whole = (codec.encode([t])[0].tolist() for t in (context, context + continuation))
    after = whole[len(before) :]
    assert len(after) > 2
    total, _ = plain_logprob(model, whole[len(before) - 1 : len(before)], after)
    assert found.logprob[0] == pytest.approx(total, abs=1e-4)
    assert found.truncated[0]


def test_what_cannot_be_asked_is_refused(model, codec):
    with pytest.raises(ValueError, match="continuation"):
        token_model(model, codec).loglikelihood(["the"], [""])
    with pytest.raises(ValueError, match="no room"):
        token_model(model, codec, max_tokens=8).generate(["a"], stop=[], max_tokens=8, beams=1)


def test_whole_documents_in_windows(model, codec):
    asked = token_model(model, codec, max_tokens=5)
    found = asked.document_loglikelihood([*TEXTS, ""])
    for text, total in zip(TEXTS, found, strict=False):
        sequence = [codec.boundary_id, *codec.encode([text])[0].tolist()]
        expected = sum(
            plain_logprob(model, sequence[i : i + 1], sequence[i + 1 : i + 6])[0]
            for i in range(0, len(sequence) - 1, 5)
        )
        assert total == pytest.approx(expected, abs=1e-4)
    assert found[3] == 0


def plain_beam_search(model, prompt, beams, max_tokens, boundary, stops):
    """The same rule, a row at a time and without a cache."""
    live, finished = [(0.0, [])], []
    for _ in range(max_tokens):
        candidates = []
        for total, tokens in live:
            with torch.no_grad():
                logprob = model(torch.tensor([[*prompt, *tokens]]))[0, -1].log_softmax(-1)
            candidates += [(total + float(p), [*tokens, t]) for t, p in enumerate(logprob)]
        candidates.sort(key=lambda c: -c[0])
        live = []
        for total, tokens in candidates[: 2 * beams]:
            if tokens[-1] == boundary or stops(tokens):
                finished.append((total / ((5 + len(tokens)) / 6) ** 0.6, tokens))
            elif len(live) < beams:
                live.append((total, tokens))
    pool = finished or [(total / ((5 + len(t)) / 6) ** 0.6, t) for total, t in live]
    return max(pool, key=lambda c: c[0])


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_beam_search_against_a_plain_one(model, codec, beams):
    texts = ["the wind", "a grain of the wind and", "far"]
    prompts = [[codec.boundary_id, *codec.encode([t])[0].tolist()] for t in texts]
    # Frequent endings, so that hypotheses end at different lengths.
    ends = {t for t in range(codec.vocabulary) if t % 9 == 0}
    settings = {"beams": beams, "max_tokens": 6, "boundary": codec.boundary_id}
    settings["stops"] = lambda tokens: tokens[-1] in ends
    with torch.no_grad():
        found = beam_search(model, prompts, **settings)
    for prompt, hypothesis in zip(prompts, found, strict=True):
        score, tokens = plain_beam_search(model, prompt, **settings)
        assert hypothesis.score == pytest.approx(score, abs=1e-4)
        assert hypothesis.tokens == tokens


def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all(codec):
    config = GLaMConfig(vocabulary=8, layers=2, width=16, hidden=16, heads=2, head_width=8)
    small = GLaM(config, seed=1).eval()
    with torch.no_grad():
        small.embedding.weight.mul_(3)
        (found,) = beam_search(
            small, [[0, 5]], beams=64, max_tokens=3, boundary=0, stops=lambda tokens: False
        )
    candidates = []
    for length in (1, 2, 3):
        for body in itertools.product(range(1, 8), repeat=length - 1):
            total, _ = plain_logprob(small, [0, 5], [*body, 0])
            candidates.append((total / ((5 + length) / 6) ** 0.6, [*body, 0]))
    score, tokens = max(candidates)
    assert found.tokens == tokens
    assert found.score == pytest.approx(score, abs=1e-4)


def test_the_search_goes_on_while_a_longer_hypothesis_can_still_win():
    search = _Search(1, boundary=0, stops=lambda tokens: False)
    search.live = [(-2.0, [5, 5])]
    search.finished = [Hypothesis([0], -1.5)]
    assert not search.done(max_tokens=20)  # -2 over 25/6 to the 0.6 is -0.85
    assert search.done(max_tokens=3)  # over 8/6 to the 0.6 it is -1.68
    search.live = []
    assert search.done(max_tokens=20)


def test_generated_text_ends_before_the_stop(model, codec):
    asked = token_model(model, codec)
    contexts = ["the wind", "a grain of"]
    free = asked.generate(contexts, stop=["\0"], max_tokens=12, beams=1)
    for context, text in zip(contexts, free, strict=True):
        stop = text[3:5]
        (cut,) = asked.generate([context], stop=[stop, "\0"], max_tokens=12, beams=1)
        assert cut == text[: text.index(stop)]
