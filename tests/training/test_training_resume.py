"""Runs that are broken off go on bit for bit, and only where they are the same run."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import omegaconf
import pytest
from tokens_scored import documents, make_corpus
from training_runs import TINY, after_steps, assert_same_run, break_off_before, config, train

from model.training.checkpoints import checkpoint
from model.training.train_config import differing
from model.training.trainer import Trainer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def last_step(output):
    return json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])["step"]


def interrupt_after(monkeypatch, number):
    def interrupt(trainer, step):
        if step == number:
            os.kill(os.getpid(), signal.SIGINT)

    after_steps(monkeypatch, interrupt)


def test_more_tokens_go_on_from_the_end(undisturbed, corpus, tmp_path):
    output, _ = undisturbed
    shutil.copytree(output, tmp_path / "run")
    outcome = train(corpus, tmp_path / "run", "train.tokens=768")
    train(corpus, tmp_path / "whole", "train.tokens=768")
    assert outcome.steps == 12
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    asked = omegaconf.OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert asked.train.tokens == 768
    with pytest.raises(ValueError, match="was trained for 12 steps"):
        train(corpus, tmp_path / "run")


def check_broken_off_at(corpus, tmp_path, monkeypatch, step, options):
    """A run that breaks off before a step and goes on comes to the same end as a whole one."""
    train(corpus, tmp_path / "whole", *options)
    with monkeypatch.context() as context:
        break_off_before(context, step + 1)
        with pytest.raises(KeyboardInterrupt):
            train(corpus, tmp_path / "run", *options)
    train(corpus, tmp_path / "run", *options)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("policy", ["all", "random"])
@pytest.mark.parametrize("step", [1, 4, 5])
def test_an_exception_at_any_step_leaves_no_trace(corpus, tmp_path, monkeypatch, step, policy):
    """Steps without a checkpoint are done again, from the draws of routing to the log."""
    options = [f"model.second_expert={policy}", "model.capacity_factor=1.0"]
    check_broken_off_at(corpus, tmp_path, monkeypatch, step, options)


@pytest.mark.parametrize(
    "options",
    [
        ["train.precision=bf16"],
        ["optimizer=adamw", "optimizer.schedule=cosine", "optimizer.warmup_steps=3"],
        ["train.micro_rows=2", "train.recompute=true"],
        ["+data.mixture={web: 1, wiki: 2}"],
    ],
)
def test_whatever_the_settings_it_goes_on_bit_for_bit(corpus, tmp_path, monkeypatch, options):
    check_broken_off_at(corpus, tmp_path, monkeypatch, 5, options)


@pytest.mark.parametrize("option", ["train.attention=triton", "train.micro_rows=2"])
def test_what_fits_a_run_to_a_machine_is_no_part_of_it(corpus, tmp_path, option):
    assert config(corpus, tmp_path, option).identity() == config(corpus, tmp_path).identity()


def test_what_was_part_of_a_run_once_is_not_compared():
    old = {"train.flex_attention": True, "train.micro_rows": None, "seed": 1, "gone": 2}
    assert differing(old, {"seed": 1, "new": 3}) == ["gone", "new"]


def test_killed_at_random_moments_it_comes_to_the_same_end(corpus, tmp_path):
    """A real process and a real SIGKILL, until the run is through.

    After the first one checkpoints are written in the background.
    """
    options = ["train.tokens=3072", "checkpoint.every=3"]
    train(corpus, tmp_path / "whole", *options)
    output = tmp_path / "run"
    command = [sys.executable, "model/train.py", *TINY, *options, f"data.corpus={corpus}"]
    command += ["data.arm=unfiltered", f"output={output}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLIBC_TUNABLES": ""}
    draw = random.Random(0)
    kills = 0
    while not (output / "outcome.json").exists():
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        command.append("checkpoint.background=true")
        if kills < 2:
            # The clock starts when something is written, for starting takes seconds.
            seen = lines(output)
            while process.poll() is None and lines(output) == seen:
                time.sleep(0.001)
            time.sleep(draw.random() * 0.1)
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        else:
            assert process.wait() == 0
    assert kills == 2
    assert_same_run(output, tmp_path / "whole")


def lines(output):
    path = output / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def test_an_interrupted_run_saves_and_comes_to_the_same_end(
    undisturbed, corpus, tmp_path, monkeypatch
):
    with monkeypatch.context() as context:
        interrupt_after(context, 5)  # checkpoints are those of even steps
        with pytest.raises(KeyboardInterrupt):
            train(corpus, tmp_path)
    assert (tmp_path / "checkpoints" / "step_000000005").is_dir()
    assert last_step(tmp_path) == 5
    train(corpus, tmp_path)
    assert_same_run(tmp_path, undisturbed[0])


def test_what_ends_a_run_waits_for_a_checkpoint_in_the_background(
    undisturbed, corpus, tmp_path, monkeypatch
):
    """An interrupt, and the last step; meanwhile the run goes on."""
    save, writing, stepped_meanwhile = checkpoint.save, [], []

    def slow(folder, step, *rest):
        writing.append(step)
        time.sleep(0.2)
        save(folder, step, *rest)
        writing.remove(step)

    monkeypatch.setattr(checkpoint, "save", slow)
    after_steps(monkeypatch, lambda trainer, step: stepped_meanwhile.extend(writing))
    interrupt_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        train(corpus, tmp_path, "checkpoint.background=true")
    assert (tmp_path / "checkpoints" / "step_000000005").is_dir()
    train(corpus, tmp_path, "checkpoint.background=true")
    assert_same_run(tmp_path, undisturbed[0])
    assert stepped_meanwhile
    assert not writing


def test_a_checkpoint_that_fails_in_the_background_ends_the_run_at_the_next_step(
    corpus, tmp_path, monkeypatch
):
    step, save = Trainer.step, checkpoint.save

    def full(folder, step, *rest):
        if step == 4:
            raise OSError("the disk is full")
        save(folder, step, *rest)

    def patient(trainer):
        if trainer.progress.step == 4:
            trainer.writer.thread.join()
        return step(trainer)

    monkeypatch.setattr(checkpoint, "save", full)
    monkeypatch.setattr(Trainer, "step", patient)
    with pytest.raises(OSError, match="the disk is full"):
        train(corpus, tmp_path, "checkpoint.background=true")
    assert last_step(tmp_path) == 5
    assert os.listdir(tmp_path / "checkpoints") == ["step_000000002"]


def test_a_damaged_checkpoint_costs_its_steps_and_no_more(undisturbed, corpus, tmp_path, capsys):
    output, _ = undisturbed
    shutil.copytree(output, tmp_path / "run")
    (tmp_path / "run" / "outcome.json").unlink()
    file = tmp_path / "run" / "checkpoints" / "step_000000008" / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-10])
    train(corpus, tmp_path / "run")
    assert "step_000000008 is damaged" in capsys.readouterr().err
    assert_same_run(tmp_path / "run", output)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=4", "seed: 3 then, 4 now"),
        ("model.layers=4", "model.layers: 2 then, 4 now"),
        ("train.precision=bf16", "precision: float32 then, bfloat16 now"),
        ("optimizer.learning_rate=0.02", "optimizer.learning_rate"),
        ("data.arm=filtered", "data.arm"),
    ],
)
def test_another_run_s_checkpoint_is_refused(undisturbed, corpus, change, said):
    with pytest.raises(ValueError, match=said):
        train(corpus, undisturbed[0], change)


def test_another_corpus_is_refused_on_resume(undisturbed, tmp_path):
    make_corpus(tmp_path, [documents(80, seed=9)])
    with pytest.raises(ValueError, match="another stream"):
        train(tmp_path / "corpus", undisturbed[0])


def test_a_corpus_that_changed_is_refused(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "corpus")
    shard = next((tmp_path / "corpus" / "shards").glob("*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="has changed since it was made"):
        train(tmp_path / "corpus", tmp_path / "run")
    # Nor does a run that has begun go on with it.
    train(corpus, tmp_path / "run", "train.tokens=128")
    with pytest.raises(ValueError, match="has changed since it was made"):
        train(tmp_path / "corpus", tmp_path / "run")
