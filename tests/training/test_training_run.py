"""Training runs: what they leave, measure and refuse."""

import json
import math
import os
import subprocess
from pathlib import Path

import hydra.errors
import numpy as np
import omegaconf.errors
import pyarrow as pa
import pytest
import torch
from training_runs import assert_same_run, composed, rows, train, trainer_of

from model.data.corpus import open_corpus
from model.glam.parameter import Weight
from model.training import metrics_log
from model.training.checkpoints import checkpoint, trained
from model.training.evaluation import held_out_sets
from model.training.trainer import Trainer
from winnow.filesystem import files

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


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


def test_a_row_is_what_the_model_says_of_the_batch(corpus, tmp_path):
    """Each number from the router's weights and tokens of step 1, worked out here in float64."""
    options = ["model.capacity_factor=1.0", "model.group_rows=1", "train.tokens=64"]
    outcome = train(corpus, tmp_path, *options)
    (row,) = rows(tmp_path)
    trainer = trainer_of(corpus, tmp_path / "other", *options)
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
    trainer = trainer_of(corpus, tmp_path)
    trainer.step()  # before which nothing was consumed
    (source, held_out), *_ = held_out_sets(trainer.corpus, trainer.config, None).items()
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
    runs = [trainer_of(corpus, tmp_path, f"seed={s}") for s in (3, 3, 4)]
    first, again, other = (
        [m.weight for m in run.model.modules() if isinstance(m, Weight)] for run in runs
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_checkpoint_names_what_it_needs(undisturbed):
    state = checkpoint.resolve(str(undisturbed[0])).state
    assert state["identity"]["data.sequence_length"] == 16
    assert state["boundary"] == "<eos>"
