"""lm-evaluation-harness and our evaluation, on the same model, data and rules: the same numbers."""

import importlib.util
import json

import numpy as np
import pytest
from tokens_scored import WORDS

from ablations.tasks import responses
from ablations.tasks import task as tasks
from ablations.tasks.items import items_of
from ablations.tasks.scores import scores, summarise
from ablations.tasks.token_model import TokenModel
from model.data import tokenizer
from model.glam.config import GLaMConfig
from model.glam.transformer import GLaM

if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("lm-eval is not installed", allow_module_level=True)

from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from ablations.harness import HarnessModel

pytestmark = pytest.mark.slow

HARNESS = {
    "piqa": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": "{{[sol1, sol2]}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_bytes"}],
    },
    "winogrande": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{answer | int - 1}}",
        "doc_to_choice": "{{[sentence.split('_')[0] + option1, sentence.split('_')[0] + option2]}}",
        "doc_to_target": "{{sentence.split('_')[1].strip()}}",
        "metric_list": [{"metric": "acc"}],
    },
    "lambada": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.rsplit(' ', 1)[0]}}",
        "doc_to_target": "{{' ' + text.rsplit(' ', 1)[1]}}",
        "metric_list": [{"metric": "acc"}],
    },
}
"""The harness's own definitions of these tasks, written out to be read from local files."""


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
    for _ in range(40):
        if name == "piqa":
            yield {
                "goal": phrase(random),
                "sol1": phrase(random),
                "sol2": phrase(random),
                "label": int(random.integers(2)),
            }
        elif name == "winogrande":
            yield {
                "sentence": f"{phrase(random)} _ {phrase(random)}",
                "option1": "wind",
                "option2": "grain of the wind",
                "answer": str(random.integers(1, 3)),
            }
        else:
            yield {"text": f"{phrase(random)} {phrase(random)}"}


@pytest.mark.parametrize("name", list(HARNESS))
def test_the_same_numbers(model, tmp_path, monkeypatch, name):
    rows = list(records(name))
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    config = {
        "task": f"local_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        **HARNESS[name],
    }
    theirs = simple_evaluate(
        HarnessModel(model=model),
        tasks=[config],
        num_fewshot=0,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )
    task = tasks.load(name)
    items = items_of(task, task.data["hub"], rows)
    table = responses.logprobs(task, items, 0, model)
    ours = {score.metric: score.value for score in summarise(scores([task], table))}
    found = theirs["results"][f"local_{name}"]
    metric = "accuracy_sum" if name == "piqa" else "accuracy"
    assert found["acc,none"] == pytest.approx(ours[metric])
    if name == "piqa":
        assert found["acc_bytes,none"] == pytest.approx(ours["accuracy_per_byte"])
    # Not the scores alone: every log-probability.
    samples = sorted(theirs["samples"][f"local_{name}"], key=lambda sample: sample["doc_id"])
    logprob = [
        float(answer[0][0] if isinstance(answer[0], list | tuple) else answer[0])
        for sample in samples
        for answer in sample["resps"]
    ]
    np.testing.assert_allclose(logprob, table["logprob"].to_numpy(), atol=1e-4)


def ask(kind, *arguments):
    return [Instance(kind, {}, a, i) for i, a in enumerate(arguments)]


def test_whole_texts_and_generation(model):
    harness = HarnessModel(model=model)
    texts = ["the wind and the grain", "far"]
    rolling = harness.loglikelihood_rolling(ask("loglikelihood_rolling", *((t,) for t in texts)))
    whole = model.loglikelihood(["", ""], texts)
    assert rolling == pytest.approx(whole.logprob.tolist(), abs=1e-4)
    settings = {"until": ["\0"], "max_gen_toks": 5, "do_sample": False}
    (text,) = harness.generate_until(ask("generate_until", ("the wind", settings)))
    assert [text] == model.generate(["the wind"], stop=["\0"], max_tokens=5, beams=1)
    with pytest.raises(ValueError, match="sample"):
        harness.generate_until(ask("generate_until", ("a", {**settings, "do_sample": True})))


def test_a_model_must_be_given():
    with pytest.raises(ValueError, match="run="):
        HarnessModel()
