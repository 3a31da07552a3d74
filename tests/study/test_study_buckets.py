"""A study in a bucket: begun on one machine, gone on with on another, as if on one disk."""

import os
import sys
import time

import pytest
import store_memory
from hydra import compose, initialize_config_dir
from test_study_anneal import TOY, in_process
from tokens_scored import documents, make_corpus
from training_runs import rows

from ablations import run
from ablations.reading import read_study
from ablations.study import execute, interruption
from ablations.study.design.jobs import expand
from model.training.trainer import Trainer
from winnow.defaults import CONF
from winnow.filesystem import mirror, storage
from winnow.object_stores import lease

pytestmark = pytest.mark.slow

STUDY = "s3://bucket/studies/anneal"
SETTINGS = [*TOY, "trunk_seed=1", "checkpoint.every=2", "log.tensorboard=false"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), [documents(200, seed=0)]).folder


@pytest.fixture
def trained(monkeypatch):
    """The folders of the jobs that were trained."""

    def train(script, arguments, log, threads, study=None):
        folders.append(arguments[1])
        in_process(script, arguments, log, threads, study)

    folders: list[str] = []
    monkeypatch.setattr(execute, "run_python", train)
    monkeypatch.setattr(interruption, "handle_signals", lambda folder: None)
    monkeypatch.setattr(interruption, "ignore_signals", lambda: None)
    return folders


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(mirror, "POLL", 0.01)
    return store_memory.install(monkeypatch)


def sweep(corpus, output):
    """The command, in this process."""
    overrides = [*SETTINGS, f"corpus={corpus}", f"output={output}"]
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("ablation", overrides=overrides, return_hydra_config=True)
        config.hydra.overrides.task = [o for o in overrides if not o.startswith("hydra.")]
        callback = run.StudyCallback()
        with run._study_lock:
            callback.on_multirun_start(config, config_name="ablation")
            for job in expand(config, "ablation"):
                execute.execute(job, 1)
            callback.on_multirun_end(config)


def killed_in_the_last_job(bucket, monkeypatch, corpus):
    """Two steps after a checkpoint of it that made it into the bucket."""

    def step(trainer):
        if "/filtered/seed_2" in trainer.config.output and trainer.progress.step == 3:
            name = f"{STUDY[12:]}/filtered/seed_2/training/checkpoints/step_000000002/manifest.json"
            while name not in bucket.objects:
                time.sleep(0.01)
            bucket.before = cut
            raise store_memory.Cut
        return whole(trainer)

    def cut(kind, key):
        raise store_memory.Cut

    whole = Trainer.step
    with monkeypatch.context() as patch, pytest.raises(store_memory.Cut):
        patch.setattr(Trainer, "step", step)
        sweep(corpus, STUDY)
    bucket.before = lambda kind, key: None
    del bucket.objects[f"{STUDY[12:]}/.lock"]


def results(study):
    runs = read_study(study).runs
    return {key: (made.heldout, made.result.heldout) for key, made in runs.items()}


def test_another_machine_goes_on_and_comes_to_the_same(
    corpus, bucket, trained, monkeypatch, tmp_path, capsys
):
    sweep(corpus, tmp_path / "study")
    assert len(trained) == 5
    for machine in ("one", "two", "three"):
        trained.clear()
        monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / machine))
        if machine == "one":
            killed_in_the_last_job(bucket, monkeypatch, corpus)
            assert len(trained) == 5
            assert len(read_study(STUDY).runs) == 3
            continue
        before = dict(bucket.objects)
        capsys.readouterr()
        sweep(corpus, STUDY)
        assert f"Page: {STUDY}/report.html" in capsys.readouterr().out
        if machine == "two":
            (folder,) = trained
            assert os.path.relpath(folder, mirror.local_folder(STUDY)) == "filtered/seed_2"
        else:
            assert trained == []
            kept = {k: v for k, v in before.items() if "/seed_" in k}
            assert kept == {k: v for k, v in bucket.objects.items() if "/seed_" in k}
        assert not os.path.exists(mirror.local_folder(STUDY))
    assert results(STUDY) == results(str(tmp_path / "study"))
    there = {key.removeprefix(f"{STUDY[12:]}/") for key in bucket.objects}
    local = tmp_path / "study"
    here = {p.relative_to(local).as_posix() for p in local.rglob("*") if p.is_file()}
    assert there == here
    copy = tmp_path / "copy"
    copy.mkdir()
    curve = "filtered/seed_2/training/metrics.jsonl"
    (copy / "metrics.jsonl").write_bytes(storage.read_bytes(f"{STUDY}/{curve}"))
    assert rows(copy) == rows(tmp_path / "study" / "filtered" / "seed_2" / "training")


def test_a_second_machine_is_refused_meanwhile_and_an_error_leaves_nothing(
    corpus, bucket, trained, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path))
    monkeypatch.setattr(lease, "BEAT", 0.01)
    with storage.lock(STUDY), pytest.raises(SystemExit):
        sweep(corpus, STUDY)
    assert f"another run is writing to {STUDY}" in capsys.readouterr().err
    monkeypatch.setattr(sys.modules[__name__], "SETTINGS", [*SETTINGS, "data.sequence_length=9999"])
    with pytest.raises(SystemExit):
        sweep(corpus, STUDY)
    assert bucket.objects == {}
