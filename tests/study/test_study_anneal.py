"""A study whose arms start from one trunk: how its schedule is split, in which order jobs run."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose
from omegaconf import OmegaConf
from sweeps import jobs_of
from tokens_scored import documents, make_corpus

from ablations import report
from ablations.page.panels import trunk_gains
from ablations.plan import costs, render
from ablations.reading import read_study
from ablations.study import execute, preflight
from ablations.study.design import trunk
from ablations.study.design.jobs import declaration, first_batch, needed, training_config
from ablations.study_files.results import TRUNK, JobKey
from model.training import training_run
from model.training.optimizers.optim import learning_rate
from model.training.train_config import Schedule, TrainConfig
from winnow.commands import command_line

TOY = [
    "experiment=anneal",
    *("model.layers=2", "model.width=16", "model.hidden=32", "model.heads=2"),
    *("model.head_width=8", "model.experts=4", "model.vocabulary=300"),
    *("data.sequence_length=32", "train.batch_rows=4", "train.tokens=2048"),
    *("evaluate.every=0", "evaluate.final_bytes=4000", "train.precision=fp32"),
    *("optimizer.decay_share=0.25", "optimizer.warmup_steps=2", "log.peak_tflops=1"),
    *("allow_underpowered=true", "allow_known_sources=true", "primary.endpoint=heldout/all"),
    "hydra.sweeper.params.seed='1,2'",
]

pytestmark = pytest.mark.usefixtures("hydra")


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    made = make_corpus(tmp_path_factory.mktemp("anneal"), [documents(200, seed=0)])
    return str(made.folder)


@pytest.fixture(scope="module")
def all_jobs(hydra):
    return jobs_of(*TOY)


@pytest.fixture(scope="module")
def whole(hydra):
    """The settings before they are divided."""
    return command_line.checked(compose("ablation", overrides=TOY[:-1]))


def changed(jobs, **settings):
    return [
        dataclasses.replace(job, config=dataclasses.replace(job.config, **settings)) for job in jobs
    ]


def test_trunk_and_arm_are_the_two_parts_of_one_schedule(all_jobs):
    before, arm = (next(j for j in all_jobs if j.is_arm is kind) for kind in (False, True))
    assert (before.config.steps, arm.config.steps) == (12, 4)
    rates = [learning_rate(before.config.optimizer, t, 12) for t in range(1, 13)]
    rates += [learning_rate(arm.config.optimizer, t, 4, 12) for t in range(1, 5)]
    expected = np.interp(range(1, 17), [0, 2, 12, 16], [0, 0.01, 0.01, 0])
    np.testing.assert_allclose(rates, expected, atol=1e-12)


def test_trunks_come_first_and_are_no_arms(all_jobs):
    assert first_batch(all_jobs) == 2
    assert [job.key for job in all_jobs[:2]] == [(TRUNK, "", 1), (TRUNK, "", 2)]
    declared = declaration(all_jobs, {"all": ["web", "wiki"]})
    assert declared.arms == ["unfiltered", "filtered"]
    assert declared.budget["tokens"] == 512
    assert declared.budget["trunk_tokens"] == 1536
    for job in all_jobs:
        start = f"runs/anneal/trunk/seed_{job.config.seed}/training" if job.is_arm else None
        assert training_config(job, {})["train"]["start"] == start
    seeds = {job.key: training_config(job, {})["seed"] for job in all_jobs}
    assert seeds["unfiltered", "", 1] == seeds["filtered", "", 1] == 1
    assert not {seeds[TRUNK, "", 1], seeds[TRUNK, "", 2]} & {1, 2}
    with pytest.raises(ValueError, match="data=trunk first"):
        first_batch(all_jobs[::-1])


def test_one_trunk_for_all_seeds(all_jobs):
    jobs = changed(all_jobs, trunk_seed=2)
    assert first_batch(jobs) == 2  # as they are launched
    kept = needed(jobs)
    assert [job.key for job in kept if not job.is_arm] == [(TRUNK, "", 2)]
    starts = {training_config(job, {})["train"]["start"] for job in kept if job.is_arm}
    assert starts == {"runs/anneal/trunk/seed_2/training"}
    (said,) = declaration(kept, {"all": ["web"]}).notes
    assert "the verdict is about this trunk" in said
    with pytest.raises(ValueError, match="not one of the seeds"):
        first_batch(changed(all_jobs, trunk_seed=3))


def test_the_plan_counts_the_trunk_once(all_jobs):
    table = costs(all_jobs, None)
    declared = declaration(all_jobs, {"all": ["web"]})
    declared = dataclasses.replace(declared, repeats_from={"filtered": 600})
    plan = render(all_jobs, declared, table)
    assert "6 jobs, 2 arms x 1 variants x 2 seeds, from 2 trunks" in plan
    each = {cost.arm: cost.flops for cost in table}
    whole = 4 * (each[TRUNK] + each["filtered"])
    spent = 2 * each[TRUNK] + 4 * each["filtered"]
    assert f"Compute: {spent:.3g} FLOPs (full runs of every arm: {whole:.3g})" in plan
    assert "after 600 tokens, beyond its 512\n" in plan + "\n"


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("optimizer", {"schedule": Schedule.cosine}, "use optimizer.schedule=wsd"),
        ("train", {"start": "elsewhere"}, "leave train.start out"),
        ("optimizer", {"decay_share": 0.01}, "the arms train the last 0"),
    ],
)
def test_what_can_not_be_cut_is_refused(whole, part, changes, said):
    changed = dataclasses.replace(getattr(whole, part), **changes)
    with pytest.raises(ValueError, match=said):
        trunk.split_schedule(dataclasses.replace(whole, **{part: changed}))


def in_process(script, arguments, log, threads, study=None):
    """``model/train.py`` without an interpreter of its own."""
    assert script == "model/train.py"
    with open(os.path.join(arguments[1], "training.yaml")) as file:
        settings = yaml.safe_load(file)
    settings = {k: v for k, v in settings.items() if k not in ("defaults", "hydra")}
    config = OmegaConf.merge(OmegaConf.structured(TrainConfig), settings)
    training_run.train(OmegaConf.to_object(config))


@pytest.mark.slow
def test_from_the_trunk_to_the_page(all_jobs, corpus_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "run_python", in_process)
    output = str(tmp_path / "study")
    jobs = []
    for job in all_jobs:
        data = dataclasses.replace(job.config.data, corpus=corpus_folder)
        jobs += changed([job], corpus=corpus_folder, output=output, data=data)
    study = preflight.check(jobs)
    preflight.write(jobs, study)
    trunks, arms = ([j for j in jobs if j.is_arm is kind] for kind in (False, True))

    execute.execute(arms[0], 1)  # too early
    failed = read_study(output).failed
    assert list(failed) == [arms[0].key]
    assert "the trunk in" in failed[arms[0].key]

    with monkeypatch.context() as broken:
        broken.setattr(execute, "run_python", lambda *given: in_process("none", *given[1:]))
        execute.execute(trunks[0], 1)
    assert list(read_study(output).failed) == [arms[0].key, trunks[0].key]

    for job in [*trunks, *arms]:
        execute.execute(job, 1)
    found = read_study(output)
    assert not found.failed
    assert found.runs.keys() == {job.key for job in arms}
    assert found.trunks.keys() == {job.key for job in trunks}
    for key, run in found.runs.items():
        start = run.result.provenance["start"]
        assert start["checkpoint"].startswith(JobKey(TRUNK, "", key.seed).folder(output))
        assert (start["tokens"], start["updates"], run.result.tokens) == (1536, 12, 512)
        before = found.trunks[TRUNK, "", key.seed].result.flops
        assert run.result.flops > before > 2 * (run.result.flops - before)
    rows = trunk_gains(found, ValueError())
    for row in rows:
        assert row["Change"] == pytest.approx(row["Arm’s end"] - row["Trunk"])
    assert {row["Arm"] for row in rows} == {"unfiltered", "filtered"}

    page = Path(report.write_report(output)).read_text()
    assert "after the last 512 of 2,048 tokens" in page
    assert "Each seed has its own trunk" in page
    assert "From the trunk" in page

    # A trunk of other settings in the same place is not what the arms began from.
    path = tmp_path / "study" / "trunk" / "seed_1" / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"optimizer.warmup_steps": 3}))
    shutil.rmtree(tmp_path / "study" / "filtered")
    with pytest.raises(ValueError, match=r"other settings \(trunk\.settings"):
        execute.execute(next(j for j in arms if j.key == ("unfiltered", "", 1)), 1)
