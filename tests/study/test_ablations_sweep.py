"""Sweeps before they run: what jobs they make, what they are refused for, what they will take."""

import dataclasses
import os

import pytest
import yaml
from hydra import compose
from hydra.errors import HydraException
from sweeps import composed, jobs_of
from tokens_scored import documents, make_corpus

from ablations import plan
from ablations.stats.power import minimum_detectable_effect
from ablations.study import execute, preflight
from ablations.study.design import arms
from ablations.study.design.jobs import declaration, identity, threads_of, training_config
from ablations.study.progress import JobState, summary, time_left
from ablations.study_files.results import config_hash, write_declaration
from ablations.study_files.variant_choice import Compare
from model import sizes
from winnow.defaults import CONF
from winnow.version import code_version

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hydra")]

HELDOUT = {"curated": ["wiki"], "web": ["web"]}
STUDIES = sorted(
    name.removesuffix(".yaml") for name in os.listdir(os.path.join(CONF, "experiment"))
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("sweep"), [documents(300, seed=0)])


def sweep(*overrides):
    return compose("ablation", overrides=list(overrides), return_hydra_config=True)


def test_data_quality_is_every_arm_with_every_seed_and_seeds_come_first():
    jobs = jobs_of("experiment=data_quality", "seed=7,8")
    names = ["unfiltered", "pareto", "threshold", "random"]
    assert [job.key for job in jobs] == [(name, "", seed) for seed in (7, 8) for name in names]
    assert [job.config.data.rule.value for job in jobs[:4]] == ["all", *names[1:]]
    assert {job.model for job in jobs} == {"glam_1m_16e"}
    assert jobs[1].folder == "runs/data_quality/pareto/seed_7"


@pytest.mark.parametrize(
    ("asked", "threads"), [(None, 4), ("1", 1), ("3", 3), ("16", 4), ("0", 4), ("many", 4)]
)
def test_a_job_has_its_share_of_the_cores_or_fewer_threads_as_asked(monkeypatch, asked, threads):
    monkeypatch.setattr("ablations.study.design.jobs._cores", lambda: 8)
    monkeypatch.setattr("ablations.study.design.jobs.slots_of", lambda _: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads_of(None) == threads


def test_any_setting_of_training_can_be_swept():
    jobs = jobs_of("data=filtered,unfiltered", "model.experts=4,8", "variant=e${model.experts}")
    assert {job.key for job in jobs} == {
        (arm, variant, 0) for arm in ("filtered", "unfiltered") for variant in ("e4", "e8")
    }
    assert {job.model for job in jobs} == {"glam_1m_16e experts=4", "glam_1m_16e experts=8"}


@pytest.mark.parametrize("scale", ["gpu", "paper"])
@pytest.mark.parametrize("study", STUDIES)
def test_every_study_composes_and_declares_itself_at_larger_scales(study, scale):
    jobs = jobs_of(f"experiment={study}", f"scale={scale}", "seed=1", "swarm.runs=2")
    declared = declaration(jobs, HELDOUT)
    assert declared.name == study
    assert declared.primary.treatment in declared.arms
    arms = [job for job in jobs if job.is_arm]
    assert len(arms) == len(declared.arms) * len(declared.variants)


@pytest.mark.parametrize("study", [name for name in STUDIES if name != "smoke"])
def test_no_named_study_of_the_cpu_scale_is_underpowered_by_its_own_numbers(study):
    jobs = jobs_of(f"experiment={study}", "swarm.runs=2")
    assert preflight.underpowered(jobs[0].config, declaration(jobs, HELDOUT)) is None


def test_the_papers_scale_is_launched_by_slurm_with_a_process_for_each_gpu_and_fits():
    config = sweep("experiment=data_quality", "scale=paper", "hydra.launcher.partition=gpus")
    launcher = config.hydra.launcher
    assert launcher._target_.endswith(".SlurmLauncher")
    assert launcher.partition == "gpus"
    assert launcher.nodes * launcher.gpus_per_node == config.hardware.devices
    assert launcher.tasks_per_node == launcher.gpus_per_node
    jobs = jobs_of("experiment=data_quality", "scale=paper", "seed=1")
    (cost, *_) = plan.costs(jobs, None)
    assert cost.parameters_total == pytest.approx(27e9, rel=0.02)
    assert cost.fits
    assert cost.memory < sizes.ACCELERATORS["h100"].memory
    # 6 FLOPs a token for each active parameter, and a little for attention.
    assert 1 < cost.flops / (6 * 1.879e9 * cost.tokens) < 1.1
    assert cost.seconds == pytest.approx(cost.flops / (64 * 989e12 * 0.28))
    assert cost.kwh == pytest.approx(cost.seconds * 64 * 700 * 1.11 / 3.6e6)


def test_a_model_too_large_for_its_devices_is_said_not_to_fit():
    overrides = ["scale=paper", "model=glam_64b_64e", "hardware.devices=8"]
    jobs = jobs_of("experiment=data_quality", "seed=1", *overrides)
    table = plan.costs(jobs, None)
    assert not any(cost.fits for cost in table)
    assert "use more hardware.devices" in plan.render(jobs, declaration(jobs, HELDOUT), table)


@pytest.mark.parametrize(
    "override",
    [
        *("data.alfa=3", "train.token=5", "primary.smalest_difference=1", "model.experts=many"),
        *("hardware.watts=much", "data.rule=best", "experiment=none"),
    ],
)
def test_a_wrong_key_or_type_is_refused_when_the_config_is_composed(override):
    with pytest.raises(HydraException):
        sweep(override)


def test_a_value_out_of_range_is_refused_before_anything_runs():
    with pytest.raises(Exception, match=r"train\.tokens must be at least 1"):
        jobs_of("data=filtered,unfiltered", "train.tokens=0")
    with pytest.raises(Exception, match=r"hardware\.accelerator=abacus"):
        jobs_of("data=filtered,unfiltered", "hardware.accelerator=abacus")


def test_jobs_that_would_share_a_folder_are_refused():
    with pytest.raises(ValueError, match="two jobs called filtered seed 0"):
        jobs_of("data=filtered,unfiltered", "optimizer.multiplier=1,2")


def test_arms_that_are_not_there_and_grids_with_holes_are_refused():
    with pytest.raises(ValueError, match="no job has the arm 'filtered'"):
        declaration(jobs_of("data=pareto,unfiltered"), HELDOUT)
    jobs = jobs_of("data=filtered,unfiltered", "seed=1,2")
    with pytest.raises(ValueError, match="don't fill the grid"):
        declaration(jobs[:-1], HELDOUT)


def test_a_study_is_refused_when_it_can_not_find_what_it_looks_for(tmp_path):
    overrides = ["data=filtered,unfiltered", "noise.seed_sd=0.02", "noise.item_error=0.001"]
    config = jobs_of(*overrides, "seed=1,2,3")[0].config
    declared = declaration(jobs_of(*overrides, "seed=1,2,3"), HELDOUT)
    wanted = minimum_detectable_effect(0.02, 3, 0.001, 0.05, 0.8)
    assert preflight.detectable(config, declared) == wanted
    assert f"{wanted:.4g}" in preflight.underpowered(config, declared)
    allowed = dataclasses.replace(config, allow_underpowered=True)
    assert preflight.underpowered(allowed, declared) is None
    one = declaration(jobs_of(*overrides, "seed=1"), HELDOUT)
    assert "1 seeds" in preflight.underpowered(config, one)


def test_what_a_study_is_about_can_not_change_but_it_can_grow(tmp_path):
    declared = declaration(jobs_of("data=filtered,unfiltered", "seed=1,2"), HELDOUT)
    write_declaration(str(tmp_path), declared)
    grown = declaration(jobs_of("data=filtered,unfiltered,random", "seed=1,2,3"), HELDOUT)
    preflight.check_declared_before(str(tmp_path), grown)
    smaller = declaration(jobs_of("data=filtered,unfiltered", "seed=2,3"), HELDOUT)
    with pytest.raises(ValueError, match=r"seeds \[1\] too"):
        preflight.check_declared_before(str(tmp_path), smaller)
    overrides = ["data=filtered,unfiltered", "seed=1,2", "primary.endpoint=heldout/web"]
    with pytest.raises(ValueError, match="can't change once it has started"):
        preflight.check_declared_before(str(tmp_path), declaration(jobs_of(*overrides), HELDOUT))


def test_where_arms_are_compared_is_declared_and_takes_something_to_choose_among(tmp_path):
    sweep = ["experiment=learning_rate", "seed=1", "optimizer.multiplier=1.0,2.0"]
    jobs = jobs_of(*sweep, "data=unfiltered,pareto", "compare.at=best", "compare.selection=0.3")
    declared = declaration(jobs, HELDOUT)
    assert declared.compare == Compare("best", 0.3)
    write_declaration(str(tmp_path), declared)
    preflight.check_declared_before(str(tmp_path), declared)
    with pytest.raises(ValueError, match="can't change once it has started"):
        preflight.check_declared_before(str(tmp_path), dataclasses.replace(declared, compare=None))
    with pytest.raises(ValueError, match="needs several learning rates or passes"):
        declaration(jobs_of("data=filtered,unfiltered", "seed=1", "compare.at=lowest"), HELDOUT)


def test_seeds_of_an_arm_are_of_one_config_and_arms_are_not(corpus):
    jobs = jobs_of("experiment=data_quality", "seed=1,2", f"corpus={corpus.folder}")
    mixture = arms.pool_shares(corpus)
    hashes = {}
    for job in jobs:
        arms.ensure(corpus, job.config.data)
        training = training_config(job, mixture)
        assert training["seed"] == job.config.seed
        assert training["data"]["mixture"] == mixture
        hashes[job.key] = config_hash(identity(job, training, corpus))
    for arm in ("unfiltered", "pareto", "threshold", "random"):
        assert hashes[arm, "", 1] == hashes[arm, "", 2]
    assert len(set(hashes.values())) == 4


def test_what_changes_no_weight_and_no_figure_leaves_the_hash_alone(corpus):
    mixture = arms.pool_shares(corpus)

    def of(*overrides):
        (job, *_) = jobs_of("data=filtered,unfiltered", f"corpus={corpus.folder}", *overrides)
        return config_hash(identity(job, training_config(job, mixture), corpus))

    same = of()
    assert of("checkpoint.every=7", "log.every=3", "output=elsewhere", "hardware.watts=3") == same
    for change in ("train.tokens=5", "model.experts=4", "evaluate.final_bytes=9", "tasks.limit=3"):
        assert of(change) != same


def test_a_study_resumes_what_training_would_resume_and_nothing_else(corpus, tmp_path):
    mixture = arms.pool_shares(corpus)

    def job_and_identity(*overrides):
        common = ["data=filtered,unfiltered", f"corpus={corpus.folder}", f"output={tmp_path}"]
        (job, *_) = jobs_of(*common, *overrides)
        return job, identity(job, training_config(job, mixture), corpus)

    job, about = job_and_identity()
    execute.write_config(job, training_config(job, mixture), about)
    for override in ("train.recompute=true", "train.device=cuda", "train.expert_parallel=1"):
        execute.check_identity(*job_and_identity(override))
    for override, said in (
        ("optimizer.multiplier=2", r"optimizer\.multiplier: 1\.0 then, 2\.0 now"),
        ("optimizer.learning_rate=0.5", r"optimizer\.learning_rate: .* then, 0\.5 now"),
        # Training would go on to more tokens; a result is of as many as it was of.
        ("train.tokens=2000000", r"train\.tokens: 1000000 then, 2000000 now"),
        ("evaluate.final_bytes=9", r"evaluate\.final_bytes: None then, 9 now"),
    ):
        with pytest.raises(ValueError, match=said):
            execute.check_identity(*job_and_identity(override))


def test_the_plan_counts_what_is_read_and_warns_of_repeats(corpus, monkeypatch):
    monkeypatch.setattr(plan.speed, "measure", lambda *_: plan.speed.Speed(2.0, 0.5, 0.001, 1e9))
    sizes_of = ["data.sequence_length=16", "train.batch_rows=2", "evaluate.every=0"]
    overrides = ["data=filtered,unfiltered", "seed=1,2", f"corpus={corpus.folder}", *sizes_of]
    jobs = jobs_of(*overrides, "train.tokens=64000", "jobs_at_once=1")
    declared = dataclasses.replace(declaration(jobs, HELDOUT), mixture=arms.pool_shares(corpus))
    table = plan.costs(jobs, corpus, declared)
    filtered, unfiltered = table
    pool = int((corpus.lengths[corpus.pool] + 1).sum())
    assert unfiltered.unique_tokens <= pool  # rows of sources are dealt out in whole shares
    assert unfiltered.unique_tokens == pytest.approx(pool, rel=0.02)
    assert filtered.unique_tokens < unfiltered.unique_tokens
    assert unfiltered.epochs == pytest.approx(64000 / unfiltered.unique_tokens)
    held = corpus.held_out & corpus.reached
    assert unfiltered.seconds == pytest.approx(2 + 2000 * 0.5 + 0.001 * corpus.bytes[held].sum())
    text = plan.render(jobs, declared, table)
    assert "WARNING: filtered reads its web" in text
    assert f"Time: {plan.duration(2 * (filtered.seconds + unfiltered.seconds))}" in text
    short = jobs_of(*overrides, "train.tokens=64", "jobs_at_once=1")
    assert "WARNING" not in plan.render(
        short, declaration(short, HELDOUT), plan.costs(short, corpus, declared)
    )


def test_the_plan_command_says_what_it_takes_or_why_not(capsys):
    from hydra.core.hydra_config import HydraConfig

    config = composed(["experiment=data_quality", "scale=paper", "seed=1,2"])
    HydraConfig.instance().set_config(config)
    with pytest.raises(SystemExit, match="1"):
        plan.PlanCallback().on_multirun_start(config, config_name="ablation")
    said = capsys.readouterr()
    assert "8 jobs, 4 arms" in said.out
    assert "underpowered: 2 seeds" in said.err
    assert "seed=1,2,3,4,5\n" in said.err


def test_a_declaration_is_what_the_reader_reads(tmp_path):
    declared = declaration(jobs_of("experiment=learning_rate", "seed=1,2"), HELDOUT)
    write_declaration(str(tmp_path), declared)
    assert preflight.read_declaration(str(tmp_path)) == declared
    assert declared.variants == ["rate=0.25", "rate=0.5", "rate=1.0", "rate=2.0"]
    assert declared.main == "rate=1.0"
    assert yaml.safe_load((tmp_path / "study.yaml").read_text())["primary"]["treatment"] == "pareto"


def test_the_time_left_is_what_jobs_like_these_have_taken():
    done = JobState("a", 10.0, complete=True, started=0.0, ended=100.0, fraction=1.0)
    # Trained for 30 of the 50 seconds since it began, and half-way: 30 more.
    half = JobState("b", 10.0, started=50.0, fraction=0.5, trained=30.0)
    waiting = JobState("c", 20.0)
    # Both others took 10 and 8 seconds for each FLOP: 9 * 20 for the one that waits.
    assert time_left([done, half, waiting], 100.0, 2) == pytest.approx((30 + 9 * 20) / 2)
    assert time_left([waiting], 100.0, 2) is None
    failed = JobState("d", 10.0, failed=True, started=0.0, ended=1.0)
    said = summary([done, half, waiting, failed], 100.0, 2)
    assert said == "4 jobs: 1 done, 1 running, 1 failed, about 1:45 left"


def test_results_and_output_name_the_commit_where_git_knows_it(monkeypatch):
    monkeypatch.delenv("GIT_DIR")
    assert ("+" in code_version()) == (execute.commit() is not None)
