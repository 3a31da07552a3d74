"""lm-evaluation-harness and our evaluation, on the same model, data and rules: the same numbers."""

import importlib.util
import json
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
import yaml
from tokens_scored import WORDS

from ablations.evaluation.evaluation import EvaluationRequest, evaluate_sets, gather
from ablations.evaluation.token_model import TokenModel
from ablations.study import preflight
from ablations.study.design import study_tasks
from ablations.study.design.config import TasksConfig
from ablations.tasks.data_sources import DataSources
from model.data import tokenizer
from model.glam.config import GLaMConfig
from model.glam.transformer import GLaM

if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("lm-eval is not installed", allow_module_level=True)

from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from ablations.evaluation import harness_tasks
from ablations.harness import HarnessModel

pytestmark = pytest.mark.slow

MEAN = {"aggregation": "mean", "higher_is_better": True}
TASKS = {
    "piqa": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": "{{[sol1, sol2]}}",
        "metric_list": [{"metric": m, **MEAN} for m in ("acc", "acc_norm", "acc_bytes")]
        + [{"metric": "f1"}],
    },
    "winogrande": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{answer | int - 1}}",
        "doc_to_choice": "{{[sentence.split('_')[0] + option1, sentence.split('_')[0] + option2]}}",
        "doc_to_target": "{{sentence.split('_')[1].strip()}}",
        "metric_list": [{"metric": "acc", **MEAN}],
    },
    "lambada": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.rsplit(' ', 1)[0]}}",
        "doc_to_target": "{{' ' + text.rsplit(' ', 1)[1]}}",
        "metric_list": [{"metric": "acc", **MEAN}, {"metric": "perplexity"}],
    },
    "written": {
        "output_type": "generate_until",
        "doc_to_text": "{{goal}}",
        "doc_to_target": "{{sol1}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 4, "do_sample": False},
        "filter_list": [
            {"name": "first", "filter": [{"function": "take_first"}]},
            {"name": "low", "filter": [{"function": "lowercase"}, {"function": "take_first"}]},
        ],
        "metric_list": [
            {"metric": "exact_match", **MEAN, "regexes_to_ignore": [".*"]},
            {"metric": "bleu", "aggregation": "bleu", "higher_is_better": True},
        ],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": m} for m in ("word_perplexity", "bits_per_byte")],
    },
}
"""The harness's own definitions of these tasks, or much like them, to be read from local files."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer.train([" ".join(WORDS)] * 10, 300, "<eos>"))
    codec = tokenizer.load(str(path), "<eos>")
    config = GLaMConfig(
        vocabulary=codec.vocabulary, layers=2, width=16, hidden=32, heads=2, head_width=8, experts=4
    )
    return TokenModel(GLaM(config, seed=5).eval(), codec, max_tokens=256)


def phrase(random):
    return " ".join(w.strip() for w in random.choice(WORDS, random.integers(1, 6)))


def records(name):
    random = np.random.default_rng(7)
    for number in range(30):
        yield {
            "goal": phrase(random),
            "sol1": phrase(random),
            "sol2": phrase(random),
            "label": int(random.integers(2)),
            "sentence": f"{phrase(random)} _ {phrase(random)}",
            "option1": "wind",
            "option2": "grain of the wind",
            "answer": str(random.integers(1, 3)),
            "text": (text := f"{phrase(random)} {phrase(random)}"),
            **dict(zip(("context", "continuation"), text.rsplit(" ", 1), strict=True)),
            "passage": f"passage {number // 3}",
        }


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes a task's data and its YAML; returns the YAML's path."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    # Versions of everything, asked of many programs, are nothing that is compared here.
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)

    def write(name, **changes):
        lines = [json.dumps(row) for row in records(name)]
        data = tmp_path / f"{'lambada_openai' if name == 'lambada' else name}.jsonl"
        data.write_text("\n".join(lines) + "\n")
        config = {
            "task": f"local_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "metadata": {"version": 3.0},
            **TASKS[name],
            **changes,
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        return str(tmp_path / f"{name}.yaml")

    return write


def theirs(model, path, shots=0):
    found = simple_evaluate(
        HarnessModel(model=model),
        tasks=[path],
        num_fewshot=shots,
        fewshot_random_seed=0,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )
    (name,) = found["samples"]
    return found["results"][name], sorted(found["samples"][name], key=lambda s: s["doc_id"])


def ours(model, folder, *names, **asked):
    sets, not_run = gather(
        EvaluationRequest(names, **asked), DataSources(["local"], folder, folder)
    )
    return sets, evaluate_sets(model, sets, not_run)


def column(evaluation, metric, name="numerator"):
    found = evaluation.tasks.filter(pc.field("metric") == metric)
    assert len(found), metric
    return found[name].to_pylist()


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("piqa", {"acc": "accuracy_sum", "acc_bytes": "accuracy_per_byte"}),
        ("winogrande", {"acc": "accuracy"}),
        ("lambada", {"acc": "accuracy"}),
    ],
)
def test_three_ways_to_ask_a_model_give_the_same(model, file, tmp_path, name, metrics):
    """The harness's own evaluator, its task among ours, and our task of the same data."""
    path = file(name)
    figures, samples = theirs(model, path)
    (adapted,), found = ours(model, tmp_path, f"lm_eval:{path}")
    _, plain = ours(model, tmp_path, name)
    for metric, of_ours in metrics.items():
        assert column(found, metric) == [sample[metric] for sample in samples]
        assert column(found, metric) == column(plain, of_ours)
        assert figures[f"{metric},none"] == pytest.approx(np.mean(column(found, metric)))
    # Not the scores alone: every log-probability, and the loss of right answers.
    answers = [answer[0] for sample in samples for answer in sample["resps"]]
    logprob = [float(a[0] if isinstance(a, list | tuple) else a) for a in answers]
    np.testing.assert_allclose(logprob, found.logprobs["logprob"].to_numpy(), atol=1e-4)
    np.testing.assert_allclose(logprob, plain.logprobs["logprob"].to_numpy(), atol=1e-4)
    for part in ("numerator", "denominator"):
        gold = column(found, "gold_bits_per_byte", part)
        assert gold == pytest.approx(column(plain, "gold_bits_per_byte", part), abs=1e-4)
    if name != "lambada":
        chance = column(found, "acc", "chance")
        assert chance == column(found, "gold_probability", "chance") == [0.5] * 30
    assert adapted.about["metrics"] == {
        "gold_bits_per_byte": False,
        **({} if name == "lambada" else {"gold_probability": True}),
        **dict.fromkeys(["acc", "acc_norm", "acc_bytes"] if name == "piqa" else ["acc"], True),
    }
    left_out = {
        "piqa": {"f1": "it is a figure of all items at once"},
        "lambada": {"perplexity": "bits per byte say the same"},
    }
    assert adapted.about["not_compared"] == left_out.get(name, {})


def logprob_of(model, context, text):
    """Of a text after a context, from one plain pass over both."""
    bare = model.codec.encode([context])[0].tolist()
    whole = [model.codec.boundary_id, *model.codec.encode([context + text])[0].tolist()]
    with torch.no_grad():
        hidden, _ = model.model.hidden(torch.tensor([whole[:-1]]))
        logprob = model.model.logits(hidden)[0].double().log_softmax(-1)
    return sum(float(logprob[i, whole[i + 1]]) for i in range(len(bare), len(whole) - 1))


def test_scores_follow_from_plain_log_probabilities(model, file, tmp_path):
    _, found = ours(model, tmp_path, f"lm_eval:{file('piqa')}")
    right, bits, sizes = [], [], []
    for row in records("piqa"):
        question = f"Question: {row['goal']}\nAnswer:"
        texts = [row["sol1"], row["sol2"]]
        logprob = [logprob_of(model, question, f" {text}") for text in texts]
        per_character = [p / len(text) for p, text in zip(logprob, texts, strict=True)]
        right.append(float(int(np.argmax(per_character)) == row["label"]))
        bits.append(-logprob[row["label"]] / math.log(2))
        sizes.append(len(texts[row["label"]].encode()))
    assert column(found, "acc_norm") == right
    assert column(found, "gold_bits_per_byte") == pytest.approx(bits, rel=1e-4)
    assert column(found, "gold_bits_per_byte", "denominator") == sizes


def test_demonstrations_are_those_of_the_harness(model, file, tmp_path):
    path = file("piqa")
    _, samples = theirs(model, path, shots=2)
    (adapted,), found = ours(model, tmp_path, f"lm_eval:{path}", shots=2)
    prompts = [sample["arguments"][0][0] for sample in samples]
    assert [item.contexts[0] for item in adapted.items] == prompts
    assert prompts[0].count("Answer:") == 3
    assert column(found, "acc") == [sample["acc"] for sample in samples]
    (again,), _ = ours(model, tmp_path, f"lm_eval:{path}", shots=2)
    (other,), _ = ours(model, tmp_path, f"lm_eval:{path}", shots=2, seed=1)
    assert again.about == adapted.about
    assert other.about["fingerprint"] != adapted.about["fingerprint"]


def test_written_answers_go_through_each_filter(model, file, tmp_path):
    path = file("written")
    _, samples = theirs(model, path)
    (adapted,), found = ours(model, tmp_path, f"lm_eval:{path}")
    for name in ("first", "low"):
        wanted = [sample["exact_match"] for sample in samples if sample["filter"] == name]
        assert column(found, f"exact_match:{name}") == wanted
    assert adapted.new_tokens == 4
    assert adapted.about["not_compared"] == {"bleu": "it is a figure of all items at once"}
    assert found.generations["text"].to_pylist() == [s["resps"][0][0] for s in samples[::2]]
    first = next(records("written"))
    assert found.generations["answers"][0].as_py() == [[first["sol1"]]]
    bits = -logprob_of(model, first["goal"], f" {first['sol1']}") / math.log(2)
    assert column(found, "gold_bits_per_byte")[0] == pytest.approx(bits, rel=1e-4)


def test_whole_texts_in_bits_per_byte(model, file, tmp_path):
    path = file("texts")
    figures, _ = theirs(model, path)
    (adapted,), found = ours(model, tmp_path, f"lm_eval:{path}")
    ratio = sum(column(found, "bits_per_byte")) / sum(column(found, "bits_per_byte", "denominator"))
    assert ratio == pytest.approx(figures["bits_per_byte,none"])
    assert adapted.about["metrics"] == {"bits_per_byte": False}
    assert adapted.items[0].text.strip() == next(records("texts"))["text"]


def test_items_are_named_by_their_number_and_share_passages(model, file, tmp_path):
    path = f"lm_eval:{file('piqa')}"
    (whole,), _ = ours(model, tmp_path, path)
    (part,), _ = ours(model, tmp_path, path, limit=7)
    assert [item.id for item in whole.items] == [str(i) for i in range(30)]
    assert {item.id for item in part.items} < {item.id for item in whole.items}
    assert len(part.items) == 7
    assert not part.about["whole"]
    assert [item.cluster for item in whole.items] == [f"passage {i // 3}" for i in range(30)]
    told = pickle.loads(pickle.dumps(whole))  # as another process of a model gets it
    assert told.judge is None
    assert told.requests == whole.requests


def test_metrics_of_which_less_is_better_say_so(model, file, tmp_path):
    (tmp_path / "own.py").write_text(
        "def judged(doc, results):\n"
        "    return {'misses': 1 - results[0][1], 'odd': [1], 'unsaid': 2}\n"
    )
    path = file(
        "lambada",
        metric_list=[
            {"metric": "misses", "aggregation": "mean", "higher_is_better": False},
            {"metric": "odd", "aggregation": "median", "higher_is_better": True},
        ],
    )
    with open(path, "a") as yaml_file:
        yaml_file.write("process_results: !function own.judged\n")
    (adapted,), found = ours(model, tmp_path, f"lm_eval:{path}")
    assert adapted.about["metrics"] == {"misses_less_is_better": False}  # what is right is its own
    assert set(column(found, "misses_less_is_better")) <= {0.0, 1.0}
    assert not len(found.logprobs)


def test_what_cannot_be_asked_is_refused(model, file, tmp_path, monkeypatch):
    folder = tmp_path / "named"
    folder.mkdir()
    manager = TaskManager(include_defaults=False, include_path=folder)
    monkeypatch.setattr(harness_tasks, "_manager", lambda _: manager)
    piqa = file("piqa")

    def refused(name, said, **asked):
        with pytest.raises(ValueError, match=said):
            ours(model, tmp_path, f"lm_eval:{name}", **asked)

    refused("none.yaml", "no file none.yaml")
    refused("piqa", "has no task 'piqa'")
    refused(piqa, "give .* its own", shots="few")
    refused(piqa, "can't be run, .*ample larger", shots=40)
    twice = f"lm_eval:{piqa}"
    with pytest.raises(ValueError, match="several of the tasks are called lm_eval:local_piqa"):
        ours(model, tmp_path, twice, f"lm_eval:{tmp_path}/../{tmp_path.name}/piqa.yaml")
    lost = {"data_files": {"test": str(tmp_path / "nowhere.jsonl")}}
    refused(file("piqa", dataset_kwargs=lost), "can't be loaded, FileNotFoundError.*data_files")
    refused(file("piqa", task="a/b"), "has a slash")
    refused(
        file("piqa", metric_list=[{"metric": "f1"}], doc_to_target="goal"), "nothing to compare"
    )
    wrong = file("piqa", doc_to_text="{{nothing.at_all}}")
    refused(wrong, "can't be (loaded|asked)")
    sampled = {"until": ["."], "do_sample": True}
    refused(file("written", generation_kwargs=sampled), "does not sample")
    _, found = ours(model, tmp_path, f"lm_eval:{file('piqa', num_fewshot=0)}", shots=1)
    assert found.about["not_run"] == {
        f"lm_eval:{piqa}": "the task takes no demonstrations (num_fewshot: 0)"
    }


def test_a_study_opens_its_tasks_with_all_numbers_of_shots(file):
    name = f"lm_eval:{file('piqa')}"
    found = study_tasks.gather_all(TasksConfig(names=[name], shots=[0, 2, "few"]))
    assert [each.name for each in found.sets] == ["lm_eval:local_piqa"]
    assert list(found.harness) == ["lm_eval:local_piqa, 0 shots", "lm_eval:local_piqa, 2 shots"]
    none, two = found.harness.values()
    assert two == none | {"fingerprint": two["fingerprint"]}
    assert none["fingerprint"] != two["fingerprint"]
    assert (none["version"], none["seed"], none["items"]) == ("3.0", 0, 30)
    with pytest.raises(ValueError, match="can be run with none of"):
        study_tasks.gather_all(TasksConfig(names=[name], shots=["few"]))
    long = study_tasks.gather_all(TasksConfig(names=[f"lm_eval:{file('written')}"]))
    job = SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(sequence_length=4)))
    with pytest.raises(ValueError, match="up to 4 tokens, but sequences have 4"):
        preflight._check_answer_length([job], long.sets)


def test_a_group_stands_for_its_tasks(model, file, tmp_path, monkeypatch):
    for name in ("piqa", "lambada"):
        file(name, tag="both")
    manager = TaskManager(include_defaults=False, include_path=tmp_path)
    monkeypatch.setattr(harness_tasks, "_manager", lambda _: manager)
    sets, found = ours(model, tmp_path, "lm_eval:both", limit=5)
    assert [each.name for each in sets] == ["lm_eval:local_lambada", "lm_eval:local_piqa"]
    assert len(column(found, "acc")) == 10


def test_a_model_must_be_given():
    with pytest.raises(ValueError, match="run="):
        HarnessModel()


def test_requests_of_one_kind_are_answered_together(model):
    harness = HarnessModel(model=model)

    def instances(kind, *arguments):
        return [Instance(kind, {}, a, i) for i, a in enumerate(arguments)]

    settings = {"until": ["\0"], "max_gen_toks": 5, "do_sample": False}
    asked = [(text, settings) for text in ("the wind", "a grain")]
    found = harness.generate_until(instances("generate_until", *asked))
    one = [model.generate([text], stop=["\0"], max_tokens=5, beams=1)[0] for text, _ in asked]
    assert found == one
    with pytest.raises(ValueError, match="sample"):
        harness.generate_until(instances("generate_until", ("a", {**settings, "do_sample": True})))
