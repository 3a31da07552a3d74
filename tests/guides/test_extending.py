"""Adds from outside what CONTRIBUTING.md lists; steps are in test_extending_guide.py."""

import dataclasses
import gzip
import json
import re

import numpy as np
import pyarrow as pa
import pytest
import torch
import written_study
from corpora import write_jsonl
from report_run import invented
from report_run import write_run as write_report

from ablations.analyses.comparison import compare
from ablations.evaluation.evaluation import EvaluationRequest, evaluate_sets, gather
from ablations.page import data as study_page
from ablations.reading import read_study
from ablations.report import gather as page_of
from ablations.tasks import scores
from ablations.tasks import task as tasks
from ablations.tasks.data_sources import DataSources
from ablations.tasks.language_model import LogLikelihoods
from ablations.tasks.task import select
from model import sizes
from model.glam import experts, routing
from model.glam.config import GLaMConfig
from model.glam.transformer import GLaM
from pipeline.page import Panel, report_data
from pipeline.readers import (
    FieldMap,
    StreamFormat,
    document_schema,
    formats,
    plan_ranges,
    read_batches,
)
from pipeline.rules.decision import Rule
from quality_classifier import artifact
from quality_classifier.kinds import KINDS
from quality_classifier.kinds.calibration import Calibration
from quality_classifier.kinds.contract import Model
from quality_classifier.scoring import load_classifier


def read_recipes(pieces, offset, reading):
    """Documents that end with a line of ``%%``; one without text is bad."""
    at = offset
    texts = []
    for part in b"".join(pieces).removeprefix(b"%%recipes\n").split(b"%%\n")[:-1]:
        if part.strip():
            texts.append(part.decode())
        else:
            reading.quarantine.add(at, "byte", "missing_text", part)
        at += len(part)
    columns = [pa.nulls(len(texts), pa.string())] * 2 + [pa.array(texts, pa.large_string())]
    yield pa.RecordBatch.from_arrays(columns, schema=document_schema())


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_format_is_recognised_and_read(tmp_path, monkeypatch, pack):
    path = str(tmp_path / "recipes")
    content = b"%%recipes\nboil water\n%%\n \n%%\nadd salt\n%%\n"
    (tmp_path / "recipes").write_bytes(pack(content))
    with pytest.raises(ValueError, match="unknown format"):
        plan_ranges(path)
    recipes = StreamFormat("recipes", rb"%%recipes\n", read_recipes)
    monkeypatch.setattr(formats, "FORMATS", [*formats.FORMATS, recipes])
    (piece,) = plan_ranges(path)
    bad = []
    (batch,) = read_batches(piece, FieldMap(), on_quarantine=bad.append)
    assert batch["text"].to_pylist() == ["boil water\n", "add salt\n"]
    assert [record.reason for record in bad] == ["missing_text"]


@dataclasses.dataclass(frozen=True)
class Length(Model):
    """Long text is good text."""

    scale: float
    kind = "length"
    weights_file = "scale.txt"

    def margins(self, text):
        return self.scale * pa.compute.utf8_length(text).to_numpy()

    def rules(self):
        return {"unit": "characters"}

    def save(self, path):
        path.write_text(repr(self.scale))

    @classmethod
    def load(cls, path, rules):
        assert rules["unit"] == "characters"
        return cls(float(path.read_text()))

    @classmethod
    def fit(cls, train, calibration, how):
        raise NotImplementedError


def test_a_kind_of_classifier_is_saved_loaded_and_scores(tmp_path, monkeypatch):
    calibration = Calibration.identity()
    fingerprints = [
        artifact.save(tmp_path / str(scale), Length(scale), calibration, {}, {}, {})
        for scale in (0.25, 0.5)
    ]
    with pytest.raises(ValueError, match="unknown kind 'length'"):
        load_classifier(str(tmp_path / "0.25"))
    monkeypatch.setitem(KINDS, "length", Length)
    classifier = load_classifier(str(tmp_path / "0.25"))
    score = classifier.score(pa.array(["", "four", "8 letter"], pa.large_string()))
    assert score == pytest.approx(1 / (1 + np.exp(-np.array([0, 1, 2]))), abs=1e-6)
    assert classifier.fingerprint == fingerprints[0] != fingerprints[1]
    (tmp_path / "0.25" / "scale.txt").write_text("1.0")
    with pytest.raises(ValueError, match=r"scale\.txt does not match its checksum"):
        load_classifier(str(tmp_path / "0.25"))


def route_top1(logits_TE, *, groups=1, capacity=None, uniforms_T=None):
    """Switch (Fedus et al. 2022) without capacity: the most probable expert."""
    probability_TE = logits_TE.softmax(-1)
    gate_T, expert_T = probability_TE.max(-1)
    order_T = expert_T.argsort(stable=True)
    load_E = torch.bincount(expert_T, minlength=logits_TE.shape[1])
    nothing = logits_TE.new_zeros(())
    return routing.Routing(
        expert_CT=expert_T[None],
        order_R=order_T,
        place_CT=order_T.argsort()[None],
        ends_E=load_E.cumsum(0).to(torch.int32),
        gates_CT=gate_T[None],
        may_drop=False,
        balance_loss=nothing,
        z_loss=nothing,
        metrics=routing.RouterMetrics(load_E / len(logits_TE), nothing, nothing),
    )


def test_a_router_and_an_expert_backend_make_a_model(monkeypatch):
    """With equal experts only the gates differ: for one choice its probability."""
    called = []

    def counted(of):
        called.append(of.ends_E.tolist())
        return experts.loop_experts(of)

    config = GLaMConfig(
        vocabulary=40, layers=2, width=16, hidden=24, heads=2, head_width=8, experts=4
    )
    with pytest.raises(ValueError, match=r"no model\.router=top1: choose one of top2"):
        GLaM(dataclasses.replace(config, router="top1"))
    monkeypatch.setitem(routing.ROUTERS, "top1", routing.Router(route_top1, 1))
    monkeypatch.setitem(experts.BACKENDS, "counted", counted)
    both = [
        GLaM(dataclasses.replace(config, router=router), expert_backend="counted")
        for router in ("top1", "top2")
    ]
    hidden = []
    tokens = torch.arange(12).view(2, 6)
    for model in both:
        layer = model.layers[0].feed_forward
        with torch.no_grad():
            for weight in (layer.experts.w_in, layer.experts.w_out):
                weight.weight.copy_(weight.weight[:1].expand_as(weight.weight).clone())
        x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
        y, _ = layer(x, None)
        hidden.append(y.flatten(0, 1))
    (one, two) = hidden
    logits = x.flatten(0, 1) @ both[0].layers[0].feed_forward.router.linear.weight
    torch.testing.assert_close(one, two * logits.softmax(-1).max(-1).values[:, None])
    assert [ends[-1] for ends in called] == [12, 24]
    loss = both[0].loss(tokens, tokens)
    loss.total.backward()
    assert all(p.grad is not None for p in both[0].parameters())
    # One expert of four is active, where it was two.
    counts = [sizes.count(model.config) for model in both]
    assert counts[1].active - counts[0].active == 2 * 16 * 24


class Longest:
    """A model that prefers longer continuations."""

    def loglikelihood(self, contexts, continuations):
        lengths = np.array([len(text) for text in continuations], np.float64)
        yes = np.ones(len(lengths), np.bool_)
        return LogLikelihoods(lengths - 100, np.full(len(lengths), 2), yes, ~yes)


def sure(task, found):
    """The lead of the better of two choices, in nats: a made-up metric."""
    lead = np.abs(np.subtract.reduceat(found.logprob, found.starts))
    return scores.Parts(lead) if len(found.logprob) == 2 * len(lead) else None


def test_a_task_and_a_metric_reach_the_table_of_a_comparison(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sizes.yaml").write_text(
        "{title: Sizes, group: extra, form: choice, rule: sum, few: 4, sources: ours,"
        " prompt: 'Larger?', fields: {choices: '[a, b]', gold: label},"
        " data: {local: {path: sizes.jsonl}}}"
    )
    rows = [{"a": "mouse", "b": "elephant", "label": 1}, {"a": "whale", "b": "ant", "label": 1}]
    write_jsonl(tmp_path / "sizes.jsonl", rows)
    monkeypatch.setattr(tasks, "FOLDERS", [*tasks.FOLDERS, tmp_path / "tasks"])
    monkeypatch.setitem(scores.METRICS, "sure", sure)
    where = DataSources(["local"], tmp_path, tmp_path)
    found = evaluate_sets(Longest(), *gather(EvaluationRequest(select(["sizes"])), where))
    values = {score.metric: score.value for score in found.summary}
    assert values["accuracy"] == 0.5
    assert values["sure"] == ((8 - 5) + (5 - 3)) / 2
    study = str(tmp_path / "study")
    written_study.write_study(study, -0.02, written_study.declare(seeds=[1, 2]), tasks=found.tasks)
    table = compare(read_study(study)).tables["tasks"]
    shown = {(row["arm"], row["endpoint"]): row["value"] for row in table}
    assert shown["filtered", "task/sizes/sure/0"] == pytest.approx(100 * values["sure"])


def embedded(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_a_panel_is_on_the_page_of_a_run_and_of_a_study(tmp_path, monkeypatch):
    rates = Panel("Rules", lambda manifest, statistics: [manifest["rule"]], "As decided.")
    monkeypatch.setitem(report_data.PANELS, "rules", rates)
    batches = {"web": invented("web", 40, np.random.default_rng(0))}
    write_report(tmp_path / "run", batches, Rule("pareto", 9.0), {"web"})
    drawn = embedded((tmp_path / "run" / "report.html").read_text())["panels"]
    (panel,) = (panel for panel in drawn if panel["title"] == "Rules")
    assert panel["hint"] == "As decided."
    shown = dict(zip(panel["columns"], panel["rows"][0], strict=True))
    assert shown["name"] == "pareto"
    assert shown["parameter"] == 9.0

    arms = Panel("Arms", lambda study, found: [{"arm": arm} for arm in study.declared.arms])
    nothing = Panel("Nothing", lambda study, found: [])
    monkeypatch.setitem(study_page.PANELS, "arms", arms)
    monkeypatch.setitem(study_page.PANELS, "nothing", nothing)
    study = str(tmp_path / "study")
    written_study.write_study(study, -0.02, written_study.declare(seeds=[1, 2]))
    panels = {panel["title"]: panel for panel in page_of(study, read_study(study), None)["panels"]}
    assert panels["Arms"]["rows"] == [["unfiltered"], ["filtered"]]
    assert "Nothing" not in panels
