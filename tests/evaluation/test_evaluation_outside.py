"""Tasks of lm-evaluation-harness among ours, as far as it takes no lm-eval."""

import importlib.util

import numpy as np
import pytest

from ablations.contrasts import endpoints
from ablations.evaluation import harness_requests, harness_tasks
from ablations.evaluation.harness_requests import Request
from ablations.study.design import study_tasks
from ablations.study.design.config import TasksConfig
from ablations.study_files import metrics
from ablations.tasks.language_model import LogLikelihoods
from ablations.tasks.task import NO_SHOTS, select, shots_of

NAME = "lm_eval:arc_easy"


class Lengths:
    """A model whose log-probability is the length of a text, and which writes its context."""

    def __init__(self):
        self.calls = []

    def loglikelihood(self, contexts, continuations):
        self.calls.append(list(zip(contexts, continuations, strict=True)))
        lengths = np.array([len(text) for text in continuations], np.float64)
        zeros = np.zeros(len(lengths), np.bool_)
        return LogLikelihoods(-lengths, lengths.astype(np.int64), lengths > 2, zeros)

    def document_loglikelihood(self, texts):
        return np.array([-10.0 * len(text) for text in texts])

    def generate(self, contexts, *, stop, max_tokens, beams):
        self.calls.append((list(contexts), stop, max_tokens, beams))
        return [context.upper() for context in contexts]


def test_requests_of_all_kinds_are_answered_in_their_order():
    short = {"until": "\n", "max_gen_toks": 3}
    requests = [
        Request("generate_until", ("b", short)),
        Request("loglikelihood", ("q", " yes")),
        Request("loglikelihood_rolling", ("whole",)),
        Request("generate_until", ("c", {"until": ["x", ""], "num_beams": 2})),
        Request("loglikelihood", ("q", "no")),
        Request("generate_until", ("d", short)),
    ]
    model = Lengths()
    found, more = harness_requests.answer(model, requests, [("p", "12345")])
    assert found == ["B", (-4.0, True), -50.0, "C", (-2.0, False), "D"]
    assert more.logprob.tolist() == [-5.0]
    assert model.calls == [
        [("q", " yes"), ("q", "no"), ("p", "12345")],
        (["b", "d"], ("\n",), 3, 1),
        (["c"], ("x",), harness_requests.MAX_TOKENS, 2),
    ]
    with pytest.raises(ValueError, match=r"of the kind \[.score"):
        harness_requests.answer(model, [Request("score", ("q",))])
    with pytest.raises(ValueError, match="does not sample"):
        harness_requests.generation_settings({"do_sample": True, "temperature": 0.7})


def test_the_harness_is_asked_for_where_it_is_named(monkeypatch):
    assert select([NAME, "piqa", NAME]) == [NAME, "piqa"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'winnow-lm\[harness\]'"):
        harness_tasks.task_sets(NAME, 0, None, 0)


def test_glam_had_no_such_task():
    assert (shots_of(NAME, "few"), shots_of(NAME, "3")) == (NO_SHOTS, 3)
    found = study_tasks.tasks_by_shots(TasksConfig(names=[NAME, "triviaqa"], shots=[0, "few"]))
    assert found == {0: [NAME, "triviaqa"], "few": ["triviaqa"]}


@pytest.mark.parametrize(
    ("metric", "gain", "unit", "label"),
    [
        ("acc_norm", 1, "points", "acc norm"),
        ("exact_match:strict-match", 1, "points", "exact match:strict-match"),
        ("bits_per_byte", -1, "bits per byte", "bits per byte"),
        ("ter_less_is_better", -1, "points", "ter less is better"),
        ("ter_less_is_better:first", -1, "points", "ter less is better:first"),
    ],
)
def test_the_name_of_a_metric_tells_its_direction_and_unit(metric, gain, unit, label):
    name = f"task/{NAME}/{metric}/5"
    assert (endpoints.gain(name), endpoints.unit(name)) == (gain, unit)
    assert endpoints.label(name) == f"{NAME} {label}, 5 shots"
    assert metrics.scale(metric) == (1 if unit == "bits per byte" else 100)


def test_a_task_that_has_changed_since_a_study_began_is_refused():
    about = {"title": NAME, "shots": 1, "version": "1.0", "lm_eval": "0.4.13", "seed": 0}
    about |= {"items": 9, "fingerprint": "a", "path": "anywhere"}
    declared = {f"{NAME}, 1 shot": {key: about[key] for key in study_tasks.IDENTITY}}
    study_tasks.check_unchanged({NAME: about, "piqa": {"shots": 1}}, declared)
    for changed in ({"fingerprint": "b"}, {"shots": 2}):
        with pytest.raises(ValueError, match="has changed since the study started"):
            study_tasks.check_unchanged({NAME: about | changed}, declared)
    told = study_tasks.provenance(declared)["tasks"][f"{NAME}, 1 shot"]
    assert told == "version 1.0 (lm-eval 0.4.13), 9 items, seed 0, fingerprint a"
    assert study_tasks.provenance({}) == {}
