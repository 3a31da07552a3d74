"""Steps that are not finite: skipped, returned from, and without a trace in the weights."""

import math
import re

import pytest
from training_runs import (
    after_steps,
    assert_same_run,
    assert_same_weights,
    rows,
    train,
    trainer_of,
    weights,
)

from model.glam.transformer import GLaM
from model.training.trainer import Trainer, TrainingFailedError

pytestmark = pytest.mark.slow


def poison(monkeypatch, steps):
    """Make the gradients of these steps (from 0, each once) undefined."""
    left, whole, calls = list(steps), GLaM.loss, iter(range(10**6))

    def loss(self, *arguments, **options):
        out = whole(self, *arguments, **options)
        return out._replace(total=out.total * math.nan) if next(calls) in left else out

    monkeypatch.setattr(GLaM, "loss", loss)


def assert_weights_of(monkeypatch, corpus, output, options, batches):
    """A run's weights are those of updates on these batches alone."""
    monkeypatch.undo()
    reference = trainer_of(corpus, output / "other", *options)
    for batch in batches:
        reference.progress.step = batch
        reference.step()
    assert_same_weights(weights(output), reference.model.state_dict())


def test_the_rate_follows_updates_not_steps(corpus, tmp_path, monkeypatch):
    poison(monkeypatch, [1])
    train(corpus, tmp_path, "train.tokens=256", "optimizer.warmup_steps=8", "evaluate.every=0")
    rates = [row["learning_rate"] for row in rows(tmp_path)]
    # Step 2 is skipped: step 3 takes the rate that it would have had.
    assert rates == pytest.approx([0.01 * update / 8 for update in (1, 2, 2, 3)])


def test_no_checkpoint_is_made_where_weights_are_in_doubt(corpus, tmp_path, monkeypatch):
    """Steps 2 and 4 are skipped, and after 6 the weights are not finite."""
    poison(monkeypatch, [1, 3])

    def spoil(trainer, step):
        if step == 6:
            trainer.model.final_norm.scale.weight.data[0] = math.inf

    after_steps(monkeypatch, spoil)
    options = ["train.tokens=384", "checkpoint.keep=9", "checkpoint.every=1", "evaluate.every=0"]
    with pytest.raises(TrainingFailedError, match="infinite or undefined"):
        train(corpus, tmp_path, *options)
    saved = sorted(int(path.name[5:]) for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [1, 3, 5]


def test_a_step_with_undefined_gradients_changes_nothing(corpus, tmp_path, monkeypatch):
    """Weights after steps 0, 1, 2 with 1 skipped are those of a run that never saw batch 1."""
    poison(monkeypatch, [1])
    outcome = train(corpus, tmp_path, "train.tokens=192", "checkpoint.every=1")
    assert outcome.skipped_steps == 1
    log = rows(tmp_path)
    assert [row["skipped_steps"] for row in log] == [0, 1, 1]
    assert log[1]["gradient_norm"] is None
    assert_weights_of(monkeypatch, corpus, tmp_path, ["train.tokens=192"], [0, 2])


def test_a_checkpoint_that_nothing_goes_on_from_is_left_for_the_one_before(
    corpus, tmp_path, monkeypatch, capsys
):
    """From step 4 on weights are finite and too large, and so is its checkpoint."""
    options = ["train.tokens=768", "train.skips_in_a_row=2", "checkpoint.every=2"]

    def spoil(trainer, step):
        if step == 4:
            for parameter in trainer.model.parameters():
                parameter.data.fill_(1e12)

    after_steps(monkeypatch, spoil)
    outcome = train(corpus, tmp_path, *options)
    # Steps 5 and 6 are skipped, then 7 and 8, from step 4's checkpoint; 9 goes on from step 2's.
    assert (outcome.fallbacks, outcome.skipped_steps, outcome.steps) == (2, 4, 12)
    returns = re.findall(r"the weights of .*step_0+(\d+)", capsys.readouterr().err)
    assert returns == ["4", "2"]
    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == ["step_000000010", "step_000000012"]
    assert_weights_of(monkeypatch, corpus, tmp_path, options, [0, 1, 8, 9, 10, 11])


def test_many_in_a_row_fall_back_to_the_last_checkpoint(corpus, tmp_path, monkeypatch, capsys):
    """After step 2's checkpoint: 3 spoils the weights, and so 4 and 5 are skipped."""
    options = ["train.tokens=512", "train.skips_in_a_row=2", "checkpoint.every=2"]
    options += ["optimizer.warmup_steps=8"]  # so that an update's number matters

    def spoil(trainer, step):
        if step == 3:
            trainer.model.layers[0].attention.key.weight.data[0, 0] = math.nan

    after_steps(monkeypatch, spoil)
    outcome = train(corpus, tmp_path, *options)
    assert (outcome.fallbacks, outcome.skipped_steps, outcome.steps) == (1, 2, 8)
    assert "step_000000002" in capsys.readouterr().err
    log = rows(tmp_path)
    assert [row["step"] for row in log] == list(range(1, 9))
    assert [row["gradient_norm"] is None for row in log] == [s in (4, 5) for s in range(1, 9)]
    assert_weights_of(monkeypatch, corpus, tmp_path, options, [0, 1, 5, 6, 7])


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
