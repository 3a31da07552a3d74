"""The logger that is optional: a stand-in for wandb keeps what it is given, as its server would."""

import importlib.machinery
import json
import sys
import types

import pytest
from training_runs import config, corpus_folder, train

from model.training.metrics_log import METRICS, MetricsLog
from model.training.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpus_folder(tmp_path_factory.mktemp("corpus"))


class Server(types.ModuleType):
    """wandb, as far as we use it. Of a run, a step that is not after the last one is an error here,
    where wandb would warn and drop it."""

    Settings = staticmethod(dict)

    class Error(Exception):
        pass

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        self.starts, self.rows, self.ends = [], {}, []

    def init(self, **options):
        self.starts.append(options)
        rows = self.rows.setdefault(options["id"], {})
        assert options["resume"] == "allow" or not rows
        return Session(self, rows)


class Session:
    def __init__(self, server, rows):
        self.server, self.rows = server, rows
        self.starting_step = max(rows) + 1 if rows else 0

    def log(self, data, step, commit):
        assert commit  # else the last one waits for the next
        assert step > max(self.rows, default=0)
        self.rows[step] = data

    def finish(self, exit_code):
        self.server.ends.append(exit_code)


@pytest.fixture
def wandb(monkeypatch):
    server = Server()
    monkeypatch.setitem(sys.modules, "wandb", server)
    return server


def numbers(output):
    """Those of each line of metrics.jsonl, by step and then by name, read in another way."""

    def flat(value, name):
        if isinstance(value, dict):
            return [pair for key in value for pair in flat(value[key], [*name, key])]
        if isinstance(value, list):
            return [pair for i, item in enumerate(value) for pair in flat(item, [*name, str(i)])]
        return [] if value is None else [("/".join(name), value)]

    lines = map(json.loads, (output / METRICS).read_text().splitlines())
    return {row["step"]: dict(flat(row, [])) for row in lines}


def breaks_off(monkeypatch, corpus, output, step, *options):
    """Train up to where this step would be taken, and there it ends."""
    whole = Trainer.step

    def breaks(self):
        if self.progress.step == step - 1:
            raise KeyboardInterrupt
        return whole(self)

    with monkeypatch.context() as context:
        context.setattr(Trainer, "step", breaks)
        with pytest.raises(KeyboardInterrupt):
            train(corpus, output, *options)


def test_it_gets_the_rows_of_metrics_jsonl_and_the_settings(wandb, corpus, tmp_path):
    train(corpus, tmp_path / "run", "log.wandb=study")
    (start,) = wandb.starts
    assert wandb.rows[start["id"]] == numbers(tmp_path / "run")
    assert {"heldout/web", "expert_load/0/3"} <= set(wandb.rows[start["id"]][8])
    assert wandb.ends == [0]
    assert (start["project"], start["dir"]) == ("study", str(tmp_path / "run"))
    settings = start["config"]
    assert settings["data"]["arm"] == "unfiltered"
    assert json.loads(json.dumps(settings)) == settings  # plain values


def test_a_number_that_is_not_finite_is_left_out(wandb, tmp_path):
    log = MetricsLog(str(tmp_path), 0, tensorboard=False, wandb="study")
    log.write({"step": 1, "loss": float("nan"), "heldout": {"web": float("inf"), "wiki": 1.0}})
    log.close()
    (rows,) = wandb.rows.values()
    assert rows == {1: {"step": 1.0, "heldout/wiki": 1.0}}


def test_a_run_that_broke_off_goes_on_there_too(wandb, corpus, tmp_path, monkeypatch):
    """Steps 4 and 5, after the checkpoint, are taken again: there they stay as they were."""
    options = ["log.wandb=study", "checkpoint.every=3"]
    breaks_off(monkeypatch, corpus, tmp_path, 6, *options)
    assert wandb.ends == [1]
    ((name, before),) = wandb.rows.items()
    before = dict(before)
    assert list(before) == [1, 2, 3, 4, 5]
    train(corpus, tmp_path, *options)
    assert list(wandb.rows) == [name]
    assert list(wandb.rows[name]) == list(range(1, 9))
    assert {step: wandb.rows[name][step] for step in before} == before
    assert {step: row["loss"] for step, row in wandb.rows[name].items()} == {
        step: row["loss"] for step, row in numbers(tmp_path).items()
    }
    assert wandb.ends == [1, 0]


def test_without_a_checkpoint_it_begins_anew_there_too(wandb, corpus, tmp_path, monkeypatch):
    options = ["log.wandb=study", "checkpoint.every=3"]
    breaks_off(monkeypatch, corpus, tmp_path, 3, *options)
    train(corpus, tmp_path, *options)
    assert [list(rows) for rows in wandb.rows.values()] == [[1, 2], list(range(1, 9))]


def test_two_runs_are_two(wandb, corpus, tmp_path):
    for name in ("a", "b"):
        train(corpus, tmp_path / name, "log.wandb=study", "train.tokens=128")
    assert [list(rows) for rows in wandb.rows.values()] == [[1, 2], [1, 2]]


def test_only_the_first_process_and_only_if_asked(wandb, corpus, tmp_path):
    log = MetricsLog(str(tmp_path), 0, tensorboard=False, wandb="study", active=False)
    log.write({"step": 1, "loss": 1.0})
    log.close()
    train(corpus, tmp_path, "train.tokens=128")
    assert not wandb.starts


def test_the_package_is_missed_before_anything_is_done(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install 'winnow-lm\[wandb\]'"):
        config(corpus, tmp_path / "run", "log.wandb=study")
    train(corpus, tmp_path / "run", "train.tokens=64")  # not asked for, not missed


def test_a_refusal_comes_before_the_first_step(wandb, corpus, tmp_path, monkeypatch):
    def refuse(**_):
        raise wandb.Error("no key")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match=r"no key\nSet WANDB_MODE=offline"):
        train(corpus, tmp_path, "log.wandb=study")
    assert not (tmp_path / METRICS).exists()
    train(corpus, tmp_path, "train.tokens=64")  # the folder was not spoilt
