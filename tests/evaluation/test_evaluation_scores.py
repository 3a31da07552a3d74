"""Scoring rules: hand-made numbers, plain references, other libraries' evaluations."""

import dataclasses
import importlib.util
import math
import re
import string
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.study_files.results import TASKS
from ablations.tasks import answers, choices
from ablations.tasks import task as tasks
from ablations.tasks.choices import Choices
from ablations.tasks.responses import GENERATIONS, LOGPROBS
from ablations.tasks.scores import scores, summarise, wilson

# Two items: of three choices, the last is right; of two, the first.
HAND = Choices(
    starts=np.array([0, 3]),
    logprob=np.array([-4.0, -6.0, -9.0, -2.0, -3.0]),
    tokens=np.array([1, 2, 4, 1, 3]),
    bytes=np.array([2, 12, 10, 2, 9]),
    unconditional=np.array([-3.0, -5.0, -12.0, -1.0, -4.0]),
    correct=np.array([False, False, True, True, False]),
    greedy=np.array([False] * 5),
)


@pytest.mark.parametrize(
    ("rule", "picked"),
    [
        ("sum", [0, 3]),  # -4 and -2
        ("per_token", [2, 4]),  # -2.25 of -4, -3; -1 of -2
        ("per_byte", [1, 4]),  # -0.5 of -2, -0.9; -0.33 of -1
        ("unconditional", [2, 4]),  # +3 of -1, -1; +1 of -1
    ],
)
def test_each_rule_on_hand_made_numbers(rule, picked):
    assert choices.chosen(HAND, rule).tolist() == picked
    assert choices.accuracy(HAND, rule).tolist() == [float(HAND.correct[i]) for i in picked]


def test_the_other_columns_on_hand_made_numbers():
    first = math.exp(-9) / (math.exp(-4) + math.exp(-6) + math.exp(-9))
    second = 1 / (1 + math.exp(-1))
    assert choices.gold_probability(HAND) == pytest.approx([first, second])
    assert choices.accuracy_by_chance(HAND) == pytest.approx([1 / 3, 1 / 2])
    bits, size = choices.gold_bits(HAND)
    assert bits == pytest.approx([9 / math.log(2), 2 / math.log(2)])
    assert size.tolist() == [10, 2]


def test_the_first_of_equal_choices_is_picked():
    tied = dataclasses.replace(HAND, logprob=np.array([-9.0, -4.0, -4.0, -1.0, -1.0]))
    assert choices.chosen(tied, "sum").tolist() == [1, 3]


def test_probabilities_of_unlikely_texts_do_not_underflow():
    far = dataclasses.replace(HAND, logprob=HAND.logprob - 5000.0)
    assert choices.gold_probability(far) == pytest.approx(choices.gold_probability(HAND))


@st.composite
def random_choices(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = sum(sizes)
    starts = np.cumsum([0, *sizes[:-1]])
    correct = rng.random(n) < 0.3
    correct[starts + [rng.integers(size) for size in sizes]] = True
    logprob, unconditional = -rng.exponential(20, (2, n))
    tokens, sizes = rng.integers(1, 20, n), rng.integers(1, 80, n)
    return Choices(starts, logprob, tokens, sizes, unconditional, correct, rng.random(n) < 0.5)


@settings(max_examples=60, deadline=None)
@given(random_choices())
def test_reductions_against_loops(found):
    ends = [*found.starts[1:], len(found.logprob)]
    for i, (start, end) in enumerate(zip(found.starts, ends, strict=True)):
        rows = range(start, end)
        for rule, score in {
            "sum": lambda r: found.logprob[r],
            "per_token": lambda r: found.logprob[r] / found.tokens[r],
            "per_byte": lambda r: found.logprob[r] / found.bytes[r],
            "unconditional": lambda r: found.logprob[r] - found.unconditional[r],
        }.items():
            assert choices.chosen(found, rule)[i] == max(rows, key=score)
        right = [r for r in rows if found.correct[r]]
        total = sum(math.exp(found.logprob[r]) for r in rows)
        expected = sum(math.exp(found.logprob[r]) for r in right) / total
        assert choices.gold_probability(found)[i] == pytest.approx(expected)
        assert choices.accuracy_by_chance(found)[i] == len(right) / len(rows)


def yes_no(said, true):
    """Items of MultiRC, of which ``said`` are answered yes and ``true`` are right."""
    n = len(said)
    logprob = np.array([[-2.0, -1.0] if s else [-1.0, -2.0] for s in said]).ravel()
    correct = np.array([[not t, t] for t in true]).ravel()
    ones = np.ones(2 * n, np.int64)
    return Choices(np.arange(n) * 2, logprob, ones, ones, ones * 1.0, correct, ones > 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_f1a_against_sklearn(pairs):
    from sklearn.metrics import f1_score

    said, true = zip(*pairs, strict=True)
    numerator, denominator, _ = choices.f1a(yes_no(said, true), "sum")
    expected = f1_score(true, said, zero_division=0)
    assert numerator.sum() / max(denominator.sum(), 1) == pytest.approx(expected)


def test_chance_of_f1a_is_what_a_coin_gets():
    rng = np.random.default_rng(0)
    true = rng.random(40_000) < 0.4
    numerator, denominator, chance = choices.f1a(yes_no(rng.random(40_000) < 0.5, true), "sum")
    assert (numerator.sum() - chance.sum()) / denominator.sum() == pytest.approx(0, abs=0.01)


WORDS = st.lists(
    st.sampled_from(["the", "a", "Cat", "cat.", "sat", "23", "2,3", "an", "-", "éa", "The"]),
    max_size=5,
).map(" ".join)


def plain_squad(answer, prediction):
    """Exact match and F1 as SQuAD's own script words them, a step at a time."""

    def words(text):
        text = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    wanted, predicted = words(answer), words(prediction)
    exact = float(wanted == predicted)
    if not wanted or not predicted:
        return exact, exact
    common = sum(min(wanted.count(w), predicted.count(w)) for w in set(wanted))
    if common == 0:
        return exact, 0.0
    precision, recall = common / len(predicted), common / len(wanted)
    return exact, 2 * precision * recall / (precision + recall)


@settings(max_examples=120, deadline=None)
@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_squad_against_its_own_script(prediction, accepted):
    found = answers.squad(prediction, [[text] for text in accepted])
    expected = [plain_squad(answer, prediction) for answer in accepted]
    assert found == pytest.approx(tuple(map(max, zip(*expected, strict=True))))


def test_leave_one_out_by_hand():
    # Without the first: 0; without either other: 1.
    exact, overlap = answers.leave_one_out("red", [["red"], ["blue"], ["a red car"]])
    assert exact == pytest.approx(2 / 3)
    # Best F1 against {blue, red car}: 2/3; against the others 1.
    assert overlap == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert answers.leave_one_out("red", [["the red"]]) == (1.0, 1.0)


def test_quac_leaves_out_what_people_disagree_on():
    assert answers.quac("x", [["one"], ["two"]]) is None
    assert answers.quac("one", [["one"], ["one"]]) == (1.0, 1.0)
    assert answers.quac("CANNOTANSWER", [["CANNOTANSWER"]]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("prediction", "accepted", "exact", "f1"),
    [
        ("1507", [["1507"], ["1477"]], 1, 1),
        ("1507.0", [["1507"]], 1, 1),
        ("about 1507", [["1507"]], 0, 0.67),
        ("1508 men", [["1507 men"]], 0, 0),  # another number: nothing
        ("the blue-green car", [["blue green car"]], 1, 1),
        ("Ann and Bo", [["Bo", "Ann"]], 1, 1),
        ("Ann", [["Bo", "Ann"]], 0, 0.5),
        ("Ann, Bo, Cy", [["Bo", "Ann"]], 0, 0.67),
        ("3 yards, 5 yards", [["3 yards, 5 yards"]], 1, 1),
    ],
)
def test_drop_by_hand(prediction, accepted, exact, f1):
    assert answers.drop(prediction, accepted) == (exact, f1)


DROP_WORDS = st.lists(
    st.sampled_from(["the", "Cat", "cat-flap", "7", "7.0", "1,000", "sat.", "nan"]), max_size=4
).map(" ".join)


@settings(max_examples=120, deadline=None)
@given(DROP_WORDS, st.lists(DROP_WORDS.filter(bool), min_size=1, max_size=1))
def test_drop_against_the_harness(prediction, accepted):
    spec = importlib.util.find_spec("lm_eval")
    if spec is None:
        pytest.skip("lm-eval is not installed")
    path = Path(spec.origin).parent / "tasks" / "drop" / "utils.py"
    spec = importlib.util.spec_from_file_location("harness_drop", path)
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    assert answers.drop(prediction, [accepted]) == tuple(
        map(pytest.approx, harness.get_metrics(prediction, accepted))
    )


def logprob_rows(rows):
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=LOGPROBS)


def hand_table(task):
    rows = []
    for row, (item, choice) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        scored = (HAND.logprob, HAND.tokens, HAND.bytes, HAND.unconditional, HAND.correct)
        values = [column[row] for column in scored]
        rows.append((task, 0, str(item), f"c{item}", choice, *values, False, False))
    return logprob_rows(rows)


def values(table):
    return {
        (row["metric"], row["item"]): (row["numerator"], row["denominator"], row["chance"])
        for row in table.to_pylist()
    }


def test_a_task_is_scored_by_its_own_rule_and_by_the_others():
    table = scores([tasks.load("arc_c")], hand_table("arc_c"))
    assert table.schema.equals(TASKS)
    found = values(table)
    assert {metric for metric, _ in found} == {
        *("accuracy", "accuracy_sum", "accuracy_per_token", "accuracy_per_byte"),
        *("gold_probability", "gold_bits_per_byte"),
    }
    assert found["accuracy", "0"] == (1, 1, pytest.approx(1 / 3))
    assert found["accuracy", "1"] == (0, 1, 0.5)
    assert found["accuracy_sum", "0"][0] == 0
    assert found["accuracy_sum", "1"][0] == 1
    assert found["gold_bits_per_byte", "0"] == (pytest.approx(9 / math.log(2)), 10, None)
    assert table["cluster"].to_pylist()[:2] == ["c0", "c1"]


def test_tables_of_several_tasks_and_shots_are_told_apart():
    one, other = hand_table("arc_c"), hand_table("piqa")
    more = one.set_column(1, LOGPROBS.field("shots"), pa.array([3] * 5, pa.int32()))
    table = scores([tasks.load("arc_c")], pa.concat_tables([one, other, more]))
    summary = summarise(table)
    assert {(s.task, s.shots) for s in summary} == {("arc_c", 0), ("arc_c", 3)}
    assert all(s.items == 2 for s in summary)


def generation_rows(task, rows):
    n, (texts, accepted) = len(rows), zip(*rows, strict=True)
    ids = [str(i) for i in range(n)]
    columns = [[task] * n, [0] * n, ids, ["c"] * n, list(texts), list(accepted)]
    return pa.table(columns, schema=GENERATIONS)


def test_squad_v2_counts_saying_that_there_is_no_answer():
    rows = [
        ("Unanswerable.", [["unanswerable"]]),
        ("unanswerable", [["Rain"]]),
        ("Rain", [["unanswerable"]]),
        ("heavy rain", [["Rain"], ["the heavy rain"]]),
    ]
    empty = LOGPROBS.empty_table()
    table = scores([tasks.load("squad_v2")], empty, generation_rows("squad_v2", rows))
    found = values(table)
    assert [found["exact_match", str(i)][0] for i in range(4)] == [1, 0, 0, 1]
    assert [found["f1", str(i)][0] for i in range(4)] == [1, 0, 0, 1]


def test_quac_items_without_agreement_have_no_row():
    rows = [("x", [["one"], ["two"]]), ("one", [["one"], ["one"]])]
    table = scores([tasks.load("quac")], LOGPROBS.empty_table(), generation_rows("quac", rows))
    assert set(table["item"].to_pylist()) == {"1"}


def test_lambada_wants_every_token_likeliest():
    rows = [
        ("lambada", 0, str(i), str(i), 0, -1.0, 2, 4, None, True, greedy, False)
        for i, greedy in enumerate([True, False, True])
    ]
    found = values(scores([tasks.load("lambada")], logprob_rows(rows)))
    assert [found["accuracy", str(i)][0] for i in range(3)] == [1, 0, 1]


def test_no_answers_give_an_empty_table_of_the_contract():
    assert scores([], LOGPROBS.empty_table()).schema.equals(TASKS)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (7, 10), (50, 200), (200, 200)])
def test_wilson_against_its_closed_form(right, n):
    z, p = 1.959963984540054, right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert wilson(right, n) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_at_chance_is_said_when_the_interval_holds_it():
    def table(right, n):
        rows = [("t", 0, "accuracy", str(i), str(i), float(i < right), 1.0, 0.5) for i in range(n)]
        columns = [list(column) for column in zip(*rows, strict=True)]
        return summarise(pa.table(columns, schema=TASKS))[0]

    assert table(55, 100).at_chance
    assert not table(70, 100).at_chance
    assert not table(30, 100).at_chance
    assert table(70, 100).value == 0.7
