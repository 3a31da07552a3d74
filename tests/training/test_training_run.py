"""Training runs: resumed bit for bit, refused when they should be, and measured right."""

import contextlib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hydra.errors
import numpy as np
import omegaconf
import omegaconf.errors
import pyarrow as pa
import pytest
import torch
from tokens_scored import documents, make_corpus
from training_runs import TINY, composed, config, corpus_folder, rows, train

from model.data.corpus import open_corpus
from model.glam.parameter import Weight
from model.glam.transformer import GLaM
from model.training import metrics_log
from model.training.checkpoints import checkpoint, trained
from model.training.train_config import differing
from model.training.trainer import Trainer, TrainingFailedError
from winnow.filesystem import files

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpus_folder(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    outcome = train(corpus, output)
    return output, outcome


def weights(output):
    return trained.load(str(output), torch.device("cpu"), torch.float32).model.state_dict()


def assert_same_run(output, other):
    assert rows(output) == rows(other)
    assert (output / "heldout.arrow").read_bytes() == (other / "heldout.arrow").read_bytes()
    for (name, a), (_, b) in zip(weights(output).items(), weights(other).items(), strict=True):
        assert torch.equal(a, b), name


def trainer_of(corpus, settings):
    return Trainer(settings, open_corpus(str(corpus)), torch.device("cpu"))


def test_what_a_run_leaves(undisturbed, corpus):
    output, outcome = undisturbed
    log = rows(output)
    assert [row["step"] for row in log] == list(range(1, 9))
    assert [row["tokens"] for row in log] == [64 * step for step in range(1, 9)]
    assert [row["step"] for row in log if "heldout" in row] == [4, 8]
    assert all(0 < row["gradient_norm"] < math.inf for row in log)
    assert np.sum(log[-1]["expert_load"], -1) == pytest.approx([1.0])
    assert [row["step"] for row in log if "expert_load" in row] == [4, 8]
    for name in ("expert_load_min", "expert_load_max"):
        assert [row["step"] for row in log if name in row] == [1, 2, 3, 5, 6, 7]
    assert log[-1]["unique_tokens"] + log[-1]["repeated_tokens"] == outcome.tokens == 512
    assert outcome.steps == 8
    assert outcome.epochs == outcome.tokens / outcome.unique_tokens
    assert json.loads((output / "outcome.json").read_text())["heldout"] == outcome.heldout
    table = pa.ipc.open_file(output / "heldout.arrow").read_all()
    for source, value in outcome.heldout.items():
        chosen = table.filter(pa.compute.field("source") == source)
        assert sum(chosen["bits"].to_pylist()) / sum(chosen["bytes"].to_pylist()) == value
    assert len(os.listdir(output / "checkpoints")) == 2


def test_the_bits_of_a_document_are_those_of_the_model_reading_it_alone(undisturbed, corpus):
    output, _ = undisturbed
    model = trained.load(str(output), torch.device("cpu"), torch.float32).model
    opened = open_corpus(str(corpus))
    table = pa.ipc.open_file(output / "heldout.arrow").read_all().to_pylist()
    held_out = np.flatnonzero(opened.held_out & opened.reached)
    bits = dict(zip(opened.ids(held_out), held_out.tolist(), strict=True))
    assert len(table) == len(bits)
    for row in table:
        boundary = [opened.boundary_id]
        entries = boundary + opened.tokens(bits[row["document"]]).tolist() + boundary
        total = 0.0
        for start in range(0, len(entries) - 1, 16):  # windows of the sequence length
            window = torch.tensor([entries[start : start + 17]])
            with torch.no_grad():
                logits = model(window[:, :-1])[0].double().log_softmax(-1)
            total -= float(logits.gather(1, window[0, 1:, None]).sum())
        assert row["bits"] == pytest.approx(total / math.log(2), rel=1e-4)


def test_training_learns(corpus, tmp_path):
    train(corpus, tmp_path, "train.tokens=8000", "evaluate.every=0", "checkpoint.every=1000")
    losses = [row["loss"] for row in rows(tmp_path)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_parts_of_a_batch_add_up_to_the_whole(corpus, tmp_path):
    train(corpus, tmp_path / "whole", "train.tokens=128")
    options = ["train.tokens=128", "log.expert_load_every=1"]
    # The balance loss is of a group of rows: one row in both, to be the same.
    for name, extra in {"a": [*options, "train.micro_rows=1"], "b": options}.items():
        train(corpus, tmp_path / name, "model.group_rows=1", *extra)
    for whole, parts in zip(rows(tmp_path / "b"), rows(tmp_path / "a"), strict=True):
        for name in ("loss", "balance", "router_z", "gradient_norm"):
            assert parts[name] == pytest.approx(whole[name], rel=1e-4)
        np.testing.assert_allclose(parts["expert_load"], whole["expert_load"], atol=1e-6)


def test_a_finished_run_is_not_run_again(undisturbed, corpus, monkeypatch):
    output, outcome = undisturbed
    monkeypatch.setattr(Trainer, "step", None)
    monkeypatch.setattr(Trainer, "save", None)
    assert train(corpus, output) == outcome


def test_an_evaluation_that_cannot_be_written_costs_no_step(
    undisturbed, corpus, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(pa.ipc, "new_file", full)
        with pytest.raises(OSError, match=r"No space left on device: .*heldout\.arrow"):
            train(corpus, tmp_path / "run", "checkpoint.every=1000")
        assert os.listdir(tmp_path / "run" / "checkpoints") == ["step_000000008"]
        assert not list((tmp_path / "run").glob(f"{files.TEMPORARY}*"))
    monkeypatch.setattr(Trainer, "step", None)
    train(corpus, tmp_path / "run")
    assert_same_run(tmp_path / "run", undisturbed[0])


def test_two_runs_into_one_folder_at_once_are_refused(corpus, tmp_path):
    with files.lock(tmp_path), pytest.raises(ValueError, match="another run is writing to"):
        train(corpus, tmp_path)
    assert not list(tmp_path.iterdir())


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
    whole = Trainer.step

    def breaks(self):
        if self.progress.step == step:
            raise KeyboardInterrupt
        return whole(self)

    with monkeypatch.context() as context:
        context.setattr(Trainer, "step", breaks)
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


@pytest.mark.parametrize("option", ["train.attention=triton", "train.micro_rows=2"])
def test_what_fits_a_run_to_a_machine_is_no_part_of_it(corpus, tmp_path, option):
    assert config(corpus, tmp_path, option).identity() == config(corpus, tmp_path).identity()


def test_what_was_part_of_a_run_once_is_not_compared():
    old = {"train.flex_attention": True, "train.micro_rows": None, "seed": 1, "gone": 2}
    assert differing(old, {"seed": 1, "new": 3}) == ["gone", "new"]


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


def test_utilisation_is_of_the_stated_peak(corpus, tmp_path):
    """Counted by hand: 6 FLOPs for each weight that a token meets, and attention's two products.

    A token sees half of its row on average.
    """
    train(corpus, tmp_path, "log.peak_tflops=0.25", "train.tokens=128")
    V, M, H, E, S = 300, 16, 32, 4, 16
    attention = 4 * M * M
    moe, dense = M * E + 2 * (2 * M * H), 3 * M * H
    tables_and_norms = 2 * 2 * 32 + 5 * M
    weights = 2 * attention + moe + dense + V * M + tables_and_norms
    flops = 6 * weights + 3 * 2 * (2 * 2 * M * S / 2)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["flops"] / row["tokens"] == pytest.approx(flops)
        used = row["tokens_per_second"] * flops / 0.25e12
        assert row["flops_utilisation"] == pytest.approx(used, abs=1e-4)


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


def test_an_interrupted_run_saves_and_comes_to_the_same_end(undisturbed, corpus, tmp_path):
    step = Trainer.step

    def interrupted(trainer):
        row = step(trainer)
        if row["step"] == 5:  # checkpoints are those of even steps
            os.kill(os.getpid(), signal.SIGINT)
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(corpus, tmp_path)
    assert (tmp_path / "checkpoints" / "step_000000005").is_dir()
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 5
    train(corpus, tmp_path)
    assert_same_run(tmp_path, undisturbed[0])


def test_what_ends_a_run_waits_for_a_checkpoint_in_the_background(
    undisturbed, corpus, tmp_path, monkeypatch
):
    """An interrupt, and the last step; meanwhile the run goes on."""
    step, save, writing = Trainer.step, checkpoint.save, []

    def slow(folder, step, *rest):
        writing.append(step)
        time.sleep(0.2)
        save(folder, step, *rest)
        writing.remove(step)

    stepped_meanwhile = []

    def interrupted(trainer):
        row = step(trainer)
        stepped_meanwhile.extend(writing)
        if row["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return row

    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(Trainer, "step", interrupted)
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
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 5
    assert os.listdir(tmp_path / "checkpoints") == ["step_000000002"]


def lines(output):
    path = output / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def test_a_damaged_checkpoint_costs_its_steps_and_no_more(undisturbed, corpus, tmp_path, capsys):
    output, _ = undisturbed
    shutil.copytree(output, tmp_path / "run")
    (tmp_path / "run" / "outcome.json").unlink()
    file = tmp_path / "run" / "checkpoints" / "step_000000008" / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-10])
    train(corpus, tmp_path / "run")
    assert "step_000000008 is damaged" in capsys.readouterr().err
    assert_same_run(tmp_path / "run", output)


def test_a_row_is_what_the_model_says_of_the_batch(corpus, tmp_path):
    """Each number from the router's weights and tokens of step 1, worked out here in float64."""
    options = ["model.capacity_factor=1.0", "model.group_rows=1", "train.tokens=64"]
    outcome = train(corpus, tmp_path, *options)
    (row,) = rows(tmp_path)
    trainer = trainer_of(corpus, config(corpus, tmp_path / "other", *options))
    batch, model = trainer.stream.batch(0), trainer.model
    model.train()
    entered = []
    router = model.layers[0].feed_forward.router
    router.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].detach()))
    losses = model.loss(*batch)
    losses.total.backward()

    logits = entered[0].double() @ router.linear.weight.detach().double()  # [B, S, E]
    probability = logits.softmax(-1)
    first = probability.argmax(-1)
    shares = torch.nn.functional.one_hot(first, 4).double().mean(1)  # of each row, its group
    balance = 4 * (shares * probability.mean(1)).sum(-1).mean()
    assert row["balance"] == pytest.approx(float(balance), rel=1e-5)
    assert row["expert_load"] == [pytest.approx(shares.mean(0).tolist())]
    entropy = -(probability * probability.log()).sum(-1).mean()
    assert row["router_entropy"] == [pytest.approx(float(entropy), rel=1e-5)]
    assert row["router_z"] == pytest.approx(float(logits.logsumexp(-1).square().mean()), rel=1e-5)
    # Slots of an expert in a row of 16 tokens: 16 / 4. The first choices take them first.
    second = probability.scatter(-1, first[..., None], -1).argmax(-1)
    taken = sum(
        min(4, int((one == expert).sum()) + int((other == expert).sum()))
        for one, other in zip(first, second, strict=True)
        for expert in range(4)
    )
    assert row["dropped"] == [pytest.approx(1 - taken / (2 * 64))]
    assert row["dropped"][0] > 0

    with torch.no_grad():
        out = model(batch.tokens, batch.segments).double()
    nats = torch.nn.functional.cross_entropy(out.flatten(0, 1), batch.targets.flatten())
    assert row["loss"] == pytest.approx(float(nats), rel=1e-5)
    assert row["output_z"] == pytest.approx(float(out.logsumexp(-1).square().mean()), rel=1e-5)
    square = sum(float(p.grad.double().square().sum()) for p in model.parameters())
    assert row["gradient_norm"] == pytest.approx(math.sqrt(square), rel=1e-5)
    assert (row["tokens"], row["flops"]) == (64, outcome.flops)
    assert outcome.flops == pytest.approx(64 * trainer.token_flops)


def test_held_out_load_is_of_first_choices_of_tokens_that_count(corpus, tmp_path):
    trainer = trainer_of(corpus, config(corpus, tmp_path))
    trainer.step()  # before which nothing was consumed
    (source, held_out), *_ = trainer.held_out(None).items()
    router = trainer.model.layers[0].feed_forward.router
    entered = []
    hook = router.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    found = trainer.held_out_row({source: held_out})["heldout_expert_load"][source]
    hook.remove()
    counts = torch.zeros(4)
    for x_BSM, batch in zip(entered, held_out, strict=True):
        first_BS = (x_BSM @ router.linear.weight).argmax(-1)
        counts += first_BS[batch.targets >= 0].bincount(minlength=4)
    assert (batch.targets < 0).any()
    assert found == [pytest.approx((counts / counts.sum()).tolist())]


def test_the_rate_follows_updates_not_steps(corpus, tmp_path, monkeypatch):
    poison(monkeypatch, [1])
    train(corpus, tmp_path, "train.tokens=256", "optimizer.warmup_steps=8", "evaluate.every=0")
    rates = [row["learning_rate"] for row in rows(tmp_path)]
    # Step 2 is skipped: step 3 takes the rate that it would have had.
    assert rates == pytest.approx([0.01 * update / 8 for update in (1, 2, 2, 3)])


def test_no_checkpoint_is_made_where_weights_are_in_doubt(corpus, tmp_path, monkeypatch):
    """Steps 2 and 4 are skipped, and after 6 the weights are not finite."""
    poison(monkeypatch, [1, 3])
    whole = Trainer.step

    def spoils(self):
        row = whole(self)
        if row["step"] == 6:
            self.model.final_norm.scale.weight.data[0] = math.inf
        return row

    monkeypatch.setattr(Trainer, "step", spoils)
    options = ["train.tokens=384", "checkpoint.keep=9", "checkpoint.every=1", "evaluate.every=0"]
    with pytest.raises(TrainingFailedError, match="infinite or undefined"):
        train(corpus, tmp_path, *options)
    saved = sorted(int(path.name[5:]) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [1, 3, 5]


def poison(monkeypatch, steps):
    """Make the gradients of these steps (from 0, each once) undefined."""
    left, whole = list(steps), GLaM.loss

    def loss(self, *arguments, **options):
        out = whole(self, *arguments, **options)
        poison.calls += 1
        if poison.calls - 1 in left:
            return out._replace(total=out.total * math.nan)
        return out

    poison.calls = 0
    monkeypatch.setattr(GLaM, "loss", loss)


def test_a_step_with_undefined_gradients_changes_nothing(corpus, tmp_path, monkeypatch):
    """Weights after steps 0, 1, 2 with 1 skipped are those of a run that never saw batch 1."""
    poison(monkeypatch, [1])
    outcome = train(corpus, tmp_path, "train.tokens=192", "checkpoint.every=1")
    assert outcome.skipped_steps == 1
    log = rows(tmp_path)
    assert [row["skipped_steps"] for row in log] == [0, 1, 1]
    assert log[1]["gradient_norm"] is None
    monkeypatch.undo()
    reference = trainer_of(corpus, config(corpus, tmp_path / "other", "train.tokens=192"))
    reference.step()
    reference.progress.step = 2
    reference.step()
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, reference.model.state_dict()[name]), name


def test_a_checkpoint_that_nothing_goes_on_from_is_left_for_the_one_before(
    corpus, tmp_path, monkeypatch, capsys
):
    """From step 4 on weights are finite and too large, and so is its checkpoint."""
    options = ["train.tokens=768", "train.skips_in_a_row=2", "checkpoint.every=2"]
    whole = Trainer.step

    def spoils(self):
        row = whole(self)
        if row["step"] == 4:
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.fill_(1e12)
        return row

    monkeypatch.setattr(Trainer, "step", spoils)
    outcome = train(corpus, tmp_path, *options)
    # Steps 5 and 6 are skipped, then 7 and 8, from step 4's checkpoint; 9 goes on from step 2's.
    assert (outcome.fallbacks, outcome.skipped_steps, outcome.steps) == (2, 4, 12)
    returns = re.findall(r"the weights of .*step_0+(\d+)", capsys.readouterr().err)
    assert returns == ["4", "2"]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_000000010",
        "step_000000012",
    ]
    monkeypatch.undo()
    reference = trainer_of(corpus, config(corpus, tmp_path / "other", *options))
    for step in (0, 1, 8, 9, 10, 11):
        reference.progress.step = step
        reference.step()
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, reference.model.state_dict()[name]), name


def test_many_in_a_row_fall_back_to_the_last_checkpoint(corpus, tmp_path, monkeypatch, capsys):
    """After step 2's checkpoint: 3 spoils the weights, and so 4 and 5 are skipped."""
    options = ["train.tokens=512", "train.skips_in_a_row=2", "checkpoint.every=2"]
    options += ["optimizer.warmup_steps=8"]  # so that an update's number matters
    whole = Trainer.step

    def spoils(self):
        row = whole(self)
        if row["step"] == 3:
            self.model.layers[0].attention.key.weight.data[0, 0] = math.nan
        return row

    monkeypatch.setattr(Trainer, "step", spoils)
    outcome = train(corpus, tmp_path, *options)
    assert (outcome.fallbacks, outcome.skipped_steps, outcome.steps) == (1, 2, 8)
    assert "step_000000002" in capsys.readouterr().err
    log = rows(tmp_path)
    assert [row["step"] for row in log] == list(range(1, 9))
    assert [row["gradient_norm"] is None for row in log] == [s in (4, 5) for s in range(1, 9)]
    # Batches 0, 1 and then 5, 6, 7.
    monkeypatch.undo()
    reference = trainer_of(corpus, config(corpus, tmp_path / "other", *options))
    for step in (0, 1, 5, 6, 7):
        reference.progress.step = step
        reference.step()
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, reference.model.state_dict()[name]), name


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw"])
def test_numbers_read_a_step_later_change_no_number(corpus, tmp_path, monkeypatch, optimizer):
    """As on a GPU: steps 2, 5 and 6 are skipped, and 7 goes on from step 4's checkpoint."""
    options = [f"optimizer={optimizer}", "train.skips_in_a_row=2", "checkpoint.every=4"]
    options += ["optimizer.warmup_steps=8", "evaluate.every=3"]
    made, whole, told = Trainer.__init__, Trainer.step, []

    def defers(self, *arguments):
        made(self, *arguments)
        self.defers = True

    def step(self):
        row = whole(self)
        told.append((self.progress.step, row and row["step"]))
        return row

    outcomes = []
    for name in ("at once", "later"):
        with monkeypatch.context() as context:
            poison(context, [1, 4, 5])
            if name == "later":
                context.setattr(Trainer, "__init__", defers)
                context.setattr(Trainer, "step", step)
            outcomes.append(train(corpus, tmp_path / name, *options))
    assert outcomes[0].fallbacks == 1
    assert outcomes[0].skipped_steps == 3
    # Evaluations (3, 6) and checkpoints (4, 8) wait.
    known = [None, 1, 2, None, None, 5, None, 7]
    assert told == list(zip(range(1, 9), known, strict=True))
    assert_same_run(tmp_path / "at once", tmp_path / "later")


def test_it_gives_up_after_so_many_returns(corpus, tmp_path, monkeypatch):
    options = ["train.skips_in_a_row=1", "train.fallbacks=1", "checkpoint.every=1"]
    with monkeypatch.context() as context:
        poison(context, [0])
        with pytest.raises(TrainingFailedError, match="there is no healthy checkpoint"):
            train(corpus, tmp_path / "first", *options)
    poison(monkeypatch, [1, 2])
    with pytest.raises(TrainingFailedError, match="after 1 returns"):
        train(corpus, tmp_path / "later", *options)


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["model.vocabulary=200"], "set model.vocabulary="),
        (["data.arm=nonsense"], "no arm 'nonsense'"),
        (["train.batch_rows=4000"], "fewer than one batch"),
        (["train.micro_rows=3"], "must divide"),
        (["model.heads=3"], "must be the width"),
        (["train.device=cuda"], "no CUDA device"),
        (["train.attention=flex"], "on CUDA only"),
        (["train.expert_parallel=0"], "train.expert_parallel must be at least 1"),
        (["train.expert_parallel=2"], "must divide the 1 processes"),
        (["train.tensor_parallel=2"], "must divide the 1 processes"),
        (["data.sequence_length=0"], "data.sequence_length must be at least 1"),
        (["train.device=meta"], "only cpu and cuda"),
        (["train.device=gpu"], "device=gpu"),
        (["train.tokens=0"], "train.tokens must be at least 1"),
        (["checkpoint.keep=1"], "checkpoint.keep"),
        (["+data.mixture={web:1}"], "does not name"),
    ],
)
def test_what_can_t_work_is_refused(corpus, tmp_path, changes, said):
    if "train.device=cuda" in changes and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ValueError, match=said):
        train(corpus, tmp_path, *changes)
    assert not (tmp_path / metrics_log.METRICS).exists()  # it is said before the first step


@pytest.mark.parametrize(
    "change", ["train.batch_row=2", "train.batch_rows=two", "optimizer=sgd", "model=glam_2m"]
)
def test_hydra_refuses_wrong_keys_and_types(change):
    with pytest.raises((hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException)):
        composed(change)


def test_the_command_says_what_is_missing_and_leaves_no_litter(quick_python, tmp_path):
    command = [quick_python, ROOT / "model" / "train.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2
    assert "error: data.arm, data.corpus, output, train.tokens missing" in run.stderr
    assert os.listdir(tmp_path) == []


def test_weights_are_drawn_from_the_seed(corpus, tmp_path):
    runs = [trainer_of(corpus, config(corpus, tmp_path, f"seed={s}")) for s in (3, 3, 4)]
    first, again, other = (
        [m.weight for m in run.model.modules() if isinstance(m, Weight)] for run in runs
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_log_file_gets_a_line_every_half_minute(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: now)
    line = metrics_log.ProgressLine(steps=20, step=0)
    for step in range(1, 7):
        now += 20.0
        line.update({"step": step, "loss": 1.0, "tokens_per_second": 1234.0})
    line.close()
    assert capsys.readouterr().err.splitlines() == [
        f"step {step} of 20  loss 1.000  1,234 tokens/s  {left} left"
        for step, left in ((2, "6:00"), (4, "5:20"), (6, "4:40"))
    ]


def test_a_terminal_gets_one_line_written_over(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: now)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line = metrics_log.ProgressLine(steps=20, step=4)  # resumed
    for step in (5, 6, 7):
        now += 0.3
        line.update({"step": step, "loss": 1.0, "tokens_per_second": 1234.0})
    line.close()
    said = capsys.readouterr().err.split("\r\x1b[K")
    assert [text[:12] for text in said[1:]] == ["step 5 of 20", "step 7 of 20", ""]
    assert said[2].endswith("0:03 left")  # 13 steps of 0.3 s


def test_tensorboard_shows_the_same_numbers(corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(corpus, tmp_path, "log.tensorboard=true", "train.tokens=256")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [event.value for event in events.Scalars("loss")]
    assert shown == pytest.approx([row["loss"] for row in rows(tmp_path)])
    assert "heldout/web" in events.Tags()["scalars"]


def test_tensorboard_shows_each_step_once_after_a_kill(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "tensorboard"
    first = metrics_log.EventFile(str(folder), 0)
    for step in range(1, 8):
        first.write(step, {"loss": float(step)})
    first.close()
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    monkeypatch.setattr(metrics_log.time, "time", lambda: 4e9)  # another second: another name
    second = metrics_log.EventFile(str(folder), 4)
    for step in range(5, 9):
        second.write(step, {"loss": -float(step)})
    second.close()
    events = EventAccumulator(str(folder))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert shown == [(step, step if step < 5 else -step) for step in range(1, 9)]


@pytest.mark.parametrize(("tensorboard", "name"), [(True, "events.out.tfev"), (False, "metrics")])
def test_a_full_disk_is_named_with_the_file(tmp_path, tensorboard, name):
    """A limit on the size of files, since a full disk takes a file system of one's own."""
    log = metrics_log.MetricsLog(str(tmp_path), 0, tensorboard)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = 5000  # the file for TensorBoard is the first to be larger
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        with pytest.raises(OSError, match=name):
            for step in range(1, 1000):
                log.write({"step": step, "loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        log.close()


def test_the_checkpoint_names_what_it_needs(undisturbed):
    state = checkpoint.resolve(str(undisturbed[0])).state
    assert state["identity"]["data.sequence_length"] == 16
    assert state["boundary"] == "<eos>"
