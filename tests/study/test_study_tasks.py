"""What a study asks, holds out and looks for before its first job, on a corpus made here."""

import json
import os
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from sweeps import jobs_of
from tokens_scored import documents, make_corpus

from ablations import near_duplicates
from ablations.study import execute, preflight
from ablations.study.design import held_out_groups, study_tasks
from ablations.study.design.config import TasksConfig
from ablations.study_files.results import CONTAMINATION, TASKS
from ablations.tasks.task import load
from model.training.outcome import HELDOUT_SCHEMA

ROWS = documents(300, seed=0)
# Two of the training documents as questions, and two that nobody wrote.
LONG = [row["text"] for row in ROWS if row["source"] == "wiki" and len(row["text"].split()) > 20]
QUESTIONS = [LONG[0], LONG[1], " ".join(f"word{i}" for i in range(20)), "too short"]

pytestmark = pytest.mark.usefixtures("hydra")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("study"), [ROWS])


@pytest.fixture
def data(tmp_path):
    records = [{"goal": q, "sol1": "wind", "sol2": "grain", "label": 0} for q in QUESTIONS]
    (tmp_path / "piqa.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def study(corpus, data, output, *overrides):
    asked = ["tasks.names=[piqa,copa]", f"tasks.local={data}", "tasks.places=[local]"]
    fixed = ["experiment=smoke", f"corpus={corpus.folder}", f"output={output}"]
    return jobs_of(*fixed, "data.sequence_length=16", "train.batch_rows=2", *asked, *overrides)


def open_study(jobs):
    checked = preflight.check(jobs)
    preflight.write(jobs, checked)
    return checked


def test_each_task_is_asked_once_with_each_number_of_shots():
    names = ["piqa", "triviaqa", "blimp"]
    found = study_tasks.tasks_by_shots(TasksConfig(names=names, shots=[0, 1, "few"]))
    # TriviaQA's own number is 1 and BLiMP's is 0: both are asked with these anyway.
    assert (load("triviaqa").few, load("blimp").few) == (1, 0)
    assert found == {0: names, 1: names, "few": ["piqa"]}
    alone = study_tasks.tasks_by_shots(TasksConfig(names=names, shots=["few"]))
    assert alone == {"few": names}
    assert study_tasks.tasks_by_shots(TasksConfig(names=[], shots=[0])) == {0: []}


def test_answers_of_all_columns_lie_in_one_table(corpus, data, tmp_path, monkeypatch):
    def answer(script, arguments, log, threads, study):
        meetings.append((os.path.basename(log), os.environ.get("MASTER_PORT")))
        given = dict(argument.split("=", 1) for argument in arguments)
        row = ["piqa", int(given["shots"]), "accuracy", "0", "0", 1.0, 1.0, 0.5]
        table = pa.table([[value] for value in row], schema=TASKS)
        folder = given["output"].strip("'")
        asked.append((given["shots"], given["tasks"]))
        with execute.storage.open_output(f"{folder}/tasks.arrow") as file:
            with pa.ipc.new_file(file, TASKS) as writer:
                writer.write_table(table)

    asked, meetings = [], []
    monkeypatch.setattr(execute, "run_python", answer)
    (job, *_) = study(corpus, data, tmp_path / "s", "tasks.shots=[0,1]", "seed=1")
    table = execute.evaluate_tasks(job, 1)
    assert table["shots"].to_pylist() == [0, 1]
    assert asked[:2] == [("0", "['piqa','copa']"), ("1", "['piqa','copa']")]
    # Two tasks of Slurm evaluate together, and never where an earlier process may still listen.
    monkeypatch.setenv("MASTER_PORT", "20000")
    for rank in (0, 1):
        table = execute.evaluate_tasks(job, 1, rank)
        assert (table is None) == (rank == 1)
    alone = [("evaluation.log", port) for port in (None, None, "20001", "20002")]
    assert meetings == [*alone, ("evaluation_1.log", "20001"), ("evaluation_1.log", "20002")]
    assert os.environ["MASTER_PORT"] == "20000"
    (none, *_) = study(corpus, data, tmp_path / "s", "tasks.names=[]", "seed=1")
    assert execute.evaluate_tasks(none, 1) is None


def test_opening_a_study_finds_what_of_its_tasks_stands_in_each_arm(corpus, data, tmp_path):
    jobs = study(corpus, data, tmp_path / "s", "seed=1,2")
    declared = open_study(jobs).declared
    assert declared.shots == ["0"]
    with pa.ipc.open_file(tmp_path / "s" / "contamination.arrow") as file:
        table = file.read_all()
    assert table.schema == CONTAMINATION
    held = {corpus.ids(np.array([i]))[0] for i in np.flatnonzero(corpus.held_out)}
    ids = [next(row["id"] for row in ROWS if row["text"] == text) for text in LONG[:2]]
    wanted = [*(i not in held for i in ids), False, None]  # wiki is whole in both arms
    for arm in ("unfiltered", "filtered"):
        rows = table.filter(pa.compute.equal(table["arm"], arm))
        assert rows["dirty"].to_pylist() == wanted
    assert True in wanted
    before = (tmp_path / "s" / "contamination.arrow").stat().st_mtime_ns
    open_study(jobs)  # the same study again: nothing is looked for twice
    assert (tmp_path / "s" / "contamination.arrow").stat().st_mtime_ns == before
    more = ["data=unfiltered,filtered,random", "data.alpha=1"]
    open_study(study(corpus, data, tmp_path / "s", "seed=1,2", *more))
    with pa.ipc.open_file(tmp_path / "s" / "contamination.arrow") as file:
        assert set(file.read_all()["arm"].to_pylist()) == {"unfiltered", "filtered", "random"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["tasks.names=[piqua]"], "no task 'piqua'"),
        (["tasks.names=[copa]"], "none of the tasks has data"),
        (["tasks.limit=1"], "piqa has items of a single passage"),
        (["tasks.shots=[0,few]"], "32 shots need as many examples"),
    ],
)
def test_what_would_fail_after_training_is_refused_before(corpus, data, tmp_path, overrides, said):
    with pytest.raises(ValueError, match=said):
        open_study(study(corpus, data, tmp_path / "s", "seed=1,2", *overrides))
    assert not (tmp_path / "s").exists()


def test_the_documents_to_be_evaluated_are_counted_as_they_will_be(corpus):
    none = near_duplicates.NearDuplicates(np.empty(0, np.int64), np.empty(0), 0.5)
    counts = held_out_groups.documents_of(corpus, None, none)
    held = np.flatnonzero(corpus.held_out & corpus.reached)
    sources = [corpus.sources[i] for i in corpus.source_index[held]]
    score = corpus.column("quality_score")[held]
    web = np.array([source == "web" for source in sources])
    junk = int((score[web] <= np.quantile(score[web], 0.2)).sum())
    sizes = {source: len(of) for source, of in counts.items()}
    assert sizes == {**Counter(sources), "junk_of_web": junk}
    near = near_duplicates.NearDuplicates(held, (np.arange(len(held)) % 3 == 0) * 1.0, 0.5)
    fewer = held_out_groups.documents_of(corpus, None, near)
    assert len(fewer["web"]) + len(fewer["wiki"]) == len(held) - len(near.duplicates)
    table = pa.table([["web"], ["?"], [1.0], [1]], schema=HELDOUT_SCHEMA)
    assert len(held_out_groups.with_junk(table, corpus)) == 1
