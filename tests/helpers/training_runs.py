"""A small corpus and small training configs for the tests of training."""

import dataclasses
import json
from pathlib import Path

import hydra
import torch
from omegaconf import OmegaConf
from tokens_scored import documents, make_corpus

import model.training.training_run  # registers its configs
from model.data.corpus import open_corpus
from model.training.checkpoints import trained
from model.training.train_config import OptimizerConfig
from model.training.trainer import Trainer

TINY = [
    "model.vocabulary=300",
    "model.layers=2",
    "model.width=16",
    "model.hidden=32",
    "model.heads=2",
    "model.head_width=8",
    "model.experts=4",
    "data.sequence_length=16",
    "train.batch_rows=4",
    "train.tokens=512",
    "train.precision=fp32",
    "train.device=cpu",
    "evaluate.every=4",
    "evaluate.bytes=2000",
    "evaluate.rows=8",
    "checkpoint.every=2",
    "log.tensorboard=false",
    "log.peak_tflops=0.1",
    "seed=3",
]

CONF = Path(__file__).parents[2] / "conf"

TIMES = ("tokens_per_second", "flops_utilisation", "seconds")


def corpus_folder(folder):
    make_corpus(folder, [documents(80, seed=1), documents(60, seed=2)])
    return folder / "corpus"


def composed(*overrides):
    """The config as Hydra makes it, not yet checked by its dataclass."""
    with hydra.initialize("../../conf", version_base="1.3"):
        return hydra.compose("train", overrides=[*TINY, *overrides])


def optimizer_settings(name, **changes):
    """Settings of an optimizer as ``conf`` has them, with changes.

    Read without Hydra, which takes a tenth of a second: every process that collects tests asks.
    """
    shared = OmegaConf.load(CONF / "train.yaml").optimizer
    own = OmegaConf.load(CONF / "optimizer" / f"{name}.yaml")
    del own["defaults"]
    settings = OmegaConf.merge(OptimizerConfig, shared, own)
    return dataclasses.replace(OmegaConf.to_object(settings), **changes)


def config(corpus, output, *overrides):
    paths = [f"data.corpus={corpus}", f"output={output}", "data.arm=unfiltered"]
    return OmegaConf.to_object(composed(*paths, *overrides))


def rows(output):
    """metrics.jsonl without what depends on the machine."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def train(corpus, output, *overrides):
    return model.training.training_run.train(config(corpus, output, *overrides))


def trainer_of(corpus, output, *overrides):
    settings = config(corpus, output, *overrides)
    return Trainer(settings, open_corpus(str(corpus)), torch.device("cpu"))


def weights(output):
    return trained.load(str(output), torch.device("cpu"), torch.float32).model.state_dict()


def assert_same_weights(found, expected):
    for (name, one), (_, other) in zip(found.items(), expected.items(), strict=True):
        assert torch.equal(one, other), name


def assert_same_run(output, other):
    assert rows(output) == rows(other)
    assert (output / "heldout.arrow").read_bytes() == (other / "heldout.arrow").read_bytes()
    assert_same_weights(weights(output), weights(other))


def after_steps(monkeypatch, call):
    """Have each step followed by ``call(trainer, step)``."""
    step = Trainer.step

    def followed(self):
        row = step(self)
        call(self, self.progress.step)
        return row

    monkeypatch.setattr(Trainer, "step", followed)


def break_off_before(monkeypatch, number):
    """Have a run interrupted before it makes this step, from 1."""
    step = Trainer.step

    def breaks(self):
        if self.progress.step == number - 1:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "step", breaks)
