"""GLaM's claims: which a study tests, and what is said of them, against numbers found by hand."""

import numpy as np
import pyarrow as pa
import pytest

from ablations.analyses import claims
from ablations.study_files import results
from ablations.study_files.results import Curve, JobKey, Run, Study
from model.training.outcome import HELDOUT_SCHEMA, bits_per_byte

PAIR = ("unfiltered", "pareto")
FILTERED = {"unfiltered": {"rule": "all"}, "pareto": {"rule": "pareto", "parameter": 9.0}}
TOKENS = np.array([1000.0, 2000.0, 4000.0])
FALLING = {"unfiltered": [3.0, 2.5, 2.0], "pareto": [3.0, 2.0, 1.0]}


def study_of(bits, *, scores=None, seeds=None, sizes=None, curves=False, **declared):
    """A study whose runs have one source of two documents alike: ``bits`` is {arm: [per seed]}.

    ``scores`` is {(task, metric): {arm: [right of 100 per seed]}}, ``sizes`` {arm: (all
    parameters, active ones)}.
    """
    arms = list(bits)
    seeds = seeds or list(range(1, 1 + len(bits[arms[0]])))
    value = {
        "name": "small",
        "arms": arms,
        "seeds": seeds,
        "primary": results.Primary("heldout/unseen", arms[0], arms[-1], 0.01),
        "heldout": {"unseen": ["books"]},
        "unigram": {"books": 4.0},
    } | declared
    runs = {}
    for arm in arms:
        for k, value_of in enumerate(bits[arm]):
            total, active = (sizes or {}).get(arm, (4_000, 1_000))
            documents = [["books"] * 2, ["a", "b"], [100 * value_of] * 2, [100] * 2]
            heldout = pa.table(documents, schema=HELDOUT_SCHEMA)
            result = results.Result(
                arm, "", seeds[k], "hash", f"of_{total}", total, active, 4000, 4000, 1.0,
                6.0 * active * 4000, 0.01, 1.0, 0.1, "estimated", bits_per_byte(heldout),
                {"arm": {"definition": FILTERED.get(arm, {"rule": "all"})}},
            )  # fmt: skip
            curve = None
            if curves:
                falling = {"books": np.array(FALLING[arm])}
                curve = Curve(TOKENS, TOKENS, TOKENS, falling)
            table = answered({key: of[arm][k] for key, of in (scores or {}).items()})
            runs[JobKey(arm, "", seeds[k])] = Run(result, heldout, table, curve)
    return Study(results.Declaration(**value), runs, {}, [], [])


def answered(right):
    rows = []
    for (task, metric), n in right.items():
        guess = 0.5 if task == "blimp" else None
        rows += [
            (task, 0, metric, f"{i:02d}", f"{i:02d}", float(i < n), 1.0, guess) for i in range(100)
        ]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 8
    return pa.table(columns, schema=results.TASKS)


def test_a_difference_by_hand():
    # Differences -0.10, -0.12, -0.08: mean -0.1, deviation 0.02, error 0.02 / sqrt(3) = 0.011547.
    # Documents are alike, so t has 2 degrees of freedom: 4.302653 * 0.011547 = 0.049683.
    study = study_of({"unfiltered": [2.0, 2.0, 2.0], "pareto": [1.9, 1.88, 1.92]})
    rows = claims.answers([study])
    assert [(row["claim"], row["answer"]) for row in rows] == [
        (claims.FILTERED, "seen"),
        (claims.SPARSE, "not tested: experiment=dense_vs_moe does"),
        (claims.EXPERTS, "not tested: experiment=experts does"),
        (claims.TOKENS, "not tested: experiment=data_efficiency does"),
    ]
    found = rows[0]
    assert found["difference"] == pytest.approx(-0.1)
    assert (found["low"], found["high"]) == pytest.approx((-0.149683, -0.050317), abs=1e-6)
    assert found["arms"] == "pareto − unfiltered"


@pytest.mark.parametrize(
    ("pareto", "said"),
    [
        ([2.1, 2.12, 2.08], "the opposite was seen"),
        ([2.004, 2.005, 2.006], "the opposite was seen, but less than matters (0.0100)"),
        ([2.001, 2.0, 1.999], "not seen"),  # the interval is within 0.0025
        ([2.1, 1.9, 2.0], "could not be seen: less than"),
        ([1.9], "could not be seen: one seed cannot tell"),
    ],
)
def test_what_is_said(pareto, said):
    study = study_of({"unfiltered": [2.0] * len(pareto), "pareto": pareto})
    assert claims.answers([study])[0]["answer"].startswith(said)


def test_a_model_that_has_learned_nothing_can_not_see():
    study = study_of({"unfiltered": [2.0] * 3, "pareto": [2.0] * 3}, unigram={"books": 2.1})
    assert "learned little" in claims.answers([study])[0]["answer"]


def test_a_missing_seed_gives_no_answer():
    study = study_of({"unfiltered": [2.0] * 3, "pareto": [1.9, 1.88, 1.92]})
    del study.runs[JobKey("pareto", "", 3)]
    assert claims.answers([study])[0]["answer"].startswith("interim")


def test_tasks_by_kind_and_those_at_the_level_of_guessing():
    scores = {
        ("lambada", "accuracy"): {"unfiltered": [0, 0, 0], "pareto": [0, 0, 0]},
        ("lambada", "gold_bits_per_byte"): {"unfiltered": [50, 50, 50], "pareto": [30, 31, 29]},
        ("piqa", "gold_bits_per_byte"): {"unfiltered": [50, 51, 49], "pareto": [50, 49, 51]},
        ("blimp", "accuracy"): {"unfiltered": [49, 52, 50], "pareto": [51, 50, 53]},
    }
    bits = {"unfiltered": [2.0] * 3, "pareto": [1.9, 1.88, 1.92]}
    rows = claims.answers([study_of(bits, scores=scores)])
    said = {row["measured_on"]: row["answer"] for row in rows if row["claim"] == claims.FILTERED}
    assert said["generation: right answers of 1 task"] == "seen"
    assert said["generation: scores of 1 task"] == (
        "could not be seen: every arm is at the level of guessing, 0"
    )
    assert said["understanding: right answers of 1 task"].startswith("could not be seen: less than")
    assert said["BLiMP"] == "could not be seen: every arm is at the level of guessing, 50.0"
    # Four of five measures can show something; the intervals are wider by Bonferroni's five.
    first = next(row for row in rows if row["measured_on"] == "unseen curated")
    assert first["high"] - first["difference"] == pytest.approx(0.011547 * 9.924843, rel=1e-4)


def test_experts_are_a_slope_for_each_doubling():
    # Over log2(experts) = 0, 2, 4 the weights are -1/4, 0, 1/4: (1.8 - 2.0) / 4 = -0.05.
    bits = {
        "experts=1": [2.0, 2.01, 2.02],
        "experts=4": [1.7, 1.8, 1.9],
        "experts=16": [1.8, 1.81, 1.83],
    }
    study = study_of(bits)
    (row,) = [row for row in claims.answers([study]) if row["claim"] == claims.EXPERTS]
    assert row["difference"] == pytest.approx((-0.05 - 0.05 - 0.0475) / 3)
    assert (row["answer"], row["arms"]) == ("seen", "each doubling of experts")


@pytest.mark.parametrize(("active", "tested"), [(1_000, True), (1_140, True), (1_200, False)])
def test_a_mixture_is_held_against_a_dense_model_of_equal_flops_alone(active, tested):
    sizes = {"dense": (active, active), "sparse": (4_000, 1_000)}
    study = study_of({"dense": [2.0] * 3, "sparse": [1.9, 1.88, 1.92]}, sizes=sizes)
    found = [test.claim for test in claims.tests_of(study)]
    assert found == ([claims.SPARSE, claims.TOKENS] if tested else [])


def test_tokens_to_the_best_level_that_both_reach():
    # The baseline ends at 2.0 after 4000 tokens, the treatment is there after 2000.
    study = study_of({arm: [2.0, 1.99, 2.01] for arm in PAIR}, curves=True)
    (row,) = [row for row in claims.answers([study]) if row["claim"] == claims.TOKENS]
    assert (row["difference"], row["answer"]) == (pytest.approx(0.5), "seen")
    one, other = (Curve(TOKENS, TOKENS, TOKENS, {"s": np.array(of)}) for of in FALLING.values())
    assert claims.log_tokens(one, other, ["s"]) == pytest.approx(np.log(2))


def test_random_text_and_halves_of_a_pool_are_no_claim_of_glam():
    bits = {"unfiltered": [2.0] * 3, "random": [1.9, 1.88, 1.92]}
    assert claims.answers([study_of(bits)]) == []
    primary = results.Primary("heldout/unseen", *PAIR, 0.01, control="pareto")
    study = study_of({arm: [2.0] * 3 for arm in PAIR}, primary=primary)
    assert claims.answers([study]) == []
