"""The files of a study: what is read back, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pytest
from written_study import declare, heldout_table, tasks_table, write_run, write_study

from ablations.reading import read_study
from ablations.study_files import results
from model.training.outcome import bits_per_byte


def test_a_rerun_that_succeeds_removes_its_failure(tmp_path):
    path = write_study(str(tmp_path / "s"), -0.05, declare(seeds=[1, 2]))
    results.write_failure(path, results.JobKey("filtered", "", 2), "x", "y")
    write_run(path, "filtered", 2, {})
    assert not (tmp_path / "s" / "filtered" / "seed_2" / "failure.json").exists()


def test_errors_of_the_contract_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"no study\.yaml"):
        read_study(str(tmp_path))
    path = write_study(str(tmp_path / "s"), 0.0, declare(seeds=[1, 2]))
    write_run(path, "filtered", 2, {}, config_hash="other")
    with pytest.raises(ValueError, match=r"seeds 1 and 2 of filtered .* different configs"):
        read_study(path)
    write_run(path, "filtered", 2, {})
    file = tmp_path / "s" / "filtered" / "seed_2" / "result.json"
    good = json.loads(file.read_text())
    for change, message in (
        ({"format": 2}, "format 2"),
        ({"surprise": 1}, "unknown surprise"),
        ({"kwh_basis": "guessed"}, "measured"),
        ({"seed": 9}, "seed 9"),
        ({"heldout": good["heldout"] | {"wiki": 0.5}}, "disagree on bits per byte"),
    ):
        file.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=message):
            read_study(path)
    file.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_study(path)
    del good["flops"]
    file.write_text(json.dumps(good))
    with pytest.raises(ValueError, match="flops is missing"):
        read_study(path)
    yaml = tmp_path / "s" / "study.yaml"
    yaml.write_text(yaml.read_text().replace("alpha: 0.05", "alhpa: 0.05"))
    with pytest.raises(ValueError, match="unknown alhpa"):
        read_study(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ["unfiltered", "other"]}, "not one of the arms"),
        ({"seeds": [1, 1]}, "without repeats"),
        ({"main": "big"}, "not one of the variants"),
        ({"arms": ["unfiltered", "filtered", "a/b"]}, "cannot name a folder"),
    ],
)
def test_a_declaration_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        declare(**change)


def test_runs_on_other_documents_are_refused(tmp_path):
    path = write_study(str(tmp_path / "s"), 0.0, declare(seeds=[1, 2]))
    heldout = heldout_table({}, 5).slice(1)
    run = read_study(path).runs["filtered", "", 2].result
    fields = vars(run) | {"heldout": bits_per_byte(heldout)}
    results.write_run(path, results.Result(**fields), heldout, tasks_table(0.0, 2))
    with pytest.raises(ValueError, match="different documents"):
        read_study(path)


def test_duplicate_or_infinite_rows_are_refused(tmp_path):
    path = write_study(str(tmp_path / "s"), 0.0, declare(seeds=[1, 2]))
    run = read_study(path).runs["filtered", "", 2]
    twice = pa.concat_tables([run.tasks, run.tasks.slice(0, 1)])
    results.write_run(path, run.result, run.heldout, twice)
    with pytest.raises(ValueError, match="two rows"):
        read_study(path)
    broken = run.tasks.set_column(
        5, results.TASKS.field(5), pa.array([np.nan] * run.tasks.num_rows)
    )
    results.write_run(path, run.result, run.heldout, broken)
    with pytest.raises(ValueError, match="not finite"):
        read_study(path)


def test_sums_are_of_their_own_task_metric_and_shots(tmp_path):
    run = read_study(write_study(str(tmp_path / "s"), -0.05)).runs["filtered", "", 1]
    random = np.random.default_rng(0)
    metrics = [f"accuracy_{i}" for i in range(6)]
    rows = [
        (task, shots, metric, f"{i}", f"{i // 2}", random.random(), 1.0 + random.random(), None)
        for task, own in (("piqa", 32), ("boolq", 8), ("record", 2), ("triviaqa", 1))
        for shots in sorted({0, 1, own})
        for metric in metrics
        for i in range(10)
    ]
    table = pa.table([list(column) for column in zip(*rows, strict=True)], schema=results.TASKS)
    scores = results.Run(run.result, run.heldout, table, None).scores
    sums = (
        table.to_pandas()
        .groupby(["task", "metric", "shots", "cluster"])[["numerator", "denominator"]]
        .sum()
    )
    assert len(scores) == (3 * 3 + 2) * 6
    for key, found in scores.items():
        assert found.numerator == pytest.approx(sums.loc[key].numerator.to_numpy())
        assert found.denominator == pytest.approx(sums.loc[key].denominator.to_numpy())


def test_answers_of_no_declared_column_are_refused(tmp_path):
    declared = declare(seeds=[1, 2], shots=["few"])
    path = write_study(str(tmp_path / "s"), -0.05, declared)
    with pytest.raises(ValueError, match="with 0 shots, which is none of the columns"):
        read_study(path)
