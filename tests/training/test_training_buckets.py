"""From a corpus in a bucket to models and studies there: as on a disk, and on from any machine."""

import dataclasses
import json
import os
import shutil
import signal
import time
from pathlib import Path

import evaluation_runs as evaluations
import pytest
import store_memory
import torch
import written_study as studies
from hydra import compose, initialize_config_dir
from tokens_scored import documents, settings, write_scored
from training_runs import rows, train

from ablations import compare, report
from ablations.evaluate import evaluate
from ablations.study import preflight
from ablations.study.design.jobs import Job
from model import prepare
from model.data import encode
from model.data.corpus import open_corpus, write_arm
from model.exporting import ExportConfig, export
from model.training.checkpoints import trained
from model.training.distributed import processes
from model.training.trainer import Trainer
from winnow.commands import command_line
from winnow.defaults import CONF
from winnow.filesystem import local_copies, mirror, storage

pytestmark = pytest.mark.slow

CORPUS = "s3://bucket/corpus"
RUN = "s3://bucket/run"


class Machine:
    """This machine, or one that takes its place and has an empty disk."""

    def __init__(self, folder, patch):
        self.folder, self.patch, self.number = folder, patch, 0
        self.replace()

    def replace(self):
        self.number += 1
        self.patch.setenv("WINNOW_CACHE", str(self.folder / f"machine-{self.number}"))
        self.patch.setattr(local_copies, "_in_use", {})


def one_after_another(shards, folder, path, boundary, workers):
    for index, shard in enumerate(shards):
        yield index, encode.encode_shard(shard, folder, path, boundary)


def killed_after_one(bucket, *given):
    """As soon as the first shard is in the bucket."""
    yield next(one_after_another(*given))
    while not any("/shards/" in key for key in bucket.objects):
        time.sleep(0.01)
    cut(bucket, "")
    raise store_memory.Cut


def download(bucket, prefix, target):
    for key, content in bucket.objects.items():
        if key.startswith(f"{prefix}/"):
            path = target / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return target


def upload(bucket, folder, prefix):
    for path in Path(folder).rglob("*"):
        if path.is_file():
            bucket.objects[f"{prefix}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()


def cut(bucket, ending):
    """From an upload of this name on no request is made, as after a kill; of none: from now on."""

    def before(kind, key):
        if dead or not ending or (kind == "upload" and key.endswith(ending)):
            dead.append(key)
            raise store_memory.Cut

    dead = []
    bucket.before = before


def mend(bucket):
    bucket.before = lambda kind, key: None
    bucket.objects = {k: v for k, v in bucket.objects.items() if not k.endswith(".lock")}


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def bucket(patch):
    return store_memory.install(patch)


@pytest.fixture(scope="module")
def machine(patch, tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("machines"), patch)


@pytest.fixture(scope="module")
def here(patch, tmp_path_factory):
    """A corpus and a run of training on the disk."""
    folder = tmp_path_factory.mktemp("here")
    patch.setattr(encode, "encode_shards", one_after_another)
    write_scored(folder / "scored", [documents(80, seed=1), documents(60, seed=2)])
    prepare.prepare(settings(folder / "scored", folder / "corpus"))
    train(folder / "corpus", folder / "run")
    return folder


@pytest.fixture(scope="module")
def there(here, bucket, machine):
    """The same in a bucket: the corpus made by two machines, of which the first was killed."""
    asked = settings(here / "scored", CORPUS)
    with pytest.MonkeyPatch.context() as context, pytest.raises(store_memory.Cut):
        context.setattr(mirror, "POLL", 0.01)
        context.setattr(encode, "encode_shards", lambda *given: killed_after_one(bucket, *given))
        prepare.prepare(asked)
    mend(bucket)
    with pytest.raises(ValueError, match=rf"{CORPUS} has no manifest\.json"):
        open_corpus(CORPUS)
    machine.replace()
    with pytest.MonkeyPatch.context() as context:
        encoded, write = [], encode._write
        context.setattr(encode, "_write", lambda *given: encoded.append(write(*given)))
        corpus = prepare.prepare(asked)
        assert len(encoded) == 1  # of two: the other one was in the bucket
    bucket.asked.clear()
    assert open_corpus(CORPUS).fingerprint == corpus.fingerprint
    assert bucket.asked["read"] == 1  # the manifest: the tokens are on this machine
    assert corpus.folder == CORPUS
    assert corpus.arm("filtered").about["sources"]["web"]["documents"] > 0
    machine.replace()
    interrupted_at(bucket, machine, 5)
    machine.replace()
    train(CORPUS, RUN)
    return bucket


def interrupted_at(bucket, machine, step):
    """A run that is cut off after the checkpoint of a step, which makes it as far as the bucket."""
    whole = Trainer.step

    def interrupted(trainer):
        if trainer.progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(trainer)

    with pytest.MonkeyPatch.context() as context:
        context.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(CORPUS, RUN, "checkpoint.background=true")
    steps = {key.split("/")[2] for key in bucket.objects if key.startswith("run/checkpoints/")}
    assert steps == {"step_000000004", "step_000000006"}
    assert "run/outcome.json" not in bucket.objects


def weights(path):
    return trained.load(str(path), torch.device("cpu"), torch.float32).model.state_dict()


def equal(ones, others):
    assert ones.keys() == others.keys()
    return all(torch.equal(value, others[name]) for name, value in ones.items())


def test_a_corpus_in_a_bucket_is_the_corpus_on_a_disk(here, there, tmp_path):
    copy = download(there, "corpus", tmp_path)
    wanted = sorted(p for p in (here / "corpus").rglob("*") if p.is_file())
    assert sorted(p.relative_to(copy) for p in copy.rglob("*") if p.is_file()) == [
        p.relative_to(here / "corpus") for p in wanted
    ]
    for path in wanted:
        assert (copy / path.relative_to(here / "corpus")).read_bytes() == path.read_bytes()


def test_a_run_goes_on_bit_for_bit_on_another_machine(here, there, tmp_path):
    copy = download(there, "run", tmp_path)
    assert rows(copy) == rows(here / "run")
    assert (copy / "heldout.arrow").read_bytes() == (here / "run" / "heldout.arrow").read_bytes()
    assert equal(weights(copy), weights(here / "run"))
    assert equal(weights(RUN), weights(here / "run"))
    assert sorted(os.listdir(copy / "checkpoints")) == ["step_000000006", "step_000000008"]
    assert not os.path.exists(mirror.local_folder(RUN))


def test_a_finished_run_is_not_run_again(there, machine, monkeypatch):
    monkeypatch.setattr(Trainer, "step", None)
    before = dict(there.objects)
    machine.replace()
    assert train(CORPUS, RUN).steps == 8
    assert before == there.objects
    assert b"output: s3://bucket/run\n" in there.objects["run/config.yaml"]


def test_settings_of_another_run_are_refused_by_the_name_of_the_bucket(there):
    with pytest.raises(ValueError, match=rf"^{RUN}/checkpoints/step_000000008 is from a run with"):
        train(CORPUS, RUN, "model.hidden=64")


def test_machines_that_share_no_disk_are_refused(monkeypatch):
    monkeypatch.setattr(processes, "together", lambda call, group=None: [call(), False])
    with pytest.raises(ValueError, match="need a disk that they share"):
        train(CORPUS, RUN)


def test_arms_are_written_where_the_corpus_is(there, machine):
    corpus = open_corpus(CORPUS)
    chosen = corpus.pool & (corpus.lengths > 5)
    written = write_arm(corpus, "long", chosen, {"rule": "long"})
    assert "corpus/arms/long.npy" in there.objects
    machine.replace()
    again = open_corpus(CORPUS)
    assert again.arms() == ["filtered", "long", "unfiltered"]
    assert again.arm("long").fingerprint == written.fingerprint
    with pytest.raises(ValueError, match="has another arm 'long'"):
        write_arm(again, "long", again.pool, {"rule": "all"})
    for name in ("long.npy", "long.json"):
        del there.objects[f"corpus/arms/{name}"]


def test_a_damaged_checkpoint_is_left_for_the_one_before(there, machine, capsys, monkeypatch):
    newest = "run/checkpoints/step_000000008/__0_0.distcp"
    before = f"{RUN}/checkpoints/step_000000006"
    older = weights(before)
    monkeypatch.setitem(there.objects, newest, there.objects[newest][:-1] + b"?")
    machine.replace()
    assert equal(weights(RUN), older)
    assert "trying the one before it" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is damaged: train again"):
        weights(f"{RUN}/checkpoints/step_000000008")
    with pytest.raises(ValueError, match="s3://bucket/corpus holds no checkpoint"):
        weights(CORPUS)


def test_a_run_begins_from_one_in_a_bucket(here, there, tmp_path):
    for name, start in (("one", here / "run"), ("two", RUN)):
        train(CORPUS, tmp_path / name, f"train.start={start}", "train.tokens=128")
    assert rows(tmp_path / "one") == rows(tmp_path / "two")
    assert equal(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_an_export_in_a_bucket_is_the_export_on_a_disk(here, there, tmp_path):
    export(ExportConfig(str(here / "run"), str(tmp_path / "export")))
    cut(there, "export/config.json")
    with pytest.raises(store_memory.Cut):
        export(ExportConfig(RUN, "s3://bucket/export"))
    mend(there)
    storage.remove("s3://bucket/export")
    export(ExportConfig(RUN, "s3://bucket/export"))
    for path in (tmp_path / "export").iterdir():
        assert there.objects[f"export/{path.name}"] == path.read_bytes()
    assert equal(weights("s3://bucket/export"), weights(here / "run"))
    with pytest.raises(ValueError, match="is not empty"):
        export(ExportConfig(RUN, "s3://bucket/export"))


def test_an_evaluation_reads_and_writes_a_run_in_a_bucket(here, there, tmp_path):
    data = evaluations.local_data(tmp_path / "data")
    shutil.copytree(here / "run", tmp_path / "trained")
    evaluate(evaluations.config(tmp_path, data, tmp_path / "out"))
    asked = evaluations.config(tmp_path, data, tmp_path / "out")
    evaluate(dataclasses.replace(asked, run=RUN, output=None))
    for name in ("logprobs.arrow", "generations.arrow", "tasks.arrow"):
        assert there.objects[f"run/{name}"] == (tmp_path / "out" / name).read_bytes()
    train(CORPUS, RUN)  # which leaves them there
    assert "run/tasks.arrow" in there.objects


def test_a_study_is_compared_and_reported_where_it_is(bucket, machine, tmp_path, capsys):
    declared = studies.declare(seeds=[1, 2])
    studies.write_study(str(tmp_path / "study"), -0.03, declared)
    (tmp_path / "study" / "filtered" / "seed_2" / "result.json").unlink()
    tasks = tmp_path / "study" / "filtered" / "seed_1" / "tasks" / "shots_0"
    tasks.mkdir(parents=True)
    (tasks / "evaluation.json").write_text(json.dumps({"not_run": {"piqa": "no data"}}))
    upload(bucket, tmp_path / "study", "study")
    printed = []
    for study in (str(tmp_path / "study"), "s3://bucket/study"):
        compare.main([f"study={study}"])
        report.main([f"study={study}"])
        printed.append(capsys.readouterr().out.replace(study, "STUDY"))
    assert printed[0] == printed[1]
    written = [p for p in (tmp_path / "study").rglob("*") if p.is_file()]
    assert len(written) > 20
    for path in written:
        name = path.relative_to(tmp_path / "study").as_posix()
        assert bucket.objects[f"study/{name}"] == path.read_bytes(), name


def study_of(*given):
    asked = [compose("ablation", [*STUDY, *given, f"data={arm}"]) for arm in ARMS]
    return [Job(command_line.checked(config), "") for config in asked]


def test_a_study_of_a_corpus_in_a_bucket_is_that_of_one_on_a_disk(here, there, tmp_path):
    with initialize_config_dir(CONF, version_base="1.3"):
        local, remote = (
            study_of(f"corpus={corpus}", f"output={output}")
            for corpus, output in (
                (here / "corpus", tmp_path / "one"),
                (CORPUS, tmp_path / "two"),
            )
        )
    one, two = preflight.check(local), preflight.check(remote)
    assert one.declared == two.declared
    (name,) = {n for n in two.corpus.arms() if n.startswith("threshold")}
    for ending in ("npy", "json"):
        path = here / "corpus" / "arms" / f"{name}.{ending}"
        assert there.objects[f"corpus/arms/{name}.{ending}"] == path.read_bytes()
        path.unlink()
        del there.objects[f"corpus/arms/{name}.{ending}"]


ARMS = ("unfiltered", "threshold")
STUDY = [
    "data.threshold=0.5",
    "primary.treatment=threshold",
    "primary.endpoint=heldout/web",
    "allow_underpowered=true",
    "allow_known_sources=true",
    "data.sequence_length=16",
    "train.batch_rows=2",
    "train.tokens=64",
    "+heldout={web: [web]}",
]
