"""Training logs on the page of a study: losses and what routers did."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_run import ARMS, EXPERTS, LAYERS, declare, page_of, records, write_study

from ablations.page import training_log
from ablations.study_files import results


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.5, 3), min_size=1, max_size=300), st.integers(1, 50))
def test_smoothing_keeps_the_mean_and_the_end(loss, points):
    tokens, means = training_log.smooth(np.arange(1.0, len(loss) + 1), np.array(loss), points)
    assert len(tokens) == min(points, len(loss))
    assert tokens[-1] == len(loss)
    widths = np.diff([0, *tokens])
    assert np.isclose((means * widths).sum(), sum(loss))
    assert means.min() >= min(loss) - 1e-9
    assert means.max() <= max(loss) + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.integers(2, 80))
def test_thinning_keeps_both_ends(n, points):
    kept = training_log.thin(np.zeros(n), points)
    assert (kept[0], kept[-1]) == (0, n - 1)
    assert len(kept) == min(n, points)
    assert (np.diff(kept) > 0).all()


def test_loads_are_of_the_last_quarter(tmp_path):
    study = write_study(tmp_path / "s", declare(arms=ARMS[:2]), tasks=False)
    data, logged = page_of(study), []
    for seed in (1, 2, 3):
        lines = Path(f"{study}/filtered/seed_{seed}/metrics.jsonl").read_text().splitlines()
        last = [json.loads(line) for line in lines[30:]]
        logged.append(np.mean([x["expert_load"] for x in last if "expert_load" in x], axis=0))
    rows = [r for r in records(data, "expert_load") if r["arm"] == "filtered"]
    assert {r["seed"] for r in rows} == {1}
    shares = np.array([r["share"] for r in rows]).reshape(LAYERS, EXPERTS)
    assert np.allclose(shares, logged[0], atol=1e-5)
    assert np.allclose([r["of_even"] for r in rows], shares.ravel() * EXPERTS, atol=1e-4)
    layers = [r for r in records(data, "router_layers") if r["arm"] == "filtered"]
    assert [r["layer"] for r in layers] == [0, 1, 2]
    busiest = np.mean([load.max(axis=1) for load in logged], axis=0) * EXPERTS
    assert np.allclose([r["busiest"] for r in layers], busiest, rtol=1e-4)
    # Entropy falls from ln E by a tenth, drops rise to 5 %; the last quarter is lines 31 to 40.
    assert layers[0]["entropy"] == pytest.approx(1 - 0.1 * 35.5 / 40, rel=1e-5)
    assert layers[0]["dropped"] == pytest.approx(0.05 * 35.5 / 40, rel=1e-5)


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        (range(8), 6.5),  # earlier runs, whose lines all have it: the last quarter's
        ([3, 6], 6.0),
        ([1, 3], 3.0),  # none in the last quarter: the last one
        ([], None),
    ],
)
def test_loads_of_lines_that_have_them(tmp_path, logged, expected):
    lines = [{"tokens": k, "loss": 1.0, "router_entropy": [0.1], "dropped": [0]} for k in range(8)]
    for k in logged:
        lines[k]["expert_load"] = [[k, 0]]
    job = results.JobKey("a", "", 1)
    folder = Path(job.folder(str(tmp_path)))
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    routers = training_log.read_log(str(tmp_path), job).routers
    assert (None if routers is None else routers.load[0, 0]) == expected
    if routers is not None:
        assert len(routers.entropy) == 8


def test_loads_on_held_out_text_of_each_source(tmp_path):
    path = write_study(tmp_path / "s", declare(arms=ARMS[:2], seeds=[1]), tasks=False)
    log = f"{path}/filtered/seed_1/metrics.jsonl"
    with open(log) as file:
        lines = [json.loads(line) for line in file]
    lines[-1]["heldout_expert_load"] = {"wiki": [[1.0] + [0.0] * 15] * 3}
    with open(log, "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    rows = [r for r in records(page_of(path), "expert_load") if r["source"] == "wiki"]
    assert len(rows) == LAYERS * EXPERTS
    assert {(r["arm"], r["expert"]) for r in rows if r["share"] == 1} == {("filtered", 0)}


def test_a_loss_that_was_not_finite_is_passed_over(tmp_path):
    path = write_study(tmp_path / "s", declare(arms=ARMS[:2], seeds=[1]), tasks=False)
    log = Path(f"{path}/filtered/seed_1/metrics.jsonl")
    lines = log.read_text().splitlines()
    lines[5] = json.dumps(json.loads(lines[5]) | {"loss": None})
    log.write_text("\n".join(lines) + "\n")
    assert len(training_log.read_log(path, results.JobKey("filtered", "", 1)).loss) == 39
