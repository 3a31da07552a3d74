"""Runs that begin from the weights of another: what they take and refuse, how they resume."""

import dataclasses
import shutil

import pytest
import torch
from training_runs import config, rows, train, trainer_of

from model.data.corpus import open_corpus
from model.training import outcome
from model.training.checkpoints import checkpoint, trained
from model.training.trainer import Trainer

pytestmark = pytest.mark.slow

DECAY = ["train.tokens=256", "seed=9", "optimizer.schedule=wsd", "optimizer.decay_share=1"]


@pytest.fixture(scope="module")
def trunk(corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("trunk")
    train(corpus, output, "optimizer.schedule=constant", "train.tokens=256", "checkpoint.keep=9")
    return output


@pytest.fixture(scope="module")
def decayed(corpus, trunk, tmp_path_factory):
    output = tmp_path_factory.mktemp("decay")
    return output, train(corpus, output, f"train.start={trunk}", *DECAY)


def begun(corpus, output, *overrides):
    """A trainer that has made no step yet."""
    output.mkdir(exist_ok=True)
    trainer = trainer_of(corpus, output, *overrides)
    trainer.begin()
    return trainer


def state(trainer):
    return checkpoint.tensors(trainer.model, trainer.optimizer)


def test_weights_and_the_optimizer_s_state_are_those_of_the_checkpoint(corpus, trunk, tmp_path):
    found = checkpoint.resolve(str(trunk))
    trainer = begun(corpus, tmp_path, f"train.start={trunk}", "seed=9")
    other = begun(corpus, tmp_path / "other", "seed=9")
    checkpoint.materialise(other.model, other.optimizer)
    wanted = state(other)
    checkpoint.load(found, wanted)
    assert state(trainer).keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in state(trainer).items())
    assert trainer.progress.step == 0
    assert trainer.start.tokens == 256
    assert trainer.start.updates == 4


def test_weights_alone_go_with_another_optimizer(corpus, trunk, tmp_path):
    alone = ["train.start_optimizer=false", "optimizer=adamw"]
    trainer = begun(corpus, tmp_path, f"train.start={trunk}", *alone)
    weights = trained.load(str(trunk), torch.device("cpu"), torch.float32).model.named_parameters()
    own = dict(trainer.model.named_parameters())
    assert all(torch.equal(own[name], value) for name, value in weights)
    assert not trainer.optimizer.state
    assert trainer.start.updates == 0


def test_it_is_a_run_of_its_own(corpus, decayed, tmp_path):
    """It reads what a run of its seed reads from its first step on, at its own rates."""
    output, ended = decayed
    assert ended.tokens == 256
    assert ended.start["tokens"] == 256
    assert [row["step"] for row in rows(output)] == [1, 2, 3, 4]
    rates = [row["learning_rate"] for row in rows(output)]
    assert rates == pytest.approx([0.01 * (1 - 0.9 * step / 4) for step in (1, 2, 3, 4)])
    fresh = begun(corpus, tmp_path, *DECAY)
    assert fresh.stream.fingerprint == ended.stream
    outcome.write(str(tmp_path), dataclasses.replace(ended, start=None))
    assert "start" not in (tmp_path / outcome.OUTCOME).read_text()  # as it was before
    assert outcome.read(str(tmp_path)).start is None


def test_it_resumes_bit_for_bit_also_when_the_start_is_gone(corpus, trunk, decayed, tmp_path):
    start, output = tmp_path / "start", tmp_path / "run"
    shutil.copytree(trunk, start)
    asked = [f"train.start={start}", *DECAY]
    settings = config(corpus, output, *asked)
    output.mkdir()
    halfway = Trainer(settings, open_corpus(str(corpus)), torch.device("cpu"))
    halfway.begin()
    for _ in range(2):
        halfway.step()
    halfway.save()
    train(corpus, start, "optimizer.schedule=constant", "train.tokens=512")  # it goes on …
    shutil.rmtree(start)  # … and is deleted
    resumed = train(corpus, output, *asked)
    assert resumed.heldout == decayed[1].heldout
    assert resumed.start["content"] == decayed[1].start["content"]


def test_from_another_start_it_does_not_resume(corpus, trunk, decayed, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(decayed[0], output)
    first = sorted((trunk / "checkpoints").iterdir())[0]
    with pytest.raises(ValueError, match=r"give the same train\.start to resume"):
        train(corpus, output, f"train.start={first}", *DECAY)
    with pytest.raises(ValueError, match=r"train\.start: \w+ then, None now"):
        train(corpus, output, *DECAY)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["model.hidden=64"], "model.hidden: 32 there, 64 here"),
        (["optimizer=adamw"], "train.start_optimizer=false"),
        (["train.start=nowhere"], "holds no checkpoint"),
    ],
)
def test_what_does_not_fit_is_refused(corpus, trunk, tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        begun(corpus, tmp_path, f"train.start={trunk}", *changes)


def test_another_tokenizer_is_refused(corpus, trunk, tmp_path):
    shutil.copytree(trunk, tmp_path / "start")
    with (tmp_path / "start" / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match="another tokenizer"):
        begun(corpus, tmp_path / "run", f"train.start={tmp_path / 'start'}")


def test_runs_without_a_start_have_the_identity_that_they_had(corpus, tmp_path):
    """So that their checkpoints still resume."""
    about = config(corpus, tmp_path).identity()
    assert not {"start", "start_optimizer", "tokens"} & about["train"].keys()
    assert "decay_share" not in about["optimizer"]
    settings = config(corpus, tmp_path, "optimizer.schedule=wsd")
    longer = dataclasses.replace(settings, train=dataclasses.replace(settings.train, tokens=10_000))
    assert settings.identity() != longer.identity()
