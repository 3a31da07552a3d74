"""A small corpus and small training configs for the tests of training."""

import dataclasses
import json
from pathlib import Path

import hydra
from omegaconf import OmegaConf
from tokens_scored import documents, make_corpus

import model.training.training_run  # registers its configs
from model.training.train_config import OptimizerConfig

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
