"""Random halves, less text, shuffled words; and the checks that a calibration makes of them."""

import itertools

import numpy as np
import pytest
from tokens_scored import documents, make_corpus
from written_study import declare, write_run

from ablations.analyses import calibration
from ablations.analyses.comparison import compare
from ablations.page.headline import headline, next_step, reach
from ablations.reading import read_study
from ablations.stats import inference
from ablations.stats.inference import Stratum
from ablations.study import preflight
from ablations.study.design import arms
from ablations.study.design.config import DataChoice, DataRule
from ablations.study_files import results
from model.data import tokenizer
from model.data.controls import Controls, Damage, shuffled_words, word_starts
from model.data.stream import TokenStream


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("controls"), [documents(300, seed=0)])


@pytest.fixture(scope="module")
def pool(corpus):
    return np.flatnonzero(corpus.pool)


def test_the_halves_of_a_seed_are_the_pool_and_share_nothing(corpus, pool):
    halves = [[Controls(half).documents(corpus, pool, seed) for half in (0, 1)] for seed in (1, 2)]
    for first, second in halves:
        assert sorted([*first, *second]) == pool.tolist()
        assert abs(len(first) - len(second)) <= 1
    assert halves[0][0].tolist() != halves[1][0].tolist()
    for half in (0, 1):
        assert Controls(half).documents(corpus, pool[:1], 1).tolist() == [pool[0]]


def test_less_text_is_as_much_as_asked_for_and_nested_in_the_passes(corpus, pool):
    total = int((corpus.lengths[pool] + 1).sum())
    longest = int(corpus.lengths[pool].max()) + 1
    read = [Controls(unique_tokens=total // n).documents(corpus, pool, 3) for n in (1, 2, 4)]
    for n, chosen in zip((1, 2, 4), read, strict=True):
        assert 0 <= (corpus.lengths[chosen] + 1).sum() - total // n < longest
    assert set(read[2].tolist()) < set(read[1].tolist()) < set(read[0].tolist())
    with pytest.raises(ValueError, match=rf"train\.tokens={total:_}\)"):
        Controls(unique_tokens=2 * total).documents(corpus, pool, 3)


def test_a_small_pool_is_the_same_for_every_arm_and_a_filter_leaves_less_of_it(corpus, pool):
    one = pool[corpus.source_index[pool] == corpus.source_index[pool[0]]]
    total = int((corpus.lengths[one] + 1).sum())
    filtered = one[::3]
    for parts in (1, 2, 4):
        control = Controls(pool_tokens=total // parts)
        whole = control.documents(corpus, one, 3)
        assert abs((corpus.lengths[whole] + 1).sum() - total / parts) <= corpus.lengths.max() + 2
        left = control.documents(corpus, filtered, 3)
        assert set(left.tolist()) == set(whole.tolist()) & set(filtered.tolist())
        if parts > 1:
            assert control.documents(corpus, one, 4).tolist() != whole.tolist()
    assert Controls.of({"controls": control.to_json()}) == control
    assert "pool_tokens" not in Controls(half=1).to_json()
    with pytest.raises(ValueError, match=rf"train\.tokens={total:_}\)"):
        Controls(pool_tokens=2 * total).documents(corpus, one, 3)
    tiny = Controls(pool_tokens=1)
    with pytest.raises(ValueError, match="take fewer passes"):
        tiny.documents(corpus, np.setdiff1d(one, tiny.documents(corpus, one, 3)), 3)


def test_shares_with_shuffled_words_are_nested_and_as_large_as_they_say(corpus, pool):
    controls = [Controls(shuffled=share) for share in (0.05, 0.2, 0.5, 1)]
    chosen = [np.isin(pool, Damage.of(c, corpus, pool, 1).documents) for c in controls]
    assert chosen[3].all()
    for less, more in itertools.pairwise(chosen):
        assert not (less & ~more).any()
    assert chosen[2].mean() == pytest.approx(0.5, abs=3 * 0.5 / len(pool) ** 0.5)


def test_shuffling_keeps_every_word_and_moves_them(corpus, pool):
    codec = tokenizer.load(corpus.tokenizer_path, "<eos>")
    starts = word_starts(corpus.tokenizer_path, corpus.vocabulary)
    moved = 0
    for document in pool[corpus.lengths[pool] > 20][:40].tolist():
        tokens = corpus.tokens(document)
        mixed = shuffled_words(tokens, starts, (1, document))
        assert sorted(mixed) == sorted(tokens)
        # With a space before the first word, no words can be glued together.
        before, after = (codec.decode(t.tolist()) for t in (tokens, mixed))
        first = before.split()[0]
        words = after.split()
        glued = [word for word in words if word not in before.split()]
        assert len(glued) <= 1
        assert all(word.endswith(first) for word in glued)
        moved += words != before.split()
        assert np.array_equal(mixed, shuffled_words(tokens, starts, (1, document)))
    assert moved == 40


def test_a_stream_differs_from_the_intact_one_in_the_damaged_documents_alone(corpus):
    streams = []
    for share in (0.0, 0.3):
        about = {"name": "half", "arm": f"half_{share}", "rule": DataRule.all}
        choice = DataChoice(**about, sequence_length=16, half=0, shuffled=share)
        arm = arms.ensure(corpus, choice)
        assert Controls.of(corpus.arm(arm.name).about) == Controls(0, None, share)
        streams.append(TokenStream(corpus, arm.name, 5, 16, 4))
    intact, damaged = streams
    assert intact.fingerprint != damaged.fingerprint
    read = Controls(0).documents(corpus, np.flatnonzero(corpus.pool), 5)
    broken = set(Damage.of(Controls(0, None, 0.3), corpus, read, 5).documents.tolist())
    order = intact._sequences[0].epoch(0).documents
    starts, changed = word_starts(corpus.tokenizer_path, corpus.vocabulary), 0
    for step in range(12):
        ours, theirs = intact.batch(step), damaged.batch(step)
        assert ours.segments.equal(theirs.segments)
        changed += int((ours.tokens != theirs.tokens).sum())
    flat = np.concatenate([damaged.batch(step).tokens.numpy().ravel() for step in range(12)])
    wanted = []
    for document in order.tolist():
        tokens = corpus.tokens(document)
        if document in broken:
            tokens = shuffled_words(tokens, starts, (5, int(corpus.id_hash[document])))
        wanted += [corpus.boundary_id, *tokens.tolist()]
    assert np.array_equal(flat, wanted[: len(flat)])
    assert changed > 0
    texts, plain = (set(stream.texts(12).tolist()) for stream in (damaged, intact))
    assert {t % len(corpus) for t in texts} == plain
    assert {t % len(corpus) for t in texts - plain} == broken & plain


def test_false_alarms_are_counted_over_every_way_to_swap_the_halves():
    random = np.random.default_rng(4)
    size = random.integers(100, 200, 30).astype(float)

    def sample():
        return [Stratum("s", 1.0, size * random.normal(1, 0.1, 30), size)]

    ours, theirs = ([sample() for _ in range(5)] for _ in range(2))
    share, ways = calibration.false_alarms(ours, theirs, 0.3)
    assert ways == 16
    claimed = 0
    for swap in itertools.product([False, True], repeat=4):
        pairs = [
            (b, a) if s else (a, b) for a, b, s in zip(ours, theirs, [False, *swap], strict=True)
        ]
        claimed += inference.difference(*map(list, zip(*pairs, strict=True)), 0.3).p < 0.3
    assert share == claimed / 16
    assert 0 < claimed < 16


@pytest.mark.parametrize(
    ("effect", "other", "sound", "said"),
    [
        (0.1, 0.0, True, "Calibrated: "),
        (0.0, 0.0, False, "Blind at this size: "),
        (0.1, 0.05, False, "A false alarm: "),
    ],
)
def test_a_calibration_says_whether_the_instrument_works(tmp_path, effect, other, sound, said):
    # The noise of these runs depends on the seed and on the length of their arm's name.
    names = ["shuffled=0", "another", "shuffled=0.2", "shuffled=0.50"]
    primary = results.Primary("heldout/curated", names[0], names[3], 0.01, control="another")
    declared = declare(arms=names, primary=primary)
    results.write_declaration(str(tmp_path), declared)
    for arm, dose in zip(names, (0, 0, 0.2, 0.5), strict=True):
        shift = effect * dose + (other if arm == "another" else 0)
        for seed in declared.seeds:
            shifts = dict.fromkeys(("wiki", "books"), shift)
            write_run(str(tmp_path), arm, seed, shifts, tasks=False)
    study = read_study(str(tmp_path))
    found = compare(study)
    assert found.calibration.sound == sound
    assert headline(study, found).startswith(said)
    assert ("Compare filters" in next_step(study, found)) == sound
    rows = {row["check"]: row for row in found.tables["calibration"]}
    slope = rows["slope: effect of a dose of 1"]
    assert slope["difference"] == pytest.approx(effect, abs=0.02)
    assert list(rows)[2:4] == ["shuffled=0.2", "shuffled=0.50"]
    assert rows["the halves swapped in 16 ways"]["outcome"].endswith("5% expected")


def test_a_study_without_a_control_is_no_calibration(tmp_path):
    declared = declare(seeds=[1, 2])
    results.write_declaration(str(tmp_path), declared)
    for arm, seed in itertools.product(declared.arms, declared.seeds):
        write_run(str(tmp_path), arm, seed, {}, tasks=False)
    found = compare(read_study(str(tmp_path)))
    assert found.calibration is None
    assert found.tables["calibration"] == []


def test_a_study_that_lacks_a_seed_has_no_verdict(tmp_path):
    declared = declare(seeds=[1, 2, 3])
    results.write_declaration(str(tmp_path), declared)
    for arm, seed in itertools.product(declared.arms, [1, 2, 3]):
        shift = dict.fromkeys(("wiki", "books", "web"), -0.2 if arm == "filtered" else 0.0)
        if (arm, seed) != ("filtered", 3):
            write_run(str(tmp_path), arm, seed, shift, tasks=False)
    study = read_study(str(tmp_path))
    found = compare(study)
    assert found.verdict.outcome == "interim"
    assert headline(study, found) == "Interim, no verdict: 2 of 3 seeds are complete"
    assert {row["outcome"] for row in found.tables["secondary"]} <= {"interim"}
    write_run(str(tmp_path), "filtered", 3, shift, tasks=False)
    assert compare(read_study(str(tmp_path))).verdict.outcome == "better"


def test_seeds_that_were_added_after_a_look_are_told(tmp_path):
    first = declare(seeds=[1, 2])
    results.write_declaration(str(tmp_path), first)
    grown = declare(seeds=[1, 2, 3])
    assert preflight._first_seeds(str(tmp_path), grown) is None  # nobody has looked
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "comparison.json").write_text("{}")
    assert preflight._first_seeds(str(tmp_path), first) is None
    assert preflight._first_seeds(str(tmp_path), grown) == 2
    results.write_declaration(str(tmp_path), declare(seeds=[1, 2, 3], first_seeds=2))
    assert preflight._first_seeds(str(tmp_path), grown) == 2


def test_text_repeats_from_the_token_that_the_stream_says(corpus):
    shares = arms.pool_shares(corpus)
    stream = TokenStream(corpus, "filtered", 1, 16, 4, shares)
    step = stream.unique_targets // (4 * 16)
    repeated = [
        any(of["targets"] > of["unique_targets"] for of in stream.consumed(n).values())
        for n in (step - 2, step + 2)
    ]
    assert repeated == [False, True]


def test_the_page_says_how_far_the_verdict_reaches(tmp_path):
    declared = declare(seeds=[1], repeats_from={"filtered": 9_000_000, "unfiltered": 20_000_000})
    results.write_declaration(str(tmp_path), declared)
    write_run(str(tmp_path), "filtered", 1, {}, tasks=False)
    study = read_study(str(tmp_path))
    assert "1M active parameters after 8,000,000 tokens" in reach(study)
    assert "after 9,000,000 tokens, which this study does not test" in reach(study)
