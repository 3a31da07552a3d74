"""Who of a cluster stays, against a plain loop over its documents."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.near_duplicates import choice
from pipeline.near_duplicates.choice import Stays
from pipeline.output.records import Task
from pipeline.readers import InputRange
from pipeline.rules.decision import keep_draw

documents = st.tuples(
    st.integers(0, 4),  # cluster
    st.sampled_from([0.125, 0.5, 0.75]),
    st.integers(1, 4),
    st.floats(0, 1, exclude_max=True),
)
tasks = st.lists(st.tuples(st.booleans(), st.lists(documents, max_size=8)), max_size=5)
rules = st.sampled_from(choice.RULES)


def members(order, filtered, rows, stays):
    task = Task("web", filtered, InputRange("x", 0, None, 1), order, 9, order)
    cluster, score, size, draw = (list(column) for column in zip(*rows, strict=True))
    batch = pa.RecordBatch.from_pydict(
        {
            "quality_score": pa.array(score, pa.float32()),
            "bytes": pa.array(size, pa.int64()),
            "keep_draw": pa.array(draw, pa.float64()),
        }
    )
    at = np.arange(len(rows))
    return choice.members(task, [batch], at, np.array(cluster, np.uint64), stays)


@given(tasks, rules, st.sampled_from([0.0, 0.5, 1.0]), st.randoms())
@settings(deadline=None)
def test_one_of_each_cluster_stays_and_it_is_the_right_one(corpus, rule, power, random):
    stays = Stays(rule, power)
    parts = [
        members(order, filtered, rows, stays)
        for order, (filtered, rows) in enumerate(corpus)
        if rows
    ]
    clusters = defaultdict(list)
    for order, (filtered, rows) in enumerate(corpus):
        for row, (cluster, score, size, draw) in enumerate(rows):
            merit = {"best": score, "sample": score, "longest": size}.get(rule, 0)
            clusters[cluster].append((filtered, -merit, order, row, draw))
    expected = {}
    for found in clusters.values():
        winner = min(found)
        for document in found:
            filtered, _, order, row, draw = document
            dropped = filtered and document != winner and rule != "all"
            if rule == "sample" and dropped:
                dropped = choice.another_draw(np.array([draw]))[0] >= len(found) ** -power
            expected[order, row] = (len(found), bool(dropped))
    random.shuffle(parts)
    actual = {}
    for stem, found in choice.choose(parts, stays) if parts else ():
        order = int(stem.split("-")[2])
        for row, size, dropped in zip(found.rows, found.size, found.dropped, strict=True):
            actual[order, int(row)] = (int(size), bool(dropped))
    assert actual == expected


def test_the_draws_of_a_sample_are_uniform_and_know_nothing_of_the_rules():
    draw = keep_draw(pa.array([str(i) for i in range(20_000)]), 0)
    other = choice.another_draw(draw)
    assert abs(other.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(other))
    assert abs(np.corrcoef(draw, other)[0, 1]) < 4 / np.sqrt(len(other))
    assert abs((other[draw < 0.1] < 0.1).sum() - 200) < 4 * np.sqrt(200)


def test_a_hundred_thousand_equal_pages_are_one_cluster_of_which_one_stays():
    n = 100_000
    rows = [(7, 0.5, 1, 0.5)] * n
    ((_, found),) = choice.choose([members(0, True, rows, Stays("best"))], Stays("best"))
    assert found.dropped.sum() == n - 1
    assert not found.dropped[0]
    assert (found.size == n).all()


def test_reasons_are_decided_again():
    reason = pa.array([None, "quality", "near_duplicate", "near_duplicate", "gopher_words"])
    near = np.array([True, True, False, True, True])
    assert choice.drop_near(reason, near).to_pylist() == [
        "near_duplicate",
        "near_duplicate",
        None,
        "near_duplicate",
        "gopher_words",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("newest",), "choose one of best, first"), (("sample", -1.0), "finite number of 0 or more")],
)
def test_rules_that_there_are_not(arguments, message):
    with pytest.raises(ValueError, match=message):
        Stays(*arguments)
